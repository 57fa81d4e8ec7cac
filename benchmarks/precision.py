"""What training in bfloat16 costs in accuracy: the same runs in both precisions, compared image by image.

python benchmarks/precision.py --profile quick --methods PGD-AT --methods PeerAiD --seeds 5

Runs and answers are kept in the store as any other, so a call that was stopped goes on. Networks are judged at their
last epoch, in float32 both; intervals are of 95 % and hold the test images' and the seeds' uncertainty.
"""

import itertools
from typing import Annotated

import typer
from measuring import Epochs, Profile, setup, table

from rkdkit import runs
from rkdkit.analysis.white_box import white_box

PRECISIONS = ("bfloat16", "float32")


def main(
    profile: Profile = "quick",
    methods: Annotated[list[str], typer.Option(help="Any that need no teacher; repeatable.")] = ("PGD-AT", "PeerAiD"),
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 5,
    epochs: Epochs = None,
) -> None:
    """Measure what training in bfloat16 costs in accuracy, image by image."""
    scale = setup(profile, methods, n_seeds=seeds, epochs=epochs)
    pairs = list(itertools.product(methods, PRECISIONS))
    trained = runs.ensure_all(*(scale.specs(method, precision=precision) for method, precision in pairs))
    networks = {
        f"{method} {precision}": [run.snapshot() for run in of_seeds]
        for (method, precision), of_seeds in zip(pairs, trained, strict=True)
    }
    by = {"clean": None, str(scale.profile.test_attack): scale.profile.test_attack}
    measured = white_box(networks, scale.images, by, n=scale.n_of(by))
    rows = []
    for method, metric in itertools.product(methods, by):
        bfloat16, float32 = (f"{method} {precision}" for precision in PRECISIONS)
        of_seeds = [measured.evaluations[name] for name in (bfloat16, float32)]
        by_seed = [
            f"{100 * (a.correct[metric].float().mean() - b.correct[metric].float().mean()):+.1f}"
            for a, b in zip(*of_seeds, strict=True)
        ]
        accuracies = [measured.accuracy(name, metric) for name in (bfloat16, float32)]
        rows.append([method, metric, *accuracies, measured.minus(bfloat16, float32, metric), " ".join(by_seed)])
    print(scale)
    table(["method", "accuracy", *PRECISIONS, "difference", "by seed"], rows)


if __name__ == "__main__":
    typer.run(main)
