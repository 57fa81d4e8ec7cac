"""RKD, Figure 5: the entropy of networks' predictions in the course of training."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from rkdkit import comparisons, runs
from rkdkit.claims import Claim, Quantity, Question, judged
from rkdkit.comparisons import Guide
from rkdkit.measurements import PerImage
from rkdkit.profiles import PROFILES, rkd
from rkdkit.references import Images
from rkdkit.setup import Exhibit, Setup
from rkdkit.statistics import Measure, mean_over_seeds
from rkdkit.trainings import Run

EXHIBIT = Exhibit(
    paper="RKD, Figure 5",
    differs={profile: rkd(profile) for profile in PROFILES},
    unused=("select_on", "teacher_method", "peer", "n_test", "test_steps", "test_iterate", "n_autoattack"),
    trains=("PGD-AT", "Natural", "AKD"),
    compares=("AKD",),
    slots=("T",),
)

TEACHERS = {"AKD-Std": "Natural", "AKD-AT": "PGD-AT"}
"""The students of the figure by the paper's names, and the method that trains each student's fixed teacher."""


@dataclass(frozen=True)
class EntropyCurves:
    """The entropy of every network's prediction for every image, at every snapshot.

    Attributes
    ----------
    nats : by network, then epoch: one (N,) float32 per seed, always on the same N images.
    num_classes : the uniform prediction has an entropy of ln(num_classes) nats.
    """

    nats: Mapping[str, Mapping[int, Sequence[Tensor]]]
    num_classes: int

    def at(self, network: str, epoch: int | None = None) -> Measure:
        """Return the mean over the images and all seeds at an epoch; None: the last."""
        return mean_over_seeds(self._answers(network, epoch), "nats", (0.0, math.log(self.num_classes)))

    def minus(self, first: str, second: str) -> Measure:
        """Return the paired difference of two networks' means, each at its last epoch, over all seeds."""
        pairs = zip(self._answers(first), self._answers(second), strict=True)
        most = math.log(self.num_classes)
        return mean_over_seeds([a - b for a, b in pairs], "nats", (-most, most))

    def table(self) -> pd.DataFrame:
        """Return the numbers to draw: network, epoch, mean entropy and its interval in nats, n, seeds."""
        return pd.DataFrame(
            {"network": network, "epoch": epoch, **self.at(network, epoch).columns("entropy_nats")}
            for network, by_epoch in self.nats.items()
            for epoch in by_epoch
        )

    def _answers(self, network: str, epoch: int | None = None) -> Sequence[Tensor]:
        by_epoch, most = self.nats[network], math.log(self.num_classes)
        # rounded to float32, the entropy of a uniform answer may be above ln C
        return [of_seed.double().clamp(0, most) for of_seed in by_epoch[max(by_epoch) if epoch is None else epoch]]


def taught_by(methods: Iterable[str]) -> dict[str, str]:
    """Return the method that trains each student's fixed teacher, by student; AKD's have the paper's names."""
    students = {}
    for method in methods:
        for student, teacher in TEACHERS.items():
            students[student if method == "AKD" else student.replace("AKD-", f"{method}, ")] = teacher
    return students


def train(setup: Setup) -> dict[str, list[Run]]:
    """Train both teachers and each method's student of each; return the runs by name, one per seed.

    Every teacher teaches with its weights after its last epoch (RKD section C.2).
    """
    specs = {teacher: setup.teacher_specs(teacher) for teacher in TEACHERS.values()}
    for method in setup.methods:
        for student, teacher in taught_by([method]).items():
            (last,) = comparisons.choose_guides(setup, {"T": Guide(teacher, stopped=1.0)}).values()
            specs[student] = [setup.profile.spec(method, t.spec.seed, teachers=(t.as_teacher(),)) for t in last]
    return dict(zip(specs, runs.ensure_all(*specs.values()), strict=True))


def measure(networks: Mapping[str, Sequence[Run]], images: Images) -> EntropyCurves:
    """Measure H = E_x[-sum_i f(x)_i ln f(x)_i] on natural images at every snapshot (RKD section C.2).

    Parameters
    ----------
    networks : the runs by name, one per seed; each run's student is measured.
    images : the images to measure on; RKD takes all training images.

    Raises
    ------
    ValueError
        If there are fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"A mean entropy needs at least two images, not {len(images)}.")
    epochs = {name: of_seeds[0].epochs for name, of_seeds in networks.items()}
    tasks = {
        (name, epoch, seed): PerImage(images=images, quantity="entropy", snapshot=run.snapshot(epoch=epoch))
        for name, of_seeds in networks.items()
        for epoch in epochs[name]
        for seed, run in enumerate(of_seeds)
    }
    nats = runs.answers(tasks, "Entropy")
    return EntropyCurves(
        {
            name: {epoch: [nats[name, epoch, seed] for seed in range(len(of_seeds))] for epoch in epochs[name]}
            for name, of_seeds in networks.items()
        },
        len(images.class_names),
    )


def check_claims(curves: EntropyCurves) -> list[Claim]:
    """Check that students of AKD are less over-confident than their teachers (section C.2), at the last epoch."""

    def question(student: str, teacher: str) -> Question:
        def judge(text: str) -> Claim:
            sides = [Quantity(f"{name}, mean entropy", curves.at(name)) for name in (student, teacher)]
            return Claim(text, "RKD, Figure 5 and section C.2", sides[0], sides[1], curves.minus(student, teacher))

        text = f"At the end, AKD's student is less sure of its answers on training images than its {teacher} one."
        return Question(text, (student, teacher), judge)

    return judged([question(*pair) for pair in TEACHERS.items()], curves.nats)
