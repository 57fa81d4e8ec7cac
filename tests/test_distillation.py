"""ARD's Tables 1 to 8: the trainings they ask for, every number of the paper beside ours, and claims judged rightly."""

import math

import pandas as pd
import pytest
import torch
from given import Given
from scipy import stats
from test_comparisons import made_up

from rkdkit import claims, executors, exhibits, figures, statistics
from rkdkit.analysis import distillation
from rkdkit.analysis.distillation import Line
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.checks import UnknownNameError
from rkdkit.evaluation import Evaluation
from rkdkit.exhibits import tab7_clean_distillation as tab7
from rkdkit.exhibits import tab8_ard as tab8
from rkdkit.papers.reported import reported
from rkdkit.store import Store
from rkdkit.trainings import Train

MODULES = {"tab7_clean_distillation": tab7, "tab8_ard": tab8}


def expected(task):
    """Return made-up predictions in which each network and attack has a share of its own."""
    (judge,) = task.judges
    share = int(judge.spec.id[:4], 16) / 2**16 / (1 if task.attack is None else 2)
    return (torch.arange(len(task.images)) < share * len(task.images))[None]


@pytest.fixture
def nothing(tmp_path):
    """Blank data in the place of those that are not here; nothing is trained, and accuracies are made up."""
    with executors.using(Given(Store(tmp_path), expected)) as executor:
        yield executor


def asked(name, profile="smoke", smaller_teacher=None, **parameters):
    setup = exhibits.setup(name, profile, **parameters)
    return MODULES[name].tables(setup, smaller_teacher)


def described(spec):
    """Return data, method, network, alpha, temperature and teacher of a run, in words."""
    settings = dict(spec.settings)
    alpha = settings.get("l", settings.get("alpha"))
    words = [spec.dataset, spec.method, spec.student]
    words += [f"{alpha:g}", f"{settings['tau']:g}"] if spec.teachers else []
    return " ".join([*words, *(f"{teacher.run.method} {teacher.run.student}" for teacher in spec.teachers)])


SMALL = {"smoke": "mobilenetv2/16", "quick": "mobilenetv2/4", "paper": "mobilenetv2"}
SAME = {"smoke": "resnet18/16", "quick": "resnet18/8", "paper": "resnet18"}
LARGE = {"smoke": "resnet18/16", "quick": "resnet18/4", "paper": "wrn-34-10"}


def clean_distillation(m, r, w, one, other, tau):
    return {
        f"{one} PGD-AT {r}",
        f"{one} KD {m} 1 30 PGD-AT {r}",
        f"{one} ARD {m} 1 30 PGD-AT {r}",
        f"{one} Natural {r}",
        f"{one} KD {r} 1 30 Natural {r}",
        f"{one} KD {m} 1 30 Natural {r}",
        f"{one} KD {r} 1 30 PGD-AT {r}",
        f"{one} PGD-AT {w}",
        f"{one} TRADES {w}",
        f"{one} KD {m} 1 30 PGD-AT {w}",
        f"{one} KD {m} 1 30 TRADES {w}",
        f"{other} PGD-AT {w}",
        f"{other} KD {m} 1 {tau} PGD-AT {w}",
        f"{other} KD {m} 0.95 {tau} PGD-AT {w}",
        f"{other} KD {m} 0.93 {tau} PGD-AT {w}",
    }


def robust_distillation(m, r, w, one, other, tau):
    return {
        f"{one} KD {m} 1 30 TRADES {w}",
        f"{other} KD {m} 0.93 {tau} PGD-AT {w}",
        f"{one} TRADES {w}",
        f"{one} PGD-AT {m}",
        f"{one} TRADES {m}",
        f"{one} ARD {m} 1 30 TRADES {w}",
        f"{one} ARD {m} 0.95 30 TRADES {w}",
        f"{other} PGD-AT {w}",
        f"{other} PGD-AT {m}",
        f"{other} ARD {m} 0.93 {tau} PGD-AT {w}",
        f"{one} PGD-AT {r}",
        f"{one} ARD {r} 1 30 PGD-AT {r}",
        f"{one} ARD {m} 1 30 PGD-AT {m}",
        f"{one} ARD {m} 1 30 PGD-AT {r}",
    }


