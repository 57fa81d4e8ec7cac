"""Trajectories and difficulties made by hand; RKD's students and what is measured of them; its claims."""

import dataclasses
import hashlib
import math
import re

import pandas as pd
import pytest
import torch
from agreed import agreed
from given import Given

from rkdkit import claims, executors, exhibits, profiles
from rkdkit.analysis import difficulty, trajectories
from rkdkit.analysis.trajectories import Answers, Family, Trajectories
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import fig12_trajectories as fig12
from rkdkit.measurements import PerImage
from rkdkit.references import Snapshot
from rkdkit.spec import Teacher
from rkdkit.statistics import Measure
from rkdkit.store import Store
from rkdkit.trainings import Run


def test_difficulty_is_the_mean_loss_over_the_epochs():
    losses = torch.tensor([[2.0, 0.1], [1.0, 0.1], [0.0, 0.1]])
    assert difficulty.difficulty(losses).tolist() == pytest.approx([1.0, 0.1])


def test_similarity_is_the_cosine_of_the_probabilities():
    student = -torch.tensor([[1.0, 1.0, 0.2], [1.0, 0.5, 0.4]]).log()
    teacher = -torch.tensor([[0.3, 1.0, 0.4], [1e-30, 0.5, 0.2]]).log()
    known = [2**-0.5, 1.0, (0.08 + 0.08) / 0.2]
    assert trajectories.similarity(student, teacher).tolist() == pytest.approx(known, abs=1e-6)
    assert trajectories.similarity(student + 300, teacher).tolist() == pytest.approx(known, abs=1e-6), "tiny alike"


def test_similarity_is_each_images_own_however_improbable_its_class():
    losses = torch.tensor([[0.1, 300.0, 5000.0], [0.1, 300.0 + math.log(2), 5000.0], [0.1, 300.0, 5000.0]])
    even = torch.tensor([[200.0, 0.2, 0.7]]).expand(3, 3)
    known = [1.0, 2.5 / math.sqrt(2.25 * 3), 1.0]
    assert trajectories.similarity(losses, even).tolist() == pytest.approx(known, abs=1e-5)
    assert trajectories.similarity(even, losses).tolist() == pytest.approx(known, abs=1e-5)


def test_a_difference_of_different_images_adds_both_uncertainties():
    apart = difficulty.gap(Measure(0.6, 0.3, 0.7, 50), Measure(0.2, 0.1, 0.6, 40))
    assert (apart.value, apart.n) == (pytest.approx(0.4), 90)
    assert (apart.low, apart.high) == pytest.approx((0.4 - 0.5, 0.4 + 0.1 * 2**0.5))


N = 120
HARDNESS = torch.arange(N).flip(0) / N  # the last image is the easiest


TEACHERS = ("PGD-AT", "Natural")

AGREE = "The trainings agree on which images are hard, so that they can be ranked."


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
    measured = Trajectories(agreed(HARDNESS), answered)
    return measured, fig12.check_claims(measured)


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
    assert len(verdicts(found)) == len(found) == 40
    assert measured.mean([HARDNESS], "hardest third").value == pytest.approx(HARDNESS[:40].mean().item())
    right = answers((0.4, 0.4), (0.9, 0.6), (0.9, 0.6), (0.9, 0.6), (1.0, 1.0))
    contrary = verdicts(checked(*THE_CONTRARY)[1])
    of_right_students = verdicts(checked([right] * 2, [right] * 2)[1])
    said_of_all = [text for text in of_right_students if "corrects no misclass" in text or "is not robust" in text]
    assert len(said_of_all) == 3
    contrary |= {text: of_right_students[text] for text in said_of_all}
    assert {text: v for text, v in contrary.items() if v != claims.FAILS} == {AGREE: claims.HOLDS}
    same = [answers(*[(0.5, 0.5)] * 5)] * 2
    undecided = [claim.verdict for claim in checked(same, same)[1] if claim.text != AGREE]
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
        return " ".join(verdicts(fig12.check_claims(Trajectories(agreed(HARDNESS), answered))))

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
        hardness = agreed(1 - (teacher if ranked_by_the_teacher else other))
        gain = Trajectories(hardness, {}).minus([student], [teacher], "hardest third")
        return gain.low > 0

    n = 200
    assert sum(gains(False) for _ in range(n)) <= 0.07 * n, "2.5 % are chance"
    assert sum(gains(True) for _ in range(n)) > 0.5 * n, "as it would be if the teacher ranked the images"


