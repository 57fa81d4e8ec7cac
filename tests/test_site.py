"""The site: complete, self-contained, and honest about what is missing. It is built once, with two exhibits damaged."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from committed import QUICK
from conftest import ROOT

from rkdkit.site import docstrings, found, ledger, markdown, numbers, tables, tex
from rkdkit.site import pages as site_pages

RESULTS = ROOT / "results"
MISSING, DAMAGED = "fig5_tsne", "tab8_ard"
SIZE = 60 << 20

_FETCHED = {
    **{"script": "src", "img": "src", "iframe": "src", "source": "src", "embed": "src", "video": "src"},
    **{"audio": "src", "input": "src", "track": "src", "object": "data"},
}


class Page(HTMLParser):
    """What a page links to, what it loads, and its ids."""

    def __init__(self, file):
        super().__init__()
        self.links, self.loads, self.ids, self.alternatives, self.styles = [], [], set(), [], []
        self._in_style = False
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self._in_style = tag == "style"
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag in ("a", "area") and given.get("href") is not None:
            self.links.append(given["href"])
        if tag == "link" and given.get("href") and given.get("rel") not in ("next", "prev", "index", "search"):
            self.loads.append(given["href"])
        if tag in _FETCHED and given.get(_FETCHED[tag]):
            self.loads.append(given[_FETCHED[tag]])
        self.loads += [each.split()[0] for each in (given.get("srcset") or "").split(",") if each.strip()]
        if given.get("style"):
            self.styles.append(given["style"])
        if tag == "img":
            self.alternatives.append((given.get("src"), given.get("alt")))

    def handle_data(self, data):
        if self._in_style:
            self.styles.append(data)

    def handle_endtag(self, _):
        self._in_style = False


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """The exhibits at quick, without one and with another whose CSV was changed."""
    folder = tmp_path_factory.mktemp("figures") / "quick"
    shutil.copytree(QUICK, folder)
    (folder / f"{MISSING}.json").unlink()
    with (folder / f"{DAMAGED}.csv").open("a") as file:
        file.write("a,line\n")
    return folder


@pytest.fixture(scope="module")
def site(figures, tmp_path_factory):
    """The site, built by its command."""
    out = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "rkdkit.site", "--out", str(out), "--figures", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"open {out / 'index.html'}" in done.stdout
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file) for file in site.rglob("*.html")}


def claims_of(files):
    return [(file.stem, claim) for file in files for claim in json.loads(file.read_text())["claims"]]


def committed():
    return [*sorted(QUICK.glob("*.json")), *sorted(RESULTS.glob("*/*.json"))]


def test_it_is_not_large(site):
    assert 10 << 20 < sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < SIZE


def test_every_page_that_others_link_to_is_there(site):
    names = [
        "index",
        "gallery",
        "ledger",
        "numbers",
        "methods",
        "design",
        "performance",
        "statistics",
        "scaling",
        "testing",
    ]
    names += ["results", "search", "api/index", "api/rkdkit.spec", "api/rkdkit.methods.table"]
    names += [f"exhibits/{name}" for name in found.names()]
    names += [f"notebooks/{name}" for name in found.names()]
    names += [
        name
        for name, file in (("glossary", "docs/glossary.md"), ("changelog", "CHANGELOG.md"))
        if (ROOT / file).exists()
    ]
    assert [name for name in names if not (site / f"{name}.html").is_file()] == []


def test_links_lead_somewhere(site, pages):
    out, dead = site, []
    for file, page in pages.items():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not target.is_file() or not target.is_relative_to(out.resolve()):
                dead.append(f"{file.relative_to(out)}: {address}")
            elif (
                parts.fragment
                and target.suffix == ".html"
                and unquote(parts.fragment) not in pages[out / target.relative_to(out.resolve())].ids
            ):
                dead.append(f"{file.relative_to(out)}: {address} (no such place)")
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site, pages):
    out, elsewhere, dead = site, [], []
    styles = {file: file.read_text(encoding="utf-8") for file in out.rglob("*.css")}
    loaded = [(file, address) for file, page in pages.items() for address in page.loads]
    loaded += [(file, found) for file, page in pages.items() for text in page.styles for found in in_style(text)]
    loaded += [(file, found) for file, text in styles.items() for found in in_style(text)]
    for file, address in loaded:
        parts = urlsplit(address)
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            elsewhere.append(f"{file.relative_to(out)}: {address}")
        elif parts.path and not (file.parent / unquote(parts.path)).is_file():
            dead.append(f"{file.relative_to(out)}: {address}")
    assert elsewhere == []
    assert dead == []


def in_style(text):
    """The addresses that a style sheet loads."""
    found = re.findall(r"url\(\s*(\"[^\"]*\"|'[^']*'|[^)]*)\s*\)", text)
    found += re.findall(r"@import\s+(\"[^\"]*\"|'[^']*')", text)
    return [address.strip("\"' ") for address in found if not address.strip("\"' ").startswith("#")]


def test_a_page_that_loads_from_elsewhere_would_be_noticed(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(
        '<link rel="stylesheet" href="https://a/b.css"><script src="//c/d.js"></script><style>@import "e";</style>'
    )
    page = Page(file)
    assert page.loads == ["https://a/b.css", "//c/d.js"]
    assert in_style(page.styles[0]) == ["e"]
    assert in_style("a{b:url( 'https://x/y.woff2' )} c{d:url(data:font/woff,e)}") == [
        "https://x/y.woff2",
        "data:font/woff,e",
    ]


def test_every_picture_has_an_alternative_text(site, pages):
    without = [
        (file.name, source) for file, page in pages.items() for source, text in page.alternatives if text is None
    ]
    assert without == []
    shown = {file.stem: page for file, page in pages.items() if file.parent == site / "exhibits"}
    for name, page in shown.items():
        if name not in (MISSING, DAMAGED):
            assert any(len(text) > 20 and source.endswith(".png") for source, text in page.alternatives), name


def test_an_exhibit_that_is_missing_or_damaged_has_a_page_that_says_so(site):
    for name, told in ((MISSING, f"{MISSING}.json is not there"), (DAMAGED, "do not belong together")):
        page = (site / "exhibits" / f"{name}.html").read_text()
        text = re.sub(r"\s+", " ", re.sub("<[^>]+>", "", page))
        assert told in text
        assert f"rkdkit figures {name}" in text
        assert f"{name}.png" not in page
        assert not (site / "files" / "quick" / f"{name}.png").exists()
    assert (site / "gallery.html").read_text().count("not made yet") == 2


def test_the_ledger_holds_every_claim():
    lines = ledger.ledger(found.all_found(QUICK, RESULTS))
    claims = claims_of(committed())
    assert len(lines) == len(claims) > 150
    for (name, claim), (_, line) in zip(
        sorted(claims, key=key), lines.sort_values(["exhibit", "claim", "scale"], kind="stable").iterrows(), strict=True
    ):
        assert (name, claim["text"], claim["verdict"]) == (line.exhibit, line.claim, line.verdict)


def key(named):
    name, claim = named
    return name, claim["text"]


def test_differences_of_shares_are_in_points_and_others_in_their_unit():
    lines = ledger.ledger(found.all_found(QUICK, RESULTS))
    claims = {
        (name, c["text"], c["verdict"], c["difference"]["value"], c["difference"]["low"]): c
        for name, c in claims_of(committed())
    }
    told = {(line.exhibit, line.claim, line.verdict, line.difference, line.low): line for _, line in lines.iterrows()}
    for (name, text, verdict, value, _), claim in claims.items():
        factor = 1 if "unit" in claim["difference"] else 100
        line = told[name, text, verdict, factor * value, factor * claim["difference"]["low"]]
        assert line.unit == claim["difference"].get("unit", "points")
        assert line[["low", "high"]].tolist() == [factor * claim["difference"][end] for end in ("low", "high")]
    assert {"points", "", "nats"} <= set(lines.unit)


def test_the_ledgers_page_shows_all_claims_that_can_be_read(site, figures):
    page = (site / "ledger.html").read_text()
    table = page[page.index('<table id="ledger"') :].partition("</table>")[0]
    readable = [file for file in committed() if file.stem not in (MISSING, DAMAGED) or file.parent != QUICK]
    assert (
        table.count('<tr role="row">') - 1
        == len(claims_of(readable))
        == len(ledger.ledger(found.all_found(figures, RESULTS)))
    )
    for word in ("holds", "does not hold", "too close to tell here"):
        assert f'data-search="{word}"' in table
        assert f'<option value="{word}">' in page


def test_differences_are_sorted_within_their_unit(site):
    lines = ledger.ledger(found.all_found(QUICK, RESULTS))
    page = (site / "ledger.html").read_text()
    assert re.findall(r'<th [^>]*data-type="within-group"[^>]*>([^<]*)<', page) == ["Difference", "Interval"]
    rows = re.findall(r'data-heading="Difference" data-order="(\d+) (\S+)".*?data-heading="Unit">([^<]*)<', page)
    groups = {(int(group), unit) for group, _, unit in rows}
    assert sorted(group for group, _ in groups) == list(range(lines.unit.nunique()))
    assert {unit for _, unit in groups} == {unit or "no unit" for unit in lines.unit}
    assert (0, "points") in groups, "the most usual unit comes first"
    assert {float(value) for _, value, _ in rows} <= set(lines.difference)


def test_an_exhibits_page_does_not_speak_of_the_notebooks_cells(site):
    for name in found.names():
        assert "cells below draw yours" in (ROOT / "notebooks" / f"{name}.ipynb").read_text()
        assert "cells below" not in (site / "exhibits" / f"{name}.html").read_text()


def test_the_numbers_are_all_of_the_papers(site):
    table = numbers.numbers(found.all_found(QUICK, RESULTS))
    printed = 0
    for name in ("peeraid", "ard", "rkd"):
        with (ROOT / "rkdkit" / "papers" / f"{name}.csv").open() as file:
            printed += len(list(csv.DictReader(file)))
    assert len(table) == printed == 659
    assert (table.exhibit != "").all()
    page = (site / "numbers.html").read_text()
    assert page[page.index('<table id="numbers"') :].partition("</table>")[0].count('<tr role="row">') == 660


def test_a_number_of_a_paper_stands_beside_ours():
    table = numbers.numbers(found.all_found(QUICK, RESULTS))
    csv_file = pd.read_csv(QUICK / "tab1_white_box.csv")
    ours = csv_file[(csv_file.method == "TRADES") & (csv_file.metric == "fgsm")].iloc[0]
    one = table[(table.paper == "PeerAiD") & (table.table == "Table 1") & (table.method == "TRADES")]
    one = one[(one.metric == "fgsm") & (one.dataset == "cifar10") & (one.network == "resnet18")]
    assert one.value.tolist() == [57.75]
    assert one.here.iloc[0].startswith(f"{100 * ours.accuracy:.1f} [{100 * ours.low:.1f}, ")
    assert one.here.iloc[0].endswith("(quick)")
    others = table[(table.dataset != "cifar10") & (table.table == "Table 1") & (table.paper == "PeerAiD")]
    assert (others.here == "").all(), "nothing was measured in place of these"
    assert (table.here != "").sum() > 150
    both = table[table.here.str.contains("small")]
    assert set(both.paper + both.table) == {"PeerAiDTable 2"}
    assert "56.43" in table[(table.paper == "ARD") & (table.value == 56.61)].others.iloc[0]


def test_a_student_of_another_loss_than_the_papers_stands_beside_nothing():
    lines = pd.read_csv(QUICK / "tab12_capacity.csv")
    lines = lines[lines.paper.notna() & lines.accuracy.notna()]
    others = lines[lines.loss != lines.paper_loss]
    assert len(others) > 0, "nothing is tried"
    table = numbers.numbers([found.Found("tab12_capacity", QUICK, {"profile": "quick"})])
    assert (table.here != "").sum() == len(lines) - len(others)


def test_a_scale_says_what_differs_from_its_profile():
    made = {"profile": "small", "overrides": {"epochs": 30}, "own": {"alpha": 0.5}}
    assert found.Found("tab1_white_box", QUICK, made).scale == "small, epochs 30, alpha 0.5"
    larger = [each for each in found.all_found(QUICK, RESULTS) if each.folder.parent == RESULTS]
    assert {each.scale for each in larger} == {"small, epochs 30"}


def test_intervals_of_another_confidence_say_so(site):
    lines = ledger.ledger(found.all_found(QUICK, RESULTS))
    page = (site / "ledger.html").read_text()
    assert page.count(" % interval</small>") >= (lines.confidence != 0.95).sum() - 10 > 0
    assert "95 % interval" not in page


def test_the_note_of_a_claim_stands_beside_its_difference():
    claim = next(claim for each in found.all_found(QUICK, RESULTS) for claim in each.claims)
    claim = replace(claim, note="a < b")
    assert "<small>a &lt; b</small>" in site_pages._told(claim, 1.0).html
    assert "a &lt; b" not in site_pages._told(replace(claim, note=""), 1.0).html


def test_what_is_ambiguous_stands_beside_nothing(tmp_path):
    place = tmp_path / "quick"
    shutil.copytree(QUICK, place)
    lines = pd.read_csv(place / "tab1_white_box.csv")
    again = lines[(lines.method == "CAT") & (lines.metric == "clean")].assign(accuracy=0.123, low=0.1, high=0.2)
    pd.concat([lines, again]).to_csv(place / "tab1_white_box.csv", index=False)
    exhibits = [found.Found("tab1_white_box", place)]
    table = numbers.numbers(exhibits)
    here = table[(table.method == "CAT") & (table.value == 82.40) & (table.paper == "PeerAiD")].here
    assert here.tolist() == [""]
    assert (table.here != "").sum() == (numbers.numbers([found.Found("tab1_white_box", QUICK)]).here != "").sum() - 1


@pytest.mark.parametrize("column", ["table", "metric", "paper_dataset", "paper_network"])
def test_a_number_of_another_table_metric_or_network_is_not_ours(column, tmp_path):
    place = tmp_path / "quick"
    shutil.copytree(QUICK, place)
    lines = pd.read_csv(place / "tab1_white_box.csv")
    lines.loc[(lines.method == "CAT") & (lines.metric == "clean"), column] = "another"
    lines.to_csv(place / "tab1_white_box.csv", index=False)
    table, before = (numbers.numbers([found.Found("tab1_white_box", folder)]) for folder in (place, QUICK))
    assert (table.here != "").sum() == (before.here != "").sum() - 1


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    from rkdkit.site.build import SiteError, build

    (tmp_path / "precious").write_text("mine")
    with pytest.raises(SiteError, match="holds no site"):
        build(tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


PAGES = {
    "docs/methods.md": "methods.md",
    "docs/design.md": "design.md",
    "rkdkit/spec.py": "api/rkdkit.spec.rst",
    "a.png": "files/a.png",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[`RunSpec`](../rkdkit/spec.py)", "[`RunSpec`](../api/rkdkit.spec.rst)"),
        ("[a](design.md#layers)", "[a](../design.md#layers)"),
        ("[a](methods.md#ard-plus)", '<a href="../methods.html#ard-plus">a</a>'),
        ("[`x.py`](../tests/x.py) [b](../tests/x.py)", "`x.py` b (`tests/x.py`)"),
        ("[LICENSE](../LICENSE)", "`LICENSE`"),
        ("[a](https://b) [c](#d)", "[a](https://b) [c](#d)"),
        ("![a](../a.png)![b](../b.png)", '<img class="dark-light sheet" src="../files/a.png" alt="a">'),
        ("```\n[a](design.md)\n```", "```\n[a](design.md)\n```"),
        ('<a id="ard-plus"></a>\n## ARD+', "(ard-plus)=\n## ARD+"),
    ],
)
def test_markdown_links_to_pages_of_the_site(text, expected):
    assert markdown.page(text, "docs/testing.md", PAGES, depth=1) == expected


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("x^*_S", "<i>x</i><sup>∗</sup><sub><i>S</i></sub>"),
        (r"\frac{1}{K}\sum_k \mathrm{CE}(y)", "1/<i>K</i>∑<sub><i>k</i></sub> CE(<i>y</i>)"),
        (r"\tfrac{1 - \beta}{2}", "(1 − β)/2"),
        (r"\tilde{x} < \infty", "<i>x</i>\u0303 &lt; ∞"),
        ("p_{S,K}", "<i>p</i><sub><i>S</i>,<i>K</i></sub>"),
    ],
)
def test_formulas_become_html(formula, expected):
    assert tex.html(formula) == expected


def test_code_and_prices_are_no_formulas():
    assert tex.without_formulas("`$x$` $RKDKIT_DATA") == "`$x$` $RKDKIT_DATA"


def test_every_command_in_a_notebooks_formulas_is_known():
    known = {*tex.SIGNS, "frac", "tfrac", "mathrm", "mathbb", "tilde"}
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        text = "".join(
            "".join(cell["source"])
            for cell in json.loads(notebook.read_text())["cells"]
            if cell["cell_type"] == "markdown"
        )
        for formula in re.findall(r"\$\$?([^$]+)\$", re.sub(r"`[^`\n]+`", "", text)):
            assert set(re.findall(r"\\([A-Za-z]+|.)", formula)) <= known, notebook.name


def given(x: int) -> "pd.DataFrame":
    """Given."""


def test_docstrings_become_those_of_numpydoc():
    lines = [
        "Say x*_S and `a*b`, or train_.",
        "",
        "Parameters",
        "----------",
        "a, b : what",
        "    it is.",
        "",
        "Returns",
        "-------",
        "A table.",
    ]
    assert docstrings.prepared(lines, given) == [
        *(r"Say x\*_S and `a*b`, or train\_.", "", "Parameters", "----------", "a, b", "    what", "    it is.", ""),
        *("Returns", "-------", "DataFrame", "    A table."),
    ]


def test_api_pages_tell_what_a_function_takes_and_returns(site):
    page = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", (site / "api" / "rkdkit.saved.html").read_text()))
    assert "Return an exhibit's summary" in page.replace("’", "'")
    assert "the JSON; the others have its name" in page
    assert "ExhibitFilesError" in page


def test_source_codes_are_listed_of_the_kit_alone(site):
    listed = {file.relative_to(site / "_modules").parts[0] for file in (site / "_modules").rglob("*.html")}
    assert listed - {"index.html"} == {"rkdkit", "rkdkit.html"} & listed
    assert "rkdkit" in listed
    assert (
        'href="../_modules/rkdkit/methods/grammar.html#Method.roles"'
        in (site / "api" / "rkdkit.methods.grammar.html").read_text()
    )


def test_a_table_sorts_numbers_as_numbers_and_leaves_holes_last():
    rows = pd.DataFrame({"a": [0.5, float("nan")], "b": ["<x>", "y"]})
    html = tables.table("t", "T", rows, tables.as_written(rows))
    assert 'data-order="0.5"' in html
    assert 'data-order="1e+300"' in html
    assert "&lt;x&gt;" in html
    assert "<x>" not in html
    assert "nan" not in html
