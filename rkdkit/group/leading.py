"""Trainings by a group of processes: the first one decides, reads and writes; the others take part.

The first process does tasks as a process alone does; where it trains, the others make the same training and go through
the same epochs. They need the data, but no store: the first process sends them teachers and states.
"""

import json
from collections.abc import Callable, Iterator, Sequence
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
        architectures, weights = _sent(self._teachers)
        self._processes.tell([self.spec.to_json(), _row(self.spec), self._digests, architectures], weights)
        refusals = [refusal for refusal in self._processes.everybody("") if refusal]
        if refusals:
            raise GroupError(f"{refusals[0]} Nothing of {self.spec} was trained.")

    def load_state(self, state: dict[str, Tensor], epoch: int) -> None:
        self._processes.tell(["load_state", epoch], state)
        super().load_state(state, epoch)

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> EpochReport:
        self._processes.tell(["run_epoch"])
        try:
            return super().run_epoch(on_step)
        except DivergedError:  # as in all processes, at the same place
            raise
        except BaseException as error:
            self._processes.apart = True
            if isinstance(error, Exception) and not isinstance(error, GroupError):
                raise GroupError(f"{endings.in_words(type(error).__name__, str(error))} {KEPT}") from error
            raise

    def end(self) -> None:
        """Let the others wait for the next training."""
        if not self._processes.apart:
            self._processes.tell(["end"])


def follow(processes: Processes) -> None:
    """Take part in the trainings of the first process, until it has no more.

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
        refusal, training = "", None
        try:
            training = _same_training(processes, context, weights, *told)
        except (OSError, ValueError, GroupError) as error:
            refusal = f"{processes.name[0].upper()}{processes.name[1:]}: {error}"
        if any(processes.everybody(refusal)):
            continue
        assert training is not None
        while True:
            (what, *given), state = processes.hear()
            if what == "end":
                break
            if what == "load_state":
                training.load_state(state, *given)
            else:
                with suppress(DivergedError):  # at the same place as the first process, which says so
                    training.run_epoch()


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
        if here != there:
            raise GroupError(
                f"it finds other data as {name} (digest {here}) than the first process (digest {there}). Copy the "
                "first process's data there, or set RKDKIT_DATA there to the folder that holds them."
            )
    networks = [_network(name, under(weights, str(i)), context.device) for i, name in enumerate(architectures)]
    return Training(spec, dataset, context.device, networks, extra, shares=processes)


def _row(spec: RunSpec) -> Any:
    """Return a method's definition as it arrives at another process."""
    return json.loads(json.dumps(methods.get(spec.method, spec.reading).definition()))


def _sent(teachers: Sequence[nn.Module]) -> tuple[list[str], dict[str, Tensor]]:
    """Return the teachers' architectures, and their weights under their numbers.

    Raises
    ------
    GroupError
        If one is not a network of the kit.
    """
    architectures, weights = list[str](), dict[str, Tensor]()
    for i, teacher in enumerate(teachers):
        if not isinstance(teacher, models.Classifier) or not teacher.architecture:
            raise GroupError(
                "A teacher that is a module from elsewhere cannot be sent to other processes: train alone."
            )
        architectures.append(teacher.architecture)
        weights |= {f"{i}.{name}": value.cpu().contiguous() for name, value in teacher.state_dict().items()}
    return architectures, weights


def _network(architecture: str, weights: dict[str, Tensor], device: torch.device) -> nn.Module:
    mean, std = (weights[name].flatten().tolist() for name in ("mean", "std"))
    network = models.build(architecture, len(weights["head.bias"]), mean, std)
    network.load_state_dict(weights)
    return network.on(device).eval()
