"""RKD's Figures 1, 2 and 4: the students that are asked for, what is measured of them, and claims judged rightly."""

import math

import pandas as pd
import pytest
import torch
from artists import lines, xy
from given import Given
from matplotlib.colors import to_rgb
from test_comparisons import made_up
from test_exhibits import Reached, run_until_training

from rkdkit import attacks, claims, comparisons, executors, exhibits, figures
from rkdkit.analysis import mixing
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.checks import UnknownNameError
from rkdkit.comparisons import Guide
from rkdkit.evaluation import Evaluation
from rkdkit.exhibits import fig8_early_stopping_label_mixing as fig8
from rkdkit.exhibits import fig9_teacher_robustness as fig9
from rkdkit.exhibits import fig11_entropy as fig11
from rkdkit.figures import look, trade_offs
from rkdkit.measurements import CorrectPredictions
from rkdkit.store import Store
from rkdkit.trainings import Train

FIG8, FIG9, FIG10 = "fig8_early_stopping_label_mixing", "fig9_teacher_robustness", "fig10_ensemble_mixing"

pytestmark = pytest.mark.usefixtures("closed", "nothing")


def asked_of(executor):
    """The trainings of one gather: the only one."""
    (tasks,) = (tasks for tasks in executor.gathered if isinstance(tasks[0], Train))
    return [task.spec for task in tasks]


def taught(specs):
    """Method, weight of the teacher's outputs, teacher and its epoch, and both networks, of every student."""
    return [
        (
            spec.method.removesuffix("+"),
            dict(spec.settings).get("mixing", 1.0),
            spec.teachers[0].run.method,
            spec.teachers[0].epoch,
            spec.student,
            spec.teachers[0].run.student,
        )
        for spec in specs
        if spec.teachers
    ]


@pytest.mark.parametrize(
    ("profile", "epochs", "alphas", "network", "curve"),
    [
        ("smoke", [3], [0.3, 1.0], "resnet18/16", [("resnet18/16", "resnet18/16", [1, 3], 3, [0.3, 1.0])]),
        (
            "quick", [4, 8, 20], [0.3, 0.7, 1.0], "resnet18/4",
            [("resnet18/8", "resnet18/4", [4, 8, 12, 16, 20], 20, [0.2, 0.4, 0.6, 0.8, 1.0])],
        ),
        (
            "paper", [20, 40, 60, 80, 100], [0.2, 0.3, 0.5, 0.7, 0.8, 1.0], "resnet18",
            [("resnet18", "wrn-28-10-silu", [20, 50, 100, 200, 300, 400], 100, [0.2, 0.4, 0.6, 0.8, 1.0])],
        ),
    ],
)  # fmt: skip
def test_every_method_teacher_epoch_and_alpha_is_trained_in_one_go(nothing, profile, epochs, alphas, network, curve):
    setup = exhibits.setup(FIG8, profile)
    shown = fig8.students(setup)
    mixing.train(setup, shown.all)
    expected = {
        (method, alpha, teacher, epoch, network, network)
        for method in ("AKD", "RSLAD", "ARD")
        for alpha in alphas
        for teacher in ("Natural", "PGD-AT")
        for epoch in epochs
    }
    for student, teacher, stops, at, curve_alphas in curve:
        expected |= {("AKD", 1.0, "PGD-AT", stop, student, teacher) for stop in stops}
        expected |= {("AKD", alpha, "PGD-AT", at, student, teacher) for alpha in curve_alphas}
    found = taught(asked_of(nothing))
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("profile", ["smoke", "quick", "small"])
def test_one_of_the_two_figures_has_the_students_that_it_has_beside_the_other(profile):
    setup = exhibits.setup(FIG8, profile)
    both, first, fourth = (fig8.students(setup, paper_figure=which) for which in (None, 1, 4))
    assert (first.grid, first.over_epoch, first.over_alpha) == (both.grid, [], [])
    assert (fourth.grid, fourth.over_epoch, fourth.over_alpha) == ([], both.over_epoch, both.over_alpha)
    assert first.grid
    assert fourth.over_epoch
    assert fourth.over_alpha


def test_figure_4_alone_needs_one_teacher_and_its_smaller_students(nothing):
    setup = exhibits.setup(FIG8, "small")
    mixing.train(setup, fig8.students(setup, paper_figure=4).all)
    specs = asked_of(nothing)
    assert {(spec.method, spec.student) for spec in specs if not spec.teachers} == {("PGD-AT", "resnet18/4")}
    assert {spec.student for spec in specs if spec.teachers} == {"resnet18/8"}
    assert len(specs) == 1 + 5 + 5 - 1, "the last teacher's student without labels is of both curves"


