"""ARD, Figure 2: the decision regions of a natural network, a robust teacher, and its students by KD and by ARD."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from rkdkit import checks, comparisons, data, runs
from rkdkit.analysis.decisions import SIDE, ChangingBoxes, Regions
from rkdkit.claims import Claim, Quantity
from rkdkit.comparisons import Entry, Guide
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Exhibit, Setup
from rkdkit.statistics import Estimate, accuracy_over_seeds, difference_over_seeds, over_seeds

EXHIBIT = Exhibit(
    paper="ARD, Figure 2",
    differs={
        "": {
            **{"dataset": "scattered", "student": "mlp-5", "teacher": "mlp-10", "teacher_method": "PGD-AT"},
            **{"n_train": None, "n_val": 0, "n_test": None, "select_on": "last", "recipes": False},
            # with these, all four networks are right on all training points, as in the paper; not tuned any further
            **{"epochs": 500, "batch_size": 32, "lr": 0.02, "schedule": "onecycle", "milestones": ()},
            **{"swa_start": None, "snapshot_every": 500, "precision": "float32"},
        },
        "smoke": {"epochs": 20},
    },
    unused=("peer", "select_on", "n_val", "n_test", "n_autoattack", "swa_start", "recipes"),
    trains=("Natural", "PGD-AT", "KD", "ARD"),
)

TEACHER = "robust teacher"

NETWORKS = ("Natural", TEACHER, "KD", "ARD")
"""The four networks, in the order of the panels."""


@dataclass(frozen=True)
class Decisions:
    """What the networks decide at every place of the plane, and around the training points.

    Attributes
    ----------
    points : the training points and their labels.
    eps : half the side of a point's l_inf box.
    correct : by network, one per seed: (N,) bool, whether a training point gets its label.
    changing : likewise, whether the class changes within its box.
    fooled : likewise, whether PGD finds a place of the box that does not get the point's label.
    regions : by network, one per seed: (256, 256) uint8 classes; row i and column j are the place (j, i) / 255.
    """

    points: data.Split
    eps: float
    correct: Mapping[str, Sequence[Tensor]]
    changing: Mapping[str, Sequence[Tensor]]
    fooled: Mapping[str, Sequence[Tensor]]
    regions: Mapping[str, Sequence[Tensor]]

    def share(self, measure: str, network: str) -> Estimate:
        """Return the share of training points of which "correct", "changing" or "fooled" is true, over all seeds."""
        return accuracy_over_seeds(getattr(self, measure)[network])

    def changing_minus(self, first: str, second: str) -> Estimate:
        """Return the paired difference of two networks' shares of vulnerable points, over all seeds."""
        pairs = list(zip(self.changing[first], self.changing[second], strict=True))
        return difference_over_seeds(pairs)

    def agreement(self, network: str) -> Estimate:
        """Return the share of the unit square where a network and its teacher give the same class, over all seeds.

        Places of a grid are no sample, so the interval is that of the spread between trainings. With one training,
        nothing is known of it, and the interval is [0, 1].
        """
        return _of_areas(self._same(network), (0, 1))

    def agreement_minus(self, first: str, second: str) -> Estimate:
        """Return the difference of two networks' agreements with the teacher, training by training."""
        pairs = zip(self._same(first), self._same(second), strict=True)
        return _of_areas([a - b for a, b in pairs], (-1, 1))

    def table(self) -> pd.DataFrame:
        """Return the numbers to draw: network, measure, share, its interval, n and seeds."""
        rows = []
        for network in self.regions:
            measures = {
                "training points with their label": self.share("correct", network),
                "vulnerable points": self.share("changing", network),
                "points on which PGD succeeds": self.share("fooled", network),
                "agreement with the teacher": self.agreement(network),
            }
            rows += [{"network": network, "measure": name, **e.columns("share")} for name, e in measures.items()]
        return pd.DataFrame(rows)

    def _same(self, network: str) -> list[float]:
        pairs = zip(self.regions[network], self.regions[TEACHER], strict=True)
        return [float((own == teachers).double().mean()) for own, teachers in pairs]


