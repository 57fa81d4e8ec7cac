"""The exhibits: one module per notebook, of the same name, has its scale, its measurements and the paper's claims.

The `EXHIBIT` of each module says how its scale differs from a profile's.
"""

import dataclasses
import importlib
import pkgutil
import sys
from typing import Any

from rkdkit import checks, kernel, mirror, saved
from rkdkit.setup import Exhibit, Setup, prepare

__all__ = ["NAMES", "WITHOUT_SEEDS", "Exhibit", "Setup", "committed_seeds", "get", "setup"]

NAMES = tuple(module.name for module in pkgutil.iter_modules(__path__))
"""The names of all exhibits."""

WITHOUT_SEEDS = {
    "fig2_method_overview": "it draws the table of methods and trains nothing",
    "fig13_sample_difficulty": "its one ranking is made by n_rankers trainings, each with a seed of its own",
    "tab11_model_cost": "it counts and times networks with random weights and trains nothing",
}
"""The exhibits for which several seeds make no sense, and why; all others take `n_seeds`."""

FIVE, THREE = 5, 3
"""With how many seeds exhibits are committed in `figures/quick`: tables and PeerAiD's Figures 1 and 3; others."""


def committed_seeds(name: str) -> int | None:
    """Return with how many seeds, from 0 on, an exhibit is to be in `figures/quick`; None: `WITHOUT_SEEDS`.

    On the command line, ``-p n_seeds=committed`` means this number for each exhibit.

    Raises
    ------
    UnknownNameError
        If there is no such exhibit.
    """
    checks.one_of("exhibit", name, NAMES)
    if name in WITHOUT_SEEDS:
        return None
    return FIVE if name.startswith(("tab", "fig1_", "fig3_")) else THREE


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


def setup(name: str, profile: str, *, formats: object = None, **parameters: Any) -> Setup:
    """Turn a notebook's parameters into a checked :class:`Setup`, before any work starts.

    In a Jupyter kernel, a refusal is shown as its message, without a traceback.

    Parameters
    ----------
    name : the exhibit's name, which is also its notebook's.
    formats : in which the picture is saved, as `saved.formats`: "png,pdf,svg"; None: as the environment says.
    profile, parameters : as `setup.prepare`: `seed`, `n_seeds`, `output_dir`, `methods` and any field of a profile. The
        notebook's own parameters (`Exhibit.own`), which are not handed over, are looked up where this is called.

    Raises
    ------
    UnknownNameError, ValueError, DataNotFoundError
        As `setup.prepare`; also if `n_seeds` is given for an exhibit of `WITHOUT_SEEDS`.
    MirrorError
        If there is a mirror, and the exhibit's JSON, which says which networks may be fetched, cannot be read.
    """
    with kernel.short_refusals():
        exhibit = get(name)
        if name in WITHOUT_SEEDS and parameters.get("n_seeds", 1) != 1:
            raise ValueError(f"This exhibit takes no n_seeds: {WITHOUT_SEEDS[name]}. Leave it out.")
        called_from = sys._getframe(1).f_globals
        own = {each: called_from[each] for each in exhibit.own if each in called_from}
        pictures = saved.formats(formats)
        made = prepare(name, exhibit, profile, **parameters, own=own)
        made = dataclasses.replace(made, formats=pictures)
        if (source := mirror.current()) is not None:
            source.hold_to(made.output_dir / f"{name}.json")
    return made
