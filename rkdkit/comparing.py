"""Compare methods on the same images, paired by seed: what `rkdkit compare` does, for notebooks, too.

    from rkdkit import comparing
    found = comparing.compare(["RSLAD", "PeerAiD"], "quick", seeds=3)
    print(found)
    found.numbers()

Methods are trained and measured as in PeerAiD's Table 1, so runs and answers are shared with it.
"""

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rkdkit import checks, claims, comparisons, executors, methods, setup
from rkdkit.analysis.white_box import WhiteBox, white_box
from rkdkit.autoattack import AutoAttack
from rkdkit.claims import FAILS, HOLDS, OPEN, Claim, Quantity
from rkdkit.exhibits import tab1_white_box
from rkdkit.plan import Planner
from rkdkit.plan.estimate import A_SECOND, costs_of
from rkdkit.setup import Setup
from rkdkit.statistics import CONFIDENCE
from rkdkit.trainings import Train
from rkdkit.typeset import FORMATS, Table, latex, markdown, metric_in_words, text

SEEDS = 3
"""How many trainings of each method are compared unless it is said: with one, nothing is known of other trainings."""

VERDICTS = {HOLDS: "higher", FAILS: "lower", OPEN: "too close to tell"}
"""What is said of a method's accuracy, beside that of the first method, by the verdict that it is higher."""

_SOURCE = "rkdkit compare"


@dataclass(frozen=True)
class Comparison:
    """Several methods' accuracies, and how far each is from the first method's.

    Attributes
    ----------
    measured : the accuracies; the first method is the one that the others are compared with.
    differences : by method and metric, the difference from the first method's accuracy, as the claim that it is above
        0; all are judged as one family.
    notes : sentences that say how this was made.
    """

    measured: WhiteBox
    differences: Mapping[tuple[str, str], Claim]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> str:
        """The method that the others are compared with."""
        return next(iter(self.measured.evaluations))

    def numbers(self) -> pd.DataFrame:
        """Return the numbers, a line for each method and metric.

        Returns
        -------
        The columns of `WhiteBox.table` (accuracies as fractions), compared_with, difference, difference_low,
        difference_high, adjusted_p_value (Holm's), and verdict: "higher", "lower" or "too close to tell".
        """
        others = dict.fromkeys((method for method, _ in self.differences), self.first)
        table = self.measured.against(others, self.measured.table()).drop(columns="paper_difference")
        claimed = [self.differences.get(key) for key in zip(table.method, table.metric, strict=True)]
        adjusted = [None if claim is None else claim.adjusted_p_value for claim in claimed]
        verdicts = ["" if claim is None else VERDICTS[claim.verdict] for claim in claimed]
        return table.assign(adjusted_p_value=pd.Series(adjusted, dtype=float), verdict=verdicts)

    def tables(self) -> list[Table]:
        """Return two tables: the accuracies, and the differences from the first method with their verdicts."""
        metrics, titled = {metric: metric_in_words(metric) for metric in self.measured.metrics}, methods.titled
        accuracies = tuple(
            (titled(method), *(str(self.measured.accuracy(method, metric)).replace(" %", "") for metric in metrics))
            for method in self.measured.evaluations
        )
        others = list(dict.fromkeys(method for method, _ in self.differences))
        compared = tuple(
            (titled(method), name, claims.difference_in_words(claim.difference).removesuffix(" points"), verdict)
            for method in others
            for metric, name in metrics.items()
            for claim in [self.differences[method, metric]]
            for verdict in [VERDICTS[claim.verdict]]
        )
        title = "Accuracy in per cent, with 95 % intervals"
        return [
            Table(("method", *metrics.values()), accuracies, title, self.notes, "compared"),
            Table(
                ("method", "accuracy", f"minus {titled(self.first)}", "verdict"),
                compared,
                f"Difference from {titled(self.first)} in points, paired by image and by seed, with 95 % intervals",
                (self._family(),),
                "compared-differences",
                head=2,
            ),
        ]

    def written(self, form: str) -> str:
        """Return the comparison in a format of `typeset.FORMATS`: :meth:`numbers` as CSV, :meth:`tables` otherwise.

        Raises
        ------
        UnknownNameError
            If there is no such format.
        """
        if checks.one_of("format", form, FORMATS) == "csv":
            written: str = self.numbers().to_csv(index=False, float_format="%.6g", lineterminator="\n")
            return written
        return {"latex": latex, "markdown": markdown}[form](self.tables())

    def __str__(self) -> str:
        return text(self.tables())

    def _family(self) -> str:
        """Return a sentence that says how the verdicts were found."""
        size, most = len(self.differences), f"{100 * CONFIDENCE:g} %"
        if size == 1:
            return f"The verdict is that of the {most} interval."
        return (
            f"Verdicts: one family, these {size} differences, at {most} together (Holm); each interval is for itself."
        )


