"""Methods compared over several seeds: paired differences, judged as one family, with the runs of Table 1."""

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner

from rkdkit import cli, cli_methods, comparing, evaluation, methods, plan, statistics
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.checks import UnknownNameError
from rkdkit.training import Training
from rkdkit.trainings import Train

METRICS = ("clean", "pgd-20")
TINY = ("epochs=1", "n_train=64", "n_val=32", "n_test=40", "n_autoattack=2", "attack_steps=1", "swa_start=none")


def measured(shares, seeds=3, n=200):
    """Methods with given accuracies on the same images; a method with a higher one is right wherever others are."""
    levels = torch.rand(seeds, n, generator=torch.Generator().manual_seed(0))
    evaluations = {
        method: [
            evaluation.Evaluation({metric: levels[i] < share for metric, share in zip(METRICS, of, strict=True)})
            for i in range(seeds)
        ]
        for method, of in shares.items()
    }
    return WhiteBox(evaluations, dict.fromkeys(METRICS), 10)


SHARES = {"A": (0.9, 0.5), "B": (0.9, 0.8), "C": (0.6, 0.5)}


def test_differences_are_from_the_first_method_paired_by_seed_and_image():
    ours = measured(SHARES)
    found = comparing.compared(ours)
    assert found.first == "A"
    assert list(found.differences) == [("B", "clean"), ("B", "pgd-20"), ("C", "clean"), ("C", "pgd-20")]
    for (method, metric), claim in found.differences.items():
        pairs = zip(ours.evaluations[method], ours.evaluations["A"], strict=True)
        expected = statistics.difference_over_seeds([(a.correct[metric], b.correct[metric]) for a, b in pairs])
        assert claim.difference == expected
    apart = replace(ours, evaluations={**ours.evaluations, "A": ours.evaluations["A"][::-1]})
    of_others = comparing.compared(apart).differences["B", "pgd-20"].difference
    assert of_others.value == pytest.approx(found.differences["B", "pgd-20"].difference.value)
    assert of_others != found.differences["B", "pgd-20"].difference, "seeds are paired"


def test_verdicts_say_which_is_higher_and_are_judged_as_one_family():
    found = comparing.compared(measured(SHARES))
    verdicts = {key: comparing.VERDICTS[claim.verdict] for key, claim in found.differences.items()}
    assert verdicts == {
        ("B", "clean"): "too close to tell",
        ("B", "pgd-20"): "higher",
        ("C", "clean"): "lower",
        ("C", "pgd-20"): "too close to tell",
    }
    raw = sorted(claim.p_value for claim in found.differences.values())
    adjusted = sorted(claim.adjusted_p_value for claim in found.differences.values())
    assert adjusted[0] == pytest.approx(4 * raw[0])
    assert adjusted[1] == pytest.approx(max(3 * raw[1], adjusted[0]))
    assert "one family, these 4 differences, at 95 % together (Holm)" in str(found)
    other_way = comparing.compared(measured({"B": SHARES["B"], "A": SHARES["A"]}))
    assert comparing.VERDICTS[other_way.differences["A", "pgd-20"].verdict] == "lower"


def test_numbers_and_tables_say_the_same():
    found = comparing.compared(measured(SHARES), ["How it was made."])
    numbers = found.numbers()
    assert list(numbers.columns) == [
        *("method", "metric", "accuracy", "low", "high", "n", "seeds", "attack"),
        *("compared_with", "difference", "difference_low", "difference_high", "adjusted_p_value", "verdict"),
    ]
    assert len(numbers) == 6
    of_first = numbers[numbers.method == "A"]
    assert list(of_first.compared_with) == ["", ""]
    assert list(of_first.verdict) == ["", ""]
    assert of_first.difference.isna().all()
    (line,) = numbers[(numbers.method == "B") & (numbers.metric == "pgd-20")].itertuples()
    assert (line.compared_with, line.verdict, line.seeds) == ("A", "higher", 3)
    accuracies, differences = found.tables()
    assert accuracies.heading == ("method", "clean", "PGD-20")
    assert [row[0] for row in accuracies.rows] == ["A", "B", "C"]
    interval = [f"{100 * value:.1f}" for value in (line.accuracy, line.low, line.high)]
    assert accuracies.rows[1][2] == f"{interval[0]} [{interval[1]}, {interval[2]}]"
    own = [f"{100 * value:.1f}" for value in (line.difference, line.difference_low, line.difference_high)]
    assert differences.heading == ("method", "accuracy", "minus A", "verdict")
    assert differences.rows[1] == ("B", "PGD-20", f"{own[0]} [{own[1]}, {own[2]}]", "higher")
    assert "How it was made." in str(found)
    read = list(csv.DictReader(io.StringIO(found.written("csv"))))
    assert [each["verdict"] for each in read] == list(numbers.verdict)
    assert "\\bottomrule" in found.written("latex")
    assert "| method | accuracy | minus A | verdict |" in found.written("markdown")
    with pytest.raises(UnknownNameError, match="Unknown format 'word'"):
        found.written("word")


