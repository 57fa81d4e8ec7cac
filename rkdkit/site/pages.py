"""The texts of the site's own pages, in Markdown: first page, gallery, an exhibit, the ledger, the numbers."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd
from PIL import Image

from rkdkit import claims
from rkdkit.claims import FAILS, HOLDS, OPEN, Claim
from rkdkit.papers.places import TITLES
from rkdkit.saved import ExhibitFilesError
from rkdkit.site import ledger, markdown, pictures, tables
from rkdkit.site.found import OWN, Found, in_the_papers, paper_of, story
from rkdkit.site.tables import Cell
from rkdkit.site.tex import without_formulas

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FIRST = "fig1_peer_vs_teacher"
"""The exhibit whose picture the first page shows."""

FILES = "files"
"""The folder of the site that holds the exhibits' own files, as :func:`file_of` names them."""

EARLIER = " An earlier version of the kit made it, which did not write down which picture and numbers belong together."
"""What is said of an exhibit whose JSON holds no digests."""

_VERDICTS = (HOLDS, FAILS, OPEN)
_NO_UNIT = "no unit"


def file_of(exhibit: Found, suffix: str) -> str:
    """Return the address of one of an exhibit's files, or of its small picture ("small.webp"), from the site's root."""
    return f"{FILES}/{quote(exhibit.folder.name)}/{exhibit.name}.{suffix}"


def first_page(readme: str, found: Sequence[Found], lines: pd.DataFrame, numbers: pd.DataFrame) -> str:
    """Return the first page: what this is, Figure 1, what came out in numbers, and how to begin.

    Parameters
    ----------
    readme : the README as a page of the site; its introduction and some of its sections are taken over.
    found, lines, numbers : the exhibits, the ledger and the papers' numbers.
    """
    parts = markdown.sections(readme)
    begin, cite = (_section_with(sign, parts) for sign in ("make fig1", "bibtex"))
    lead, _, rest = (
        markdown.with_anchors(parts[""], [name.lower() for name in (begin, cite)]).lstrip().partition("\n\n")
    )
    shown = next(exhibit for exhibit in found if exhibit.name == FIRST)
    verdicts = {verdict: int((lines.verdict == verdict).sum()) for verdict in _VERDICTS}
    facts = [
        (f"{len({exhibit.name for exhibit in found})}", "exhibits", "gallery.html", "every figure and table"),
        (f"{len(lines)}", "claims checked", "ledger.html", tables.counts(verdicts)),
        (f"{len(numbers)}", "numbers of the papers", "numbers.html", "beside what came out here"),
    ]
    cards = "".join(
        f'<a class="fact" href="{address}"><strong>{number}</strong> {what}<small>{more}</small></a>'
        for number, what, address, more in facts
    )
    return "\n\n".join(
        [
            markdown.WITHOUT_CONTENTS,
            "# Robust knowledge distillation, reproduced",
            lead,
            *([_picture(shown, "", eager=True)] if not shown.problem else [_problem(shown)]),
            rest,
            markdown.raw(f'<div class="facts">{cards}</div>'),
            *([f"## {begin}", parts[begin]] if begin else []),
            *([f"## {cite}", parts[cite]] if cite else []),
        ]
    )


def _section_with(sign: str, parts: Mapping[str, str]) -> str:
    """Return the heading of the first section that has a sign in its text; "": none has."""
    return next((heading for heading, text in parts.items() if heading and sign in text), "")


def gallery(found: Sequence[Found]) -> str:
    """Return the gallery: a card for each exhibit at `quick`, by paper; `found` are these exhibits."""
    parts = [
        markdown.WITHOUT_CONTENTS,
        "# The exhibits",
        "Each exhibit is one notebook. Choose one to see its picture, its numbers and verdicts.",
    ]
    ordered = in_order(found)
    for paper, exhibits in groupby(ordered, _paper):
        cards = "".join(_card(exhibit) for exhibit in exhibits)
        parts += [f"## {paper[0].upper()}{paper[1:]}", markdown.raw(f'<div class="cards">{cards}</div>')]
    entries = "\n".join(f"{_short(exhibit)} <exhibits/{exhibit.name}>" for exhibit in ordered)
    return "\n\n".join([*parts, f"```{{toctree}}\n:hidden:\n\n{entries}\n```"]) + "\n"


