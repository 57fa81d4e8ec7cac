"""PeerAiD, Figure 5: how well the penultimate features of fixed teachers and of a peer separate the classes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rkdkit import attacks, checks, runs, statistics
from rkdkit.analysis.embedding import EXAMPLES, Array, Embedded, Scores
from rkdkit.claims import Claim, Quantity, Question, judged
from rkdkit.determinism import generator
from rkdkit.methods import titled
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Exhibit

METHODS = ("PGD-AT", "TRADES")
"""The methods that train the paper's fixed teachers, in the order of the panels."""

EXHIBIT = Exhibit(
    paper="PeerAiD, Figure 5",
    unused=("teacher_method", "n_autoattack"),
    compares=METHODS,
    slots=(),
    own={"classes": None},
)

PEER = "peer"
"""The network that the fixed teachers are compared with."""

PERPLEXITY = 30.0
"""The perplexity of t-SNE: scikit-learn's default; the paper does not give one."""

FEWEST = 5
"""The smallest number of images per class: with fewer, a resampling could consist of copies of one image."""

MOST = 6
"""The largest number of classes, as a picture has six colours for them."""


@dataclass(frozen=True)
class Embedding:
    """The embedded images of several networks, and how well the networks' features separate the classes.

    Attributes
    ----------
    points : t-SNE of the first seed's features, with the columns network, examples (`EXAMPLES`), image, class, x, y.
    scores : by network, then examples: one per seed.
    """

    points: pd.DataFrame
    scores: Mapping[str, Mapping[str, Sequence[Scores]]]

    def silhouette(self, network: str, examples: str) -> statistics.Measure:
        """Return the mean silhouette, over all seeds, with a bootstrap interval."""
        of_seeds = self.scores[network][examples]
        return statistics.over_seeds([_interval(s.value, s.resampled, s.n) for s in of_seeds], (-1, 1))

    def minus(self, first: str, second: str, examples: str) -> statistics.Measure:
        """Return the paired difference of two networks' mean silhouettes, over all seeds."""
        pairs = zip(self.scores[first][examples], self.scores[second][examples], strict=True)
        differences = [_interval(a.value - b.value, a.resampled - b.resampled, a.n) for a, b in pairs]
        return statistics.over_seeds(differences, (-2, 2))

    def table(self) -> pd.DataFrame:
        """Return the numbers drawn: the points, and a row with image "all" per network and examples: the silhouette."""
        rows = []
        for network, by_examples in self.scores.items():
            for examples in by_examples:
                score = self.silhouette(network, examples).columns("silhouette")
                rows.append({"network": network, "examples": examples, "image": "all", "class": "all", **score})
        return pd.concat([pd.DataFrame(rows), self.points], ignore_index=True).astype({"n": "Int64", "seeds": "Int64"})


def select(
    images: Images, classes: Sequence[str] | None = None, *, seed: int = 0, perplexity: float = PERPLEXITY
) -> Images:
    """Return the images of three random classes or of given classes; call it before anything is trained.

    Parameters
    ----------
    images : the images to select from.
    classes : the names of two to six of their classes; None: three classes drawn at random, as in the paper.
    seed : the seed for drawing classes.
    perplexity : the perplexity of the later t-SNE, which must be below the number of images.

    Raises
    ------
    UnknownNameError
        If there is no such class.
    ValueError
        If there are not two to six different classes, a class has too few images, or there are too few images for the
        perplexity.
    """
    known = images.class_names
    if classes is None:
        drawn = torch.randperm(len(known), generator=generator(seed, 0, "classes"))[:3].sort().values
        classes = [known[i] for i in drawn]
    named = [] if isinstance(classes, str) or not isinstance(classes, Sequence) else [str(name) for name in classes]
    for name in named:
        checks.one_of(f"class of {images.dataset}", name, known)
    if not 2 <= len(named) <= MOST or len(set(named)) < len(named):
        raise ValueError(f"Two to {MOST} different classes are needed, not {classes!r}.")
    chosen = replace(images, classes=tuple(named))
    labels = chosen.split().labels
    for name in named:
        count = int((labels == known.index(name)).sum())
        if count < FEWEST:
            raise ValueError(
                f"There are {count} test images of class {name!r} among the first {len(images):,}, and at least "
                f"{FEWEST} are needed: choose another class, or set n_test higher."
            )
    checks.number("perplexity", perplexity, 1)
    if perplexity >= len(chosen):
        raise ValueError(
            f"A perplexity of {perplexity:g} needs more than {perplexity:g} images, and there are {len(chosen)} of "
            f"{', '.join(named)}: choose more classes or a lower perplexity, or set n_test higher."
        )
    return chosen


