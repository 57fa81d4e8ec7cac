"""Is the kit right on this device? Each check is a line of JSON, with what was found and what it may be at most.

python benchmarks/gpu/correct.py --device cuda --kept correct.jsonl

Every method trains two tiny epochs on the embedded digits. The rest is done once: arithmetic, a training that is
killed, evaluations. What matters most is done first, as the time may not be enough for all. Without a GPU the same is
done on the CPU, where the device is compared with itself. `--steps` checks something else: compiled steps, and steps
with graphs, of the size of the last training's.
"""

import contextlib
import functools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer
from measuring import dataset
from torch import Tensor

from rkdkit import attacks, autoattack, data, evaluation, methods, models, runs, runtime
from rkdkit.determinism import exact_arithmetic
from rkdkit.graphs import DEVICES
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import Store
from rkdkit.training import Training

CPU = torch.device("cpu")

IN_BFLOAT16 = ("PeerAiD", "PGD-AT", "TRADES", "ARD", "AdaAD", "CAT", "Free-AT")
"""The methods that are checked in bfloat16, too."""

AT_MOST = {"float32": 1e-3, "bfloat16": 5e-2}
"""By how much the first epoch's mean loss may differ from the CPU's, relative to it.

An attack takes the sign of a gradient: where this is nearly 0, rounding decides it, and a pixel differs by two steps.
"""


APART = 0.05
"""How far a compiled step's weights may be from the usual ones in float32, relative to what the step changes."""

TIMES = 1.5
"""How much farther from float32's weights a compiled step in bfloat16 may be than the usual one in bfloat16."""


