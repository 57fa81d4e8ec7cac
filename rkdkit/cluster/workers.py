"""The executor that hands tasks to workers, and the decision how many workers that takes."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from rkdkit import evaluation, image_cache, methods
from rkdkit.cluster.failures import closure
from rkdkit.cluster.job import await_answer
from rkdkit.cluster.sharing import shared_out
from rkdkit.cluster.tasking import Cluster, opened, shown
from rkdkit.determinism import one_thread
from rkdkit.endings import Stopped
from rkdkit.executors import Here, with_inputs
from rkdkit.measurements import Measurement
from rkdkit.plan import estimate
from rkdkit.plan.cost import Costs, examples_of
from rkdkit.plan.estimate import costs_of
from rkdkit.progress import say
from rkdkit.shares_of_batches import whole_of
from rkdkit.store import Store, StoreError
from rkdkit.tasks import Context, Task
from rkdkit.trainings import Train
from rkdkit.workforce import AUTO, Workforce, cores, most_workers

BUSY = 0.75
"""How many times as fast as one thread all threads of a process are, for each core, but never more than `MOST_GAIN`."""

LEAST_SECONDS = 10.0
"""The work in seconds of one thread, from which on "auto" starts workers: that takes some seconds itself."""

MOST_GAIN = 3.0
"""How many times as fast as one thread all threads of one process are at most, on networks as small as these."""


class Workers(Here):
    """Hands the tasks that are not in the store to workers; where that gains nothing, does them in this process.

    A training whose teacher is a module from elsewhere (`runs.foreign_teacher`) is done in this process: workers were
    not given the module.

    Parameters
    ----------
    workforce : who the workers are.
    store, device : as :class:`Executor`.
    """

    def __init__(
        self, workforce: Workforce, store: Store | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__(store, device)
        self.workforce = workforce
        self._held = contextlib.ExitStack()
        self._open: tuple[Any, Cluster] | None = None

    def do_all(self, tasks: Sequence[Task], context: Context, what: str) -> None:
        """As :meth:`Here.do_all`.

        Raises
        ------
        TasksFailedError
            If tasks failed on workers; all others are done.
        NoClusterError
            If there is no cluster, or it went away.
        Stopped
            If the user interrupts while workers are training.
        """
        missing = with_inputs(tasks, context)
        costs = costs_of(missing, context)
        workers, missing, costs = self.shared_out(missing, costs, context)
        if workers == 1:
            self.do_here(tasks, context, what)
            return
        cluster, total = self.cluster(workers, context), sum(costs.values())
        try:
            with shown(cluster, lambda: total, what) as draw:
                for group, here in in_turn(missing):
                    if here:
                        lost = {*cluster.failed, *cluster.prevented}
                        possible = [task for task in group if lost.isdisjoint(closure([task]))]
                        cluster.prevented += [task for task in group if task not in possible]
                        self.do_here(possible, context)
                    else:
                        cluster.submit(group, costs)
                        for task in cluster.wait(on_progress=draw):
                            _make_sure_it_is_seen(task, context)
        except BaseException as error:  # workers that are in the middle of something are not waited for
            trained = cluster.trained_now()
            self.close()
            if isinstance(error, KeyboardInterrupt) and trained:
                at = [(str(task.spec), task.finished_epochs(context), task.spec.epochs) for task in trained]
                raise Stopped(at) from None
            raise
        if cluster.failure:
            raise cluster.failure

    def shared_out(
        self, tasks: Sequence[Task], costs: Mapping[Task, float], context: Context
    ) -> tuple[int, list[Task], dict[Task, float]]:
        """Return how many workers tasks take, the tasks with long measurements in shares, and the work of all.

        Parameters
        ----------
        tasks : those to hand out now, what is needed first.
        costs : their work, and that of tasks that will be handed out later.
        context : as for tasks.

        Returns
        -------
        The number as :func:`how_many`, and what `sharing.shared_out` returns.

        Raises
        ------
        NoClusterError, DamagedFileError
            As :meth:`cluster`; if what is kept of a measurement is damaged.
        """
        if self.workforce.remote:
            among = self.cluster(0, context).workers if tasks else 0
        else:
            among = cores() if self.workforce.workers == AUTO else int(self.workforce.workers)
        possible = without_modules(tasks)
        rest = [task for task in tasks if task not in set(possible)]
        in_shares, work = shared_out(possible, costs, among, context)
        workers = how_many(self.workforce, work, context)
        if 1 < workers < among:
            in_shares, work = shared_out(possible, costs, workers, context)
        return workers, [*in_shares, *rest], work

    def do_here(self, tasks: Sequence[Task], context: Context, what: str = "") -> None:
        """Do tasks in this process; with one thread where a number of workers is given, so the bits are theirs."""
        every = self.workforce.alone or self.workforce.workers == AUTO
        with contextlib.nullcontext() if every else one_thread():
            super().do_all(tasks, context, what)

    def cluster(self, workers: int, context: Context) -> Cluster:
        """Return a cluster at the beginning of work, the same as long as it fits: :meth:`close` closes it.

        Parameters
        ----------
        workers : how many workers it must have, if they are started here.
        context : as for tasks.

        Raises
        ------
        NoClusterError
            As `tasking.opened`.
        """
        # a row that a notebook redefined does not fit workers that know it as it was
        fitting = (context.store.root.resolve(), dict(methods.METHODS))
        if self._open is not None:
            known, cluster = self._open
            if known == fitting and cluster.alive:
                cluster.begin(context)
                if cluster.workers < workers:
                    cluster.grow(workers)
                return cluster
        self.close()
        device = str(self._given.get("device", ""))
        cluster = self._held.enter_context(opened(self.workforce, workers, context, device))
        self._open = (fitting, cluster)
        if cluster.dashboard:
            count = cluster.workers
            say(f"{count} worker{'s' if count != 1 else ''}; what they do: {cluster.dashboard}")
        return cluster

    def close(self) -> None:
        """Stop the workers that were started here, or take leave of the cluster."""
        self._open = None
        self._held.close()


def _make_sure_it_is_seen(task: Task, context: Context) -> None:
    if not await_answer(task, context):
        raise StoreError(
            f"A worker did the {task}, but {context.store.root} does not show it here. Repeat the command, or use a "
            "file system that shows what other machines wrote."
        )


def in_turn(tasks: Sequence[Task]) -> Iterator[tuple[list[Task], bool]]:
    """Yield groups of tasks, and whether a group must be done in this process: it needs a module from elsewhere.

    Parameters
    ----------
    tasks : what is needed first.
    """
    left = list(tasks)
    while left:
        group = without_modules(left)
        here = not group
        if here:
            waited_for = set(left)
            group = [task for task in left if waited_for.isdisjoint(task.inputs())]
        yield group, here
        done = set(group)
        left = [task for task in left if task not in done]


def without_modules(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks that rest on no training whose teacher is a module, which this process alone was given.

    Parameters
    ----------
    tasks : those that are not in the store, what is needed first.
    """
    out = set[Task]()
    for task in tasks:
        taught = isinstance(task, Train) and any(teacher.run is None for teacher in task.spec.teachers)
        if taught or any(needed in out for needed in task.inputs()):
            out.add(task)
    return [task for task in tasks if task not in out]


