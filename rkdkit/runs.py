"""The functions that notebooks call: ``ensure`` a run, ``select`` an epoch, ``evaluate`` it. Each gathers tasks."""

import atexit
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from rkdkit import attacks, checks, data, evaluation, executors
from rkdkit.executors import Executor
from rkdkit.interchange import digest_of_module
from rkdkit.measurements import CorrectPredictions, PerImage
from rkdkit.progress import say
from rkdkit.references import Images, Snapshot
from rkdkit.spec import RunSpec, Teacher
from rkdkit.tasks import Task
from rkdkit.trainings import Run, Train
from rkdkit.workforce import workforce_of_environment

if TYPE_CHECKING:
    from rkdkit.cluster import Workers

SELECTIONS = ("val", "test", "last")

Key = TypeVar("Key")

_standing: "Workers | None" = None
"""The workers that do what notebooks ask, as the environment said when they were last asked."""


def executor() -> Executor:
    """Return the executor that answers what notebooks ask: the current one, or workers if the environment says so.

    Workers stay for the next call. They are stopped when the environment says something else, or the process ends.

    Raises
    ------
    ValueError
        If the environment's variables are set wrongly.
    """
    global _standing
    held = executors.current()
    if held is not executors.DEFAULT:
        return held
    workforce = workforce_of_environment()
    if _standing is not None and _standing.workforce != workforce:
        atexit.unregister(_standing.close)
        _standing.close()
        _standing = None
    if workforce.alone:
        return held
    if _standing is None:
        from rkdkit.cluster import Workers  # takes a moment, and most notebooks do without

        _standing = Workers(workforce)
        _standing.modules = executors.DEFAULT.modules
        atexit.register(_standing.close)
    _standing.listen_as(held)
    return _standing


def gather(tasks: Iterable[Task], what: str = "") -> list[Any]:
    """Return the answers to tasks, in the same order. Put tasks that do not depend on each other into one call.

    Parameters
    ----------
    tasks : trainings or measurements.
    what : a description for the progress bar.

    Raises
    ------
    StoreError
        If the store cannot be read or written, or a file in it is damaged.
    """
    return [answer.value for answer in executor().gather(tasks, what)]


def answers(tasks: Mapping[Key, Task], what: str = "") -> dict[Key, Any]:
    """Return the answers to tasks under the tasks' keys; parameters and errors are those of :func:`gather`."""
    return dict(zip(tasks, gather(tasks.values(), what), strict=True))


def ensure(spec: RunSpec) -> Run:
    """Return the finished run of a specification; train it first if it is not in the store.

    An interrupted training continues from its last finished epoch and, on the same hardware, ends with the same weights
    bit for bit. If another process is training the same run, this one waits for it and uses its result. Teachers that
    are runs are trained first.

    Parameters
    ----------
    spec : what to train.

    Raises
    ------
    DataNotFoundError
        If the data are not there.
    StoreError
        If the store cannot be read or written, a file is damaged (:class:`DamagedFileError`), or the run in the store
        was trained on other data than are found now.
    ValueError
        If a teacher's module was not given, or a teacher does not fit the data.
    DivergedError
        If the loss or a weight becomes NaN or infinite.
    """
    trained: Run = gather([Train(spec)])[0]
    return replace(trained, spec=spec)  # equal to it, but perhaps certain where it is not


