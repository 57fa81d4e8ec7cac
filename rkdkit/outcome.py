"""What came of running notebooks: the files that they saved, and what these say together."""

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rkdkit import claims, paths
from rkdkit.drawing import Notebook

Stamps = Mapping[Path, tuple[int, int]]
"""Files, and what of each changes when it is written again."""


@dataclass(frozen=True)
class _Saved:
    """What the JSON of an exhibit says: the ids of its runs, and the verdicts on its claims."""

    runs: Sequence[str]
    verdicts: Sequence[str]


def saved(notebooks: Iterable[Notebook]) -> Stamps:
    """Return the JSON files that are now in the folders in which notebooks save their exhibits."""
    stamps = {}
    for folder in {_folder(each) for each in notebooks}:
        for file in folder.glob("*.json"):
            with suppress(OSError):  # it has just been deleted
                found = file.stat()
                stamps[file] = (found.st_ino, found.st_mtime_ns)
    return stamps


def told(made: Sequence[Notebook], before: Stamps, began: float) -> Iterator[str]:
    """Yield what a user wants to know after notebooks were run: files under unexpected names, and a summary.

    Parameters
    ----------
    made : the notebooks that ran to their end.
    before : :func:`saved`, before they were run.
    began : `time.time()` of that moment.
    """
    new = {file for file, stamp in saved(made).items() if before.get(file) != stamp}
    yield from _under_other_names(made, new)
    exhibits = [each for each in map(_read, sorted(new)) if each is not None]
    if exhibits:
        yield _summary(exhibits, began)


def _folder(notebook: Notebook) -> Path:
    given = notebook.parameters
    return paths.output_folder(str(given["profile"]), given.get("output_dir"))


def _under_other_names(made: Iterable[Notebook], new: Collection[Path]) -> Iterator[str]:
    """Yield a line for each notebook that saved nothing under its own name.

    Parameters
    ----------
    made : the notebooks.
    new : the JSON files that were written.
    """
    own = {each.name: _folder(each) / f"{each.name}.json" for each in made}
    others = sorted(set(new) - {*own.values()})
    for name, file in own.items():
        if file not in new:
            there = [str(other) for other in others if other.parent == file.parent]
            what = f"it saved {', '.join(there)}" if there else f"it saved nothing in {file.parent}"
            yield (
                f"{name}: {what}, and no {file.name}. A file has the name that the notebook calls exhibits.setup with, "
                "and is written by figures.save."
            )


def _read(file: Path) -> _Saved | None:
    """Return what an exhibit's JSON says; None: the file is of another kind."""
    try:
        found = json.loads(file.read_bytes())
        runs, judged = found["provenance"]["runs"], found["claims"]
        return _Saved([str(run["id"]) for run in runs], [str(claim["verdict"]) for claim in judged])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _summary(exhibits: Sequence[_Saved], began: float) -> str:
    """Say what a run of several exhibits came to; `began` is its `time.time()`."""
    asked = [run for exhibit in exhibits for run in exhibit.runs]
    different, trained = set(asked), _trained_since(began)
    found = Counter(verdict for exhibit in exhibits for verdict in exhibit.verdicts)
    return (
        f"Exhibits: {len(exhibits)}, in {(time.time() - began) / 60:.1f} minutes. Trained networks asked for: "
        f"{len(asked)}; different ones: {len(different)}; trained now: {len(different & trained)}. Claims: "
        + "; ".join(f"{verdict}: {found[verdict]}" for verdict in (claims.HOLDS, claims.FAILS, claims.OPEN))
        + "."
    )


def _trained_since(moment: float) -> set[str]:
    """Return the ids of the runs that were trained at or after a moment, given as by `time.time()`."""
    records = (paths.store_folder() / "runs").glob("*/run.json")
    return {record.parent.name.rpartition("-")[2] for record in records if record.stat().st_mtime >= moment}
