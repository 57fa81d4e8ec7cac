"""Trainings by a group of processes: the first one decides, reads and writes; the others take part.

The first process does tasks as a process alone does; where it trains, the others make the same training and go through
the same epochs. They need the data, but no store: the first process sends them teachers and states.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, save
from torch import nn

from rkdkit import data, endings, models
from rkdkit.group.processes import KEPT, GroupError, Processes
from rkdkit.spec import RunSpec
from rkdkit.tasks import Context
from rkdkit.training import DivergedError, EpochReport, Training

if TYPE_CHECKING:
    from rkdkit.trainings import Train


@contextmanager
def training_of(
    task: "Train",
    dataset: data.Dataset,
    context: Context,
    teachers: Sequence[nn.Module],
    extra: data.Split | None,
) -> Iterator[Training]:
    """Yield a training as :class:`Training` makes it; if the context has a group, all its processes take part.

    Parameters
    ----------
    task : what to train.
    dataset, teachers, extra : as :class:`Training`.
    context : its device and group.

    Raises
    ------
    ValueError
        As :class:`Training`.
    GroupError
        If a process finds other data, lacks them, or ends before the others.
    """
    here = task.spec, dataset, context.device, teachers, extra
    if context.group is None:
        yield Training(*here)
        return
    led = _Led(context.group, *here)
    led.begin(task)
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
        self._processes, self._digests = processes, (dataset.digest, extra.digest if extra else None)

    def begin(self, task: "Train") -> None:
        """Let the others make the same training; refuse other data."""
        self._processes.tell((task, self._digests, _sent(self._teachers)))
        refusals = [refusal for refusal in self._processes.everybody(None) if refusal]
        if refusals:
            raise GroupError(f"{refusals[0]} Nothing of {task.spec} was trained.")

    def load_state(self, state: dict[str, torch.Tensor], epoch: int) -> None:
        self._processes.tell(("load_state", save(state), epoch))
        super().load_state(state, epoch)

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> EpochReport:
        self._processes.tell(("run_epoch",))
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
            self._processes.tell(("end",))


def follow(processes: Processes) -> None:
    """Take part in the trainings of the first process, until it has no more.

    Raises
    ------
    GroupLostError
        If it, or another, ended before.
    """
    context = Context(device=processes.device)
    while (heard := processes.hear()) is not None:
        refusal, training = "", None
        try:
            training = _same_training(processes, context, *heard)
        except (OSError, ValueError, GroupError) as error:
            refusal = f"{processes.name[0].upper()}{processes.name[1:]}: {error}"
        if any(processes.everybody(refusal)):
            continue
        assert training is not None
        while (heard := processes.hear())[0] != "end":
            what, *given = heard
            if what == "load_state":
                training.load_state(load(given[0]), given[1])
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
    task: "Train",
    digests: tuple[str, str | None],
    teachers: Sequence[tuple[str, bytes]],
) -> Training:
    """Return the training that the first process makes, too.

    Raises
    ------
    GroupError
        If the data or the extra images here are others than there.
    ValueError, OSError
        If they cannot be read.
    """
    dataset = context.load(task.spec.dataset)
    extra = task.extra_images(context)
    names, found = (task.spec.dataset, task.spec.extra), (dataset.digest, extra.digest if extra else None)
    for name, here, there in zip(names, found, digests, strict=True):
        if here != there:
            raise GroupError(
                f"it finds other data as {name} (digest {here}) than the first process (digest {there}). Copy the "
                "first process's data there, or set RKDKIT_DATA there to the folder that holds them."
            )
    networks = [_network(architecture, weights, context.device) for architecture, weights in teachers]
    return Training(task.spec, dataset, context.device, networks, extra, shares=processes)


def _sent(teachers: Sequence[nn.Module]) -> list[tuple[str, bytes]]:
    """Return teachers as architecture and weights.

    Raises
    ------
    GroupError
        If one is not a network of the kit.
    """
    sent = []
    for teacher in teachers:
        if not isinstance(teacher, models.Classifier) or not teacher.architecture:
            raise GroupError(
                "A teacher that is a module from elsewhere cannot be sent to other processes: train alone."
            )
        sent.append((teacher.architecture, save({k: v.contiguous() for k, v in teacher.state_dict().items()})))
    return sent


def _network(architecture: str, sent: bytes, device: torch.device) -> nn.Module:
    weights = load(sent)
    mean, std = (weights[name].flatten().tolist() for name in ("mean", "std"))
    network = models.build(architecture, len(weights["head.bias"]), mean, std)
    network.load_state_dict(weights)
    return network.on(device).eval()