@pytest.mark.parametrize(
    ("profile", "data"),
    [("smoke", ("digits", "digits", 30)), ("quick", ("digits", "digits", 30)), ("paper", ("cifar10", "cifar100", 5))],
)
@pytest.mark.parametrize(
    ("name", "trainings"), [("tab7_clean_distillation", clean_distillation), ("tab8_ard", robust_distillation)]
)
def test_each_profile_trains_what_the_papers_tables_name(nothing, name, trainings, profile, data):
    lines = asked(name, profile)
    trained = lines.train()
    last = [task for task in nothing.gathered if isinstance(task[0], Train)][-1]
    students = {described(run.spec) for of_seeds in trained.runs.values() for run in of_seeds}
    assert students == trainings(SMALL[profile], SAME[profile], LARGE[profile], *data)
    assert {described(task.spec) for task in last} == students, "all lines are trained side by side"
    lengths = {run.spec.epochs for (run,) in trained.runs.values()}
    assert lengths == {{"smoke": 3, "quick": 20, "paper": 200}[profile]}
    if profile == "paper":
        assert {run.spec.milestones for (run,) in trained.runs.values()} == {(100, 150)}


@pytest.mark.usefixtures("nothing")
def test_runs_on_the_second_dataset_are_those_of_that_dataset():
    lines = asked("tab8_ard", "paper")
    trained = lines.train()
    alone = lines.setup.changed(dataset="cifar100").profile
    plain = trained.runs["PGD-AT mobilenetv2 on cifar100"][0].spec
    assert plain == alone.spec("PGD-AT")
    student = trained.runs["ARD mobilenetv2 from PGD-AT wrn-34-10 (alpha 0.93) on cifar100"][0].spec
    assert student == alone.spec("ARD", settings={"alpha": 0.93}, teachers=student.teachers)
    assert student.teachers[0].run == alone.spec("PGD-AT", student="wrn-34-10")


def test_a_dataset_that_the_notebook_sets_is_that_of_all_tables(nothing):
    lines = asked("tab8_ard", "paper", dataset="cifar10")
    lines.train()
    assert {spec.dataset for tasks in nothing.gathered for task in tasks for spec in task.specs} == {"cifar10"}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_each_row_is_measured_on_its_own_network_and_images(nothing, name, profile):
    lines = asked(name, profile, n_seeds=2, n_test=100)
    trained = lines.train()
    before = len(nothing.gathered)
    measured = lines.measure(trained)
    assert len(nothing.gathered) == before + 1, "all measurements are asked for together"
    assert measured.metrics == ("clean", "pgd-20")
    assert list(measured.evaluations) == [lines.row(line) for line in lines.lines]
    n = lines.setup.n_test
    for line in lines.lines:
        for i, snapshot in enumerate(trained.chosen[lines.name(line)]):
            assert snapshot.spec.dataset == {"smoke": "digits"}.get(profile, line.dataset)
            share = int(snapshot.spec.id[:4], 16) / 2**16
            ours = measured.evaluations[lines.row(line)][i]
            assert ours["clean"].value == math.ceil(share * n) / n
            assert ours["pgd-20"].value == math.ceil(share / 2 * n) / n
    images = {(task.images.dataset, task.images.part) for task in nothing.gathered[-1]}
    assert images == {((profile == "smoke" and "digits") or dataset, "test") for dataset in ("cifar10", "cifar100")}


def printed(tables):
    """Return the paper's numbers of some tables as (table, network, metric, fraction), sorted."""
    theirs = pd.concat([reported("ard", table) for table in tables])
    return sorted((row.table, row.network, row.metric, round(row.value / 100, 6)) for _, row in theirs.iterrows())


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("parameters", [{}, {"test_steps": 5}, {"profile": "paper", "n_test": 100}])
def test_every_number_of_the_papers_tables_stands_in_the_exhibit(name, parameters):
    lines, module = asked(name, **parameters), MODULES[name]
    numbers = lines.numbers(lines.measure(lines.train()), module.references(lines))
    shown = numbers[numbers.paper.notna() & numbers.table.isin(module.TABLES)]
    found = sorted(zip(shown.table, shown.paper_network, shown.metric, shown.paper.round(6), strict=True))
    assert found == printed(module.TABLES)
    assert set(numbers[numbers.accuracy.isna()].metric) == ({"pgd-20"} if "test_steps" in parameters else set())
    assert not numbers.duplicated(["method", "metric"]).any()
    rows = [lines.row(line) for line in lines.lines]
    assert list(dict.fromkeys(numbers.method)) == rows, "in the paper's order"


