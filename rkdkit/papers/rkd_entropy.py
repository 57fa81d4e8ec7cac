"""When does knowledge distillation improve robustness? (TMLR submission): its Figure 5."""

from rkdkit.analysis.entropy import EntropyCurves
from rkdkit.claims import Claim, Quantity

TEACHERS = {"AKD-Std": "Natural", "AKD-AT": "PGD-AT"}
"""The students of the figure, as the paper calls them, and the method of each one's fixed teacher."""


def figure_5_claims(curves: EntropyCurves) -> list[Claim]:
    """Check that students of AKD are less over-confident than their teachers (section C.2), at the last epoch."""
    return [
        Claim(
            f"AKD's student is less sure of its answers on the training images than its {teacher} teacher.",
            "RKD, Figure 5 and section C.2",
            Quantity(f"{student}, mean entropy", curves.at(student)),
            Quantity(f"{teacher}, mean entropy", curves.at(teacher)),
            curves.minus(student, teacher),
        )
        for student, teacher in TEACHERS.items()
    ]
