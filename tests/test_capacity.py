"""RKD's Tables 2 and 9: the runs they ask for, what is chosen and measured, the paper's numbers beside, the claims."""

import tempfile
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import torch
from given import Given
from test_comparisons import made_up

from rkdkit import claims, executors, exhibits, statistics
from rkdkit.analysis import candidates, mixing
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import tab12_capacity as tab12
from rkdkit.papers.reported import reported
from rkdkit.store import Store
from rkdkit.trainings import Train

NAME = "tab12_capacity"


def all_wrong(task):
    return torch.zeros(len(task.judges), len(task.images), dtype=torch.bool)


def of_count(hits, task):
    return (torch.arange(len(task.images)) < hits)[None]


@cache  # at "paper" it takes seconds
def usual(profile):
    """Return what :func:`made` returns for a profile's own parameters, where nothing is right."""
    with tempfile.TemporaryDirectory() as folder:
        return made(Path(folder), profile)


def made(tmp_path, profile, answer=all_wrong, *lists, **parameters):
    """Return the parts, the lines and the specifications of all trainings of the exhibit."""
    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        found = tab12.parts(exhibits.setup(NAME, profile, **parameters), *lists)
        lines = tab12.choose(found)
    return found, lines, {task.spec for tasks in executor.gathered for task in tasks if isinstance(task, Train)}


def test_at_quick_a_width_needs_its_teacher_twelve_students_and_a_longer_training():
    found, lines, specs = usual("quick")
    (part,) = found
    assert part.networks == ["resnet18/4", "resnet18/8", "resnet18/16"]
    for network in part.networks:
        of_network = [spec for spec in specs if spec.student == network]
        alone = [spec for spec in of_network if spec.method == "PGD-AT"]
        assert sorted(spec.epochs for spec in alone) == [20, 40]
        students = [spec for spec in of_network if spec.teachers]
        assert len(students) == len(of_network) - 2 == 3 * 2 * 2
        assert {spec.method for spec in students} == {"AKD+", "RSLAD+", "ARD+"}
        assert {dict(spec.settings)["mixing"] for spec in students} == {0.3, 0.7}
        taught_by = {(t.run, t.epoch) for spec in students for t in spec.teachers}
        (teacher,) = (spec for spec in alone if spec.epochs == 20)
        assert taught_by == {(teacher, 8), (teacher, 20)}, "of the same width, stopped after 40 % of its epochs or not"
    assert [line.row.aim for line in lines] == ["only teacher", "RKD-Acc.", "RKD-Rob."] * 3


def test_the_widest_students_are_those_of_figure_1(tmp_path):
    _, _, specs = usual("quick")
    executor = Given(Store(tmp_path), all_wrong)
    with executors.using(executor):
        setup = exhibits.setup("fig8_early_stopping_label_mixing", "quick")
        mixing.train(setup, mixing.grid(setup))
    figure_1 = {task.spec for tasks in executor.gathered for task in tasks if isinstance(task, Train)}
    assert {spec for spec in specs if spec.student == "resnet18/4" and spec.epochs == 20} < figure_1


def test_at_paper_the_trainings_are_the_papers():
    found, _, specs = usual("paper")
    assert [(p.table, p.setup.profile.dataset, p.networks) for p in found] == [
        ("Table 2", "cifar10", ["resnet18", "resnet18/4", "resnet18/16"]),
        ("Table 9", "tiny_imagenet", ["resnet18"]),
    ]
    alone = {spec for spec in specs if spec.epochs == 200}
    assert {(s.dataset, s.student) for s in alone} == {(p.setup.profile.dataset, n) for p in found for n in p.networks}
    assert {(s.schedule, s.lr, s.gamma, s.milestones, s.batch_size) for s in alone} == {
        ("exponential", 0.1, 0.9, (), 128), ("multistep", 0.1, 0.1, (100, 150), 128), ("onecycle", 0.21, 1.0, (), 128)
    }  # fmt: skip
    assert len(alone) == 4 * 3
    teachers = {t.run for spec in specs for t in spec.teachers}
    assert {(s.method, s.epochs, s.schedule, s.gamma, s.attack_steps) for s in teachers} == {
        ("PGD-AT", 100, "exponential", 0.9, 7)
    }
    students = {spec for spec in specs if spec.teachers}
    assert {(s.epochs, s.schedule, s.lr, s.batch_size, s.attack_steps) for s in students} == {
        (100, "onecycle", 0.21, 256, 7)
    }
    printed = pd.concat([reported("rkd", table) for table in ("Table 2", "Table 9")])
    printed = printed[printed.setting.str.contains("alpha")]
    for dataset, network, method, setting in printed[["dataset", "network", "method", "setting"]].itertuples(False):
        values = dict(part.split("=") for part in setting.split("; "))
        wanted = (dataset, network, method, float(values["alpha"]), int(values["early stop"]))
        assert wanted in {
            (s.dataset, s.student, s.method, dict(s.settings).get("mixing", 1.0), s.teachers[0].epoch) for s in students
        }, "what the paper chose can be chosen"


