"""Attack one image at a time, and ask networks what they answer to it, step by step; all of it is kept in memory."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import attacks, checks, data, evaluation, losses
from rkdkit.determinism import exact_arithmetic, generator
from rkdkit.explore.found import FoundRun
from rkdkit.models import Classifier
from rkdkit.references import Snapshot
from rkdkit.spec import AVERAGED, Teacher
from rkdkit.store import Store, StoreError
from rkdkit.tasks import Context

NAMES = {"student": "student", "peer": "peer", AVERAGED: "averaged student"}
"""What the networks that a run trains are called, by role."""

QUANTITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "probability": lambda logits, labels: F.softmax(logits, 1).gather(1, labels.unsqueeze(1)).squeeze(1),
    "loss": losses.cross_entropy,
}
"""What curves show, of logits (N, C) and labels (N,): the true class's probability, or its cross entropy in nats."""

UNUSABLE = (StoreError, ValueError, OSError)
"""What is raised where a network or the data are not here, damaged, or not of each other; it says what to do."""

MOST_STEPS = 200
"""The largest number of an attack's steps: each is kept and shown."""

_BYTES_OF_NETWORKS, _BYTES_OF_TENSORS = 2**29, 2**28
_SKIPPED_AT_ONCE = 500


@dataclass(frozen=True)
class Member:
    """A network that has to do with a run: one that the run trained, or a fixed teacher of it.

    Attributes
    ----------
    name : "student", "peer", "averaged student", or "teacher PGD-AT resnet18/4 at epoch 14".
    kind : "student", "peer" or "teacher", for its colour.
    snapshot : where its weights are; None: they are not in the store.
    problem : why it cannot be asked, in a sentence; "": it can, unless its file is damaged.
    """

    name: str
    kind: str
    snapshot: Snapshot | None
    problem: str = ""


@dataclass(frozen=True)
class Seen:
    """One image, the attack on it, and what networks answer.

    Attributes
    ----------
    image : (C, H, W) float32 in [0, 1], x.
    label : its true class.
    eps : the attack's radius, in [0, 1] pixel units.
    iterates : (steps + 1, C, H, W) float32: the attack's start, and the image after each step; the last is x*.
    logits : by network: (steps + 2, classes) float32, for x and then for each of the iterates.
    kinds : by network: `Member.kind`.
    problems : by network that could not be asked: why.
    """

    image: Tensor
    label: int
    eps: float
    iterates: Tensor
    logits: Mapping[str, Tensor]
    kinds: Mapping[str, str]
    problems: Mapping[str, str]

    def probabilities(self, network: str, step: int | None = None) -> Tensor:
        """Return the probabilities that a network answers with, (classes,) float32.

        Parameters
        ----------
        network : its name.
        step : to the image after so many steps of the attack, 0: to its start; None: to x.
        """
        return F.softmax(self.logits[network][0 if step is None else step + 1], 0)

    def curve(self, network: str, quantity: str) -> list[float]:
        """Return a quantity of `QUANTITIES` of a network's answers to the iterates, one for each."""
        return _measured(self.logits[network][1:], self.label, quantity)


