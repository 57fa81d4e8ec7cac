"""PeerAiD, Table 2: three guides on their own and on their students' adversarial examples: accuracy and features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from rkdkit import attacks, checks, claims, runs, statistics
from rkdkit.analysis.features import COSINES, Similarities, mean_similarity
from rkdkit.claims import Claim, Quantity
from rkdkit.measurements import CorrectPredictions, Measurement
from rkdkit.papers.reported import reported
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Exhibit

EXHIBIT = Exhibit(paper="PeerAiD, Table 2", differs={"paper": {"dataset": "cifar100"}}, needs=2)

GUIDES = {"peer": "peer", "teacher": "fixed robust teacher", "natural": "natural teacher"}
"""The guides of the paper's Table 2, in the same order, and their descriptions."""

ACCURACIES = ("f(x)", "f(x*_f)", "f(x*_S)", "S(x*_S)")
"""The accuracies measured: a network, the guide f or the student S that it taught, on one kind of images."""

SOURCE = "PeerAiD, Table 2 and section 4.4"

_GUIDES_OF_METHODS = {"PeerAiD": "peer", "PGD-AT": "teacher", "Natural": "natural"}
_AT_X_AND_STUDENTS, _AT_STUDENTS_AND_OWN, _AT_X_AND_OWN = COSINES
_QUANTITIES = {
    "": "f(x)",
    "examples=own": "f(x*_f)",
    "examples=student": "f(x*_S)",
    "examples=natural and student; layer=penultimate": _AT_X_AND_STUDENTS,
    "examples=student and own; layer=penultimate": _AT_STUDENTS_AND_OWN,
    "examples=natural and own; layer=penultimate": _AT_X_AND_OWN,
}


@dataclass(frozen=True)
class Guidance:
    """The measurements of several guides, each with the student that it taught.

    Attributes
    ----------
    measured : by guide, then by quantity, one tensor per seed: (N,) bool for `ACCURACIES`, (N,) float32 in [-1, 1] for
        `COSINES`; always on the same N test images.
    num_classes : guessing has an accuracy of 1 / num_classes.
    """

    measured: Mapping[str, Mapping[str, Sequence[Tensor]]]
    num_classes: int

    def __getitem__(self, asked: tuple[str, str]) -> statistics.Estimate:
        """Return a quantity of a guide, over all seeds: ``measured["peer", "f(x)"]``."""
        guide, quantity = asked
        of_seeds = self.measured[guide][quantity]
        if quantity in COSINES:
            return mean_similarity(of_seeds)
        return statistics.accuracy_over_seeds(of_seeds)

    def minus(self, first: tuple[str, str], second: tuple[str, str]) -> statistics.Estimate:
        """Return the paired difference of two accuracies or cosines, each (guide, quantity), over all seeds."""
        pairs = list(zip(*(self.measured[guide][quantity] for guide, quantity in (first, second)), strict=True))
        if first[1] in COSINES:
            return mean_similarity([a - b for a, b in pairs], bounds=(-2.0, 2.0))
        return statistics.difference_over_seeds(pairs)

    def table(self) -> pd.DataFrame:
        """Return the numbers: guide, quantity, value and its interval (accuracies as fractions), n, seeds."""
        return pd.DataFrame(
            {"guide": guide, "quantity": quantity, **self[guide, quantity].columns()}
            for guide, quantities in self.measured.items()
            for quantity in quantities
        )


def measure(
    guides: Mapping[str, Sequence[Snapshot]],
    students: Mapping[str, Sequence[Snapshot]],
    images: Images,
    attack: attacks.Attack,
) -> Guidance:
    """Measure guides on natural images, on their own adversarial examples x*_f and on their students' examples x*_S.

    Parameters
    ----------
    guides : the guides by name, one per seed.
    students : the student that each guide taught, in the same order.
    images : at least two test images.
    attack : makes x*_f and x*_S, with the cross entropy as its loss.

    Raises
    ------
    ValueError
        If there is not exactly one student per guide, or if there are fewer than 2 images, whose mean cosine has no
        interval.
    """
    counts = {name: (len(of_seeds), len(students.get(name, ()))) for name, of_seeds in guides.items()}
    if guides.keys() != students.keys() or any(a != b or a == 0 for a, b in counts.values()):
        raise ValueError(f"One student per guide is needed; numbers of guides and students: {counts or 'none'}.")
    checks.number("The number of test images", len(images), 2)
    tasks: dict[tuple[str, int, str], Measurement] = {}
    for name in guides:
        for i, (guide, student) in enumerate(zip(guides[name], students[name], strict=True)):
            asked = {
                "natural": CorrectPredictions(images=images, judges=(guide,)),
                "own": CorrectPredictions(images=images, judges=(guide,), attack=attack),
                "student's": CorrectPredictions(
                    images=images, judges=(guide, student), attack=attack, attacked=student
                ),
                "cosines": Similarities(images=images, guide=guide, student=student, attack=attack),
            }
            tasks |= {(name, i, kind): task for kind, task in asked.items()}
    found = runs.answers(tasks, f"Guides, by {attack}")
    measured: dict[str, dict[str, list[Tensor]]] = {}
    for name, of_seeds in guides.items():
        # the rows of the four answers, one after the other, are the quantities in their order
        rows = [
            [row for kind in ("natural", "own", "student's", "cosines") for row in found[name, i, kind]]
            for i in range(len(of_seeds))
        ]
        measured[name] = {
            quantity: list(of_quantity)
            for quantity, of_quantity in zip((*ACCURACIES, *COSINES), zip(*rows, strict=True), strict=True)
        }
    return Guidance(measured, len(images.class_names))