def test_without_labels_akd_is_the_run_of_figure_5(nothing):
    setup = exhibits.setup(FIG8, "quick")
    mixing.train(setup, fig8.students(setup).grid)
    mine = set(asked_of(nothing))
    entropy = fig11.train(exhibits.setup("fig11_entropy", "quick"))
    assert {run.spec for of_seeds in entropy.values() for run in of_seeds} <= mine
    assert {spec.method for spec in mine} == {"Natural", "PGD-AT", "AKD", "AKD+", "RSLAD+", "ARD+"}


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_figure_2_has_the_students_of_figure_1(nothing, profile):
    ones, others = exhibits.setup(FIG8, profile), exhibits.setup(FIG9, profile)
    assert fig9.students(others) == fig8.students(ones).grid
    mixing.train(ones, fig8.students(ones).grid)
    first = set(asked_of(nothing))
    nothing.gathered.clear()
    mixing.train(others, fig9.students(others))
    assert set(asked_of(nothing)) == first


def test_at_paper_scale_the_recipes_are_rkds(nothing):
    setup = exhibits.setup(FIG8, "paper")
    mixing.train(setup, fig8.students(setup).all)
    specs = asked_of(nothing)
    students = [spec for spec in specs if spec.teachers]
    recipe = {(spec.epochs, spec.batch_size, spec.lr, spec.schedule, spec.attack_steps) for spec in students}
    assert recipe == {(100, 256, 0.21, "onecycle", 7)}
    plain = [spec for spec in specs if not spec.teachers and spec.student == "resnet18"]
    teachers = {(spec.method, spec.epochs, spec.batch_size, spec.schedule, spec.gamma) for spec in plain}
    assert teachers == {(method, 100, 128, "exponential", 0.9) for method in ("Natural", "PGD-AT")}
    (larger,) = (spec for spec in specs if spec.student == "wrn-28-10-silu")
    assert (larger.method, larger.epochs, larger.ema_decay) == ("PGD-AT", 400, 0.995)
    assert (larger.augmentation, larger.attack_steps) == ("crop-flip-cutout", 7)
    assert (larger.extra, larger.extra_fraction) == ("cifar10_ddpm.npz", 0.7), "section B.1: images of Ho et al. 2020"
    roles = {(spec.teachers[0].run.student, spec.teachers[0].role) for spec in students}
    assert roles == {("resnet18", "student"), ("wrn-28-10-silu", "student_averaged")}


def test_figure_4s_teacher_may_see_generated_images_and_be_shortened():
    setup = exhibits.setup(FIG8, "paper", epochs=10)
    larger, *others = (s.guide.specs(setup)[0] for s in fig8.students(setup, extra="ddpm.npz").over_epoch)
    assert set(others) <= {larger}
    assert (larger.extra, larger.extra_fraction) == ("ddpm.npz", 0.7)
    assert (larger.epochs, larger.schedule, larger.ema_decay) == (10, "exponential", 0.995)


@pytest.mark.parametrize(("profile", "given"), [("quick", None), ("paper", "")])
def test_figure_4s_teacher_sees_no_generated_images_below_paper_or_if_the_notebook_says_so(profile, given):
    setup = exhibits.setup(FIG8, profile)
    guides = {s.guide for s in fig8.students(setup, extra=given).over_epoch}
    assert {(spec.extra, spec.extra_fraction) for guide in guides for spec in guide.specs(setup)} == {("", 0.0)}


def test_a_stopped_teacher_with_a_moving_average_teaches_with_it():
    setup = exhibits.setup(FIG8, "smoke")
    guides = {
        decay: Guide("PGD-AT", stopped=0.4, changes={} if decay is None else {"ema_decay": decay})
        for decay in (None, 0.9)
    }
    taken = comparisons.choose_guides(setup, guides)
    assert [(taken[decay][0].role, taken[decay][0].epoch) for decay in guides] == [
        ("student", 1),
        ("student_averaged", 1),
    ]


def test_stops_at_one_snapshot_are_one_teacher():
    setup = exhibits.setup(FIG9, "smoke")
    assert [s.epoch for s in fig9.students(setup, [0.9, 0.3, 1.0], [0.5])[:2]] == [1, 3]
    shown = fig9.students(setup, [0.3, 0.4], [0.5])
    networks = mixing.train(setup, shown)
    assert sorted(networks.teachers) == [f"{m} resnet18/16 at epoch {e}" for m in ("Natural", "PGD-AT") for e in (1, 3)]


def answer(task):
    """Right on as many of the first images as the judge's alpha, teacher and epoch and the attack say."""
    (judge,) = task.judges
    spec = judge.spec
    share = 20 * spec.seed + (0 if task.attack is None else 30)
    if spec.teachers:
        (guide,) = spec.teachers
        share += 10 * dict(spec.settings).get("mixing", 1.0) + guide.epoch + 5 * (guide.run.method == "PGD-AT")
    else:
        share += 50 + judge.epoch
    return (torch.arange(len(task.images)) < round(share))[None]