def ensure_all(*groups: Sequence[RunSpec]) -> list[list[Run]]:
    """Return the finished runs of several groups of specifications; print first what will be trained.

    A specification that is given twice, or is also the teacher of another, is trained once. Errors are those of
    :func:`ensure`.

    Returns
    -------
    One list of runs per group, in the order of the groups.
    """
    wanted = list(dict.fromkeys(task for group in groups for spec in group for task in Train(spec).with_teachers()))
    executor().look_elsewhere(wanted)
    context = executors.current().context
    finished = {task: task.finished_epochs(context) for task in wanted}
    missing = [task for task in wanted if finished[task] < task.spec.epochs]
    say(f"Trained networks needed: {len(wanted)}, in the store: {len(wanted) - len(missing)}, to train: {len(missing)}")
    for task in missing:
        spec = task.spec
        n_train = spec.n_train or len(context.load(spec.dataset).train) - spec.n_val
        replayed = dict(spec.settings).get("m")
        attack = f", with {spec.attack_steps} attack steps in each" if spec.attack_steps else ""
        attack = f", each replayed {replayed:g} times" if replayed else attack
        begun = f", going on after epoch {finished[task]}" if finished[task] else ""
        steps = data.batches_per_epoch(n_train, spec.batch_size)
        say(f"  {spec}: {spec.epochs} epochs of {steps} steps{attack}{begun}")
    runs = dict(zip(wanted, gather(wanted), strict=True))
    # of equal specifications, one may be certain and the other not
    return [[replace(runs[Train(spec)], spec=spec) for spec in group] for group in groups]


def foreign_teacher(module: nn.Module, name: str, slot: str = "T", weight: float = 1.0) -> Teacher:
    """Make any network a fixed teacher, for `RunSpec.teachers`.

    The module's name, structure and weights are part of the run's identity (:func:`interchange.digest_of_module`). Give
    different names to two modules that differ in anything else. The weights are not kept in the store, so every process
    that starts or continues a training with this teacher must call this function first. A finished run no longer needs
    it.

    Parameters
    ----------
    module : (N, C, H, W) float32 in [0, 1] -> (N, classes) logits; it is copied.
    name : the teacher's name.
    slot, weight : as `Snapshot.as_teacher`.

    Raises
    ------
    ValueError
        If the module has no weights, so that no digest identifies it.
    """
    digest = digest_of_module(module)
    executors.current().modules[name, digest] = copy.deepcopy(module).eval()
    return Teacher(module=name, digest=digest, slot=slot, weight=weight)


def correct_predictions(
    judges: Sequence[Snapshot],
    images: Images,
    attack: attacks.Attack | None = None,
    attacked: Snapshot | None = None,
) -> Tensor:
    """Return which images each of several snapshots classifies correctly, (len(judges), N) bool.

    Parameters
    ----------
    judges, images, attack, attacked : as `measurements.CorrectPredictions`.
    """
    task = CorrectPredictions(images=images, judges=tuple(judges), attack=attack, attacked=attacked)
    correct: Tensor = gather([task])[0]
    return correct


def per_image(quantity: str, snapshot: Snapshot, images: Images, attack: attacks.Attack | None = None) -> Tensor:
    """Return a quantity of a snapshot's output for each image, (N,) float32 in nats.

    Parameters
    ----------
    quantity, snapshot, images, attack : as `measurements.PerImage`.

    Raises
    ------
    UnknownNameError
        If `quantity` is not known.
    """
    values: Tensor = gather([PerImage(images=images, quantity=quantity, snapshot=snapshot, attack=attack)])[0]
    return values


def evaluate(
    snapshot: Snapshot,
    images: Images,
    attacks_by_metric: Mapping[str, attacks.Attack | None],
    *,
    n: int | Mapping[str, int | None] | None = None,
) -> evaluation.Evaluation:
    """Measure a snapshot on natural images and under attacks; every answer is kept in the store.

    Parameters
    ----------
    snapshot : the snapshot to evaluate.
    images : usually a dataset's test images, ``Images("cifar10")``.
    attacks_by_metric : None for natural images; `evaluation.standard_attacks` makes the usual ones.
    n : evaluate on the first n images only; one number for all metrics, or a number per metric. None: all images.

    Raises
    ------
    UnknownNameError
        If `n` names a metric that is not in `attacks_by_metric`.
    ValueError
        If there are fewer than `n` images.
    """
    return evaluate_all([snapshot], images, attacks_by_metric, n=n)[0]