class Checks:
    """Does checks and writes them down."""

    def __init__(self, kept: Path) -> None:
        self.kept, self.failed = kept, 0

    def __call__(self, what: str, of: str, check: Callable[[], tuple[float, float] | str]) -> None:
        """Do a check: it returns what it found and the most it may be, or why it could not be done."""
        began = time.perf_counter()
        line: dict[str, object] = {"check": what, "of": of}
        try:
            found = check()
            line |= {"left out": found} if isinstance(found, str) else {"found": found[0], "at most": found[1]}
            line["passed"] = isinstance(found, str) or found[0] <= found[1]
        except Exception as error:
            line |= {"passed": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        line["seconds"] = round(time.perf_counter() - began, 2)
        self.failed += not line["passed"]
        with self.kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        told = line.get(
            "error", line.get("left out", f"{line.get('found', 0):.3g} of at most {line.get('at most', 0)}")
        )
        verdict = "-" if "left out" in line else "right" if line["passed"] else "WRONG"
        print(f"{verdict:6}{what}: {of}: {told}", flush=True)


def specification(method: str, precision: str = "float32", reading: str = "paper", epochs: int = 2) -> RunSpec:
    """Return a tiny training: 64 digits, four steps an epoch; its teachers are given as modules."""
    row = methods.get(method, reading)
    return RunSpec(
        method=method,
        reading=reading,
        dataset="digits",
        student="resnet18/16",
        peer="resnet18/16" if "peer" in row.roles else "",
        teachers=tuple(Teacher(module="tiny", slot=slot) for slot in row.guides),
        settings=(("warmup", 0.0),) if "warmup" in row.settings else (),
        n_train=64,
        batch_size=16,
        epochs=epochs,
        eps=0.25,
        step_size=0.0625,
        augmentation="crop-flip",
        lr=0.05,
        precision=precision,
    )


def fresh(device: torch.device, name: str = "resnet18/16", seed: int = 5) -> models.Classifier:
    """Return a network for digits that is not trained."""
    return models.build(name, 10, [0.3], [0.3], seed=seed).on(device).eval()


def training(spec: RunSpec, device: torch.device, graphs: str = "off") -> Training:
    """Return a training with tiny teachers."""
    with runtime.using(runtime.Settings("off", graphs=graphs)):
        return Training(spec, data.load("digits"), device, [fresh(device, seed=9) for _ in spec.teachers])


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return how many tensors are not the same, bit for bit."""
    return float(sum(not torch.equal(one[name].cpu(), value.cpu()) for name, value in other.items()))


def state(made: Training) -> dict[str, Tensor]:
    """Return a copy of a training's state, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in made.state().items()}


class Watched:
    """Lets torch refuse whatever makes the host wait for the GPU, from the first step's end to the last one's."""

    def __init__(self, steps: int) -> None:
        self.steps, self.taken = steps, 0

    def __call__(self) -> None:
        """Count a step."""
        self.taken += 1
        torch.cuda.set_sync_debug_mode("error" if self.taken < self.steps else "default")


class OfMethod:
    """Checks of one method's step: each needs the ones before it, but other methods' may come between."""

    def __init__(self, check: Checks, device: torch.device, method: str, precision: str, reading: str) -> None:
        self.check, self.device, self.precision = check, device, precision
        self.spec = specification(method, precision, reading)
        self.name = f"{self.spec.label}, {precision}"
        self.maximises = methods.get(method, reading).maximises
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}

    @functools.cached_property
    def made(self) -> Training:
        """The training on the device."""
        return training(self.spec, self.device)

    def loss(self) -> None:
        """Check a first epoch against the CPU."""

        def as_on_the_cpu() -> tuple[float, float]:
            expected, loss = training(self.spec, CPU).run_epoch().loss, self.made.run_epoch().loss
            self.first = state(self.made)
            return abs(loss - expected) / abs(expected), AT_MOST[self.precision]

        self.check("the loss of an epoch is the CPU's", self.name, as_on_the_cpu)

    def waits(self) -> None:
        """Check that no step of a second epoch makes the host wait."""

        def without_waits() -> tuple[float, float] | str:
            watched = Watched(self.made.batches_per_epoch) if self.device.type == "cuda" else None
            try:
                self.made.run_epoch(watched or (lambda: None))
            finally:
                if watched:
                    torch.cuda.set_sync_debug_mode("default")
            self.second = state(self.made)
            return (0, 0) if watched else "only a GPU makes the host wait"

        self.check("no step waits for the device", self.name, without_waits)

    def bits(self) -> None:
        """Check the second epoch once more: resumed, and with attacks captured as graphs."""

        def resumed() -> tuple[float, float]:
            again = training(self.spec, self.device)
            again.load_state(self.first, 1)
            again.run_epoch()
            return differing(state(again), self.second), 0

        def captured() -> tuple[float, float] | str:
            if self.device.type not in DEVICES:
                return "only a GPU captures graphs"
            by_graph = training(self.spec, self.device, "on")
            by_graph.run_epoch()
            half = state(by_graph)
            by_graph.run_epoch()
            again = training(self.spec, self.device, "on")
            again.load_state(half, 1)
            again.run_epoch()
            found = differing(half, self.first) + differing(state(by_graph), self.second)
            return found + differing(state(again), self.second), 0

        self.check("a resumed training has the same bits", self.name, resumed)
        if self.maximises:
            self.check("attacks captured as graphs give the same bits, resumed ones too", self.name, captured)


def stepped(
    network: str, batch_size: int, device: torch.device, precision: str, compiled: str = "off", graphs: str = "off"
) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """Return the loss of a step of PeerAiD on random images, and the state before and after it."""
    spec = RunSpec(
        method="PeerAiD",
        dataset="cifar10",
        student=network,
        peer=network,
        precision=precision,
        batch_size=batch_size,
        epochs=1000,
    )
    with runtime.using(runtime.Settings(compiled, graphs=graphs)):
        made = Training(spec, dataset(batch_size), device)
    before = state(made)
    return made.run_epoch().loss, before, state(made)


