"""A figure, a table or a number of the papers is found: by `rkdkit list`, in the pages, in the CSV of its exhibit."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from conftest import ROOT
from test_comparisons import made_up
from test_papers import EVERY_PLACE
from typer.testing import CliRunner

from rkdkit import attacks, cli, exhibits, figures, lookup, paths, profiles
from rkdkit.analysis.white_box import compared
from rkdkit.exhibits import tab1_white_box as tab1
from rkdkit.exhibits import tab4_teacher_architecture as tab4
from rkdkit.exhibits import tab6_gradient_obfuscation as tab6
from rkdkit.papers.places import in_words, places
from rkdkit.papers.reported import beside, reported, whole
from rkdkit.references import Snapshot
from rkdkit.spec import Teacher

TABLES = [place for place in EVERY_PLACE if place[1] == "Table"]


def exhibit_of(place):
    (name,) = (name for name in exhibits.NAMES if place in places(exhibits.get(name).paper))
    return name


def listed(*words):
    return CliRunner().invoke(cli.app, ["list", *words])


def about(place):
    name = exhibit_of(place)
    return "\n".join(lookup.lines_about(name, "What?", exhibits.get(name).paper, in_words(place)))


# the pages


def rows_of(page):
    """The rows of a page's table of exhibits, by exhibit."""
    found = [re.match(r"\| `(\w+)` \|", line) for line in page.read_text(encoding="utf-8").splitlines()]
    return {row[1]: row.string for row in found if row is not None and row[1] in exhibits.NAMES}


@pytest.mark.parametrize("page", ["README.md", "notebooks/README.md"])
def test_every_figure_and_table_stands_under_its_own_name_in_the_row_of_its_exhibit(page):
    rows = rows_of(ROOT / page)
    assert set(rows) == set(exhibits.NAMES)
    for place in EVERY_PLACE:
        named = [name for name, row in rows.items() if re.search(rf"\b{in_words(place)}\b", row)]
        assert named == [exhibit_of(place)], in_words(place)


def test_the_page_of_notebooks_shows_every_picture():
    for name, row in rows_of(ROOT / "notebooks" / "README.md").items():
        assert f'<img src="../figures/quick/{name}.png"' in row


# rkdkit list


def test_a_table_is_found_with_its_exhibits_files_and_only_its_own_numbers():
    said = listed("RKD Table 9").stdout
    assert said.startswith("tab12_capacity: Distil, or train for longer?\n")
    assert "in the papers: RKD Table 2, RKD Table 9\n" in said
    assert "notebook:      notebooks/tab12_capacity.ipynb\n" in said
    assert re.findall(r"figures/quick/tab12_capacity\.(?:png|csv)\n", said) == [
        f"figures/quick/tab12_capacity.{suffix}\n" for suffix in ("png", "csv")
    ]
    assert "RKD Table 9, as the paper prints it:\n" in said
    assert re.search(r"tiny_imagenet .*RKD-Rob\..* 21\.69 ± ", said)
    assert "RKD Table 2, as the paper" not in said
    assert "84.10" not in said


@pytest.mark.parametrize("place", TABLES, ids=in_words)
def test_all_numbers_of_a_table_are_printed_as_in_the_paper(place):
    printed = about(place).partition("as the paper prints it:\n")[2]
    cells = Counter(cell for cell in whole(in_words(place)).to_numpy().ravel() if cell)
    assert sum(cells.values()) == len(reported(place[0], f"Table {place[2]}"))
    assert Counter(re.findall(r"\d+(?:\.\d+)?(?: ± \d+(?:\.\d+)?)?", printed)) >= cells


def test_numbers_have_the_digits_and_units_of_the_paper():
    assert re.search(r"unbounded \(%\)\n(.*\n)*.* 0\.00", about(("peeraid", "Table", 7)))
    assert "48.40 ± 0.25" in about(("rkd", "Table", 2))
    assert "training time (h)" in about(("ard", "Table", 10))
    assert re.search(r"cosine similarity\n", about(("peeraid", "Table", 2))), "it has no unit"


def test_a_figure_has_an_exhibit_and_no_numbers():
    said = listed("RKD Figure 13").stdout
    assert said.startswith("fig12_trajectories: ")
    assert "RKD Figure 13: the paper prints no numbers of it." in said
    assert "RKD Figure 12:" not in said


def test_an_exhibits_name_prints_all_of_its_tables_and_several_names_are_answered_in_turn():
    said = listed("tab4", "transfer").stdout
    assert re.findall(r"^(\w+): ", said, re.MULTILINE) == ["tab4_teacher_architecture", "tab5_transfer_attacks"]
    assert re.findall(r"^(.*), as the paper prints it", said, re.MULTILINE) == [
        f"PeerAiD Table {number}" for number in (4, 5, 6)
    ]
    assert "in the papers: ARD, section 6" in listed("tab11").stdout


def test_files_that_are_not_there_are_made_by_a_command(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "output_folder", lambda profile: tmp_path / profile)
    said = about(("ard", "Table", 11))
    assert said.count("not there; `rkdkit figures tab10_attack_suite` makes it") == 2