@pytest.mark.usefixtures("store")
def test_the_runs_and_questions_are_those_of_table_1():
    of_table = plan.Planner()
    plan.ask(of_table, ROOT / "notebooks" / "tab1_white_box.ipynb", {"profile": "smoke", "n_seeds": 2})
    asked = comparing.planned(["RSLAD", "PeerAiD", "AKD2"], "smoke", seeds=2)
    assert {task.spec.method for task in asked.trainings} == {"RSLAD", "PeerAiD", "AKD2", "TRADES", "Natural"}
    assert {task.spec.seed for task in asked.trainings} == {0, 1}
    assert asked.trainings.keys() <= of_table.trainings.keys()
    assert {task.name for task in asked.measurements} <= {task.name for task in of_table.measurements}
    assert len(asked.measurements) > 3 * 4 * 2
    said = comparing.still_to_do(asked)
    assert said.startswith("Trainings needed: 10, in the store: 0, missing: 10; measurements missing: ")
    assert said.endswith("of work for one core, right within a factor of three.")


def compare(*words):
    return CliRunner().invoke(cli.app, ["compare", *map(str, words)])


def parameters(*pairs):
    return [word for pair in pairs for word in ("-p", pair)]


@pytest.mark.usefixtures("store", "one_block")
def test_the_command_trains_what_is_missing_once_and_writes_what_it_prints(tmp_path, monkeypatch):
    words = ["TRADES", "RSLAD", "--profile", "smoke", "--seeds", "2", "--workers", "1", *parameters(*TINY)]
    first = compare(*words, "-o", tmp_path / "compared.md")
    assert first.exit_code == 0, (first.output, first.exception)
    assert "Trainings needed: 4, in the store: 0, missing: 4; measurements missing: " in first.stderr
    assert "Accuracy in per cent, with 95 % intervals:\nmethod " in first.stdout
    assert "Difference from TRADES in points" in first.stdout
    said = " ".join(first.stdout.split())
    assert "smoke profile (" in said
    assert "seeds 0 to 1" in said
    assert "first 2 images" in said
    assert (tmp_path / "compared.md").read_text().startswith("**Accuracy in per cent")
    assert f"Written: {tmp_path / 'compared.md'}" in first.stderr
    monkeypatch.setattr(Training, "run_epoch", lambda _: pytest.fail("it is trained"))
    again = compare(*words, "-o", tmp_path / "compared.csv")
    assert again.exit_code == 0, (again.output, again.exception)
    assert again.stdout == first.stdout
    assert "Everything that this needs is in the store." in again.stderr
    numbers = list(csv.DictReader((tmp_path / "compared.csv").open()))
    assert [line["method"] for line in numbers] == ["TRADES"] * 4 + ["RSLAD"] * 4
    assert {line["n"] for line in numbers} == {"40", "2"}
    one = compare(*words[:4], "--seeds", "1", "--workers", "1", *parameters(*TINY))
    assert "With one seed, the intervals do not include the variance between" in " ".join(one.stdout.split())


@pytest.fixture
def nothing_is_done(monkeypatch):
    for name in ("compare", "planned"):
        monkeypatch.setattr(comparing, name, lambda *_, **__: pytest.fail("it went on"))


