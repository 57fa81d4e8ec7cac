"""RKD's Tables 3, 4 and 11: runs asked for, what is chosen, the paper's numbers beside, claims judged rightly."""

import tempfile
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import torch
from given import Given
from test_comparisons import made_up
from test_plan import asked_for

from rkdkit import claims, executors, exhibits
from rkdkit.analysis import candidates, mixing
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import tab13_teacher_training as tab13
from rkdkit.exhibits import tab15_synthetic_data as tab15
from rkdkit.papers.reported import reported
from rkdkit.store import Store
from rkdkit.trainings import Train

NAME = "tab13_teacher_training"
TABLES = ("Table 3", "Table 4", "Table 11")


def all_wrong(task):
    return torch.zeros(len(task.judges), len(task.images), dtype=torch.bool)


def specs_of(executor):
    return {task.spec for tasks in executor.gathered for task in tasks if isinstance(task, Train)}


def made(tmp_path, profile, answer=all_wrong, *arguments, **parameters):
    """Return what was trained, and the specifications of all trainings of the exhibit."""
    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        trained = tab13.train(exhibits.setup(NAME, profile, **parameters), *arguments)
    return trained, specs_of(executor)


@cache
def usual(profile):
    """Return what :func:`made` returns for a profile's own parameters, where nothing is right."""
    with tempfile.TemporaryDirectory() as folder:
        return made(Path(folder), profile)


def mixing_of(spec):
    return dict(spec.settings).get("mixing")


def test_at_quick_each_teacher_has_the_same_candidates():
    _, specs = usual("quick")
    plain = {spec for spec in specs if not spec.extra}
    assert {(s.method, s.epochs) for s in plain if not s.teachers} == {
        ("PGD-AT", 40), *((method, 20) for method in ("Natural", "FFGSM-AT", "Low-eps AT", "PGD-AT"))
    }  # fmt: skip
    students = [spec for spec in plain if spec.teachers]
    tried = {(s.method, s.teachers[0].run.method, s.teachers[0].epoch, mixing_of(s)) for s in students}
    assert tried == {
        (loss, teacher, epoch, alpha)
        for loss in ("AKD+", "RSLAD+")
        for teacher in ("Natural", "FFGSM-AT", "Low-eps AT", "PGD-AT")
        for epoch in (8, 20)
        for alpha in (0.3, 0.7)
    }
    assert len(students) == len(tried)
    assert {(s.eps, s.attack_steps) for s in students} == {(0.25, 10)}, "whatever their teacher was trained with"


def test_students_of_natural_and_pgd_at_teachers_are_those_of_figure_1(tmp_path):
    executor = Given(Store(tmp_path), all_wrong)
    with executors.using(executor):
        setup = exhibits.setup("fig8_early_stopping_label_mixing", "quick")
        mixing.train(setup, mixing.grid(setup))
    ours = {s for s in usual("quick")[1] if s.teachers and not s.extra}
    shared = {s for s in ours if s.teachers[0].run.method in ("Natural", "PGD-AT")}
    assert len(shared) == 16
    assert shared < specs_of(executor)


def test_table_11s_first_half_is_that_of_the_generated_images(tmp_path):
    executor = Given(Store(tmp_path), all_wrong)
    with executors.using(executor):
        tab15.train(exhibits.setup("tab15_synthetic_data", "quick"))
    ours = {s for s in usual("quick")[1] if s.extra}
    of_at = {s for s in ours if "TRADES" not in (s.method, *(t.run.method for t in s.teachers))}
    assert len(of_at) == 1 + 4
    assert of_at < specs_of(executor)
    of_trades = ours - of_at
    assert {s.method for s in of_trades} == {"TRADES", "AKD", "AKD+", "RSLAD+"}
    (teacher,) = (s for s in of_trades if s.method == "TRADES")
    for spec in of_trades - {teacher}:
        (taught_by,) = spec.teachers
        assert (taught_by.run, taught_by.epoch, taught_by.role) == (teacher, 20, "student_averaged")
        assert spec.extra == teacher.extra
    assert sorted(mixing_of(s) for s in of_trades if s.method == "RSLAD+") == [0.8, 1.0]


