"""Whether the store is whole: every file against its digest, every answer against its question."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rkdkit.identity import digest_of
from rkdkit.inventory.made import Made
from rkdkit.inventory.stored import (
    ANSWER,
    FOREIGN,
    RECORD,
    SNAPSHOT,
    STATE,
    File,
    Inventory,
    StoredRun,
    folder_name,
    read_own,
    teacher_title,
)
from rkdkit.origin import origin_of
from rkdkit.records import names_what_it_keeps

_CHUNK = 2**20
_MISSING = "is missing"


@dataclass(frozen=True)
class Damage:
    """A file or folder that is damaged, missing, or in another's place.

    Attributes
    ----------
    path : which.
    what : what is wrong with it.
    remedy : what restores it.
    """

    path: Path
    what: str
    remedy: str


@dataclass
class Verified:
    """What :func:`verify` found.

    Attributes
    ----------
    files : how many files were read.
    damage : what is damaged, missing, or in another's place.
    absent : finished runs that lack snapshots which no exhibit shows, and how many: pruned, or never fetched.
    foreign : what is not the store's.
    """

    files: int = 0
    damage: list[Damage] = field(default_factory=list)
    absent: list[tuple[StoredRun, int]] = field(default_factory=list)
    foreign: list[File] = field(default_factory=list)


def bytes_to_read(inventory: Inventory, runs: Sequence[StoredRun] | None = None) -> int:
    """Return about how many bytes :func:`verify` will read; parameters as there."""
    files: Iterable[File] = inventory.files if runs is None else (file for run in runs for file in run.files)
    return sum(file.size for file in files if file.kind in (RECORD, SNAPSHOT, STATE, ANSWER))


def verify(
    inventory: Inventory,
    made: Sequence[Made],
    runs: Sequence[StoredRun] | None = None,
    on_read: Callable[[int], object] = lambda _: None,
) -> Verified:
    """Compare files with their digests.

    Parameters
    ----------
    inventory : the store.
    made : the exhibits that were made: a snapshot that one of them shows must be there.
    runs : verify these alone; None: all runs, all answers, and whether there is anything else.
    on_read : called with the number of bytes that were read, for a progress bar.
    """
    found = Verified()
    for run in inventory.runs if runs is None else runs:
        _verify_run(run, inventory, made, found, on_read)
    if runs is None:
        answers = [file for file in inventory.answers if file.kind == ANSWER]
        found.files += len(answers)
        for file in answers:
            problem = _problem_of_answer(file)
            if problem and os.path.lexists(file.path):  # else a measurement ended meanwhile, and this was its progress
                remedy = f"Delete {file.path}: it is measured again when it is next needed."
                found.damage.append(Damage(file.path, problem, remedy))
            on_read(file.size)
        found.foreign = [file for file in inventory.files if file.kind == FOREIGN]
    return found


def restored_by(run: StoredRun, made: Sequence[Made]) -> str:
    """Say how a run is trained again."""
    resting = [each for each in made if run.id in each.runs]
    command = min(resting, key=lambda each: len(each.runs)).command if resting else ""  # it trains the least besides
    by = f"then `{command}` trains it again" if command else "the command that needs this run then trains it again"
    return f"Delete the folder {run.folder}; {by}."


def _verify_run(
    run: StoredRun, inventory: Inventory, made: Sequence[Made], found: Verified, on_read: Callable[[int], object]
) -> None:
    busy = inventory.is_trained_now(run)

    def damaged(path: Path, what: str) -> None:
        found.damage.append(Damage(path, what, restored_by(run, made) + _students(run, inventory)))

    record = run.record
    found.files += sum(file.kind == RECORD for file in run.files)
    on_read(sum(file.size for file in run.files if file.kind == RECORD))
    if record is None:
        # before its first epoch is finished, or before its record is fetched, a run has no files that matter
        if not busy and any(file.kind in (SNAPSHOT, STATE) or file.name == "run.json" for file in run.files):
            damaged(run.folder / "run.json", run.problem)
        return
    if not names_what_it_keeps(record):
        damaged(run.folder / "run.json", "names other snapshots than the run keeps")
    if run.folder.name != folder_name(record["spec"], record["id"]):
        what = f"holds another run than its name says: {run.title}, id {record['id']}"
        found.damage.append(Damage(run.folder, what, f"Rename it to {folder_name(record['spec'], record['id'])}."))
    for what in _wrong_guides(run, inventory):
        damaged(run.folder, what)
    absent, fetched = 0, origin_of(run.folder) is not None
    for role, epoch, digest in run.snapshots:
        path = run.folder / run.snapshot_file(role, epoch)
        problem = _problem_of_file(path, digest, on_read)
        found.files += problem != _MISSING
        if problem == _MISSING and run.finished and (fetched or not _is_shown(run, role, epoch, digest, made)):
            absent += 1
        elif problem:
            damaged(path, problem)
    if absent:
        found.absent.append((run, absent))
    for state in {} if busy else record["states"].values():  # whoever trains the run replaces them
        problem = _problem_of_file(run.folder / state["name"], state["digest"], on_read)
        found.files += 1
        if problem:
            damaged(run.folder / state["name"], problem)


def _students(run: StoredRun, inventory: Inventory) -> str:
    """Say which runs must be trained again, too, if a run that is trained again gets other weights; "": none."""
    taught = [
        each.id
        for each in inventory.runs
        if each.record is not None
        if any(run in runs for _, runs in inventory.guides_of(each.record["spec"]))
    ]
    return (
        f" If it then gets other weights, as with another number of threads or on other hardware, the students that it "
        f"taught have to be trained again, too: {', '.join(taught)}."
        if taught
        else ""
    )


def _is_shown(run: StoredRun, role: str, epoch: int, digest: str, made: Sequence[Made]) -> bool:
    return any(each.shown.get((run.id, role), {}).get(epoch) == digest for each in made)


def _wrong_guides(run: StoredRun, inventory: Inventory) -> Iterator[str]:
    """Yield which of a run's teachers has other weights now than taught it."""
    assert run.record is not None
    guides, taught_by = inventory.guides_of(run.record["spec"]), run.record["guided_by"]
    if len(guides) != len(taught_by):
        yield "does not say who taught it"
        return
    for (teacher, runs), then in zip(guides, taught_by, strict=True):
        now = {
            digest
            for each in runs
            for role, epoch, digest in each.snapshots
            if (role, epoch) == (teacher["role"], teacher["epoch"])
        }
        if now and then not in now:
            yield f"was taught by other weights of {teacher_title(teacher)} than are in the store now"


def _problem_of_file(path: Path, digest: str, on_read: Callable[[int], object]) -> str:
    """Return what is wrong with a file that should have a SHA-256; "": nothing."""
    hashed = hashlib.sha256()
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "is no regular file"
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hashed.update(chunk)
                on_read(len(chunk))
    except FileNotFoundError:
        return _MISSING
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return "" if hashed.hexdigest() == digest else "is damaged: it does not match its digest"


def _problem_of_answer(file: File) -> str:
    content, problem = read_own(file.path)
    if problem:
        return problem
    if not isinstance(content, dict) or content.keys() != {"question", "answer", "measured_with"}:
        return "holds no answer"
    if not isinstance(content["measured_with"], dict):
        return "does not say with which versions it was measured"
    if file.name != f"{digest_of(content['question'])}.json":
        return "holds the answer to another question than its name says"
    return ""