def how_many(workforce: Workforce, costs: Mapping[Task, float], context: Context) -> int:
    """Return how many workers to start for tasks; 1: none, this process does them; 0: they are there already.

    "auto" starts workers where the tasks keep them so busy that they are faster than all threads of one process, and as
    many as there are physical cores, memory, and tasks. On a GPU it starts none: several processes would share it.

    Parameters
    ----------
    workforce : who may be started.
    costs : the work of each task.
    context : its device counts.
    """
    if workforce.remote:
        return 0
    if workforce.workers != AUTO:
        return min(int(workforce.workers), max(len(costs), 1))
    most, whole = min(cores(), len(costs)), sum(costs.values())
    if context.device.type != "cpu" or most < 2 or whole < LEAST_SECONDS * estimate.A_SECOND:
        return 1
    longest = max(estimate.path_lengths(costs).values())
    gain_of_threads = min(BUSY * cores(), MOST_GAIN)
    if whole / max(longest, whole / most) < gain_of_threads:
        return 1
    most = min(most, most_workers(memory_of(costs, context)))
    return most if whole / max(longest, whole / most) >= gain_of_threads else 1


def memory_of(costs: Mapping[Task, float], context: Context) -> int:
    """Return the memory that a worker needs for tasks, in bytes: the data, and a training's step or an attack's batch.

    Of all trainings the heaviest counts, and of all networks that are attacked.
    """
    costs = {whole_of(task): cost for task, cost in costs.items()}
    known = Costs(context.load)
    datasets = [context.load(name) for name in {name for task in costs for name in task.datasets}]
    parts = [part.nbytes for dataset in datasets for part in (dataset.train, dataset.test)]
    images = sum(nbytes for nbytes in parts if nbytes < image_cache.LEAST_MAPPED)  # larger ones are all workers' own
    trainings = [task.spec for task in costs if isinstance(task, Train)]
    at_once = [0]
    if trainings:
        heaviest = max(
            trainings,
            key=lambda spec: estimate.training(spec, known) / spec.epochs / known.n_train(spec) * spec.batch_size,
        )
        at_once.append(known.count_step(known.kind(heaviest)).memory)
    batches = {
        (made.attacked, made.dataset, min(made.n, evaluation.batch_size_for(made.attack)))
        for task in costs
        if isinstance(task, Measurement)
        for made in examples_of(task)
        if made.attack is not None
    }
    if batches:
        attacked, dataset, n = max(batches, key=lambda batch: known.forward(*batch[:2]) * batch[2])
        at_once.append(known.memory_of_attack(attacked, dataset, n))
    return images + max(at_once)