class Answers:
    """Attacks images and asks networks of a store; networks and answers are kept in memory, and nothing is written.

    Parameters
    ----------
    root : the store's folder.
    steps : the number of the attack's steps.
    load : a dataset's name -> the dataset; None: `data.load`.

    Raises
    ------
    ValueError
        If `steps` is not a whole number between 1 and `MOST_STEPS`.
    """

    def __init__(self, root: Path, steps: int = 20, load: Callable[[str], data.Dataset] | None = None) -> None:
        self.steps = checks.whole("steps", steps, 1, MOST_STEPS)
        self.context = Context(store=Store(root), load=load or data.load)
        self._networks, self._tensors = _Kept(_BYTES_OF_NETWORKS), _Kept(_BYTES_OF_TENSORS)

    def attack(self, eps: float) -> attacks.PGD:
        """Return the attack: PGD as the exhibits evaluate by, with step size eps / 4."""
        return attacks.PGD(eps, eps / 4, self.steps)

    def images(self, run: FoundRun) -> data.Split:
        """Return the test images of a run's dataset.

        Raises
        ------
        DataNotFoundError
            If the data are not there.
        ValueError
            If they are not those that the run was trained on.
        """
        dataset = self.context.load(run.spec.dataset)
        if dataset.digest != run.data_digest:
            raise ValueError(
                f"This run was trained on other data than {run.spec.dataset} is now (digest {run.data_digest} then, "
                f"{dataset.digest} now), so it is not asked about them. RKDKIT_DATA names the folder of the data."
            )
        return dataset.test

    def classes(self, run: FoundRun) -> tuple[str, ...]:
        """Return the names of the classes; errors as :meth:`images`."""
        return self.context.load(run.spec.dataset).classes

    def trained(self, run: FoundRun, epoch: int) -> tuple[Member, ...]:
        """Return the networks that a run trained, at an epoch."""
        return tuple(
            Member(NAMES.get(role, role), "peer" if role == "peer" else "student", Snapshot(run.spec, role, epoch))
            for role, epochs in run.epochs.items()
            if epoch in epochs
        )

    def members(self, run: FoundRun, epoch: int) -> tuple[Member, ...]:
        """Return the networks that have to do with a run: those it trained, at an epoch, and its fixed teachers."""
        teachers = [self._teacher(each) for each in run.spec.teachers]
        names = [each.name for each in teachers]
        numbered = [
            each if names.count(each.name) == 1 else replace(each, name=f"{each.name} ({i})")
            for i, each in enumerate(teachers, start=1)
        ]
        return (*self.trained(run, epoch), *numbered)

    def _teacher(self, teacher: Teacher) -> Member:
        share = "" if teacher.weight == 1 else f", weight {teacher.weight:g}"
        name = f"teacher {teacher}{share}"
        if teacher.run is None:
            return Member(name, "teacher", None, "It is a module from elsewhere; its weights are not in the store.")
        snapshot = Snapshot(teacher.run, teacher.role, teacher.epoch or 0)
        here = self._file(snapshot).exists()
        return Member(name, "teacher", snapshot, "" if here else _absent(self._file(snapshot)))

    def network(self, member: Member) -> Classifier:
        """Return a network in eval mode; it is read once. Nothing is fetched from a mirror.

        Raises
        ------
        StoreError
            If its file is not here or damaged.
        """
        snapshot = member.snapshot
        if snapshot is None:
            raise StoreError(member.problem)
        file = self._file(snapshot)

        def read() -> Classifier:
            if not file.exists():  # reading it would ask a mirror, and write what it gives into the store
                raise StoreError(_absent(file))
            return snapshot.read(self.context)

        network: Classifier = self._networks.get(file, read, lambda made: sum(map(_size, made.state_dict().values())))
        return network

    def iterates(self, run: FoundRun, attacked: Member, index: int, eps: float) -> Tensor:
        """Return the attack on a test image, step by step: (steps + 1, C, H, W) float32 on the CPU.

        The start is that of this image in an evaluation of the test images. Only rounding may differ from the examples
        there, because they are made in batches.

        Parameters
        ----------
        run : whose test images they are.
        attacked : the network that is attacked.
        index : which test image, from 0 on.
        eps : the attack's radius, in [0, 1] pixel units.

        Raises
        ------
        StoreError, ValueError
            As :meth:`images` and :meth:`network`.
        """

        def made() -> Tensor:
            split, network = self.images(run), self.network(attacked)
            image = data.to_float(split.images[index : index + 1]).to(self.context.device)
            label = split.labels[index : index + 1].to(self.context.device)
            visited: list[Tensor] = []
            with exact_arithmetic(), torch.enable_grad():
                self.attack(eps).perturb(
                    network,
                    image.contiguous(memory_format=torch.channels_last),
                    attacks.cross_entropy_objective(label),
                    noise_of(index, split.images.shape[1:]),
                    visit=lambda x: visited.append(x.detach()),
                )
            return torch.cat(visited).cpu()

        return self._tensors.tensor(("iterates", self._key(attacked), run.spec.dataset, index, eps), made)

    def logits(self, run: FoundRun, judge: Member, attacked: Member, index: int, eps: float) -> Tensor:
        """Return what a network answers to a test image and to each of the iterates: (steps + 2, classes) float32.

        Parameters
        ----------
        judge : the network that is asked.
        run, attacked, index, eps : as :meth:`iterates`, and the errors, too.
        """

        def made() -> Tensor:
            split = self.images(run)
            x = torch.cat([data.to_float(split.images[index : index + 1]), self.iterates(run, attacked, index, eps)])
            labels = split.labels[index : index + 1].expand(len(x))
            return evaluation.logits([self.network(judge)], x, labels)[0]

        return self._tensors.tensor(self._logits_key(run, judge, attacked, index, eps), made)

    def knows(self, run: FoundRun, judge: Member, attacked: Member, index: int, eps: float) -> bool:
        """Return whether :meth:`logits` has its answer in memory."""
        return self._logits_key(run, judge, attacked, index, eps) in self._tensors

    def _logits_key(self, run: FoundRun, judge: Member, attacked: Member, index: int, eps: float) -> Hashable:
        return ("logits", self._key(judge), self._key(attacked), run.spec.dataset, index, eps)

    def see(
        self,
        run: FoundRun,
        attacked: Member,
        members: Iterable[Member],
        index: int,
        eps: float,
    ) -> Seen:
        """Return a test image, the attack on it, and what networks answer.

        Parameters
        ----------
        members : the networks that are asked, of different names; those that cannot be are in `Seen.problems`.
        run, attacked, index, eps : as :meth:`iterates`, and the errors, too.
        """
        split, iterates = self.images(run), self.iterates(run, attacked, index, eps)
        answered, kinds, problems = dict[str, Tensor](), dict[str, str](), dict[str, str]()
        for member in members:
            kinds[member.name] = member.kind
            try:
                answered[member.name] = self.logits(run, member, attacked, index, eps)
            except UNUSABLE as error:
                problems[member.name] = str(error)
        image = data.to_float(split.images[index])
        return Seen(image, int(split.labels[index]), eps, iterates, answered, kinds, problems)

    def correct(self, run: FoundRun, member: Member, indices: range) -> Tensor:
        """Return which of some test images a network classifies correctly, (N,) bool; errors as :meth:`iterates`."""

        def made() -> Tensor:
            part = self.images(run).take(slice(indices.start, indices.stop))
            return evaluation.correct_predictions([self.network(member)], part.images, part.labels)[0]

        return self._tensors.tensor(("correct", self._key(member), run.spec.dataset, indices), made)

    def _file(self, snapshot: Snapshot) -> Path:
        return self.context.store.run_folder(snapshot.spec).path / snapshot.file

    def _key(self, member: Member) -> Hashable:
        return member.name if member.snapshot is None else self._file(member.snapshot)