def test_both_accuracies_of_students_and_teachers_are_theirs(tmp_path):
    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        setup = exhibits.setup(FIG8, "smoke", n_seeds=2, n_test=128)
        shown = fig8.students(setup, [0.4, 1.0], [0.5, 1.0])
        networks = mixing.train(setup, shown.all)
        executor.gathered.clear()
        measured = mixing.measure(setup, networks, mixing.both_accuracies(setup))
    assert len(executor.gathered) == 1
    assert {task.images for task in executor.gathered[0]} == {setup.images}
    numbers = fig8.table(measured, networks, shown)
    grid = numbers[numbers.figure.str.startswith("1")]
    assert len(grid) == 3 * 2 * 2 * 2 + 2 * 2
    assert set(grid.robust_by) == {"pgd-20"}
    assert set(zip(grid.n, grid.n_robust, grid.seeds, strict=True)) == {(128, 128, 2)}
    for row in grid.itertuples():
        clean = 50 + row.teacher_epoch
        if row.role == "student":
            clean = 10 * row.alpha + row.teacher_epoch + 5 * (row.teacher == "PGD-AT")
        assert 128 * row.clean == pytest.approx(clean + 10), "the mean of two seeds"
        assert 128 * row.robust == pytest.approx(clean + 40)
        assert row.clean_low < row.clean < row.clean_high
        assert row.robust_low < row.robust < row.robust_high
    assert list(numbers[(numbers.figure == "4a") & (numbers.role == "student")].teacher_epoch) == [1, 3]
    assert list(numbers[(numbers.figure == "4b") & (numbers.role == "student")].alpha) == [0.5, 1.0]


def test_beside_its_students_a_teacher_is_shown_at_its_last_epoch(tmp_path):
    with executors.using(Given(Store(tmp_path), answer)):
        setup = exhibits.setup(FIG9, "smoke")
        students = fig9.students(setup, [0.4], [0.5])
        networks = mixing.train(setup, students)
        measured = mixing.measure(setup, networks, mixing.both_accuracies(setup))
    numbers = mixing.table(measured, networks, students)
    teachers = numbers[numbers.role == "teacher"]
    shown = set(zip(teachers.method, teachers.teacher_epoch, strict=True))
    assert shown == {("Natural", 1), ("Natural", 3), ("PGD-AT", 1), ("PGD-AT", 3)}
    assert set(numbers[numbers.role == "student"].teacher_epoch) == {1}


def test_students_are_validated_on_held_out_images(tmp_path):
    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        setup = exhibits.setup(FIG9, "smoke", n_seeds=2, n_val=100)
        students = fig9.students(setup, [0.4, 1.0], [0.5])
        networks = mixing.train(setup, students)
        executor.gathered.clear()
        found = mixing.validated(setup, networks, students)
    (tasks,) = executor.gathered
    assert {(task.images.part, len(task.images)) for task in tasks} == {("val", 100)}
    assert {task.attack for task in tasks} == {None, setup.profile.selection_attack}
    assert setup.asked.deciding == set(tasks), "they choose, and are not the exhibit's measurement"
    assert list(found.student) == [str(student) for student in students]
    for row, student in zip(found.itertuples(), students, strict=True):
        clean = 5 + student.epoch + 5 * (student.guide.method == "PGD-AT") + 10
        assert (row.clean, row.robust) == (pytest.approx(clean / 100), pytest.approx((clean + 30) / 100))


def test_robust_accuracy_is_autoattacks_at_paper_scale_and_pgds_below_it():
    def metrics(profile, robust=None, **parameters):
        return list(mixing.both_accuracies(exhibits.setup(FIG8, profile, **parameters), robust))

    assert metrics("paper") == ["clean", "autoattack"]
    assert metrics("quick") == ["clean", "pgd-20"]
    assert metrics("quick", "autoattack") == ["clean", "autoattack"]
    assert metrics("paper", "pgd", test_iterate="any") == ["clean", "pgd-20 (any iterate)"]
    with pytest.raises(UnknownNameError, match="'fgsm'"):
        metrics("quick", "fgsm")
    with pytest.raises(ValueError, match="at least 4 classes"):
        metrics("quick", "autoattack", dataset="digits:3,8", n_train=100)


def where(profile="quick", **parameters):
    """The students of Figures 1 and 4, and the names of all networks."""
    setup = exhibits.setup(FIG8, profile)
    shown = fig8.students(setup, **parameters)
    return shown, [*map(str, shown.all), *mixing.train(setup, shown.all).teachers]


def check_8(accuracy, **parameters):
    shown, names = where(**parameters)
    by = {name: {"clean": accuracy(name, "clean"), "pgd-20": accuracy(name, "pgd-20")} for name in names}
    measured = WhiteBox(made_up(by).evaluations, {"clean": None, "pgd-20": attacks.PGD(0.25, 0.0625, 20)}, 10)
    return fig8.check_claims(measured, shown)