WRONG = [
    ([], "Name two methods or more"),
    (["RSLAD"], "Name two methods or more"),
    (["RSLAD", "PeerAiD", "RSLAD"], "RSLAD is named twice"),
    (["RSLAD", "PeerAid"], "Unknown method 'PeerAid'. Did you mean 'PeerAiD'?"),
    (["RSLAD", "PeerAiD", "--profile", "quik"], "Did you mean 'quick'?"),
    (["RSLAD", "PeerAiD", "-p", "epss=1"], "compare: Unknown parameter 'epss'. Did you mean 'eps'?"),
    (["RSLAD", "PeerAiD", "-p", "n_seeds=2"], "-p n_seeds is an exhibit's: here, give --seeds"),
    (["RSLAD", "PeerAiD", "-p", "output_dir=x"], "-p output_dir is an exhibit's: here, give -o"),
    (["RSLAD", "PeerAiD", "-o", "compared.txt"], "--output must end in .tex, .md, .csv"),
    (["RSLAD", "PeerAiD", "-p", "formats=pdf"], "A comparison has no picture"),
    (["RSLAD", "PeerAiD", "-o", "compared"], "--output must end in .tex, .md, .csv"),
    (["RSLAD", "PeerAiD", "-o", "nowhere/compared.md"], "there is no folder nowhere"),
    (["RSLAD", "PeerAiD", "--workers", "0"], "workers must be a whole number of at least 1"),
]


@pytest.mark.usefixtures("store", "nothing_is_done")
@pytest.mark.parametrize(("words", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(words, said):
    done = compare(*words)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert said in done.output


WRONG_VALUES = [
    (["--seeds", "0"], "n_seeds must be between 1 and 1000, not 0"),
    (parameters("lr=1e308"), "lr must be between 0 and 3.4e+38"),
    (parameters("dataset=folder:nowhere"), "nowhere"),
    (parameters("dataset=digits:3,8", "n_train=64", "n_val=32", "n_test=40"), "AutoAttack"),
]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("words", "said"), WRONG_VALUES, ids=[said[:40] for _, said in WRONG_VALUES])
def test_a_wrong_value_is_refused_before_anything_is_trained(monkeypatch, words, said):
    monkeypatch.setattr(Train, "do", lambda *_: pytest.fail("it is trained"))
    done = compare("RSLAD", "PeerAiD", "--profile", "smoke", *words)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert said in done.output


@pytest.mark.usefixtures("nothing_is_done")
def test_a_folder_is_no_file_and_a_full_exhibit_is_not_overwritten(tmp_path):
    (tmp_path / "x.md").mkdir()
    assert "is a folder" in compare("RSLAD", "PeerAiD", "-o", tmp_path / "x.md").output
    exhibit = ROOT / "figures" / "quick" / "tab1_white_box.csv"
    assert "belongs to an exhibit" in compare("RSLAD", "PeerAiD", "-o", exhibit).output


@pytest.mark.usefixtures("store")
def test_methods_of_ones_own_are_loaded_first(tmp_path, monkeypatch):
    file = tmp_path / "my.py"
    file.write_text(
        "from dataclasses import replace\nfrom rkdkit.methods import METHODS\n"
        'METHODS["Mine"] = replace(METHODS["RSLAD"], title="Mine")\n'
    )
    monkeypatch.setenv(cli_methods.VARIABLE, "")
    before = dict(methods.METHODS)
    monkeypatch.setattr(comparing, "planned", lambda names, **_: pytest.fail(f"known: {names}"))
    try:
        with pytest.raises(pytest.fail.Exception, match=r"known: \['RSLAD', 'Mine'\]"):
            CliRunner().invoke(cli.app, ["compare", "RSLAD", "Mine", "--methods", str(file)], catch_exceptions=False)
        assert "Mine" in methods.METHODS
    finally:
        methods.METHODS.clear()
        methods.METHODS.update(before)
    assert os.environ[cli_methods.VARIABLE] == str(file)
    refused = compare("RSLAD", "Mine", "--methods", tmp_path / "none.py")
    assert "none.py" in refused.output
    assert refused.exit_code != 0


@pytest.mark.usefixtures("store")
def test_a_script_finds_methods_of_the_file_that_the_environment_names(tmp_path):
    file = tmp_path / "my.py"
    file.write_text(
        "from dataclasses import replace\nfrom rkdkit.methods import METHODS\n"
        'METHODS["Mine"] = replace(METHODS["RSLAD"], title="Mine")\n'
    )
    script = "from rkdkit import comparing; print(comparing.prepared(['RSLAD', 'Mine'], 'smoke').exhibit.trains)"
    environment = {**os.environ, cli_methods.VARIABLE: str(file), "PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert told.stdout.strip() == "('RSLAD', 'Mine')"
