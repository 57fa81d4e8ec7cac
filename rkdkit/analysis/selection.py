"""How RKD chooses hyper-parameters: its RKD-Acc. and RKD-Rob. (RKD Tables 2 and 9), on held-out images."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from rkdkit import checks, runs
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup

Key = TypeVar("Key", bound=Hashable)
Name = TypeVar("Name", bound=Hashable)

AIMS = {"RKD-Acc.": "clean", "RKD-Rob.": "robust"}
"""The paper's two choices, and the accuracy that each of them maximises."""

MOST_LOST = 0.02
"""The largest loss of the other accuracy, against the baseline: the paper's "2%".

It is read as points, not as a share: the networks chosen in the paper lose up to 1.85 points, 8.5 % of the baseline.
"""

_ROUNDING = 1e-9  # 0.5 - 0.48 is above 0.02 in floating point


@dataclass(frozen=True)
class Accuracies:
    """A network's accuracy on natural images and under attack, as fractions.

    Raises
    ------
    ValueError
        If one is outside [0, 1] or NaN.
    """

    clean: float
    robust: float

    def __post_init__(self) -> None:
        checks.number("clean accuracy", self.clean, 0, 1)
        checks.number("robust accuracy", self.robust, 0, 1)


@dataclass(frozen=True)
class Choice(Generic[Key]):
    """What was chosen.

    Attributes
    ----------
    key : the chosen candidate.
    within : whether it keeps within the limit. If not, no candidate does.
    """

    key: Key
    within: bool


def best(
    candidates: Mapping[Key, Accuracies], baseline: Accuracies | None, aim: str, most_lost: float = MOST_LOST
) -> Choice[Key]:
    """Choose among candidates by the paper's rule.

    RKD-Acc. has the highest clean accuracy of all candidates whose robust accuracy is at most `most_lost` below the
    baseline's; RKD-Rob. has the highest robust accuracy of all whose clean accuracy is. Of equals, the one with the
    higher other accuracy is taken, then the earliest. The paper does not say what to do if no candidate keeps within
    the limit; here it is the one that loses least of the other accuracy, and `Choice.within` says so.

    Parameters
    ----------
    candidates : the accuracies on held-out images by candidate, at least one.
    baseline : the accuracies of the teacher alone; None: no limit.
    aim : "RKD-Acc." or "RKD-Rob.".
    most_lost : a difference of two fractions: 0.02 for two points.

    Raises
    ------
    UnknownNameError
        If there is no such aim.
    ValueError
        If there is no candidate.
    """
    maximised = AIMS[checks.one_of("aim", aim, AIMS)]
    if not candidates:
        raise ValueError("There is nothing to choose from: give at least one candidate.")
    limited = "robust" if maximised == "clean" else "clean"
    least = -math.inf if baseline is None else getattr(baseline, limited) - most_lost - _ROUNDING
    kept = [key for key, found in candidates.items() if getattr(found, limited) >= least]
    order = (maximised, limited) if kept else (limited, maximised)
    key = max(kept or candidates, key=lambda each: tuple(getattr(candidates[each], name) for name in order))
    return Choice(key, bool(kept))


@dataclass(frozen=True)
class Contest(Generic[Key]):
    """Candidates of which one is to be chosen.

    Attributes
    ----------
    candidates : the networks of each, one per seed.
    aim : "RKD-Acc." or "RKD-Rob.".
    baseline : the teacher alone, one per seed; None: no limit.
    most_lost : as :func:`best`.
    """

    candidates: Mapping[Key, Sequence[Snapshot]]
    aim: str
    baseline: Sequence[Snapshot] | None = None
    most_lost: float = MOST_LOST

    @property
    def networks(self) -> list[Sequence[Snapshot]]:
        """All networks that are measured, one per seed: the candidates, and the baseline if there is one."""
        return [*self.candidates.values(), *([] if self.baseline is None else [self.baseline])]


