"""Progress of long work, as a widget in JupyterLab and as text elsewhere."""

import os
import sys
from collections.abc import Iterable
from typing import Any

TEXT_ONLY = "RKDKIT_TEXT_PROGRESS"
"""Set in the environment of a headless notebook, whose text streams reach a terminal and whose widgets do not."""


def track(iterable: Iterable[Any] | None = None, **settings: Any) -> Any:
    """Return a progress bar with the time left; `settings` are tqdm's own."""
    if os.environ.get(TEXT_ONLY):
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm(iterable, **settings)


def say(message: str) -> None:
    """Write a line about what is going on, past any progress bar, to standard error."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)