def in_order(found: Sequence[Found]) -> list[Found]:
    """Return exhibits in the gallery's order, by paper."""
    order = [*TITLES.values(), OWN]
    return sorted(found, key=lambda exhibit: order.index(_paper(exhibit)))


def exhibit_page(exhibit: Found, larger: Sequence[Found], pages: Mapping[str, str]) -> str:
    """Return the page of an exhibit, which lies in the folder `exhibits`.

    Parameters
    ----------
    exhibit : at `quick`; if its files are missing or damaged, the page says so and which command makes them.
    larger : the same exhibit at other scales.
    pages : the site's pages, as `markdown.page`.
    """
    heading, told = story(exhibit.name)
    told = markdown.page(without_formulas(told), f"notebooks/{exhibit.name}.ipynb", pages, depth=1)
    notebook = f"../notebooks/{exhibit.name}.html"
    parts = [
        markdown.WITHOUT_CONTENTS,
        f"# {heading}",
        markdown.raw(f'<p class="place">{escape(_short(exhibit))} <code>{exhibit.name}</code></p>'),
        *_shown(exhibit),
        "## The question",
        told,
        markdown.raw(f'<p><a href="{notebook}">Read the whole notebook</a></p>'),
        *_drawn(exhibit),
        *(part for each in larger for part in (f"## At larger scale: {each.place}", *_shown(each))),
        *_numbers(exhibit),
        "## Make it yourself",
        markdown.code(exhibit.command),
        "The same in JupyterLab is `make lab`; what it needs at the papers' scale, before anything is trained, says",
        markdown.code(f"rkdkit plan {exhibit.name} --profile paper"),
        *_downloads(exhibit),
    ]
    return "\n\n".join(parts) + "\n"


def ledger_page(lines: pd.DataFrame) -> str:
    """Return the page of all claims, of which `lines` is the ledger."""
    units = {unit: place for place, unit in enumerate(lines.unit.value_counts().index)}
    named = lines.assign(unit=lines.unit.replace("", _NO_UNIT))
    widest = float(lines[lines.unit == ledger.POINTS][["low", "high"]].abs().to_numpy().max(initial=0.0)) or 1.0
    columns: dict[str, tables.Shown] = {
        "Paper": tables.text("paper"),
        "Claim": lambda row: Cell(f"{escape(row.claim)}<small>{escape(row.source)}</small>", row.claim),
        "Verdict": lambda row: Cell(tables.verdict(str(row["verdict"])), str(row["verdict"]), str(row["verdict"])),
        "Difference": lambda row: _difference(row, units),
        "Unit": lambda row: Cell(escape(str(row["unit"]) or _NO_UNIT)),
        "Interval": lambda row: _interval(row, widest, units),
        "Exhibit": lambda row: Cell(
            f'<a href="exhibits/{row["exhibit"]}.html">{escape(str(row["exhibit"])).replace("_", "_<wbr>")}</a>',
            search=str(row["exhibit"]),
        ),
        "Scale": tables.text("scale"),
        "Data": tables.text("dataset"),
        "Seeds": tables.number("seeds", ".0f"),
    }
    names = ("Paper", "Scale", "Data", "Verdict", "Unit")
    places = {name: list(columns).index(name) for name in names}
    counted = {verdict: int((lines.verdict == verdict).sum()) for verdict in _VERDICTS}
    forest = pictures.forest(lines)
    return "\n\n".join(
        [
            markdown.WITHOUT_CONTENTS,
            "# The ledger of claims",
            "Every claim of the papers that an exhibit checks, at every scale at which it was made. A claim says that "
            "one quantity is higher than another. It *holds* if the whole interval of their difference is above zero, "
            "*does not hold* if the whole interval is below zero, and is *too close to tell here* otherwise; "
            "[the statistics](statistics.md) say how the claims of an exhibit are corrected together. With one seed, "
            "the interval does not include the variance between trainings. Differences are sorted within their unit.",
            markdown.raw(f'<p class="counts">{tables.counts(counted)}</p>'),
            markdown.raw(
                tables.filters("ledger", named, ("paper", "scale", "dataset", "verdict", "unit"), places)
                + tables.table(
                    "ledger",
                    "All claims, with verdicts and intervals",
                    lines,
                    columns,
                    within=("Difference", "Interval"),
                    stacks=True,
                )
            ),
            "## All differences",
            "Each line is a claim's difference with its interval; right of zero it is as the paper says.",
            markdown.raw(_plot("forest", "Differences by exhibit and scale", forest) + _scripts("")),
        ]
    )