def test_the_table_goes_from_the_easiest_to_the_hardest_image():
    one = answers((0.9, 0.3), (0.9, 0.5), (0.9, 0.4), (0.9, 0.6), (1.0, 0.5), noise=0)
    table = Trajectories(agreed(HARDNESS), {"Natural": {"natural": one}}).table([*"abcd"] * (N // 4), window=0.2)
    teacher = table[table.quantity == "p_T,K"]
    assert list(teacher.image) == list(reversed(range(N)))
    assert list(teacher["class"]) == [*"dcba"] * (N // 4)
    assert teacher.difficulty.is_monotonic_increasing
    assert teacher.value.iloc[0] == pytest.approx(0.9)
    # of a straight line the running mean is the line, except at its ends
    inner = teacher.iloc[12:-12]
    half_a_step = 0.6 / N / 2  # a window of an even number of images has no middle one
    assert (inner.smoothed - inner.value).abs().max() <= half_a_step + 1e-6
    of_panels = table.groupby(["quantity", "student"]).figure.unique().map(list).to_dict()
    assert of_panels == {
        ("p_T,K", ""): ["14a"],
        ("cosine", "AKD"): ["13a"],
        ("p_S,K - p_T,K", "AKD"): ["14b, 16a, 17a"],
        ("p_S,K - p_T,K", "AKD, teacher of epoch 5"): ["16a"],
        ("p_S,K - p_T,K", "AKD+, alpha 0.3"): ["17a"],
        ("p_S,K - p_T,K", "AKD+, alpha 0.7"): ["17a"],
    }
    gains = table[table.quantity == "p_S,K - p_T,K"]
    names = ["AKD", "AKD, teacher of epoch 5", "AKD+, alpha 0.3", "AKD+, alpha 0.7"]
    assert list(gains.student.unique()) == names
    assert gains[gains.student == "AKD"].value.iloc[-1] == pytest.approx(0.2 * (1 - 1 / N), abs=0.02)


def test_the_table_follows_some_images_over_some_epochs():
    one = answers((0.9, 0.3), (0.9, 0.5), (0.9, 0.4), (0.9, 0.6), (1.0, 0.5))
    epochs = tuple(range(2, 102, 2))
    course = torch.tensor(epochs)[:, None] / 1000 + HARDNESS / 2
    courses = {"p_T,k": [course], "p_S,k": [course, course + 0.1]}
    followed = dataclasses.replace(one, epochs=epochs, courses=courses)
    table = Trajectories(agreed(HARDNESS), {"Natural": {"adversarial": followed}}).table([*"abcd"] * (N // 4))
    plain = Trajectories(agreed(HARDNESS), {"Natural": {"adversarial": one}}).table([*"abcd"] * (N // 4))
    pd.testing.assert_frame_equal(table[table.epoch.isna()], plain)
    rows = table[table.epoch.notna()]
    assert list(table.columns) == list(plain.columns)
    assert list(rows.quantity.unique()) == ["p_T,k", "p_S,k"]
    for (quantity, epoch), part in rows.groupby(["quantity", "epoch"]):
        assert len(part) == 40
        assert [part.image.iloc[0], part.image.iloc[-1]] == [N - 1, 0], "from the easiest to the hardest"
        assert part.difficulty.is_monotonic_increasing
        expected = [epoch / 1000 + HARDNESS[i].item() / 2 + (0.05 if quantity == "p_S,k" else 0) for i in part.image]
        assert list(part.value) == pytest.approx(expected, abs=1e-4), "with several seeds, their mean"
        assert list(part["class"]) == ["abcd"[i % 4] for i in part.image]
    told = sorted(rows.epoch.unique())
    assert (len(told), told[0], told[-1]) == (20, 2, 100)
    assert set(rows.teacher) == {"Natural"}
    assert set(rows.images) == {"adversarial"}
    assert set(rows.figure) == {""}, "it is none of the paper's"
    assert dict(zip(rows.quantity, rows.student, strict=True)) == {"p_T,k": "", "p_S,k": "AKD"}


def test_every_panel_of_the_papers_ten_figures_is_in_the_table():
    named = [figure for of in trajectories.FIGURES.values() for figure in of.values()]
    assert len(set(named)) == len(named) == 20
    assert {int(re.match(r"\d+", figure)[0]) for figure in named} == {6, 7, *range(10, 18)}
    assert {images: of["early"][-1] for (_, images), of in trajectories.FIGURES.items()} == {
        "natural": "a", "adversarial": "b"
    }  # fmt: skip
    other = Trajectories(agreed(HARDNESS), {"TRADES": {"natural": AS_THE_PAPER_DRAWS_THEM[0][0]}})
    assert set(other.table([*"abcd"] * (N // 4)).figure) == {""}


def test_several_seeds_are_ranked_by_the_same_trainings():
    easy = Trajectories(agreed(HARDNESS), {}).mean([HARDNESS, 1 - HARDNESS], "easiest third")
    assert easy.value == pytest.approx(0.5)
    assert easy.seeds == 2


def test_where_trainings_do_not_agree_nothing_is_said_of_easy_and_hard_images():
    measured, found = checked(*AS_THE_PAPER_DRAWS_THEM)
    opposite = difficulty.Difficulty(torch.stack([HARDNESS, 1 - HARDNESS]), torch.zeros(N, dtype=torch.int64))
    said = fig12.check_claims(dataclasses.replace(measured, difficulty=opposite))
    assert (said[0].text, said[0].verdict) == (AGREE, claims.FAILS)
    assert 0 < len(said) < len(found)
    parts = [side.name for claim in said[1:] for side in (claim.higher, claim.lower)]
    assert not [name for name in parts if "third" in name]
    assert {claim.text for claim in said} < {claim.text for claim in found}


def test_intervals_stay_where_the_values_lie():
    far = Trajectories(agreed(HARDNESS), {})
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


def constant(base):
    """Answers that are the same for all images: one more hundredth for each of what may be compared."""
    teacher, plain, early, mixed, cosine, high = ([torch.full((N,), base + 0.01 * i)] for i in range(1, 7))
    return Answers(teacher, plain, early, {0.3: mixed, 0.7: high}, cosine, 5)


def test_what_a_claim_compares_is_what_it_says():
    """The sides of a claim tell, by their value, of whose answers to which images they are."""
    base = {("PGD-AT", "natural"): 0.1, ("PGD-AT", "adversarial"): 0.2, ("Natural", "natural"): 0.3}
    base |= {("Natural", "adversarial"): 0.4}
    of = {
        "p_T,K": 0.01,
        "p_S,K": 0.02,
        "p_S,K of the early teacher's student": 0.03,
        "p_S,K with labels mixed in": 0.04,
        "p_S,K at alpha 0.7": 0.06,
        "cosine": 0.05,
    }
    of_no_base = {
        "p_S,K - p_T,K": 0.01,
        "p_S,K gained by stopping early": 0.01,
        "p_S,K gained by mixing labels in": 0.02,
        "accuracy": 0.0,
        "accuracy with labels mixed in": 0.0,
    }
    both = [[constant(base[teacher, images]) for images in ("natural", "adversarial")] for teacher in TEACHERS]
    _, found = checked(*both)
    for claim in found[1:-3]:
        for side in (claim.higher, claim.lower):
            quantity, _, words = side.name.removesuffix(")").partition(" (")
            (whose,) = [key for key in base if words.startswith(f"{key[0]} teacher, {key[1]} images")]
            expected = of_no_base[quantity] if quantity in of_no_base else base[whose] + of[quantity]
            assert side.estimate.value == pytest.approx(expected, abs=1e-6), (claim.text, side.name)
            part = words.partition("images")[2].removeprefix(", ")
            size = {"": N, "easiest third": 40, "hardest third": 40, "all but the hardest third": 80}[part]
            assert side.estimate.n == size, (claim.text, side.name)
        gap = claim.higher.estimate.value - claim.lower.estimate.value
        assert claim.difference.value == pytest.approx(gap, abs=1e-6), claim.text


def given_loss(task):
    """A loss of each image, another for every network, epoch and attack: (N,) in [0, 3) nats."""
    snapshot = task.snapshot
    assert (task.quantity, snapshot.role) == ("cross entropy", "student")
    asked = f"{snapshot.spec.id} {snapshot.epoch} {task.attack}"
    seed = int(hashlib.sha256(asked.encode()).hexdigest()[:12], 16)
    return 3 * torch.rand(len(task.images), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def given(tmp_path):
    """An executor that trains nothing."""
    with executors.using(Given(Store(tmp_path), given_loss)) as executor:
        yield executor


def asked_for(**parameters):
    return exhibits.setup("fig12_trajectories", "smoke", **{"epochs": 3, "n_test": 12, **parameters})


def by_hand(asked, method, seed):
    """The specifications of a family: teacher, plain, early, and mixed by their share."""
    scale = asked.profile
    teacher = scale.spec(method, seed, student="resnet18/8")

    def student(name, epoch, **settings):
        guide = Teacher(run=teacher, epoch=epoch)
        return scale.spec(name, seed, settings=tuple(settings.items()), teachers=(guide,))

    mixed = {alpha: student("AKD+", 3, mixing=alpha) for alpha in (0.3, 0.7)}
    return teacher, student("AKD", 3), student("AKD", 1), mixed


@pytest.mark.usefixtures("given")
def test_a_family_is_a_teacher_and_its_students():
    asked = asked_for(n_seeds=2, teacher="resnet18/8")
    families, ranked_by = trajectories.train(asked, TEACHERS, [0.3, 0.7], early_stop=0.3, n_rankers=2)
    assert list(families) == list(TEACHERS)
    for method, family in families.items():
        for seed in (0, 1):
            teacher, plain, early, mixed = by_hand(asked, method, seed)
            assert family.teacher[seed].spec == teacher
            assert family.plain[seed].spec == plain
            assert family.early[seed].spec == early
            assert {alpha: of_seeds[seed].spec for alpha, of_seeds in family.mixed.items()} == mixed
            assert dict(mixed[0.7].settings)["mixing"] == 0.7
        assert family.early_epoch == 1
    natural = [run.spec for run in families["Natural"].teacher]
    rankers = [dataclasses.replace(natural[0], seed=seed, lr=natural[0].lr / 10) for seed in (1000, 2000)]
    assert [run.spec for run in ranked_by] == rankers, "the same for both seeds"
    assert {spec.dataset for family in families.values() for spec in family.specs} == {"digits:3,8"}


def test_each_answer_is_of_the_network_and_the_images_that_it_is_called_by(given):
    asked = asked_for(n_seeds=2, teacher="resnet18/8")
    families, ranked_by = trajectories.train(asked, TEACHERS, [0.3, 0.7], early_stop=0.3, n_rankers=2)
    attack = asked.profile.test_attack
    given.gathered.clear()
    measured = trajectories.measure(ranked_by, families, asked.images, attack, within_class=True)
    assert len(given.gathered) == 1, "all networks are asked about together"

    def loss(spec, epoch, by=None):
        snapshot = Snapshot(spec, epoch=epoch)
        return given_loss(PerImage(images=asked.images, quantity="cross entropy", snapshot=snapshot, attack=by))

    def probability(spec, by, epoch=3):
        return torch.exp(-loss(spec, epoch, by))

    for method in TEACHERS:
        for images, by in (("natural", None), ("adversarial", attack)):
            found = measured.answers[method][images]
            assert found.early_epoch == 1
            for seed in (0, 1):
                teacher, plain, early, mixed = by_hand(asked, method, seed)
                assert torch.equal(found.teacher[seed], probability(teacher, by))
                assert torch.equal(found.plain[seed], probability(plain, by))
                assert torch.equal(found.early[seed], probability(early, by))
                assert found.mixed.keys() == mixed.keys()
                for alpha, spec in mixed.items():
                    assert torch.equal(found.mixed[alpha][seed], probability(spec, by))
                p_teacher, p_student = (
                    torch.stack([probability(spec, by, epoch) for epoch in (1, 2, 3)]) for spec in (teacher, plain)
                )
                cosine = (p_teacher * p_student).sum(0) / (p_teacher.norm(dim=0) * p_student.norm(dim=0))
                assert torch.allclose(found.cosine[seed], cosine, atol=1e-6)
                assert found.epochs == (1, 2, 3)
                assert torch.equal(found.courses["p_T,k"][seed], p_teacher)
                assert torch.equal(found.courses["p_S,k"][seed], p_student)
                gain = probability(early, by) - probability(teacher, by)
                assert torch.equal(found.gain(found.early)[seed], gain), "over the teacher's last epoch"
    for i, run in enumerate(ranked_by):
        hardness = sum(loss(run.spec, epoch) for epoch in (1, 2, 3)) / 3
        assert torch.allclose(measured.difficulty.scores[i], hardness)
    assert torch.equal(measured.difficulty.groups, asked.images.split().labels)


@pytest.mark.usefixtures("given")
def test_trainings_that_do_not_fit_are_refused():
    asked = asked_for()
    families, ranked_by = trajectories.train(asked, ["Natural"], [0.3], early_stop=0.3, n_rankers=2)
    some, family, attack = asked.images.first(6), families["Natural"], asked.profile.test_attack
    trajectories.measure(ranked_by, families, some, attack, within_class=True)
    with pytest.raises(ValueError, match="but there are 5"):
        trajectories.measure(ranked_by, families, some.first(5), attack, within_class=True)
    for run in (family.teacher, family.plain, family.early, family.mixed[0.3]):
        with pytest.raises(ValueError, match=r"would rank the images that it is compared on"):
            trajectories.measure(run, families, some, attack, within_class=True)
    longer = Run(dataclasses.replace(family.plain[0].spec, epochs=4), None)
    other = Family(family.teacher, [longer], family.early, family.mixed)
    with pytest.raises(ValueError, match=r"snapshots at epochs 1, 2, 3 and AKD .* at 1, 2, 3, 4: train both"):
        trajectories.measure(ranked_by, {"Natural": other}, some, attack, within_class=True)


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize(
    ("shares", "early_stop", "message"),
    [
        ([], 0.25, r"mixing must list at least one weight .* not \[\]"),
        (0.3, 0.25, r"mixing must list at least one weight .* not 0\.3"),
        ("0.3", 0.25, "A weight in mixing must be a number, not '0'"),
        ([1.5], 0.25, r"A weight in mixing must be between 0 and 1, not 1\.5"),
        ([True], 0.25, "A weight in mixing must be a number, not True"),
        ([0.3, 1.0], 0.25, r"mixing must list different weights above 0 and below 1, not \[0\.3, 1\.0\]"),
        ([0, 0.3], 0.25, "mixing must list different weights"),
        ([0.3, 0.3], 0.25, "mixing must list different weights"),
        ([0.3], 2, r"early_stop.* must be between 0 and 1, not 2"),
        ([0.3], None, r"early_stop.* must be a number, not None"),
        ([0.3], 0, r"early_stop must be above 0"),
        ([0.3], 1, "early_stop=1 of 3 epochs comes nearest to the last snapshot"),
        ([0.3], 0.9, r"early_stop=0\.9 of 3 epochs comes nearest to the last snapshot"),
    ],
)
def test_shares_that_do_not_fit_are_refused(shares, early_stop, message):
    with pytest.raises(ValueError, match=message):
        trajectories.train(asked_for(), ["Natural"], shares, early_stop, 2)


@pytest.mark.usefixtures("given")
def test_data_and_snapshots_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Set a lower early_stop, more epochs or a smaller snapshot_every"):
        trajectories.train(asked_for(snapshot_every=3), ["Natural"], [0.3], 0.25, 2)
    with pytest.raises(ValueError, match="are of two classes, and digits has 10: name two of them"):
        trajectories.train(asked_for(dataset="digits"), ["Natural"], [0.3], 0.25, 2)


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("name", profiles.PROFILES)
def test_at_every_profile_teacher_and_student_train_for_the_same_epochs(name):
    scale = exhibits.setup("fig12_trajectories", name).profile
    teacher = scale.spec("PGD-AT")
    student = scale.spec("AKD", teachers=(Teacher(run=teacher, epoch=teacher.epochs),))
    assert student.epochs == teacher.epochs
    two = {"digits": "digits:3,8", "cifar10": "cifar10:airplane,automobile"}
    assert scale.dataset == two[profiles.PROFILES[name].dataset]
    assert (scale.n_train, scale.n_val, scale.n_test) == (None, 0, None)
    assert (scale.snapshot_every, scale.select_on) == (1, "last")
    assert scale.eps == {"digits:3,8": 0.15}.get(scale.dataset)
    schedules = {"paper": ("exponential", "onecycle")}
    assert (teacher.schedule, student.schedule) == schedules.get(name, ("onecycle", "onecycle"))
    whole = exhibits.setup("fig11_entropy", name).profile
    if name != "paper":
        assert whole.spec("PGD-AT") == profiles.PROFILES[name].spec("PGD-AT"), "shared with the other exhibits"


def test_an_unknown_profile_and_parameters_that_do_not_fit():
    with pytest.raises(UnknownNameError, match=r"Unknown profile 'quik'\. Did you mean 'quick'"):
        exhibits.setup("fig12_trajectories", "quik")
    with pytest.raises(UnknownNameError, match="Unknown parameter 'mixing'"):
        exhibits.setup("fig12_trajectories", "smoke", mixing=[0.3])
    with pytest.raises(ValueError, match="n_test must be between 6 and"):
        exhibits.setup("fig12_trajectories", "smoke", n_test=5)
    with pytest.raises(UnknownNameError, match="This exhibit does not use select_on"):
        exhibits.setup("fig12_trajectories", "smoke", select_on="val")
    assert exhibits.setup("fig12_trajectories", "smoke", select_on=None, n_test=6).overrides == {"n_test": 6}
    with pytest.raises(UnknownNameError, match=r"Unknown parameter 'select'\. .*Known: [^.]*\bseed\b") as refused:
        exhibits.setup("fig12_trajectories", "smoke", select="val")
    assert "select_on" not in str(refused.value), "what is refused is not offered"
