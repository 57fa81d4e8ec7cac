"""What training in bfloat16 costs in accuracy: the same runs in both precisions, compared image by image.

python benchmarks/precision.py --profile quick --methods PGD-AT --methods PeerAiD --seeds 5

Runs and answers are kept in the store as any other, so a call that was stopped goes on. Networks are judged at their
last epoch, in float32 both; intervals are of 95 % and hold the test images' and the seeds' uncertainty.
"""

import itertools
from typing import Annotated

import typer
from measuring import Epochs, Profile, paired, setup

from rkdkit import runs

PRECISIONS = ("bfloat16", "float32")


def main(
    profile: Profile = "quick",
    methods: Annotated[list[str], typer.Option(help="Any that need no teacher; repeatable.")] = ("PGD-AT", "PeerAiD"),
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 5,
    epochs: Epochs = None,
) -> None:
    """Measure what training in bfloat16 costs in accuracy, image by image."""
    scale = setup(profile, methods, n_seeds=seeds, epochs=epochs)
    kinds = list(itertools.product(methods, PRECISIONS))
    trained = runs.ensure_all(*(scale.specs(method, precision=precision) for method, precision in kinds))
    of_kind = {kind: [run.snapshot() for run in of_seeds] for kind, of_seeds in zip(kinds, trained, strict=True)}
    paired(scale, {method: tuple(of_kind[method, each] for each in PRECISIONS) for method in methods}, PRECISIONS)


if __name__ == "__main__":
    typer.run(main)