def test_at_paper_the_trainings_are_the_papers():
    _, specs = usual("paper")
    teachers = {s.method: s for s in specs if s.epochs == 100 and not s.teachers}
    assert set(teachers) == {"Natural", "FFGSM-AT", "Low-eps AT", "PGD-AT"}
    for spec in teachers.values():
        assert (spec.dataset, spec.student, spec.schedule, spec.gamma, spec.batch_size) == (
            "cifar10", "resnet18", "exponential", 0.9, 128
        )  # fmt: skip
    students = {s for s in specs if s.teachers and not s.extra}
    assert {(s.epochs, s.schedule, s.lr, s.batch_size, s.attack_steps) for s in students} == {
        (100, "onecycle", 0.21, 256, 7)
    }
    assert {s.teachers[0].epoch for s in students} >= {20, 40, 80, 100}
    assert {mixing_of(s) for s in students} >= {0.2, 0.3, 0.5, 0.7, 0.8}
    advanced = {s for s in specs if s.extra}
    assert {(s.student, s.extra, s.ema_decay is None) for s in advanced} == {
        ("wrn-28-10-silu", "cifar10_edm.npz", False)
    }
    assert len(advanced) == 2 * (1 + 4)
    assert {s.epochs for s in specs if not s.teachers and not s.extra} == {100, 200}


def test_at_smoke_table_11_has_one_student_for_each_teacher():
    trained, _ = usual("smoke")
    assert set(trained.advanced) == {
        "Table 11: AT+", "Table 11: TRADES+", "Table 11: AKD+ (0.8) from AT+", "Table 11: AKD+ (0.8) from TRADES+"
    }  # fmt: skip


def held_out(task):
    """Answer so that of 64 held-out images so many are right, (naturally, attacked), by the weight of the teacher."""
    (judge,) = task.judges
    spec = judge.spec
    assert task.images.part == "val"
    counts = {
        None: (50, 30),  # the teacher alone
        0.1: (64, 10),  # accurate, but not robust
        0.2: (55, 29),
        0.3: (49, 33),
        0.4: (30, 50),  # robust, but not accurate
    }
    hits = counts[mixing_of(spec)][task.attack is not None]
    return (torch.arange(len(task.images)) < hits)[None]


def test_what_is_chosen_depends_on_the_teacher_and_the_table(tmp_path):
    """With alpha 0.4, students are the most robust; with the limit, they may not have it."""
    trained, _ = made(tmp_path, "smoke", held_out, None, [0.1, 0.2, 0.3, 0.4])
    chosen = candidates.hyper_parameters(trained.lines).set_index("method")
    alphas = {
        "Table 3": {"Natural": {"AKD+": 0.2, "RSLAD+": 0.2}, "FFGSM-AT": {"AKD+": 0.4, "RSLAD+": 0.3},
                    "PGD-AT": {"AKD+": 0.4, "RSLAD+": 0.4}},
        "Table 4": {"Natural": {"AKD+": 0.2, "RSLAD+": 0.2}, "Low-eps AT": {"AKD+": 0.2, "RSLAD+": 0.2},
                    "PGD-AT": {"AKD+": 0.4, "RSLAD+": 0.3}},
    }  # fmt: skip
    assert chosen.alpha.to_dict() == pytest.approx(
        {
            "only teacher": float("nan"),
            **{
                f"{table}: {loss} from {teacher}": alpha
                for table, by_teacher in alphas.items()
                for teacher, by_loss in by_teacher.items()
                for loss, alpha in by_loss.items()
            },
        },
        nan_ok=True,
    )
    assert chosen.within.all()
    for line in trained.lines[1:]:
        table, loss, teacher = line.row.name.replace(" from ", ": ").split(": ")
        (snapshot,) = line.winner.snapshots
        assert (snapshot.spec.method, snapshot.spec.teachers[0].run.method) == (loss, teacher)
        assert mixing_of(snapshot.spec) == alphas[table][teacher][loss]


def test_which_students_are_limited_is_what_the_papers_numbers_show():
    found = {}
    for table in ("Table 3", "Table 4", "Table 5", "Table 10"):
        numbers = reported("rkd", table)
        of_one = numbers[(numbers.dataset == "cifar10") & ~numbers.setting.str.contains("teachers=4")]
        for (method, guide), both in of_one.groupby(["method", "guide"]):
            teacher, by = guide.rpartition(" ")[0], both.set_index("metric").value
            if teacher in ("FFGSM-AT", "PGD-AT"):
                found[table, method, teacher] = by["clean"], by["autoattack"]
    assert set(found) > candidates.UNLIMITED
    for student, (clean, robust) in found.items():
        most_robust = max(other for each, (_, other) in found.items() if each[1:] == student[1:])
        if 85.54 - clean > 2:
            assert student in candidates.UNLIMITED
        assert (student in candidates.UNLIMITED) == (robust == most_robust), student


