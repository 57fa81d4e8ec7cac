"""Work, memory and time: of a training step, and of putting images to networks."""

import contextlib
import dataclasses
import itertools
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

from rkdkit import attacks, autoattack, data, evaluation, models
from rkdkit.measurements import Measurement
from rkdkit.modes import folded_for_inference
from rkdkit.references import Snapshot
from rkdkit.spec import RunSpec, Teacher
from rkdkit.training import Training, fresh_networks

SECONDS = 2.0
"""How long a step is timed, at least once."""

LARGEST = 2e12
"""On a CPU, a batch is timed whose work is no more than this, in FLOP: some seconds."""

FEWEST = 4
"""Images at least in a batch that is timed."""


@dataclass(frozen=True)
class Step:
    """What a training step takes.

    Attributes
    ----------
    work : in floating-point operations, two to a multiply-add, of convolutions and linear layers.
    memory : at its peak, in bytes.
    seconds : on this machine; 0 where it was not timed.
    """

    work: float
    memory: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Examples:
    """Images that a measurement makes once and puts to one or more networks.

    Attributes
    ----------
    attack : None: natural images.
    attacked : the network attacked, as `models.build` takes it.
    judges : those that answer, likewise.
    dataset : the data.
    n : how many images.
    times : how often.
    """

    attack: attacks.Attack | None
    attacked: str
    judges: tuple[str, ...]
    dataset: str
    n: int
    times: int = 1


class Passes(NamedTuple):
    """What making one adversarial example takes of the attacked network.

    Attributes
    ----------
    forward : forward passes alone.
    gradient : forward and backward passes.
    at_most : whether most images take fewer.
    """

    forward: int
    gradient: int
    at_most: bool


def passes(attack: attacks.Attack | None, classes: int) -> Passes:
    """Return what making one adversarial example takes.

    AutoAttack: APGD of 100 iterations after its first gradient, on the cross entropy and on up to 9 targets; FAB of 100
    iterations on as many, each looking once more at what it found; 5,000 queries of Square.

    Parameters
    ----------
    attack : None: natural images, which take nothing.
    classes : how many there are.

    Raises
    ------
    ValueError
        If the attack is none of the kit's.
    """
    match attack:
        case None:
            return Passes(0, 0, False)
        case attacks.FGSM() | attacks.FFGSM():
            return Passes(0, 1, False)
        case attacks.PGD():
            fewer = attack.restarts > 1 or attack.iterate == "any"
            return Passes(attack.restarts - 1, attack.steps * attack.restarts, fewer)
        case attacks.MIFGSM():
            return Passes(0, attack.steps, False)
        case attacks.DeepFool():
            return Passes(1, attack.steps * (min(attack.candidates, classes) - 1), True)
        case autoattack.Square():
            return Passes(attack.queries + 1, 0, True)
        case autoattack.AutoAttack():
            targets = min(9, classes - 1)
            return Passes(100 * targets + 5000 + 1, 101 + (101 + 100) * targets, True)
    raise ValueError(
        f"The cost of {attack} is not known: add {type(attack).__name__} to `passes` in rkdkit/plan/cost.py."
    )


def examples_of(task: Measurement) -> list[Examples]:
    """Return what a measurement's passes come to: what is made by one attack on one snapshot is made once for all.

    Parameters
    ----------
    task : its images are looked up by the current executor.
    """
    judges: dict[tuple[attacks.Attack | None, Snapshot, int], list[str]] = {}
    for each in task.passes():
        judges.setdefault((each.attack, each.attacked or each.judge, each.times), []).append(each.judge.architecture)
    return [
        Examples(attack, attacked.architecture, tuple(of), attacked.spec.dataset, len(task.images), times)
        for (attack, attacked, times), of in judges.items()
    ]


