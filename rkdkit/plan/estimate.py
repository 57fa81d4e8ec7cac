"""How much work a task is, estimated in a moment: enough to share work out and to show how much of it is done.

`cost` counts a training step exactly, which takes a second for each kind of step.
"""

from collections.abc import Collection, Iterable, Mapping

from rkdkit import data, evaluation, methods
from rkdkit.measurements import Measurement
from rkdkit.plan.ask import parts_of
from rkdkit.plan.cost import Costs, Examples, examples_of, network_of, passes
from rkdkit.shares_of_batches import whole_of
from rkdkit.spec import RunSpec
from rkdkit.tasks import Context, Task
from rkdkit.trainings import Train

LEAST = 2e8
"""What a batch's pass through a network counts at least, in FLOP: some milliseconds pass however small it is."""

FEWER = 0.3
"""What is left of the work of attacks that drop the images they have fooled, as a guess."""

A_SECOND = 5e10
"""What one thread of a processor does in a second, in FLOP, within a factor of two or three."""


def work(task: Task, costs: Costs, finished: int = 0) -> float:
    """Estimate the work of a task, in floating-point operations; a task of an unknown kind counts as a second.

    Parameters
    ----------
    task : a training or a measurement.
    costs : what networks cost.
    finished : the epochs of a training that are in the store.
    """
    if isinstance(task, Train):
        return training(task.spec, costs) * (task.spec.epochs - finished) / task.spec.epochs
    if not isinstance(task, Measurement):
        return A_SECOND
    try:
        return float(sum(_measuring(made, costs) for made in examples_of(task)))
    except ValueError:  # an attack of a notebook's own
        return A_SECOND


def costs_of(tasks: Iterable[Task], context: Context) -> dict[Task, float]:
    """Return each task's estimated work, in floating-point operations; a task takes some work at least."""
    known = Costs(context.load)
    costs = {}
    for task in tasks:
        finished = task.finished_epochs(context) if isinstance(task, Train) else 0
        costs[task] = max(work(task, known, finished), 1.0)
    return costs


def training(spec: RunSpec, costs: Costs) -> float:
    """Estimate the work of a whole training from its method's row, in floating-point operations.

    A step of the attack takes a forward and a backward pass of the attacked network. The update takes a forward pass
    at each point of the loss, and for networks that are trained a backward pass of twice that work. Further passes that
    the row lists take a forward pass each.
    """
    row, n_train = methods.get(spec.method, spec.reading), costs.n_train(spec)
    batch = min(spec.batch_size, n_train)

    def forward(architecture: str) -> float:
        return max(batch * costs.forward(architecture, spec.dataset), LEAST)

    of = {"S": forward(spec.student), **({"P": forward(spec.peer)} if spec.peer else {})}
    for slot in row.guides:
        guides = [network_of(teacher) or spec.student for teacher in spec.teachers if teacher.slot == slot]
        of[slot] = sum(map(forward, guides))
    step = 0.0
    for attack in row.maximises:
        step += spec.attack_steps * 2 * of[attack.output_point.network]
        if attack.target_point is not None:
            passed = 2 * spec.attack_steps if attack.target_point.place == "x~" else 1
            step += passed * of[attack.target_point.network]
    points = {point for term in row.minimises for point in term.asked}
    step += sum(of[point.network] * (3 if point.network in methods.TRAINED else 1) for point in points)
    statistics_only = [*row.points_passed, *row.points_passed_after]
    for point in points.intersection(row.points_passed):
        statistics_only.remove(point)
    step += sum(of[point.network] for point in statistics_only)
    if row.free:
        step *= float(dict(spec.settings)["m"])
    return spec.epochs * data.batches_per_epoch(n_train, spec.batch_size) * step


def path_lengths(costs: Mapping[Task, float]) -> dict[Task, float]:
    """Return the work of each task and of what it needs one after another; what is needed comes first in `costs`."""
    lengths: dict[Task, float] = {}
    for task, cost in costs.items():
        lengths[task] = cost + max((lengths.get(needed, 0.0) for needed in task.inputs()), default=0.0)
    return lengths


def urgency(costs: Mapping[Task, float], deciding: Collection[Task] = ()) -> dict[Task, float]:
    """Return the work of each task and of the longest chain of tasks that waits for it.

    Parameters
    ----------
    costs : the work of each task.
    deciding : measurements that choose epochs. What is not certain and rests on the same trainings waits for them, for
        what is left of them if some of their judges have answered, and for their shares.
    """
    waiting: dict[Task, list[Task]] = {task: [] for task in costs}
    for task in costs:
        for needed in task.inputs():
            if needed in waiting:
                waiting[needed].append(task)
    after_choice: dict[Task, list[Task]] = {}
    for task in costs:
        if not task.certain:
            for needed in task.inputs():
                after_choice.setdefault(needed, []).append(task)
    choosing = {part for task in deciding for part in parts_of(task)}
    for task in costs if choosing else ():
        whole = whole_of(task)
        if not choosing.isdisjoint(parts_of(whole)):
            waiting[task] += [after for needed in whole.inputs() for after in after_choice.get(needed, ())]
    found: dict[Task, float] = {}

    def path(task: Task) -> float:
        if task not in found:
            found[task] = costs[task]  # of a choice that waits for itself, what is known counts
            found[task] += max(map(path, waiting[task]), default=0.0)
        return found[task]

    return {task: path(task) for task in costs}


def _measuring(made: Examples, costs: Costs) -> float:
    """Estimate the work of making examples and classifying them, as :meth:`Costs.work` counts it."""
    least = LEAST / min(max(made.n, 1), evaluation.BATCH_SIZE)
    forward, gradient, at_most = passes(made.attack, costs.classes(made.dataset))
    of_one = (forward + 2 * gradient) * max(costs.forward(made.attacked, made.dataset), least)
    of_one += sum(max(costs.forward(judge, made.dataset), least) for judge in made.judges)
    return made.times * made.n * of_one * (FEWER if at_most else 1.0)