def train(setup: Setup) -> dict[str, list[Snapshot]]:
    """Train the four networks, and return their last snapshots by name, one per seed.

    The natural network has the students' architecture; the paper does not say which it has.

    Raises
    ------
    UnknownNameError
        If the dataset is not a set of points of the plane.
    """
    scale = setup.profile
    checks.one_of("set of points of the plane", scale.dataset, data.PLANE)
    teacher = Guide(scale.teacher_method)
    entries = {
        "Natural": Entry("Natural"),
        TEACHER: Entry(scale.teacher_method, changes={"student": scale.teacher_network}),
        "KD": Entry("KD", (teacher,)),
        "ARD": Entry("ARD", (teacher,)),
    }
    return comparisons.train_entries(setup, entries).chosen


def measure(setup: Setup, networks: Mapping[str, Sequence[Snapshot]]) -> Decisions:
    """Measure the decision regions of networks, and search the box of every training point.

    Parameters
    ----------
    setup : gives the training points, the radius, and the attack that the search is compared with.
    networks : the snapshots by name, one per seed; `TEACHER` must be among them.
    """
    images, attack = setup.train_images, setup.profile.test_attack
    tasks = {
        (measure, name, seed): task
        for name, of_seeds in networks.items()
        for seed, snapshot in enumerate(of_seeds)
        for measure, task in _tasks(snapshot, images, setup).items()
    }
    found = runs.answers(tasks, "Decision regions")

    def of(measure: str) -> dict[str, list[Tensor]]:
        return {name: [found[measure, name, seed] for seed in range(len(each))] for name, each in networks.items()}

    correct, robust = ({name: [row[0] for row in rows] for name, rows in of(m).items()} for m in ("correct", "robust"))
    fooled = {name: [~row for row in rows] for name, rows in robust.items()}
    return Decisions(images.split(), attack.eps, correct, of("changing"), fooled, of("regions"))


def _tasks(snapshot: Snapshot, images: Images, setup: Setup) -> dict[str, Regions | ChangingBoxes | CorrectPredictions]:
    attack = setup.profile.test_attack
    return {
        "regions": Regions(images=images, snapshot=snapshot),
        "changing": ChangingBoxes(images=images, snapshot=snapshot, eps=attack.eps),
        "correct": CorrectPredictions(images=images, judges=(snapshot,)),
        "robust": CorrectPredictions(images=images, judges=(snapshot,), attack=attack),
    }


def check_claims(measured: Decisions) -> list[Claim]:
    """Check what the paper says under its Figure 2, which prints no numbers: vulnerable points, and agreement."""
    vulnerable = [
        Claim(
            text,
            "ARD, Figure 2",
            Quantity(f"{higher}, vulnerable points", measured.share("changing", higher)),
            Quantity(f"{lower}, vulnerable points", measured.share("changing", lower)),
            measured.changing_minus(higher, lower),
        )
        for higher, lower, text in (
            ("Natural", "KD", "A student by KD from a robust teacher is more robust than a naturally trained network."),
            ("Natural", "ARD", "ARD's student is more robust than a naturally trained network."),
            ("KD", "ARD", "ARD's student is more robust than the student by KD."),
        )
    ]
    return vulnerable + [
        Claim(
            f"ARD's student agrees with the teacher on a larger area than {other}.",
            "ARD, Figure 2 and section 1",
            Quantity("ARD, agreement with the teacher", measured.agreement("ARD")),
            Quantity(f"{network}, agreement with the teacher", measured.agreement(network)),
            measured.agreement_minus("ARD", network),
        )
        for network, other in (("KD", "the student by KD"), ("Natural", "the natural network"))
    ]


def _of_areas(shares: Sequence[float], bounds: tuple[float, float]) -> Estimate:
    """Return the mean of one share of the area per training; only several trainings give it an interval."""
    if len(shares) == 1:
        return Estimate(shares[0], *bounds, n=SIDE**2)
    return over_seeds([Estimate(share, share, share, SIDE**2) for share in shares], bounds)
