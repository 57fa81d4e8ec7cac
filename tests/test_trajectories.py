"""Trajectories and difficulties made by hand; RKD's students and what is measured of them; its claims."""

import dataclasses

import pytest
import torch
from test_notebooks import setup

from rkdkit import claims, data, profiles, runs, students
from rkdkit.analysis import trajectories
from rkdkit.analysis.intervals import Measure
from rkdkit.analysis.trajectories import Answers, Family, Trajectories
from rkdkit.checks import UnknownNameError
from rkdkit.papers import rkd_trajectories


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


N = 60
HARDNESS = torch.arange(N).flip(0) / N  # the last image is the easiest
NOISE = 0.01 * torch.cos(torch.arange(N))


def answers(teacher, plain, early, mixed, cosine):
    """Probabilities that go from the first number, at the easiest image, to the second, at the hardest."""
    teacher, plain, early, mixed, cosine = (
        [a + (b - a) * HARDNESS + i * NOISE] for i, (a, b) in enumerate((teacher, plain, early, mixed, cosine))
    )
    return Answers(teacher, plain, early, {0.3: mixed, 0.7: plain}, cosine)


def verdicts(robust, natural):
    measured = Trajectories(
        [HARDNESS],
        {
            "PGD-AT": dict(zip(("natural", "adversarial"), robust, strict=True)),
            "Natural": dict(zip(("natural", "adversarial"), natural, strict=True)),
        },
    )
    return measured, [claim.verdict for claim in rkd_trajectories.trajectory_claims(measured)]


def test_the_papers_claims_hold_for_answers_as_the_paper_draws_them():
    robust = (
        answers((0.95, 0.5), (0.9, 0.6), (0.8, 0.55), (0.92, 0.8), (1.0, 0.8)),
        answers((0.9, 0.3), (0.8, 0.5), (0.75, 0.4), (0.82, 0.7), (1.0, 0.5)),
    )
    natural = (
        answers((1.0, 0.6), (0.95, 0.75), (0.9, 0.6), (0.97, 0.9), (1.0, 0.8)),
        answers((0.3, 0.0), (0.35, 0.05), (0.45, 0.05), (0.4, 0.3), (0.8, 0.2)),
    )
    measured, as_in_the_paper = verdicts(robust, natural)
    assert as_in_the_paper == [claims.HOLDS] * len(as_in_the_paper)
    assert measured.mean(measured.difficulty, "hardest third").value == pytest.approx(HARDNESS[:20].mean().item())
    opposite = answers((0.5, 0.95), (0.6, 0.4), (0.7, 0.5), (0.4, 0.1), (0.5, 1.0))
    _, reversed_ = verdicts((opposite, opposite), (opposite, opposite))
    assert claims.HOLDS not in reversed_[:2] + reversed_[3:5] + reversed_[6:11]
    same = answers((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5))
    assert set(verdicts((same, same), (same, same))[1]) == {claims.OPEN}


def test_the_table_goes_from_the_easiest_to_the_hardest_image():
    one = answers((0.9, 0.3), (0.9, 0.5), (0.9, 0.4), (0.9, 0.6), (1.0, 0.5))
    table = Trajectories([HARDNESS, HARDNESS], {"Natural": {"natural": one}}).table(window=0.2)
    teacher = table[table.quantity == "p_T,K"]
    assert list(teacher.image) == list(reversed(range(N)))
    assert teacher.difficulty_nats.is_monotonic_increasing
    assert teacher.value.iloc[0] == pytest.approx(0.9)
    # of a straight line the running mean is the line, except at its ends
    inner = teacher.iloc[6:-6]
    half_a_step = 0.6 / N / 2  # a window of an even number of images has no middle one
    assert (inner.smoothed - inner.value).abs().max() <= half_a_step + 1e-6
    gains = table[table.quantity == "p_S,K - p_T,K"]
    names = ["AKD", "AKD, teacher stopped early", "AKD+, alpha 0.3", "AKD+, alpha 0.7"]
    assert list(gains.student.unique()) == names
    assert gains[gains.student == "AKD"].value.iloc[-1] == pytest.approx(0.2 * (1 - 1 / N), abs=0.02)


