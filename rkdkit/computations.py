"""What several processes compute of a measurement, from networks and images alone: plain values, and no store.

Workers compute their shares by it (`shares_of_batches`, `shares_of_steps`), and so do the processes of a group, which
get it as JSON.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from rkdkit import attacks, autoattack, autoattack_shares, data, evaluation
from rkdkit.measurements import floats_to_text

OWN = (
    attacks.PGD,
    attacks.FGSM,
    attacks.FFGSM,
    attacks.MIFGSM,
    attacks.DeepFool,
    autoattack.AutoAttack,
    autoattack.Square,
)
"""The kit's attacks: other processes know them by their names."""


@dataclass(frozen=True, kw_only=True)
class Computation(ABC):
    """What all shares of a measurement do.

    Attributes
    ----------
    attack : makes the images that networks classify; None: natural images.
    """

    attack: attacks.Attack | None

    @abstractmethod
    def answers(self, networks: Sequence[nn.Module], split: data.Split, parts: Sequence[Any]) -> Iterator[Any]:
        """Yield the answer to each part, a JSON value.

        Parameters
        ----------
        networks : the one that is attacked, and those that classify its images, which may include it; in eval mode.
        split : all images of the measurement.
        parts : JSON values that say what to do, one at least.

        Raises
        ------
        ValueError
            As :func:`evaluation.correct_predictions`.
        """

    @property
    def can_be_sent(self) -> bool:
        """Whether its attack is the kit's own, so that :func:`received` makes the same one of its name and numbers."""
        return self.attack is None or type(self.attack) in OWN

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, for :func:`received`."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "does": type(self).__name__, "attack": self.attack and self.attack.identity()}


@dataclass(frozen=True, kw_only=True)
class WholeBatches(Computation):
    """Attacks and classifies whole batches. A part is the number of a batch's first image; they must be in order.

    An answer has a text for each network that classifies, in which every image has as many letters.

    Attributes
    ----------
    quantity : one of `evaluation.QUANTITIES`, of one network; "": which images are classified correctly.
    batch_size : images per batch.
    """

    quantity: str
    batch_size: int

    def answers(self, networks: Sequence[nn.Module], split: data.Split, parts: Sequence[int]) -> Iterator[list[str]]:
        """As :meth:`Computation.answers`."""
        attacked, *judges = networks
        size = self.batch_size
        batches = evaluation.batches_of_logits(
            judges, split.images, split.labels, self.attack, attacked, batch_size=size, starts=parts
        )
        for start, answers in batches:
            logits, labels = evaluation.finite(answers), split.labels[start : start + size].cpu()
            if self.quantity:
                yield [floats_to_text(evaluation.QUANTITIES[self.quantity](logits[0], labels))]
            else:
                yield ["".join(map(str, row.int().tolist())) for row in logits.argmax(2) == labels]


@dataclass(frozen=True, kw_only=True)
class AttackSteps(Computation):
    """Attacks some images in a step of AutoAttack or Square: see `autoattack_shares`.

    A part is a step's number, the images of an `autoattack_shares.Piece` and the three fields of each of its cuts; the
    answer is which images the step fools.

    Attributes
    ----------
    classes : the network's number of classes.
    """

    attack: autoattack.Packaged
    classes: int

    def answers(self, networks: Sequence[nn.Module], split: data.Split, parts: Sequence[Any]) -> Iterator[list[int]]:
        """As :meth:`Computation.answers`."""
        images = data.to_float(split.images)
        with evaluation.prepared(networks[0], self.attack, images) as network:
            by_step = autoattack_shares.Parts(self.attack, network, self.classes)
            for step, chosen, cuts in parts:
                piece = autoattack_shares.Piece(tuple(chosen), tuple(autoattack_shares.Cut(*cut) for cut in cuts))
                yield by_step.fooled(step, piece, images, split.labels)


def received(sent: Mapping[str, Any]) -> Computation:
    """Return the computation that :meth:`Computation.to_json` wrote in another process.

    Raises
    ------
    ValueError
        If its attack would be another one here, by another version of its package.
    """
    known: dict[str, type[Computation]] = {each.__name__: each for each in (WholeBatches, AttackSteps)}
    values = {name: value for name, value in sent.items() if name not in ("does", "attack")}
    return known[sent["does"]](attack=_attack(sent["attack"]), **values)


def _attack(identity: Mapping[str, Any] | None) -> attacks.Attack | None:
    if identity is None:
        return None
    values = {name: value for name, value in identity.items() if name not in ("name", "implementation")}
    attack: attacks.Attack = {each.__name__: each for each in OWN}[identity["name"]](**values)
    if attack.identity() != identity:
        here, there = attack.identity().get("implementation"), identity.get("implementation")
        raise ValueError(f"it attacks by {here}, and the first process by {there}: install the same packages.")
    return attack
