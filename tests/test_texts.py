"""What is written for people: how to cite, what changed, what words mean, and what the notebooks say and link to."""

import csv
import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from committed import QUICK, made
from conftest import ROOT

import rkdkit
from rkdkit import exhibits
from rkdkit.analysis.white_box import DISTILLATION

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GLOSSARY = ROOT / "docs" / "glossary.md"


# to cite


CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
KEYS = {"cff-version", "message", "type", "title", "version", "license", "authors", "abstract", "keywords"}
"""The keys of the Citation File Format 1.2.0 that the file has, besides `references`."""

OF_A_REFERENCE = {"type", "title", "authors", "year", "conference", "collection-title", "volume", "start", "end"} | {
    *("status", "notes"),
}


def named(author):
    return {"name"} == set(author) or {"family-names", "given-names"} == set(author)


def test_the_citation_has_the_keys_of_its_format_and_nothing_that_is_made_up():
    assert set(CITATION) == {*KEYS, "references"}
    assert (CITATION["cff-version"], CITATION["type"]) == ("1.2.0", "software")
    assert CITATION["version"] == PROJECT["version"] == rkdkit.__version__
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert all(named(author) for author in CITATION["authors"])
    assert all(isinstance(CITATION[key], str) and CITATION[key] for key in ("message", "title", "abstract"))


@pytest.mark.parametrize("reference", CITATION["references"], ids=lambda each: each["title"].partition(":")[0])
def test_a_reference_is_what_the_readme_cites(reference):
    assert {"type", "title", "authors"} <= set(reference) <= OF_A_REFERENCE
    assert reference["type"] in ("conference-paper", "unpublished")
    assert all(named(author) for author in reference["authors"])
    assert "name" in reference.get("conference", {"name": ""})
    entries = README.split("```bibtex")[1].split("\n}")
    title = reference["title"]
    (entry,) = [each for each in entries if title in each.replace("{", "").replace("}", "")]
    authors = [f"{a['family-names']}, {a['given-names']}" for a in reference["authors"] if "family-names" in a]
    assert " and ".join(authors) in entry
    assert reference.get("collection-title", "") in entry
    assert str(reference.get("year", "")) in entry


def test_the_changelog_has_this_version_and_counts_right():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)[0]
    assert newest == PROJECT["version"]
    in_table = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").count("<a id=")
    assert f"A table of {in_table} methods" in text
    assert f"Pictures of all {len(exhibits.NAMES)} at" in text


# what words mean


def slug(heading):
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("\\", "").replace("`", "").lower()).replace(" ", "-")


def anchors(page):
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {*map(slug, headings), *re.findall(r'<a id="([^"]+)">', text)}


ENTRIES = dict(
    re.match(r"(.*)\n\n((?s:.*))", part).groups() for part in GLOSSARY.read_text(encoding="utf-8").split("\n### ")[1:]
)


def test_the_words_are_in_the_order_of_the_alphabet_and_there_once():
    words = [part.partition("\n")[0] for part in GLOSSARY.read_text(encoding="utf-8").split("\n### ")[1:]]
    assert words == sorted(set(words), key=str.casefold)
    assert len({*map(slug, words)}) == len(words)


@pytest.mark.parametrize("word", ENTRIES)
def test_a_word_has_a_meaning_a_source_and_a_place_in_the_kit(word):
    meaning, where = ENTRIES[word].strip().split("\n\n")
    assert 1 <= len(re.findall(r"\.\)?(?= |$)", meaning)) <= 4, "a few sentences"
    source, kit = re.fullmatch(r"\*Source\*: (.*) \*In the kit\*: (.*)", where).groups()
    assert re.search(r"(PeerAiD|ARD|RKD) (section|eq|Figure|Table)|(19|20)\d\d|kit's own|Dask", source)
    assert re.search(r"`|\]\(", kit)