def as_the_paper_says(name, metric):
    natural, early = "of Natural" in name, "epoch 8" in name
    if name.startswith(("Natural", "PGD-AT")):
        return 0.6
    alpha = float(name.split("alpha ")[1].split(",")[0])
    if metric == "clean":
        return 0.7 - 0.05 * early
    if natural:
        return 0.0 if alpha == 1 else 0.5 - 0.1 * alpha
    best = 0.8 if "resnet18/8" in name else 0.7
    return 0.5 - 0.3 * abs(alpha - best) + 0.1 * early


def test_figure_1_and_4s_claims_hold_where_all_is_as_the_paper_says():
    checked = check_8(as_the_paper_says)
    assert [claim.verdict for claim in checked] == [claims.HOLDS] * 12


@pytest.mark.parametrize(
    ("changed", "share", "failing"),
    [
        (("pgd-20", "AKD+ resnet18/4, alpha 1, of Natural resnet18/4 at epoch 20"), 0.6, {0, 1}),
        (("clean", "AKD+ resnet18/4, alpha 0.3, of Natural resnet18/4 at epoch 20"), 0.4, {2}),
        (("pgd-20", "AKD+ resnet18/4, alpha 1, of PGD-AT resnet18/4 at epoch 20"), 0.59, {3}),
        (("pgd-20", "RSLAD+ resnet18/4, alpha 1, of PGD-AT resnet18/4 at epoch 20"), 0.59, {4}),
        (("pgd-20", "AKD+ resnet18/4, alpha 0.3, of PGD-AT resnet18/4 at epoch 20"), 0.59, {5}),
        (("pgd-20", "AKD+ resnet18/4, alpha 0.7, of PGD-AT resnet18/4 at epoch 8"), 0.2, {6}),
        (("pgd-20", "RSLAD+ resnet18/4, alpha 0.7, of PGD-AT resnet18/4 at epoch 8"), 0.2, {7}),
        (("clean", "AKD+ resnet18/4, alpha 0.7, of PGD-AT resnet18/4 at epoch 8"), 0.9, {8}),
        (("pgd-20", "AKD+ resnet18/8, alpha 1, of PGD-AT resnet18/4 at epoch 8"), 0.1, {9}),
        (("clean", "AKD+ resnet18/8, alpha 1, of PGD-AT resnet18/4 at epoch 8"), 0.9, {10}),
        (("pgd-20", "AKD+ resnet18/8, alpha 0.8, of PGD-AT resnet18/4 at epoch 20"), 0.1, {11}),
    ],
)
def test_each_claim_of_figures_1_and_4_is_about_its_own_students(changed, share, failing):
    checked = check_8(lambda name, of: share if (of, name) == changed else as_the_paper_says(name, of))
    assert {i for i, claim in enumerate(checked) if claim.verdict == claims.FAILS} == failing
    assert all(claim.verdict == claims.HOLDS for i, claim in enumerate(checked) if i not in failing)


def test_claims_that_compare_a_student_with_itself_are_left_out():
    checked = check_8(as_the_paper_says, stops=[1.0], alphas=[0.3])
    assert [claim.source for claim in checked] == ["RKD, Figure 1a and section 3.1"]
    assert " more accurate than PGD-AT" in checked[0].text


def test_the_claims_of_one_figure_are_those_that_it_has_beside_the_other():
    both, first, fourth = (check_8(as_the_paper_says, paper_figure=which) for which in (None, 1, 4))
    assert [*map(str, first), *map(str, fourth)] == [*map(str, both)]
    assert {claim.source.split(",")[1][:9] for claim in fourth} == {" Figure 4"}
    assert (len(first), len(fourth)) == (9, 3)


def test_at_paper_scale_figure_4s_early_teacher_is_that_of_epoch_100():
    shown, names = where("paper")
    measured = made_up({name: {"clean": 0.5, "autoattack": 0.5} for name in names})
    texts = [claim.text for claim in fig8.check_claims(measured, shown)]
    larger = [text for text in texts if "resnet18 student of a robust wrn-28-10-silu" in text]
    assert ["epoch 100 than with that of epoch 400" in text for text in larger] == [True, False, False]
    assert ["epoch 100 than with that of 400" in text for text in larger] == [False, True, False]
    assert sum("robust teacher of epoch 40 " in text for text in texts) == 3, "Figure 1 has its own"


def validation(best):
    """One student of each method and teacher for each aim; `best` has the shares of those that are best."""
    lines = []
    for method in mixing.METHODS:
        for teacher in mixing.TEACHERS:
            for aim in ("clean", "robust", "balanced"):
                clean, robust = {"clean": (0.9, 0.1), "robust": (0.1, 0.9), "balanced": (0.8, 0.8)}[aim]
                more = best.get((method, teacher), 0)
                lines.append((f"{method} {teacher} {aim}", method, teacher, clean + more, robust + more))
    return pd.DataFrame(lines, columns=["student", "method", "teacher", "clean", "robust"])


