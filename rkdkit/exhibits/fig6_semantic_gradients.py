"""PeerAiD, Figure 6: which pixels the losses of a student, its peer and a natural network depend on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from rkdkit import checks, runs, statistics
from rkdkit.analysis.gradients import MEASURES, InputGradients
from rkdkit.claims import Claim, Quantity
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Exhibit

EXHIBIT = Exhibit(
    paper="PeerAiD, Figure 6",
    differs={"": {"select_on": "last"}, "paper": {"dataset": "tiny_imagenet"}},
    unused=("select_on", "teacher", "teacher_method", "test_steps", "test_iterate", "n_autoattack"),
    needs=2,
)

STUDENT = "student"
"""The network that the other networks' maps are compared with."""


@dataclass(frozen=True)
class SemanticGradients:
    """Measures of input gradients, and the gradients of some images to draw.

    Attributes
    ----------
    values : by network, then measure (`MEASURES`), one per seed: (N,) float64, always on the same N images.
    shown : (K,) int64, the indices of the drawn images among the N.
    images : (K, C, H, W) uint8, the drawn images.
    classes : the names of the drawn images' classes.
    pictures : by network: (K, H, W) in [0, 1], for the first seed; see `gradients.picture`.
    """

    values: Mapping[str, Mapping[str, Sequence[Tensor]]]
    shown: Tensor
    images: Tensor
    classes: tuple[str, ...]
    pictures: Mapping[str, Tensor]

    def mean(self, network: str, measure: str) -> statistics.Measure:
        """Return the mean over the images, over all seeds."""
        return statistics.mean_over_seeds(self.values[network][measure], bounds=(0, 1))

    def minus(self, first: str, second: str, measure: str) -> statistics.Measure:
        """Return the paired difference of two networks, over all seeds."""
        pairs = zip(self.values[first][measure], self.values[second][measure], strict=True)
        return statistics.mean_over_seeds([a - b for a, b in pairs], bounds=(-1, 1))

    def table(self) -> pd.DataFrame:
        """Return the numbers: network, measure, image, class, value, its interval, n and seeds.

        Rows with image "all" are means with their intervals; rows with a number are for that drawn image, first seed.
        """
        rows = []
        for network, by_measure in self.values.items():
            for measure, of_seeds in by_measure.items():
                about = {"network": network, "measure": measure}
                whole = self.mean(network, measure).columns()
                rows.append({**about, "image": "all", "class": "all", **whole})
                for place, name in zip(self.shown.tolist(), self.classes, strict=True):
                    rows.append({**about, "image": place, "class": name, "value": float(of_seeds[0][place])})
        return pd.DataFrame(rows).astype({"n": "Int64", "seeds": "Int64"})


def measure(networks: Mapping[str, Sequence[Snapshot]], images: Images, *, shown: int = 8) -> SemanticGradients:
    """Measure the input gradients of several networks on the same images, as `gradients.InputGradients`.

    Parameters
    ----------
    networks : the snapshots by name, one per seed; one name is "student".
    images : the test images.
    shown : the number of images to draw: the first image of each of the first `shown` classes.

    Raises
    ------
    UnknownNameError
        If there is no "student".
    ValueError
        If an image's gradient is zero, NaN or infinite.
    """
    checks.one_of("network", STUDENT, networks)
    split = images.split()
    drawn = _first_of_each_class(split.labels, shown)
    tasks = {
        (name, i): InputGradients(
            images=images,
            network=snapshot,
            student=student,
            shown=() if i else tuple(drawn),  # the first seed's are drawn
        )
        for name, of_seeds in networks.items()
        for i, (snapshot, student) in enumerate(zip(of_seeds, networks[STUDENT], strict=True))
    }
    found = runs.answers(tasks, "Input gradients")
    values = {
        name: {measure: [found[name, i].values[measure] for i in range(len(of_seeds))] for measure in MEASURES}
        for name, of_seeds in networks.items()
    }
    part, names = split.take(torch.tensor(drawn)), images.class_names
    classes = tuple(names[label] for label in part.labels.tolist())
    pictures = {name: found[name, 0].pictures for name in networks}
    return SemanticGradients(values, torch.tensor(drawn), part.images, classes, pictures)


def check_claims(measured: SemanticGradients) -> list[Claim]:
    """Check what the paper says of its Figure 6 (section 4.10), which prints no numbers.

    "Spread across broad regions" here means a low Gini index. "Semantic" means alignment with the image. "A similar
    pattern to the student" means that the peer's map is more similar to the student's than the natural network's map
    is.

    Parameters
    ----------
    measured : the measurements of the networks "student", "peer" and "natural".
    """
    return [
        _more(
            measured,
            "The natural network's gradient is spread over more of the image than the student's.",
            ("student", "natural"),
            "gini",
        ),
        _more(
            measured,
            "The student's gradient follows what is in the image, more than the natural network's.",
            ("student", "natural"),
            "alignment",
        ),
        _more(
            measured,
            "The peer's gradient has a pattern similar to the student's, though the peer is not robust itself.",
            ("peer", "natural"),
            "similarity",
        ),
    ]


def _more(measured: SemanticGradients, text: str, networks: tuple[str, str], measure: str) -> Claim:
    first, second = (Quantity(f"{name}: {MEASURES[measure]}", measured.mean(name, measure)) for name in networks)
    return Claim(text, "PeerAiD, Figure 6 and section 4.10", first, second, measured.minus(*networks, measure))


def _first_of_each_class(labels: Tensor, k: int) -> list[int]:
    """Return the index of the first image of each of the first `k` classes that occur."""
    return [int((labels == label).nonzero()[0]) for label in sorted(set(labels.tolist()))[:k]]