def of_steps(check: Checks, device: torch.device, network: str = "resnet18", batch_size: int = 128) -> None:
    """Check a step with graphs, then a compiled one, against one with neither.

    A graph gives the same bits. Compiled code rounds otherwise. In float32 this is little: the loss may differ by
    `AT_MOST`, the weights by `APART`. In bfloat16 rounding alone changes half of a step, so the compiled one is
    compared with float32: its loss may differ by `AT_MOST`, its weights by `TIMES` what the usual ones differ by.
    """
    step = functools.cache(functools.partial(stepped, network, batch_size, device))
    of = f"PeerAiD, {network}, batches of {batch_size}, "

    def by_graphs() -> tuple[float, float] | str:
        if device.type not in DEVICES:
            return "only a GPU captures graphs"
        return differing(step("bfloat16", "off", "on")[2], step("bfloat16")[2]), 0

    check("a step with graphs has the same bits", f"{of}bfloat16", by_graphs)
    for precision in AT_MOST:

        def loss(precision: str = precision) -> tuple[float, float]:
            exact = step("float32")[0]
            return abs(step(precision, "on")[0] - exact) / abs(exact), AT_MOST[precision]

        def weights(precision: str = precision) -> tuple[float, float]:
            exact = step("float32")
            most = APART if precision == "float32" else TIMES * apart(step(precision), exact)
            return apart(step(precision, "on"), exact), most

        check("a compiled step has float32's loss", f"{of}{precision}", loss)
        check("a compiled step has float32's weights", f"{of}{precision}", weights)


def apart(
    one: tuple[float, dict[str, Tensor], dict[str, Tensor]], other: tuple[float, dict[str, Tensor], dict[str, Tensor]]
) -> float:
    """Return how far apart two ends are (2-norm over trained weights), divided by how far the other one went.

    inf: one of them is not finite, or they began otherwise.
    """
    if differing(one[1], other[1]):
        return math.inf
    names = [name for name in other[1] if name.endswith((".weight", ".bias"))]  # running statistics would outweigh them
    far = [
        math.sqrt(sum(float((a[name] - b[name]).double().square().sum()) for name in names))
        for a, b in ((one[2], other[2]), (other[1], other[2]))
    ]
    return far[0] / far[1] if all(map(math.isfinite, far)) else math.inf


def arithmetic(device: torch.device) -> tuple[float, float]:
    """Compare float32 with float64: TF32 has a thousandth's error, float32 less than a ten-thousandth's."""
    noise = torch.Generator().manual_seed(0)
    x, network = torch.rand(32, 1, 32, 32, generator=noise), fresh(CPU, "resnet18/4")
    with exact_arithmetic(), torch.no_grad():
        found = network.to(device)(x.to(device)).double().cpu()
        expected = network.cpu().double()(x.double())
    return float((found - expected).abs().max() / expected.abs().max()), 1e-4


def evaluated(device: torch.device, attack: attacks.Attack, n: int) -> tuple[float, float]:
    """Return the share of digits on which this device and the CPU judge otherwise, of a network after some epochs."""
    learnt = training(specification("PGD-AT", epochs=4), CPU)
    for _ in range(4):
        learnt.run_epoch()
    test, network = data.load("digits").images("test", n), learnt.networks["student"].eval()
    told = [
        evaluation.correct_predictions([network.to(where)], test.images, test.labels, attack)[0]
        for where in (CPU, device)
    ]
    return float((told[0] != told[1]).float().mean()), 0.02