def test_best_students_are_chosen_by_their_own_accuracy_with_and_without_their_teacher():
    best = fig9.chosen(validation({("AKD+", "PGD-AT"): 0.01}))
    for method in mixing.METHODS:
        for teacher in mixing.TEACHERS:
            assert list(best.loc[(method, teacher)]) == [f"{method} {teacher} {aim}" for aim in best.columns]
    assert list(best.columns) == ["clean", "robust", "balanced"]
    assert best.loc[("AKD+", fig9.ANY), "robust"] == "AKD+ PGD-AT robust"
    assert best.loc[("ARD+", fig9.ANY), "clean"] == "ARD+ Natural clean", "of two equal ones the first"


FIRST_BY = {
    ("AKD+", "clean"): "Natural", ("AKD+", "robust"): "PGD-AT", ("RSLAD+", "clean"): "PGD-AT",
    ("RSLAD+", "robust"): "PGD-AT", ("ARD+", "clean"): "Natural", ("ARD+", "robust"): "Natural",
}  # fmt: skip


def check_9(changed=None, wrong=0.0):
    """The claims where all is as the paper says, but for one method, teacher and accuracy, which gains `wrong`."""
    students = fig9.students(exhibits.setup(FIG9, "quick"))
    by = {}
    for student in students:
        method, teacher = student.method, student.guide.method
        shares = {
            aim: 0.4 + 0.1 * (FIRST_BY[method, aim] == teacher) + 0.1 * (method == "AKD+")
            for aim in ("clean", "robust")
        }
        if method == "RSLAD+":  # good in both, best in none
            shares = dict.fromkeys(shares, 0.54 + 0.04 * (teacher == "PGD-AT"))
        shares |= {aim: shares[aim] + wrong for aim in shares if (method, teacher, aim) == changed}
        by[str(student)] = {"clean": shares["clean"], "pgd-20": shares["robust"]}
    about = {str(s): {"student": str(s), "method": s.method, "teacher": s.guide.method} for s in students}
    lines = [about[name] | {"clean": of["clean"], "robust": of["pgd-20"]} for name, of in by.items()]
    measured = WhiteBox(made_up(by, 5000).evaluations, {"clean": None, "pgd-20": None}, 10)
    return fig9.check_claims(measured, students, fig9.chosen(pd.DataFrame(lines)))


