"""The tables of an exhibit that was made, for a paper or a page: its numbers, the paper's beside them, the verdicts.

They are read from the exhibit's CSV and JSON; nothing is trained or measured. The CSVs differ from exhibit to exhibit,
but their columns follow rules, and these alone are used here:

- ``x``, ``x_low`` and ``x_high`` are a value and its 95 % interval; plain ``low`` and ``high`` belong to the nearest
  column of numbers before them. ``paper`` has the paper's numbers of that value, ``paper_x`` those of others.
- ``metric``, ``quantity`` or ``measure`` says what a line's value is of. Then lines that differ in it alone become one
  line, with a column for each. All other exhibits keep the lines that their CSV has.
- What is the same in all lines, or depends on the metric alone, is said in the caption.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rkdkit import claims, files
from rkdkit.saved import read_exhibit
from rkdkit.typeset import BESIDE, FORMATS, Table, latex, markdown, metric_in_words

SHARES = ("accuracy", "robust_accuracy", "clean", "robust", "share")
"""The columns whose values are shares of images or points: the tables show them in per cent."""

_BY = ("metric", "quantity", "measure")
_MINUS = "compared_with"

Row = Mapping[str, str]
"""A line of a CSV: texts by column."""


@dataclass(frozen=True)
class Estimated:
    """The columns of a value, of its interval's ends, and of the paper's numbers beside it.

    Attributes
    ----------
    value, low, high, paper : the columns' names; "": there is none.
    share : whether value and paper are fractions, to be shown in per cent.
    """

    value: str
    low: str
    high: str
    paper: str
    share: bool

    @property
    def words(self) -> str:
        """What it is, for a title: "accuracy in per cent"."""
        unit = " in points" if self.value == "difference" else " in per cent"
        return _words(self.value) + unit * self.share

    def cell(self, row: Row) -> str:
        """Return a line's value with its interval: "98.6 [97.1, 99.3]"; "": there is none."""
        ends = [self._number(row[end]) for end in (self.low, self.high) if row[end]]
        return self._number(row[self.value]) + (f" [{', '.join(ends)}]" if ends else "")

    def papers_cell(self, row: Row) -> str:
        """Return the paper's number beside it, with the digits that the paper prints; "": there is none."""
        number = row.get(self.paper, "")
        unit = row.get("paper_unit", "fraction") if self.paper == "paper" else "fraction"
        if unit not in ("", "fraction"):
            return f"{number} {unit}" if number else ""
        return f"{100 * float(number):.2f}" if number and self.share else number

    def _number(self, text: str) -> str:
        if not text:
            return ""
        number = float(text)
        return f"{round(100 * number, 1) + 0.0:.1f}" if self.share else f"{number:.4g}"