def test_table_11_is_measured_as_in_the_paper_and_by_averaged_weights(tmp_path):
    trained, _ = usual("smoke")
    asked = []

    def answer(task):
        asked.append(task)
        return all_wrong(task)

    with executors.using(Given(Store(tmp_path), answer)):
        of_teachers, of_advanced = tab13.measure(trained, candidates.test_attacks(trained.setup))
    assert of_teachers.metrics == ("clean", "pgd-20", "autoattack")
    assert of_advanced.metrics == ("clean", "pgd-20")
    assert {(judge.role, bool(judge.spec.extra)) for task in asked for judge in task.judges} == {
        ("student", False), ("student_averaged", True)
    }  # fmt: skip
    assert {task.images.part for task in asked} == {"test"}


def both(trained, by=None, **changed):
    """Return made-up measurements of all lines; `changed` are accuracies by name and metric."""
    by = by or {"clean": 0.8, "pgd-20": 0.5, "autoattack": 0.4}
    fewer = {metric: share for metric, share in by.items() if metric != "autoattack"}
    of_teachers = {line.row.name: {**by, **changed.get(line.row.name, {})} for line in trained.lines}
    of_advanced = {name: {**fewer, **changed.get(name, {})} for name in trained.advanced}
    return tuple(
        WhiteBox(made_up(accuracies).evaluations, dict.fromkeys(metrics), 10)
        for accuracies, metrics in ((of_teachers, by), (of_advanced, fewer))
    )


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_every_number_of_the_tables_is_shown_once_at_every_profile(profile):
    trained, _ = usual(profile)
    numbers = tab13.beside_the_paper(both(trained), trained)
    shown = numbers[numbers.paper.notna()].set_index(["method", "metric"]).paper
    assert shown.index.is_unique
    printed = pd.concat([reported("rkd", table) for table in TABLES])
    wanted = {}
    for number in printed.itertuples():
        name = f"{number.table}: {number.method}"
        teacher = number.guide.rsplit(" ", 1)[0]
        if number.table == "Table 11" and teacher:
            name += f" ({float(number.setting.split('; ')[0].removeprefix('alpha=')):g})"
        wanted[name + (f" from {teacher}" if teacher else ""), number.metric] = number.value / 100
    assert len(wanted) == len(printed)
    alone = {("only teacher", "clean"): 0.8554, ("only teacher", "autoattack"): 0.4633}
    assert shown.to_dict() == pytest.approx({**wanted, **alone})
    here = numbers[numbers.accuracy.notna() & numbers.paper.notna()]
    assert len(here) == len(shown) - (6 * 2 if profile == "smoke" else 0)


def test_differences_are_those_between_teachers():
    trained, _ = usual("quick")
    changed = {"Table 3: AKD+ from FFGSM-AT": {"clean": 0.9}, "Table 11: RSLAD+ (0.8) from TRADES+": {"clean": 0.7}}
    numbers = tab13.beside_the_paper(both(trained, **changed), trained).set_index(["method", "metric"])
    line = numbers.loc[("Table 3: AKD+ from FFGSM-AT", "clean")]
    assert (line.compared_with, line.teacher_eps) == ("Table 3: AKD+ from PGD-AT", 0.25)
    assert line.difference == pytest.approx(0.1)
    assert line.paper_difference == pytest.approx(0.8518 - 0.8402)
    assert line.row == "Table 3: AKD+ from FFGSM-AT \N{MINUS SIGN} PGD-AT"
    line = numbers.loc[("Table 4: RSLAD+ from Low-eps AT", "autoattack")]
    assert (line.compared_with, line.teacher_eps) == ("Table 4: RSLAD+ from Natural", 0.25 / 4)
    assert line.paper_difference == pytest.approx(0.4668 - 0.4536)
    line = numbers.loc[("Table 11: RSLAD+ (0.8) from TRADES+", "clean")]
    assert line.compared_with == "Table 11: RSLAD+ (0.8) from AT+"
    assert line.difference == pytest.approx(-0.1)
    assert line.row == "Table 11: RSLAD+ (0.8) from TRADES+ \N{MINUS SIGN} AT+"
    assert numbers.loc[("Table 11: TRADES+", "clean")].row == "Table 11: TRADES+ \N{MINUS SIGN} AT+"
    assert numbers.loc[("Table 4: AKD+ from Natural", "clean")].teacher_eps == 0
    for name in ("only teacher", "Table 3: AKD+ from PGD-AT", "Table 4: RSLAD+ from Natural", "Table 11: AT+"):
        assert numbers.loc[(name, "clean")].compared_with == ""