def test_what_is_nowhere_is_refused_by_name():
    done = listed("RKD Table 99")
    assert isinstance(done.exception, SystemExit)
    tables = ", ".join(f"RKD Table {number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12))
    said = f"Unknown table of RKD 'RKD Table 99'. Did you mean 'RKD Table 9'? Known: RKD Table 9, {tables}."
    assert (done.exit_code, str(done.exception)) == (1, said)
    for words, said in (
        (
            "ard fig. 10000",
            "Unknown figure of ARD 'ard fig. 10000'. Did you mean 'ARD Figure 1'? Known: ARD Figure 1, ",
        ),
        ("PeerAd, Table 1", "Unknown paper 'peerad'. Did you mean 'PeerAiD'? Known: PeerAiD, "),
        ("RKD Tables 2 and 3", "Unknown exhibit 'RKD Tables 2 and 3'."),
    ):
        assert str(listed("tab1", words).exception).startswith(said)


# the numbers of an exhibit's CSV


def found(numbers, table):
    shown = numbers[numbers.paper.notna() & (numbers.table == table)]
    return sorted(zip(shown.paper_dataset, shown.paper_network, shown.metric, shown.paper.round(6), strict=True))


def printed_in(table):
    numbers = reported("peeraid", table)
    return sorted(zip(numbers.dataset, numbers.network, numbers.metric, (numbers.value / 100).round(6), strict=True))


def alike(methods, metrics):
    by = dict.fromkeys(metrics, 0.5)
    return replace(made_up(dict.fromkeys(methods, by)), measured_by=dict.fromkeys(metrics))


@pytest.mark.parametrize(
    ("dataset", "network", "beside_none"),
    [("digits", "resnet18/4", 180), ("tiny_imagenet", "wrn-34-10", 180), ("digits:3,8", "resnet18/4", 216)],
)
def test_every_number_of_peeraids_table_1_is_in_the_csv_and_only_those_beside_ours_in_the_picture(
    dataset, network, beside_none
):
    measured = alike(tab1.METHODS, ("clean", "fgsm", "pgd-20", "autoattack"))
    numbers = beside(measured.table(), reported("peeraid", "Table 1"), dataset, network)
    numbers = measured.against(compared(tab1.METHODS), numbers)
    assert found(numbers, "Table 1") == printed_in("Table 1")
    assert len(printed_in("Table 1")) == 216
    rest = numbers[numbers.accuracy.isna()]
    assert len(rest) == beside_none
    assert rest.method.str.endswith(" (paper)").all()
    assert set(rest.compared_with) == {""}
    assert ("CAT wrn-34-10 on tiny_imagenet (paper)" in set(rest.method)) == (dataset != "tiny_imagenet")
    above, *_, below = figures.differences(numbers, "title").axes
    assert [label.get_text() for label in above.get_yticklabels()] == list(tab1.METHODS)
    assert len(below.get_yticklabels()) in (0, len(tab1.METHODS) - 1), "only the first panel of a row names its lines"
    assert list(figures.in_per_cent(numbers).index[: len(tab1.METHODS)]) == list(tab1.METHODS)


def test_every_number_of_peeraids_table_5_is_in_the_csv_though_two_methods_are_trained():
    scale = profiles.PROFILES["smoke"]

    def trained(network):
        teacher = Teacher(run=scale.spec("TRADES", student=network), epoch=1)
        rslad = scale.spec("RSLAD", teachers=(teacher,), student=network)
        specs = {"RSLAD": rslad, "PeerAiD": scale.spec("PeerAiD", student=network, peer=network)}
        return {method: [Snapshot(spec, "student", 1)] for method, spec in specs.items()}

    measured = alike(("RSLAD", "PeerAiD"), ("clean", "fgsm", "pgd-20", "autoattack"))
    numbers = tab4.beside_the_paper(measured, measured, trained("resnet18/16"), trained("mobilenetv2/16"))
    for table in ("Table 4", "Table 5"):
        assert found(numbers, table) == printed_in(table)
        of_table = numbers[(numbers.table == table) & numbers.accuracy.isna()]
        assert len(of_table) == 24 - 8
        assert (of_table.row == of_table.method).all()
        assert set(of_table.student) == set(of_table.guide) == {""}
    drawn = figures.differences(numbers, "title", "paper", row="row").axes[0]
    assert [label.get_text().partition(",")[0] for label in drawn.get_yticklabels()] == 2 * ["RSLAD", "PeerAiD"]


def test_every_number_of_peeraids_table_7_is_in_the_csv_and_ours_alone_in_the_picture():
    by = tab6.obfuscation_attacks(attacks.PGD(0.1, 0.025, 20))
    measured = alike(tab6.METHODS, by)
    numbers = beside(measured.table(), tab6.paper_numbers(), "digits", "resnet18/4")
    assert found(numbers, "Table 7") == printed_in("Table 7")
    assert len(printed_in("Table 7")) == 18
    ours = numbers[numbers.accuracy.notna()].set_index("metric").table
    assert (ours["pgd-1000"], ours["fgsm"], ours["pgd-20"], ours["square"]) == ("Table 7", "Table 1", "Table 1", "")
    (panel,) = figures.accuracy_by_method(numbers, "title", row="metric", panel_of="method").axes
    assert panel.get_title() == "PeerAiD"
    assert len(panel.get_yticklabels()) == len(by)
