"""What lies in the store: runs, answers, locks, marks, and what is not the store's."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from rkdkit import paths, records
from rkdkit.files import read
from rkdkit.identity import canonical_json, digest_of

SNAPSHOT, STATE, RECORD, ANSWER = "snapshots", "states", "records", "answers"
LOCK, MARK, TEMPORARY, FOREIGN = "locks", "marks", "temporary files", "not the store's"
KINDS = (SNAPSHOT, STATE, RECORD, ANSWER, LOCK, MARK, TEMPORARY, FOREIGN)
"""The kinds of files."""

_NAMES = {
    "run": {
        SNAPSHOT: re.compile(r"(?!state-)[a-z_]+-\d{4,}\.safetensors"),  # first, since there are most of them
        RECORD: re.compile(r"(run|fetched)\.json"),  # the second says which mirror the first is from
        STATE: re.compile(r"state-\d{4,}\.safetensors"),
        LOCK: re.compile("lock"),  # where earlier versions had it
    },
    "answers": {ANSWER: re.compile(r"[0-9a-f]{16}\.json")},
    "locks": {LOCK: re.compile(r"[0-9a-f]{16}\.lock")},
    "marks": {MARK: re.compile("[0-9a-f]{32}")},
}
_FOLDERS = ("runs", "answers", "locks", "marks")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_RUN_FOLDER = re.compile(r".*-([0-9a-f]{16})", re.DOTALL)


class File(NamedTuple):
    """A file in the store, as it was when the store was looked through.

    Attributes
    ----------
    folder, name : where it is.
    kind : one of `KINDS`; also of what is no regular file, which is `FOREIGN`.
    size : in bytes.
    time : when it was last written, in seconds as `time.time` has them.
    """

    folder: Path
    name: str
    kind: str
    size: int
    time: float

    @property
    def path(self) -> Path:
        """Its path."""
        return self.folder / self.name


@dataclass(frozen=True)
class StoredRun:
    """A run's folder. Its record is read when it is first asked for.

    Attributes
    ----------
    folder : the folder.
    id : the run's id, the end of the folder's name.
    files : all that is in the folder.
    """

    folder: Path
    id: str
    files: tuple[File, ...]

    @property
    def _has_record(self) -> bool:
        return any(file.kind == RECORD and file.path.name == "run.json" for file in self.files)

    @cached_property
    def _read(self) -> tuple[dict[str, Any] | None, str]:
        if not self._has_record:
            return None, "is missing"
        content, problem = read_own(self.folder / "run.json")
        if problem:
            return None, problem
        record = records.of_today(content)
        if not (records.is_record(record) and is_spec(record["spec"])):
            return None, "is no record of a run"
        return record, ""

    @property
    def record(self) -> dict[str, Any] | None:
        """The content of `run.json` in today's form; None: :attr:`problem` says why there is none."""
        return self._read[0]

    @property
    def problem(self) -> str:
        """Why `run.json` cannot be used, in words that follow its name; "": it can."""
        return self._read[1]

    @property
    def title(self) -> str:
        """The run as `str(RunSpec)` calls it; without a record, the folder's name."""
        return self.folder.name if self.record is None else title(self.record["spec"])

    @property
    def finished(self) -> bool:
        """Whether all its epochs are trained."""
        return self.record is not None and self.record["finished"] == self.record["spec"]["epochs"]

    @property
    def progress(self) -> str:
        """How far it is trained: "20 epochs", "7 of 20 epochs", "no record"."""
        if self.record is None:
            return "damaged" if self._has_record else "no record"
        done, epochs = self.record["finished"], self.record["spec"]["epochs"]
        return ("" if self.finished else f"{done} of ") + ("1 epoch" if epochs == 1 else f"{epochs} epochs")

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def time(self) -> float:
        """When its last epoch was finished, in seconds as `time.time` has them; 0: there is no record."""
        times = (file.time for file in self.files if file.kind == RECORD and file.path.name == "run.json")
        return max(times, default=0.0)

    @property
    def devices(self) -> list[str]:
        """The devices that trained it, each once, with their numbers of threads."""
        environments = [] if self.record is None else self.record["environments"]
        return list(dict.fromkeys(each["device"] for each in environments))

    @property
    def snapshots(self) -> Iterator[tuple[str, int, str]]:
        """Each snapshot that the record names: role, epoch, digest."""
        for role, by_epoch in ({} if self.record is None else self.record["snapshots"]).items():
            for epoch, digest in by_epoch.items():
                yield role, int(epoch), digest

    def snapshot_file(self, role: str, epoch: int) -> str:
        """Return the name of a snapshot's file."""
        return f"{role}-{epoch:04d}.safetensors"


