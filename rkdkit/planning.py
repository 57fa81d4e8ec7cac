"""What exhibits need before anything is trained: their runs, the work, the memory, and the time on this machine.

A notebook alone knows what its exhibit needs. So its cells are run, in order, while `runs` only notes what it is asked
for (:func:`runs.only_asked`), up to where it would draw. Where it would compute on a network that is not trained, what
comes then is not counted, and the totals are lower bounds. Nothing is written.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import statistics
import textwrap
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from rkdkit import attacks, autoattack, checks, data, evaluation, models, runs, runtime
from rkdkit.progress import track
from rkdkit.provenance import environment
from rkdkit.runs import Asked, Measurement
from rkdkit.spec import RunSpec, Teacher
from rkdkit.training import Training

SECONDS = 2.0
"""How long a step is timed, at least once."""

LARGEST = 2e12
"""On a CPU, a batch is timed whose work is no more than this, in FLOP: some seconds."""

SLOWEST = 1e-6
"""In TFLOP/s; a rate must be above 0."""

FEWEST = 4
"""Images at least in a batch that is timed."""

WIDTH = 120
"""Columns of a report; names give way first."""

NARROWEST = 20
"""Columns that names keep."""

IN_STORE = "in the store"

BOUNDS = {(False, False): "", (True, False): "<= ", (False, True): ">= ", (True, True): "~ "}
"""How a number is marked: by whether it is at most so much, and at least."""

IN_WORDS = {"": "", "<= ": "at most ", ">= ": "at least ", "~ ": "about "}


@dataclass(frozen=True)
class Line:
    """What one training, or the same measurement of several networks, needs.

    Attributes
    ----------
    heading : what it stands under.
    name : what it is.
    amount : how much of it is to be done.
    work : in floating-point operations, two to a multiply-add, of convolutions and linear layers.
    float32 : how much of the work is done in float32.
    memory : at the peak of a training step, in bytes; 0 where nothing is trained.
    seconds : on this machine; 0 where it was not calibrated.
    at_most : whether it is an upper bound: an attack that leaves out images as soon as they are fooled.
    at_least : whether it is a lower bound: something is not counted.
    """

    heading: str
    name: str
    amount: str
    work: float
    float32: float = 0.0
    memory: int = 0
    seconds: float = 0.0
    at_most: bool = False
    at_least: bool = False

    @property
    def bound(self) -> str:
        """What stands before its numbers, of `BOUNDS`."""
        return BOUNDS[self.at_most, self.at_least]

    def seconds_at(self, rates: "Rates") -> float:
        """Return how long it takes at such rates."""
        return ((self.work - self.float32) / rates.tflops + self.float32 / rates.in_float32) / 1e12


@dataclass(frozen=True)
class Rates:
    """What a GPU sustains, in 10^12 floating-point operations a second.

    Attributes
    ----------
    tflops : in bfloat16, and in float32 where that is not given.
    tflops_float32 : in float32; None: the same.

    Raises
    ------
    ValueError
        If a rate is not above 0.
    """

    tflops: float
    tflops_float32: float | None = None

    def __post_init__(self) -> None:
        checks.number("tflops", self.tflops, SLOWEST)
        checks.number("tflops_float32", self.in_float32, SLOWEST)

    @property
    def in_float32(self) -> float:
        """The rate that float32 goes by."""
        return self.tflops if self.tflops_float32 is None else self.tflops_float32

    def __str__(self) -> str:
        return f"{self.tflops:g}" + ("" if self.tflops_float32 is None else f" / {self.tflops_float32:g}") + " TFLOP/s"


@dataclass(frozen=True)
class Plan:
    """What several exhibits need together; a run or an answer that two of them need is counted once.

    Attributes
    ----------
    trainings : every run, teachers first.
    measurements : what is not in the store yet.
    notes : what is not counted, and why.
    device : where it was calibrated; "": nowhere.
    memory_is : how the memory was found.
    cut_short : whether something is not counted.
    """

    trainings: Sequence[Line]
    measurements: Sequence[Line]
    notes: Sequence[str]
    device: str
    memory_is: str
    cut_short: bool = False

    @property
    def totals(self) -> tuple[Line, Line, Line]:
        """Training, measuring, and both."""
        done = sum(line.amount == IN_STORE for line in self.trainings)
        parts = {
            ("training", f"{len(self.trainings)} runs, {done} {IN_STORE}"): self.trainings,
            ("measuring", ""): self.measurements,
            ("all", ""): [*self.trainings, *self.measurements],
        }
        training, measuring, whole = (_sum("Total", *key, lines, self.cut_short) for key, lines in parts.items())
        return training, measuring, whole

    def report(self, rates: Rates | None = None) -> str:
        """Return it as text of `WIDTH` columns.

        Parameters
        ----------
        rates : to tell the time at; None: no such time.
        """
        here, rate = ["time here"] if self.device else [], [] if rates is None else [f"at {rates}"]
        groups: dict[str, list[list[str]]] = {}
        for line in (*self.trainings, *self.measurements, *self.totals):
            groups.setdefault(line.heading, []).append(self._row(line, rates))
        return "\n".join(
            [
                *_table(["", "", "work", "memory", *here, *rate], groups),
                "",
                *(part for said in (*self._answers(rates), *self._explained(), *self.notes) for part in _wrapped(said)),
            ]
        )

    def _row(self, line: Line, rates: Rates | None) -> list[str]:
        memory = f"{line.memory / 2**20:,.0f} MiB" if line.memory else ""
        times = [line.seconds] if self.device else []
        times += [] if rates is None else [line.seconds_at(rates)]
        numbers = [line.bound + _flop(line.work), memory, *(line.bound + duration(t) for t in times)]
        return [line.name, line.amount, *numbers]

    def _answers(self, rates: Rates | None) -> Iterator[str]:
        if rates is None:
            return
        training, measuring, whole = (f"{IN_WORDS[line.bound]}{_hours(line.seconds_at(rates))}" for line in self.totals)
        yield (
            f"In all {whole} GPU-hours at {rates}: {training} of training, {measuring} of measuring, which is always "
            "in float32. Small networks reach a fraction of what a GPU is sold for."
        )
        if rates.tflops_float32 is None and self.totals[-1].float32:
            yield "Most GPUs are far slower in float32 than in bfloat16: --tflops-float32 takes that rate (no TF32)."
        yield ""

    def _explained(self) -> Iterator[str]:
        yield "Work: floating-point operations of convolutions and linear layers, two to a multiply-add."
        yield f"Memory: the peak of a training step (networks, gradients, momentum, activations), {self.memory_is}."
        if self.device:
            yield f"Time here: on this machine ({self.device}), from steps timed now, without torch.compile."
            yield from _of_compiling()
        if any("taught by" in line.name for line in self.trainings):
            yield "Taught by a number: by the network of that line, at its last epoch unless another is named."
        if self.measurements:
            yield "'5 x 1,000 images' means five networks, or five epochs of one, on 1,000 images each."
        if self.totals[-1].at_most:
            yield "At most (<=): such an attack goes on with those images only that withstood it so far."
        if self.cut_short:
            yield "At least (>=): something is not counted, as said below."
            if self.totals[-1].at_most:
                yield "About (~): some of it is at most so much, and something is not counted."


def _of_compiling() -> Iterator[str]:
    setting = runtime.current().compile
    if setting != "off":
        which = "on a CPU whatever takes several PFLOP" if setting == "auto" else "all of it"
        yield (
            f"RKDKIT_COMPILE is {setting}: {which} may run compiled, which is not counted. That takes a minute or two "
            "for each network first; then a step is a few per cent faster at best on a CPU, and on a GPU nobody has "
            "measured it. RKDKIT_COMPILE=off trains as it was timed here."
        )


def _sum(heading: str, name: str, amount: str, lines: Sequence[Line], at_least: bool = False) -> Line:
    work, float32, seconds = (sum(getattr(line, part) for line in lines) for part in ("work", "float32", "seconds"))
    memory = max((line.memory for line in lines), default=0)
    return Line(heading, name, amount, work, float32, memory, seconds, any(line.at_most for line in lines), at_least)


def _table(header: Sequence[str], groups: Mapping[str, Sequence[Sequence[str]]]) -> Iterator[str]:
    """Yield the lines of a table whose first column is as wide as the others leave it, and wrapped."""
    rows = [header, *(row for of_group in groups.values() for row in of_group)]
    name, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    name = min(name, max(NARROWEST, WIDTH - 2 - sum(others) - 2 * len(others)))

    def lines(row: Sequence[str]) -> Iterator[str]:
        first, *more = textwrap.wrap(row[0], name, subsequent_indent="    ", break_on_hyphens=False) or [""]
        cells = [first.ljust(name), row[1].ljust(others[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[2:], others[1:], strict=True)]
        yield f"  {'  '.join(cells)}".rstrip()
        yield from (f"  {part}" for part in more)

    yield from lines(header)
    for heading, of_group in groups.items():
        yield heading
        for row in of_group:
            yield from lines(row)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False) or [""]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.2g}" if hours < 1 else f"{hours:,.1f}" if hours < 99.95 else f"{hours:,.0f}"


def _flop(work: float) -> str:
    power = next((p for p in (18, 15, 12) if work >= 0.9995 * 10**p), 9)
    return f"{work / 10**power:,.3g} { {9: 'G', 12: 'T', 15: 'P', 18: 'E'}[power] }FLOP"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: "0 s", "75 s", "12 min", "3.4 h", "1,200 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 99.95 else f"{hours:,.0f} h"


class _DrawingError(Exception):
    """The exhibit is about to be drawn: whatever it measures is measured by then."""


class _Drawing:
    def __getattr__(self, name: str) -> Any:
        raise _DrawingError


def ask(notebook: Path, parameters: Mapping[str, object]) -> list[str]:
    """Run a notebook's cells up to where it draws, within :func:`runs.only_asked`; return notes for the plan.

    Parameters
    ----------
    notebook : the exhibit.
    parameters : as papermill sets them.

    Raises
    ------
    Exception
        Whatever the notebook raises: bad parameters are refused as when it is made.
    """
    history: list[str] = []
    namespace: dict[str, Any] = {"__name__": "__main__", "In": history}
    notes: list[str] = []
    silent = io.StringIO()
    for source in _sources(notebook, parameters):
        history.append(source)
        try:
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                exec(compile(source, notebook.name, "exec"), namespace)
        except _DrawingError:
            break
        except runs.NeedsNetworkError as error:
            frames = traceback.extract_tb(error.__traceback__)
            line = next(frame.lineno for frame in frames if frame.filename == notebook.name)
            what = source.splitlines()[(line or 1) - 1]
            notes.append(f"Not counted: what {notebook.stem} does from `{what.strip()}` on; it needs trained networks.")
            break
        namespace["figures"] = _Drawing()
    setup = namespace.get("setup")
    if setup is not None and setup.dataset.source == data.BLANK:
        notes.append(
            f"The data {setup.dataset.name} are not on this machine; their published sizes are counted with. Answers "
            "in the store go by the data, so none could be looked up: every measurement counts as to be done. Runs in "
            "the store count as there, but whether they were trained on these data could not be checked."
        )
    return notes


def _sources(notebook: Path, parameters: Mapping[str, object]) -> Iterator[str]:
    """Yield the notebook's code, a cell at a time, and after its parameters those given, as papermill puts them."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"])
            if "parameters" in cell["metadata"].get("tags", ()):
                yield "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in parameters.items())


