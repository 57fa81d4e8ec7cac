"""What of the store can be freed: what no exhibit rests on, and what killed processes left."""

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rkdkit.files import LEFTOVER, lacks_locks
from rkdkit.identity import canonical_json, digest_of
from rkdkit.inventory.made import Made
from rkdkit.inventory.stored import (
    ANSWER,
    LOCK,
    MARK,
    RECORD,
    SNAPSHOT,
    STATE,
    TEMPORARY,
    File,
    Inventory,
    StoredRun,
    is_held,
    look_at,
    read_own,
)

A_MONTH = 30 * 24 * 3600.0
"""Seconds after which a mark is a killed process's: no call lasts so long."""

_WEIGHTS = re.compile(r'"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Prunable:
    """What can be freed.

    Attributes
    ----------
    kept : the runs that stay.
    busy : those of them that are being trained now: nothing of them is touched.
    runs : runs that no exhibit rests on, to be deleted whole.
    answers : about networks of these runs alone, or of runs that are gone.
    inside : of runs that stay: snapshots of epochs that no exhibit shows, and leftovers.
    leftovers : what killed processes left elsewhere.
    """

    kept: tuple[StoredRun, ...]
    busy: tuple[StoredRun, ...]
    runs: tuple[StoredRun, ...]
    answers: tuple[File, ...]
    inside: tuple[tuple[StoredRun, tuple[File, ...]], ...]
    leftovers: tuple[File, ...]

    @property
    def snapshots(self) -> list[File]:
        """The snapshots of runs that stay."""
        return [file for _, files in self.inside for file in files if file.kind == SNAPSHOT]

    @property
    def all_leftovers(self) -> list[File]:
        """What killed processes left, anywhere."""
        inside = [file for _, files in self.inside for file in files if file.kind != SNAPSHOT]
        return [*inside, *self.leftovers]

    @property
    def size(self) -> int:
        """How many bytes that is."""
        files = (*self.answers, *self.snapshots, *self.all_leftovers)
        return sum(run.size for run in self.runs) + sum(file.size for file in files)


def prunable(
    inventory: Inventory,
    made: Sequence[Made],
    *,
    snapshots: bool = False,
    keep_epochs: Collection[int] = (),
    older_than: float = 0.0,
    now: float | None = None,
) -> Prunable:
    """Return what can be freed, so that all exhibits can be made again without training.

    A run stays if an exhibit names it, if it is being trained now, if it is young, or if it taught such a run. Answers
    about the networks of runs that stay are kept, whatever the epoch: epochs were chosen by them.

    Parameters
    ----------
    inventory : the store.
    made : the exhibits that were made.
    snapshots : True: free snapshots of runs that an exhibit names, too. Those of epochs that an exhibit shows stay,
        those that taught a run that stays, and each network's last. Of a run that is not finished, or whose weights
        are not those that an exhibit shows, all stay.
    keep_epochs : of these epochs, snapshots stay, too.
    older_than : runs whose last epoch was finished within so many seconds stay: their exhibit may not be made yet.
    now : the time, as `time.time` has it; None: now.
    """
    now = time.time() if now is None else now
    busy = [run for run in inventory.runs if inventory.is_trained_now(run)]
    named = {run_id for each in made for run_id in each.runs}
    young = [run for run in inventory.runs if run.time > now - older_than]
    roots = [run for run in inventory.runs if run.id in named or run in busy or run in young]
    taught = _teachers(inventory, [*(run.record["spec"] for run in roots if run.record), *_specs(made)])
    staying = {run.folder for run in roots} | {folder for folder, _ in taught}
    kept = [run for run in inventory.runs if run.folder in staying]
    runs = [run for run in inventory.runs if run.folder not in staying]
    inside = []
    for run in kept:
        if run not in busy:
            files = list(_leftovers_in(run, now))
            if snapshots and run.id in named:
                files += _not_shown(run, made, taught, keep_epochs)
            inside += [(run, tuple(files))] if files else []
    answers, finished_anyway = _answers(inventory, kept, runs, made)
    return Prunable(
        tuple(kept), tuple(busy), tuple(runs), answers, tuple(inside), (*finished_anyway, *_leftovers(inventory, now))
    )


def prune(inventory: Inventory, found: Prunable) -> tuple[int, list[StoredRun]]:
    """Delete what :func:`prunable` found; return the bytes freed, and the runs that were trained or changed meanwhile.

    A run's record is deleted before its other files: if this process is killed, the run counts as never trained.

    Raises
    ------
    OSError
        If a file cannot be deleted.
    """
    freed, changed = 0, list[StoredRun]()
    for run in found.runs:
        with _locked(inventory, run) as mine:
            if mine:
                own = [file for file in run.files if file.kind in (RECORD, SNAPSHOT, STATE, LOCK, TEMPORARY)]
                freed += _delete(sorted(own, key=lambda file: file.kind != RECORD))
                with suppress(OSError):  # there is something in it that is not the store's
                    run.folder.rmdir()
                with suppress(OSError):  # another system does not delete what is open
                    inventory.locks_of(run)[0].unlink(missing_ok=True)
            else:
                changed.append(run)
    for run, files in found.inside:
        with _locked(inventory, run) as mine:
            if mine:
                freed += _delete(files)
            else:
                changed.append(run)
    for file in found.leftovers:
        if file.kind != LOCK:
            freed += _delete([file])
            continue
        with _holding([file.path]) as mine:
            freed += _delete([file]) if mine else 0
    if not changed:  # an answer may be about a run that stayed
        freed += _delete(found.answers)
    return freed, changed


def _delete(files: Iterable[File]) -> int:
    """Delete files; return how many bytes they had."""
    freed = 0
    for file in files:
        file.path.unlink(missing_ok=True)
        freed += file.size
    return freed


@contextmanager
def _locked(inventory: Inventory, run: StoredRun) -> Iterator[bool]:
    """Hold a run's locks; False: another process holds one, or the run's files are not those that were looked at."""
    lock, earlier = inventory.locks_of(run)
    lock.parent.mkdir(exist_ok=True)
    with _holding([lock, *([earlier] if earlier.is_file() else [])]) as mine:
        yield mine and look_at(run.folder, run.id).files == run.files


@contextmanager
def _holding(locks: Sequence[Path]) -> Iterator[bool]:
    """Hold locks; False: another process holds one."""
    with ExitStack() as held:
        mine = True
        for path in locks:
            lock = FileLock(path, fallback_to_soft=False)
            try:
                lock.acquire(blocking=False)
            except (OSError, NotImplementedError) as error:
                if not isinstance(error, Timeout) and not lacks_locks(error):
                    raise
                mine = False
                break
            held.callback(lock.release)
        yield mine


def _specs(made: Sequence[Made]) -> list[Mapping[str, Any]]:
    return [spec for each in made for spec in each.specs]


def _teachers(inventory: Inventory, specs: Sequence[Mapping[str, Any]]) -> set[tuple[Path, tuple[str, int]]]:
    """Return the folder, role and epoch of all fixed teachers of specifications, and of the teachers' teachers."""
    found, left, seen = set(), list(specs), set[str]()
    while left:
        spec = left.pop()
        if (text := canonical_json(spec)) in seen:
            continue
        seen.add(text)
        for teacher, runs in inventory.guides_of(spec):
            if teacher["run"] is not None:
                left.append(teacher["run"])
                found |= {(run.folder, (teacher["role"], teacher["epoch"])) for run in runs}
    return found


def _not_shown(
    run: StoredRun, made: Sequence[Made], taught: Collection[tuple[Path, tuple[str, int]]], keep_epochs: Collection[int]
) -> list[File]:
    """Return the snapshots of a run that no exhibit needs again."""
    resting = [each for each in made if run.id in each.runs]
    if not run.finished or any(not each.lists_snapshots or each.differs_from(run) for each in resting):
        return []
    stay = {key for folder, key in taught if folder == run.folder}
    for each in resting:
        stay |= {(role, epoch) for (run_id, role), shown in each.shown.items() if run_id == run.id for epoch in shown}
    named = [(role, epoch) for role, epoch, _ in run.snapshots]
    last = {role: max(e for r, e in named if r == role) for role, _ in named}
    free = {
        run.snapshot_file(role, epoch)
        for role, epoch in named
        if (role, epoch) not in stay and epoch != last[role] and epoch not in keep_epochs
    }
    return [file for file in run.files if file.kind == SNAPSHOT and file.name in free]


def _answers(
    inventory: Inventory, kept: Sequence[StoredRun], runs: Sequence[StoredRun], made: Sequence[Made]
) -> tuple[tuple[File, ...], list[File]]:
    """Return the answers that can go, and the progress of those that are there."""
    known = {digest for run in kept for *_, digest in run.snapshots}
    known |= {digest for each in made for shown in each.shown.values() for digest in shown.values()}
    gone = {digest for run in runs for *_, digest in run.snapshots} - known
    all_known = all(run.record is not None for run in kept) and not inventory.linked
    names = {file.name for file in inventory.answers}
    free, progress = [], []
    for file in inventory.answers:
        content, problem = read_own(file.path) if file.kind == ANSWER else (None, "is not an answer")
        if problem or not isinstance(content, dict) or not isinstance(content.get("question"), dict):
            continue
        question = content["question"]
        about = set(_WEIGHTS.findall(canonical_json(question)))
        whole = {name: value for name, value in question.items() if name != "unfinished"}
        if about & gone or (about and all_known and not about & known):
            free.append(file)
        elif len(whole) < len(question) and f"{digest_of(whole)}.json" in names:
            progress.append(file)
    return tuple(free), progress


def _leftovers_in(run: StoredRun, now: float) -> Iterator[File]:
    """Yield what killed processes left in a run's folder."""
    for file in run.files:
        if (
            (file.kind == TEMPORARY and now - file.time > LEFTOVER)
            or (file.kind == STATE and run.finished)
            or file.kind == LOCK  # of earlier versions
        ):
            yield file


def _leftovers(inventory: Inventory, now: float) -> Iterator[File]:
    """Yield what killed processes left elsewhere."""
    there = {run.id for run in inventory.runs}
    for file in (*inventory.answers, *inventory.locks, *inventory.marks, *inventory.foreign):
        old = now - file.time
        if (
            (file.kind == TEMPORARY and old > LEFTOVER)
            or (file.kind == MARK and old > A_MONTH)
            or (file.kind == LOCK and Path(file.name).stem not in there and not is_held(file.path))
        ):
            yield file