@pytest.mark.usefixtures("nothing")
def test_a_number_stands_in_the_row_that_it_belongs_to():
    tables = {}
    for name, module in MODULES.items():
        lines = asked(name, "quick")
        numbers = lines.numbers(lines.measure(lines.train()), module.references(lines))
        tables[name] = numbers.set_index(["method", "metric"])

    def paper(name, row, metric, column="paper"):
        return tables[name].loc[(row, metric), column]

    seven, eight = MODULES
    weak = "Table 4: KD mobilenetv2/4 from PGD-AT resnet18/4"
    assert paper(seven, weak, "clean") == pytest.approx(0.9249)
    assert paper(seven, weak, "pgd-20", "paper_difference") == pytest.approx(0.0546 - 0.4575)
    assert paper(seven, "Table 5: KD mobilenetv2/4 from PGD-AT resnet18/4", "clean") == pytest.approx(0.2554)
    assert paper(seven, "Table 5: KD mobilenetv2/4 from PGD-AT resnet18/4 (alpha 0.93)", "clean") == pytest.approx(
        0.7638
    )
    assert paper(eight, "Table 6: ARD mobilenetv2/4 from TRADES resnet18/4 (alpha 0.95)", "pgd-20") == pytest.approx(
        0.4628
    )
    clean = "Table 5: KD mobilenetv2/4 from PGD-AT resnet18/4 (alpha 0.93)"
    assert paper(eight, clean, "clean", "paper_difference") == pytest.approx(0.7638 - 0.5562)


@pytest.mark.usefixtures("nothing")
def test_what_others_got_stands_beside_the_number_that_they_repeated():
    found = {}
    for name, module in MODULES.items():
        lines = asked(name, "quick")
        numbers = lines.numbers(lines.measure(lines.train()), module.references(lines))
        some = numbers[numbers.others != ""]
        assert some.source.str.contains(r"github\.com/\S+ issue \d").all()
        assert (numbers.source[numbers.others == ""] == "").all()
        found |= {(row.method, row.metric): row.others for _, row in some.iterrows()}
    assert found == {
        ("Table 1: PGD-AT resnet18/8", "pgd-20"): "49.35",
        ("Table 1: KD mobilenetv2/4 from PGD-AT resnet18/8", "pgd-20"): "11.6",
        ("Table 1: ARD mobilenetv2/4 from PGD-AT resnet18/8", "pgd-20"): "47.74 (teacher of 84.06 / 49.35)",
        ("Table 3: PGD-AT resnet18/8", "clean"): "84.06",
        ("Table 3: PGD-AT resnet18/8", "pgd-20"): "49.35",
        ("Table 3: KD mobilenetv2/4 from PGD-AT resnet18/8", "clean"): "82.88",
        ("Table 3: KD mobilenetv2/4 from PGD-AT resnet18/8", "pgd-20"): "11.6",
        ("Table 4: TRADES resnet18/4", "clean"): "84.92 (the authors' released network)",
        ("Table 4: TRADES resnet18/4", "pgd-20"): "56.43",
        ("Table 6: TRADES resnet18/4", "clean"): "84.92 (the authors' released network)",
        ("Table 6: TRADES resnet18/4", "pgd-20"): "56.43",
        ("Table 6: TRADES mobilenetv2/4", "clean"): "77.82",
        ("Table 6: TRADES mobilenetv2/4", "pgd-20"): "50.51",
        ("Table 6: ARD mobilenetv2/4 from TRADES resnet18/4", "clean"): "78.5",
        ("Table 6: ARD mobilenetv2/4 from TRADES resnet18/4", "pgd-20"): "50.12",
        ("Table 8: PGD-AT resnet18/8", "clean"): "84.06",
        ("Table 8: PGD-AT resnet18/8", "pgd-20"): "49.35",
        ("Table 8: ARD mobilenetv2/4 from PGD-AT resnet18/8", "pgd-20"): "47.74 (teacher of 84.06 / 49.35)",
    }


