"""Progress of long work: a widget in JupyterLab, a line of text elsewhere, with the time left."""

import os
import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

TEXT_ONLY = "RKDKIT_TEXT_PROGRESS"
"""Set in the environment of a headless notebook, whose text streams reach a terminal and whose widgets do not."""


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
    """Return a progress bar with the time left; `settings` are tqdm's own.

    Text by tqdm rather than by `rich`: the bar of a training and that of what it is trained for may be shown at once,
    and a notebook without a terminal of its own shows no live display.
    """
    listener = _LISTENER.get()
    if listener is not None:
        return _Unseen(listener, iterable, settings)
    if not (os.environ.get(TEXT_ONLY) or "file" in settings):
        from tqdm.auto import tqdm

        return tqdm(iterable, **settings)
    from tqdm import tqdm

    return tqdm(iterable, **{"file": _stream(), **settings})


def say(message: str) -> None:
    """Write a line about what is going on, past any progress bar."""
    listener = _LISTENER.get()
    if listener is not None:
        listener.said(message)
        return
    from tqdm import tqdm

    tqdm.write(message, file=_stream())


class _Unseen:
    """What of a tqdm bar the kit uses, shown nowhere: it tells a listener which share is done."""

    def __init__(self, listener: Listener, iterable: Iterable[Any] | None, settings: dict[str, Any]) -> None:
        self.listener, self.iterable = listener, iterable
        self.n: float = settings.get("initial", 0)
        known = len(iterable) if isinstance(iterable, Sized) else None
        self.total: float | None = settings.get("total", known)
        self.refresh()

    def __iter__(self) -> Iterator[Any]:
        for each in () if self.iterable is None else self.iterable:
            yield each
            self.update()

    def __enter__(self) -> "_Unseen":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        self.n += n
        self.refresh()

    def refresh(self) -> None:
        if self.total:
            self.listener.moved(self.n / self.total)

    def set_description(self, *_: object, **__: object) -> None:
        pass

    set_postfix = set_postfix_str = set_description


def _stream() -> TextIO:
    """Return where such text goes: not among results, but for notebooks, which show standard error as an error."""
    return sys.stdout if type(sys.stdout).__module__.startswith("ipykernel") else sys.stderr
