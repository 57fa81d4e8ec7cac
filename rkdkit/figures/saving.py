"""Saving an exhibit as picture, numbers and provenance."""

import io
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rkdkit import checks
from rkdkit.attacks import Attack
from rkdkit.autoattack import AutoAttack
from rkdkit.claims import Claim
from rkdkit.profiles import PROFILES, Setup, output_folder
from rkdkit.progress import say
from rkdkit.provenance import environment
from rkdkit.runs import Run, Snapshot, default_device
from rkdkit.store import write_atomically

Networks = Mapping[str, Sequence[Snapshot]] | Sequence[Snapshot]
"""Snapshots, or those of several networks by name, as `Students.chosen`."""

_CHOSEN_ON = {
    "val": "epochs chosen on held-out images",
    "test": "epochs chosen on the test images",
    "last": "where one epoch stands for a network, it is the last",
}


def save(
    name: str,
    figure: Figure,
    table: pd.DataFrame,
    claims: Sequence[Claim],
    setup: Setup,
    *,
    runs: Sequence[Run] = (),
    teachers: Networks = (),
    networks: Networks = (),
    note: str = "",
    measured_by: Mapping[str, Attack | None] | None = None,
    n: int | None = None,
    part: str = "test",
) -> list[Path]:
    """Write `<output_dir>/<name>.png`, `.csv` (the numbers drawn) and `.json` (claims and provenance).

    Parameters
    ----------
    name : the exhibit's.
    figure : what was drawn; a caption that names profile, data, network and seeds is set below it.
    table : the numbers drawn.
    claims : the paper's claims, checked.
    setup : what was asked for.
    runs : every run the exhibit rests on; one that comes twice is listed once.
    teachers : the fixed teachers, as chosen from their runs; one that comes twice is listed once.
    networks : what was measured, where an epoch was chosen; likewise.
    note : sentences for the caption, about what this exhibit alone draws.
    measured_by : the attacks by metric, None for natural images; None: the profile's `test_attack` alone. The caption
        names them, and says which AutoAttack it was, and how many images it was tried on.
    n : how many images were measured; None: the profile's test images.
    part : of which part of the data they are, "test" or "train".

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    usual = setup.profile.test_attack
    by = {str(usual).lower(): usual} if measured_by is None else measured_by
    n = setup.n_test if n is None else n
    provenance = {
        "wall_time_s": round(time.perf_counter() - setup.started, 1),
        **_provenance(list({run.spec.id: run for run in runs}.values())),
    }
    summary = {
        "exhibit": name,
        **_summary(setup, by),
        "teachers": _listed(teachers),
        "networks": _listed(networks),
        "n": n,
        "part": part,
        "claims": [claim.to_json() for claim in claims],
        "provenance": provenance,
    }
    caption = f"{_caption(setup, note, by, n, part)}\n{_made_by(provenance)}"
    return _write(setup.output_dir, figure, caption, table, summary)


def save_drawing(
    name: str, figure: Figure, table: pd.DataFrame, profile: str, output_dir: str | None = None
) -> list[Path]:
    """Write the three files of an exhibit for which nothing is trained or measured.

    Parameters
    ----------
    name, figure, table : as :func:`save`; the caption names the versions alone.
    profile, output_dir : as `profiles.output_folder`.

    Raises
    ------
    UnknownNameError
        If there is no such profile.
    StoreError
        If a file cannot be written.
    """
    checks.one_of("profile", profile, PROFILES)
    provenance = _provenance(())
    summary = {"exhibit": name, "profile": profile, "claims": [], "provenance": provenance}
    return _write(output_folder(profile, output_dir), figure, _made_by(provenance), table, summary)


def _caption(setup: Setup, note: str, by: Mapping[str, Attack | None], n: int, part: str) -> str:
    """Return what was asked for and measured by, and what is to be known of how it was measured."""
    asked = setup.described(dict.fromkeys(str(attack) for attack in by.values() if attack is not None), n, part)
    tried = [
        f"AutoAttack: {attack.parameters()['implementation']}, first {setup.n_of([metric])[metric]:,} images."
        for metric, attack in by.items()
        if isinstance(attack, AutoAttack)
    ]
    sentences = [*tried, note, f"Data: {setup.dataset.source}."]
    return f"{asked}; {_CHOSEN_ON[setup.profile.select_on]}.\n{' '.join(filter(None, sentences))}"


def _made_by(provenance: Mapping[str, Any]) -> str:
    """Return the caption's last line: the versions, and on what the networks were trained."""
    made_with = provenance["made_with"]
    devices = sorted({trained["device"] for run in provenance["runs"] for trained in run["trained_with"]})
    trained_on = f"; trained on {' and '.join(devices)}" if devices else ""
    return f"rkdkit {made_with['rkdkit']}, torch {made_with['torch']}{trained_on}."


def _provenance(runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "made_with": environment(default_device()),
        "training_time_s": round(sum(run.training_seconds for run in runs), 1),
        "runs": [
            {
                "id": run.spec.id,
                "run": str(run.spec),
                "spec": run.spec.to_json(),
                "data": run.record["data"],
                "guided_by": run.record["guided_by"],
                "trained_with": run.record["environments"],
                "training_time_s": round(run.training_seconds, 1),
            }
            for run in runs
        ],
    }


def _summary(setup: Setup, by: Mapping[str, Attack | None]) -> dict[str, Any]:
    """Return what was asked for and measured by."""
    return {
        "profile": setup.profile.name,
        "overrides": setup.overrides,
        "dataset": setup.profile.dataset,
        "data_source": setup.dataset.source,
        "network": setup.profile.student,
        "eps": setup.profile.test_attack.eps,
        "attacks": {
            metric: None if attack is None else {"name": str(attack), **attack.parameters()}
            for metric, attack in by.items()
        },
        "select_on": setup.profile.select_on,
        "seeds": list(setup.seeds),
    }


def _listed(networks: Networks) -> list[dict[str, Any]]:
    of_seeds = networks.values() if isinstance(networks, Mapping) else [networks]
    return list(
        {
            (snapshot.spec.id, snapshot.role, snapshot.epoch): {
                "method": snapshot.spec.method,
                "network": snapshot.architecture,
                "role": snapshot.role,
                "epoch": snapshot.epoch,
                "seed": snapshot.spec.seed,
                "run": snapshot.spec.id,
                "sha256": snapshot.digest,
            }
            for snapshot in itertools.chain.from_iterable(of_seeds)
        }.values()
    )


def _write(folder: Path, figure: Figure, caption: str, table: pd.DataFrame, summary: Mapping[str, Any]) -> list[Path]:
    name = summary["exhibit"]
    contents = {
        "png": _captioned_png(figure, caption, name),
        "csv": table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode(),
        "json": (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode(),
    }
    files = [folder / f"{name}.{suffix}" for suffix in contents]
    for file, content in zip(files, contents.values(), strict=True):
        write_atomically(file, content)
    say("Written:\n  " + "\n  ".join(map(str, files)))
    return files


def _captioned_png(figure: Figure, caption: str, title: str) -> bytes:
    """Return the figure as PNG with a small caption below whatever it shows now; the figure itself stays as it is."""
    figure.canvas.draw()
    lowest = figure.get_tightbbox().y0 - 0.08  # inches
    note = figure.text(0.5, lowest / figure.get_figheight(), caption, ha="center", va="top", fontsize=7, color="0.35")
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")  # what is drawn stays where it is, the caption takes no room from it
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", metadata={"Title": title, "Description": caption})
    note.remove()
    figure.set_layout_engine(layout)
    return picture.getvalue()