@dataclass(frozen=True)
class Winner(Generic[Key]):
    """The outcome of a contest.

    Attributes
    ----------
    key, within : as :class:`Choice`.
    snapshots : its networks, one per seed.
    held_out : its accuracies on the held-out images, the mean over the seeds.
    baseline : the same of the teacher alone; None: there is no limit.
    known : whether it was chosen by measurements, not by placeholders.
    """

    key: Key
    within: bool
    snapshots: tuple[Snapshot, ...]
    held_out: Accuracies
    baseline: Accuracies | None
    known: bool


@dataclass(frozen=True)
class HeldOut:
    """A candidate's accuracies on the held-out images, the means over the seeds.

    Attributes
    ----------
    accuracies : natural, and under the attack that chooses epochs (`Profile.selection_attack`).
    known : whether they were measured, not placeholders.
    """

    accuracies: Accuracies
    known: bool


def held_out(setup: Setup, candidates: Sequence[Sequence[Snapshot]]) -> list[HeldOut]:
    """Return candidates' accuracies on the held-out images, to choose among them; all are measured in one gather.

    Parameters
    ----------
    setup : gives the held-out images and the attack.
    candidates : the networks of each, one per seed.

    Raises
    ------
    ValueError
        If the exhibit holds out no images.
    """
    check_held_out(setup)
    scale = setup.profile
    images = Images(scale.dataset, "val", n_train=scale.n_train, n_val=scale.n_val)

    def tasks(network: Snapshot) -> tuple[CorrectPredictions, CorrectPredictions]:
        natural = CorrectPredictions(images=images, judges=(network,))
        return natural, replace(natural, attack=scale.selection_attack)

    asked = list(dict.fromkeys(task for of_seeds in candidates for each in of_seeds for task in tasks(each)))
    what = "Choosing on held-out images"
    answers = dict(zip(asked, runs.executor().gather(asked, what, deciding=True), strict=True))
    found = []
    for of_seeds in candidates:
        of_metrics = zip(*(tasks(each) for each in of_seeds), strict=True)
        counts = [sum(int(answers[task].value.sum()) for task in of_metric) for of_metric in of_metrics]
        known = all(answers[task].known for each in of_seeds for task in tasks(each))
        found.append(HeldOut(Accuracies(*(count / (len(images) * len(of_seeds)) for count in counts)), known))
    return found


def choose_all(setup: Setup, contests: Mapping[Name, Contest[Key]]) -> dict[Name, Winner[Key]]:
    """Choose a candidate of each contest on held-out images, over all seeds, by :func:`held_out`.

    Hyper-parameters are chosen once for all seeds, by the mean of their accuracies. In a plan, the first candidate is a
    placeholder for the one that is chosen.

    Parameters
    ----------
    setup : as :func:`held_out`.
    contests : what to choose, by name.

    Raises
    ------
    UnknownNameError
        If there is no such aim.
    ValueError
        If the exhibit holds out no images, or a contest has no candidate.
    """
    networks = list(dict.fromkeys(tuple(of_seeds) for contest in contests.values() for of_seeds in contest.networks))
    measured = dict(zip(networks, held_out(setup, networks), strict=True))
    winners = {}
    for name, contest in contests.items():
        found = {key: measured[tuple(of_seeds)].accuracies for key, of_seeds in contest.candidates.items()}
        baseline = None if contest.baseline is None else measured[tuple(contest.baseline)].accuracies
        chosen = best(found, baseline, contest.aim, contest.most_lost)
        known = all(measured[tuple(of_seeds)].known for of_seeds in contest.networks)
        snapshots = tuple(replace(s, chosen=s.chosen and known) for s in contest.candidates[chosen.key])
        winners[name] = Winner(chosen.key, chosen.within, snapshots, found[chosen.key], baseline, known)
    return winners


def in_images(setup: Setup) -> str:
    """Say how many held-out images the limit of the choice is, in a sentence for a caption."""
    n = setup.profile.n_val
    return f"Limit of the choice: {100 * MOST_LOST:g} points, which is {MOST_LOST * n:,.4g} of {n:,} held-out images."


def check_held_out(setup: Setup) -> None:
    """Refuse a setup that holds out no images, before anything is trained.

    Raises
    ------
    ValueError
        If `n_val` is 0.
    """
    if setup.profile.n_val == 0:
        raise ValueError("No images are held out to choose the best students on: set n_val.")
