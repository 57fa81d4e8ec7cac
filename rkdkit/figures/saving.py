"""Saving an exhibit as picture, numbers and provenance."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rkdkit.attacks import Attack
from rkdkit.claims import Claim
from rkdkit.profiles import Setup
from rkdkit.progress import say
from rkdkit.provenance import environment
from rkdkit.runs import Run, Snapshot, default_device
from rkdkit.store import write_atomically

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
    runs: Sequence[Run],
    teachers: Sequence[Snapshot] = (),
    note: str = "",
    networks: Sequence[Snapshot] = (),
    measured_by: Mapping[str, Attack | None] | None = None,
    n: int | None = None,
) -> list[Path]:
    """Write `<output_dir>/<name>.png`, `.csv` (the numbers drawn) and `.json` (claims and provenance).

    Parameters
    ----------
    name : the exhibit's.
    figure : what was drawn; a line naming profile, data, network and seeds is set below it.
    table : the numbers drawn.
    claims : the paper's claims, checked.
    setup : what was asked for.
    runs : every run the exhibit rests on; none: the caption says nothing of data and training.
    teachers : the fixed teachers, as chosen from their runs.
    note : a sentence for the caption, about what this exhibit alone draws.
    networks : what was measured, where an epoch was chosen.
    measured_by : the attacks by metric, None for natural images; None: the profile's `test_attack` alone.
    n : how many images were measured; None: the profile's test images.

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    device = default_device()
    by = {str(setup.profile.test_attack).lower(): setup.profile.test_attack} if measured_by is None else measured_by
    made_with = environment(device)
    devices = sorted({trained["device"] for run in runs for trained in run.record["environments"]})
    by_whom = f"rkdkit {made_with['rkdkit']}, torch {made_with['torch']}"
    caption = f"{note}\n{by_whom}."
    if runs:
        caption = (
            f"{setup}; {_CHOSEN_ON[setup.profile.select_on]}.\n{note} Data: {setup.dataset.source}.\n"
            f"{by_whom}; trained on {' and '.join(devices)}."
        )
    picture = _captioned_png(figure, caption, name)
    provenance = {
        "made_with": made_with,
        "wall_time_s": round(time.perf_counter() - setup.started, 1),
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
    summary: dict[str, Any] = {
        "exhibit": name,
        "profile": setup.profile.name,
        "overrides": setup.overrides,
        "dataset": setup.profile.dataset,
        "data_source": setup.dataset.source,
        "network": setup.profile.student,
        "eps": setup.profile.test_attack.eps,
        "attacks": {metric: None if attack is None else attack.parameters() for metric, attack in by.items()},
        "select_on": setup.profile.select_on,
        "teachers": [_named(snapshot) for snapshot in teachers],
        "networks": [_named(snapshot) for snapshot in networks],
        "seeds": list(setup.seeds),
        "n": setup.n_test if n is None else n,
        "claims": [claim.to_json() for claim in claims],
        "provenance": provenance,
    }
    contents = {
        "png": picture,
        "csv": table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode(),
        "json": (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode(),
    }
    files = [setup.output_dir / f"{name}.{suffix}" for suffix in contents]
    for file, content in zip(files, contents.values(), strict=True):
        write_atomically(file, content)
    say("Written:\n  " + "\n  ".join(map(str, files)))
    return files


def _named(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "method": snapshot.spec.method,
        "network": snapshot.architecture,
        "role": snapshot.role,
        "epoch": snapshot.epoch,
        "seed": snapshot.spec.seed,
        "run": snapshot.spec.id,
        "sha256": snapshot.digest,
    }


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
