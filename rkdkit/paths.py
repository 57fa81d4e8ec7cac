"""Where the project, its data and its store of runs lie."""

import os
from pathlib import Path

_MARK = 'name = "rkdkit"'


def project_root() -> Path:
    """Return the checkout that the working directory lies in, else the one this package lies in, else the cwd.

    So a notebook finds the same folders from the repository's root, from ``notebooks/`` and from elsewhere.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parent.parent):
        settings = folder / "pyproject.toml"
        if settings.is_file() and _MARK in settings.read_text(encoding="utf-8"):
            return folder
    return here


def data_folder() -> Path:
    """Return where datasets are looked for: $RKDKIT_DATA, or ``data/`` in the project's root."""
    return Path(os.environ.get("RKDKIT_DATA") or project_root() / "data")


def store_folder() -> Path:
    """Return where trained runs are kept: $RKDKIT_STORE, or ``store/`` in the project's root."""
    return Path(os.environ.get("RKDKIT_STORE") or project_root() / "store")