@dataclass(frozen=True)
class Inventory:
    """All files of a store.

    Attributes
    ----------
    root : the store's folder.
    runs : the runs' folders.
    answers, locks, marks : the files of these folders.
    foreign : what the store did not write: links, pipes, folders and files with other names, except in runs' folders.
    """

    root: Path
    runs: tuple[StoredRun, ...]
    answers: tuple[File, ...]
    locks: tuple[File, ...]
    marks: tuple[File, ...]
    foreign: tuple[File, ...]

    @property
    def linked(self) -> list[Path]:
        """Links where the store has folders: what is behind them is used for training, but is not in the inventory."""
        named = [file.path for file in self.foreign if file.name in _FOLDERS or _RUN_FOLDER.fullmatch(file.name)]
        return [path for path in named if path.is_symlink()]

    @property
    def files(self) -> Iterator[File]:
        """Every file."""
        for run in self.runs:
            yield from run.files
        yield from (*self.answers, *self.locks, *self.marks, *self.foreign)

    def locks_of(self, run: StoredRun) -> list[Path]:
        """Return the files that whoever trains a run holds locked; they need not exist."""
        return [self.root / "locks" / f"{run.id}.lock", run.folder / "lock"]

    def is_trained_now(self, run: StoredRun) -> bool:
        """Return whether a process holds the run's lock."""
        return any(map(is_held, self.locks_of(run)))

    @cached_property
    def by_spec(self) -> dict[str, list[StoredRun]]:
        """The runs that have a record, by the canonical JSON of their specification."""
        found: dict[str, list[StoredRun]] = {}
        for run in self.runs:
            if run.record is not None:
                found.setdefault(canonical_json(run.record["spec"]), []).append(run)
        return found

    def guides_of(self, spec: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], list[StoredRun]]]:
        """Return a specification's teachers, and for each the runs here that it comes from; [] for a foreign module."""
        return [
            (teacher, [] if teacher["run"] is None else self.by_spec.get(canonical_json(teacher["run"]), []))
            for teacher in spec["teachers"]
        ]


def take(root: Path | None = None, *, answers: bool = True) -> Inventory:
    """Look through a store.

    Parameters
    ----------
    root : its folder; None: `paths.store_folder`. If it does not exist, there is nothing in it.
    answers : False: leave the answers out, which may be many.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    root = paths.store_folder() if root is None else root
    at_top, folders = listed(root, lambda _: FOREIGN)
    names = {folder.name for folder in folders}
    runs, foreign = list[StoredRun](), [*at_top, *(each for each in folders if each.name not in _FOLDERS)]
    # first the answers, then the records: so every network that an answer is about is in a record that is read later
    names -= set() if answers else {"answers"}
    inside = {name: _inside(root / name, name) if name in names else () for name in ("answers", "locks", "marks")}
    if "runs" in names:
        files, folders = listed(root / "runs", lambda _: FOREIGN)
        named = [(folder, _RUN_FOLDER.fullmatch(folder.name)) for folder in folders]
        runs = [look_at(folder.path, name[1]) for folder, name in named if name is not None]
        foreign += [*files, *(folder for folder, name in named if name is None)]
    return Inventory(root, tuple(runs), inside["answers"], inside["locks"], inside["marks"], tuple(foreign))


def look_at(folder: Path, run_id: str) -> StoredRun:
    """Return a run's folder as it is now; `run_id` as :class:`StoredRun`."""
    return StoredRun(folder, run_id, _inside(folder, "run"))


