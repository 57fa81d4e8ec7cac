"""The exhibits that were made, as their JSONs in `figures/` and `results/` say, and what they rest on."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkdkit import paths
from rkdkit.inventory.stored import RECORD, File, StoredRun, is_spec, listed, title
from rkdkit.saved import command_of


@dataclass(frozen=True)
class Made:
    """An exhibit that was made, as its JSON says.

    Attributes
    ----------
    path : the JSON.
    name : the exhibit's name.
    command : how it is made again.
    runs : what each run that it rests on is called, by id.
    specs : the specifications of these runs, as JSON.
    shown : by run and role, the epochs of the networks that were measured or taught, and their digests.
    lists_snapshots : False: an earlier version wrote the JSON, and did not list all of these networks.
    """

    path: Path
    name: str
    command: str
    runs: Mapping[str, str]
    specs: Sequence[Mapping[str, Any]]
    shown: Mapping[tuple[str, str], Mapping[int, str]]
    lists_snapshots: bool

    @property
    def place(self) -> str:
        """The JSON's path below the project's folder."""
        return str(paths.below_project(self.path))

    def differs_from(self, run: StoredRun) -> bool:
        """Return whether a run here has other weights than the exhibit shows."""
        return any(digest != self.shown.get((run.id, r), {}).get(e, digest) for r, e, digest in run.snapshots)


def exhibit_folders() -> list[Path]:
    """Return the folders in which exhibits' JSONs are looked for."""
    return [paths.project_root() / "figures", paths.project_root() / "results"]


def made_exhibits(folders: Iterable[Path] | None = None) -> tuple[list[Made], list[Path]]:
    """Return the exhibits that were made, and the files that cannot be read; JSONs of other things are left out.

    Parameters
    ----------
    folders : where to look, at any depth; None: :func:`exhibit_folders`.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    made, unreadable, seen = [], [], set[Path]()
    for top in dict.fromkeys(exhibit_folders() if folders is None else folders):
        for folder, files in _walked(top, seen):
            for file in files:
                lost = not file.path.exists()  # a link: what is behind it may be on a disk that is not here
                if (lost or file.name.endswith(".json")) and not file.name.startswith("."):
                    try:
                        exhibit = _made(file.path, json.loads(file.path.read_text(encoding="utf-8")))
                    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                        unreadable.append(folder / file.name)
                    else:
                        made += [] if exhibit is None else [exhibit]
    return made, unreadable


def _walked(folder: Path, seen: set[Path]) -> Iterator[tuple[Path, list[File]]]:
    """Yield a folder with its regular files, and likewise every folder below; links are followed, each place once."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    files, below = listed(folder, lambda _: RECORD)
    links = [file for file in files if file.path.is_symlink()]
    linked = [file for file in links if file.path.is_dir()]
    yield folder, [file for file in files if file.kind == RECORD or (file in links and file not in linked)]
    for each in (*below, *linked):
        yield from _walked(each.path, seen)


def _made(path: Path, content: Any) -> Made | None:
    """Return an exhibit from its JSON; None: it is the JSON of something else."""
    if not isinstance(content, dict) or "exhibit" not in content:
        return None
    runs = content["provenance"]["runs"]
    if not all(is_spec(run["spec"]) for run in runs):
        raise ValueError("a run's specification is not one")
    shown: dict[tuple[str, str], dict[int, str]] = {}
    lists_snapshots = "measured" in content
    for network in (*content.get("networks", ()), *content.get("teachers", ())):
        by_epoch = network.get("sha256_by_epoch")
        if by_epoch is None:
            lists_snapshots, by_epoch = False, {network["epoch"]: network["sha256"]}
        epochs = shown.setdefault((network["run"], network["role"]), {})
        epochs |= {int(epoch): str(digest) for epoch, digest in by_epoch.items()}
    return Made(
        path,
        str(content["exhibit"]),
        command_of(path, content),
        {str(run["id"]): title(run["spec"]) for run in runs},
        [run["spec"] for run in runs],
        shown,
        lists_snapshots,
    )
