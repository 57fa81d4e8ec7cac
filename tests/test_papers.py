"""What the papers print: complete, read twice, and in the kit's names."""

import pandas as pd
import pytest
from conftest import ROOT

from rkdkit import exhibits, methods, models
from rkdkit.checks import UnknownNameError
from rkdkit.papers.places import TITLES, in_words, places
from rkdkit.papers.reported import (
    PAPERS,
    beside,
    replications,
    reported,
    their_label,
    whole,
    with_replications,
)

NUMBERS = {
    "peeraid": [216, 21, 36, 24, 24, 32, 18],
    "ard": [3, 6, 6, 8, 8, 10, 6, 10, 8, 5, 16],
    "rkd": [28, 18, 12, 12, 24, 30, 30, 12, 6, 6, 20, 4],
}
PAPERS_OWN = {"AT+", "TRADES+"}
"""Methods of the papers that are no rows of the table: RKD's state-of-the-art teachers."""


@pytest.mark.parametrize("paper", PAPERS)
def test_every_table_is_there(paper):
    counted = reported(paper).groupby("table", sort=False).size()
    assert counted.to_dict() == {f"Table {i}": n for i, n in enumerate(NUMBERS[paper], start=1)}


def second_reading(paper):
    """Return what a second reader took from the paper's text, without reading the kit's numbers, in reading order.

    The columns row and column are what the paper prints there, so that a line can be looked up.
    """
    numbers = pd.read_csv(ROOT / "tests" / "second_reading.csv", dtype=str, keep_default_na=False)
    numbers = numbers[numbers.paper == paper].drop(columns=["paper", "row", "column"])
    return numbers.assign(value=pd.to_numeric(numbers.value), spread=pd.to_numeric(numbers.spread))


@pytest.mark.parametrize("paper", PAPERS)
def test_a_second_reader_found_the_same_numbers_under_the_same_labels(paper):
    first, second = (read(paper).reset_index(drop=True) for read in (reported, second_reading))
    assert list(first) == list(second)
    differing = (first.fillna(-1) != second.fillna(-1)).any(axis=1)
    assert not differing.any(), f"read first:\n{first[differing]}\nand second:\n{second[differing]}"


@pytest.mark.parametrize("paper", PAPERS)
def test_rows_are_told_apart_and_named_as_in_the_kit(paper):
    numbers = reported(paper)
    labels = [column for column in numbers if column not in ("value", "spread")]
    assert not numbers.duplicated(labels).any()
    assert set(numbers.method) <= set(methods.METHODS) | PAPERS_OWN
    assert set(numbers.dataset) <= {"cifar10", "cifar100", "tiny_imagenet"}
    for network in numbers.network.unique():
        models.parse(network)
    assert numbers[numbers.unit == "%"].value.between(0, 100).all()
    assert numbers.value.notna().all()


@pytest.mark.parametrize(
    ("paper", "table", "labels", "value"),
    [
        ("peeraid", "Table 1", ("cifar10", "resnet18", "PeerAiD", "autoattack"), 52.57),
        ("peeraid", "Table 1", ("tiny_imagenet", "wrn-34-10", "CAT", "clean"), 40.85),
        ("ard", "Table 1", ("cifar10", "mobilenetv2", "ARD", "pgd-20"), 50.22),
        ("rkd", "Table 12", ("cifar10", "resnet18", "PGD-AT", "pgd-7"), 53.56),
    ],
)
def test_a_few_numbers_by_hand(paper, table, labels, value):
    dataset, network, method, metric = labels
    rows = reported(paper, table)
    rows = rows[(rows.dataset == dataset) & (rows.network == network) & (rows.method == method)]
    assert rows[rows.metric == metric].value.iloc[0] == value


def test_an_unknown_paper_or_table_is_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown paper 'peerad'. Did you mean 'peeraid'"):
        reported("peerad")
    with pytest.raises(UnknownNameError, match="Unknown table 'Table 9'"):
        reported("peeraid", "Table 9")


def test_what_a_replication_is_compared_with_is_what_the_paper_prints():
    labels = ["table", "dataset", "network", "method", "guide", "metric"]
    for _, row in replications().iterrows():
        theirs = reported(row.paper)
        same = theirs[(theirs[labels] == row[labels]).all(axis=1)]
        assert row.paper_value in set(same.value), row.to_dict()


