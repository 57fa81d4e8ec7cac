"""Long measurements by a group of processes: the first one decides, reads and writes; all compute.

They compute what workers do that share a measurement out (`computations`), but they need no store: the first process
sends them the networks and what is to be done, and keeps their answers before it says what is next.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from rkdkit import computations, data, runtime
from rkdkit.cluster.sharing import LEAST_SECONDS, shares_of
from rkdkit.computations import Computation
from rkdkit.group.leading import compare, in_step, received, refused, sent
from rkdkit.group.processes import GroupError, Processes
from rkdkit.measurements import Measurement
from rkdkit.plan import estimate
from rkdkit.progress import track
from rkdkit.provenance import environment, together
from rkdkit.references import Images
from rkdkit.shares_of_batches import Joined, Share
from rkdkit.tasks import Context, Task


def share_of(task: Task, processes: int, context: Context) -> Share | None:
    """Return one of the shares in which processes make a task; None: the first process makes it alone.

    Parameters
    ----------
    task : what it needs is in the store, and its answer is not.
    processes : how many there are.
    context : as for tasks.
    """
    tasks = shares_of(task, processes, context) if isinstance(task, Measurement) else []
    if not tasks:
        return None
    joined = tasks[-1]
    assert isinstance(joined, Joined)
    long = estimate.costs_of([joined.whole], context)[joined.whole] >= LEAST_SECONDS * estimate.A_SECOND
    return joined.share if long and joined.share.computation.can_be_sent else None


def measure(share: Share, processes: Processes, context: Context) -> None:
    """Make a measurement by all processes that have a share of it, and store its answer.

    Parameters
    ----------
    share : any of its shares.
    processes : the group, of which this process is the first.
    context : where answers are kept.

    Raises
    ------
    GroupError
        If a process finds other data or lacks them, or ends before the others.
    ValueError, StoreError
        As :meth:`measurements.Measurement.do`.
    """
    share.forget(context, of_others=True)
    split, networks, computation = share.whole.images.split(context.load), share.read(context), share.computation
    different = list(dict.fromkeys(networks))
    architectures, weights = sent(different)
    which = [different.index(network) for network in networks]
    settings = asdict(runtime.current())
    processes.tell(
        ["measure", computation.to_json(), share.whole.images.to_json(), split.digest, architectures, which, settings],
        weights,
    )
    answers = processes.everybody(["", environment(context.device)])
    refusals = [refusal for refusal, _ in answers if refusal]
    if refusals:
        raise GroupError(f"{refusals[0]} Nothing of the {share.whole} was measured.")
    origin = {**together([there for _, there in answers[: share.shares]]), "processes": share.shares}
    try:
        with track(total=1.0, desc=str(share.whole), leave=False) as bar:
            while (now := share.round(context)) is not None:

                def show(part: float, begun: float = now.before, work: float = now.after - now.before) -> None:
                    bar.n = begun + part * work
                    bar.refresh()

                show(0.0)
                processes.tell(["compute", now.parts])
                with in_step(processes, ValueError):
                    found = _computed(processes, computation, networks, split, now.parts, show)
                share.keep(found, context, origin)
    finally:
        if not processes.apart:
            processes.tell(["end"])
    share.join(context)


def measure_along(processes: Processes, context: Context, weights: dict[str, Tensor], given: list[Any]) -> None:
    """Take part in a measurement of the first process."""
    refusal, (plain, images, digest, architectures, which, settings) = "", given
    try:
        computation, split = computations.received(plain), Images(**images).split(context.load)
        compare(images["dataset"], split.digest, digest)
    except (OSError, ValueError, GroupError) as error:
        refusal = refused(processes, error)
    if any(refusal for refusal, _ in processes.everybody([refusal, environment(context.device)])):
        return
    different = received(architectures, weights, context.device)
    networks = [different[i] for i in which]
    with runtime.using(runtime.Settings(**settings)):
        while True:
            (what, *rest), _ = processes.hear()
            if what == "end":
                return
            with suppress(ValueError):  # the first process says it
                _computed(processes, computation, networks, split, *rest)


def _computed(
    processes: Processes,
    computation: Computation,
    networks: Sequence[nn.Module],
    split: data.Split,
    parts: Sequence[Sequence[Any]],
    show: Callable[[float], object] = lambda _: None,
) -> list[tuple[Any, Any]]:
    """Compute this process's parts while the others compute theirs, and return all parts with their answers.

    Parameters
    ----------
    processes, computation, networks, split : as :meth:`Computation.answers`.
    parts : those of each process; the last processes may have none.
    show : called with how much of its parts this process has computed, in [0, 1].

    Raises
    ------
    ValueError
        In all processes, if a network or labels are refused in one.
    """
    mine = parts[processes.rank] if processes.rank < len(parts) else []
    answers, refusal = list[Any](), ""
    try:
        for answer in computation.answers(networks, split, mine) if mine else ():
            answers.append(answer)
            show(len(answers) / len(mine))
    except ValueError as error:
        refusal = str(error)
    everybody = processes.everybody([answers, refusal])
    refusals = [said for _, said in everybody if said]
    if refusals:
        raise ValueError(refusals[0])
    return [pair for own, (found, _) in zip(parts, everybody, strict=False) for pair in zip(own, found, strict=True)]