def plan(asked: Asked, notes: Sequence[str] = (), *, calibrated: bool = True) -> Plan:
    """Count what was asked for, and time a step of each kind on this machine.

    Parameters
    ----------
    asked : as :func:`runs.only_asked` noted it.
    notes : for the plan.
    calibrated : whether to time anything; without, there is work and memory alone.
    """
    device = runs.default_device()
    steps = {spec: _of_one_step(spec) for spec, finished in asked.runs.items() if finished < spec.epochs}
    kinds = list(dict.fromkeys(steps.values()))
    passes = list(dict.fromkeys((m.attacked, m.dataset, m.n) for m in asked.measurements)) if calibrated else []
    found, per_image = {}, {}
    # compilation takes minutes and knows no fake tensors
    uncompiled = dataclasses.replace(runtime.current(), compile="off")
    with (
        mock.patch.object(runtime, "current", return_value=uncompiled),
        track(total=len(kinds) + len(passes), desc="Timing steps" if calibrated else "Counting", unit="item") as bar,
    ):
        for kind in kinds:
            bar.set_postfix_str(f"{kind.method} {kind.student}")
            found[kind] = _step(kind, device, calibrated)
            bar.update()
        for each in passes:
            bar.set_postfix_str(f"{each[0]}, {each[2]:,} images")
            per_image[each] = _pass_seconds(*each, device)
            bar.update()
    names = named(list(asked.runs))
    trainings = [
        _training(names[spec], spec, finished, found[steps[spec]] if spec in steps else _Step(0, 0, 0))
        for spec, finished in asked.runs.items()
    ]
    if asked.guesses:
        notes = ["Where what is not measured yet would choose an epoch, of a teacher say, it is the last.", *notes]
    on_gpu = calibrated and device.type == "cuda"
    return Plan(
        trainings,
        _measured(asked.measurements, per_image),
        notes,
        str(environment(device)["device"]) if calibrated else "",
        "allocated on the GPU" if on_gpu else "counted from the tensors that are alive at once",
        asked.cut_short,
    )


