"""Exhibits' tables for papers: nothing is lost, LaTeX compiles, any text is printed as it is."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
import unicodedata
from collections import Counter

import pytest
from committed import QUICK
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rkdkit import cli, exporting, typeset
from rkdkit.exporting import Numbers
from rkdkit.saved import write_exhibit
from rkdkit.typeset import Table, latex_text, markdown_text

MADE = sorted(QUICK.glob("*.json"))
NEEDED = "pdflatex is not installed: Debian's texlive-latex-base and texlive-latex-recommended have all that is needed"

_TOKEN = re.compile(r"\\begin\{([a-z]+\*?)\}|\\end\{([a-z]+\*?)\}|\\\\|\\[a-zA-Z]+|\\.|%.*?\n|[{}&$#_^~]", re.DOTALL)
_KIND = re.compile(r"@\{\}|>\{[^{}]*\}|p\{[^{}]*\}|[lr]")


def tables_in(latex):
    """The number of columns and the cells of each line of every table, where braces and environments are balanced."""
    found, stack, cells, mathematical = [], [], 1, False
    for token in _TOKEN.finditer(latex):
        begun, ended = token.groups()
        word = token.group()
        if begun:
            stack.append(begun)
            if begun in ("tabular", "longtable"):
                kinds, cells = _KIND.findall(kinds_after(latex, token.end())), 1
                found.append((sum(kind[0] in "lrp" for kind in kinds), []))
        elif ended:
            assert stack.pop() == ended
        elif word == "{":
            stack.append("{")
        elif word == "}":
            assert stack.pop() == "{", latex[token.start() - 40 : token.end()]
        elif word == "&":
            assert stack[-1] in ("tabular", "longtable"), latex[token.start() - 40 : token.end()]
            cells += 1
        elif word == "\\\\" and stack[-1] in ("tabular", "longtable"):
            found[-1][1].append(cells)
            cells = 1
        elif word == "$":
            mathematical = not mathematical
        elif word in ("#", "~") or (word in ("_", "^") and not mathematical):
            pytest.fail(f"{word} is not escaped: {latex[token.start() - 40 : token.end()]}")
    assert not mathematical
    assert stack == []
    return found


def kinds_after(latex, place):
    depth, end = 0, place
    while end == place or depth:
        depth += {"{": 1, "}": -1}.get(latex[end], 0)
        end += 1
    return latex[place + 1 : end - 1]


def cells_of(line):
    return re.split(r"(?<!\\)\|", line)[1:-1]


@pytest.mark.parametrize("file", MADE, ids=lambda file: file.stem)
def test_every_committed_exhibit_has_well_formed_tables_in_latex_and_markdown(file):
    (latex,) = exporting.exported(file, "latex").values()
    for columns, lines in tables_in(latex):
        lines = lines[1:] if lines[0] == 1 < columns else lines  # a longtable's caption
        assert set(lines) == {columns}
    labels = re.findall(r"\\label\{([^}]*)\}", latex)
    assert len(set(labels)) == len(labels) == len(tables_in(latex))
    (shown,) = exporting.exported(file, "markdown").values()
    blocks = re.findall(r"(?:^\|.*\|\n)+", shown, re.MULTILINE)
    assert len(blocks) == len(exporting.tables_of(file))
    for block in blocks:
        assert len({len(cells_of(line)) for line in block.splitlines()}) == 1


@pytest.mark.parametrize("file", MADE, ids=lambda file: file.stem)
def test_no_number_of_a_committed_exhibit_is_lost(file):
    numbers = Numbers.read(file.with_suffix(".csv"))
    tables = exporting.tables_of(file)
    shown = Counter(cell for table in tables for row in table.rows for cell in row)
    for each in numbers.estimates:
        values = Counter(each.cell(row) for row in numbers.rows if row[each.value])
        papers = Counter(each.papers_cell(row) for row in numbers.rows if each.papers_cell(row))
        assert not values - shown
        assert not papers - shown
        assert values.total(), each
    claims = json.loads(file.read_text())["claims"]
    judged = [table for table in tables if table.heading[-1] == "verdict"]
    assert len(judged) == (1 if claims else 0)
    for claim, row in zip(claims, judged[0].rows if claims else (), strict=True):
        assert row[0].startswith(claim["text"])
        assert row[-1].startswith(claim["verdict"])


def test_table_1_is_a_line_a_method_with_the_papers_numbers_beside():
    accuracies, differences, *_, claims = exporting.tables_of(QUICK / "tab1_white_box.json")
    ours = json.loads((QUICK / "tab1_white_box.json").read_text())
    assert accuracies.heading == (
        *("method", "clean", "paper", "FGSM", "paper"),
        *("PGD-20", "paper", "AutoAttack", "paper"),
    )
    assert [row[0] for row in accuracies.rows][:2] == ["Natural", "PGD-AT"]
    numbers = csv.DictReader((QUICK / "tab1_white_box.csv").read_text().splitlines())
    (line,) = [row for row in numbers if (row["method"], row["metric"]) == ("PeerAiD", "pgd-20")]
    value, low, high = (100 * float(line[name]) for name in ("accuracy", "low", "high"))
    (peer,) = [row for row in accuracies.rows if row[0] == "PeerAiD"]
    assert peer[5:7] == (f"{value:.1f} [{low:.1f}, {high:.1f}]", "54.36")
    assert accuracies.title == "PeerAiD, Table 1: accuracy in per cent, with 95 % intervals"
    assert f"profile quick, toy scale, digits, resnet18/4, eps {ours['eps']:g}" in accuracies.notes[0]
    assert any(note.startswith("In all lines: ") for note in accuracies.notes)
    assert any(re.match(r"n: \d+ \(clean, FGSM, PGD-20\); \d+ \(AutoAttack\)\.", note) for note in accuracies.notes)
    assert differences.heading[:2] == ("method", "minus")
    assert {row[1] for row in differences.rows} == {"PeerAiD"}
    assert "PeerAiD" not in {row[0] for row in differences.rows}, "it is compared with none"
    assert differences.title.endswith("difference in points, with 95 % intervals")
    assert claims.heading == ("claim", "claimed to be higher", "claimed to be lower", "difference", "verdict")
    assert claims.notes[-1].startswith("Verdicts: one family, the 3 claims of tab1_white_box")


def test_curves_keep_their_lines_and_units_are_theirs():
    (curves, claims) = exporting.tables_of(QUICK / "fig1_peer_vs_teacher.json")
    assert curves.heading == ("network", "examples", "epoch", "robust accuracy (%)")
    assert len(curves.rows) == 80
    assert curves.head == 3
    assert claims.rows
    times = next(table for table in exporting.tables_of(QUICK / "tab9_fast_ard.json") if "ratio" in table.title)
    assert times.heading[-2:] == ("training time", "paper")
    papers = [cell for table in exporting.tables_of(QUICK / "tab9_fast_ard.json") for row in table.rows for cell in row]
    assert "5.15 h" in papers, "hours are no fractions"
    (methods,) = exporting.tables_of(QUICK / "fig2_method_overview.json")
    assert methods.heading[:3] == ("method", "part", "term")
    assert "interval" not in methods.title
    (costs, *_) = exporting.tables_of(QUICK / "tab11_model_cost.json")
    assert {"fastest", "slowest"} <= set(costs.heading)
    assert "interval" not in costs.title


def made(folder, numbers, claims=(), name="fig99_new", **summary):
    """An exhibit of three files."""
    file = folder / f"{name}.json"
    about = {"exhibit": name, "paper": "A, Table 9", "profile": "quick", "claims": list(claims), **summary}
    about |= {"provenance": {"made_with": {"rkdkit": "9.9"}, "runs": []}}
    write_exhibit(file, about, picture=b"", numbers=numbers.encode())
    return file


def test_rules_tell_what_columns_are(tmp_path):
    numbers = (
        "thing,metric,accuracy,low,high,paper,n,place,kind,remark,compared_with,difference,difference_low,"
        "difference_high,paper_difference\n"
        "a,clean,0.5,0.4,0.6,0.25,10,here,x,even,,,,,\n"
        "a,robust,0.25,0.2,0.3,,5,here,x,odd,,,,,\n"
        "b,clean,1,0.9,1,0.5,10,here,y,,a,0.5,0.4,0.6,0.25\n"
        "b,robust,,,,,5,here,y,strange,a,,,,\n"
        "c (paper),clean,,,,0.0025,,there,z,,,,,,\n"
    )
    first, minus, lines, alone = exporting.tables_of(made(tmp_path, numbers))
    assert first.heading == ("thing", "clean", "paper", "robust")
    assert first.rows == (
        ("a", "50.0 [40.0, 60.0]", "25.00", "25.0 [20.0, 30.0]"),
        ("b", "100.0 [90.0, 100.0]", "50.00", ""),
    )
    assert first.notes == (
        "Made with rkdkit 9.9, fig99_new, profile quick.",
        "In all lines: place here.",
        "n: 10 (clean); 5 (robust).",
        "In the CSV alone: remark.",
    )
    assert (minus.heading, minus.rows) == (
        ("thing", "minus", "clean", "paper"),
        (("b", "a", "50.0 [40.0, 60.0]", "25.00"),),
    )
    assert (lines.heading, lines.rows) == (("thing", "kind"), (("a", "x"), ("b", "y")))
    assert (alone.heading, alone.rows) == (("thing", "clean, paper"), (("c (paper)", "0.25"),))
    assert "numbers of the paper alone" in alone.title


def test_lines_that_no_column_before_the_metric_tells_apart_are_told_apart_by_others(tmp_path):
    numbers = (
        "method,metric,accuracy,low,high,teacher\n"
        "a,clean,0.5,0.4,0.6,T\na,robust,0.2,0.1,0.3,T\na,clean,0.6,0.5,0.7,U\na,robust,0.3,0.2,0.4,U\n"
    )
    (table,) = exporting.tables_of(made(tmp_path, numbers))
    assert table.heading == ("method", "teacher", "clean", "robust")
    assert [row[:2] for row in table.rows] == [("a", "T"), ("a", "U")]


def test_lines_that_nothing_tells_apart_stay_as_they_are(tmp_path):
    numbers = "method,metric,accuracy,low,high\na,clean,0.5,0.4,0.6\na,clean,0.6,0.5,0.7\n"
    (table,) = exporting.tables_of(made(tmp_path, numbers))
    assert table.heading == ("accuracy (%)",)
    assert table.notes[-1] == "In all lines: method a, metric clean."
    assert [row[-1] for row in table.rows] == ["50.0 [40.0, 60.0]", "60.0 [50.0, 70.0]"]


def test_a_table_without_lines_is_a_table():
    empty = Table(("a", "b"), (), "Nothing")
    assert tables_in(typeset.latex([empty])) == [(2, [2])]
    assert "| a | b |" in typeset.markdown([empty])
    with pytest.raises(ValueError, match="Wrong: a row has 1 cells and not 2"):
        Table(("a", "b"), (("1",),), "Wrong")


def test_what_is_too_wide_is_divided_and_what_is_too_long_goes_over_pages():
    wide = Table(("name", *(f"column {i}" for i in range(30))), (("x", *["12345.6"] * 30),), "Wide", label="w")
    written = typeset.latex([wide])
    parts = tables_in(written)
    assert len(parts) > 1
    assert sum(columns - 1 for columns, _ in parts) == 30, "the first column is in all"
    assert "Wide (1 of " in written
    assert "begin{longtable}" not in written
    paired = Table(("name", *["value", "paper"] * 15), (("x", *["123456", "12"] * 15),), "Paired")
    headings = re.findall(r"toprule\n +(.*) \\\\", typeset.latex([paired]))
    assert len(headings) > 1
    assert all(heading.startswith("name & value & paper") for heading in headings)
    long = Table(("name", "value"), tuple((f"x{i}", str(i)) for i in range(100)), "Long")
    assert "\\begin{longtable}" in typeset.latex([long])
    broken = Table(("text",), (("word " * 2000,),), "One line of many")
    assert "\\begin{longtable}" in typeset.latex([broken])


# texts

SPELLED = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", r"$\grave{}$": "`", "{''}": '"', "-{}": "-", "'{}": "'", "$-$": "-",
    **{f"\\{character}": character for character in "{}$&#%_"},
}  # fmt: skip
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


def read_back(latex):
    """The text of ASCII that LaTeX prints."""
    latex = latex.removeprefix("{}") if latex.startswith(("{}*", "{}[")) else latex
    words = sorted(map(re.escape, SPELLED), key=len, reverse=True)
    return re.sub("|".join(words), lambda found: SPELLED[found.group()], latex)


@given(PLAIN)
def test_latex_prints_every_text_of_ascii_as_it_is(words):
    assert read_back(latex_text(words)) == " ".join(words.split())


@given(st.text(max_size=40))
def test_any_text_is_one_cell_of_characters_that_latex_knows(words):
    found = latex_text(words)
    table = f"\\begin{{tabular}}{{ll}}{found} & {found} \\\\\\end{{tabular}}"
    assert tables_in(table) == [(2, [2])]
    assert not found.startswith(("*", "["))
    for character in found:
        assert " " <= character <= "~" or ("À" <= character <= "ÿ" and unicodedata.category(character)[0] == "L")


@given(st.text(max_size=40))
def test_markdown_shows_any_text_in_one_cell(words):
    found = markdown_text(words)
    assert "\n" not in found
    assert not re.search(r"(?<!\\)(\\\\)*[|*_`~$<>]", found)
    assert html.unescape(re.sub(r"\\(.)", r"\1", found)) == " ".join(words.split())


def test_signs_of_mathematics_are_typeset():
    assert latex_text("3 × 4, ε = 8/255, ±0.25") == r"3 $\times$ 4, $\varepsilon$ = 8/255, $\pm$0.25"
    assert latex_text("-14.1 [-25.5, -1.6]") == "$-$14.1 [$-$25.5, $-$1.6]"
    assert latex_text("PGD-20, 5-10, S(x*)-1") == "PGD-20, 5-10, S(x*)-1"
    assert latex_text("x²") == "x$^{2}$"
    assert latex_text("naïve Müller, 中, ﬁt") == "naïve Müller, (U+4E2D), fit"
    assert latex_text("[0, 1]") == "{}[0, 1]"


# with LaTeX itself


def compiled(body, folder):
    """The log of a document; it must be typeset without an error."""
    packages = ",".join(typeset.PACKAGES)
    document = f"\\documentclass{{article}}\\usepackage{{{packages}}}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (folder / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert (folder / "document.pdf").is_file()
    return log


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason=NEEDED)
def test_all_committed_exhibits_compile_and_none_is_wider_than_the_page(tmp_path):
    parts = [text for file in MADE for text in exporting.exported(file, "latex").values()]
    log = compiled("\n\\clearpage\n".join(parts), tmp_path)
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert not [points for points in too_wide if points > 5]
    assert "Missing character" not in log


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason=NEEDED)
def test_every_known_character_compiles(tmp_path):
    characters = (
        [chr(i) for i in range(32, 256)] + [chr(i) for i in range(0x370, 0x400)] + list("≤≥≈≠·∞∈→←∂∇∑‖′“”‘’…–—中")
    )
    rows = tuple((character, f"{character}{character}x", f"*[{character}") for character in characters)
    log = compiled(typeset.latex([Table(("a", "b", "c"), rows, "All % of & them_", ("$ # {",))]), tmp_path)
    assert "Missing character" not in log


# the command


def export(*words):
    return CliRunner().invoke(cli.app, ["export", *map(str, words)])


def test_a_table_is_printed_as_it_is_named():
    by_short = export("tab1", "--format", "latex")
    assert by_short.exit_code == 0, by_short.output
    assert "\\label{tab:tab1-white-box}" in by_short.stdout
    assert export("PeerAiD Table 1", "--format", "latex").stdout == by_short.stdout
    both = export("tab1", "tab2").stdout
    assert "**PeerAiD, Table 1: accuracy" in both
    assert "**PeerAiD, Table 2: value" in both


def test_all_that_is_made_goes_into_a_folder(tmp_path):
    done = export("--format", "latex", "-o", tmp_path / "tables")
    assert done.exit_code == 0, done.output
    assert sorted(path.stem for path in (tmp_path / "tables").iterdir()) == [file.stem for file in MADE]
    assert {path.suffix for path in (tmp_path / "tables").iterdir()} == {".tex"}


def test_csv_is_the_exhibits_own_with_its_claims_beside(tmp_path):
    assert export("tab1", "tab8", "fig2", "--format", "csv", "-o", tmp_path).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fig2_method_overview.csv", "tab1_white_box.csv", "tab1_white_box_claims.csv", "tab8_ard.csv",
        "tab8_ard_claims.csv",
    ]  # fmt: skip
    noted = csv.DictReader(io.StringIO((tmp_path / "tab8_ard_claims.csv").read_text()))
    in_json = json.loads((QUICK / "tab8_ard.json").read_text())["claims"]
    assert [line["note"] for line in noted] == [claim.get("note", "") for claim in in_json]
    assert any("note" in claim for claim in in_json)
    assert (tmp_path / "tab1_white_box.csv").read_bytes() == (QUICK / "tab1_white_box.csv").read_bytes()
    claims = list(csv.DictReader(io.StringIO((tmp_path / "tab1_white_box_claims.csv").read_text())))
    written = json.loads((QUICK / "tab1_white_box.json").read_text())["claims"]
    assert [line["verdict"] for line in claims] == [claim["verdict"] for claim in written]
    assert [float(line["difference"]) for line in claims] == [claim["difference"]["value"] for claim in written]
    assert export("tab1", "-o", tmp_path / "one.csv").exit_code == 0
    assert (tmp_path / "one_claims.csv").is_file()


def test_the_file_s_ending_is_the_format(tmp_path):
    done = export("tab1", "tab2", "-o", tmp_path / "both.tex")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "both.tex").read_text().count("% needs") == 2
    assert str(tmp_path / "both.tex") in done.stderr


def refused(words, *said):
    done = export(*words)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    for each in said:
        assert each in done.output
    assert "Traceback" not in done.output


def test_what_cannot_be_exported_is_refused_with_what_to_do(tmp_path):
    refused(["tab0"], "Unknown exhibit 'tab0'")
    refused(["tab1", "--format", "word"], "Unknown format 'word'", "latex, markdown, csv")
    refused(["tab1", "--profile", "quik"], "Did you mean 'quick'?")
    refused(["tab1", "-o", tmp_path / "x.txt"], "must end in .tex, .md, .csv")
    refused(["tab1", "-o", tmp_path / "nowhere" / "x.tex"], "there is no folder")
    refused(["tab1", "--format", "latex", "-o", tmp_path / "x.md"], "of the format markdown, not latex")
    refused(["tab1", "tab2", "-o", tmp_path / "x.csv"], "do not go into one CSV")
    refused(["tab1", "-o", QUICK / "tab2_peer_robustness.csv"], "belongs to an exhibit")
    refused(["tab1", "--format", "csv", "-o", QUICK], "Name another folder")
    refused(["--from", tmp_path / "nowhere"], "No exhibit is made in", "rkdkit figures NAMES --profile quick")
    refused(
        ["tab1", "tab2", "--from", tmp_path], "tab1_white_box is not made in", "`rkdkit figures tab2_peer_robustness"
    )
    assert not any(tmp_path.iterdir())


def test_files_that_do_not_belong_together_are_not_exported(tmp_path):
    file = made(tmp_path, "a,b\n1,2\n", name="tab1_white_box")
    assert export("tab1", "--from", tmp_path).exit_code == 0
    assert export("--from", tmp_path).exit_code == 0
    file.with_suffix(".csv").write_text("a,b\n1,3\n")
    refused(["tab1", "--from", tmp_path], "do not belong together. Make the three files again: rkdkit figures tab1")
    refused(["--from", tmp_path, "-o", tmp_path / "into"], "do not belong together")
    assert not (tmp_path / "into").exists()
    file.write_text("{")
    refused(["--from", tmp_path], "is damaged. Make the three files again")


def test_what_is_no_claim_is_refused(tmp_path):
    made(tmp_path, "a\n1\n", claims=[{"text": "It is so."}])
    refused(["--from", tmp_path], "The field 'source' of a claim is missing")


@pytest.mark.parametrize(
    "wrong",
    [{"claims": None}, {"eps": None}, {"overrides": None}, {"own": 3}, {"seeds": []}, {"provenance": None}],
    ids=str,
)
def test_a_summary_edited_by_hand_is_refused_in_one_line(tmp_path, wrong):
    file = made(tmp_path, "a\n1\n")
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    refused(["--from", tmp_path], f"is damaged: {next(iter(wrong))} cannot be read.")


def test_a_table_says_which_of_the_notebooks_own_parameters_were_changed(tmp_path):
    scale = {"dataset": "digits", "network": "resnet18/4", "eps": 0.25, "seeds": [0], "overrides": {"epochs": 3}}
    (only,) = exporting.tables_of(made(tmp_path, "a\n1\n", own={"alpha": 0.9}, **scale))
    assert only.notes[0].endswith("seed 0, epochs 3, alpha 0.9.")


def test_an_interval_that_is_not_of_95_per_cent_says_so():
    rows = [
        row for file in MADE for table in exporting.tables_of(file) if "claims and" in table.title for row in table.rows
    ]
    noted = [row for row in rows if " % interval" in row[-1]]
    claims = [claim for file in MADE for claim in json.loads(file.read_text())["claims"]]
    assert len(noted) == sum(claim.get("confidence", 0.95) != 0.95 for claim in claims) > 5