def measure(
    networks: Mapping[str, Sequence[Snapshot]],
    students: Sequence[Snapshot],
    images: Images,
    attack: attacks.Attack,
    *,
    perplexity: float = PERPLEXITY,
    resamplings: int = 1000,
    seed: int = 0,
) -> Embedding:
    """Embed natural images and the students' adversarial examples in the features of several networks.

    The picture is a t-SNE (van der Maaten & Hinton 2008) of both kinds of images together, one per network. A t-SNE
    says little about distances, so the separation of classes is measured in the features themselves, by the silhouette
    (Rousseeuw 1987), separately for the natural images and for x*_S. Its interval comes from resampling images within
    their classes.

    Parameters
    ----------
    networks : the snapshots by name, one per seed.
    students : the students that are attacked, one per seed, in the same order.
    images : as :func:`select` returns them.
    attack : makes x*_S, with the cross entropy as its loss.
    perplexity : the perplexity of the t-SNE.
    resamplings : how many times images are resampled.
    seed : the seed of the resampling and of t-SNE.

    Raises
    ------
    ValueError
        If there is not exactly one student per seed, or a network has no penultimate features.
    """
    if {len(of_seeds) for of_seeds in networks.values()} != {len(students)}:
        raise ValueError(f"One student per seed is needed, not {len(students)}.")
    tasks = {
        (name, i): Embedded(
            images=images,
            network=network,
            student=student,
            attack=attack,
            resamplings=resamplings,
            seed=seed,
            perplexity=None if i else perplexity,  # the first seed's are drawn
        )
        for name, of_seeds in networks.items()
        for i, (network, student) in enumerate(zip(of_seeds, students, strict=True))
    }
    found = runs.answers(tasks, f"Features on x*_S by {attack}")
    scores = {
        name: {examples: [found[name, i].scores[examples] for i in range(len(students))] for examples in EXAMPLES}
        for name in networks
    }
    points = [_points(found[name, 0].points, images).assign(network=name) for name in networks]
    return Embedding(pd.concat(points, ignore_index=True), scores)


def titles(names: Iterable[str]) -> dict[str, str]:
    """Return the titles of the panels: fixed teachers by the methods that train them, and the peer."""
    return {**{name: f"fixed teacher ({titled(name)})" for name in names}, PEER: PEER}


def check_claims(measured: Embedding) -> list[Claim]:
    """Check what the paper says of its Figure 5 (section 4.9), which prints no numbers.

    "Separates" here means a higher mean silhouette in the penultimate features themselves, not in their t-SNE.

    Parameters
    ----------
    measured : the measurements of the peer and of fixed teachers by the names of their methods. A claim about a teacher
        that is not among them is left out.
    """

    def question(teacher: str, examples: str) -> Question:
        def silhouette(network: str) -> Quantity:
            return Quantity(f"{network}, silhouette of {EXAMPLES[examples]}", measured.silhouette(network, examples))

        def judge(text: str) -> Claim:
            sides, source = (silhouette(PEER), silhouette(teacher)), "PeerAiD, Figure 5 and section 4.9"
            return Claim(text, source, *sides, measured.minus(PEER, teacher, examples))

        text = f"The peer separates the classes of {EXAMPLES[examples]} better than the fixed teacher ({teacher})."
        return Question(text, (PEER, teacher), judge)

    return judged([question(teacher, examples) for teacher in METHODS for examples in EXAMPLES], measured.scores)


def _points(points: Tensor, images: Images) -> pd.DataFrame:
    labels, names = images.split().labels.tolist(), images.class_names
    x, y = points.flatten(0, 1).T.numpy()
    return pd.DataFrame(
        {
            "examples": np.repeat(list(EXAMPLES), len(labels)),
            "image": np.tile(np.arange(len(labels)), len(EXAMPLES)),
            "class": [names[label] for label in labels] * len(EXAMPLES),
            "x": x,
            "y": y,
        }
    )


def _interval(value: float, resampled: Array, n: int) -> statistics.Measure:
    tail = 50 * (1 - statistics.CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return statistics.Measure(value, min(float(low), value), max(float(high), value), n)