@dataclass(frozen=True)
class Numbers:
    """An exhibit's CSV.

    Attributes
    ----------
    names : the columns.
    rows : the lines.
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, file: Path) -> "Numbers":
        """Return the numbers of a CSV file.

        Raises
        ------
        OSError
            If it cannot be read.
        ValueError
            If it is empty, or a line has more or fewer cells than there are columns.
        """
        written = list(csv.reader(io.StringIO(files.read(file).decode())))
        if not written:
            raise ValueError(f"{file} is empty.")
        names, *lines = written
        return cls(tuple(names), tuple(dict(zip(names, line, strict=True)) for line in lines))

    @cached_property
    def estimates(self) -> tuple[Estimated, ...]:
        """The values that have an interval, in the order of their columns."""
        found = []
        for value in self.names:
            low, high = f"{value}_low", f"{value}_high"
            paper, share = f"paper_{value}", value in SHARES or (value == "difference" and "accuracy" in self.names)
            if value == self._main:
                low, high, paper = "low", "high", "paper"
            if {low, high} <= set(self.names):
                found.append(Estimated(value, low, high, paper if paper in self.names else "", share))
        return tuple(found)

    @property
    def by(self) -> str:
        """The column that says what a line's value is of; "": there is none."""
        return next((name for name in _BY if name in self.names and self.estimates), "")

    @cached_property
    def plain(self) -> tuple[str, ...]:
        """The columns that are neither of an estimate nor :attr:`by`."""
        taken = {name for each in self.estimates for name in (each.value, each.low, each.high, each.paper)}
        return tuple(name for name in self.names if name not in taken | {self.by, "paper_unit"})

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns by which lines are told apart that are of different things, not only of different metrics.

        They are those before the metric; where that is not enough, also those of the others that tell most lines apart.
        (): even all of them are not enough, or there is no metric.
        """
        if not self.by:
            return ()
        place = self.names.index(self.by)
        key, others = list[str](), list[str]()
        for name in self.plain:
            (key if self.names.index(name) < place else others).append(name)
        while others and self._told_apart(key) < len(self.rows):
            best = max(others, key=lambda name: self._told_apart([*key, name]))
            key.append(best)
            others.remove(best)
        return tuple(key) if self._told_apart(key) == len(self.rows) else ()

    @cached_property
    def _main(self) -> str:
        """The column to which plain "low" and "high" belong."""
        before = self.names[: self.names.index("low")] if "low" in self.names else ()
        numeric = [name for name in before if not name.startswith("paper") and self._is_numeric(name)]
        return numeric[-1] if numeric else ""

    def _is_numeric(self, name: str) -> bool:
        known = [row[name] for row in self.rows if row[name]]
        return bool(known) and all(map(_is_number, known))

    def _told_apart(self, names: Sequence[str]) -> int:
        return len({tuple(row[name] for name in (*names, self.by)) for row in self.rows})


def exported(file: Path, form: str) -> dict[str, str]:
    """Return an exhibit's tables in a format, by the names of the files that they belong into.

    Parameters
    ----------
    file : the exhibit's JSON.
    form : one of `typeset.FORMATS`. For "csv" the numbers are those of the exhibit's own CSV, and its claims are a
        second file; the others have one file.

    Raises
    ------
    ExhibitFilesError
        As `saved.read_exhibit`.
    ValueError
        If the JSON's claims are none.
    """
    made = read_exhibit(file)
    if form == "csv":
        numbers = files.read(file.with_suffix(".csv")).decode()
        judged = _claims_csv(_claims(made))
        return {f"{file.stem}.csv": numbers, **({f"{file.stem}_claims.csv": judged} if judged else {})}
    written = {"latex": latex, "markdown": markdown}[form](tables_of(file))
    return {f"{file.stem}{FORMATS[form]}": written}


def tables_of(file: Path) -> list[Table]:
    """Return an exhibit's tables: values, differences, what else is known of the lines, claims. Errors as `exported`.

    Parameters
    ----------
    file : the exhibit's JSON.
    """
    made, numbers = read_exhibit(file), Numbers.read(file.with_suffix(".csv"))
    paper = str(made.get("paper", file.stem))
    how = [_made(made, file.stem)]
    if not numbers.key:
        tables = [_as_it_is(numbers, paper, how, file.stem)]
    else:
        lines: dict[tuple[str, ...], dict[str, Row]] = {}
        for row in numbers.rows:
            lines.setdefault(tuple(row[name] for name in numbers.key), {})[row[numbers.by]] = row
        own = {
            key: of_metrics
            for key, of_metrics in lines.items()
            if any(row[each.value] for row in of_metrics.values() for each in numbers.estimates)
        }
        alone = {key: of_metrics for key, of_metrics in lines.items() if key not in own}
        tables = [*_side_by_side(numbers, own, paper, how, file.stem)]
        tables += _side_by_side(numbers, alone, f"{paper}, numbers of the paper alone", [], f"{file.stem}-paper")
    judged = _claims(made)
    return [*tables, _claims_table(judged, paper, how, file.stem)] if judged else tables


def _as_it_is(numbers: Numbers, paper: str, how: Sequence[str], label: str) -> Table:
    """Return the lines as the CSV has them, each value with its interval in one column."""
    of_value = {each.value: each for each in numbers.estimates}
    merged = {name for each in numbers.estimates for name in (each.low, each.high, each.paper)}
    columns, same = list[tuple[str, list[str]]](), list[str]()
    head: int | None = None
    for name in (name for name in numbers.names if name not in merged):
        cells = [row[name] for row in numbers.rows]
        if name in of_value:
            each, head = of_value[name], len(columns) if head is None else head
            unit = " (%)" if each.share else ""
            columns.append((_words(name) + unit, list(map(each.cell, numbers.rows))))
            theirs = list(map(each.papers_cell, numbers.rows))
            columns += [(BESIDE, theirs)] if any(theirs) else []
        elif len(set(cells)) == 1 and cells[0] and len(cells) > 1:
            same.append(f"{_words(name)} {cells[0]}")
        elif any(cells):
            columns.append((_words(name), cells))
    intervals = ", with 95 % intervals" if of_value else ""
    what = ", ".join(map(_words, of_value)) or "its lines"
    notes = [*how, *([f"In all lines: {', '.join(same)}."] if same else [])]
    columns = columns or [(_words(name), [row[name] for row in numbers.rows]) for name in numbers.names]
    return _table(columns, f"{paper}: {what}{intervals}", notes, label, head or 1)


def _side_by_side(
    numbers: Numbers, lines: Mapping[tuple[str, ...], Mapping[str, Row]], paper: str, how: Sequence[str], label: str
) -> Iterator[Table]:
    """Yield tables with a column for each metric: one for each kind of value, and one of what else is known.

    Parameters
    ----------
    numbers : the CSV.
    lines : the CSV's lines by the columns of `Numbers.key` and by metric.
    paper, how, label : for the captions.
    """
    if not lines:
        return
    metrics = list(dict.fromkeys(metric for of_metrics in lines.values() for metric in of_metrics))
    key = [(_words(name), [line[i] for line in lines]) for i, name in enumerate(numbers.key)]
    notes, about, left_out = _of_lines(numbers, lines, metrics)
    minus = ["".join(_known(each.values(), _MINUS)[:1]) for each in lines.values()] if _MINUS in numbers.plain else []
    notes += [f"In the CSV alone: {', '.join(map(_words, left_out))}."] if left_out else []
    for each in numbers.estimates:
        columns = []
        for metric in metrics:
            of = [line.get(metric) for line in lines.values()]
            ours, theirs = ([cell(row) if row else "" for row in of] for cell in (each.cell, each.papers_cell))
            name = metric_in_words(metric)
            columns += [(name, ours)] if any(ours) else []
            columns += [(BESIDE if any(ours) else f"{name}, {BESIDE}", theirs)] if any(theirs) else []
        if columns:
            first = [*key, *([("minus", minus)] if any(minus) and each.value == "difference" else [])]
            intervals = ", with 95 % intervals" if any("[" in cell for _, cells in columns for cell in cells) else ""
            is_main = each == numbers.estimates[0]
            said = [*how, *(notes if is_main else [])]
            name = label if is_main else f"{label}-{each.value}"
            yield _table([*first, *columns], f"{paper}: {each.words}{intervals}", said, name, len(first))
    if about:
        columns = [*key, *((_words(name), cells) for name, cells in about.items())]
        yield _table(columns, f"{paper}: what else is known of the lines", how, f"{label}-lines", len(key))


def _of_lines(
    numbers: Numbers, lines: Mapping[tuple[str, ...], Mapping[str, Row]], metrics: Sequence[str]
) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """Return what the other columns say.

    Returns
    -------
    Sentences of what is the same in all lines or depends on the metric alone; the columns of what depends on the line
    alone, a cell for each line; the names of the columns that depend on both.
    """
    same, sentences, about, left_out = list[str](), list[str](), dict[str, list[str]](), list[str]()
    for name in (name for name in numbers.plain if name not in (*numbers.key, _MINUS)):
        of_lines = [_known(each.values(), name) for each in lines.values()]
        of_metrics = {metric: {each[metric][name] for each in lines.values() if metric in each} for metric in metrics}
        known = {value for values in of_lines for value in values}
        if not known:
            continue
        if len(known) == 1 and all(of_lines):
            same.append(f"{_words(name)} {known.pop()}")
        elif all(len(values) == 1 for values in of_metrics.values()):
            by_value: dict[str, list[str]] = {}
            for metric, (value,) in of_metrics.items():
                by_value.setdefault(value, []).append(metric_in_words(metric))
            told = [f"{value} ({', '.join(of)})" for value, of in by_value.items() if value]
            sentences.append(f"{_words(name)}: {'; '.join(told)}.")
        elif all(len(values) <= 1 for values in of_lines):
            about[name] = ["".join(values) for values in of_lines]
        else:
            left_out.append(name)
    return [*([f"In all lines: {', '.join(same)}."] if same else []), *sentences], about, left_out


def _table(
    columns: Sequence[tuple[str, Sequence[str]]], title: str, notes: Sequence[str], label: str, head: int
) -> Table:
    """Return a table of columns, without the lines in which nothing but the first columns is known."""
    names, cells = zip(*columns, strict=True)
    rows = [row for row in zip(*cells, strict=True) if any(row[head:]) or len(row) == head]
    return Table(names, tuple(rows), title, tuple(notes), label, head)


def _claims(made: Mapping[str, Any]) -> list[claims.Claim]:
    return claims.as_family([claims.Claim.from_json(each) for each in made.get("claims", ())])


def _claims_table(judged: Sequence[claims.Claim], paper: str, how: Sequence[str], label: str) -> Table:
    rows = []
    for claim in judged:
        sides = [f"{side.name}: {side.estimate}" for side in (claim.higher, claim.lower)]
        difference = claims.difference_in_words(claim.difference)
        notes = claims.notes_in_words(claim)
        rows.append((f"{claim.text} ({claim.source})", *sides, difference, claim.verdict + f" ({notes})" * bool(notes)))
    below = [*how, *filter(None, [claims.family_in_words(judged, label)])]
    heading = ("claim", "claimed to be higher", "claimed to be lower", "difference", "verdict")
    return Table(
        heading, tuple(rows), f"{paper}: the claims and their verdicts", tuple(below), f"{label}-claims", 1, 18
    )


def _claims_csv(judged: Sequence[claims.Claim]) -> str:
    """Return claims as CSV, their numbers as the JSON has them; "": there are none."""
    if not judged:
        return ""
    written = io.StringIO()
    heading = ["claim", "source"]
    for side in ("higher", "lower"):
        heading += [side, f"{side}_value", f"{side}_low", f"{side}_high"]
    heading += ["difference", "difference_low", "difference_high", "unit", "confidence", "adjusted_p_value"]
    heading += ["verdict", "note"]
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(heading)
    for claim in judged:
        line: list[object] = [claim.text, claim.source]
        for quantity in (claim.higher, claim.lower):
            line += [quantity.name, quantity.estimate.value, quantity.estimate.low, quantity.estimate.high]
        of = claim.difference
        unit = getattr(of, "unit", "fraction")
        adjusted = "" if claim.adjusted_p_value is None else claim.adjusted_p_value
        line += [of.value, of.low, of.high, unit, claim.confidence, adjusted, claim.verdict, claim.note]
        writer.writerow(line)
    return written.getvalue()


def _made(made: Mapping[str, Any], name: str) -> str:
    """Return a sentence that says how an exhibit was made, from its JSON."""
    version = made.get("provenance", {}).get("made_with", {}).get("rkdkit", "")
    words = [f"Made with rkdkit {version}".rstrip(), name, f"profile {made.get('profile')}"]
    if "dataset" in made:  # an exhibit without data has no scale
        eps, seeds = made["eps"], made["seeds"]
        words += ["toy scale"] if made["dataset"].startswith("digits") else []
        radius = f"{eps:g}" if eps == round(eps, 4) else f"{eps * 255:.3g}/255"
        trained = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
        words += [made["dataset"], made["network"], f"eps {radius}", trained]
        words += [f"{field} {value}" for field, value in made["overrides"].items()]
    words += [f"{parameter} {value}" for parameter, value in made.get("own", {}).items()]
    return f"{', '.join(words)}."


def _words(name: str) -> str:
    return name.replace("_", " ")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _known(rows: Iterable[Row], name: str) -> list[str]:
    """Return the different texts that lines have in a column, without "" where nothing is known."""
    return list(dict.fromkeys(row[name] for row in rows if row[name]))