def test_the_code_that_the_glossary_names_is_there():
    names = re.findall(r"`(\w+)\.(\w+)(?:\.(\w+))?[`(]", GLOSSARY.read_text(encoding="utf-8"))
    found = [(module, names) for module, *names in names if names[0] not in ("md", "py")]
    assert len(found) > 20
    for module, (name, attribute) in found:
        member = getattr(importlib.import_module(f"rkdkit.{module}"), name)
        assert not attribute or hasattr(member, attribute)


# links


def links(text) -> Iterator[tuple[str, str, int]]:
    """The links and pictures of a text: their words, their address, and where they begin."""
    for match in re.finditer(
        r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)
    ):
        yield match[1], match[2], match.start()


def leads_somewhere(page: Path, address: str) -> bool:
    path, _, anchor = address.partition("#")
    target = (page.parent / path).resolve() if path else page
    return "://" in address or (target.exists() and (not anchor or anchor in anchors(target)))


@pytest.mark.parametrize("page", ["CHANGELOG.md", "notebooks/README.md", "docs/glossary.md", "docs/methods.md"])
def test_links_of_a_page_lead_somewhere(page):
    for words, address, _ in links((ROOT / page).read_text(encoding="utf-8")):
        assert leads_somewhere(ROOT / page, address), words


# the notebooks


def cells(name):
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def told(name):
    """The texts of a notebook's markdown cells."""
    return ["".join(cell["source"]) for cell in cells(name) if cell["cell_type"] == "markdown"]


def title(name):
    return told(name)[0].partition("\n")[0].removeprefix("# ")


each_notebook = pytest.mark.parametrize("name", exhibits.NAMES)


@each_notebook
def test_links_of_a_notebook_lead_somewhere(name):
    for words, address, _ in links("\n\n".join(told(name))):
        assert leads_somewhere(ROOT / "notebooks" / f"{name}.ipynb", address), words


@each_notebook
def test_a_notebook_begins_with_its_committed_picture_and_says_in_words_what_is_on_it(name):
    first, *others = told(name)
    assert cells(name)[0]["cell_type"] == "markdown"
    (picture,) = re.findall(r"^!\[(.*)\]\((.*)\)$", first, re.MULTILINE)
    assert picture[1] == f"../figures/quick/{name}.png"
    assert 40 <= len(picture[0]) <= 250
    assert "](" not in picture[0]
    assert first.index("![") < first.index("\n## What to run"), "before the parameters"
    assert not any("![" in other for other in others)


def test_no_two_pictures_are_described_alike():
    described = [re.search(r"!\[(.*?)\]", told(name)[0])[1] for name in exhibits.NAMES]
    assert len(set(described)) == len(described)


def in_order():
    """The notebooks in the order of their page."""
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [row for row in rows if row in exhibits.NAMES]


def test_from_each_notebook_one_gets_to_the_one_before_and_the_one_after():
    order = in_order()
    assert sorted(order) == sorted(exhibits.NAMES)
    for i, name in enumerate(order):
        assert cells(name)[-1]["cell_type"] == "markdown", "the last thing that one reads"
        last = told(name)[-1]
        expected = {"Previous": order[i - 1] if i else None, "Next": order[i + 1] if i + 1 < len(order) else None}
        for word, other in expected.items():
            found = re.findall(rf"\b{word}: \[(.*?)\]\((\w+)\.ipynb\)", last)
            assert found == ([(title(other), other)] if other else []), (name, word)
        assert "](README.md)" in last
        assert "](../docs/glossary.md)" in last


def without(text, *patterns):
    """A text in which what fits the patterns is blank, so that all else stays where it is."""
    for pattern in patterns:
        text = re.sub(pattern, lambda match: " " * len(match[0]), text, flags=re.MULTILINE)
    return text