def test_a_replication_names_the_thread_and_divides_from_others():
    reports = replications()
    assert not reports.setting.str.contains("not named").any(), "what was not under PGD-20 is not beside PGD-20"
    assert reports.source.str.fullmatch(r"github\.com/[\w-]+/[\w-]+ issue \d+").all()
    assert not reports.setting.str.contains(";").any()
    assert not reports.duplicated(["paper", "table", "network", "method", "guide", "metric", "setting", "source"]).any()


def test_several_reports_of_a_number_stand_beside_it_wherever_it_is_printed(monkeypatch):
    known = replications()
    another = known[known.value == 56.43].assign(
        value=49.5, setting="at its last epoch", source="github.com/someone/else issue 3"
    )
    monkeypatch.setattr("rkdkit.papers.reported.replications", lambda: pd.concat([known, another]))
    both = with_replications(reported("ard"))
    assert list(both.drop(columns=["others", "source"])) == list(reported("ard"))
    assert len(both) == len(reported("ard"))
    trades = both[(both.value == 56.61) & (both.method == "TRADES")]
    assert list(trades.table) == ["Table 4", "Table 6"]
    assert set(trades.others) == {"56.43; 49.5 (at its last epoch)"}
    assert set(trades.source) == {
        "github.com/goldblum/AdversariallyRobustDistillation issue 2; github.com/someone/else issue 3"
    }
    assert (with_replications(reported("rkd")).others == "").all(), "nobody reports numbers of RKD"
    of_ard = {"Table 1": "PGD-AT resnet18", "Table 8": "PGD-AT mobilenetv2"}
    student = both[(both.method == "ARD") & (both.network == "mobilenetv2") & (both.metric == "pgd-20")]
    said = {
        table: student[(student.table == table) & (student.guide == guide)].others for table, guide in of_ard.items()
    }
    assert said["Table 1"].tolist() == ["47.74 (teacher of 84.06 / 49.35)"]
    assert said["Table 8"].tolist() == [""], "another teacher"
    of_another = student[student.others != ""].drop(columns=["others", "source"]).assign(guide="TRADES resnet18")
    assert set(with_replications(of_another).others) == {""}


def test_reports_of_others_go_where_the_papers_number_goes():
    ours = pd.DataFrame({"method": ["TRADES", "Mine"], "metric": ["pgd-20"] * 2, "accuracy": [0.4, 0.5]})
    theirs = with_replications(reported("ard", "Table 6"))
    theirs = theirs[theirs.method == "TRADES"]
    both = beside(ours, theirs, "digits", "wrn-34-10")
    first = ["56.43", "", *["84.92", "77.82", "50.51"]]  # three stand beside nothing of ours
    assert both.others.str.partition(";")[0].str.partition(" ")[0].tolist() == first
    assert both.source.tolist()[1] == ""
    assert "others" not in beside(ours, reported("peeraid", "Table 1"), "cifar10", "resnet18")


def test_the_papers_numbers_stand_beside_ours():
    ours = pd.DataFrame({"method": ["PeerAiD", "Mine"], "metric": ["autoattack"] * 2, "accuracy": [0.4, 0.5]})
    theirs = reported("peeraid", "Table 1")
    on_digits = beside(ours, theirs, "digits", "resnet18/4")
    assert on_digits.paper.iloc[0] == pytest.approx(0.5257)
    assert pd.isna(on_digits.paper.iloc[1])
    assert list(on_digits.table[:2]) == ["Table 1", ""]
    assert set(zip(on_digits.paper_dataset[:2], on_digits.paper_network[:2], strict=True)) == {("cifar10", "resnet18")}
    assert beside(ours, theirs, "cifar10:cat,dog", "resnet18").paper[:2].isna().all()
    assert beside(ours, theirs, "cifar100", "wrn-34-10").paper.iloc[0] == pytest.approx(0.3006)


def test_the_papers_other_numbers_have_lines_of_their_own():
    ours = pd.DataFrame({"method": ["PeerAiD", "Mine"], "metric": ["autoattack"] * 2, "accuracy": [0.4, 0.5]})
    theirs = reported("peeraid", "Table 1")
    both = beside(ours, theirs, "digits", "resnet18/4")
    rest = both[2:].set_index(["method", "metric"])
    assert len(rest) == 216 - 1
    assert rest.index.is_unique
    assert rest.accuracy.isna().all()
    line = rest.loc[("PeerAiD wrn-34-10 on tiny_imagenet (paper)", "autoattack")]
    assert (line.paper, line.table) == (pytest.approx(0.2482), "Table 1")
    assert (line.paper_dataset, line.paper_network) == ("tiny_imagenet", "wrn-34-10")
    assert ("PeerAiD resnet18 on cifar10 (paper)", "clean") in rest.index, "of the same network, another metric"
    assert ("PeerAiD resnet18 on cifar10 (paper)", "autoattack") not in rest.index
    alone = beside(ours[:1], theirs[(theirs.method == "PeerAiD") & (theirs.value == 52.57)], "digits", "resnet18/4")
    assert list(alone.method) == ["PeerAiD"], "nothing is left"


