"""Do what several exhibits need on workers, each task once; then their notebooks only draw (`drawing`).

Nobody but a notebook knows what its exhibit needs. So all are asked; what is certain is handed out; while workers do it
the notebooks are asked again, since more is certain then; until nothing is missing.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from rkdkit import endings, progress
from rkdkit.cluster.failures import TasksFailedError, closure
from rkdkit.cluster.job import await_answer
from rkdkit.cluster.sharing import shared_out
from rkdkit.cluster.tasking import shown
from rkdkit.cluster.workers import Workers, without_modules
from rkdkit.drawing import Notebook
from rkdkit.group.processes import GroupError
from rkdkit.image_files import DataNotFoundError
from rkdkit.plan import Planner, ask
from rkdkit.plan.ask import parts_of, without
from rkdkit.plan.estimate import costs_of
from rkdkit.shares_of_batches import whole_of
from rkdkit.store import StoreError
from rkdkit.tasks import Task

PATIENCE = 15.0
"""Seconds after which notebooks are asked again what they need, at the earliest, once something is done."""

SHARE_OF_ASKING = 0.03
"""Asking takes this share of the time at most while workers have enough to do: it takes a core from one of them."""


class NotebookError(RuntimeError):
    """A notebook cannot be asked what it needs; the message names it."""


@dataclass
class Needs:
    """What exhibits still need.

    Attributes
    ----------
    certain : the tasks that are needed as they are, what is needed first.
    all : those, and placeholders of what will be needed once they are done.
    deciding : the measurements that are only needed to choose epochs.
    of : the exhibits that are not ready to be drawn, and what is missing for each.
    """

    certain: list[Task] = field(default_factory=list)
    all: list[Task] = field(default_factory=list)
    deciding: set[Task] = field(default_factory=set)
    of: dict[str, list[Task]] = field(default_factory=dict)


def needs_of(notebooks: Iterable[Notebook], handed_out: Collection[Task] = ()) -> Needs:
    """Ask notebooks what they need and is not in the store.

    Parameters
    ----------
    notebooks : the exhibits.
    handed_out : the parts of tasks (`plan.ask.parts_of`) that are being done, or failed: they are left out of `certain`
        and `all`.

    Raises
    ------
    NotebookError
        If a notebook raises something: bad parameters are refused as when it is made.
    """
    needs, known = Needs(), set(handed_out)
    for notebook in notebooks:
        planner = Planner()
        asked = planner.listen()
        try:
            ask(planner, notebook.path, notebook.parameters)
        except Exception as error:
            why = endings.in_words(type(error).__name__, str(error))
            raise NotebookError(f"{notebook.name}: {why}") from error
        missing = planner.missing
        if missing or planner.cut_short:
            needs.of[notebook.name] = missing
        needs.deciding |= asked.deciding
        for task in missing:
            if (rest := without(task, known)) is not None:
                needs.all.append(rest)
                if planner.certain(rest):
                    needs.certain.append(rest)
                    known.update(parts_of(rest))
    certain = set(needs.certain)
    # what one exhibit needs for certain, another may have only as a placeholder
    needs.all = [task for task in dict.fromkeys(needs.all) if task in certain or without(task, known) is not None]
    return needs


@dataclass(frozen=True)
class Done:
    """What came of the work for several exhibits.

    Attributes
    ----------
    missing : how many tasks were not in the store at first.
    failure : what failed, if anything did.
    unfinished : the exhibits that are not ready to be drawn: running their notebooks does the rest.
    impossible : the exhibits that cannot be made, since they rest on what failed.
    """

    missing: int = 0
    failure: TasksFailedError | None = None
    unfinished: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()


def do_all(notebooks: Iterable[Notebook], workers: Workers, *, alone: bool = True) -> Done:
    """Do what exhibits need, on as many workers as that takes.

    Parameters
    ----------
    notebooks : the exhibits.
    workers : who does it.
    alone : whether this process does it where that takes no workers; if not, it is left to the notebooks.

    Raises
    ------
    NoClusterError, StoreError, NotebookError, WrongWorkerError
        If there is no cluster, the store or a mirror cannot be used, a notebook cannot be asked, or a worker must not
        do the work.
    """
    asked = list(notebooks)
    needs, context = _still_needed(asked, workers), workers.context
    try:
        costs, missing = costs_of(needs.all, context), len(needs.all)
    except DataNotFoundError as error:
        raise NotebookError(str(error)) from error
    count, _, _ = workers.shared_out(needs.certain, costs, context)
    if count != 1 and needs.certain:
        needs, failed, prevented = _by_workers(asked, needs, costs, workers, count)
    elif alone:
        needs, failed, prevented = _here(asked, needs, costs, workers)
    else:
        failed, prevented = {}, []
    lost = {whole_of(task) for task in (*failed, *prevented)}
    impossible = tuple(
        name
        for name, tasks in needs.of.items()
        if lost and any(task in lost or not task.certain or not lost.isdisjoint(closure([task])) for task in tasks)
    )
    failure = TasksFailedError(failed, prevented) if failed else None
    return Done(missing, failure, tuple(name for name in needs.of if name not in impossible), impossible)


def _still_needed(asked: Sequence[Notebook], workers: Workers, handed_out: Collection[Task] = ()) -> Needs:
    """As :func:`needs_of`, after what is certain was looked for at a mirror: more may be certain then."""
    needs = needs_of(asked, handed_out)
    while needs.certain and workers.look_elsewhere(needs.certain):
        needs = needs_of([each for each in asked if each.name in needs.of], handed_out)
    return needs


def _by_workers(
    asked: Sequence[Notebook], needs: Needs, costs: dict[Task, float], workers: Workers, count: int
) -> tuple[Needs, dict[Task, BaseException], list[Task]]:
    """Hand out tasks until there are no more; return what is still needed, what failed, and what that prevented."""
    cluster = workers.cluster(count, workers.context)
    total, handed_out, asking = sum(costs.values()), set[Task](), 0.0
    with shown(cluster, lambda: total) as draw:
        while True:
            new = without_modules(needs.certain)
            if not new and not cluster.pending:
                return needs, dict(cluster.failed), list(cluster.prevented)
            known = {task: costs[task] for task in needs.all}
            cluster.submit(*shared_out(new, known, count or cluster.workers, workers.context), needs.deciding)
            handed_out.update(part for task in new for part in parts_of(task))
            # more may be certain: looked up now and then, and at once if a worker would have nothing to do
            patience = max(PATIENCE, asking / SHARE_OF_ASKING)
            for task in cluster.wait(max(cluster.workers - 1, 0), patience, draw):
                await_answer(task, workers.context)
            began = time.monotonic()
            needs = _still_needed([each for each in asked if each.name in needs.of], workers, handed_out)
            costs |= costs_of([task for task in needs.all if task not in costs], workers.context)
            total = cluster.work + sum(costs[task] for task in needs.all)
            asking = time.monotonic() - began


def _here(
    asked: Sequence[Notebook], needs: Needs, costs: dict[Task, float], workers: Workers
) -> tuple[Needs, dict[Task, BaseException], list[Task]]:
    """Do tasks in this process, one after the other; as :func:`_by_workers`."""
    tried, failed, prevented = set[Task](), dict[Task, BaseException](), list[Task]()
    if not needs.certain:
        return needs, failed, prevented
    with progress.overall("Training and measuring", sum(costs.values())) as bar:
        while new := without_modules(needs.certain):
            for task in new:
                tried.update(parts_of(task))
                if any(needed in failed or needed in prevented for needed in task.inputs()):
                    prevented.append(task)
                    continue
                try:
                    with bar.piece(costs[task], task.label):
                        workers.do_here([task], workers.context)
                except (StoreError, GroupError):
                    raise
                except Exception as error:  # all that does not rest on it is done
                    failed[task] = error
            needs = _still_needed([each for each in asked if each.name in needs.of], workers, tried)
            costs |= costs_of([task for task in needs.all if task not in costs], workers.context)
            bar.expect(sum(costs[task] for task in needs.all))
    return needs, failed, prevented
