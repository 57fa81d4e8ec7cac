"""In a Jupyter kernel: progress as rows of a single output, and one line in a traceback's place.

Progress is no widget: a finished widget leaves an empty box, and an error message once its notebook is opened again. An
output that is displayed once and then updated can be emptied, and is text where HTML is not shown.
"""

import dis
import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rkdkit import endings

LABEL = 32
"""How many characters a label takes: shorter ones are filled up, longer ones are cut."""

SHORT = 16
"""How many characters a note behind a row has at most; a longer one goes below it."""

EVERY = 0.2
"""Seconds after which rows are drawn anew, at the earliest."""

_ROW = (
    '<div style="display: flex; align-items: center; gap: 1em; white-space: nowrap; max-width: 60em; '
    'font-family: var(--jp-code-font-family, monospace); font-size: var(--jp-code-font-size, 13px)">'
    '<span style="flex: 0 1 {width}ch; overflow: hidden; text-overflow: ellipsis">{label}</span>'
    '<progress style="flex: 1 1 8em; min-width: 3em" max="1" value="{share:.4f}" aria-label="{label}"></progress>'
    '<span style="flex: 0 0 auto">{numbers}</span></div>'
)
_BELOW = '<div style="font-size: smaller; overflow-wrap: anywhere; max-width: 80em">{below}</div>'


def inside() -> bool:
    """Return whether this process is a Jupyter kernel whose standard output goes to a cell."""
    return type(sys.stdout).__module__.startswith("ipykernel")


def fitted(text: str, width: int = LABEL) -> str:
    """Return a text of exactly `width` characters: filled up with spaces, or cut."""
    return text.ljust(width) if len(text) <= width else f"{text[: width - 2]}.."


def interval(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours where there are some: "02:31"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


@dataclass(eq=False)
class Row:
    """How far some work is.

    Attributes
    ----------
    label : what it is, cut where it is long.
    total, n : how much there is, and how much is done, in any unit.
    note : a short text behind the times.
    below : a text below the row.
    """

    label: str
    total: float
    n: float = 0.0
    note: str = ""
    below: str = ""
    _began: float = field(default_factory=lambda: time.monotonic(), repr=False)
    _first: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._first = self.n

    @property
    def share(self) -> float:
        """Which share is done, in [0, 1]."""
        return min(max(self.n / self.total, 0.0), 1.0) if self.total > 0 else 0.0

    @property
    def left(self) -> float | None:
        """The seconds that are left if it goes on as it did; None: nothing was done yet."""
        done = self.n - self._first
        return (time.monotonic() - self._began) * max(self.total - self.n, 0.0) / done if done > 0 else None

    @property
    def numbers(self) -> str:
        """The share, the time that passed, and the time that is left: " 45% 00:12 < 00:15"."""
        left = "?" if self.left is None else interval(self.left)
        note = f"  {self.note}" if self.note else ""
        return f"{self.share:4.0%} {interval(time.monotonic() - self._began)} < {left}{note}"

    def html(self) -> str:
        """Return the row as HTML."""
        below = _BELOW.format(below=html.escape(self.below)) if self.below else ""
        label, numbers = html.escape(self.label[:LABEL]), html.escape(self.numbers)
        return _ROW.format(width=LABEL, label=label, share=self.share, numbers=numbers) + below

    def __str__(self) -> str:
        bar = "#" * round(20 * self.share)
        return f"{fitted(self.label)} |{bar:<20}| {self.numbers}" + (f"\n  {self.below}" if self.below else "")


class Board:
    """The rows that a cell shows now, one below the other, in one output; without rows it is empty."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._cell: object = None
        self._handle: Any = None
        self._drawn = 0.0

    def add(self, row: Row) -> None:
        """Show a row below the others; those of another cell, which an error left, are forgotten."""
        cell = _cell()
        if cell != self._cell:
            self._rows, self._cell, self._handle = [], cell, None
        self._rows.append(row)
        self._draw()

    def remove(self, row: Row) -> None:
        """Show a row no longer."""
        if row in self._rows:
            self._rows.remove(row)
            self._draw()

    def clear(self) -> None:
        """Show no rows."""
        if self._rows:
            self._rows = []
            self._draw()

    def moved(self, *, at_once: bool = False) -> None:
        """Draw the rows anew; unless it must be at once, not if they have just been drawn."""
        if self._rows and (at_once or time.monotonic() - self._drawn >= EVERY):
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        shown = {"text/plain": "\n".join(map(str, self._rows)), "text/html": "".join(row.html() for row in self._rows)}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(shown, raw=True)
        self._drawn = time.monotonic()


BOARD = Board()
"""The rows of the cell that is run."""


def _cell() -> object:
    """Return what tells the cell that is run from others: the id of the message that asked for it."""
    from IPython import get_ipython

    shell = get_ipython()
    parent = getattr(shell, "parent_header", None) or {}
    return parent.get("header", parent).get("msg_id")


@contextmanager
def short_refusals() -> Iterator[None]:
    """Let a kernel show a refusal of the kit's, which a ``with`` block raises, as its message alone.

    Only what the kit itself raises by ``raise``, and as one of `endings.REFUSALS`, is a refusal. All other errors keep
    their tracebacks, and so do refusals elsewhere than in a kernel.
    """
    try:
        yield
    except Exception as error:
        if inside() and type(error).__name__ in endings.REFUSALS and _raised_by_the_kit(error.__traceback__):
            message = f"{type(error).__name__}: {error}"
            error._render_traceback_ = lambda: [message]  # type: ignore[attr-defined]
        raise


def _raised_by_the_kit(traceback: TracebackType | None) -> bool:
    """Return whether an error comes from a ``raise`` in the kit's own code, and not from what it called."""
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    own = Path(code.co_filename).is_relative_to(Path(__file__).parent)
    return own and dis.opname[code.co_code[traceback.tb_lasti]] == "RAISE_VARARGS"