@each_notebook
def test_a_word_of_the_glossary_is_linked_where_it_is_first_used(name):
    text = "\n\n".join(told(name)[:-1])
    to_glossary = [(words, address, start) for words, address, start in links(text) if "glossary.md#" in address]
    assert len(to_glossary) >= 2
    addresses = [address for _, address, _ in to_glossary]
    assert len(set(addresses)) == len(addresses), "once is enough"
    bare = without(text, r"^#.*$", r"!\[.*\]\(.*\)", r"\$[^$]*\$", r"\(\"[^\"]*\"\)", r"^\*The picture in .*$")
    for words, address, start in to_glossary:
        before = bare[:start] if words.startswith("`") else without(bare[:start], r"`[^`]*`")
        before = without(before, r"\[(?:[^\[\]])*\]\([^()\s]+\)")
        used = re.search(rf"(?<![-\w]){re.escape(words)}(?![-\w])", before)
        assert used is None, f"{words} ({address}) stands in {before[max(used.start() - 40, 0) : used.end() + 40]!r}"


JUDGED = [name for name in exhibits.NAMES if any("claims.report(" in "".join(cell["source"]) for cell in cells(name))]


@pytest.mark.parametrize("name", JUDGED)
def test_where_claims_are_judged_the_text_says_that_they_are_a_family(name):
    """A claim may be open though its interval is beside zero: without the family, the text would deny it."""
    if name == "tab11_model_cost":  # what is counted exactly is in no family
        assert not any("one family" in text for text in told(name))
        return
    text = "\n\n".join(told(name))
    assert "judged together, as [one family](../docs/glossary.md#family-of-claims)" in text
    assert "judged by its own" not in text


# the README


def percent(estimate):
    low, high = (f"{100 * estimate[end]:.1f}" for end in ("low", "high"))
    return f"{100 * estimate['value']:.1f} [{low}, {high}]" if low != high else f"{100 * estimate['value']:.1f}"


def row_of(words):
    (row,) = [line for line in README.splitlines() if line.startswith(f"| {words}")]
    return row.replace("\\*", "*")


ROWS = {
    ("fig1_peer_vs_teacher", 0): "the peer ends above the fixed teacher",
    ("fig1_peer_vs_teacher", 1): "the teacher's accuracy on x\\*_S falls",
    ("fig1_peer_vs_teacher", 2): "guessing is above the peer",
    ("tab1_white_box", 0): "PeerAiD has the highest AutoAttack accuracy",
    ("tab1_white_box", 1): "and the highest clean accuracy",
    ("tab1_white_box", 2): "natural training is not robust",
}


