"""Trainings by a group of processes: the first one decides, reads and writes; the others take part.

The first process does tasks as a process alone does; where it trains, the others make the same training and go through
the same epochs. They need the data, but no store: the first process sends them teachers and states. What they take part
in besides is in `measuring`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from rkdkit import data, endings, methods, models
from rkdkit.group.processes import KEPT, GroupError, Processes
from rkdkit.spec import RunSpec
from rkdkit.tasks import Context
from rkdkit.training import DivergedError, EpochReport, Training, under


@contextmanager
def training_of(
    spec: RunSpec,
    dataset: data.Dataset,
    context: Context,
    teachers: Sequence[nn.Module],
    extra: data.Split | None,
) -> Iterator[Training]:
    """Yield a training as :class:`Training` makes it; if the context has a group, all its processes take part.

    Parameters
    ----------
    spec, dataset, teachers, extra : as :class:`Training`.
    context : its device and group.

    Raises
    ------
    ValueError
        As :class:`Training`.
    GroupError
        If a process finds other data, lacks them, or ends before the others.
    """
    here = spec, dataset, context.device, teachers, extra
    if context.group is None:
        yield Training(*here)
        return
    led = _Led(context.group, *here)
    led.begin()
    try:
        yield led
    finally:
        led.end()


class _Led(Training):
    """A training in the first process, which sends the others into each of its methods before it goes there itself."""

    def __init__(
        self,
        processes: Processes,
        spec: RunSpec,
        dataset: data.Dataset,
        device: torch.device,
        teachers: Sequence[nn.Module],
        extra: data.Split | None,
    ) -> None:
        super().__init__(spec, dataset, device, teachers, extra, shares=processes)
        self._processes, self._digests = processes, [dataset.digest, extra.digest if extra else None]

    def begin(self) -> None:
        """Let the others make the same training; refuse other data and another row of the method."""
        architectures, weights = sent(self._teachers)
        self._processes.tell(["train", self.spec.to_json(), _row(self.spec), self._digests, architectures], weights)
        refusals = [refusal for refusal in self._processes.everybody("") if refusal]
        if refusals:
            raise GroupError(f"{refusals[0]} Nothing of {self.spec} was trained.")

    def load_state(self, state: dict[str, Tensor], epoch: int) -> None:
        self._processes.tell(["load_state", epoch], state)
        super().load_state(state, epoch)

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> EpochReport:
        self._processes.tell(["run_epoch"])
        with in_step(self._processes, DivergedError):
            return super().run_epoch(on_step)

    def end(self) -> None:
        """Let the others wait for the next training."""
        if not self._processes.apart:
            self._processes.tell(["end"])


@contextmanager
def in_step(processes: Processes, *harmless: type[Exception]) -> Iterator[None]:
    """Within a ``with`` block, do in the first process what all do together; the group ends where that goes wrong.

    Parameters
    ----------
    processes : the processes.
    harmless : errors that end it in all processes at the same place.

    Raises
    ------
    GroupError
        For any other error.
    """
    try:
        yield
    except harmless:
        raise
    except BaseException as error:
        processes.apart = True
        if isinstance(error, Exception) and not isinstance(error, GroupError):
            raise GroupError(f"{endings.in_words(type(error).__name__, str(error))} {KEPT}") from error
        raise


Along = Callable[[Processes, Context, dict[str, Tensor], list[Any]], None]
"""Takes part in a piece of work of the first process, given the tensors and JSON values by which that began it."""


def follow(processes: Processes, work: Mapping[str, Along]) -> None:
    """Take part in the work of the first process, until it has no more.

    Parameters
    ----------
    processes : the processes.
    work : how, by the word by which it begins: "train" is :func:`train_along`.

    Raises
    ------
    GroupLostError
        If it, or another, ended before.
    """
    context = Context(device=processes.device)
    while True:
        told, weights = processes.hear()
        if told is None:
            return
        what, *given = told
        work[what](processes, context, weights, given)


def train_along(processes: Processes, context: Context, weights: dict[str, Tensor], given: list[Any]) -> None:
    """Take part in a training of the first process."""
    refusal, training = "", None
    try:
        training = _same_training(processes, context, weights, *given)
    except (OSError, ValueError, GroupError) as error:
        refusal = refused(processes, error)
    if any(processes.everybody(refusal)):
        return
    assert training is not None
    while True:
        (what, *given), state = processes.hear()
        if what == "end":
            return
        if what == "load_state":
            training.load_state(state, *given)
        else:
            with suppress(DivergedError):  # at the same place as the first process, which says so
                training.run_epoch()


def refused(processes: Processes, error: Exception) -> str:
    """Return what a process says that cannot take part."""
    return f"{processes.name[0].upper()}{processes.name[1:]}: {error}"


def no_more(processes: Processes) -> None:
    """Let the others end; to be called in the first process."""
    if not processes.apart:
        processes.tell(None)


def _same_training(
    processes: Processes,
    context: Context,
    weights: dict[str, Tensor],
    plain: dict[str, Any],
    row: object,
    digests: list[str | None],
    architectures: list[str],
) -> Training:
    """Return the training that the first process makes, too.

    Raises
    ------
    GroupError
        If the method, the data or the extra images here are others than there.
    ValueError, OSError
        If they are not known, or cannot be read.
    """
    spec = RunSpec.from_json(plain)
    if _row(spec) != row:
        raise GroupError(
            f"its method {spec.method!r} is another than the first process's: give all the same --methods."
        )
    dataset = context.load(spec.dataset)
    extra = data.load_extra(spec.extra, dataset, n_train=spec.n_train, n_val=spec.n_val) if spec.extra else None
    names, found = (spec.dataset, spec.extra), (dataset.digest, extra.digest if extra else None)
    for name, here, there in zip(names, found, digests, strict=True):
        compare(name, here, there)
    networks = received(architectures, weights, context.device)
    return Training(spec, dataset, context.device, networks, extra, shares=processes)


def compare(name: str | None, here: str | None, there: str | None) -> None:
    """Refuse data whose digest `here` is not that of the first process.

    Raises
    ------
    GroupError
        If it is another.
    """
    if here != there:
        raise GroupError(
            f"it finds other data as {name} (digest {here}) than the first process (digest {there}). Copy the "
            "first process's data there, or set RKDKIT_DATA there to the folder that holds them."
        )


def _row(spec: RunSpec) -> Any:
    """Return a method's definition as it arrives at another process."""
    return json.loads(json.dumps(methods.get(spec.method, spec.reading).definition()))