def numbers_page(numbers: pd.DataFrame) -> str:
    """Return the page of the papers' numbers, as `numbers.numbers` lists them."""
    columns: dict[str, tables.Shown] = {
        "Paper": tables.text("paper"),
        "Table": lambda row: Cell(_linked(str(row["table"]), str(row["exhibit"])), search=str(row["table"])),
        "Data": tables.text("dataset"),
        "Network": tables.text("network"),
        "Method": tables.text("method"),
        "Guide": tables.text("guide"),
        "Setting": tables.text("setting"),
        "Metric": tables.text("metric"),
        "In the paper": _printed,
        "Others report": tables.text("others"),
        "Here": tables.text("here"),
    }
    names = {"Paper": "paper", "Table": "table", "Data": "dataset", "Method": "method", "Metric": "metric"}
    places = {name: list(columns).index(name) for name in names}
    beside = int((numbers.here != "").sum())
    repeated = int((numbers.others != "").sum())
    return "\n\n".join(
        [
            markdown.WITHOUT_CONTENTS,
            "# The papers' numbers",
            f"All {len(numbers)} numbers of the papers' tables, as they print them. {repeated} of them were "
            f"repeated by others. Beside {beside} stands what came out here, with its 95 % "
            "interval and its scale. "
            "Accuracies on other data cannot be compared with the paper's: compare how far methods are apart.",
            markdown.raw(
                tables.filters("numbers", numbers, list(names.values()), places)
                + tables.table(
                    "numbers", "All numbers of the papers' tables", numbers, columns, rows_shown=50, stacks=True
                )
            ),
        ]
    )


def _paper(exhibit: Found) -> str:
    return paper_of(in_the_papers(exhibit.name))


def _short(exhibit: Found) -> str:
    """Return what the papers call an exhibit, in few words: "RKD Figures 6, 7 and 10 to 17"."""
    paper = in_the_papers(exhibit.name)
    for title in TITLES.values():
        paper = paper.replace(f"{title}, ", f"{title} ")
    return paper[0].upper() + paper[1:]


def _card(exhibit: Found) -> str:
    heading, _ = story(exhibit.name)
    picture = '<span class="nothing">not made yet</span>'
    if not exhibit.problem:
        picture = f'<img class="dark-light" src="{file_of(exhibit, "small.webp")}" alt="" loading="lazy">'
    return (
        f'<a class="card-of" href="exhibits/{exhibit.name}.html"><span class="sheet">{picture}</span>'
        f'<span class="place">{escape(_short(exhibit))}</span><strong>{escape(heading)}</strong>'
        f'<span class="counts">{tables.counts(ledger.counted(exhibit.claims, _VERDICTS))}</span></a>'
    )


def _shown(exhibit: Found) -> list[str]:
    """Return the picture of an exhibit at one scale, its scale in words, and its verdicts."""
    if exhibit.problem:
        return [_problem(exhibit)]
    return [
        _picture(exhibit, "../"),
        markdown.raw(f'<p class="scale">{escape(_scale(exhibit))}</p>'),
        *_claims(exhibit),
    ]


