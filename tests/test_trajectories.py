"""Trajectories and difficulties made by hand; RKD's students and what is measured of them; its claims."""

import dataclasses

import pytest
import torch
from test_notebooks import setup

from rkdkit import claims, comparisons, data, profiles, runs
from rkdkit.analysis import trajectories
from rkdkit.analysis.trajectories import Answers, Family, Trajectories
from rkdkit.checks import UnknownNameError
from rkdkit.papers import rkd_trajectories
from rkdkit.statistics import Measure


def test_difficulty_is_the_mean_loss_over_the_epochs():
    losses = torch.tensor([[2.0, 0.1], [1.0, 0.1], [0.0, 0.1]])
    assert trajectories.difficulty(losses).tolist() == pytest.approx([1.0, 0.1])


def test_similarity_is_the_cosine_of_the_probabilities():
    student = -torch.tensor([[1.0, 1.0, 0.2], [1.0, 0.5, 0.4]]).log()
    teacher = -torch.tensor([[0.3, 1.0, 0.4], [1e-30, 0.5, 0.2]]).log()
    known = [2**-0.5, 1.0, (0.08 + 0.08) / 0.2]
    assert trajectories.similarity(student, teacher).tolist() == pytest.approx(known, abs=1e-6)
    assert trajectories.similarity(student + 300, teacher).tolist() == pytest.approx(known, abs=1e-6), "tiny alike"


def test_a_difference_of_different_images_adds_both_uncertainties():
    apart = trajectories.gap(Measure(0.6, 0.3, 0.7, 50), Measure(0.2, 0.1, 0.6, 40))
    assert (apart.value, apart.n) == (pytest.approx(0.4), 90)
    assert (apart.low, apart.high) == pytest.approx((0.4 - 0.5, 0.4 + 0.1 * 2**0.5))


N = 120
HARDNESS = torch.arange(N).flip(0) / N  # the last image is the easiest


def answers(teacher, plain, early, mixed, cosine, high=None, noise=0.02):
    """Probabilities that go from the first number, at the easiest image, to the second, at the hardest."""
    teacher, plain, early, mixed, cosine, high = (
        [(a + (b - a) * HARDNESS + noise * torch.cos(i * torch.arange(N))).clamp(0, 1)]
        for i, (a, b) in enumerate((teacher, plain, early, mixed, cosine, high or plain), start=1)
    )
    return Answers(teacher, plain, early, {0.3: mixed, 0.7: high}, cosine, 5)


def checked(robust, natural):
    by_images = {"PGD-AT": robust, "Natural": natural}
    answered = {teacher: dict(zip(("natural", "adversarial"), two, strict=True)) for teacher, two in by_images.items()}
    measured = Trajectories([HARDNESS], answered)
    return measured, rkd_trajectories.trajectory_claims(measured)


def verdicts(found):
    return {claim.text: claim.verdict for claim in found}


AS_THE_PAPER_DRAWS_THEM = (
    (
        answers((0.95, 0.5), (0.9, 0.55), (0.7, 0.75), (0.94, 0.85), (1.0, 0.8)),
        answers((0.9, 0.2), (0.8, 0.5), (0.6, 0.75), (0.85, 0.8), (1.0, 0.5)),
    ),
    (
        answers((1.0, 0.3), (0.9, 0.6), (0.9, 0.4), (0.97, 0.9), (1.0, 0.8)),
        answers((0.3, 0.0), (0.35, 0.1), (0.45, 0.1), (0.7, 0.6), (0.8, 0.2), (0.4, 0.3)),
    ),
)
THE_CONTRARY = (
    (
        answers((0.6, 0.8), (0.7, 0.5), (0.8, 0.4), (0.6, 0.2), (0.5, 0.7), (0.65, 0.4)),
        answers((0.6, 0.9), (0.75, 0.5), (0.95, 0.2), (0.6, 0.2), (0.6, 0.9), (0.65, 0.4)),
    ),
    (
        answers((0.5, 0.9), (0.75, 0.3), (0.6, 0.5), (0.6, 0.05), (0.3, 0.5)),
        answers((0.9, 0.1), (0.8, 0.05), (0.6, 0.1), (0.2, 0.1), (0.6, 0.9), (0.1, 0.05)),
    ),
)


