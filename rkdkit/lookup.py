"""Where a figure, table or number of the papers is found: its exhibit, that exhibit's files, the paper's numbers."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rkdkit import files, paths
from rkdkit.papers.places import TITLES, Place, in_words, places
from rkdkit.papers.reported import reported, whole


def lines_about(exhibit: str, heading: str, paper: str, asked: str) -> Iterator[str]:
    """Yield what `rkdkit list` prints of an exhibit that is asked for.

    Parameters
    ----------
    exhibit : its name.
    heading : what its notebook asks.
    paper : what the papers call it: "RKD, Tables 2 and 9".
    asked : the words that asked for it. If they name some of its figures and tables, only these tables' numbers are
        printed, otherwise those of all of its tables.
    """
    own = sorted(place for place in places(paper) if place[0] in TITLES)
    yield f"{exhibit}: {heading}"
    yield f"  in the papers: {', '.join(map(in_words, own)) or paper}"
    yield f"  notebook:      notebooks/{exhibit}.ipynb"
    for what, suffix in (("picture", "png"), ("numbers", "csv")):
        file = paths.output_folder("quick") / f"{exhibit}.{suffix}"
        made = str(paths.below_project(file)) if file.is_file() else f"not there; `rkdkit figures {exhibit}` makes it"
        yield f"  {what}:       {made}"
    for place in sorted(places(asked).intersection(own)) or own:
        yield ""
        yield _numbers(place)
        yield from _not_made(paths.output_folder("quick") / f"{exhibit}.csv", place)


def _not_made(file: Path, place: Place) -> Iterator[str]:
    """Yield a sentence if an exhibit's CSV has a table of a paper, and beside none of its numbers one of ours."""
    _, kind, number = place
    with suppress(OSError, ValueError, csv.Error):  # damaged files are said by whoever shows them
        lines = [line for line in csv.DictReader(files.read(file).decode().splitlines()) if "accuracy" in line]
        ours = [line["accuracy"] for line in lines if line.get("table") == f"{kind} {number}"]
        if ours and not any(ours):
            yield "None of these networks is trained at quick: the CSV has nothing of ours beside them."


def _numbers(place: Place) -> str:
    """Return the paper's numbers of a table as a text, in the paper's units; of a figure, that there are none."""
    paper, kind, number = place
    if kind == "Figure":
        return f"{in_words(place)}: the paper prints no numbers of it."
    numbers = reported(paper, f"Table {number}")
    units = dict(zip(numbers.metric, numbers.unit, strict=True))
    named = {metric: f"{metric} ({unit})" for metric, unit in units.items() if unit}
    printed = whole(in_words(place)).reset_index().drop(columns="table").rename_axis(columns=None)
    printed = printed.loc[:, (printed != "").any()].rename(columns=named)
    return f"{in_words(place)}, as the paper prints it:\n{printed.to_string(index=False)}"