def test_figure_2s_claims_hold_where_all_is_as_the_paper_says():
    checked = check_9()
    assert [claim.verdict for claim in checked] == [claims.HOLDS] * 11
    mean = checked[0]
    assert (mean.higher.estimate.value, mean.lower.estimate.value) == (pytest.approx(0.6), pytest.approx(0.5))
    balanced = checked[-1]
    assert balanced.higher.estimate.value == pytest.approx(0.58)
    assert balanced.lower.estimate.value == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("changed", "wrong", "failing"),
    [
        (("AKD+", "PGD-AT", "clean"), 0.2, {0, 2, 10}),
        (("AKD+", "Natural", "robust"), 0.2, {1, 3, 10}),
        (("RSLAD+", "Natural", "clean"), 0.1, {4, 8}),
        (("RSLAD+", "Natural", "robust"), 0.1, {5, 9}),
        (("ARD+", "PGD-AT", "clean"), 0.15, {6}),
        (("ARD+", "PGD-AT", "robust"), 0.15, {7}),
        (("ARD+", "Natural", "robust"), 0.2, {9}),
    ],
)
def test_each_claim_of_figure_2_is_about_its_own_method_and_teacher(changed, wrong, failing):
    checked = check_9(changed, wrong)
    assert {i for i, claim in enumerate(checked) if claim.verdict != claims.HOLDS} == failing


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (FIG8, {"stops": [0.0, 1.0]}, "stops must list different shares above 0"),
        (FIG8, {"stops": 0.5}, r"as in \[0.4, 1.0\], not 0.5"),
        (FIG8, {"alphas": [0.3, 1.5]}, "must be between 0 and 1, not 1.5"),
        (FIG8, {"alphas": []}, "at least one share"),
        (FIG8, {"alphas": [0.3, 0.3]}, "different shares"),
        (FIG8, {"robust": "fgsm"}, "Unknown measure of robust accuracy 'fgsm'"),
        (FIG8, {"compressed": "resnet18"}, "compressed must name two networks"),
        (FIG8, {"compressed": ["resnet18/16", "resnet19"]}, "Unknown model 'resnet19'"),
        (FIG8, {"compressed": ["resnet19", "resnet18/16"]}, "Unknown model 'resnet19'"),
        (FIG8, {"paper_figure": 2}, "paper_figure must be 1 or 4, or None for both, not 2"),
        (FIG8, {"paper_figure": [4]}, r"not \[4\]"),
        (
            FIG8,
            {"paper_figure": 1, "compressed": ["resnet18/16", "resnet18/8"]},
            "compressed and extra are of Figure 4",
        ),
        (FIG8, {"paper_figure": 1, "extra": ""}, "compressed and extra are of Figure 4"),
        (FIG8, {"paper_figure": 4, "student": "resnet18/8"}, "student is of Figure 1"),
        (FIG8, {"alphas": [i / 20 for i in range(1, 12)]}, "at most 10 shares"),
        (FIG8, {"teacher_method": "TRADES"}, "does not use teacher_method"),
        (FIG9, {"select_on": "val"}, "does not use select_on"),
        (FIG9, {"n_val": 0}, "No images are held out to choose the best students on"),
        (FIG9, {"alphas": [0]}, "above 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        run_until_training(name, profile="smoke", **parameters)


@pytest.mark.usefixtures("store")
def test_what_fits_gets_as_far_as_training():
    with pytest.raises(Reached) as reached:
        run_until_training(FIG8, profile="smoke", stops=[0.4], alphas=[0.9], compressed=["resnet18/16", "resnet18/8"])
    assert {spec.student for spec in reached.value.args[0]} == {"resnet18/16", "resnet18/8"}


def pictured(paper_figure=None):
    """Figure 1 and 4, or one of them, with a made-up number for each network, and their table."""
    setup = exhibits.setup(FIG8, "quick")
    shown = fig8.students(setup, paper_figure=paper_figure)
    networks = mixing.train(setup, shown.all)
    names = [*networks.students, *networks.teachers]
    by = {name: {"clean": 0.5 + 0.4 * i / len(names), "pgd-20": 0.8 * i / len(names)} for i, name in enumerate(names)}
    measured = WhiteBox(made_up(by).evaluations, {"clean": None, "pgd-20": None}, 10)
    return fig8.table(measured, networks, shown)


@pytest.mark.parametrize(
    ("paper_figure", "titles", "named"),
    [(1, [f"RKD Figure 1{letter}" for letter in "acebdf"], 7), (4, ["RKD Figure 4a", "RKD Figure 4b"], 4)],
)
def test_one_of_the_two_figures_is_drawn_with_its_own_panels_and_legend(paper_figure, titles, named):
    numbers = pictured(paper_figure)
    assert {each[0] for each in numbers.figure} == {str(paper_figure)}
    figure = figures.early_stopping_and_mixing(numbers, mixing.METHODS, mixing.TEACHERS, "title")
    assert [panel.get_title().partition("\n")[0] for panel in figure.axes] == titles
    assert len(explained(figure)) == named + ("a teacher beyond the edge" in explained(figure))


def dots(panel, marker=None):
    """Colour, marker and place of the single points of a panel."""
    found = [
        (to_rgb(line.get_color()), str(line.get_marker()), *(float(at[0]) for at in xy(line)))
        for line in panel.lines
        if len(line.get_xdata()) == 1
    ]
    return [each for each in found if marker in (None, each[1])]


def inside(limits, row):
    """Where a network is drawn: a teacher at the edge, if it is beyond."""
    place = 100 * row.clean, 100 * row.robust
    if row.role == "student":
        return place
    return tuple(min(max(at, low), high) for at, (low, high) in zip(place, limits, strict=True))


def test_an_early_teacher_beyond_the_students_is_a_hollow_star_at_the_edge():
    columns = ["role", "teacher", "teacher_epoch", "clean", "robust", "alpha"]
    rows = [("student", "PGD-AT", 4, 0.95, 0.6, 1.0), ("student", "PGD-AT", 20, 0.9, 0.5, 1.0)]
    rows += [("teacher", "PGD-AT", 4, 0.3, 0.55, math.nan), ("teacher", "PGD-AT", 20, 0.97, 0.4, math.nan)]
    table = pd.DataFrame(rows, columns=columns).assign(robust_by="pgd-20")
    limits = trade_offs.limits_of(table)
    margins = 0.4 + 0.07 * 7, 0.4 + 0.07 * 20
    assert limits[0] == pytest.approx((90 - margins[0], 97 + margins[0]))
    assert limits[1] == pytest.approx((40 - margins[1], 60 + margins[1]))
    _, panel = look.new_figure()
    shown = {"colour": "teacher_epoch", "shape": "alpha", "limits": limits}
    trade_offs.trade_offs(panel, table, {4: "red", 20: "blue"}, {1.0: "o"}, **shown)
    stars = {line.get_color(): line for line in panel.lines if line.get_marker() == "*"}
    assert [float(at[0]) for at in xy(stars["red"])] == pytest.approx([limits[0][0], 55])
    assert [float(at[0]) for at in xy(stars["blue"])] == pytest.approx([97, 40])
    assert (stars["red"].get_markerfacecolor(), stars["blue"].get_markerfacecolor()) == ("white", "blue")
    assert (panel.get_xlim(), panel.get_ylim()) == limits


def test_a_point_is_a_student_in_its_teachers_colour_and_its_alphas_marker():
    numbers = pictured()
    figure = figures.early_stopping_and_mixing(numbers, mixing.METHODS, mixing.TEACHERS, "title")
    panels = figure.axes
    assert len(panels) == 8
    grid = numbers[numbers.figure.str.startswith("1")]
    colours, shapes = trade_offs.ordered_colours([4, 8, 20]), trade_offs.markers([0.3, 0.7, 1.0])
    for i, (teacher, called) in enumerate(mixing.TEACHERS.items()):
        for j, method in enumerate(mixing.METHODS):
            panel = panels[4 * i + j]
            letter = "ace"[j] if teacher == "Natural" else "bdf"[j]
            assert panel.get_title() == f"RKD Figure 1{letter}\n{method}, {called} teacher\n({teacher})"
            assert set(grid[(grid.teacher == teacher) & (grid.method == method)].figure) >= {f"1{letter}"}
            of_panel = grid[(grid.teacher == teacher) & ((grid.method == method) | (grid.role == "teacher"))]
            limits = panel.get_xlim(), panel.get_ylim()
            expected = {
                (to_rgb(colours[row.teacher_epoch]), shapes.get(row.alpha, "*"), *inside(limits, row))
                for row in of_panel.itertuples()
            }
            assert set(dots(panel)) == expected
            assert panel.get_xlabel() == "Clean accuracy (%)"
            assert panel.get_xlim() == panels[4 * i].get_xlim(), "one scale for all methods"
            assert panel.get_ylim() == panels[4 * i].get_ylim()
    assert panels[0].get_ylabel() == "Robust accuracy,\nPGD-20 (%)"
    assert [panels[i].get_title().partition("\n")[0] for i in (3, 7)] == ["RKD Figure 4a", "RKD Figure 4b"]
    of_teachers = grid[grid.role == "teacher"].groupby("teacher").figure.unique().map(list).to_dict()
    assert of_teachers == {"Natural": ["1a, 1c, 1e"], "PGD-AT": ["1b, 1d, 1f"]}
    assert len(grid[grid.role == "student"].figure.value_counts()) == 6
    assert len(dots(panels[0], "*")) == 3


def test_curves_over_epoch_and_alpha_are_of_students_and_of_the_teacher_that_taught_them():
    numbers = pictured()
    last = numbers[(numbers.figure == "4b") & (numbers.role == "teacher")]
    another = last.assign(teacher_epoch=8, clean=0.1, robust=0.1)  # of the same training, but it taught none of them
    numbers = pd.concat([another, numbers], ignore_index=True)
    panels = figures.early_stopping_and_mixing(numbers, mixing.METHODS, mixing.TEACHERS, "title").axes
    for panel, which, x in ((panels[3], "4a", "teacher_epoch"), (panels[7], "4b", "alpha")):
        students = numbers[(numbers.figure == which) & (numbers.role == "student")]
        drawn = lines(panel)
        assert list(drawn) == [
            "student, clean",
            "student, robust (PGD-20)",
            "teacher, clean",
            "teacher, robust (PGD-20)",
        ]
        assert xy(drawn["student, clean"])[0] == list(students[x])
        assert xy(drawn["student, clean"])[1] == pytest.approx(list(100 * students.clean))
        assert xy(drawn["student, robust (PGD-20)"])[1] == pytest.approx(list(100 * students.robust))
        assert panel.get_ylim() == (0, 100)
    assert xy(lines(panels[7])["teacher, robust (PGD-20)"]) == ([0.2, 1.0], pytest.approx(2 * list(100 * last.robust)))


def test_figure_2_tells_teachers_apart_by_colour_and_marker():
    numbers = pictured()
    numbers = numbers[numbers.figure.str.startswith("1")]
    panels = figures.teachers_compared(numbers, mixing.METHODS, mixing.TEACHERS, "title").axes
    assert [panel.get_title() for panel in panels] == list(mixing.METHODS)
    for panel, method in zip(panels, mixing.METHODS, strict=True):
        of = {
            ("Natural", "student"): "o",
            ("PGD-AT", "student"): "s",
            ("Natural", "teacher"): "*",
            ("PGD-AT", "teacher"): "*",
        }
        expected = {
            (
                look.COLOURS["natural" if row.teacher == "Natural" else "teacher"],
                of[row.teacher, row.role],
                *inside((panel.get_xlim(), panel.get_ylim()), row),
            )
            for row in numbers.itertuples()
            if row.role == "teacher" or row.method == method
        }
        assert set(dots(panel)) == expected


def explained(figure):
    """What the legend below a figure names."""
    return [text.get_text() for text in figure.subfigs[0].legends[0].get_texts()]


@pytest.mark.parametrize("figure_1", [True, False])
def test_hollow_stars_are_explained_only_where_one_is_drawn(figure_1):
    numbers = pictured()
    teachers = numbers.role == "teacher"
    within = numbers.assign(clean=numbers.clean.where(~teachers, 0.7), robust=numbers.robust.where(~teachers, 0.4))
    early = teachers & (numbers.teacher == "PGD-AT") & (numbers.teacher_epoch == 4)
    beyond = within.assign(clean=within.clean.where(~early, 0.1))
    for table, drawn in ((within, False), (beyond, True)):
        table = table if figure_1 else table[table.figure.str.startswith("1")]
        draw = figures.early_stopping_and_mixing if figure_1 else figures.teachers_compared
        figure = draw(table, mixing.METHODS, mixing.TEACHERS, "title")
        stars = [line for line in figure.axes[0].lines + figure.axes[4 * figure_1].lines if line.get_marker() == "*"]
        assert any(line.get_markerfacecolor() == "white" for line in stars if len(line.get_xdata())) == drawn
        assert ("a teacher beyond the edge" in explained(figure)) == drawn


def test_a_claim_of_the_mean_over_students_is_the_mean_over_images_of_their_share():
    """Two students right on different images: the interval is that of the paired differences, by hand."""
    a, b = torch.tensor([True] * 6 + [False] * 4), torch.tensor([True] * 4 + [False] * 6)
    c = torch.tensor([False, True] * 5)
    tables = {"a": a, "b": b, "c": c}
    measured = WhiteBox({name: [Evaluation({"clean": right})] for name, right in tables.items()}, {"clean": None}, 10)
    claim = fig9._on_average(measured, "clean", "text", {"Natural": ["a", "b"], "PGD-AT": ["c"]}, ("Natural", "PGD-AT"))
    values = ((a.double() + b.double()) / 2 - c.double()).tolist()
    mean = sum(values) / 10
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 9)
    half = 2.2621571628 * deviation / math.sqrt(10)  # Student's t with 9 degrees of freedom
    assert claim.difference.value == pytest.approx(mean, abs=1e-6)
    assert (claim.difference.low, claim.difference.high) == pytest.approx((mean - half, mean + half), abs=1e-5)