@pytest.mark.usefixtures("nothing")
def test_students_are_compared_with_their_teachers_or_with_pgd_at_of_their_network():
    lines = asked("tab7_clean_distillation", "quick")
    references = tab7.references(lines)
    assert len(references) == 11
    assert references["Table 4: KD mobilenetv2/4 from TRADES resnet18/4"] == "Table 4: TRADES resnet18/4"
    for student, teacher in references.items():
        assert student.partition(" (")[0].endswith(f" from {teacher.partition(': ')[2]}")
        assert student[:7] == teacher[:7]
    lines = asked("tab8_ard", "quick")
    assert tab8.references(lines) == {
        "Table 4: KD mobilenetv2/4 from TRADES resnet18/4": "Table 6: PGD-AT mobilenetv2/4",
        "Table 5: KD mobilenetv2/4 from PGD-AT resnet18/4 (alpha 0.93)": "Table 7: PGD-AT mobilenetv2/4",
        "Table 6: TRADES mobilenetv2/4": "Table 6: PGD-AT mobilenetv2/4",
        "Table 6: ARD mobilenetv2/4 from TRADES resnet18/4": "Table 6: PGD-AT mobilenetv2/4",
        "Table 6: ARD mobilenetv2/4 from TRADES resnet18/4 (alpha 0.95)": "Table 6: PGD-AT mobilenetv2/4",
        "Table 7: ARD mobilenetv2/4 from PGD-AT resnet18/4 (alpha 0.93)": "Table 7: PGD-AT mobilenetv2/4",
        "Table 8: ARD resnet18/8 from PGD-AT resnet18/8": "Table 8: PGD-AT resnet18/8",
        "Table 8: ARD mobilenetv2/4 from PGD-AT mobilenetv2/4": "Table 8: PGD-AT mobilenetv2/4",
        "Table 8: ARD mobilenetv2/4 from PGD-AT resnet18/8": "Table 8: PGD-AT mobilenetv2/4",
    }


def papers_own(lines, **changed):
    """Return the paper's own accuracies as if measured on 10,000 images; `changed` by row and metric."""
    numbers = {lines.row(line): {"clean": 0.5} for line in lines.lines}
    for line, row in distillation._lines():
        if line in lines.lines:
            numbers[lines.row(line)][row.metric] = row.value / 100
    for row, metric, value in changed.get("to", ()):
        numbers[row][metric] = value
    return made_up(numbers, n=10_000)


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("name", MODULES)
def test_the_papers_claims_hold_of_the_papers_numbers(name):
    lines = asked(name, "paper")
    checked = MODULES[name].check_claims(lines, papers_own(lines))
    assert len(checked) == 12
    assert [claim.verdict for claim in checked] == [claims.HOLDS] * 12
    for claim in checked:
        gap = claim.higher.estimate.value - claim.lower.estimate.value
        assert claim.difference.value == pytest.approx(gap, abs=2e-4)
        assert claim.difference.low <= claim.difference.value <= claim.difference.high