def named(specs: Sequence[RunSpec]) -> dict[RunSpec, str]:
    """Return a short name for each of several runs, which no other has beside it: teachers go by their numbers.

    Parameters
    ----------
    specs : the runs, numbered from 1; data and seed are not part of their names.
    """
    numbers = {spec: i for i, spec in enumerate(specs, 1)}
    alike: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in specs:
        peer = f" with {spec.peer}" if spec.peer not in ("", spec.student) else ""
        guides = f" taught by {' and '.join(_guide(t, numbers) for t in spec.teachers)}" if spec.teachers else ""
        alike.setdefault((_heading(spec), f"{spec.method} {spec.student}{peer}{guides}"), []).append(spec)
    width = len(str(len(specs)))
    return {
        spec: f"{numbers[spec]:>{width}} {', '.join([name, *_told_apart(spec, of_name)])}"
        for (_, name), of_name in alike.items()
        for spec in of_name
    }


def _guide(teacher: Teacher, numbers: Mapping[RunSpec, int]) -> str:
    if teacher.run is None or teacher.run not in numbers:
        return str(teacher)
    role = "" if teacher.role == "student" else f" ({teacher.role})"
    epoch = "" if teacher.epoch == teacher.run.epochs else f" at epoch {teacher.epoch}"
    return f"{numbers[teacher.run]}{role}{epoch}"


