"""Several methods' accuracy under the same attacks on the same images (PeerAiD Table 1)."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch

from rkdkit import attacks, evaluation, runs, statistics
from rkdkit.claims import Claim, Quantity, deciding
from rkdkit.measurements import Measurement
from rkdkit.references import Images, Snapshot

DISTILLATION = ("AKD2", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""The methods that PeerAiD's tables call adversarial distillation, in the same order."""

DIFFERENCES = ("difference", "difference_low", "difference_high", "paper_difference")
"""The columns that `WhiteBox.against` adds, as fractions."""


@dataclass(frozen=True)
class WhiteBox:
    """The accuracies of several methods.

    Attributes
    ----------
    evaluations : by method, one per seed.
    measured_by : the attacks by metric; None: natural images.
    num_classes : guessing has an accuracy of 1 / num_classes.
    classes : the number of classes by method, where some are measured on another dataset.
    """

    evaluations: Mapping[str, Sequence[evaluation.Evaluation]]
    measured_by: Mapping[str, attacks.Attack | None]
    num_classes: int
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that were measured for every method."""
        return tuple(next(iter(self.evaluations.values()))[0].correct)

    def guessing(self, method: str) -> float:
        """Return the accuracy of guessing on the data that a method is measured on."""
        return 1 / self.classes.get(method, self.num_classes)

    def accuracy(self, method: str, metric: str) -> statistics.Estimate:
        """Return a method's accuracy under a metric, over all seeds."""
        return statistics.accuracy_over_seeds([seed.answers(metric) for seed in self.evaluations[method]])

    def minus(
        self, first: str, second: str, metric: str, confidence: float = statistics.CONFIDENCE
    ) -> statistics.Estimate:
        """Return the paired difference of two methods under one metric, over all seeds."""
        seeds = zip(self.evaluations[first], self.evaluations[second], strict=True)
        pairs = [(a.correct[metric], b.correct[metric]) for a, b in seeds]
        return statistics.difference_over_seeds(pairs, confidence)

    def combination(
        self, weights: Mapping[tuple[str, str], float], confidence: float = statistics.CONFIDENCE
    ) -> statistics.Estimate:
        """Return a weighted sum of accuracies on the same images, over all seeds: for means, gains, parts of others.

        Parameters
        ----------
        weights : by method and metric. If a metric was measured on fewer images, all are taken on these.
        confidence : of the interval.

        Returns
        -------
        The sum with the t interval of its mean over images and seeds, clipped to the sum's range; a fraction.
        """
        of_seeds = []
        for i in range(len(self.evaluations[next(iter(weights))[0]])):
            correct = {key: self.evaluations[key[0]][i].correct[key[1]] for key in weights}
            n = min(map(len, correct.values()))
            weighted = [weight * correct[key][:n].double() for key, weight in weights.items()]
            of_seeds.append(torch.stack(weighted).sum(0))
        least, most = (math.fsum(limit(weight, 0.0) for weight in weights.values()) for limit in (min, max))
        found = statistics.mean_over_seeds(of_seeds, bounds=(least, most), confidence=confidence)
        return statistics.Estimate(found.value, found.low, found.high, found.n, found.seeds, found.degrees)

    def between(self, method: str, first: str, second: str) -> statistics.Estimate:
        """Return the paired difference of a method's accuracies under two metrics, over all seeds."""
        return statistics.difference_over_seeds(
            [(seed.correct[first], seed.correct[second]) for seed in self.evaluations[method]]
        )

    def table(self) -> pd.DataFrame:
        """Return the numbers: method, metric, accuracy and its interval as fractions, n, seeds, attack."""
        return pd.DataFrame(
            {
                "method": method,
                "metric": metric,
                **self.accuracy(method, metric).columns("accuracy"),
                "attack": _named(self.measured_by[metric]),
            }
            for method in self.evaluations
            for metric in self.metrics
        )

    def against(self, references: Mapping[str, str], numbers: pd.DataFrame) -> pd.DataFrame:
        """Return numbers with each method's paired difference from another: ours, and that of the paper's numbers.

        Numbers of different data cannot be compared, but how much better one method is than another can.

        Parameters
        ----------
        references : by method, the method whose accuracy is subtracted.
        numbers : as :meth:`table`, perhaps with a column paper (fractions), as `reported.beside` adds it, and with
            lines of methods that were not measured.

        Returns
        -------
        `numbers` with the columns compared_with ("" where a method is compared with none), difference, difference_low,
        difference_high, and paper_difference (fractions; NaN: not known).
        """
        keys: list[tuple[str, str]] = list(zip(numbers.method, numbers.metric, strict=True))
        paper = dict(zip(keys, numbers.paper, strict=True)) if "paper" in numbers else {}
        lines = []
        for method, metric in keys:
            reference = references.get(method, "")
            line: dict[str, str | float] = {"method": method, "metric": metric, "compared_with": reference}
            if reference:
                line["paper_difference"] = paper.get((method, metric), math.nan) - paper.get(
                    (reference, metric), math.nan
                )
            if {method, reference} <= self.evaluations.keys() and metric in self.metrics:
                ours = self.minus(method, reference, metric)
                line |= {"difference": ours.value, "difference_low": ours.low, "difference_high": ours.high}
            lines.append(line)
        columns = ["method", "metric", "compared_with", *DIFFERENCES]
        return numbers.merge(pd.DataFrame(lines, columns=columns), on=["method", "metric"], validate="one_to_one")


