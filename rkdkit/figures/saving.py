"""Saving an exhibit as picture, numbers and provenance."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rkdkit import executors, paths
from rkdkit.autoattack import AutoAttack
from rkdkit.claims import Claim, report
from rkdkit.measurements import Measurement
from rkdkit.progress import say
from rkdkit.provenance import code_digest, environment
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import RunSpec
from rkdkit.store import write_atomically
from rkdkit.tasks import Context
from rkdkit.trainings import Run, Train

_CHOSEN_ON = {
    "val": "epochs chosen on held-out images",
    "test": "epochs chosen on the test images",
    "last": "where one epoch stands for a network, it is the last",
}

ALONE = "For times to compare, run this notebook alone."
"""What the caption of an exhibit that measures times says; so does its notebook."""


def save(
    setup: Setup, figure: Figure, numbers: pd.DataFrame, claims: Sequence[Claim] = (), *, note: str = ""
) -> list[Path]:
    """Write `<output_dir>/<name>.png`, `.csv` (the numbers drawn) and `.json` (claims and provenance).

    The runs, attacks and images that the exhibit rests on are taken from the tasks requested since `setup` was made.

    Parameters
    ----------
    setup : the exhibit's parameters and requested tasks.
    figure : the figure; a caption with profile, data, network and seeds is added below it.
    numbers : the numbers drawn.
    claims : the paper's claims, checked.
    note : sentences for the caption, about this exhibit's drawing.

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    executors.current().before_drawing()
    if setup.exhibit.needs_data and not setup.asked.tasks:
        raise ValueError(
            f"Nothing was trained or measured since {setup.name} was set up, so there is nothing to save. Run all "
            "cells from exhibits.setup on."
        )
    context = executors.current().context
    measured = [t for t in setup.asked.tasks if isinstance(t, Measurement) and t not in setup.asked.deciding]
    runs = _runs(setup, context)
    guides = [t for run in runs for t in run.spec.teachers if t.run is not None]
    notebook = paths.project_root() / "notebooks" / f"{setup.name}.ipynb"
    provenance = {
        "wall_time_s": round(time.perf_counter() - setup.started, 1),
        "made_with": environment(context.device),
        "notebook": code_digest(notebook) if notebook.is_file() else None,
        "training_time_s": round(sum(run.training_seconds for run in runs), 1),
        "runs": [_run(run) for run in runs],
    }
    summary = {
        "exhibit": setup.name,
        "paper": setup.exhibit.paper,
        "profile": setup.profile.name,
        **(_scale(setup) if setup.exhibit.needs_data else {}),
        "measured": _measured(measured),
        "teachers": _networks([Snapshot(t.run, t.role, t.epoch or 0) for t in guides if t.run is not None], context),
        "networks": _networks([snapshot for task in measured for snapshot in task.snapshots], context),
        "claims": [claim.to_json() for claim in claims],
        "provenance": provenance,
    }
    lines = [*_caption(setup, measured, note), _made_by(provenance)]
    return _write(setup.output_dir, figure, "\n".join(lines), numbers, summary)


def at_quick(name: str) -> str:
    """Return what the picture in `figures/quick` shows of the paper's claims, as text made from its JSON.

    That is the committed picture until the exhibit is made again at `quick`.

    Parameters
    ----------
    name : the exhibit's name.
    """
    file = paths.project_root() / "figures" / "quick" / f"{name}.json"
    if not file.is_file():
        return f"figures/quick/{file.name} is not there: make it with `rkdkit figures {name}`."
    made = json.loads(file.read_text(encoding="utf-8"))
    found = report([Claim.from_json(claim) for claim in made["claims"]])
    scale = ""
    if "dataset" in made:  # an exhibit without data has no scale
        seeds = made["seeds"]
        named = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
        changed = "".join(f", {field} {value}" for field, value in made["overrides"].items())
        scale = f" ({made['dataset']}, {named}{changed})"
    return f"In figures/quick/{name}.png{scale}:\n\n{found}"


def _runs(setup: Setup, context: Context) -> list[Run]:
    """Return every run that the exhibit rests on, teachers first, each once."""
    specs = dict.fromkeys(spec for task in setup.asked.tasks for spec in task.specs)
    tasks = dict.fromkeys(each for spec in specs for each in Train(spec).with_teachers())
    found = [task.find(context) for task in tasks]
    return [run for run in found if run is not None]