def sent(networks: Sequence[nn.Module]) -> tuple[list[str], dict[str, Tensor]]:
    """Return the architectures of teachers or of networks to measure, and their weights under their numbers.

    Raises
    ------
    GroupError
        If one is not a network of the kit.
    """
    architectures, weights = list[str](), dict[str, Tensor]()
    for i, network in enumerate(networks):
        if not isinstance(network, models.Classifier) or not network.architecture:
            raise GroupError(
                "A teacher that is a module from elsewhere cannot be sent to other processes: train alone."
            )
        architectures.append(network.architecture)
        weights |= {f"{i}.{name}": value.cpu().contiguous() for name, value in network.state_dict().items()}
    return architectures, weights


def received(architectures: Sequence[str], weights: dict[str, Tensor], device: torch.device) -> list[nn.Module]:
    """Return the networks of which :func:`sent` sent architectures and weights, in eval mode."""
    return [_network(name, under(weights, str(i)), device) for i, name in enumerate(architectures)]


def _network(architecture: str, weights: dict[str, Tensor], device: torch.device) -> nn.Module:
    mean, std = (weights[name].flatten().tolist() for name in ("mean", "std"))
    network = models.build(architecture, len(weights["head.bias"]), mean, std)
    network.load_state_dict(weights)
    return network.on(device).eval()
