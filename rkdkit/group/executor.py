"""The executor of the first process of a group, and what `rkdkit train` does in each of its processes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rkdkit import endings
from rkdkit.cluster.workers import Workers
from rkdkit.group import leading, measuring, processes
from rkdkit.tasks import Context, Task
from rkdkit.workforce import Workforce


class Together(Workers):
    """Does tasks in the first process of a group: trainings and long measurements with all processes, the rest alone.

    Parameters
    ----------
    group : the processes.
    """

    def __init__(self, group: processes.Processes) -> None:
        super().__init__(Workforce(1), device=group.device)
        self._given["group"] = self.group = group

    def do_one(self, task: Task, context: Context) -> None:
        """As :meth:`Here.do_one`; errors also as :func:`measuring.measure`."""
        share = measuring.share_of(task, self.group.size, context)
        if share is None:
            super().do_one(task, context)
        else:
            measuring.measure(share, self.group, context)


@contextmanager
def among_processes(*others: str) -> Iterator[Together | None]:
    """Do a ``with`` block in the first process that a launcher started, while the others take part in its work.

    The others end with it, and do not get into the block. None is yielded in a process that is alone.

    Parameters
    ----------
    others : who else was asked to do the work: workers, a scheduler; "": nobody.

    Raises
    ------
    SystemExit
        If the processes cannot work together or one was lost: one of them says why. In the others, also at the end.
    """
    if not processes.started_together():
        yield None
        return
    try:
        with processes.joined() as group:
            with _said_once(group):
                if any(others) and not group.rank:
                    raise processes.GroupError(
                        "A launcher started several processes, which share each training. Workers and schedulers are "
                        "for many trainings side by side: leave one of the two."
                    )
                if group.rank:
                    leading.follow(group, {"train": leading.train_along, "measure": measuring.measure_along})
                else:
                    yield Together(group)
                    leading.no_more(group)
            if group.rank:
                sys.exit(0)
    except processes.GroupError as error:
        sys.exit(f"\n{error}")


@contextmanager
def _said_once(group: processes.Processes) -> Iterator[None]:
    """Let one process say why the work ended before it was done; the others end without a word."""
    try:
        yield
    except KeyboardInterrupt:
        group.is_first_to_say()  # the command does
        group.apart = True
        raise
    except SystemExit:
        group.is_first_to_say()
        with suppress(processes.GroupError):  # another may be gone by now
            leading.no_more(group)
        raise
    except Exception as error:
        with suppress(processes.GroupError):  # another may be gone by now
            if not group.rank:
                leading.no_more(group)
        group.apart = True
        if not group.is_first_to_say():
            sys.exit(1)
        if isinstance(error, processes.GroupError):
            raise
        what = f"{group.name[0].upper()}{group.name[1:]}: " if group.rank else ""
        sys.exit(f"\n{what}{endings.in_words(type(error).__name__, str(error))} {processes.KEPT}")