def _told_apart(spec: RunSpec, alike: Sequence[RunSpec]) -> Iterator[str]:
    """Yield the fields in which a run differs from others that are called the same."""
    every = [_fields(each) for each in alike]
    for name, value in _fields(spec).items():
        if any(fields.get(name) != value for fields in every):
            yield f"{name} {value}"


def _fields(spec: RunSpec) -> dict[str, Any]:
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return {**dict(fields.pop("settings")), **{name: fields[name] for name in fields if name != "teachers"}}


def _heading(spec: RunSpec) -> str:
    return f"Training on {spec.dataset}, seed {spec.seed}"


@dataclass(frozen=True)
class _Step:
    """Work in FLOP, memory in bytes, and seconds of a step."""

    work: float
    memory: int
    seconds: float


def _training(name: str, spec: RunSpec, finished: int, step: _Step) -> Line:
    left = spec.epochs - finished
    if not left:
        return Line(_heading(spec), name, IN_STORE, 0)
    steps, batch = data.batches_per_epoch(_n_train(spec), spec.batch_size), min(_n_train(spec), spec.batch_size)
    passes = 0
    if spec.swa_start is not None:  # batch-norm statistics of the averaged weights
        passes = sum(map(spec.has_snapshot, range(max(spec.swa_start, finished) + 1, spec.epochs + 1)))
    averages = spec.swa_start is not None or spec.ema_decay is not None
    memory = step.memory + (4 * _cost(spec.student, spec.dataset).parameters if averages else 0)
    work = left * steps * step.work + passes * steps * batch * _forward(spec.student, spec.dataset)
    seconds = step.seconds * work / step.work
    begun = f" ({finished} done)" if finished else ""
    float32 = work if spec.precision == "float32" else 0
    return Line(_heading(spec), name, f"{left} epochs of {steps:,} steps{begun}", work, float32, memory, seconds)