def _problem(exhibit: Found) -> str:
    told = f"This exhibit is not shown. {exhibit.problem} This command makes its files:"
    return f":::{{warning}}\n{told}\n\n{markdown.code(exhibit.command)}:::"


def _picture(exhibit: Found, root: str, *, eager: bool = False) -> str:
    """Return the picture of an exhibit, which opens in full size; `root` is the way to the site's first folder."""
    address, alternative = root + file_of(exhibit, "png"), pictures.alternative_text(exhibit.name, exhibit.made)
    with Image.open(exhibit.folder / f"{exhibit.name}.png") as opened:
        width, height = opened.size
    return markdown.raw(
        f'<figure class="sheet" style="--shape: {width / height:.4f}; --whole: {width}px"><a href="{address}" '
        f'aria-label="The picture in full size"><img class="dark-light" src="{address}" width="{width}" '
        f'height="{height}" alt="{escape(alternative)}" loading="{"eager" if eager else "lazy"}"></a></figure>'
    )


def _scale(exhibit: Found) -> str:
    """Return in words at which scale an exhibit was made."""
    made = exhibit.made
    if "dataset" not in made:
        return "Nothing is trained or measured on images for it."
    seeds = len(made["seeds"])
    return (
        f"Profile {exhibit.scale}: {made['dataset']}, {made['network']}, eps {made['eps']:.3g}, "
        f"{'one seed' if seeds == 1 else f'{seeds} seeds'}." + (EARLIER if not exhibit.has_digests else "")
    )


def _claims(exhibit: Found) -> list[str]:
    if not exhibit.claims:
        return ["The papers claim nothing here that can be measured."]
    rows = pd.DataFrame({"claim": list(exhibit.claims)})
    shares = [
        ledger.interval(claim.difference) for claim in exhibit.claims if ledger.unit(claim.difference) == ledger.POINTS
    ]
    widest = max((abs(end) for low, _, high in shares for end in (low, high)), default=1.0)
    columns: dict[str, tables.Shown] = {
        "The paper says": _said,
        "Verdict": lambda row: Cell(tables.verdict(_claim(row).verdict)),
        "Difference here": lambda row: _told(_claim(row), widest),
        "Higher": lambda row: _side(_claim(row), "higher"),
        "Lower": lambda row: _side(_claim(row), "lower"),
    }
    counted = tables.counts(ledger.counted(exhibit.claims, _VERDICTS))
    of = exhibit.folder.name
    return [
        markdown.raw(
            f'<p class="counts">{counted}</p>'
            + tables.plain(f"claims-{of}", f"Claims and verdicts ({exhibit.place})", rows, columns)
        )
    ]


def _claim(row: "pd.Series[Any]") -> Claim:
    claim = row["claim"]
    assert isinstance(claim, Claim)
    return claim


def _said(row: "pd.Series[Any]") -> Cell:
    claim = _claim(row)
    return Cell(f"{escape(claim.text)}<small>{escape(claim.source)}</small>")


def _side(claim: Claim, name: str) -> Cell:
    side = claim.higher if name == "higher" else claim.lower
    return Cell(f"{escape(side.name)}<small>{escape(str(side.estimate))}</small>")


def _told(claim: Claim, widest: float) -> Cell:
    low, value, high = ledger.interval(claim.difference)
    unit = ledger.unit(claim.difference)
    drawing = tables.drawn(low, value, high, widest, claim.verdict) if unit == ledger.POINTS else ""
    shown, lowest, highest = (_signed(number, unit) for number in (value, low, high))
    notes = "; ".join(filter(None, (claims.confidence_in_words(claim.confidence), claim.note)))
    return Cell(
        f'<span class="number">{shown} [{lowest}, {highest}]</span> {escape(unit)}{drawing}'
        + f"<small>{escape(notes)}</small>" * bool(notes)
    )