def beside_paper(ours: pd.DataFrame) -> pd.DataFrame:
    """Put the numbers of the paper's Table 2 (CIFAR-100, ResNet-18, PGD-20) beside ours.

    Parameters
    ----------
    ours : as `Guidance.table`, with the guides of `GUIDES`.

    Returns
    -------
    The same table with the column paper: accuracies as fractions, cosines unchanged.
    """
    theirs = reported("peeraid", "Table 2")
    of_student = theirs.setting.str.startswith("role=student")
    taught_by = theirs.guide.str.partition(" ")[0].where(of_student, theirs.method)
    quantity = theirs.setting.str.partition("; ")[2].map(_QUANTITIES).mask(of_student, "S(x*_S)")
    value = theirs.value.where(theirs.unit != "%", theirs.value / 100)
    values = pd.Series(value.to_numpy(), [taught_by.map(_GUIDES_OF_METHODS), quantity], name="paper")
    return ours.join(values, on=["guide", "quantity"])


def check_claims(measured: Guidance) -> list[Claim]:
    """Check what the paper says of its Table 2 (sections 4.3 and 4.4).

    Here, "not robust at all" means an accuracy below guessing. A cosine "comparable" to the robust teacher's means a
    cosine above the mean of the robust and the natural teacher's cosines.

    These claims are about the networks of the table: one epoch for each seed, which is chosen without the test images
    unless `select_on` says otherwise. Nothing is picked by what is claimed of it, so that none needs the mean over the
    last quarter of the training by which Figure 1's are judged (`analysis.curves`).
    """
    return [
        _claim(
            measured,
            "The peer is more accurate on its student's adversarial examples than the fixed robust teacher.",
            ("peer", "f(x*_S)"),
            ("teacher", "f(x*_S)"),
        ),
        _claim(
            measured,
            "On adversarial examples made against itself, the peer is less robust than the fixed robust teacher.",
            ("teacher", "f(x*_f)"),
            ("peer", "f(x*_f)"),
        ),
        Claim(
            "The peer itself is not robust at all: below guessing on its own adversarial examples.",
            SOURCE,
            *claims.below_guessing(_quantity(measured, ("peer", "f(x*_f)")), measured.num_classes),
        ),
        _claim(
            measured,
            "A student taught by the peer is more robust than one taught by the fixed robust teacher.",
            ("peer", "S(x*_S)"),
            ("teacher", "S(x*_S)"),
        ),
        _claim(
            measured,
            "The peer's features at x and x*_S are closer than the natural teacher's.",
            ("peer", _AT_X_AND_STUDENTS),
            ("natural", _AT_X_AND_STUDENTS),
        ),
        _claim(
            measured,
            "The peer has a higher accuracy on natural images than the fixed robust teacher.",
            ("peer", "f(x)"),
            ("teacher", "f(x)"),
        ),
        _claim(
            measured,
            "The peer's accuracy on natural images is even above the natural teacher's.",
            ("peer", "f(x)"),
            ("natural", "f(x)"),
        ),
        _comparable_to_the_robust_teacher(measured),
        _claim(
            measured,
            "The peer's features at x are closer to those at its student's adversarial examples than at its own.",
            ("peer", _AT_X_AND_STUDENTS),
            ("peer", _AT_X_AND_OWN),
        ),
    ]


def _claim(measured: Guidance, text: str, higher: tuple[str, str], lower: tuple[str, str]) -> Claim:
    return Claim(text, SOURCE, _quantity(measured, higher), _quantity(measured, lower), measured.minus(higher, lower))


def _quantity(measured: Guidance, asked: tuple[str, str]) -> Quantity:
    return Quantity(f"{asked[1]}, f being the {GUIDES[asked[0]]}", measured[asked])


def _comparable_to_the_robust_teacher(measured: Guidance) -> Claim:
    peer, teacher, natural = (measured.measured[guide][_AT_X_AND_STUDENTS] for guide in GUIDES)
    midway = [(t + n) / 2 for t, n in zip(teacher, natural, strict=True)]
    return Claim(
        "The peer's cosine similarity between x and x*_S is comparable to the robust teacher's: above the midway "
        "between that and the natural teacher's.",
        SOURCE,
        _quantity(measured, ("peer", _AT_X_AND_STUDENTS)),
        Quantity("midway between the two teachers", mean_similarity(midway)),
        mean_similarity([p - m for p, m in zip(peer, midway, strict=True)], bounds=(-2.0, 2.0)),
    )