def test_several_seeds_are_each_ranked_by_their_own_difficulty():
    values = HARDNESS.clone()
    both = Trajectories([HARDNESS, 1 - HARDNESS], {})
    easy = both.mean([values, 1 - values], "easiest third")
    assert easy.value == pytest.approx(HARDNESS[-20:].mean().item(), abs=1 / N)
    assert easy.seeds == 2


TINY = {"epochs": 3, "attack_steps": 1, "test_steps": 2, "n_test": 12, "n_train": 64}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two teachers and their students on the digits 3 and 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        asked = profiles.setup({"profile": "smoke", **TINY}, **profiles.rkd("smoke", two_classes=True))
        return asked, students.families(asked, ["PGD-AT", "Natural"], [0.3], early_stop=0.3)


def test_a_family_is_a_teacher_and_its_students(trained):
    _, families = trained
    assert list(families) == ["PGD-AT", "Natural"]
    for method, family in families.items():
        (plain,), (early,), (mixed,) = family.plain, family.early, family.mixed[0.3]
        assert [run.spec.method for run in family.runs] == [method, "AKD", "AKD", "AKD+"]
        for run, epoch in ((plain, 3), (early, 1), (mixed, 3)):
            (teacher,) = run.spec.teachers
            assert (teacher.run, teacher.epoch) == (family.teacher[0].spec, epoch)
        assert dict(mixed.spec.settings)["mixing"] == 0.3
        assert plain.spec.dataset == "digits:3,8"


def test_trajectories_are_what_the_snapshots_answer(trained):
    asked, families = trained
    test, attack = asked.dataset.test.take(slice(0, 12)), asked.profile.test_attack
    measured = trajectories.trajectories(families["Natural"].teacher, families, test, attack, store=asked.store)
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
    natural = trajectories.trajectory(families["Natural"].teacher[0], test, store=asked.store)
    assert torch.equal(measured.difficulty[0], natural.mean(0))


def test_trainings_that_do_not_fit_are_refused(trained):
    asked, families = trained
    few, some = (asked.dataset.test.take(slice(0, n)) for n in (5, 6))
    family, ranked_by, attack = families["Natural"], families["Natural"].teacher, asked.profile.test_attack
    with pytest.raises(ValueError, match="but there are 5"):
        trajectories.trajectories(ranked_by, families, few, attack, store=asked.store)
    longer = dataclasses.replace(family.plain[0].spec, epochs=4)
    other = Family(family.teacher, [runs.ensure(longer, asked.store)], family.early, family.mixed)
    with pytest.raises(ValueError, match=r"snapshots at epochs 1, 2, 3 and AKD .* at 1, 2, 3, 4: train both"):
        trajectories.trajectories(ranked_by, {"Natural": other}, some, attack, store=asked.store)
    for shares, early_stop, message in (
        ([], 0.25, r"mixing must list one share .* not \[\]"),
        (0.3, 0.25, r"mixing must list one share .* not 0\.3"),
        ([1.5], 0.25, "mixing of AKD.* must be between 0 and 1"),
        ([0.3], 2, "early_stop.* must be between 0 and 1, not 2"),
    ):
        with pytest.raises(ValueError, match=message):
            students.families(asked, ["Natural"], shares, early_stop)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_at_every_profile_teacher_and_student_train_for_the_same_epochs(name):
    scale = dataclasses.replace(profiles.PROFILES[name], **profiles.rkd(name, two_classes=True))
    teacher = scale.spec("PGD-AT")
    student = scale.spec("AKD", teachers=(runs.Teacher(run=teacher),))
    assert student.epochs == teacher.epochs
    assert len(data.source_of(scale.dataset).classes) in (10, 2)
    assert ":" in scale.dataset
    assert (scale.n_train, scale.n_val, scale.n_test) == (None, 0, None)
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