def test_a_legend_says_beside_which_network_of_ours_the_papers_stands():
    rows = [
        (0.5, "resnet18/4", "wrn-34-10"), (0.6, "resnet18/4", "wrn-34-10"), (0.5, "resnet18/8", "resnet18"),
        (0.5, "mobilenetv2", "mobilenetv2"), (float("nan"), None, "resnet34"), (0.5, "resnet34/4", None),
    ]  # fmt: skip
    numbers = pd.DataFrame(rows, columns=["accuracy", "network", "paper_network"])
    assert their_label("paper: cifar10", numbers).split("\n") == [
        "paper: cifar10", "its wrn-34-10 beside our resnet18/4", "its resnet18 beside our resnet18/8"
    ]  # fmt: skip
    assert their_label("paper", numbers[3:4]) == "paper"


def test_a_number_that_a_paper_has_twice_is_refused():
    ours = pd.DataFrame({"method": ["PeerAiD"], "metric": ["clean"], "accuracy": [0.4]})
    with pytest.raises(ValueError, match="many-to-one"):
        beside(ours, reported("peeraid", "Table 3"), "tiny_imagenet", "resnet18")


FIGURES = {"peeraid": 6, "ard": 2, "rkd": 17}
"""How many figures each paper has, appendices included."""

EVERY_PLACE = [
    (paper, kind, number)
    for kind, count in (("Figure", FIGURES), ("Table", {paper: len(tables) for paper, tables in NUMBERS.items()}))
    for paper in NUMBERS
    for number in range(1, count[paper] + 1)
]


def of_exhibits():
    return {name: exhibits.get(name).paper for name in exhibits.NAMES}


def test_the_papers_have_55_figures_and_tables_and_659_numbers():
    assert len(EVERY_PLACE) == 55
    assert sum(map(sum, NUMBERS.values())) == 659


@pytest.mark.parametrize("place", EVERY_PLACE, ids="{0[0]} {0[1]} {0[2]}".format)
def test_every_figure_and_table_of_the_papers_has_one_exhibit(place):
    having = [name for name, paper in of_exhibits().items() if place in places(paper)]
    assert len(having) == 1


def test_every_number_is_shown_by_an_exhibit():
    """A notebook of a table prints the papers' whole tables."""
    shown = []
    for name, paper in of_exhibits().items():
        if any(kind == "Table" for _, kind, _ in places(paper)):
            source = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
            assert "whole(setup.exhibit.paper)" in source, name
            table = whole(paper)
            shown += [cell for cell in table.to_numpy().ravel() if cell]
    numbers = pd.concat([reported(paper) for paper in PAPERS])
    assert len(shown) == len(numbers) == 659
    assert sorted(float(cell.partition(" ±")[0]) for cell in shown) == sorted(numbers.value)
    assert sum("±" in cell for cell in shown) == numbers.spread.notna().sum()


def test_places_are_read_from_text():
    assert places("RKD, Figures 6, 7 and 10 to 12; ARD, Table 1") == {
        *(("rkd", "Figure", i) for i in (6, 7, 10, 11, 12)), ("ard", "Table", 1)
    }  # fmt: skip
    assert places("peeraid table 6") == places("PeerAiD Tab. 6") == {("peeraid", "Table", 6)}
    assert places("anything else") == set()
    assert tuple(TITLES) == PAPERS
    for place in EVERY_PLACE:
        assert places(in_words(place)) == {place}


def test_a_whole_table_stands_as_the_paper_prints_it():
    table = whole("ARD, Tables 1 and 6")
    assert list(table.columns) == ["pgd-20", "clean"]
    line = ("Table 1", "cifar10", "mobilenetv2", "ARD", "PGD-AT resnet18", "alpha=1; tau=30")
    assert list(table.loc[line]) == ["50.22", ""]
    assert list(dict.fromkeys(table.index.get_level_values("table"))) == ["Table 1", "Table 6"]
    cells = set(whole("RKD, Tables 2 and 3").to_numpy().ravel())
    assert cells >= {"48.40 ± 0.25", "83.13 ± 0.61"}
    assert "0.00" in set(whole("PeerAiD Table 7").unbounded)