def check(names: Sequence[str]) -> None:
    """Refuse methods that cannot be compared; those of the user's own file are known, see `methods.own`.

    Raises
    ------
    UnknownNameError
        If a method is not known; the message lists the known ones, close matches first.
    ValueError
        If there is only one, or one is named twice, or the user's own file is refused.
    """
    for name in names:
        setup.known_method(name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"A method cannot be compared with itself: {', '.join(twice)} is named twice.")
    if len(names) < 2:
        raise ValueError(
            f"Name two methods or more, as in `rkdkit compare RSLAD PeerAiD`; the others are compared with the first. "
            f"Known: {', '.join(methods.METHODS)}."
        )


def prepared(names: Sequence[str], profile: str, *, seeds: int = SEEDS, **parameters: Any) -> Setup:
    """Return the checked parameters of a comparison; errors as :func:`compare`, before anything is trained."""
    check(names)
    exhibit = dataclasses.replace(tab1_white_box.EXHIBIT, trains=tuple(names), compares=(), fewest=1)
    return setup.prepare("compare", exhibit, profile, n_seeds=seeds, saves=False, **parameters)


def compare(names: Sequence[str], profile: str = "quick", *, seeds: int = SEEDS, **parameters: Any) -> Comparison:
    """Train methods, measure their accuracies, and compare each with the first; what is in the store is used again.

    Parameters
    ----------
    names : rows of `methods.METHODS`, two or more; the first is the one that the others are compared with.
    profile : the name of a profile.
    seeds : the number of trainings of each method.
    parameters : `seed`, the first seed, and fields of a profile, as `setup.prepare`.

    Raises
    ------
    UnknownNameError, ValueError, DataNotFoundError
        As :func:`check` and `setup.prepare`, before anything is trained.
    StoreError, DivergedError
        As `runs.ensure`.
    """
    made = prepared(names, profile, seeds=seeds, **parameters)
    measured = _measured(made, names)
    return compared(measured, _notes(made, measured))


def compared(measured: WhiteBox, notes: Sequence[str] = ()) -> Comparison:
    """Compare what was measured: each method with the first, under each metric.

    Parameters
    ----------
    measured : of two methods or more, with the same number of seeds.
    notes : as :class:`Comparison`.
    """
    first, *others = measured.evaluations
    keys = [(method, metric) for method in others for metric in measured.metrics]
    asked = [
        Claim(
            f"{method} has a higher accuracy than {first}: {metric}.",
            _SOURCE,
            Quantity(f"{method}, {metric}", measured.accuracy(method, metric)),
            Quantity(f"{first}, {metric}", measured.accuracy(first, metric)),
            measured.minus(method, first, metric),
        )
        for method, metric in keys
    ]
    return Comparison(measured, dict(zip(keys, claims.as_family(asked), strict=True)), tuple(notes))


def planned(names: Sequence[str], profile: str = "quick", *, seeds: int = SEEDS, **parameters: Any) -> Planner:
    """Return a planner that noted what a comparison needs; nothing is trained. Parameters and errors as `compare`."""
    planner, silent = Planner(), io.StringIO()
    with executors.using(planner), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        _measured(prepared(names, profile, seeds=seeds, **parameters), names)
    return planner


def still_to_do(planner: Planner) -> str:
    """Return a sentence that says what is not in the store yet, and on a CPU about how long it takes."""
    missing = planner.missing
    if not missing:
        return "Everything that this needs is in the store."
    trainings = sum(isinstance(task, Train) for task in missing)
    there = len(planner.trainings) - trainings
    said = f"Trainings needed: {len(planner.trainings)}, in the store: {there}, missing: {trainings}; "
    said += f"measurements missing: {len(missing) - trainings}"
    if planner.context.device.type != "cpu":
        return f"{said}."
    minutes = sum(costs_of(missing, planner.context).values()) / A_SECOND / 60
    long = f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute or two" if minutes > 0.5 else "less than a minute"
    return f"{said}: about {long} of work for one core, right within a factor of three."


def _measured(made: Setup, names: Sequence[str]) -> WhiteBox:
    attacks = made.test_attacks()
    trained = comparisons.train(made, names)
    return white_box(trained.chosen, made.images, attacks, n=made.n_of(attacks))


def _notes(made: Setup, measured: WhiteBox) -> list[str]:
    """Return sentences that say how a comparison was made."""
    attacks = [attack for attack in measured.measured_by.values() if attack is not None]
    notes = [f"{made.described(attacks, made.n_test)}."]
    for metric, n in made.n_of(measured.metrics).items():
        if isinstance(attack := measured.measured_by[metric], AutoAttack):
            notes.append(f"AutoAttack: {attack.parameters()['implementation']}, first {n:,} images.")
    if len(made.seeds) == 1:
        notes.append("With one seed, the intervals do not include the variance between trainings.")
    return notes