M, R, W = "mobilenetv2", "resnet18", "wrn-34-10"


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize(
    ("row", "value", "failing"),
    [
        (f"Table 2: KD {R} from Natural {R}", 0.15, {0}),
        (f"Table 2: KD {R} from Natural {R}", 0.45, {0, 1}),
        (f"Table 3: KD {R} from PGD-AT {R}", 0.2, {2}),
        (f"Table 2: KD {M} from Natural {R}", 0.15, {3}),
        (f"Table 2: KD {M} from Natural {R}", 0.45, {3, 4}),
        (f"Table 3: KD {M} from PGD-AT {R}", 0.2162, {5, 7}),
        (f"Table 4: KD {M} from PGD-AT {W}", 0.45, {6}),
        (f"Table 4: KD {M} from TRADES {W}", 0.45, {7}),
        (f"Table 5: KD {M} from PGD-AT {W}", 0.05, {8}),
        (f"Table 5: KD {M} from PGD-AT {W} (alpha 0.95)", 0.02, {9}),
        (f"Table 5: KD {M} from PGD-AT {W} (alpha 0.93)", 0.02, {10}),
        (f"Table 1: ARD {M} from PGD-AT {R}", 0.35, {11}),
    ],
)
def test_each_claim_of_tables_1_to_5_looks_at_its_own_rows(row, value, failing):
    lines = asked("tab7_clean_distillation", "paper", dataset="cifar10")
    checked = tab7.check_claims(lines, papers_own(lines, to=[(row, "pgd-20", value)]))
    assert {i for i, claim in enumerate(checked) if claim.verdict != claims.HOLDS} == failing


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize(
    ("row", "metric", "value", "failing"),
    [
        (f"Table 6: PGD-AT {M}", "clean", 0.84, {0}),
        (f"Table 6: PGD-AT {M}", "pgd-20", 0.52, {1}),
        (f"Table 6: TRADES {M}", "pgd-20", 0.48, {4}),
        (f"Table 6: TRADES {M}", "pgd-20", 0.52, {2, 4}),
        (f"Table 6: TRADES {M}", "clean", 0.86, {3}),
        (f"Table 6: ARD {M} from TRADES {W}", "clean", 0.86, {5}),
        (f"Table 4: KD {M} from TRADES {W}", "pgd-20", 0.52, {6}),
        (f"Table 7: PGD-AT {M}", "pgd-20", 0.29, {7}),
        (f"Table 5: KD {M} from PGD-AT {W} (alpha 0.93)", "pgd-20", 0.29, {8}),
        (f"Table 8: PGD-AT {R}", "pgd-20", 0.507, {11}),
        (f"Table 8: PGD-AT {R}", "pgd-20", 0.53, {9, 11}),
        (f"Table 8: PGD-AT {M}", "pgd-20", 0.49, {10}),
    ],
)
def test_each_claim_of_tables_6_to_8_looks_at_its_own_rows(row, metric, value, failing):
    lines = asked("tab8_ard", "paper", dataset="cifar10")
    checked = tab8.check_claims(lines, papers_own(lines, to=[(row, metric, value)]))
    assert {i for i, claim in enumerate(checked) if claim.verdict != claims.HOLDS} == failing


def test_a_share_of_an_accuracy_has_the_paired_t_interval():
    generator = torch.Generator().manual_seed(0)
    pairs = [[torch.rand(50, generator=generator) < share for share in (0.6, 0.4)] for _ in range(4)]
    evaluations = {name: [Evaluation({"pgd-20": pair[i]}) for pair in pairs] for i, name in enumerate("ab")}
    differences = [a.double() - 0.5 * b.double() for a, b in pairs]
    intervals = [stats.ttest_1samp(each, 0).confidence_interval(0.95) for each in differences]
    one = WhiteBox({name: of_seeds[:1] for name, of_seeds in evaluations.items()}, {"pgd-20": None}, 10)
    ours = one.combination({("a", "pgd-20"): 1, ("b", "pgd-20"): -0.5})
    assert (ours.value, ours.low, ours.high) == pytest.approx((float(differences[0].mean()), *intervals[0]), abs=1e-6)
    both = WhiteBox(evaluations, {"pgd-20": None}, 10).combination({("a", "pgd-20"): 1, ("b", "pgd-20"): -0.5})
    table = torch.stack(differences)
    rest = (table - table.mean(0) - table.mean(1, keepdim=True) + table.mean()).square().sum().item() / (3 * 49)
    images, between = table.mean(0).var().item() / 50, table.mean(1).var().item()
    variance = max(images + (between - rest / 50) / 4, images / 10)
    degrees = max(variance**2 / ((max(between, rest / 50) / 4) ** 2 / 3 + images**2 / 49), 3)
    assert both.value == pytest.approx(table.mean().item())
    assert both.high - both.value == pytest.approx(stats.t.ppf(0.975, degrees) * math.sqrt(variance), abs=1e-6)
    assert both.seeds == 4
    assert not isinstance(ours, statistics.Measure), "it is printed in points"


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"smaller_teacher": "resnet19"}, "Unknown model 'resnet19'"),
        ({"smaller_teacher": "resnet18/3"}, "The width divisor of 'resnet18/3'"),
        ({"teacher": "wrn"}, "Unknown model 'wrn'"),
        ({"teacher_method": "TRADES"}, "does not use teacher_method"),
        ({"n_autoattack": 4}, "does not use n_autoattack"),
        ({"settings": {"ARD": {"alpha": 0.9}}}, "leave alpha out of the settings of ARD"),
        ({"settings": {"KD": {"l": 0.9}}}, "leave l out of the settings of KD"),
        ({"settings": {"KD": {"tau": -1}}}, "tau"),
        ({"dataset": "cifar11"}, "cifar11"),
        ({"eps": "8:255"}, "eps must be a number"),
        ({"epochs": 0}, "epochs"),
        ({"select_on": "best"}, "Unknown selection"),
    ],
)
def test_wrong_parameters_are_refused_before_any_training(nothing, name, parameters, words):
    with pytest.raises(ValueError, match=words):
        asked(name, **parameters)
    assert nothing.gathered == []