@pytest.mark.parametrize(
    ("parameters", "schedules", "epochs"),
    [({"schedule": "constant"}, ["constant"], 200), ({"epochs": 2}, ["exponential", "multistep", "onecycle"], 4)],
)
def test_the_longer_training_keeps_what_the_notebook_sets(tmp_path, parameters, schedules, epochs):
    with executors.using(Given(Store(tmp_path), all_wrong)):
        setup = exhibits.setup(NAME, "paper", **parameters)
        entries = candidates.alone(setup, "resnet18")
        specs = [setup.profile.spec(entry.method, **entry.changes) for entry in entries.values()]
    assert [spec.schedule for spec in specs] == schedules
    assert {spec.epochs for spec in specs} == {epochs}
    assert {spec.milestones for spec in specs} <= {(), (2, 3)}


def held_out(task):
    """Answer as a made-up network would: of 64 held-out images so many are right, (naturally, attacked).

    Two points are 1.28 images.
    """
    (judge,) = task.judges
    spec = judge.spec
    assert task.images.part == "val"
    counts = {("PGD-AT", None): (50, 30), ("AKD+", 0.3): (55, 29), ("AKD+", 0.7): (49, 35), ("RSLAD+", 0.3): (60, 20)}
    natural, attacked = counts.get((spec.method, dict(spec.settings).get("mixing")), (20, 40))
    return of_count(attacked if task.attack else natural, task)


