"""Where a run comes from that was not trained here. The command line asks for it, so this imports nothing heavy."""

import hashlib
import json
from pathlib import Path

FILE = "fetched.json"
"""The file in a run's folder that says from where its record was fetched; `mirror.mark_origin` writes it."""


def origin_of(folder: Path) -> str | None:
    """Return the address that a run was fetched from; None: it was trained here.

    Parameters
    ----------
    folder : the run's folder in the store.
    """
    if not all((folder / name).is_file() for name in (FILE, "run.json")):
        return None
    try:
        said = json.loads((folder / FILE).read_bytes())["content"]
        record = hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
        # a run that was trained here afterwards has another record
        return str(said["url"]) if said["record"] == record else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
