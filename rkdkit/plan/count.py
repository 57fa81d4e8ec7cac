"""From what was asked for to a plan: each kind of step counted and timed once, a line for each training."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rkdkit import data, executors, runtime
from rkdkit.plan.ask import Planner
from rkdkit.plan.cost import Costs, Examples, Step, examples_of, passes
from rkdkit.plan.disk import disk_of
from rkdkit.plan.memory import memory, of_device
from rkdkit.plan.names import heading, named
from rkdkit.plan.report import IN_STORE, Line, Plan
from rkdkit.progress import track
from rkdkit.provenance import environment
from rkdkit.spec import RunSpec


def count(
    planner: Planner,
    notes: Sequence[str] = (),
    *,
    calibrated: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    device_memory: int | None = None,
) -> Plan:
    """Count what was asked for, and time a step of each kind on this machine.

    Parameters
    ----------
    planner : what one or several notebooks asked for.
    notes : for the plan, as :func:`ask.ask` returns them.
    calibrated : whether to time anything; without, there is work and memory alone.
    clock : tells the time in seconds.
    device_memory : bytes of the memory of the device that is planned for; None: of the present one, if it is a GPU.
    """
    device, costs = planner.context.device, Costs(planner.context.load, clock)
    with executors.using(planner):
        examples = [each for task in planner.measurements for each in examples_of(task)]
        disk = disk_of(planner, costs)
    specs = {task.spec: finished for task, finished in planner.trainings.items()}
    kinds = {spec: costs.kind(spec) for spec, finished in specs.items() if finished < spec.epochs}
    asked = list(dict.fromkeys((e.attacked, e.dataset, e.n) for e in examples)) if calibrated else []
    steps: dict[RunSpec, Step] = {}
    per_image: dict[tuple[str, str, int], tuple[float, float]] = {}
    different = list(dict.fromkeys(kinds.values()))
    work = track(total=len(different) + len(asked), desc="Timing steps" if calibrated else "Counting", unit="item")
    # compilation takes minutes, and cannot be counted
    with runtime.using(replace(runtime.current(), compile="off", micro_batch=None)), work as bar:
        for kind in different:
            bar.set_postfix_str(f"{kind.label} {kind.student}")
            steps[kind] = costs.time_step(kind, device) if calibrated else costs.count_step(kind)
            bar.update()
        for architecture, dataset, n in asked:
            bar.set_postfix_str(f"{architecture}, {n:,} images")
            per_image[architecture, dataset, n] = costs.time_passes(architecture, dataset, n, device)
            bar.update()
        size = of_device(device) if device_memory is None else device_memory
        needed = None if size is None or not kinds else memory(costs, kinds, size)
    names = named(list(specs))
    trainings = [
        _training(costs, names[spec], spec, finished, steps[kinds[spec]] if spec in kinds else Step(0, 0))
        for spec, finished in specs.items()
    ]
    on_gpu = calibrated and device.type == "cuda"
    return Plan(
        trainings,
        _measured(costs, examples, per_image),
        [*_notes(planner), *([] if needed is None else _not_counted(kinds)), *dict.fromkeys(notes)],
        str(environment(device)["device"]) if calibrated else "",
        "allocated on the GPU" if on_gpu else "counted from the tensors that are alive at once",
        planner.cut_short,
        disk,
        needed,
    )


def _notes(planner: Planner) -> list[str]:
    """Return what is to be known of a plan's numbers."""
    notes = []
    if not planner.all_certain:
        notes.append(
            "Where a measurement that is not made yet would choose an epoch (of a teacher, say), it is the last."
        )
    notes += [
        f"The data {name} are not on this machine; their published sizes are counted with. Answers in the store go by "
        "the data, so none could be looked up: every measurement counts as to be done. Runs in the store count as "
        "there, but whether they were trained on these data could not be checked."
        for name in planner.blank
    ]
    return notes


def _not_counted(specs: Iterable[RunSpec]) -> list[str]:
    """Return a note for each file of extra images that is not on this machine."""
    files = sorted({spec.extra for spec in specs if spec.extra and not data.number_of_extra(spec.extra)})
    return [f"{name} is not on this machine, so its images are not in the memory of a device." for name in files]


def _training(costs: Costs, name: str, spec: RunSpec, finished: int, step: Step) -> Line:
    left = spec.epochs - finished
    if not left:
        return Line(heading(spec), name, IN_STORE, 0)
    n_train = costs.n_train(spec)
    steps, batch = data.batches_per_epoch(n_train, spec.batch_size), min(n_train, spec.batch_size)
    averages = 0
    if spec.swa_start is not None:  # batch-norm statistics of the averaged weights take a pass each
        averages = sum(map(spec.has_snapshot, range(max(spec.swa_start, finished) + 1, spec.epochs + 1)))
    kept = spec.swa_start is not None or spec.ema_decay is not None
    peak = step.memory + (4 * costs.of(spec.student, spec.dataset).parameters if kept else 0)
    work = left * steps * step.work + averages * steps * batch * costs.forward(spec.student, spec.dataset)
    seconds = step.seconds * work / step.work
    begun = f" ({finished} done)" if finished else ""
    float32 = work if spec.precision == "float32" else 0
    return Line(heading(spec), name, f"{left} epochs of {steps:,} steps{begun}", work, float32, peak, seconds)


def _measured(
    costs: Costs, examples: Sequence[Examples], per_image: Mapping[tuple[str, str, int], tuple[float, float]]
) -> list[Line]:
    """Return a line an attack, attacked network and number of images."""
    alike: dict[tuple[str, str, str, int], list[Examples]] = {}
    for made in examples:
        name = f"{made.attack or 'natural images'} on {made.attacked}"
        alike.setdefault((f"Measuring on {made.dataset}", name, made.dataset, made.n), []).append(made)
    lines = []
    for (under, name, dataset, n), group in alike.items():
        work = sum(costs.work(made) for made in group)
        seconds = sum(costs.seconds(made, *per_image.get((made.attacked, dataset, n), (0.0, 0.0))) for made in group)
        amount = f"{sum(made.times for made in group):,} x {n:,} images"
        at_most = passes(group[0].attack, costs.classes(dataset)).at_most
        lines.append(Line(under, name, amount, work, work, 0, seconds, at_most))
    return lines