@pytest.mark.parametrize(
    ("name", "student"), [("tab7_clean_distillation", 8), ("tab8_ard", 8), ("tab8_ard", 4)], ids=str
)
def test_networks_that_would_make_two_lines_one_are_refused_before_any_training(nothing, name, student):
    with pytest.raises(ValueError, match="lines of the paper would be this one"):
        MODULES[name].tables(exhibits.setup(name, "quick", student=f"resnet18/{student}"))
    assert nothing.gathered == []


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize(("teacher", "number"), [("resnet18/8", 11), ("resnet18/4", 12)])
def test_a_training_is_not_compared_with_itself(teacher, number):
    lines = asked("tab7_clean_distillation", "quick", teacher=teacher, smaller_teacher="resnet18/8")
    checked = tab7.check_claims(lines, lines.measure(lines.train()))
    assert len(checked) == number
    assert sum("transfers less robustness by KD than PGD-AT" in claim.text for claim in checked) == number - 10


@pytest.mark.usefixtures("nothing")
def test_guessing_is_that_of_each_rows_own_data():
    setup = exhibits.setup("tab8_ard", "paper")
    tables = tab8.tables(setup)
    measured = tables.measure(tables.train())
    guessing = {measured.guessing(tables.row(line)) for line in tables.lines if line.dataset == "cifar100"}
    assert guessing == {0.01}
    row = next(tables.row(line) for line in tables.lines if line.dataset == "cifar10")
    assert measured.guessing(row) == 0.1


def test_one_image_is_too_few_for_a_share_of_an_accuracy(nothing):
    with pytest.raises(ValueError, match="n_test"):
        asked("tab7_clean_distillation", n_test=1)
    assert nothing.gathered == []


@pytest.mark.usefixtures("nothing")
def test_lines_and_tables_that_the_paper_does_not_have_are_refused():
    setup = exhibits.setup("tab8_ard", "smoke")
    with pytest.raises(UnknownNameError, match="Unknown table 'Table 9'"):
        distillation.tables_of(setup, ["Table 9"])
    strange = Line("Table 6", "cifar10", "mobilenetv2", "ARD", "TRADES wrn-34-10", 0.5)
    with pytest.raises(ValueError, match="no such line"):
        distillation.tables_of(setup, ["Table 7"], [strange])
    with pytest.raises(ValueError, match="2 lines of Table 6"):
        tab8.tables(setup).find("Table 6", "ARD", "mobilenetv2")


@pytest.mark.usefixtures("nothing")
def test_the_picture_has_a_row_for_each_comparison_and_names_what_is_subtracted():
    lines = asked("tab8_ard", "quick")
    numbers = lines.numbers(lines.measure(lines.train()), tab8.references(lines))
    shown = numbers.assign(compared_with=numbers.compared_with.where(numbers.compared_with == "", "PGD-AT"))
    *above, clean, robust = figures.differences(shown, "title", "paper").axes
    assert len(above[0].get_yticklabels()) == len(lines.lines)
    assert [label.get_text() for label in clean.get_yticklabels()] == list(tab8.references(lines))
    assert clean.get_xlabel().startswith("Accuracy minus\nPGD-AT's (points)")
    assert robust.get_title() == "PGD-20"


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("name", MODULES)
def test_the_paper_has_no_numbers_of_a_selection_of_classes(name):
    lines = asked(name, dataset="digits:3,8", n_train=128, n_test=64)
    numbers = lines.numbers(lines.measure(lines.train()), MODULES[name].references(lines))
    assert numbers.accuracy.notna().all()
    assert numbers.paper.isna().all()
    assert (numbers.others == "").all()
    assert numbers.paper_difference.isna().all()
