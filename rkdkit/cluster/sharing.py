"""Which measurements are shared out among workers, image by image, and as which tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rkdkit import autoattack, autoattack_shares, evaluation
from rkdkit.measurements import CorrectPredictions, Measurement, PerImage
from rkdkit.plan import estimate
from rkdkit.plan.cost import Costs
from rkdkit.shares_of_batches import BatchesShare, Joined, Share
from rkdkit.shares_of_steps import StepShare
from rkdkit.tasks import Context, Task

LEAST_SECONDS = 20.0
"""The work in seconds of one thread, from which on a measurement is shared out: each share reads its networks anew."""

FEW = 4
"""A measurement is shared out if it is more than this part of what each worker has to do in all: the others of as many
would otherwise have nothing to do in the end."""


def shared_out(
    tasks: Sequence[Task], costs: Mapping[Task, float], workers: int, context: Context
) -> tuple[list[Task], dict[Task, float]]:
    """Return tasks with long measurements in shares, and the work of all.

    Parameters
    ----------
    tasks : those to hand out now, what is needed first; they rest on no module from elsewhere.
    costs : their work, and that of tasks that will be handed out later.
    workers : among how many.
    context : as :func:`shares_of`.

    Raises
    ------
    DamagedFileError
        If an answer in the store is damaged.
    """
    whole, found, known = sum(costs.values()), list[Task](), dict(costs)
    for task in tasks:
        long = costs[task] >= max(LEAST_SECONDS * estimate.A_SECOND, whole / max(workers, 1) / FEW)
        shares = shares_of(task, workers, context) if long and workers > 1 and isinstance(task, Measurement) else []
        if not shares:
            found.append(task)
            continue
        for each in shares:
            if isinstance(each, Share):
                known[each] = max(costs[task] * each.weight, 1.0)
            else:
                known[each] = 1.0
        del known[task]
        found += shares
    return found, known


def shares_of(whole: Measurement, shares: int, context: Context) -> list[Task]:
    """Return the tasks that make a measurement's answer, what is needed first; none: it cannot be shared out.

    Parameters
    ----------
    whole : a measurement that is not in the store.
    shares : how many processes may take part.
    context : how many classes the data have, and which of several judges have answered.
    """
    if isinstance(whole, CorrectPredictions):
        missing = [part for part in whole.parts if part.find(context) is None]
        judges = tuple(part.judges[0] for part in missing)
        whole = replace(whole, judges=judges, attacked=whole.target)
        if isinstance(whole.attack, autoattack.Packaged):
            if whole.judges != (whole.target,):
                return []
            dataset = whole.target.spec.dataset
            classes = len(context.load(dataset).classes)
            of_one = Costs(context.load).of(whole.target.architecture, dataset).multiply_adds
            overhead = round(autoattack_shares.PASS / of_one)
            first = StepShare(whole=whole, share=0, shares=shares, step=0, classes=classes, overhead=overhead)
            steps = [share for step in range(first.steps) for share in first.all_of(step)]
            return [*steps, Joined(whole=whole, share=first)]
    if not isinstance(whole, CorrectPredictions | PerImage) or not evaluation.separable(whole.attack):
        return []
    batch_size = evaluation.batch_size_for(whole.attack)
    shares = min(shares, -(-len(whole.images) // batch_size))
    if shares < 2:
        return []
    one = BatchesShare(whole=whole, share=0, shares=shares, batch_size=batch_size)
    return [*one.last, Joined(whole=whole, share=one)]
