"""The exhibits: one module per notebook, of the same name, has its scale, its measurements and the paper's claims.

The `EXHIBIT` of each module says how its scale differs from a profile's.
"""

import importlib
import pkgutil
from typing import Any

from rkdkit import checks, mirror
from rkdkit.setup import Exhibit, Setup, prepare

__all__ = ["NAMES", "Exhibit", "Setup", "get", "setup"]

NAMES = tuple(module.name for module in pkgutil.iter_modules(__path__))
"""The names of all exhibits."""


def get(name: str) -> Exhibit:
    """Return the `EXHIBIT` of an exhibit's module.

    Raises
    ------
    UnknownNameError
        If there is no such exhibit.
    """
    checks.one_of("exhibit", name, NAMES)
    exhibit: Exhibit = importlib.import_module(f"{__name__}.{name}").EXHIBIT
    return exhibit


def setup(name: str, profile: str, **parameters: Any) -> Setup:
    """Turn a notebook's parameters into a checked :class:`Setup`, before any work starts.

    Parameters
    ----------
    name : the exhibit's name, which is also its notebook's.
    profile, parameters : as `setup.prepare`: `seed`, `n_seeds`, `output_dir` and any field of a profile.

    Raises
    ------
    UnknownNameError, ValueError, DataNotFoundError
        As `setup.prepare`.
    MirrorError
        If there is a mirror, and the exhibit's JSON, which says which networks may be fetched, cannot be read.
    """
    made = prepare(name, get(name), profile, **parameters)
    if (source := mirror.current()) is not None:
        source.hold_to(made.output_dir / f"{name}.json")
    return made