def compared(methods: Sequence[str], usual: str = "PeerAiD") -> dict[str, str]:
    """Return what each method's accuracy is compared with in a picture: with one method, which is compared with none.

    Parameters
    ----------
    methods : the methods, in their order.
    usual : the method that all others are compared with; if it is not among them, they are compared with the last.
    """
    reference = usual if usual in methods else methods[-1]
    return {method: reference for method in methods if method != reference}


def white_box(
    chosen: Mapping[str, Sequence[Snapshot]],
    images: Images,
    attacks_by_metric: Mapping[str, attacks.Attack | None],
    *,
    n: Mapping[str, int | None],
) -> WhiteBox:
    """Measure every method's network naturally and under attacks on itself.

    Parameters
    ----------
    chosen : the snapshots that represent each method, one per seed.
    images : the test images.
    attacks_by_metric : the attacks; None for natural images.
    n : by metric, how many of the first images are used; None: all.
    """
    found = iter(
        runs.evaluate_all([s for of_seeds in chosen.values() for s in of_seeds], images, attacks_by_metric, n=n)
    )
    evaluations = {method: [next(found) for _ in of_seeds] for method, of_seeds in chosen.items()}
    return WhiteBox(evaluations, attacks_by_metric, len(images.class_names))


def white_box_of(
    tasks: Mapping[tuple[str, int, str], Measurement],
    attacks_by_metric: Mapping[str, attacks.Attack | None],
) -> WhiteBox:
    """Ask for measurements of several kinds or on several datasets in one gather.

    Parameters
    ----------
    tasks : by method, seed and metric, for all metrics; each one's answer is (1, N) bool, which images are classified
        correctly. The methods keep their order.
    attacks_by_metric : the attacks of the tasks; None for natural images.
    """
    correct = runs.answers(tasks, f"Accuracy: {', '.join(attacks_by_metric)}")
    evaluations: dict[str, list[evaluation.Evaluation]] = {}
    for method, seed in dict.fromkeys(key[:2] for key in tasks):
        found = {metric: correct[method, seed, metric][0] for metric in attacks_by_metric}
        evaluations.setdefault(method, []).append(evaluation.Evaluation(found))
    classes = {method: len(task.images.class_names) for (method, _, _), task in tasks.items()}
    return WhiteBox(evaluations, attacks_by_metric, next(iter(classes.values())), classes)


def highest(
    measured: WhiteBox, method: str, others: Sequence[str], metric: str, words: str, text: str, source: str
) -> Claim:
    """Check that a method has the highest accuracy of several methods under a metric.

    The method is compared with each of the others, and the claim shows the difference that decides (`claims.deciding`).

    Parameters
    ----------
    measured : the measurements of all these methods.
    method, others : the method that is claimed to be first, and the methods it is compared with.
    metric, words : the metric, and its name in words.
    text, source : the claim's sentence, and its place in the paper.
    """
    place, difference, confidence = deciding(
        lambda confidence: [measured.minus(method, other, metric, confidence) for other in others]
    )
    higher, lower = (Quantity(f"{name}, {words}", measured.accuracy(name, metric)) for name in (method, others[place]))
    return Claim(text, source, higher, lower, difference, confidence)


def attack_named(metric: str) -> str:
    """Return the name of a metric's attack in claims: "PGD-20 (any iterate) from resnet34", "AutoAttack", "clean"."""
    attack, space, rest = metric.partition(" ")
    return {"clean": "clean", "autoattack": "AutoAttack"}.get(attack, attack.upper()) + space + rest


def noted(checked: Sequence[Claim], measured: WhiteBox) -> list[Claim]:
    """Return claims, of which those have a note that rest on the robustness of a network that has none.

    Parameters
    ----------
    checked : claims whose quantities are called "NAME, PGD-20 accuracy", with ":" for "," or "ONE minus OTHER" for the
        name. Other claims, and those that have a note, are returned as they are.
    measured : the measurements of these networks.
    """
    weak = {
        f"{name} {attack_named(metric)}": name
        for name in measured.evaluations
        for metric in measured.metrics
        if metric != "clean" and measured.accuracy(name, metric).value <= measured.guessing(name)
    }
    found = []
    for claim in checked:
        sides = (re.fullmatch("(.+)[,:] (.+) accuracy", side.name) for side in (claim.higher, claim.lower))
        named = [f"{name} {side[2]}" for side in sides if side for name in side[1].split(" minus ")]
        about = dict.fromkeys(weak[name] for name in named if name in weak)
        note = f"no more robust than guessing: {', '.join(about)}" if about else ""
        found.append(replace(claim, note=claim.note or note))
    return found


def _named(attack: attacks.Attack | None) -> str:
    """Return an attack's name and implementation, because the results of implementations differ."""
    return "none" if attack is None else f"{attack}, {attack.parameters().get('implementation', 'rkdkit')}"
