"""What came of running notebooks: the files that they saved, and what these say together."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rkdkit import claims, paths
from rkdkit.drawing import Notebook
from rkdkit.origin import origin_of
from rkdkit.saved import ExhibitFilesError, read_exhibit

Stamps = Mapping[Path, tuple[int, int]]
"""Files, and what of each changes when it is written again."""


def saved(notebooks: Iterable[Notebook]) -> Stamps:
    """Return the JSON files that are now in the folders in which notebooks save their exhibits."""
    stamps = {}
    for folder in {folder for each in notebooks for folder in _folders(each)}:
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
    new = _new(made, before)
    yield from _under_other_names(made, new)
    own, exhibits = {each.name for each in made}, list[dict[str, Any]]()
    for file in sorted(new):
        try:
            exhibits.append(read_exhibit(file))
        except ExhibitFilesError as error:
            if file.stem in own:  # a notebook may write other JSON files, too
                yield str(error)
    if exhibits:
        yield _summary(exhibits, began)


def is_broken(notebook: Notebook, before: Stamps) -> bool:
    """Return whether a notebook saved files that do not belong together; `before` as :func:`told`."""
    try:
        return not all(read_exhibit(file) for file in _new([notebook], before) if file.stem == notebook.name)
    except ExhibitFilesError:
        return True


def _new(notebooks: Iterable[Notebook], before: Stamps) -> set[Path]:
    """Return the JSON files that notebooks saved; `before` as :func:`told`."""
    return {file for file, stamp in saved(notebooks).items() if before.get(file) != stamp}


def _folders(notebook: Notebook) -> list[Path]:
    """Return the folders in which a notebook may save: which changes have one of their own, only the notebook knows."""
    given = notebook.parameters
    folder = paths.output_folder(str(given["profile"]), given.get("output_dir"))
    return [folder] if given.get("output_dir") else [folder, *sorted((folder / paths.CHANGED).glob("*"))]


def _under_other_names(made: Iterable[Notebook], new: Collection[Path]) -> Iterator[str]:
    """Yield a line for each notebook that saved nothing under its own name.

    Parameters
    ----------
    made : the notebooks.
    new : the JSON files that were written.
    """
    folders = {each.name: _folders(each) for each in made}
    others = sorted(file for file in new if file.stem not in folders)
    for name, places in folders.items():
        if not any(file.stem == name for file in new):
            there = [str(other) for other in others if other.parent in places]
            what = f"it saved {', '.join(there)}" if there else f"it saved nothing in {places[0]}"
            yield (
                f"{name}: {what}, and no {name}.json. A file has the name that the notebook calls exhibits.setup with, "
                "and is written by figures.save."
            )


def _summary(exhibits: Sequence[Mapping[str, Any]], began: float) -> str:
    """Say what a run of several exhibits came to, of which the JSONs are given; `began` is its `time.time()`."""
    asked = [run["id"] for exhibit in exhibits for run in exhibit["provenance"]["runs"]]
    different, trained = set(asked), _trained_since(began)
    found = Counter(claim["verdict"] for exhibit in exhibits for claim in exhibit["claims"])
    return (
        f"Exhibits: {len(exhibits)}, in {(time.time() - began) / 60:.1f} minutes. Trained networks asked for: "
        f"{len(asked)}; different ones: {len(different)}; trained now: {len(different & trained)}. Claims: "
        + "; ".join(f"{verdict}: {found[verdict]}" for verdict in (claims.HOLDS, claims.FAILS, claims.OPEN))
        + "."
    )


def _trained_since(moment: float) -> set[str]:
    """Return the ids of the runs that were trained here at or after a moment, given as by `time.time()`."""
    records = (paths.store_folder() / "runs").glob("*/run.json")
    new = [record.parent for record in records if record.stat().st_mtime >= moment]
    return {folder.name.rpartition("-")[2] for folder in new if origin_of(folder) is None}
