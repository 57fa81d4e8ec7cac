"""Saving an exhibit as picture, numbers and provenance."""

import io
import re
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from rkdkit import executors, exhibits, methods, paths, saved
from rkdkit.autoattack import AutoAttack
from rkdkit.claims import Claim, as_family, family, family_in_words, report
from rkdkit.measurements import Measurement
from rkdkit.methods import own
from rkdkit.methods.table import BUILT_IN
from rkdkit.progress import say
from rkdkit.provenance import code_digest, environment
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import RunSpec, canonical_json
from rkdkit.store import StoreError
from rkdkit.tasks import Context, Task
from rkdkit.trainings import Run, Train

_CHOSEN_ON = {
    "val": "epochs chosen on held-out images",
    "test": "epochs chosen on the test images",
    "last": "where one epoch stands for a network, it is the last",
}

ALONE = "For times to compare, run this notebook alone."
"""What the caption of an exhibit that measures times says; so does its notebook."""
_VERSIONS = ("rkdkit", "torch")
"""The packages whose versions a caption names."""


def save(
    setup: Setup, figure: Figure, numbers: pd.DataFrame, claims: Sequence[Claim] = (), *, note: str = ""
) -> list[Path]:
    """Write `<output_dir>/<name>.png`, `.csv` (the numbers drawn) and `.json` (claims and provenance).

    The picture is written in all of `setup.formats`.

    If this is interrupted, the earlier three files are there, or three that `saved.read_exhibit` refuses.
    The runs, attacks and images that the exhibit rests on are taken from the tasks requested since `setup` was made.

    Parameters
    ----------
    setup : the exhibit's parameters and requested tasks.
    figure : the figure; a caption with profile, data, network and seeds is added below it.
    numbers : the numbers drawn.
    claims : the paper's claims, checked; their verdicts are corrected as one family.
    note : sentences for the caption, about this exhibit's drawing.

    Raises
    ------
    StoreError
        If a file cannot be written, or an answer's or a run's file is damaged.
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
        "measured_with": _environments(setup.asked.tasks, context),
        "notebook": code_digest(notebook) if notebook.is_file() else None,
        "training_time_s": round(sum(run.training_seconds for run in runs), 1),
        "runs": [_run(run) for run in runs],
        **_own_methods(runs),
    }
    summary = {
        "exhibit": setup.name,
        "paper": setup.exhibit.paper,
        "profile": setup.profile.name,
        **(_scale(setup) if setup.exhibit.needs_data else {}),
        **({"own": setup.own} if setup.own else {}),
        "measured": _measured(measured),
        "teachers": _networks([Snapshot(t.run, t.role, t.epoch or 0) for t in guides if t.run is not None], context),
        "networks": _networks([snapshot for task in measured for snapshot in task.snapshots], context),
        "claims": [claim.to_json() for claim in as_family(claims)],
        "family": family(claims, setup.name),
        "provenance": provenance,
    }
    judged = family_in_words(claims, setup.name)
    lines = [*_caption(setup, measured, note), *filter(None, [judged]), _made_by(provenance)]
    file = setup.output_dir / f"{setup.name}.json"
    written = _write(file, figure, "\n".join(lines), numbers, summary, setup.formats)
    say(f"{_where(setup)}:\n  " + "\n  ".join(map(str, written)))
    return written


def at_quick(name: str) -> str:
    """Return what the picture in `figures/quick` shows of the paper's claims, as text made from its JSON.

    That is the committed picture until the exhibit is made again at `quick`. If its files are not there, or do not
    belong together, the text says so: the notebook that calls this goes on and makes them again.

    Parameters
    ----------
    name : the exhibit's name.
    """
    try:
        made = saved.read_exhibit(paths.output_folder("quick") / f"{name}.json")
    except saved.ExhibitFilesError as error:
        return str(error)
    found = report([Claim.from_json(claim) for claim in made["claims"]])
    scale = ""
    if "dataset" in made:  # an exhibit without data has no scale
        trained = "" if name in exhibits.WITHOUT_SEEDS else f", {_number_of(made['seeds'])}"
        changed = "".join(f"; {field} {value}" for field, value in made["overrides"].items())
        scale = f" ({made['dataset']}{trained}{changed})"
    return f"For comparison, in figures/quick/{name}.png{scale}:\n\n{textwrap.indent(found, '  ')}"


def _number_of(seeds: Sequence[int]) -> str:
    """Return how many seeds there are, and which: "one seed: 0", "3 seeds: 0 to 2"."""
    return f"one seed: {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds: {seeds[0]} to {seeds[-1]}"


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
    training = max((len(task.images) for task in measured if task.images.part == "train"), default=0)
    if training and images.part != "train":
        tried.append(f"Measured on {training:,} of the training images, too.")
    sentences = [*tried, *notes, f"Data: {setup.dataset.source}."]
    lines = [f"{asked}; {_CHOSEN_ON[setup.profile.select_on]}.", " ".join(filter(None, sentences))]
    return lines if says is None else [*lines, says(setup)]


def _most(images: Sequence[Images]) -> Images:
    """Return the images that a caption names: the largest set of test images, if there is one, otherwise of others."""
    return max(dict.fromkeys(images), key=lambda each: (each.part == "test", len(each)))


def _environments(tasks: Iterable[Task], context: Context) -> list[dict[str, Any]]:
    """Return each environment once in which an answer in the store was measured; those that chose epochs count, too."""
    found = [each for task in tasks if isinstance(task, Measurement) for each in task.environments(context)]
    return list({canonical_json(each): each for each in found}.values())


def _made_by(provenance: Mapping[str, Any]) -> str:
    """Return the caption's last line: today's versions, other versions that were used, and the devices.

    Where answers were measured is said only if networks were trained elsewhere.
    """
    made_with, measured_with = provenance["made_with"], provenance["measured_with"]
    trained_with = [environment for run in provenance["runs"] for environment in run["trained_with"]]
    others = [
        *_others("answers measured", measured_with, made_with),
        *_others("networks trained", trained_with, made_with),
    ]
    text = ", ".join(f"{name} {made_with[name]}" for name in _VERSIONS)
    text += f" ({'; '.join(others)})" if others else ""
    trained_on, measured_on = _devices(trained_with), _devices(measured_with)
    text += f"; trained on {trained_on}" if trained_on else ""
    text += f"; measured on {measured_on}" if measured_on not in ("", trained_on) else ""
    return f"{text}."


def _others(what: str, environments: Sequence[Mapping[str, Any]], today: Mapping[str, Any]) -> list[str]:
    """Return a text with the versions other than today's that something was done with; []: there are none."""
    named = []
    for name in _VERSIONS:
        versions = sorted({str(each[name]) for each in environments if name in each} - {str(today[name])})
        named += [f"{name} {' and '.join(versions)}"] if versions else []
    if not named:
        return []
    different = {tuple(each.get(name) for name in _VERSIONS) for each in environments}
    return [f"{'some ' if len(different) > 1 else ''}{what} with {', '.join(named)}"]