def test_the_papers_claims_hold_for_answers_as_the_paper_draws_them_and_fail_for_the_contrary():
    measured, found = checked(*AS_THE_PAPER_DRAWS_THEM)
    assert {text: verdict for text, verdict in verdicts(found).items() if verdict != claims.HOLDS} == {}
    assert len(verdicts(found)) == len(found) == 39
    assert measured.mean(measured.difficulty, "hardest third").value == pytest.approx(HARDNESS[:40].mean().item())
    right = answers((0.4, 0.4), (0.9, 0.6), (0.9, 0.6), (0.9, 0.6), (1.0, 1.0))
    contrary = verdicts(checked(*THE_CONTRARY)[1])
    contrary |= verdicts(rkd_trajectories._misclassified(checked([right] * 2, [right] * 2)[0], 0.3))
    assert {text: verdict for text, verdict in contrary.items() if verdict != claims.FAILS} == {}
    same = [answers(*[(0.5, 0.5)] * 5)] * 2
    undecided = [claim.verdict for claim in checked(same, same)[1]]
    assert set(undecided) == {claims.OPEN}


def test_label_mixing_is_judged_at_the_share_nearest_the_papers():
    measured, _ = checked(*AS_THE_PAPER_DRAWS_THEM)

    def tried(*shares):
        answered = {
            teacher: {
                images: dataclasses.replace(a, mixed=dict.fromkeys(shares, a.mixed[0.3])) for images, a in of.items()
            }
            for teacher, of in measured.answers.items()
        }
        return " ".join(verdicts(rkd_trajectories.trajectory_claims(Trajectories([HARDNESS], answered))))

    several, one = tried(0.1, 0.3, 0.9), tried(0.7)
    assert "at alpha 0.3, make the student surer of the correct class than at 0.1" in several
    assert "At alpha 0.9, too, AKD's student is surer" in several
    assert "at alpha 0.1" not in several
    assert "at alpha 0.7, make the student surer of the correct class" in one
    assert "better than at" not in one, "the paper says nothing of other shares"
    assert "too" not in one


def test_a_student_like_its_teacher_does_not_seem_to_gain_on_what_another_network_finds_hard():
    random = torch.Generator().manual_seed(0)

    def gains(ranked_by_the_teacher):
        image = torch.randn(N, generator=random)
        teacher, student, other = ((image + torch.randn(N, generator=random)).sigmoid() for _ in range(3))
        hardness = [1 - (teacher if ranked_by_the_teacher else other)]
        gain = Trajectories(hardness, {}).minus([student], [teacher], "hardest third")
        return gain.low > 0

    n = 200
    assert sum(gains(False) for _ in range(n)) <= 0.07 * n, "2.5 % are chance"
    assert sum(gains(True) for _ in range(n)) > 0.5 * n, "as it would be if the teacher ranked the images"