def test_two_classes_have_no_numbers_of_the_papers_beside_them(tmp_path):
    trained, _ = made(tmp_path, "smoke", all_wrong, dataset="digits:3,8", n_train=64, n_val=16, n_test=40)
    numbers = tab13.beside_the_paper(both(trained), trained)
    assert numbers[numbers.accuracy.notna()].paper.isna().all()
    assert numbers.paper.notna().sum() == 24 + 20 + 2
    line = numbers.set_index(["method", "metric"]).loc[("Table 4: AKD+ from Low-eps AT (paper)", "clean")]
    assert line.compared_with == "Table 4: AKD+ from Natural (paper)"
    assert line.paper_difference == pytest.approx(0.8737 - 0.8721)


COMPARED = [
    *(("pgd-20", f"Table 3: {loss} from PGD-AT", f"Table 3: {loss} from FFGSM-AT") for loss in tab13.LOSSES),
    *(("clean", f"Table 3: {loss} from FFGSM-AT", f"Table 3: {loss} from PGD-AT") for loss in tab13.LOSSES),
    *(("clean", f"Table 4: {loss} from Low-eps AT", f"Table 4: {loss} from Natural") for loss in tab13.LOSSES),
    *(("pgd-20", f"Table 4: {loss} from Low-eps AT", f"Table 4: {loss} from Natural") for loss in tab13.LOSSES),
    ("pgd-20", "Table 11: TRADES+", "Table 11: AT+"),
    ("clean", "Table 11: AT+", "Table 11: TRADES+"),
    ("clean", "Table 11: AKD+ (0.8) from AT+", "Table 11: AKD+ (0.8) from TRADES+"),
    ("pgd-20", "Table 11: AKD+ (0.8) from AT+", "Table 11: AKD+ (0.8) from TRADES+"),
]
"""By claim: the metric, and the lines that are said to be better and worse."""


@pytest.mark.parametrize("place", range(len(COMPARED)))
def test_each_claim_compares_its_own_two_lines(place):
    trained, _ = usual("smoke")
    metric, better, worse = COMPARED[place]
    for changed, verdict in (({better: {metric: 0.7}, worse: {metric: 0.3}}, claims.HOLDS),
                             ({better: {metric: 0.3}, worse: {metric: 0.7}}, claims.FAILS)):  # fmt: skip
        checked = tab13.check_claims(both(trained, {"clean": 0.5, "pgd-20": 0.5}, **changed))
        assert len(checked) == 12
        assert checked[place].verdict == verdict
    assert tab13.check_claims(both(trained, {"clean": 0.5, "pgd-20": 0.5}))[place].verdict == claims.OPEN


@pytest.mark.parametrize(
    ("arguments", "parameters", "message"),
    [
        (([0.0],), {}, "above 0"),
        ((None, [1.5]), {}, "A share in alphas must be between 0 and 1"),
        ((None, None, "gaussian-mixture"), {}, "must say how many images"),
        ((None, None, None, 1.5), {}, "extra_fraction must be between 0 and 1"),
        ((), {"n_val": 0}, "No images are held out to choose the best students on"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_any_training(tmp_path, arguments, parameters, message):
    executor = Given(Store(tmp_path), None)
    with executors.using(executor), pytest.raises(ValueError, match=message):
        tab13.train(exhibits.setup(NAME, "smoke", **parameters), *arguments)
    assert not any(executor.gathered)


def test_parameters_without_use_are_refused():
    with pytest.raises(UnknownNameError, match="does not use teacher_method"):
        exhibits.setup(NAME, "smoke", teacher_method="TRADES")


@pytest.mark.usefixtures("store")
def test_the_plan_at_paper_needs_neither_data_nor_generated_images(tmp_path, monkeypatch):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    planner, notes = asked_for(NAME, profile="paper")
    assert set(planner.trainings) == {Train(spec) for spec in usual("paper")[1]}
    assert planner.blank == ["cifar10"]
    assert notes == []
