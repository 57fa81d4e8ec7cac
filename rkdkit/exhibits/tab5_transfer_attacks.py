"""PeerAiD, Table 6: attacks made on one network and transferred to others."""

from collections.abc import Mapping, Sequence

import pandas as pd

from rkdkit import attacks, evaluation, runs
from rkdkit.analysis.white_box import WhiteBox, attack_named, highest
from rkdkit.claims import Claim, Question, judged
from rkdkit.measurements import CorrectPredictions
from rkdkit.papers.reported import reported
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Exhibit, Setup

METHODS = ("PGD-AT", "TRADES", "AKD2", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""The methods of the paper's Table 6, in the same order."""

EXHIBIT = Exhibit(
    paper="PeerAiD, Table 6",
    differs={"": {"teacher_method": "TRADES"}, "paper": {"dataset": "cifar100"}},
    compares=METHODS,
    fewest=2,
)

SURROGATES = ("resnet34", "mobilenetv2")
"""The networks that are attacked; both are trained by PGD-AT."""


def surrogate_setups(setup: Setup, architectures: Sequence[str] = SURROGATES) -> dict[str, Setup]:
    """Return the setups of the networks to attack, by architecture, each with the same width as the student.

    Raises
    ------
    UnknownNameError
        If there is no such architecture.
    ValueError
        If the student is itself one of them: attacks on it would not be transferred.
    """
    networks = {name: setup.profile.as_wide(name) for name in architectures}
    if setup.profile.student in networks.values():
        raise ValueError(f"The student {setup.profile.student} is a surrogate itself: choose another network for it.")
    return {name: setup.changed(student=network) for name, network in networks.items()}


def measure(
    chosen: Mapping[str, Sequence[Snapshot]],
    surrogates: Mapping[str, Sequence[Snapshot]],
    images: Images,
    attacks_by_metric: Mapping[str, attacks.Attack | None],
) -> WhiteBox:
    """Measure every method's network under attacks on surrogates, the only networks that the attacker has access to.

    Parameters
    ----------
    chosen : the snapshots that represent each method, one per seed.
    surrogates : the networks attacked, by name, one per seed.
    images : the test images.
    attacks_by_metric : the attacks on the surrogates.

    Returns
    -------
    The accuracies under the metrics "fgsm from resnet34" and so on.

    Raises
    ------
    ValueError
        If methods and surrogates do not have the same number of seeds.
    """
    seeds = range(len(next(iter(chosen.values()))))
    if any(len(of_seeds) != len(seeds) for of_seeds in (*chosen.values(), *surrogates.values())):
        raise ValueError("Methods and surrogates must have the same number of seeds: train them with the same setup.")
    metrics = {
        f"{metric} from {name}": (name, attacks_by_metric[metric])
        for name in surrogates
        for metric in attacks_by_metric
    }
    tasks = {
        (metric, seed): CorrectPredictions(
            images=images,
            judges=tuple(of_seeds[seed] for of_seeds in chosen.values()),
            attack=attack,
            attacked=surrogates[name][seed],
        )
        for metric, (name, attack) in metrics.items()
        for seed in seeds
    }
    correct = runs.answers(tasks, "Transferred attacks")
    evaluations = {
        method: [evaluation.Evaluation({metric: correct[metric, seed][i] for metric in metrics}) for seed in seeds]
        for i, method in enumerate(chosen)
    }
    return WhiteBox(evaluations, {metric: attack for metric, (_, attack) in metrics.items()}, len(images.class_names))


def paper_numbers() -> pd.DataFrame:
    """Return the paper's Table 6, as `reported`, with the metrics "fgsm from resnet34" and so on."""
    theirs = reported("peeraid", "Table 6")
    surrogate = theirs.setting.str.extract(r"surrogate=PGD-AT (\S+)", expand=False)
    return theirs.assign(metric=theirs.metric + " from " + surrogate)


def check_claims(measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Table 6 (section 4.7): PeerAiD is more robust than all of its other methods.

    Parameters
    ----------
    measured : as :func:`measure` returns it; there is one claim per metric, and none if one of the paper's methods is
        not among those that are compared.
    """
    others = [method for method in METHODS if method != "PeerAiD"]

    def question(metric: str) -> Question:
        attack, source = attack_named(metric), "PeerAiD, Table 6 and section 4.7"
        text = f"PeerAiD has the highest accuracy of all methods under {attack}, a transferred attack."
        words = f"accuracy under {attack}"
        return Question(text, METHODS, lambda text: highest(measured, "PeerAiD", others, metric, words, text, source))

    return judged([question(metric) for metric in measured.metrics], measured.evaluations)
