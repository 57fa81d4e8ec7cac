"""Progress of long work: a widget in JupyterLab, a line of text elsewhere, with the time left."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

TEXT_ONLY = "RKDKIT_TEXT_PROGRESS"
"""Set in the environment of a headless notebook, whose text streams reach a terminal and whose widgets do not."""


def track(iterable: Iterable[Any] | None = None, **settings: Any) -> Any:
    """Return a progress bar with the time left; `settings` are tqdm's own.

    Text by tqdm rather than by `rich`: the bar of a training and that of what it is trained for may be shown at once,
    and a notebook without a terminal of its own shows no live display.
    """
    if not (os.environ.get(TEXT_ONLY) or "file" in settings):
        from tqdm.auto import tqdm

        return tqdm(iterable, **settings)
    from tqdm import tqdm

    return tqdm(iterable, **{"file": _stream(), **settings})


def say(message: str) -> None:
    """Write a line about what is going on, past any progress bar."""
    from tqdm import tqdm

    tqdm.write(message, file=_stream())


def _stream() -> TextIO:
    """Return where such text goes: not among results, but for notebooks, which show standard error as an error."""
    return sys.stdout if type(sys.stdout).__module__.startswith("ipykernel") else sys.stderr
