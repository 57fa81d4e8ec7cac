"""Students of one and of several teachers (RKD section 3.6), and several networks as one ensemble."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from rkdkit import attacks, checks, comparisons, data, evaluation
from rkdkit.analysis import candidates, mixing, selection
from rkdkit.analysis.white_box import WhiteBox, white_box_of
from rkdkit.comparisons import Entry, Guide
from rkdkit.measurements import EVALUATION_ENGINE, CorrectPredictions, Digest, Load, Measurement, Pass
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup

IN_RKD = 4
"""How many teachers an ensemble has in the paper."""

TEACHERS = {"smoke": 2}
"""How many teachers an ensemble has, by profile; others: as many as in the paper."""

ACCURATE = ("Natural", "Low-eps AT")
"""The methods whose teachers are to make the student accurate; with others, it is to be robust (RKD section 3.5)."""

_TABLES = {"AKD+": "Table 5", "RSLAD+": "Table 10"}


@dataclass(frozen=True)
class Taught:
    """A student of one or more teachers that differ by their random initialisation.

    Attributes
    ----------
    method : the method that trains the student.
    teacher : the method that trains the teachers.
    number : the number of teachers; each has the same weight.
    """

    method: str
    teacher: str
    number: int = 1

    def __str__(self) -> str:
        return f"{self.method} from {self.number} {self.teacher}"

    @property
    def aim(self) -> str:
        """What its hyper-parameters are chosen for, one of `selection.AIMS`."""
        return "RKD-Acc." if self.teacher in ACCURATE else "RKD-Rob."

    @property
    def limited(self) -> bool:
        """Whether the other accuracy may lose 2 points only: as in Table 5 with AKD+, in Table 10 with RSLAD+."""
        return (_TABLES.get(self.method), self.method, self.teacher) not in candidates.UNLIMITED

    def entry(
        self, stopped: float, alpha: float, changes: Mapping[str, Any] | None = None, *, certain: bool = True
    ) -> Entry:
        """Return how it is trained.

        Parameters
        ----------
        stopped : the share of their epochs after which its teachers are taken.
        alpha : the weight of the teachers' outputs, in (0, 1], as `comparisons.mixed`.
        changes : fields of `RunSpec` that differ from the profile's, the teachers' included.
        certain : whether `stopped` and `alpha` were not chosen by placeholders.
        """
        more = dict(changes or {})
        guides = tuple(
            Guide(self.teacher, stopped=stopped, another=i, weight=1 / self.number, changes=more, certain=certain)
            for i in range(self.number)
        )
        method, settings = comparisons.mixed(self.method, alpha)
        return Entry(method, guides, {**more, "settings": settings})


@dataclass(frozen=True)
class Chosen:
    """Students with the hyper-parameters that were chosen for them.

    Attributes
    ----------
    students : the snapshots by student, one per seed.
    stops, alphas : the hyper-parameters, by student.
    within : by student, whether the limit of the choice is kept, by the student of one teacher.
    alone : the teacher alone that sets the limit, one per seed: `candidates.alone` of the profile's student.
    """

    students: Mapping[Taught, Sequence[Snapshot]]
    stops: Mapping[Taught, float]
    alphas: Mapping[Taught, float]
    within: Mapping[Taught, bool]
    alone: Sequence[Snapshot]

    @property
    def named(self) -> dict[str, Sequence[Snapshot]]:
        """The snapshots by the students' names."""
        return {str(student): of_seeds for student, of_seeds in self.students.items()}

    def table(self) -> pd.DataFrame:
        """Return method (the students' names), early_stop, alpha and within."""
        by_column = {"early_stop": self.stops, "alpha": self.alphas, "within": self.within}
        return pd.DataFrame(
            {"method": str(student), **{column: values[student] for column, values in by_column.items()}}
            for student in self.students
        )


