"""What can go wrong with workers, in words that say what to do."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rkdkit import endings
from rkdkit.cluster import job
from rkdkit.cluster.connection import NoClusterError
from rkdkit.shares_of_batches import Share
from rkdkit.tasks import Task


class TasksFailedError(RuntimeError):
    """Some tasks failed; the message names each, why it failed, and what could not be done without it.

    Attributes
    ----------
    failed : what each task failed with.
    prevented : the tasks that rest on them.
    """

    def __init__(self, failed: Mapping[Task, BaseException], prevented: Sequence[Task]) -> None:
        self.failed, self.prevented = failed, prevented
        lines = []
        for task, error in failed.items():
            lines.append(f"The {task} failed: {explained(error)}")
            lost = [other for other in prevented if not isinstance(other, Share)]
            without = [str(other) for other in lost if task in closure(other.inputs())]
            if without:
                more = f" and {len(without) - 3} more" if len(without) > 3 else ""
                lines.append(f"  Without it there is no {'; no '.join(without[:3])}{more}.")
        super().__init__("\n".join([*lines, "Everything else is done and kept in the store."]))


class SchedulerLostError(NoClusterError):
    """The scheduler went away while tasks were being done, or took them back."""

    def __init__(self, what: str = "The Dask scheduler went away.") -> None:
        super().__init__(
            f"{what} What is trained is kept up to the last finished epoch. If the scheduler is gone, start it and its "
            "workers again; then repeat the command."
        )


def closure(tasks: Iterable[Task]) -> Iterator[Task]:
    """Yield tasks and all that they need, each once."""
    left, seen = list(tasks), set[Task]()
    while left:
        task = left.pop(0)
        if task not in seen:
            seen.add(task)
            yield task
            left += task.inputs()


def explained(error: BaseException) -> str:
    """Say what a task failed with, and what to do where its own words do not."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            "every worker that did it died, most often for lack of memory. Give fewer workers, or workers with more "
            "memory (`dask worker --memory-limit`)."
        )
    if endings.for_memory(type(error).__name__, str(error)):
        return f"a worker ran out of memory. Give fewer workers. ({str(error).splitlines()[0] if str(error) else ''})"
    return f"{type(error).__name__}: {error}"


def gone(error: Exception) -> bool:
    """Return whether a worker could not be asked, since it is gone."""
    from distributed.comm.core import CommClosedError

    return isinstance(error, CommClosedError | ConnectionError | TimeoutError)


def why_wrong(address: str, error: Exception) -> str:
    """Say in one line why a worker must not do the caller's tasks."""
    if isinstance(error, job.WrongWorkerError):
        return str(error)
    return f"The worker at {address} cannot be used: {error}"