def _caption(setup: Setup, measured: Sequence[Measurement], note: str) -> list[str]:
    """Return the lines of the caption that describe the parameters, the attacks and the data."""
    says = setup.exhibit.says
    notes = [note, ALONE if setup.exhibit.times else ""]
    if not measured:
        return list(filter(None, [" ".join(filter(None, notes))]))
    attacks = dict.fromkeys(attack for task in measured for attack in task.attacks if attack is not None)
    images = _most([task.images for task in measured])
    asked = setup.described(dict.fromkeys(map(str, attacks)), len(images), images.part)
    tried = [
        f"AutoAttack: {attack.parameters()['implementation']}, first {n:,} images."
        for attack in attacks
        if isinstance(attack, AutoAttack)
        for n in [max(len(task.images) for task in measured if attack in task.attacks)]
    ]
    sentences = [*tried, *notes, f"Data: {setup.dataset.source}."]
    lines = [f"{asked}; {_CHOSEN_ON[setup.profile.select_on]}.", " ".join(filter(None, sentences))]
    return lines if says is None else [*lines, says(setup)]


def _most(images: Sequence[Images]) -> Images:
    """Return the images that a caption names: the largest set of test images, if there is one, otherwise of others."""
    return max(dict.fromkeys(images), key=lambda each: (each.part == "test", len(each)))


def _made_by(provenance: Mapping[str, Any]) -> str:
    """Return the caption's last line: the versions, and the devices that the networks were trained on."""
    made_with = provenance["made_with"]
    devices = sorted({trained["device"] for run in provenance["runs"] for trained in run["trained_with"]})
    trained_on = f"; trained on {' and '.join(devices)}" if devices else ""
    return f"rkdkit {made_with['rkdkit']}, torch {made_with['torch']}{trained_on}."


def _scale(setup: Setup) -> dict[str, Any]:
    """Return the scale at which an exhibit was made."""
    return {
        "overrides": setup.overrides,
        "dataset": setup.profile.dataset,
        "data_source": setup.dataset.source,
        "network": setup.profile.student,
        "eps": setup.profile.test_attack.eps,
        "select_on": setup.profile.select_on,
        "seeds": list(setup.seeds),
    }


def _measured(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return what was measured: kind of measurement, attack, dataset, part of it, and number of images."""
    lines = [
        {
            "measurement": type(task).__name__,
            "attack": None if attack is None else {"name": str(attack), **attack.parameters()},
            "dataset": task.images.dataset,
            "part": task.images.part,
            "n": len(task.images),
        }
        for task in measured
        for attack in task.attacks
    ]
    return [line for i, line in enumerate(lines) if line not in lines[:i]]


def _run(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "id": run.spec.id,
        "run": str(run.spec),
        "spec": run.spec.to_json(),
        "data": record["data"],
        "guided_by": record["guided_by"],
        "trained_with": record["environments"],
        "training_time_s": round(run.training_seconds, 1),
    }


def _networks(snapshots: Sequence[Snapshot], context: Context) -> list[dict[str, Any]]:
    """Return each network once, with the SHA-256 of its snapshots by epoch."""
    listed: dict[tuple[RunSpec, str], dict[str, Any]] = {}
    for snapshot in dict.fromkeys(snapshots):
        spec = snapshot.spec
        about = {"method": spec.method, "network": snapshot.architecture, "role": snapshot.role}
        network = listed.setdefault(
            (spec, snapshot.role), {**about, "seed": spec.seed, "run": spec.id, "sha256_by_epoch": {}}
        )
        network["sha256_by_epoch"][snapshot.epoch] = snapshot.digest(context)
    return list(listed.values())


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
    """Return the figure as PNG with a small caption below its content; the figure itself is not changed."""
    figure.canvas.draw()
    lowest = figure.get_tightbbox().y0 - 0.08  # inches
    note = figure.text(0.5, lowest / figure.get_figheight(), caption, ha="center", va="top", fontsize=7, color="0.35")
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")  # the drawing keeps its layout: the caption takes no room from it
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", metadata={"Title": title, "Description": caption})
    note.remove()
    figure.set_layout_engine(layout)
    return picture.getvalue()