def train(
    setup: Setup,
    students: Iterable[Taught],
    others: Mapping[str, Entry],
    stops: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
) -> tuple[Chosen, dict[str, list[Snapshot]]]:
    """Train students with all hyper-parameters of a grid, choose one of each on held-out images, and train the rest.

    Hyper-parameters are chosen for students of one teacher, by :attr:`Taught.aim`. Students that are to be accurate may
    lose 2 points of robust accuracy against the teacher alone: RKD's numbers of them are those of its Tables 3 and 4,
    and without a limit, the student of a natural teacher would be the one that is least robust. Which of the others are
    limited is in `candidates.UNLIMITED`. A student of several teachers has the hyper-parameters of the student of one
    teacher, so that the two differ in nothing but the number of teachers; RKD does not say whether it chose again.

    Parameters
    ----------
    setup : the notebook's parameters.
    students : the students; of those with several teachers, the counterparts with one teacher are trained, too.
    others : further networks that are trained side by side with the grid, by name.
    stops, alphas : the grid; None: those of `candidates` for the profile.

    Returns
    -------
    The students, and the snapshots of the others by name, one per seed.

    Raises
    ------
    UnknownNameError, ValueError
        As `comparisons.train_entries` and `mixing.shares`; also if no images are held out to choose on.
    """
    selection.check_held_out(setup)
    name = setup.profile.name
    stops = mixing.shares("stops", stops, candidates.STOPS[name])
    alphas = mixing.shares("alphas", alphas, candidates.ALPHAS[name])
    wanted = list(dict.fromkeys(students))
    alone = list(dict.fromkeys(replace(student, number=1) for student in wanted))
    grid = {
        (student, stop, alpha): student.entry(stop, alpha) for student in alone for stop in stops for alpha in alphas
    }
    lines = {f"{student}, stopped at {stop:g}, alpha {alpha:g}": key for key in grid for student, stop, alpha in [key]}
    network = setup.profile.student
    further = {**candidates.alone(setup, network), **others}
    trained = comparisons.train_entries(setup, {**{line: grid[key] for line, key in lines.items()}, **further}).chosen
    longer = candidates.choose_alone(setup, [network], trained)[network].snapshots
    of_grid = {key: trained[line] for line, key in lines.items()}
    contests = {
        student: selection.Contest(
            {key[1:]: of for key, of in of_grid.items() if key[0] == student},
            student.aim,
            longer if student.limited else None,
        )
        for student in alone
    }
    winners = selection.choose_all(setup, contests)
    found: dict[Taught, Sequence[Snapshot]] = {student: winners[student].snapshots for student in alone}
    several = [student for student in wanted if student.number > 1]
    best = {student: winners[replace(student, number=1)] for student in (*alone, *several)}
    if several:
        entries = {str(one): one.entry(*best[one].key, certain=best[one].known) for one in several}
        of_several = comparisons.train_entries(setup, entries).chosen
        found |= {student: of_several[str(student)] for student in several}
    chosen = Chosen(
        {student: found[student] for student in wanted},
        {student: best[student].key[0] for student in wanted},
        {student: best[student].key[1] for student in wanted},
        {student: best[student].within for student in wanted},
        longer,
    )
    return chosen, {other: trained[other] for other in others}


class Ensemble(nn.Module):
    """Several networks as one: the logarithm of the mean of their probabilities.

    This is the teacher of RKD section 3.6, sum_i beta_i f_i(x) with beta_i = 1/M, as logits: their softmax is that sum.

    Parameters
    ----------
    members : networks of (N, C, H, W) float in [0, 1] -> (N, classes) logits, at least one.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, classes) float32 logits for (N, C, H, W) images."""
        answers = torch.stack([member(x).float().log_softmax(1) for member in self.members])
        return answers.logsumexp(0) - math.log(len(self.members))