def _n_train(spec: RunSpec) -> int:
    return spec.n_train or len(data.load(spec.dataset).train) - spec.n_val


def _forward(architecture: str, dataset: str) -> float:
    """Return the FLOP of an image's forward pass."""
    return 2 * _cost(architecture, dataset).multiply_adds


@functools.cache
def _cost(architecture: str, dataset: str) -> models.Cost:
    loaded = data.load(dataset)
    return models.cost(_fresh(architecture, loaded), loaded.train.images.shape[1:])


def _fresh(architecture: str, dataset: data.Dataset) -> models.Classifier:
    channels = dataset.train.images.shape[1]
    return models.build(architecture, len(dataset.classes), (0.5,) * channels, (0.25,) * channels)


def _of_one_step(spec: RunSpec) -> RunSpec:
    """Return what decides the cost of a step: runs that differ in something else are given the same."""
    teachers = tuple(
        # named by its network, which is what it costs
        Teacher(module=_network_of(teacher) or spec.student, slot=teacher.slot, weight=teacher.weight)
        for teacher in spec.teachers
    )
    return dataclasses.replace(
        spec,
        teachers=teachers,
        seed=0,
        n_train=None,
        n_val=0,
        extra="",
        extra_fraction=0.0,
        batch_size=min(spec.batch_size, _n_train(spec)),
        lr=0.0,
        schedule="constant",
        momentum=0.9,
        swa_start=None,
        ema_decay=None,
    )


def _network_of(teacher: Teacher) -> str:
    if teacher.run is None:
        return ""
    return teacher.run.peer if teacher.role == "peer" else teacher.run.student


def _step(kind: RunSpec, device: torch.device, timed: bool) -> _Step:
    meter = _Meter()
    # a fake tensor cannot be moved, and need not be
    with mock.patch.object(models.Classifier, "on", lambda network, _: network):
        _run_steps(kind, torch.device("cpu"), lambda: True, FakeTensorMode(allow_non_fake_inputs=True), meter)
    if not timed:
        return _Step(meter.work, meter.peak, 0)
    share = 1.0
    if device.type != "cuda":
        share = min(1.0, max(LARGEST / meter.work, FEWEST / kind.batch_size))
    batch = max(1, int(share * kind.batch_size))
    moments: list[float] = []

    def enough() -> bool:
        _wait(device)
        moments.append(time.perf_counter())
        return len(moments) > 1 and moments[-1] - moments[0] > SECONDS

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    _run_steps(dataclasses.replace(kind, batch_size=batch), device, enough)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else meter.peak
    # the first step warms up
    taken = statistics.median(b - a for a, b in itertools.pairwise(moments))
    return _Step(meter.work, memory, taken * kind.batch_size / batch)


class _EnoughError(Exception):
    pass