class Costs:
    """What networks cost, each looked up once.

    Parameters
    ----------
    load : a dataset's name -> the dataset; shapes and classes alone count.
    clock : tells the time in seconds.
    """

    def __init__(
        self, load: Callable[[str], data.Dataset] = data.load, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.load, self.clock = load, clock
        self._known: dict[tuple[str, str], models.Cost] = {}

    def fresh(self, architecture: str, dataset: str) -> models.Classifier:
        """Return a network with fresh weights for a dataset's images and classes."""
        loaded = self.load(dataset)
        channels = loaded.train.shape[0]
        return models.build(architecture, len(loaded.classes), (0.5,) * channels, (0.25,) * channels)

    def of(self, architecture: str, dataset: str) -> models.Cost:
        """Return a network's parameters and the multiply-adds of an image."""
        if (architecture, dataset) not in self._known:
            shape = self.load(dataset).train.shape
            self._known[architecture, dataset] = models.cost(self.fresh(architecture, dataset), shape)
        return self._known[architecture, dataset]

    def forward(self, architecture: str, dataset: str) -> float:
        """Return the FLOP of an image's forward pass."""
        return 2 * self.of(architecture, dataset).multiply_adds

    def classes(self, dataset: str) -> int:
        """Return how many classes a dataset has."""
        return len(self.load(dataset).classes)

    def n_train(self, spec: RunSpec) -> int:
        """Return how many images a run is trained on."""
        return spec.n_train or len(self.load(spec.dataset).train) - spec.n_val

    def work(self, made: Examples) -> float:
        """Return the FLOP of making examples and putting them to their judges; a backward pass counts as a forward one.

        That is so because an attack asks for the gradient of the images alone, not of the weights.
        """
        forward, gradient, _ = passes(made.attack, self.classes(made.dataset))
        of_one = (forward + 2 * gradient) * self.forward(made.attacked, made.dataset)
        of_one += sum(self.forward(judge, made.dataset) for judge in made.judges)
        return made.times * made.n * of_one

    def seconds(self, made: Examples, of_forward: float, of_gradient: float) -> float:
        """Return how long that takes.

        Parameters
        ----------
        made : the examples.
        of_forward, of_gradient : seconds of an image's forward pass, and of a forward and backward pass, of the
            attacked network.
        """
        forward, gradient, _ = passes(made.attack, self.classes(made.dataset))
        return made.times * made.n * ((forward + len(made.judges)) * of_forward + gradient * of_gradient)

    def kind(self, spec: RunSpec) -> RunSpec:
        """Return what decides the cost of a run's step: runs that differ in something else are given the same."""
        teachers = tuple(
            # named by its network, which is what it costs
            Teacher(module=network_of(teacher) or spec.student, slot=teacher.slot, weight=teacher.weight)
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
            batch_size=min(spec.batch_size, self.n_train(spec)),
            lr=0.0,
            schedule="constant",
            momentum=0.9,
            swa_start=None,
            ema_decay=None,
        )

    def count_step(self, kind: RunSpec) -> Step:
        """Return work and memory of a step, from one that is taken without computing anything."""
        with Work() as work:
            memory = self.memory_of_step(kind)
        return Step(work.get_total_flops(), memory)

    def memory_of_step(self, kind: RunSpec) -> int:
        """Return the memory of a step at its peak, in bytes, as :meth:`count_step`, which takes a third longer."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        dataset = self.noise(kind.dataset, 2 * kind.batch_size)
        assert dataset.channel_statistics  # looked at before anything is fake
        with FakeTensorMode(allow_non_fake_inputs=True), Memory() as memory:
            # a fake tensor cannot be moved, and need not be
            networks: Mapping[str, nn.Module] = fresh_networks(kind, dataset)
            teachers = [self.fresh(teacher.module, kind.dataset) for teacher in kind.teachers]
            take_steps(kind, dataset, torch.device("cpu"), networks, teachers, lambda: True)
        peak: int = memory.peak
        return peak

    def memory_of_attack(self, architecture: str, dataset: str, n: int) -> int:
        """Return the memory of a network's pass forward and backward, in bytes, without computing anything.

        Parameters
        ----------
        architecture, dataset : the network attacked, and whose images.
        n : how many images are attacked at once.
        """
        from torch._subclasses.fake_tensor import FakeTensorMode

        shape = self.load(dataset).train.shape
        with FakeTensorMode(), Memory() as memory:
            network = self.fresh(architecture, dataset)
            with folded_for_inference(network):
                x = torch.rand(n, *shape, requires_grad=True)
                torch.autograd.grad(network(x).sum(), x)
        peak: int = memory.peak
        return peak

    def time_step(self, kind: RunSpec, device: torch.device) -> Step:
        """Return work, memory and time of a step, from steps that are taken on noise for `SECONDS`.

        Parameters
        ----------
        kind : of :meth:`kind`.
        device : where; on a CPU fewer images are taken where a batch would be more than `LARGEST`.
        """
        counted, share = self.count_step(kind), 1.0
        if device.type != "cuda":
            share = min(1.0, max(LARGEST / counted.work, FEWEST / kind.batch_size))
        fewer = dataclasses.replace(kind, batch_size=max(1, int(share * kind.batch_size)))
        moments: list[float] = []

        def enough() -> bool:
            _wait(device)
            moments.append(self.clock())
            return len(moments) > 1 and moments[-1] - moments[0] > SECONDS

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        dataset = self.noise(fewer.dataset, images_of(fewer))
        networks = {role: network.on(device) for role, network in fresh_networks(fewer, dataset).items()}
        teachers = [self.fresh(teacher.module, fewer.dataset).on(device) for teacher in fewer.teachers]
        take_steps(fewer, dataset, device, networks, teachers, enough)
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else counted.memory
        # the first step warms up
        taken = statistics.median(b - a for a, b in itertools.pairwise(moments))
        return Step(counted.work, memory, taken * kind.batch_size / fewer.batch_size)

    def time_passes(self, architecture: str, dataset: str, n: int, device: torch.device) -> tuple[float, float]:
        """Return the seconds that an image takes of a forward pass, and of a forward and backward pass.

        Parameters
        ----------
        architecture, dataset : the network, and whose images.
        n : how many images there are; as many as fit a batch are taken at once.
        device : where.
        """
        steps = 2
        n = min(n, 256)
        if device.type != "cuda":
            affordable = int(LARGEST / ((1 + 2 * steps) * self.forward(architecture, dataset)))
            n = max(min(n, affordable), min(n, FEWEST))
        noise = self.noise(dataset, n).train
        network = self.fresh(architecture, dataset).on(device).eval()

        def seconds(attack: attacks.Attack | None) -> float:
            moments = [self.clock()]
            while len(moments) < 3 or moments[-1] - moments[1] < SECONDS / 2:
                evaluation.correct_predictions([network], noise.images, noise.labels, attack)
                _wait(device)
                moments.append(self.clock())
            return statistics.median(b - a for a, b in itertools.pairwise(moments[1:])) / n

        forward = seconds(None)
        return forward, max(seconds(attacks.PGD(0.1, 0.02, steps)) - forward, forward) / steps

    def noise(self, name: str, n: int) -> data.Dataset:
        """Return random images of a dataset's shape and classes."""
        like = self.load(name)
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (n, *like.train.shape), dtype=torch.uint8, generator=draw)
        split = data.Split(images, torch.arange(n) % len(like.classes))
        return data.Dataset(name, split, split, like.classes, "noise")


