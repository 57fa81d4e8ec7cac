"""What a plan says: a line a training and a kind of measurement, totals, and all of it as a table."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rkdkit import checks, runtime
from rkdkit.plan.disk import Disk
from rkdkit.plan.memory import SMALLEST, Memory
from rkdkit.spec import PRECISIONS

SLOWEST = 1e-6
"""In TFLOP/s; a rate must be above 0."""

WIDTH = 120
"""Columns of a report; names give way first."""

NARROWEST = 22
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


def total(heading: str, name: str, amount: str, lines: Sequence[Line], at_least: bool = False) -> Line:
    """Return the line that several lines come to; of their memory, the most.

    Parameters
    ----------
    heading, name, amount, at_least : as :class:`Line`.
    lines : what is added up.
    """
    work, float32, seconds = (sum(getattr(line, part) for line in lines) for part in ("work", "float32", "seconds"))
    memory = max((line.memory for line in lines), default=0)
    return Line(heading, name, amount, work, float32, memory, seconds, any(line.at_most for line in lines), at_least)


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
    disk : what it will take on the disk; None: not counted.
    memory : where a device's memory ends; None: not counted.
    """

    trainings: Sequence[Line]
    measurements: Sequence[Line]
    notes: Sequence[str]
    device: str
    memory_is: str
    cut_short: bool = False
    disk: Disk | None = None
    memory: Memory | None = None

    @property
    def totals(self) -> tuple[Line, Line, Line]:
        """Training, measuring, and both."""
        done = sum(line.amount == IN_STORE for line in self.trainings)
        parts = {
            ("training", f"{len(self.trainings)} runs, {done} {IN_STORE}"): self.trainings,
            ("measuring", ""): self.measurements,
            ("all", ""): [*self.trainings, *self.measurements],
        }
        training, measuring, whole = (total("Total", *key, lines, self.cut_short) for key, lines in parts.items())
        return training, measuring, whole

    def report(self, rates: Rates | None = None) -> Group:
        """Return it as a table with its explanations, for `rich` to print.

        Parameters
        ----------
        rates : to tell the time at; None: no such time.
        """
        said = (*self._answers(rates), *self._explained(), *self.notes)
        parts: list[RenderableType] = [self._table(rates), *map(_paragraph, said)]
        if self.memory is not None:
            parts += [Text(), _memory_table(self.memory), _paragraph(_OF_MEMORY)]
        return Group(*parts)

    def text(self, rates: Rates | None = None) -> str:
        """Return :meth:`report` as plain text of `WIDTH` columns."""
        console = Console(width=WIDTH, color_system=None, highlight=False)
        with console.capture() as capture:
            console.print(self.report(rates))
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def _table(self, rates: Rates | None) -> Table:
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", min_width=NARROWEST, overflow="fold")
        table.add_column("", no_wrap=True)
        for name in ("work", "memory", *(["time here"] if self.device else []), *([f"at {rates}"] if rates else [])):
            table.add_column(name, justify="right", no_wrap=True)
        by_heading: dict[str, list[Line]] = {}
        for line in (*self.trainings, *self.measurements, *self.totals):
            by_heading.setdefault(line.heading, []).append(line)
        for heading, lines in by_heading.items():
            table.add_row(Text(heading, "bold"))
            for line in lines:
                table.add_row(*self._row(line, rates))
        return table

    def _row(self, line: Line, rates: Rates | None) -> list[RenderableType]:
        memory = f"{line.memory / 2**20:,.0f} MiB" if line.memory else ""
        times = [line.seconds] if self.device else []
        times += [] if rates is None else [line.seconds_at(rates)]
        numbers = [line.bound + flop(line.work), memory, *(line.bound + duration(t) for t in times)]
        return [Padding(Text(line.name), (0, 0, 0, 2)), *map(Text, (line.amount, *numbers))]

    def _answers(self, rates: Rates | None) -> Iterator[str]:
        yield ""
        if rates is None:
            return
        training, measuring, whole = (f"{IN_WORDS[line.bound]}{_hours(line.seconds_at(rates))}" for line in self.totals)
        yield (
            f"In all {whole} GPU-hours at {rates}: {training} of training, {measuring} of measuring, which is always "
            "in float32. Small networks reach only a fraction of the rate that a GPU is sold with."
        )
        if rates.tflops_float32 is None and self.totals[-1].float32:
            yield "Most GPUs are far slower in float32 than in bfloat16: --tflops-float32 takes that rate (no TF32)."
        yield ""

    def _explained(self) -> Iterator[str]:
        yield "Work: floating-point operations of convolutions and linear layers, two to a multiply-add."
        yield f"Memory: the peak of a training step (networks, gradients, momentum, activations), {self.memory_is}."
        if self.disk is not None:
            yield f"Disk: {'at least ' if self.cut_short else ''}{self.disk}."
        if self.device:
            yield f"Time here: on this machine ({self.device}), from steps timed now, without torch.compile."
            yield from _of_compiling()
        if any("taught by" in line.name for line in self.trainings):
            yield "Taught by a number: by the network of that line, at its last epoch unless another is named."
        if self.measurements:
            yield "'5 x 1,000 images' means five networks, or five epochs of one, on 1,000 images each."
        if self.totals[-1].at_most:
            yield "At most (<=): such an attack drops an image from later steps as soon as it is misclassified."
        if self.cut_short:
            yield "At least (>=): something is not counted, as said below."
            if self.totals[-1].at_most:
                yield "About (~): some of it is at most so much, and something is not counted."