def test_what_is_measured_is_a_question_about_each_network_alone(tmp_path):
    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        setup = exhibits.setup(FIG9, "smoke")
        networks = mixing.train(setup, fig9.students(setup))
        executor.gathered.clear()
        mixing.measure(setup, networks, mixing.both_accuracies(setup))
    (tasks,) = executor.gathered
    assert all(isinstance(task, CorrectPredictions) and task.attacked in (None, task.judges[0]) for task in tasks)
    assert len(tasks) == 2 * (3 * 2 * 2 + 2), "two accuracies of twelve students and two teachers"


@pytest.mark.usefixtures("nothing")
def test_a_teacher_of_figure_4_is_not_one_of_figure_1_though_its_network_is():
    setup = exhibits.setup(FIG8, "quick", n_test=64)
    shown = fig8.students(setup, extra="gaussian-mixture:1000")
    networks = mixing.train(setup, shown.all)
    names = [*networks.students, *networks.teachers]
    by = {name: {"clean": 0.5 + 0.4 * i / len(names), "pgd-20": 0.3} for i, name in enumerate(names)}
    measured = WhiteBox(made_up(by).evaluations, {"clean": None, "pgd-20": None}, 10)
    numbers = fig8.table(measured, networks, shown)
    teachers = numbers[numbers.role == "teacher"]
    assert set(teachers[teachers.figure.str.startswith("1")].method) == {"Natural", "PGD-AT"}
    assert set(teachers[teachers.figure.str.startswith("4")].method) == {"PGD-AT+"}
    assert len(teachers[teachers.figure == "1b, 1d, 1f"]) == 3, "epochs 4, 8 and 20"