def child(store: Path, device: torch.device, graphs: str) -> "subprocess.Popen[bytes]":
    """Start a process that trains a run of the store."""
    environment = {**os.environ, "RKDKIT_STORE": str(store), "RKDKIT_GRAPHS": graphs, "RKDKIT_COMPILE": "off"}
    if device.type == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    asked = [sys.executable, __file__, "--device", str(device), "--train-killed"]
    return subprocess.Popen(asked, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_run() -> RunSpec:
    """Return the run of which a process is killed."""
    return specification("PeerAiD", "bfloat16", epochs=12)


def killed(device: torch.device, graphs: str) -> tuple[float, float] | str:
    """Kill a training's process after two epochs or more, train on in another; compare with one that was left alone."""
    if graphs == "on" and device.type not in DEVICES:
        return "only a GPU captures graphs"
    with tempfile.TemporaryDirectory() as folder:
        stores, reached = [Path(folder) / name for name in ("killed", "alone")], 0
        alone = child(stores[1], device, graphs)
        victim = child(stores[0], device, graphs)
        run = Store(stores[0]).run_folder(killed_run())
        while victim.poll() is None and reached < 2:
            with contextlib.suppress(Exception):
                reached = (run.read_record() or {"finished": 0})["finished"]
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        if not 2 <= reached < killed_run().epochs:
            raise RuntimeError(f"it was to be killed after some epochs, not after {reached}: {victim.stderr.read()!r}")
        for process in (child(stores[0], device, graphs), alone):
            said = process.communicate()[1]
            if process.returncode:
                raise RuntimeError(said.decode(errors="replace")[-400:])
        records = [Store(store).run_folder(killed_run()).read_record() for store in stores]
        assert all(record is not None and record["finished"] == killed_run().epochs for record in records)
        one, other = (
            {(role, epoch): digest for role, kept in record["snapshots"].items() for epoch, digest in kept.items()}
            for record in records
            if record
        )
        return float(sum(one[name] != digest for name, digest in other.items())), 0


def asked_of(tiny: bool) -> Iterator[tuple[str, str, str]]:
    """Yield methods with precision and reading, those of the paper's reading first."""
    if tiny:
        yield from (("PeerAiD", "bfloat16", "paper"), ("Free-AT", "float32", "paper"), ("ARD", "float32", "code"))
        return
    yield from ((method, "bfloat16", "paper") for method in IN_BFLOAT16)
    yield from ((method, "float32", "paper") for method in methods.METHODS)
    yield from ((method, "float32", "code") for method, row in methods.METHODS.items() if row.code)


def of_everything(check: Checks, device: torch.device, tiny: bool) -> None:
    """Do all checks but those of `of_steps`, what matters most first."""
    of_methods = [OfMethod(check, device, *asked) for asked in asked_of(tiny)]
    check("float32 is float32, not TF32", "resnet18/4", lambda: arithmetic(device))
    for reading in ("paper", "code"):
        mine = [each for each in of_methods if each.spec.reading == reading]
        for each in mine:
            each.loss()
        if reading == "paper":
            for graphs in ("off", "on"):
                check(
                    *("a killed process's training has the same bits", "with graphs" if graphs == "on" else "as usual"),
                    functools.partial(killed, device, graphs),
                )
        for each in mine:
            each.waits()
        for each in mine:
            each.bits()
        if reading == "paper":
            judged = functools.partial(evaluated, device, attacks.PGD(0.25, 0.0625, 20), 200)
            check("verdicts differ from the CPU's", "PGD-20", judged)
    if find_spec("pyautoattack") is None:
        check("verdicts differ from the CPU's", "AutoAttack", lambda: "pyautoattack is not there")
    elif not tiny:
        check("verdicts differ from the CPU's", "AutoAttack", lambda: evaluated(device, autoattack.AutoAttack(0.1), 32))


def main(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    kept: Annotated[Path, typer.Option(help="A file for the lines.")] = Path("correct.jsonl"),
    tiny: Annotated[bool, typer.Option(help="Three methods only.")] = False,
    steps: Annotated[bool, typer.Option(help="Check compiled steps, and steps with graphs, and nothing else.")] = False,
    train_killed: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Check the kit on a device."""
    where = torch.device(device)
    if train_killed:
        runs.ensure(killed_run())
        return
    kept.unlink(missing_ok=True)
    check = Checks(kept)
    if steps:
        of_steps(check, where)
    else:
        of_everything(check, where, tiny)
    print(f"{check.failed} checks failed.", flush=True)
    raise typer.Exit(1 if check.failed else 0)


if __name__ == "__main__":
    typer.run(main)