class Trajectory:
    """What a run's network answers to one test image over the epochs, each epoch's own network being attacked.

    It is computed an epoch at a time, so that whoever waits for something else need not wait for long.

    Parameters
    ----------
    answers : what asks the networks.
    run : whose networks.
    name : which: one of `NAMES`' values.
    index, eps : as :meth:`Answers.iterates`.

    Attributes
    ----------
    epochs : the epochs whose networks are here, counted from 1.
    logits : by epoch that is done: (2, classes) float32, for x and for x*.
    problems : by epoch whose network cannot be asked: why.
    """

    def __init__(self, answers: Answers, run: FoundRun, name: str, index: int, eps: float) -> None:
        self._answers, self._run, self._name, self._index, self._eps = answers, run, name, index, eps
        roles = [role for role, called in NAMES.items() if called == name]
        self.epochs: tuple[int, ...] = run.epochs.get(roles[0], ()) if roles else ()
        self.logits: dict[int, Tensor] = {}
        self.problems: dict[int, str] = {}

    @property
    def missing(self) -> list[int]:
        """The epochs that are not done yet, in order."""
        return [epoch for epoch in self.epochs if epoch not in self.logits and epoch not in self.problems]

    def recall(self) -> None:
        """Take over the epochs that are in memory already."""
        for epoch in self.missing:
            network = self._network(epoch)
            if self._answers.knows(self._run, network, network, self._index, self._eps):
                self._take(epoch, network)

    def go_on(self) -> None:
        """Attack the network of the first epoch that is missing, if there is one."""
        for epoch in self.missing[:1]:
            try:
                self._take(epoch, self._network(epoch))
            except UNUSABLE as error:
                self.problems[epoch] = str(error)

    def _network(self, epoch: int) -> Member:
        return next(each for each in self._answers.trained(self._run, epoch) if each.name == self._name)

    def _take(self, epoch: int, network: Member) -> None:
        self.logits[epoch] = self._answers.logits(self._run, network, network, self._index, self._eps)[[0, -1]]

    def curves(self, quantity: str) -> tuple[list[int], list[float], list[float]]:
        """Return the epochs that are done, in order, and a quantity of `QUANTITIES` on x and on x* at each."""
        done = sorted(self.logits)
        label = int(self._answers.images(self._run).labels[self._index]) if done else 0
        points = [_measured(self.logits[epoch], label, quantity) for epoch in done]
        return done, [natural for natural, _ in points], [attacked for _, attacked in points]


def noise_of(index: int, shape: Sequence[int]) -> torch.Generator:
    """Return the generator of an image's uniform start as an evaluation of all test images has it, with seed 0.

    Parameters
    ----------
    index : which image, from 0 on.
    shape : (C, H, W).
    """
    noise = generator(0, 0, "evaluation")
    for begin in range(0, index, _SKIPPED_AT_ONCE):
        torch.empty(min(_SKIPPED_AT_ONCE, index - begin), *shape).uniform_(generator=noise)
    return noise


def _measured(logits: Tensor, label: int, quantity: str) -> list[float]:
    measure = QUANTITIES[checks.one_of("quantity", quantity, QUANTITIES)]
    values: list[float] = measure(logits, torch.full((len(logits),), label)).tolist()
    return values


def _absent(file: Path) -> str:
    return (
        f"{file.parent.name}/{file.name} is not in the store: it was pruned, or was not trained or fetched here. "
        "If you need it, delete the folder of that run, and repeat the command that trained it."
    )


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Kept:
    """Values that are made once and kept while there is room; those that were not asked for longest go first.

    Parameters
    ----------
    room : in bytes.
    """

    def __init__(self, room: int) -> None:
        self._room, self._used = room, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable, make: Callable[[], Any], size_of: Callable[[Any], int]) -> Any:
        """Return the value of a key; it is made if it is not here."""
        if key not in self._values:
            value = make()
            self._values[key] = value, size_of(value)
            self._used += self._values[key][1]
            while self._used > self._room and len(self._values) > 1:
                _, (_, size) = self._values.popitem(last=False)
                self._used -= size
        self._values.move_to_end(key)
        return self._values[key][0]

    def tensor(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """As :meth:`get`, of a tensor."""
        value: Tensor = self.get(key, make, _size)
        return value