def test_each_line_is_chosen_by_the_papers_rule_and_measured_on_test_images(tmp_path):
    found, lines, _ = made(tmp_path, "smoke", held_out, [1, 2], ["PGD-AT", "Natural"], None, [0.3, 0.7])
    students = candidates.hyper_parameters(lines).set_index("method")
    for network in ("resnet18/8", "resnet18/16"):
        chosen = [students.loc[f"{network}, {aim}"] for aim in ("RKD-Acc.", "RKD-Rob.")]
        assert [(line.network, line.loss, line.teacher, line.alpha, line.within) for line in chosen] == [
            (network, "AKD+", "PGD-AT", 0.3, True),
            (network, "AKD+", "PGD-AT", 0.7, True),
        ]
    for line in lines:
        assert {snapshot.spec.student for snapshot in line.winner.snapshots} == {line.row.network}
        assert {snapshot.spec.epochs for snapshot in line.winner.snapshots} == {3 if line.row.students else 6}
    asked = []

    def on_test_images(task):
        asked.append(task)
        (judge,) = task.judges
        assert task.images.part == "test"
        return of_count(len(task.images) * (judge.spec.epochs == 6) // 2, task)

    with executors.using(Given(Store(tmp_path), on_test_images)):
        by = candidates.test_attacks(found[0].setup)
        measured = tab12.measure(found, lines, by)
    assert list(by) == ["clean", "pgd-20", "autoattack"]
    assert measured.accuracy("resnet18/16, only teacher", "clean").value == 0.5
    assert measured.accuracy("resnet18/16, RKD-Acc.", "clean").value == 0
    assert {task.judges[0].spec.student for task in asked} == {"resnet18/8", "resnet18/16"}


def beside(tmp_path, profile, **parameters):
    found, lines, _ = made(tmp_path, profile, **parameters) if parameters else usual(profile)
    by = {"clean": 0.8, "pgd-20": 0.5, "autoattack": 0.4}
    measured = WhiteBox(made_up({line.row.name: by for line in lines}).evaluations, dict.fromkeys(by), 10)
    return tab12.beside_the_paper(measured, found, lines)


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_every_number_of_both_tables_is_shown_once_at_every_profile(tmp_path, profile):
    numbers = beside(tmp_path, profile)
    shown = numbers[numbers.paper.notna()]
    printed = pd.concat([reported("rkd", table) for table in ("Table 2", "Table 9")])
    keys = ["paper_dataset", "paper_network", "selection", "metric"]
    assert not shown.duplicated(keys).any()
    for number in printed.itertuples():
        selection = number.setting.split("; ")[0].removeprefix("selection=")
        here = shown[(shown[keys] == [number.dataset, number.network, selection, number.metric]).all(axis=1)]
        assert here.paper.tolist() == pytest.approx([number.value / 100])
        assert here.paper_loss.tolist() == [number.method]
    assert len(shown) == len(printed)
    trained_here = shown.accuracy.notna().sum()
    assert trained_here == {"smoke": 2 * 6, "quick": 3 * 6, "paper": 4 * 6}[profile]


def test_a_width_is_beside_the_papers_in_the_same_place_with_the_differences_from_the_teacher_alone(tmp_path):
    numbers = beside(tmp_path, "quick").set_index(["method", "metric"])
    line = numbers.loc[("resnet18/8, RKD-Acc.", "clean")]
    assert (line.paper_network, line.paper_early_stop, line.paper_alpha) == ("resnet18/4", 40, 0.5)
    assert line.paper == pytest.approx(0.8026)
    widths = {"resnet18/4": "resnet18", "resnet18/8": "resnet18/4", "resnet18/16": "resnet18/16"}
    assert {name: numbers.loc[(f"{name}, RKD-Acc.", "clean")].paper_network for name in widths} == widths
    assert line.compared_with == "resnet18/8, only teacher"
    assert line.paper_difference == pytest.approx(0.8026 - 0.7854)
    assert line.difference == 0
    theirs = numbers.loc[("resnet18 on tiny_imagenet, RKD-Acc. (paper)", "clean")]
    assert theirs.paper_difference == pytest.approx(0.4685 - 0.4396)
    assert pd.isna(theirs.difference)
    assert pd.isna(numbers.loc[("resnet18/8, RKD-Acc.", "pgd-20")].paper)


@pytest.mark.parametrize(
    ("profile", "student", "widths", "stands_for"),
    [
        ("paper", "resnet18", [4, 16], {"resnet18/4": "resnet18/4", "resnet18/16": "resnet18/16"}),
        ("paper", "resnet18", [1, 2, 4], {"resnet18": "resnet18", "resnet18/2": None, "resnet18/4": "resnet18/4"}),
        ("quick", "resnet18/2", [2, 4], {"resnet18/4": "resnet18/4", "resnet18/8": "resnet18/16"}),
    ],
)
def test_a_notebooks_own_widths_are_beside_and_claimed_as_the_papers_same_width(
    tmp_path, profile, student, widths, stands_for
):
    with executors.using(Given(Store(tmp_path), all_wrong)):
        setup = exhibits.setup(NAME, profile, dataset="digits", n_train=1200, n_val=100, student=student)
        found = tab12.parts(setup, widths)
        lines = tab12.choose(found)
    by = {"clean": 0.8, "pgd-20": 0.5, "autoattack": 0.4}
    measured = WhiteBox(made_up({line.row.name: by for line in lines}).evaluations, dict.fromkeys(by), 10)
    numbers = tab12.beside_the_paper(measured, found, lines)
    ours = numbers[numbers.accuracy.notna() & (numbers.metric == "clean")]
    assert {network: set(ours[ours.network == network].paper_network.fillna("none")) for network in stands_for} == {
        network: {theirs or "none"} for network, theirs in stands_for.items()
    }
    texts = [claim.text for claim in tab12.check_claims(measured, found)]
    narrowest = [network for network, theirs in stands_for.items() if theirs == "resnet18/16"]
    for network, theirs in stands_for.items():
        claimed = f"Distillation makes {network} more robust than longer training." in texts
        assert claimed == (theirs in ("resnet18", "resnet18/4")), network
    assert ["Longer training makes" in text for text in texts].count(True) == len(narrowest)


def test_two_classes_have_no_numbers_of_the_papers_beside_them(tmp_path):
    numbers = beside(tmp_path, "smoke", dataset="digits:3,8", n_train=64, n_val=16, n_test=40)
    assert numbers[numbers.accuracy.notna()].paper.isna().all()
    assert numbers.paper.notna().sum() == 24


def test_claims_are_those_of_the_paper_and_judged_line_by_line():
    found, lines, _ = usual("quick")
    holding = {
        "only teacher": {"clean": 0.6, "pgd-20": 0.4},
        "RKD-Acc.": {"clean": 0.8, "pgd-20": 0.4},
        "RKD-Rob.": {"clean": 0.5, "pgd-20": 0.6},
    }
    accuracies = {line.row.name: dict(holding[line.row.aim]) for line in lines}
    accuracies["resnet18/16, RKD-Rob."]["pgd-20"] = 0.2
    verdicts = [claim.verdict for claim in tab12.check_claims(made_up(accuracies), found)]
    assert verdicts == [claims.HOLDS] * 7
    for place, (name, metric) in enumerate(
        [(f"{network}, RKD-Acc.", "clean") for network in found[0].networks]
        + [(f"{network}, RKD-Rob.", "pgd-20") for network in found[0].networks]
    ):
        changed = {**accuracies, name: {**accuracies[name], metric: 0.1 if place < 5 else 0.9}}
        failing = [claim.verdict == claims.FAILS for claim in tab12.check_claims(made_up(changed), found)]
        # the last claim compares the gains of the widest and of the narrowest network
        assert failing == [i == place or (i == 6 and place in (3, 5)) for i in range(7)]
    assert (
        len(tab12.check_claims(made_up(accuracies), [tab12.Part("Table 2", found[0].setup, ["resnet18/4"], ())])) == 2
    )


def test_a_verdict_that_rests_on_a_student_without_robustness_says_so():
    found, lines, _ = usual("quick")
    accuracies = {line.row.name: {"clean": 0.8, "pgd-20": 0.5} for line in lines}
    accuracies["resnet18/16, RKD-Rob."]["pgd-20"] = 0.1
    checked = tab12.check_claims(made_up(accuracies), found)
    note = "no more robust than guessing: resnet18/16, RKD-Rob."
    assert [claim.note for claim in checked] == [""] * 5 + [note] * 2
    assert " ".join(claims.report(checked).split()).count("no more robust than guessing:") == 2
    assert ["note" in claim.to_json() for claim in checked] == [False] * 5 + [True] * 2
    assert claims.Claim.from_json(checked[-1].to_json()).note == note


def test_gains_are_compared_on_the_same_images():
    right = {"a": [1, 1, 1, 1, 0, 1, 0, 1], "b": [0, 0, 1, 0, 0, 1, 0, 0], "c": [1, 0] * 4, "d": [0, 0, 1, 0] * 2}
    measured = made_up({name: {"pgd-20": 0.5} for name in right}, n=8)
    for name, hits in right.items():
        measured.evaluations[name][0].correct["pgd-20"] = torch.tensor(hits).bool()
    claim = candidates.larger_gain(measured, ("a", "b"), ("c", "d"), "pgd-20", "text", "source")
    per_image = [a - b - (c - d) for a, b, c, d in zip(*right.values(), strict=True)]
    wanted = statistics.mean(torch.tensor(per_image).double())
    assert claim.difference.value == pytest.approx(sum(per_image) / 8)
    assert (claim.difference.low, claim.difference.high) == pytest.approx((wanted.low, wanted.high))
    assert claim.higher.estimate.value == pytest.approx(0.5)
    assert claim.lower.estimate.value == pytest.approx(0.25)
    assert "points" in claims.report([claim])


def test_a_choice_that_could_not_be_what_it_aims_at_has_a_remark():
    rows = [(False, "RKD-Acc.", 0.6), (False, "RKD-Rob.", 0.0), (True, "RKD-Rob.", 0.1), (True, "RKD-Rob.", 0.11),
            (True, "RKD-Acc.", 0.0), (float("nan"), "RKD-Rob.", float("nan")), (True, "RKD-Rob.", 0.1)]  # fmt: skip
    numbers = pd.DataFrame(rows, columns=["within", "selection", "held_out_robust"])
    numbers["method"] = [*["of ten classes"] * 6, "of a hundred"]
    guessing = {"of ten classes": 0.1, "of a hundred": 0.01}.__getitem__
    none, weak = candidates.NONE_KEPT, candidates.NONE_ROBUST
    assert list(candidates.remarks(numbers, guessing)) == [none, none, weak, "", "", "", ""]
    assert list(candidates.remarks(numbers[["within"]], guessing)) == [none, none, "", "", "", "", ""]


@pytest.mark.parametrize(
    ("lists", "parameters", "message"),
    [
        (([2, 1],), {}, "widths must list one to three different numbers in ascending order"),
        (([1, 2, 4, 8],), {}, "widths must list one to three"),
        (([1, 4],), {}, "width divisor of 'resnet18/32'"),
        ((None, []), {}, "at least one method and one teacher"),
        ((None, ["PGD-AT"], [0.0]), {}, "above 0"),
        ((None, ["PGD-AT"], None, [1.5]), {}, "A share in alphas must be between 0 and 1"),
        ((), {"n_val": 0}, "No images are held out to choose the best students on"),
    ],
)
def test_lists_that_do_not_fit_are_refused_before_any_training(tmp_path, lists, parameters, message):
    executor = Given(Store(tmp_path), None)
    with executors.using(executor), pytest.raises(ValueError, match=message):
        tab12.parts(exhibits.setup(NAME, "smoke", **parameters), *lists)
    assert not any(executor.gathered)


def test_names_that_are_not_known_are_refused(tmp_path):
    with executors.using(Given(Store(tmp_path), None)):
        with pytest.raises(UnknownNameError, match="Unknown method 'PGD'"):
            tab12.parts(exhibits.setup(NAME, "smoke"), None, ["PGD"])
        with pytest.raises(UnknownNameError, match="does not use select_on"):
            exhibits.setup(NAME, "smoke", select_on="val")