@dataclass(frozen=True, kw_only=True)
class CorrectTogether(Measurement):
    """Which images several networks classify correctly as one :class:`Ensemble`, which is attacked as one network.

    The answer is (1, N) bool.

    Attributes
    ----------
    members : the networks.
    attack : makes the adversarial examples of the ensemble; None: natural images.
    """

    members: tuple[Snapshot, ...]
    attack: attacks.Attack | None = None

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measurement.snapshots`."""
        return self.members

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
        return {
            "engine": EVALUATION_ENGINE,
            "question": "correct predictions of an ensemble",
            "members": [digest(member) for member in self.members],
            "attack": None if self.attack is None else self.attack.identity(),
            "data": split.digest,
            "n": len(split),
        }

    def measured(self, load: Load, split: data.Split) -> list[int]:
        """As :meth:`Measurement.measured`: the places of the images that are classified correctly."""
        together = Ensemble([load(member) for member in self.members]).eval()
        (correct,) = evaluation.correct_predictions([together], split.images, split.labels, self.attack)
        return [int(place) for place in correct.nonzero()]

    def value(self, answer: list[int], split: data.Split) -> Tensor:
        """As :meth:`Measurement.value`."""
        correct = torch.zeros(1, len(split), dtype=torch.bool)
        correct[0, answer] = True
        return correct

    def placeholder(self) -> Tensor:
        """Return False for every image."""
        return torch.zeros(1, len(self.images), dtype=torch.bool)

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`: every pass goes through all networks."""
        return [Pass(member, self.attack, member) for member in self.members]


@dataclass(frozen=True)
class Networks:
    """The networks of one dataset that are measured.

    Attributes
    ----------
    setup : gives the test images.
    alone : the snapshots by name, one per seed.
    together : the members of each ensemble by its name, for each seed.
    """

    setup: Setup
    alone: Mapping[str, Sequence[Snapshot]]
    together: Mapping[str, Sequence[Sequence[Snapshot]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """The trained networks of an exhibit.

    Attributes
    ----------
    number : how many teachers an ensemble has.
    parts : the networks of each dataset.
    choices : as `Chosen.table`, with the names of lines: the hyper-parameters that were chosen.
    generators : what generated the images that were trained on beside the dataset's own.
    """

    number: int
    parts: Sequence[Networks]
    choices: pd.DataFrame
    generators: Sequence[str] = ()


def measure(parts: Sequence[Networks], by: Mapping[str, attacks.Attack | None]) -> WhiteBox:
    """Measure networks, and ensembles as one network each, naturally and under attacks on themselves, in one gather.

    Parameters
    ----------
    parts : the networks of each dataset; their names differ.
    by : the attacks by metric; None for natural images.
    """
    tasks: dict[tuple[str, int, str], Measurement] = {}
    for part in parts:
        n = part.setup.n_of(by)
        for metric, attack in by.items():
            images: Images = part.setup.images.first(n[metric])
            for name, of_seeds in part.alone.items():
                for seed, snapshot in enumerate(of_seeds):
                    tasks[name, seed, metric] = CorrectPredictions(images=images, judges=(snapshot,), attack=attack)
            for name, members in part.together.items():
                for seed, of_seed in enumerate(members):
                    tasks[name, seed, metric] = CorrectTogether(images=images, members=tuple(of_seed), attack=attack)
    return white_box_of(tasks, by)


def robust_metric(setup: Setup) -> str:
    """Return the metric that decides claims of robustness: AutoAttack if all test images are tried, otherwise PGD."""
    tried = setup.n_of(["autoattack"])["autoattack"]
    return "autoattack" if tried == setup.n_test else str(setup.profile.test_attack).lower()


def setups_of(setup: Setup, datasets: Mapping[str, Sequence[str]]) -> dict[str, Setup]:
    """Return an exhibit's setup for each of its datasets, by the dataset; one that the notebook sets is the only one.

    Parameters
    ----------
    setup : the notebook's parameters.
    datasets : the datasets by the name of a profile, its own first; others have their own alone.

    Raises
    ------
    DataNotFoundError
        If the data are not there.
    """
    scale = setup.profile
    if "dataset" in scale.fixed:
        return {scale.dataset: setup}
    others = [name for name in datasets.get(scale.name, ()) if name != scale.dataset]
    return {scale.dataset: setup, **{name: setup.changed(dataset=name) for name in others}}


def on(dataset: str, first: str) -> str:
    """Return what a line's name ends with: "" on an exhibit's first dataset, otherwise " on cifar100"."""
    return "" if dataset == first else f" on {dataset}"


def named_by_dataset(theirs: pd.DataFrame, first: str) -> pd.DataFrame:
    """Return a paper's numbers with the names that lines have here, by :func:`on`.

    Parameters
    ----------
    theirs : method, dataset and further columns.
    first : the first dataset here. If the paper does not have it, the numbers of the paper's first one stand for it;
        for a selection of classes, the paper has no numbers, and its lines are told apart by " (paper)".
    """
    meant = first if first in set(theirs.dataset) else theirs.dataset.iloc[0]
    end = " (paper)" if ":" in first else ""
    return theirs.assign(method=[m + on(d, meant) + end for m, d in zip(theirs.method, theirs.dataset, strict=True)])


def beside_all(measured: WhiteBox, choices: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Put a paper's numbers beside ours, and add a line for each of its numbers that has no counterpart here.

    Parameters
    ----------
    measured : our numbers.
    choices : as `Chosen.table`.
    theirs : as `reported.reported`, with the names of lines here as methods. A line that stands in several tables has
        the same value in all of them.

    Returns
    -------
    As `WhiteBox.table`, with the columns early_stop, alpha and within (NaN: not chosen), paper (fractions; NaN: not in
    the paper), table ("Table 1, Table 6"), paper_dataset, paper_network, guide and setting ("": not in the paper), and
    remark (`candidates.remarks`). The accuracy of the further lines is NaN.

    Raises
    ------
    ValueError
        If `theirs` has different values of one line and metric.
    """
    ours = measured.table().merge(choices, on="method", how="left")
    theirs = theirs.rename(columns={"dataset": "paper_dataset", "network": "paper_network"})
    keys = ["method", "metric"]
    kept = [str(column) for column in theirs if column not in (*keys, "value", "table", "unit", "spread")]
    lines = theirs.groupby(keys, sort=False)
    if (lines.value.nunique() > 1).any():
        raise ValueError("The paper has different values of one line: give the lines different names.")
    once = theirs.drop_duplicates(keys)[[*keys, *kept, "value"]].rename(columns={"value": "paper"})
    tables = lines.table.agg(lambda of_line: ", ".join(dict.fromkeys(of_line))).reset_index()
    once = once.assign(paper=once.paper / 100).merge(tables, on=keys)
    both = ours.merge(once, on=keys, how="left", validate="one_to_one")
    only_theirs = once.merge(ours[keys], on=keys, how="left", indicator=True)
    only_theirs = only_theirs[only_theirs._merge == "left_only"].drop(columns="_merge")
    together = pd.concat([both, only_theirs], ignore_index=True)
    together = together.assign(remark=candidates.remarks(together, measured.guessing))
    return together.fillna(dict.fromkeys((*kept, "table", "attack"), ""))


def number_of_teachers(setup: Setup, number: int | None) -> int:
    """Return how many teachers an ensemble has.

    Parameters
    ----------
    setup : the notebook's parameters.
    number : what the notebook sets, at least two; None: `TEACHERS` of the profile, otherwise as in the paper.

    Raises
    ------
    ValueError
        If it is not a whole number in this range.
    """
    if number is None:
        return TEACHERS.get(setup.profile.name, IN_RKD)
    return checks.whole("n_teachers, the number of teachers in an ensemble,", number, 2, checks.MOST_TRAININGS)