def _devices(environments: Sequence[Mapping[str, Any]]) -> str:
    """Return the devices of environments in words; "": there are none."""
    devices = {str(each["device"]) for each in environments if "device" in each}
    return " and ".join(sorted(re.sub(r"\b1 threads$", "1 thread", device) for device in devices))


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


def _own_methods(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the rows of methods that are not the kit's own, and the file of each; nothing: there are none."""
    found = {}
    for name in sorted({methods.row_of(run.spec.method) for run in runs} - set(BUILT_IN)):
        row, source = methods.get(name), own.source_of(name)
        about = {"title": row.title, "source": row.source, "row": row.definition()}
        found[name] = about if source is None else {**about, "file": source.file.name, "sha256": source.sha256}
    return {"own_methods": found} if found else {}


def _networks(snapshots: Sequence[Snapshot], context: Context) -> list[dict[str, Any]]:
    """Return each network once, with the SHA-256 of its snapshots by epoch."""
    listed: dict[tuple[RunSpec, str], dict[str, Any]] = {}
    for snapshot in dict.fromkeys(snapshots):
        spec = snapshot.spec
        about = {"method": spec.method, "network": snapshot.architecture, "role": snapshot.role}
        if spec.reading != "paper":
            about["reading"] = spec.reading
        network = listed.setdefault(
            (spec, snapshot.role), {**about, "seed": spec.seed, "run": spec.id, "sha256_by_epoch": {}}
        )
        network["sha256_by_epoch"][snapshot.epoch] = snapshot.digest(context)
    return list(listed.values())


def _write(
    file: Path, figure: Figure, caption: str, table: pd.DataFrame, summary: Mapping[str, Any], formats: Sequence[str]
) -> list[Path]:
    further = _captioned(figure, caption, file.stem, formats)
    picture = further.pop("png")
    numbers = table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
    try:
        return saved.write_exhibit(file, summary, picture=picture, numbers=numbers, further=further)
    except OSError as error:
        raise StoreError(
            f"Could not write picture, numbers and {file}: {error.strerror or error}. What was trained and measured is "
            "kept. Free some space or make the folder writable, then repeat the command."
        ) from error


def _where(setup: Setup) -> str:
    """Say that the files are written, and why elsewhere than in figures/<profile>, if the notebook did not say so."""
    usual, own = (paths.output_folder(setup.profile.name, changed=each) for each in ({}, setup.changes))
    if setup.output_dir != own or own == usual:
        return "Written"
    return (
        f"Written to a folder of their own, since {', '.join(sorted(setup.changes))} differ from the exhibit's at "
        f"{setup.profile.name}; output_dir names another"
    )


def _captioned(figure: Figure, caption: str, title: str, formats: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """Return the figure in formats, with a small caption below its content; the figure itself is not changed.

    The same figure gives the same bytes at any time.
    """
    figure.canvas.draw()
    lowest = figure.get_tightbbox().y0 - 0.08  # inches
    note = figure.text(0.5, lowest / figure.get_figheight(), caption, ha="center", va="top", fontsize=7, color="0.35")
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")  # the drawing keeps its layout: the caption takes no room from it
    about = {
        "png": {"Title": title, "Description": caption},
        "pdf": {"Title": title, "Subject": caption, "CreationDate": None},
        "svg": {"Title": title, "Description": caption, "Date": None},
    }
    pictures = {}
    with rc_context({"svg.hashsalt": title, "pdf.fonttype": 42}):  # 42: letters as publishers want them
        for name in formats:
            picture = io.BytesIO()
            figure.savefig(picture, format=name, bbox_inches="tight", metadata=about[name])
            pictures[name] = picture.getvalue()
    note.remove()
    figure.set_layout_engine(layout)
    return pictures
