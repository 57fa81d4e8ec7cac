"""Progress of long work, with the time left: rows of an output in a Jupyter kernel, a line of text elsewhere.

Several pieces of work have one bar together (:func:`overall`); what is tracked meanwhile is the present piece, which is
shown below that bar in a kernel and behind it in text, and disappears when it is done.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

from rkdkit import kernel

TEXT_ONLY = "RKDKIT_TEXT_PROGRESS"
"""Set in the environment of a headless notebook, whose text streams reach a terminal and whose rows do not."""

LINE = "{desc}{percentage:3.0f}% |{bar:20}| {elapsed} < {remaining}{postfix}"
"""How a bar looks in text."""

EVERY = 0.3
"""Seconds after which a bar for several pieces of work is drawn anew in text, at the earliest."""


class Listener(Protocol):
    """Where progress goes instead of the screen: a worker reports it to the process that asked for the work."""

    def moved(self, share: float) -> None:
        """Note how much of the work is done, in [0, 1]."""

    def said(self, message: str) -> None:
        """Note a line about what is going on."""


_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Within a ``with`` block, send progress to a listener and show nothing."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def track(iterable: Iterable[Any] | None = None, **settings: Any) -> Any:
    """Return a progress bar with the time left; `settings` are tqdm's own, of which rows use what they need.

    Text by tqdm rather than by `rich`: a notebook without a terminal of its own shows no live display.
    """
    listener, whole = _LISTENER.get(), _OVERALL.get()
    if listener is not None:
        return _Unseen(listener, iterable, settings)
    if "file" not in settings and _has_rows():
        return _Shown(iterable, settings, whole)
    if whole is not None:
        return _Behind(whole, iterable, settings)
    return _text(iterable, **settings)


@contextmanager
def overall(what: str, total: float) -> Iterator["Overall"]:
    """Show one bar for several pieces of work, within a ``with`` block; within another such block, none is added.

    Parameters
    ----------
    what : the label.
    total : how much work the pieces are together, in any unit.
    """
    if _LISTENER.get() is not None or _OVERALL.get() is not None:
        yield Overall(None, total)
        return
    with _bar(what, total) as bar:
        whole = Overall(bar, total)
        token = _OVERALL.set(whole)
        try:
            yield whole
        finally:
            _OVERALL.reset(token)


def say(message: str) -> None:
    """Write a line about what is going on, past any progress bar."""
    listener = _LISTENER.get()
    if listener is not None:
        listener.said(message)
        return
    from tqdm import tqdm

    tqdm.write(message, file=_stream())


def clear() -> None:
    """Show no rows in a kernel any more: an interruption or an error may have left some."""
    kernel.BOARD.clear()


class Overall:
    """A bar for several pieces of work, done one after the other.

    Parameters
    ----------
    bar : what :func:`track` returns; None: nothing is shown.
    total : how much work there is in all.
    """

    def __init__(self, bar: Any, total: float) -> None:
        self.bar, self.total = bar, total
        self._done, self._weight, self._drawn = 0.0, 0.0, 0.0

    @contextmanager
    def piece(self, weight: float, what: str = "") -> Iterator[None]:
        """Within a ``with`` block, a piece of work is done.

        Parameters
        ----------
        weight : how much of the work it is.
        what : its label, which is shown until the piece itself shows something.
        """
        self._weight = weight
        self.moved(0.0, what, at_once=True)
        try:
            yield
        finally:
            self._done, self._weight = self._done + weight, 0.0
            self.moved(0.0)

    def expect(self, more: float) -> None:
        """Note how much work there is beside the pieces that are done, if that changed."""
        self.total = self._done + more
        if self.bar is not None:
            self.bar.total = self.total
            self.moved(0.0, at_once=True)

    def moved(self, share: float, what: str = "", *, at_once: bool = False) -> None:
        """Note how much of the present piece is done, in [0, 1], and what to show of it."""
        if self.bar is None:
            return
        self.bar.n = min(self._done + self._weight * share, self.total)
        self.bar.set_postfix_str(what, refresh=False)
        # rows are drawn when it is time
        if at_once or isinstance(self.bar, _Shown) or time.monotonic() - self._drawn > EVERY:
            self._drawn = time.monotonic()
            self.bar.refresh()


_OVERALL: ContextVar[Overall | None] = ContextVar("overall", default=None)


class _Bar:
    """What of a tqdm bar the kit uses."""

    def __init__(self, iterable: Iterable[Any] | None, settings: dict[str, Any]) -> None:
        self.iterable, self.label, self.note = iterable, str(settings.get("desc") or ""), ""
        self.n: float = settings.get("initial", 0)
        known = len(iterable) if isinstance(iterable, Sized) else None
        self.total: float | None = settings.get("total", known)

    @property
    def share(self) -> float:
        return self.n / self.total if self.total else 0.0

    def __iter__(self) -> Iterator[Any]:
        try:
            for each in () if self.iterable is None else self.iterable:
                yield each
                self.update()
        finally:
            self.close()

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        self.n += n
        self.refresh()

    def set_description(self, text: str, refresh: bool = True) -> None:
        self.label = text
        if refresh:
            self.refresh()

    def set_postfix(self, refresh: bool = True, **values: object) -> None:
        self.set_postfix_str(", ".join(f"{name}={value}" for name, value in values.items()), refresh)

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        self.note = text
        if refresh:
            self.refresh()

    def refresh(self) -> None:
        """Show how far it is."""

    def close(self) -> None:
        """Show it no longer."""


class _Unseen(_Bar):
    """A bar that is shown nowhere: it tells a listener which share is done."""

    def __init__(self, listener: Listener, iterable: Iterable[Any] | None, settings: dict[str, Any]) -> None:
        super().__init__(iterable, settings)
        self.listener = listener
        self.refresh()

    def refresh(self) -> None:
        if self.total:
            self.listener.moved(self.share)

    def set_description(self, *_: object, **__: object) -> None:
        pass

    set_postfix = set_postfix_str = set_description


class _Behind(_Bar):
    """The present piece of several, shown in text behind the bar of all."""

    def __init__(self, whole: Overall, iterable: Iterable[Any] | None, settings: dict[str, Any]) -> None:
        super().__init__(iterable, settings)
        self.whole = whole
        self.refresh()

    def refresh(self) -> None:
        self.whole.moved(self.share, f"{self.label} {self.share:.0%}{f', {self.note}' if self.note else ''}")


class _Shown(_Bar):
    """A row in a kernel; a long postfix is shown below it."""

    def __init__(self, iterable: Iterable[Any] | None, settings: dict[str, Any], whole: Overall | None = None) -> None:
        super().__init__(iterable, settings)
        self.whole = whole
        self.row = kernel.Row(self.label, float(self.total or 0), self.n)
        if whole is not None:  # it no longer says what this row says now
            whole.moved(self.row.share)
        kernel.BOARD.add(self.row)

    def refresh(self) -> None:
        row, before = self.row, (self.row.note, self.row.below)
        row.label, row.total, row.n = self.label, float(self.total or 0), self.n
        row.note, row.below = ("", self.note) if len(self.note) > kernel.SHORT else (self.note, "")
        if self.whole is not None:
            self.whole.moved(row.share)
        kernel.BOARD.moved(at_once=(row.note, row.below) != before)

    def close(self) -> None:
        kernel.BOARD.remove(self.row)


def _bar(what: str, total: float) -> Any:
    """Return the bar of several pieces of work."""
    if _has_rows():
        return _Shown(None, {"desc": what, "total": total})
    return _text(desc=what, total=total, smoothing=0.0, mininterval=0.5)


def _text(iterable: Iterable[Any] | None = None, **settings: Any) -> Any:
    from tqdm import tqdm

    desc = f"{kernel.fitted(settings.pop('desc'))} " if settings.get("desc") else ""
    looks = {"file": _stream(), "bar_format": LINE, "dynamic_ncols": True, "desc": desc}
    return tqdm(iterable, **{**looks, **settings})


def _has_rows() -> bool:
    """Return whether progress is shown in rows: in a kernel, unless its text goes to a terminal."""
    silent = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return kernel.inside() and not os.environ.get(TEXT_ONLY) and not silent


def _stream() -> TextIO:
    """Return where such text goes: not among results, but for notebooks, which show standard error as an error."""
    return sys.stdout if kernel.inside() else sys.stderr