class Work(FlopCounterMode):
    """Counts the FLOP of convolutions and linear layers, whatever module they are in."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping={torch.ops.aten.convolution_backward: _work_backwards})
        # hooks that tell the modules apart fail where an attack asks for the gradient of a network's very input
        self.mod_tracker = _NoModules()  # type: ignore[assignment]


def _work_backwards(*arguments: Any, out_shape: Any, **_: Any) -> int:
    """Return the FLOP of a convolution's backward pass, of the shapes that aten.convolution_backward has.

    Torch's own formula takes each of a convolution's groups to have all channels where it counts the weight's gradient:
    of a depthwise convolution, that is as many times too much as there are channels.
    """
    *shapes, groups, (image, weight, bias) = arguments
    of_image = conv_backward_flop(*shapes, groups, [image, False, bias], out_val=out_shape)  # type: ignore[call-arg]
    of_weight = conv_backward_flop(*shapes, groups, [False, weight, bias], out_val=out_shape)  # type: ignore[call-arg]
    return int(of_image + of_weight // groups)


class _NoModules(contextlib.nullcontext[None]):
    """What :class:`Work` looks up where it is."""

    parents = frozenset({"Global"})


class Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive at once, whether they have content or not.

    Attributes
    ----------
    peak : the most there were.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._now = 0, 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
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


class _EnoughError(Exception):
    pass


def take_steps(
    kind: RunSpec,
    dataset: data.Dataset,
    device: torch.device,
    networks: Mapping[str, nn.Module],
    teachers: Sequence[nn.Module],
    enough: Callable[[], bool],
) -> None:
    """Train as the training loop itself does, until it is enough.

    Parameters
    ----------
    kind : of :meth:`Costs.kind`.
    dataset, device, networks, teachers : as :class:`training.Training`.
    enough : asked after every step.
    """

    def after_step() -> None:
        if enough():
            raise _EnoughError

    loop = Training(kind, dataset, device, teachers, networks=networks)
    loop.epoch = kind.epochs - 1  # a method that changes on the way costs most at the end
    with contextlib.suppress(_EnoughError):
        loop.run_epoch(after_step)


def images_of(kind: RunSpec) -> int:
    """Return how many images an epoch of some batches has."""
    return kind.batch_size * max(2, min(64, 2**16 // kind.batch_size))


def network_of(teacher: Teacher) -> str:
    """Return a teacher's architecture; "": it is a module from elsewhere."""
    if teacher.run is None:
        return ""
    return teacher.run.peer if teacher.role == "peer" else teacher.run.student


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
