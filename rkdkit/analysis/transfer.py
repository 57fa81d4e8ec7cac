"""Several methods' accuracy on the adversarial examples of other networks (PeerAiD Table 6)."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from rkdkit import attacks, data, evaluation, runs
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.progress import track
from rkdkit.runs import Snapshot
from rkdkit.store import Store


def transfer(
    chosen: Mapping[str, Sequence[Snapshot]],
    surrogates: Mapping[str, Sequence[Snapshot]],
    dataset: data.Dataset,
    by: Mapping[str, attacks.Attack | None],
    *,
    n: int | None = None,
    store: Store | None = None,
) -> WhiteBox:
    """Measure every method's network by attacks on surrogates: the attacker knows those alone.

    Parameters
    ----------
    chosen : the snapshot that stands for a method, one a seed.
    surrogates : the networks attacked, by name, one a seed.
    dataset : whose test images to use.
    by : attacks by metric.
    n : only the first so many test images; None: all.
    store : as `runs.ensure`.

    Returns
    -------
    With the metrics "fgsm from resnet34" and so on.

    Raises
    ------
    ValueError
        If methods and surrogates are not of equally many seeds.
    """
    seeds = len(next(iter(chosen.values())))
    if any(len(of_seeds) != seeds for of_seeds in (*chosen.values(), *surrogates.values())):
        raise ValueError("Methods and surrogates must be of equally many seeds: train them by the same setup.")
    split = dataset.test.take(slice(0, n))
    correct: dict[str, list[dict[str, Tensor]]] = {method: [{} for _ in range(seeds)] for method in chosen}
    pairs = [(metric, name) for name in surrogates for metric in by]
    for metric, name in track(pairs, desc="Transferred attacks", unit="attack"):
        for i, surrogate in enumerate(surrogates[name]):
            judges = [of_seeds[i] for of_seeds in chosen.values()]
            verdicts = runs.correct_predictions(judges, split, by[metric], surrogate, store=store)
            for method, verdict in zip(chosen, verdicts, strict=True):
                correct[method][i][f"{metric} from {name}"] = verdict
    return WhiteBox(
        {method: [evaluation.Evaluation(metrics) for metrics in of_seeds] for method, of_seeds in correct.items()},
        {f"{metric} from {name}": by[metric] for metric, name in pairs},
        len(dataset.classes),
    )