_OF_MEMORY = (
    "Memory of a device: the most that is allocated at once in a training step (networks, gradients, momentum, "
    "averaged weights, activations, the images that are on the device), counted from the tensors that are alive at "
    "once; and at which batch this ends to fit (never: one of all images fits). What the device's libraries take "
    "beside it is not counted."
)


def _memory_table(memory: Memory) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"Memory of a device of {memory_size(memory.size)}", min_width=NARROWEST, overflow="fold")
    for name in ("batch", "images", *(name for each in PRECISIONS for name in (each, "ends at"))):
        table.add_column(name, justify="right", no_wrap=True)
    for need in memory.needs:
        cells = [f"{need.batch_size:,}", memory_size(need.images) if need.images else "on host"]
        for precision in PRECISIONS:
            largest = need.largest[precision]
            ends = "never" if largest == need.n_train else f"{largest:,}" if largest else f"below {SMALLEST}"
            cells += [memory_size(need.peaks[precision]), ends]
        table.add_row(*map(Text, (need.name, *cells)))
    return table


def memory_size(size: float) -> str:
    """Return a size in memory in the unit that suits it: "16 MiB", "1.8 GiB", "24 GiB"."""
    if size < 2**30:
        return f"{size / 2**20:.2g} MiB" if size < 9.95 * 2**20 else f"{size / 2**20:,.0f} MiB"
    return f"{size / 2**30:.2g} GiB" if size < 9.95 * 2**30 else f"{size / 2**30:,.0f} GiB"


def flop(work: float) -> str:
    """Return a number of floating-point operations in the unit that suits it: "7.2 PFLOP"."""
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


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.2g}" if hours < 1 else f"{hours:,.1f}" if hours < 99.95 else f"{hours:,.0f}"


def _of_compiling() -> Iterator[str]:
    setting = runtime.current().compile
    if setting != "off":
        which = "on a CPU whatever takes several PFLOP" if setting == "auto" else "all of it"
        yield (
            f"RKDKIT_COMPILE is {setting}: {which} may run compiled, which is not counted. That takes a minute or two "
            "for each network first; then a step is a few per cent faster at best on a CPU, and on a GPU nobody has "
            "measured it. RKDKIT_COMPILE=off trains as it was timed here."
        )


def _paragraph(text: str) -> Text:
    """Return a text whose lines after the first are indented."""
    return Text("\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)))
