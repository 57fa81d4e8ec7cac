"""The folders of the project, its data, its store of runs and its cache."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from rkdkit import checks

_MARK = 'name = "rkdkit"'

CHANGED = "changed"
"""The folder within figures/<profile> of exhibits whose parameters are not the profile's."""

LONGEST = 100
"""How many characters the name of a folder has at most that says which parameters were changed."""

NO_EXHIBITS = ("explore",)
"""The notebooks that are no exhibits: they save no picture."""


def project_root() -> Path:
    """Return the checkout around the working directory, else the one around this package, else the working directory.

    So a notebook finds the same folders from the repository's root, from ``notebooks/`` and from elsewhere.
    """
    here = Path.cwd()
    return next((folder for folder, settings in _candidates(here) if _is_project(settings)), here)


@lru_cache(maxsize=8)
def _candidates(here: Path) -> tuple[tuple[Path, Path], ...]:
    """Return the folders that may be the project's, and the file of settings that each would have."""
    folders = (here, *here.parents, Path(__file__).resolve().parent.parent)
    return tuple((folder, folder / "pyproject.toml") for folder in folders)


def _is_project(settings: Path) -> bool:
    try:
        found = settings.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and _has_mark(settings, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _has_mark(settings: Path, changed: int) -> bool:
    """Return whether a file of settings is this project's; it is read again when it was `changed`, in nanoseconds."""
    del changed
    return _MARK in settings.read_text(encoding="utf-8")


def data_folder() -> Path:
    """Return the folder of datasets: $RKDKIT_DATA, or ``data/`` in the project's root."""
    return Path(os.environ.get("RKDKIT_DATA") or project_root() / "data")


def store_folder() -> Path:
    """Return the folder of trained runs: $RKDKIT_STORE, or ``store/`` in the project's root."""
    return Path(os.environ.get("RKDKIT_STORE") or project_root() / "store")


def cache_folder() -> Path:
    """Return the folder of what can be made again at any time: $RKDKIT_CACHE, or ``cache/`` in the project's root."""
    return Path(os.environ.get("RKDKIT_CACHE") or project_root() / "cache")


def folders_of_environment() -> dict[str, Path]:
    """Return the folders of data, runs and cache, by the environment variables that set them."""
    return {"RKDKIT_DATA": data_folder(), "RKDKIT_STORE": store_folder(), "RKDKIT_CACHE": cache_folder()}


def output_folder(profile: str, output_dir: object = None, changed: Mapping[str, object] | None = None) -> Path:
    """Return the folder of an exhibit's files.

    Parameters
    ----------
    profile : the profile's name.
    output_dir : the notebook's parameter, a text. A relative path begins where one is: in the notebook's folder in
        JupyterLab, in the shell's on the command line. None or "": see `changed`.
    changed : the parameters that are not the profile's, by name. If there are none, the folder is figures/<profile>,
        otherwise one of their own: figures/<profile>/changed/eps=0.15.

    Raises
    ------
    ValueError
        If `output_dir` is no text.
    """
    if not isinstance(output_dir, str | None):
        raise ValueError(f"output_dir must be a text, the path of a folder, not {checks.shown(output_dir)}.")
    if output_dir:
        return Path.cwd() / output_dir
    folder = project_root() / "figures" / profile
    return folder / CHANGED / _name_of(changed) if changed else folder


def _name_of(values: Mapping[str, object]) -> str:
    """Return the name of a folder that says what was set: "epochs=5,eps=0.15".

    Where a value cannot be part of a folder's name as it is, a digest of all values is added.
    """
    plain = {name: plain_value(value) for name, value in values.items()}
    text = ",".join(f"{name}={_written(plain[name])}" for name in sorted(plain))
    name = re.sub(r"[^A-Za-z0-9_.,=+-]+", "-", text)[:LONGEST].strip("-")
    if name == text and not any(isinstance(value, list | dict) for value in plain.values()):
        return name
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


def plain_value(value: object) -> object:
    """Return a value as JSON has it, so that equal ones are equal: a tuple as a list; what JSON has not, as a text."""
    return json.loads(json.dumps(value, default=repr, skipkeys=True))


def _written(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(_written, value))
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def from_here(path: Path) -> Path:
    """Return a path as it is named from the working directory; one that does not lie below it is not changed."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def exhibit_notebooks() -> list[Path]:
    """Return the project's notebooks, without those that are no exhibits; in no order."""
    return [path for path in (project_root() / "notebooks").glob("*.ipynb") if path.stem not in NO_EXHIBITS]


def in_order(name: str) -> list[tuple[int, str]]:
    """Return the key by which names of exhibits are sorted: figures before tables, and 2 before 11."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def below_project(path: Path) -> Path:
    """Return a path as it is named from the project's folder; one that lies elsewhere is not changed."""
    root = project_root()
    return path.relative_to(root) if path.is_relative_to(root) else path
