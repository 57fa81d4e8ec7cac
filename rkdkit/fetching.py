"""Fetching from a mirror: tasks' answers before anything is trained or measured, and networks when they are read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from rkdkit import mirror
from rkdkit.inventory.stored import as_size
from rkdkit.mirror import Mirror, MirrorError, Wanted
from rkdkit.origin import origin_of
from rkdkit.progress import say, track
from rkdkit.store import write_atomically
from rkdkit.tasks import Context, Task

FEW = 50
"""The number of files up to which no progress is shown."""


def fetch(tasks: Iterable[Task], context: Context) -> int:
    """Fetch what a mirror has of the answers to tasks, and of what they need; return the number of files.

    What is needed comes first: an answer is looked for by the digests in the records of its runs, and a run's record is
    only accepted if its teachers are in the store. Networks themselves are fetched when they are read.

    Parameters
    ----------
    tasks : what is in the store is not looked for.
    context : where the files are written.

    Raises
    ------
    MirrorError
        If a file is not what it must be. It is not kept; the files that were accepted before it are.
    StoreError
        If the store cannot be read or written.
    ValueError
        If the mirror's address is wrong.
    """
    source = mirror.current()
    if source is None or source.lost:
        return 0
    levels = _levels(tasks)
    needed = {each for level in levels for task in level for each in task.inputs()}
    there, number, size, looked_for = set[Task](), 0, 0, 0
    for level in levels:
        wanted: dict[str, Wanted] = {}
        for task in level:
            if there.issuperset(task.inputs()):
                wanted |= {each.path.relative_to(context.store.root).as_posix(): each for each in task.wanted(context)}
        looked_for += len(wanted)
        found: Iterable[tuple[str, bytes | None]] = source.fetch_all(list(wanted))
        if len(wanted) > FEW:
            found = track(found, total=len(wanted), desc="From the mirror", unit="file", leave=False)
        for path, content in found:
            if content is not None and _accept(wanted[path], path, content, source):
                number, size = number + 1, size + len(content)
        there.update(task for task in level if task in needed and task.find(context) is not None)
    if number:
        say(f"Fetched from the mirror {source.url}: {number:,} files, {as_size(size)}.")
    elif looked_for:
        source.tell_that_it_has_nothing(looked_for)
    return number


def restore(file: Path, digest: str) -> None:
    """Fetch a snapshot that is not in the store, if there is a mirror.

    Parameters
    ----------
    file : where it belongs: in its run's folder.
    digest : its SHA-256 in the run's record.

    Raises
    ------
    MirrorError
        If the mirror's file has another digest; if the run was fetched, also if its snapshot cannot be.
    StoreError
        If it cannot be written.
    """
    if file.exists():
        return
    source, path = mirror.current(), f"runs/{file.parent.name}/{file.name}"
    content = None if source is None else source.fetch(path)
    if source is not None and content is not None:
        found = hashlib.sha256(content).hexdigest()
        if found != digest and origin_of(file.parent) is None:  # another training of a run that was trained here
            return
        if found != digest:
            raise source.refused(path, f"has the SHA-256 {found}, but {file.parent / 'run.json'} names {digest}")
        write_atomically(file, content)
        return
    came_from = origin_of(file.parent)
    if came_from is not None:
        if source is None:
            what = f"Set {mirror.VARIABLE}={came_from} to fetch it, too"
        elif source.lost:
            what = f"Repeat the command when {source.url} can be reached"
        else:
            what = f"{source.url} does not have it: whoever serves it can add it with `rkdkit push --all-snapshots`"
        raise MirrorError(
            f"{file} is needed and not here, since the record of this run was fetched from {came_from} without all of "
            f"its networks. {what}. To train the run here instead, unset {mirror.VARIABLE} and delete the folder "
            f"{file.parent}."
        )


def _accept(wanted: Wanted, path: str, content: bytes, source: Mirror) -> bool:
    """Keep a file if it is what it must be and fits the store; return whether it does."""
    try:
        if not wanted.fits(mirror.content_of(content), source):
            source.pass_over(path)
            return False
    except ValueError as error:
        raise source.refused(path, str(error)) from error
    wanted.keep(content, source)
    return True


def _levels(tasks: Iterable[Task]) -> list[list[Task]]:
    """Return tasks and all that they need, each once: first those that need nothing, then those that need these, ..."""
    depths: dict[Task, int] = {}

    def depth(task: Task) -> int:
        if task not in depths:
            depths[task] = 1 + max((depth(needed) for needed in task.inputs()), default=-1)
        return depths[task]

    for task in tasks:
        depth(task)
    levels: list[list[Task]] = [[] for _ in range(1 + max(depths.values(), default=-1))]
    for task, of in depths.items():
        levels[of].append(task)
    return levels
