"""Pictures for the static site that one can turn, play and point at, read from an exhibit's files; nothing is trained.

A page that shows some loads, in this order, plotly's own script and those of :func:`scripts`, and contains what
:func:`write` returns for each.
"""

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly
import plotly.graph_objects as go

from rkdkit import files, saved
from rkdkit.claims import FAILS, HOLDS, OPEN
from rkdkit.site.drawn import MAKERS
from rkdkit.site.forest import forest

__all__ = ["alternative_text", "forest", "interactive", "scripts", "write"]

_NAMES = ("network", "examples", "images", "class", "method", "teacher", "student", "quantity", "figure", "name")
"""The columns that hold names, also where a name is a number."""

_METHODS = 5
"""How many methods an alternative text names."""


def interactive(name: str, folder: Path) -> dict[str, go.Figure]:
    """Return the interactive pictures of an exhibit by their titles; {}: it has none.

    Parameters
    ----------
    name : the exhibit's name.
    folder : where its PNG, CSV and JSON lie, such as ``figures/quick``.

    Raises
    ------
    ExhibitFilesError
        If the exhibit has interactive pictures and one of its files is missing or damaged, they do not belong together,
        or the CSV was made by a version that wrote other columns.
    """
    if name not in MAKERS:
        return {}
    file = folder / f"{name}.json"
    made = saved.read_exhibit(file)
    table = pd.read_csv(
        io.BytesIO(files.read(file.with_suffix(".csv"))),
        keep_default_na=False,  # a network may be called "None"
        na_values=[""],
        dtype=dict.fromkeys(_NAMES, str),
    )
    maker = MAKERS[name]
    missing = sorted(maker.columns - set(table.columns))
    if missing:
        raise saved.ExhibitFilesError(
            f"{file.with_suffix('.csv')} has no column {', '.join(missing)}: another version of rkdkit made it. Make "
            f"the three files again: {saved.command_of(file, made)}"
        )
    text = alternative_text(name, made)
    pictures = maker.draw(table, made)
    for title, figure in pictures.items():
        figure.update_layout(meta={**(figure.layout.meta or {}), "text": f"{title}. {text}"})
    return pictures


def alternative_text(name: str, exhibit: Mapping[str, Any]) -> str:
    """Return what a picture shows, in one or two sentences, for who cannot see it; it is not escaped for HTML.

    Parameters
    ----------
    name : the exhibit's name.
    exhibit : its JSON.
    """
    title = name.partition("_")[2].replace("_", " ") or name
    paper = f" ({exhibit['paper']})" if exhibit.get("paper") else ""
    about = " ".join(filter(None, [_compared(exhibit), _scale(exhibit)]))
    first = ": ".join(filter(None, [f"{title[:1].upper()}{title[1:]}{paper}", about]))
    verdicts = [claim.get("verdict") for claim in exhibit.get("claims", [])]
    if not verdicts:
        return f"{first}."
    tally = [f"{verdicts.count(verdict)} {words}" for verdict, words in _TALLY.items() if verdict in verdicts]
    return f"{first}. Of {len(verdicts)} claims, {_listed(tally)}."


def _compared(exhibit: Mapping[str, Any]) -> str:
    """Return the methods whose networks were measured, in words."""
    return _listed(list(dict.fromkeys(str(network["method"]) for network in exhibit.get("networks", []))))


_TALLY = {HOLDS: "hold", FAILS: "do not hold", OPEN: "are too close to tell"}


def _scale(exhibit: Mapping[str, Any]) -> str:
    """Return on what data, and with how many seeds, an exhibit was made; "": it says nothing of data."""
    if "dataset" not in exhibit:
        return ""
    seeds = len(exhibit.get("seeds", []))
    trained = "" if not seeds else ", one seed" if seeds == 1 else f", {seeds} seeds"
    return f"on {exhibit['dataset']}{trained}"


def _listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence, with the number of those after the first few."""
    named = list(words) if len(words) <= _METHODS else [*words[: _METHODS - 1], f"{len(words) - _METHODS + 1} more"]
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]])) if named else ""


def write(figure: go.Figure, element_id: str) -> str:
    """Return the HTML of a picture: a place for it, and the picture as JSON, which `draw.js` draws there.

    Parameters
    ----------
    figure : as :func:`interactive` and :func:`forest` return it; its `layout.meta["text"]` is the alternative text.
    element_id : the place's id in the page: letters, digits, "-" and "_", beginning with a letter.

    Raises
    ------
    ValueError
        If it is no such id.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", element_id):
        raise ValueError(f"{element_id!r} is no id: letters, digits, '-' and '_' are, beginning with a letter.")
    text = html.escape((figure.layout.meta or {}).get("text", ""))
    return (
        f'<div class="rkdkit-picture" id="{element_id}" role="figure" aria-label="{text}" '
        f'style="position: relative; height: {figure.layout.height}px"></div>\n'
        f'<script type="application/json" data-rkdkit-picture="{element_id}">{_in_html(figure)}</script>\n'
    )


def _in_html(figure: go.Figure) -> str:
    """Return a figure as JSON that HTML does not take for the end of a script, nor for a comment."""
    plain = json.loads(figure.to_json())
    # the strings of JSON may hold any of these characters as an escape, and nothing else in JSON does
    escaped = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False, allow_nan=False).translate(escaped)


def scripts() -> list[Path]:
    """Return the scripts that a page with pictures loads, in this order: plotly's, then the kit's own small ones.

    `theme.js` gives texts the colour of the page, also when it turns dark; `hover.js` shows the image of a point beside
    it; `draw.js` draws the pictures, and is the last.
    """
    own = Path(__file__).parent
    plotly_own = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return [plotly_own, *(own / f"{name}.js" for name in ("theme", "hover", "draw"))]