def _inside(folder: Path, what: str) -> tuple[File, ...]:
    """Return what is in a folder of `_NAMES`; a folder in it is not the store's."""

    def kind(name: str) -> str:
        return next((kind for kind, pattern in _NAMES[what].items() if pattern.fullmatch(name)), FOREIGN)

    files, folders = listed(folder, kind)
    return (*files, *folders)


def listed(folder: Path, kind_of: Callable[[str], str]) -> tuple[list[File], list[File]]:
    """Return what is in a folder, by name: its files with links, pipes and the like, and its folders.

    Parameters
    ----------
    folder : if it does not exist, there is nothing in it.
    kind_of : the name of a file -> its kind, of `KINDS`.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # deleted meanwhile
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(File(folder, entry.name, FOREIGN, 0, found.st_mtime))
                    continue
                kind = FOREIGN
                if entry.is_file(follow_symlinks=False):
                    hidden = entry.name.startswith(".")
                    kind = TEMPORARY if hidden and _TEMPORARY.fullmatch(entry.name) else kind_of(entry.name)
                files.append(File(folder, entry.name, kind, found.st_size, found.st_mtime))
    except (FileNotFoundError, NotADirectoryError):
        pass
    return files, folders


def is_held(lock: Path) -> bool:
    """Return whether a process holds a lock; a file that is not there, or is no regular file, is held by nobody."""
    if lock.is_symlink() or not lock.is_file():
        return False
    probe = FileLock(lock, fallback_to_soft=False)
    try:
        probe.acquire(blocking=False)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # in a store of somebody else, or on a file system without such locks
        return False
    probe.release()
    return False


def read_own(path: Path) -> tuple[Any, str]:
    """Return what `store.write_json` wrote, and ""; or None, and what is wrong with the file."""
    try:
        wrapped = json.loads(read(path))
        if wrapped["digest"] == digest_of(wrapped["content"]):
            return wrapped["content"], ""
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, RecursionError):  # RecursionError: it nests too deeply
        pass
    return None, "does not match its own digest"


def is_spec(value: Any) -> bool:
    """Return whether a JSON value has what is read here from a specification, in the right form."""
    if not isinstance(value, dict) or not isinstance(value.get("teachers"), list):
        return False
    texts = all(isinstance(value.get(name), str) for name in ("method", "dataset", "student", "peer"))
    numbers = all(type(value.get(name)) is int for name in ("seed", "epochs", "snapshot_every"))
    averages = all(isinstance(value.get(name, ""), float | int | None) for name in ("swa_start", "ema_decay"))
    return texts and averages and numbers and all(map(_is_teacher, value["teachers"]))


def _is_teacher(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        return False
    if value.get("run") is None:
        return isinstance(value.get("module"), str)
    return type(value.get("epoch")) is int and is_spec(value["run"])


def title(spec: Mapping[str, Any]) -> str:
    """Return what `str(RunSpec)` says, from the specification's JSON."""
    guides = f" from {' and '.join(map(teacher_title, spec['teachers']))}" if spec["teachers"] else ""
    return f"{_label(spec)} {spec['student']} on {spec['dataset']}{guides}, seed {spec['seed']}"


def teacher_title(teacher: Mapping[str, Any]) -> str:
    """Return what `str(Teacher)` says, from the teacher's JSON."""
    run = teacher["run"]
    return str(teacher["module"]) if run is None else f"{_label(run)} {run['student']} at epoch {teacher['epoch']}"


def _label(spec: Mapping[str, Any]) -> str:
    """Return what `RunSpec.label` says."""
    return f"{spec['method']} ({spec['reading']})" if "reading" in spec else str(spec["method"])


def folder_name(spec: Mapping[str, Any], run_id: str) -> str:
    """Return the name of a run's folder, as `Store.run_folder` makes it, from the specification's JSON."""
    name = f"{spec['method']}-{spec['dataset']}-{spec['student']}-seed{spec['seed']}"
    return f"{re.sub('[^A-Za-z0-9+.-]', '_', name[:80])}-{run_id}"


def as_size(n: float) -> str:
    """Return a number of bytes in the unit that suits it: "12 kB", "3.4 GB"."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if n >= 0.9995 * 10**power:
            return f"{n / 10**power:,.3g} {unit}"
    return f"{n:.0f} B"