@pytest.mark.parametrize(("claim", "words"), ROWS.items(), ids=str)
def test_the_readme_says_what_the_committed_exhibit_says(claim, words):
    name, place = claim
    judged = made(name)["claims"][place]
    quick = row_of(words).split(" | ")[1]
    assert quick.rstrip(" |").endswith(f"**{judged['verdict']}**")
    sides = [percent(judged[side]["estimate"]) for side in ("higher", "lower")]
    assert percent(judged["difference"]) in quick or all(side in quick for side in sides)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("PGD-AT", "the most robust network ({} % [{}, {}] under PGD-20)"),
        ("TRADES", "ahead of TRADES ({}), which is also the fixed teacher"),
        ("IAD", "IAD is the most robust ({} [{}, {}])"),
        ("PeerAiD", "of PeerAiD, which has {} [{}, {}]."),
    ],
)
def test_the_readme_says_who_is_how_robust(method, words):
    with (QUICK / "tab1_white_box.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "pgd-20" and row["accuracy"]]
    (line,) = [row for row in rows if row["method"] == method]
    assert words.format(*(f"{100 * float(line[name]):.1f}" for name in ("accuracy", "low", "high"))) in README
    by_robustness = sorted(rows, key=lambda row: -float(row["accuracy"]))
    assert [row["method"] for row in by_robustness[:2]] == ["PGD-AT", "IAD"]


def test_the_readme_says_who_is_least_and_most_accurate():
    with (QUICK / "tab1_white_box.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "clean" and row["accuracy"]]
    clean = {row["method"]: 100 * float(row["accuracy"]) for row in rows}
    of_six = sorted(DISTILLATION, key=lambda method: clean[method])
    least, most = of_six[0], of_six[-1]
    words = f"{least} ({clean[least]:.1f} %, the lowest of the six; {most} has the highest, {clean[most]:.1f} %)"
    assert words in row_of("and the highest clean accuracy")


@pytest.mark.parametrize(("method", "words"), [("PeerAiD", "without it PeerAiD"), ("PGD-AT + SWA", "with it PGD-AT")])
def test_the_readme_says_what_averaging_does(method, words):
    with (QUICK / "tab3_weight_averaging.csv").open(encoding="utf-8") as file:
        (line,) = [row for row in csv.DictReader(file) if (row["method"], row["metric"]) == (method, "pgd-20")]
    assert f"{words} has {100 * float(line['accuracy']):.1f}" in README
    gains = [claim for claim in made("tab3_weight_averaging")["claims"] if claim["text"].endswith("more robust.")]
    assert len(gains) == 6
    assert not [claim["text"] for claim in gains if claim["verdict"] == "holds"], "the README says that nobody gains"


CHANGES = [("RSLAD (code)", " points for RSLAD"), ("AdaAD (code)", " for AdaAD"), ("AKD2 (code)", " for AKD2")]


@pytest.mark.parametrize(("method", "words"), CHANGES)
def test_the_readme_says_what_readings_change(method, words):
    with (QUICK / "tab16_paper_or_code.csv").open(encoding="utf-8") as file:
        (line,) = [row for row in csv.DictReader(file) if (row["method"], row["metric"]) == (method, "pgd-20")]
    told, low, high = (f"{100 * float(line[f'difference{end}']):.1f}" for end in ("", "_low", "_high"))
    assert f"{told} [{low}, {high}]{words}" in README


def test_the_readme_says_what_rslads_single_differences_do():
    (claim,) = [c for c in made("tab16_paper_or_code")["claims"] if "single differences" in c["text"]]
    assert "RSLAD" in claim["text"]
    value, low, high = (-claim["difference"][end] for end in ("value", "high", "low"))
    assert f"({100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}], an interval for all single" in README
    with (QUICK / "tab16_paper_or_code.csv").open(encoding="utf-8") as file:
        lines = [row for row in csv.DictReader(file) if row["metric"] == "pgd-20"]
    for name, words in (("random start", "up to 5 and"), ("normalisation", "and 7 points are not excluded")):
        (line,) = [row for row in lines if row["method"] == f"RSLAD with the code's {name}"]
        reach = max(abs(float(line[f"difference_{end}"])) for end in ("low", "high"))
        assert f"{100 * reach:.0f}" in words
        assert words in README


def test_the_readings_of_the_others_are_neither_the_same_nor_shown_to_differ():
    verdicts = {claim["text"]: claim["verdict"] for claim in made("tab16_paper_or_code")["claims"]}
    small = {text: verdict for text, verdict in verdicts.items() if text.endswith("by less than 3 points.")}
    decided = [text for text, verdict in small.items() if not verdict.startswith("too close")]
    assert len(small) == 8
    assert [any(f" of {name} by" in text for text in decided) for name in ("AKD2", "RSLAD", "AdaAD")] == [True] * 3
    assert len(decided) == 3


def test_the_page_of_statistics_says_what_three_seeds_decide_of_many_claims():
    judged = [claim for claim in made("fig12_trajectories")["claims"] if not claim["source"].startswith("no claim of")]
    decided = [claim for claim in judged if not claim["verdict"].startswith("too close")]
    apart = [claim for claim in judged if claim["difference"]["low"] > 0 or claim["difference"]["high"] < 0]
    assert (len(judged), len(decided), len(apart)) == (39, 3, 12)
    told = "of whose 39 claims three seeds decide three, though twelve of their intervals exclude zero"
    assert told in (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