def evaluate_all(
    snapshots: Sequence[Snapshot],
    images: Images,
    attacks_by_metric: Mapping[str, attacks.Attack | None],
    *,
    n: int | Mapping[str, int | None] | None = None,
) -> list[evaluation.Evaluation]:
    """As :func:`evaluate`, for several snapshots."""
    limits = n if isinstance(n, Mapping) else dict.fromkeys(attacks_by_metric, n)
    for metric, limit in limits.items():
        checks.one_of("metric", metric, attacks_by_metric)
        if limit is not None:
            checks.number(f"n of {metric}", limit, 1, len(images))
    tasks = [
        CorrectPredictions(images=images.first(limits.get(metric)), judges=(snapshot,), attack=attack)
        for snapshot in snapshots
        for metric, attack in attacks_by_metric.items()
    ]
    answers = iter(gather(tasks, f"Accuracy: {', '.join(attacks_by_metric)}"))
    return [evaluation.Evaluation({metric: next(answers)[0] for metric in attacks_by_metric}) for _ in snapshots]


@dataclass(frozen=True)
class Choice:
    """How to choose the snapshot that represents a run.

    Attributes
    ----------
    run : a training.
    on : "val": the epoch with the highest robust accuracy on the held-out images; "test": the same on the test images,
        as the released codes do; "last": the last epoch. Of several equal epochs, the earliest is taken.
    attack : the attack used for the choice; the papers use PGD-10. None: natural images.
    role : which network: "student", "student_averaged" or "peer".
    n : for "test": use only the first n test images; None: all.

    Raises
    ------
    UnknownNameError
        If `on` is none of these.
    ValueError
        If `on` is "val" and no images were held out, or `n` is below 1 or not whole.
    """

    run: Run
    on: str
    attack: attacks.Attack | None
    role: str = "student"
    n: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("selection", self.on, SELECTIONS)
        if self.n is not None:
            checks.whole("n, how many test images,", self.n, 1)
        if self.on == "val" and self.run.spec.n_val == 0:
            raise ValueError(f"{self.run.spec} held out no images: set n_val, or select on 'last'.")

    @property
    def tasks(self) -> list[CorrectPredictions]:
        """The measurements that decide, one per epoch; none if the last epoch is taken."""
        if self.on == "last":
            return []
        spec = self.run.spec
        images = Images(spec.dataset, n=self.n)
        if self.on == "val":
            images = Images(spec.dataset, "val", n_train=spec.n_train, n_val=spec.n_val)
        snapshots = self.run.snapshots(self.role)
        return [CorrectPredictions(images=images, judges=(each,), attack=self.attack) for each in snapshots]


def select_all(choices: Sequence[Choice]) -> list[Snapshot]:
    """Return the snapshots that represent several runs; all epochs of all runs are evaluated in one gather."""
    asked = [choice.tasks for choice in choices]
    answers = iter(executor().gather([task for tasks in asked for task in tasks], "Choosing epochs", deciding=True))
    chosen = []
    for choice, tasks in zip(choices, asked, strict=True):
        of_epochs = [next(answers) for _ in tasks]
        snapshots = choice.run.snapshots(choice.role)
        if not of_epochs:
            chosen.append(snapshots[-1])
        elif all(answer.known for answer in of_epochs):
            hits = [int(answer.value.sum()) for answer in of_epochs]
            chosen.append(snapshots[hits.index(max(hits))])
        else:  # not known yet: the last epoch is the placeholder
            chosen.append(Snapshot(choice.run.spec, choice.role, snapshots[-1].epoch, chosen=False))
    return chosen


def select(
    run: Run, on: str, attack: attacks.Attack | None, *, role: str = "student", n: int | None = None
) -> Snapshot:
    """Return the snapshot that a paper would report; parameters and errors are those of :class:`Choice`."""
    return select_all([Choice(run, on, attack, role, n)])[0]