def _difference(row: "pd.Series[Any]", units: Mapping[str, int]) -> Cell:
    value, unit = float(str(row["difference"])), str(row["unit"])
    shown = _signed(value, unit)
    return Cell(f'<span class="number">{shown}</span>', f"{units[unit]} {value!r}", shown)


def _interval(row: "pd.Series[Any]", widest: float, units: Mapping[str, int]) -> Cell:
    low, value, high = (float(str(row[column])) for column in ("low", "difference", "high"))
    unit = str(row["unit"])
    drawing = tables.drawn(low, value, high, widest, str(row["verdict"])) if unit == ledger.POINTS else ""
    confidence = claims.confidence_in_words(float(str(row["confidence"])))
    return Cell(
        f'<span class="number">[{_signed(low, unit)}, {_signed(high, unit)}]</span>{drawing}'
        + f"<small>{confidence}</small>" * bool(confidence),
        f"{units[unit]} {low!r}",
    )


def _signed(value: float, unit: str) -> str:
    """Return a number with its sign: points to a tenth, others to three digits."""
    form = "+.1f" if unit == ledger.POINTS else "+.3g"
    return format(value, form).replace("-", "−")


def _printed(row: "pd.Series[Any]") -> Cell:
    value, spread, unit = float(str(row["value"])), float(str(row["spread"])), str(row["unit"])
    shown = f"{value:.2f}" + (f" ± {spread:.2f}" if spread == spread else "")  # NaN: none
    return Cell(f'<span class="number">{shown}</span> {escape(unit)}', repr(value), shown)


def _linked(text: str, exhibit: str) -> str:
    return f'<a href="exhibits/{exhibit}.html">{escape(text)}</a>' if exhibit else escape(text)


def _drawn(exhibit: Found) -> list[str]:
    """Return the pictures of an exhibit that one turns and points at."""
    if exhibit.problem:
        return []
    try:
        drawn = pictures.interactive(exhibit.name, exhibit.folder).items()
    except ExhibitFilesError as error:  # another version of the kit made them
        return ["## Look closer", str(error)]
    plots = [_plot(f"picture-{place}", title, figure) for place, (title, figure) in enumerate(drawn, start=1)]
    return ["## Look closer", markdown.raw("\n".join([*plots, _scripts("../")]))] if plots else []


def _plot(name: str, title: str, figure: "Figure") -> str:
    return f'<div class="plot"><p class="title">{escape(title)}</p>\n{pictures.write(figure, name)}</div>'


def _scripts(root: str) -> str:
    """Return what loads the scripts of interactive pictures; `root` is the way to the site's first folder."""
    return "".join(f'<script defer src="{root}_static/{file.name}"></script>' for file in pictures.scripts())


def _numbers(exhibit: Found) -> list[str]:
    if exhibit.problem:
        return []
    values = pd.read_csv(exhibit.folder / f"{exhibit.name}.csv", keep_default_na=False, na_values=[""])
    texts = {name: "" for name in values.columns if not pd.api.types.is_numeric_dtype(values[name])}
    values = values.fillna(texts)
    name = f"{exhibit.name}-numbers"
    shown = tables.table(name, f"The numbers of {exhibit.name}", values, tables.as_written(values), rows_shown=10)
    return ["## The numbers", "As the CSV has them: accuracies are fractions.", markdown.raw(shown)]


def _downloads(exhibit: Found) -> list[str]:
    links = [(f"../notebooks/{exhibit.name}.ipynb", "Notebook")]
    if not exhibit.problem:
        named = (("png", "Picture (PNG)"), ("csv", "Numbers (CSV)"), ("json", "Provenance (JSON)"))
        links = [*((f"../{file_of(exhibit, suffix)}", text) for suffix, text in named), *links]
    listed = "".join(f'<li><a href="{address}" download>{text}</a></li>' for address, text in links)
    return ["## Downloads", markdown.raw(f'<ul class="downloads">{listed}</ul>')]