def test_the_table_goes_from_the_easiest_to_the_hardest_image():
    one = answers((0.9, 0.3), (0.9, 0.5), (0.9, 0.4), (0.9, 0.6), (1.0, 0.5), noise=0)
    table = Trajectories([HARDNESS, HARDNESS], {"Natural": {"natural": one}}).table([*"abcd"] * (N // 4), window=0.2)
    teacher = table[table.quantity == "p_T,K"]
    assert list(teacher.image) == list(reversed(range(N)))
    assert list(teacher["class"]) == [*"dcba"] * (N // 4)
    assert teacher.difficulty_nats.is_monotonic_increasing
    assert teacher.value.iloc[0] == pytest.approx(0.9)
    # of a straight line the running mean is the line, except at its ends
    inner = teacher.iloc[12:-12]
    half_a_step = 0.6 / N / 2  # a window of an even number of images has no middle one
    assert (inner.smoothed - inner.value).abs().max() <= half_a_step + 1e-6
    gains = table[table.quantity == "p_S,K - p_T,K"]
    names = ["AKD", "AKD, teacher of epoch 5", "AKD+, alpha 0.3", "AKD+, alpha 0.7"]
    assert list(gains.student.unique()) == names
    assert gains[gains.student == "AKD"].value.iloc[-1] == pytest.approx(0.2 * (1 - 1 / N), abs=0.02)


def test_several_seeds_are_each_ranked_by_their_own_difficulty():
    values = HARDNESS.clone()
    both = Trajectories([HARDNESS, 1 - HARDNESS], {})
    easy = both.mean([values, 1 - values], "easiest third")
    assert easy.value == pytest.approx(HARDNESS[-40:].mean().item(), abs=1 / N)
    assert easy.seeds == 2


def test_intervals_stay_where_the_values_lie():
    far = Trajectories([HARDNESS] * 2, {})
    zero, one = [torch.zeros(N), torch.zeros(N)], [torch.ones(N), torch.zeros(N)]
    assert (far.mean(one).low, far.mean(one).high) == (0, 1)
    assert (far.minus(one, zero).low, far.minus(one, zero).high) == (-1, 1)
    assert far.minus(one, zero, bounds=(-1, 1)).high == 2
    slope = far.between([HARDNESS, 1 - HARDNESS], "hardest third", "easiest third")
    assert (slope.low, slope.high) == (-1, 1)
    right = far.mean([p > 0.5 for p in one], "hardest third")
    assert right.value == 0.5
    wilson = far.mean([torch.zeros(N, dtype=torch.bool)] * 2)
    assert 0 == wilson.low < wilson.high < 0.05


TINY = {"epochs": 3, "attack_steps": 1, "test_steps": 2, "n_test": 12, "n_train": 64}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two teachers and their students on the digits 3 and 8, and the network that ranks them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        asked = profiles.setup({"profile": "smoke", **TINY}, **profiles.rkd("smoke", two_classes=True))
        families = comparisons.families(asked, ["PGD-AT", "Natural"], [0.3], early_stop=0.3)
        return asked, families, comparisons.rankers(asked)


def test_a_family_is_a_teacher_and_its_students(trained):
    _, families, (ranker,) = trained
    assert list(families) == ["PGD-AT", "Natural"]
    for method, family in families.items():
        (plain,), (early,), (mixed,) = family.plain, family.early, family.mixed[0.3]
        assert [run.spec.method for run in family.runs] == [method, "AKD", "AKD", "AKD+"]
        for run, epoch in ((plain, 3), (early, 1), (mixed, 3)):
            (teacher,) = run.spec.teachers
            assert (teacher.run, teacher.epoch) == (family.teacher[0].spec, epoch)
        assert dict(mixed.spec.settings)["mixing"] == 0.3
        assert plain.spec.dataset == "digits:3,8"
        assert family.early_epoch == 1
    assert ranker.spec == dataclasses.replace(families["Natural"].teacher[0].spec, seed=1000)


def test_trajectories_are_what_the_snapshots_answer(trained):
    asked, families, ranked_by = trained
    test, attack = asked.dataset.test.take(slice(0, 12)), asked.profile.test_attack
    measured = trajectories.trajectories(ranked_by, families, test, attack, store=asked.store)
    teacher, student = families["PGD-AT"].teacher[0], families["PGD-AT"].plain[0]
    for images, by in (("natural", None), ("adversarial", attack)):
        found = measured.answers["PGD-AT"][images]
        p_teacher, p_student = (
            torch.stack(
                [
                    (-runs.per_image("cross entropy", run.snapshot(epoch=epoch), test, by, store=asked.store)).exp()
                    for epoch in (1, 2, 3)
                ]
            )
            for run in (teacher, student)
        )
        assert torch.allclose(found.teacher[0], p_teacher[-1])
        assert torch.allclose(found.plain[0], p_student[-1])
        cosine = (p_teacher * p_student).sum(0) / (p_teacher.norm(dim=0) * p_student.norm(dim=0))
        assert torch.allclose(found.cosine[0], cosine, atol=1e-5)
        assert torch.equal(found.gain(found.plain)[0], found.plain[0] - found.teacher[0])
        assert found.early_epoch == 1
    natural = trajectories.trajectory(ranked_by[0], test, store=asked.store)
    assert torch.equal(measured.difficulty[0], natural.mean(0))


def test_trainings_that_do_not_fit_are_refused(trained):
    asked, families, ranked_by = trained
    few, some = (asked.dataset.test.take(slice(0, n)) for n in (5, 6))
    family, attack = families["Natural"], asked.profile.test_attack
    with pytest.raises(ValueError, match="but there are 5"):
        trajectories.trajectories(ranked_by, families, few, attack, store=asked.store)
    with pytest.raises(ValueError, match=r"Natural.* would rank the images that it is compared on"):
        trajectories.trajectories(family.teacher, families, some, attack, store=asked.store)
    longer = dataclasses.replace(family.plain[0].spec, epochs=4)
    other = Family(family.teacher, [runs.ensure(longer, asked.store)], family.early, family.mixed)
    with pytest.raises(ValueError, match=r"snapshots at epochs 1, 2, 3 and AKD .* at 1, 2, 3, 4: train both"):
        trajectories.trajectories(ranked_by, {"Natural": other}, some, attack, store=asked.store)
    for shares, early_stop, message in (
        ([], 0.25, r"mixing must list one share .* not \[\]"),
        (0.3, 0.25, r"mixing must list one share .* not 0\.3"),
        ("0.3", 0.25, "A share in mixing must be a number, not '0'"),
        ([1.5], 0.25, "A share in mixing must be between 0 and 1, not 1.5"),
        ([True], 0.25, "A share in mixing must be a number, not True"),
        ([0.3, 1.0], 0.25, r"mixing must list different shares above 0 and below 1, not \[0\.3, 1\.0\]"),
        ([0, 0.3], 0.25, "mixing must list different shares"),
        ([0.3, 0.3], 0.25, "mixing must list different shares"),
        ([0.3], 2, "early_stop.* must be between 0 and 1, not 2"),
        ([0.3], None, "early_stop.* must be a number, not None"),
        ([0.3], 1, "early_stop=1 of 3 epochs comes nearest to the last snapshot"),
        ([0.3], 0.9, "early_stop=0.9 of 3 epochs comes nearest to the last snapshot"),
    ):
        with pytest.raises(ValueError, match=message):
            comparisons.families(asked, ["Natural"], shares, early_stop)
    with pytest.raises(ValueError, match="Set a lower early_stop, more epochs or a smaller snapshot_every"):
        comparisons.families(asked.changed(snapshot_every=3), ["Natural"], [0.3], 0.25)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_at_every_profile_teacher_and_student_train_for_the_same_epochs(name):
    scale = dataclasses.replace(profiles.PROFILES[name], **profiles.rkd(name, two_classes=True))
    teacher = scale.spec("PGD-AT")
    student = scale.spec("AKD", teachers=(runs.Teacher(run=teacher),))
    assert student.epochs == teacher.epochs
    assert len(data.source_of(scale.dataset).classes) in (10, 2)
    assert ":" in scale.dataset
    assert (scale.n_train, scale.n_val, scale.n_test) == (None, 0, None)
    assert scale.snapshot_every == 1
    schedules = {"paper": ("exponential", "onecycle")}
    assert (teacher.schedule, student.schedule) == schedules.get(name, ("onecycle", "onecycle"))
    whole = dataclasses.replace(profiles.PROFILES[name], **profiles.rkd(name))
    if name != "paper":
        assert whole.spec("PGD-AT") == profiles.PROFILES[name].spec("PGD-AT"), "shared with the other exhibits"


def test_an_unknown_profile_and_an_exhibits_own_parameter():
    with pytest.raises(UnknownNameError, match=r"Unknown profile 'quik'. Did you mean 'quick'"):
        profiles.rkd("quik")
    with pytest.raises(UnknownNameError, match="Unknown parameter 'mixing'"):
        setup(mixing=[0.3])
    assert profiles.setup({"profile": "smoke", "mixing": [0.3]}, ["mixing"]).overrides == {}
    with pytest.raises(ValueError, match="n_test must be between 6 and"):
        profiles.setup({"profile": "smoke", "n_test": 5}, fewest=6)
    with pytest.raises(UnknownNameError, match="This exhibit does not use select_on"):
        profiles.setup({"profile": "smoke", "select_on": "val"}, without=("select_on",), select_on="last")
    profiles.setup({"profile": "smoke", "select_on": None, "n_test": 6}, fewest=6, without=("select_on",))
    with pytest.raises(UnknownNameError, match=r"Unknown parameter 'select'\. .*Known: [^.]*\bseed\b") as refused:
        profiles.setup({"profile": "smoke", "select": "val"}, without=("select_on",))
    assert "select_on" not in str(refused.value), "what is refused is not offered"
