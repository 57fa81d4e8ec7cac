"""How a guide sees a student's adversarial examples: right or wrong, and how far from home (PeerAiD Table 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import attacks, checks, data, evaluation, models, runs, statistics
from rkdkit.determinism import exact_arithmetic
from rkdkit.progress import track
from rkdkit.runs import Snapshot, correct_predictions
from rkdkit.store import Store

ACCURACIES = ("f(x)", "f(x*_f)", "f(x*_S)", "S(x*_S)")
"""Whose answers at what are right: of a guide f and of the student S that it taught."""

COSINES = ("cos(f(x), f(x*_S))", "cos(f(x*_S), f(x*_f))", "cos(f(x), f(x*_f))")
"""Of a guide's penultimate features at two kinds of images."""


@dataclass(frozen=True)
class Guidance:
    """What was measured of several guides, each with the student that it taught.

    Attributes
    ----------
    measured : by guide, then by quantity, one tensor a seed: (N,) bool for `ACCURACIES`, (N,) float32 in [-1, 1] for
        `COSINES`; on the same N test images throughout.
    num_classes : 1 / num_classes is what guessing gets.
    """

    measured: Mapping[str, Mapping[str, Sequence[Tensor]]]
    num_classes: int

    def __getitem__(self, asked: tuple[str, str]) -> statistics.Estimate:
        """Return a quantity of a guide, over all seeds: ``measured["peer", "f(x)"]``."""
        guide, quantity = asked
        of_seeds = self.measured[guide][quantity]
        if quantity in COSINES:
            return mean_similarity(of_seeds)
        return statistics.over_seeds([statistics.proportion(correct) for correct in of_seeds])

    def minus(self, first: tuple[str, str], second: tuple[str, str]) -> statistics.Estimate:
        """Paired difference of two accuracies, or of two cosines, each (guide, quantity), over all seeds."""
        pairs = list(zip(*(self.measured[guide][quantity] for guide, quantity in (first, second)), strict=True))
        if first[1] in COSINES:
            return mean_similarity([a - b for a, b in pairs], bounds=(-2.0, 2.0))
        return statistics.over_seeds([statistics.paired_difference(a, b) for a, b in pairs], bounds=(-1.0, 1.0))

    def table(self) -> pd.DataFrame:
        """Return the numbers: guide, quantity, value and its interval (accuracies as fractions), n, seeds."""
        return pd.DataFrame(
            {"guide": guide, "quantity": quantity, **self[guide, quantity].columns()}
            for guide, quantities in self.measured.items()
            for quantity in quantities
        )


def guidance(
    guides: Mapping[str, Sequence[Snapshot]],
    students: Mapping[str, Sequence[Snapshot]],
    dataset: data.Dataset,
    attack: attacks.Attack,
    *,
    n: int | None = None,
    store: Store | None = None,
) -> Guidance:
    """Measure guides on natural images, on their own adversarial examples x*_f and on those of their students, x*_S.

    Parameters
    ----------
    guides : one a seed, by name.
    students : whom each of them taught, in the same order.
    dataset : whose test images to use.
    attack : makes x*_f and x*_S, by the cross entropy.
    n : only the first so many test images, at least 2; None: all.
    store : as `runs.ensure`.

    Raises
    ------
    ValueError
        If there is not one student a guide, or fewer than 2 images: their mean cosine has no interval.
    """
    counts = {name: (len(of_seeds), len(students.get(name, ()))) for name, of_seeds in guides.items()}
    if guides.keys() != students.keys() or any(a != b or a == 0 for a, b in counts.values()):
        raise ValueError(f"One student a guide is needed; guides and students: {counts or 'none'}.")
    split = dataset.test.take(slice(0, n))
    checks.number("The number of test images", len(split), 2)
    measured: dict[str, dict[str, list[Tensor]]] = {
        name: {quantity: [] for quantity in (*ACCURACIES, *COSINES)} for name in guides
    }
    pairs = [(name, *pair) for name in guides for pair in zip(guides[name], students[name], strict=True)]
    for name, guide, student in track(pairs, desc=f"Guides, by {attack}", unit="guide"):
        (natural,) = correct_predictions([guide], split, store=store)
        (own,) = correct_predictions([guide], split, attack, store=store)
        on_student, taught = correct_predictions([guide, student], split, attack, student, store=store)
        cosines = _kept_similarities(guide, student, split, attack, store)
        for quantity, values in zip((*ACCURACIES, *COSINES), (natural, own, on_student, taught, *cosines), strict=True):
            measured[name][quantity].append(values)
    return Guidance(measured, len(dataset.classes))


def similarities(
    guide: nn.Module, student: nn.Module, images: Tensor, labels: Tensor, attack: attacks.Attack
) -> Tensor:
    """Compare a guide's penultimate features at natural images and at two kinds of adversarial examples.

    The adversarial examples are those of :func:`evaluation.correct_predictions`.

    Parameters
    ----------
    guide : the network f; it must show its features, as the kit's own do.
    student : the network S.
    images : (N, C, H, W) uint8, or floating point in [0, 1].
    labels : (N,) int64.
    attack : makes x*_f and x*_S, by the cross entropy.

    Returns
    -------
    (3, N) float32 in [-1, 1] on the CPU, in the order of `COSINES`.

    Raises
    ------
    ValueError
        If the guide shows no features, or images or labels do not fit.
    """
    shown = models.showing_features(guide)
    checks.images(images)
    checks.labels(labels, len(images), shown.num_classes)
    kinds = ((guide, None), (student, attack), (guide, attack))
    batches = zip(*(evaluation.perturbed(a, images, labels, by) for a, by in kinds), strict=True)
    found = []
    for batch in batches:
        with exact_arithmetic(), torch.no_grad(), attacks.attacked(guide):
            natural, on_student, own = (shown.features(x) for x, _ in batch)
        pairs = ((natural, on_student), (on_student, own), (natural, own))
        found.append(torch.stack([F.cosine_similarity(a, b) for a, b in pairs]))
    return torch.cat(found, dim=1).clamp(-1, 1).cpu()


def mean_similarity(of_seeds: Sequence[Tensor], bounds: tuple[float, float] = (-1.0, 1.0)) -> statistics.Measure:
    """Mean over images with its 95 % interval, then over seeds.

    Parameters
    ----------
    of_seeds : (N,) cosines, or paired differences of cosines, one tensor a seed; N at least 2.
    bounds : where they lie; the interval stays within.
    """
    return statistics.over_seeds([statistics.mean(values.double()) for values in of_seeds], bounds)


def _kept_similarities(
    guide: Snapshot, student: Snapshot, split: data.Split, attack: attacks.Attack, store: Store | None
) -> Tensor:
    """Return :func:`similarities` of snapshots; the answer is kept in the store."""
    question = {
        "engine": runs.EVALUATION_ENGINE,
        "question": "cosine similarities of penultimate features",
        "guide": guide.digest,
        "student": student.digest,
        "attack": attack.identity(),
        "data": split.digest,
        "n": len(split),
    }

    def measure() -> str:
        device = runs.default_device()
        found = similarities(guide.load(device), student.load(device), split.images, split.labels, attack)
        return found.numpy().astype("<f4").tobytes().hex()

    needs = [(guide, None, guide), (guide, attack, student), (guide, attack, guide)]
    made_up = bytes(4 * len(COSINES) * len(split)).hex()
    answer = runs.kept_answer(question, measure, split, needs, made_up, store=store)
    return torch.from_numpy(np.frombuffer(bytes.fromhex(answer), "<f4").reshape(len(COSINES), -1).copy())
