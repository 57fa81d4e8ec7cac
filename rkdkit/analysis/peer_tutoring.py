"""Two students, one taught by a peer and one by a fixed teacher, and how their guides keep up (PeerAiD Figure 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rkdkit import attacks, data
from rkdkit.analysis.tutoring import Curve, table_of
from rkdkit.progress import track
from rkdkit.runs import Run, Snapshot, correct_predictions
from rkdkit.store import Store

BY_PEER, BY_TEACHER = "student of the peer", "student of the teacher"
"""Whose adversarial examples, where one student is taught by a peer and another by a fixed teacher."""

CURVES = (("student", BY_PEER), ("peer", BY_PEER), ("student", BY_TEACHER), ("teacher", BY_TEACHER))
"""The four curves of PeerAiD's Figure 3: network, and whose adversarial examples."""


@dataclass(frozen=True)
class PeerTutoring:
    """The two panels of PeerAiD's Figure 3.

    Attributes
    ----------
    panels : by images ("test", "train"), the four curves by `CURVES`.
    """

    panels: Mapping[str, Mapping[tuple[str, str], Curve]]

    def table(self) -> pd.DataFrame:
        """Return the numbers to draw: images ("test", "train"), and the columns of :func:`table_of`."""
        parts = [table_of(curves.values()).assign(images=images) for images, curves in self.panels.items()]
        return pd.concat(parts, ignore_index=True)


def peer_tutoring(
    by_peer: Sequence[Run],
    by_teacher: Sequence[Run],
    teachers: Sequence[Snapshot],
    dataset: data.Dataset,
    attack: attacks.Attack,
    *,
    n: int | None = None,
    store: Store | None = None,
) -> PeerTutoring:
    """Measure two students and their guides on the adversarial examples made against each student, at every snapshot.

    Parameters
    ----------
    by_peer : one PeerAiD run a seed.
    by_teacher : one run a seed whose student a fixed teacher taught, in the same order.
    teachers : those fixed teachers, in the same order.
    dataset : whose test and training images to use.
    attack : makes x*_S, by the cross entropy.
    n : only the first so many test images, and as many of those trained on; None: all.
    store : as `runs.ensure`.

    Raises
    ------
    ValueError
        If a seed lacks one of the three, two share a seed, or a teacher is not its student's.
    """
    seeds = [run.spec.seed for run in by_peer]
    if not seeds or seeds != [run.spec.seed for run in by_teacher] or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"One student of a peer and one of a fixed teacher a seed are needed, not seeds {seeds} and "
            f"{[run.spec.seed for run in by_teacher]}."
        )
    if [run.record["guided_by"] for run in by_teacher] != [[teacher.digest] for teacher in teachers]:
        raise ValueError("Each student must come with the one fixed teacher that taught it, in the same order.")
    splits = {
        "test": dataset.test.take(slice(0, n)),
        "train": dataset.split_validation(by_peer[0].spec.n_train, by_peer[0].spec.n_val)[0].take(slice(0, n)),
    }
    panels: dict[str, dict[tuple[str, str], Curve]] = {
        images: {part: Curve(*part, {seed: {} for seed in seeds}) for part in CURVES} for images in splits
    }
    asked = [
        (BY_PEER, "peer", run.snapshot("student", epoch), run.snapshot("peer", epoch))
        for run in by_peer
        for epoch in run.epochs
    ]
    asked += [
        (BY_TEACHER, "teacher", run.snapshot("student", epoch), teacher)
        for run, teacher in zip(by_teacher, teachers, strict=True)
        for epoch in run.epochs
    ]
    for whose, name, student, guide in track(asked, desc=f"Robust accuracy by {attack}", unit="epoch"):
        for images, split in splits.items():
            answers = correct_predictions([student, guide], split, attack, student, store=store)
            for network, correct in zip(("student", name), answers, strict=True):
                panels[images][network, whose].correct[student.spec.seed][student.epoch] = correct
    return PeerTutoring(panels)