def test_claims_say_so_where_no_teacher_is_the_last():
    names = where(stops=[0.4, 0.6])[1]
    assert "PGD-AT resnet18/4 at epoch 20" in names
    checked = check_8(as_the_paper_says, stops=[0.4, 0.6])
    texts = [claim.text for claim in checked]
    assert not any("the last." in text or text.endswith("the last") for text in texts)
    assert sum("epoch 12, the latest that was tried" in text for text in texts) == 3
    (alone,) = [claim for claim in checked if "without a teacher" in claim.text]
    assert alone.lower.name == "PGD-AT resnet18/4 at epoch 20: clean accuracy"


def test_figure_2_may_have_more_alphas_than_there_are_markers():
    students = fig9.students(exhibits.setup(FIG9, "quick"), alphas=[i / 20 for i in range(1, 12)])
    assert len({student.alpha for student in students}) == 11


def test_the_last_epoch_is_the_trainings_however_it_was_asked_for():
    shown, names = where("smoke", stops=[0.9, 1.0])
    measured = made_up({name: {"clean": 0.5, "pgd-20": 0.5} for name in names})
    assert mixing.in_words(measured, shown.grid) == "epoch 3, the last"


@pytest.mark.usefixtures("store")
def test_figure_4_alone_is_called_after_its_students(capsys):
    with pytest.raises(Reached):
        run_until_training(FIG8, profile="quick", paper_figure=4)
    assert "digits, resnet18/8, eps 0.25" in capsys.readouterr().out