def _run_steps(
    kind: RunSpec, device: torch.device, enough: Callable[[], bool], *modes: contextlib.AbstractContextManager[Any]
) -> None:
    """Train fresh networks on noise, as the training loop itself does, until it is enough."""
    dataset = _noise(kind.dataset, kind.batch_size * max(2, min(64, 2**16 // kind.batch_size)))
    assert dataset.channel_statistics  # looked at before anything is fake

    def after_step() -> None:
        if enough():
            raise _EnoughError

    with contextlib.ExitStack() as held:
        for mode in modes:
            held.enter_context(mode)
        teachers = [_fresh(teacher.module, dataset).on(device) for teacher in kind.teachers]
        loop = Training(kind, dataset, device, teachers)
        loop.epoch = kind.epochs - 1  # a method that changes on the way costs most at the end
        with contextlib.suppress(_EnoughError):
            loop.run_epoch(after_step)


def _noise(name: str, n: int) -> data.Dataset:
    """Return random images of a dataset's shape and classes."""
    like = data.load(name)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *like.train.images.shape[1:]), dtype=torch.uint8, generator=draw)
    split = data.Split(images, torch.arange(n) % len(like.classes))
    return data.Dataset(name, split, split, like.classes, "noise")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the work of what is computed, and the bytes that are alive at once, be the tensors fake or not."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work, self.peak, self._now = 0, 0, 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        flops = flop_registry.get(func._overloadpacket)
        if flops is not None:
            self.work += flops(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._alive:
            return
        self._alive.add(storage._cdata)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def passes(attack: attacks.Attack | None, classes: int) -> tuple[int, int, bool]:
    """Return what making one adversarial example takes of the attacked network.

    AutoAttack: APGD of 100 iterations after its first gradient, on the cross entropy and on up to 9 targets; FAB of 100
    iterations on as many, each looking once more at what it found; 5,000 queries of Square.

    Parameters
    ----------
    attack : None: natural images, which take nothing.
    classes : how many there are.

    Returns
    -------
    forward, gradient, at_most : forward passes alone; forward and backward passes; whether most images take fewer.

    Raises
    ------
    ValueError
        If the attack is none of the kit's.
    """
    match attack:
        case None:
            return 0, 0, False
        case attacks.FGSM() | attacks.FFGSM():
            return 0, 1, False
        case attacks.PGD():
            return attack.restarts - 1, attack.steps * attack.restarts, attack.restarts > 1 or attack.iterate == "any"
        case attacks.MIFGSM():
            return 0, attack.steps, False
        case attacks.DeepFool():
            return 1, attack.steps * (min(attack.candidates, classes) - 1), True
        case autoattack.Square():
            return attack.queries + 1, 0, True
        case autoattack.AutoAttack():
            targets = min(9, classes - 1)
            return 100 * targets + 5000 + 1, 101 + (101 + 100) * targets, True
    raise ValueError(f"What {attack} costs is not known.")


def _measured(
    measurements: Sequence[Measurement], per_image: Mapping[tuple[str, str, int], tuple[float, float]]
) -> list[Line]:
    """Return a line an attack, attacked network and number of images."""
    alike: dict[tuple[str, str, str, int], list[Line]] = {}
    for m in measurements:
        forward, gradient, at_most = passes(m.attack, len(data.load(m.dataset).classes))
        work = m.n * ((forward + 2 * gradient) * _forward(m.attacked, m.dataset))
        work += m.n * sum(_forward(judge, m.dataset) for judge in m.judges)
        of_forward, of_gradient = per_image.get((m.attacked, m.dataset, m.n), (0.0, 0.0))
        seconds = m.n * ((forward + len(m.judges)) * of_forward + gradient * of_gradient)
        name = "natural images" if m.attack is None else str(m.attack)
        line = Line(f"Measuring on {m.dataset}", f"{name} on {m.attacked}", "", work, work, 0, seconds, at_most)
        alike.setdefault((name, m.attacked, m.dataset, m.n), []).append(line)
    return [
        _sum(lines[0].heading, lines[0].name, f"{len(lines):,} x {key[-1]:,} images", lines)
        for key, lines in alike.items()
    ]


def _pass_seconds(architecture: str, dataset: str, n: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds that an image takes of a forward pass, and of a forward and backward pass."""
    steps = 2
    n = min(n, 256)
    if device.type != "cuda":
        n = max(min(n, int(LARGEST / ((1 + 2 * steps) * _forward(architecture, dataset)))), min(n, FEWEST))
    noise = _noise(dataset, n).train
    network = _fresh(architecture, data.load(dataset)).on(device).eval()

    def seconds(attack: attacks.Attack | None) -> float:
        moments = [time.perf_counter()]
        while len(moments) < 3 or moments[-1] - moments[1] < SECONDS / 2:
            evaluation.correct_predictions([network], noise.images, noise.labels, attack)
            _wait(device)
            moments.append(time.perf_counter())
        return statistics.median(b - a for a, b in itertools.pairwise(moments[1:])) / n

    forward = seconds(None)
    return forward, max(seconds(attacks.PGD(0.1, 0.02, steps)) - forward, forward) / steps


@contextlib.contextmanager
def planning() -> Iterator[Asked]:
    """Hold a context in which nothing is trained, measured or written, and data that are not there are blank."""
    with data.blank_where_absent(), runs.only_asked() as asked:
        yield asked
