"""What training in bfloat16 costs in accuracy: the same runs in both precisions, compared image by image.

python benchmarks/precision.py --profile quick --methods PGD-AT PeerAiD --seeds 5

Runs and answers are kept in the store as any other, so a call that was stopped goes on. Networks are judged at their
last epoch, in float32 both; intervals are of 95 % and hold the test images' and the seeds' uncertainty.
"""

import itertools

from measuring import arguments, table

from rkdkit import profiles, runs
from rkdkit.analysis.white_box import white_box

PRECISIONS = ("bfloat16", "float32")


def main() -> None:
    """Measure and print."""
    given = arguments(
        __doc__,
        profile=("quick", "the scale", *profiles.PROFILES),
        methods=(["PGD-AT", "PeerAiD"], "any that need no teacher"),
        seeds=(5, "trainings of each kind"),
        epochs=(0, "of a training; 0: the profile's"),
    )
    wanted = {"profile": given.profile, "n_seeds": given.seeds, "epochs": given.epochs or None}
    setup = profiles.setup(wanted, trains=given.methods)
    pairs = list(itertools.product(given.methods, PRECISIONS))
    trained = runs.ensure_all(*(setup.specs(method, precision=precision) for method, precision in pairs))
    networks = {
        f"{method} {precision}": [run.snapshot() for run in of_seeds]
        for (method, precision), of_seeds in zip(pairs, trained, strict=True)
    }
    by = {"clean": None, str(setup.profile.test_attack): setup.profile.test_attack}
    measured = white_box(networks, setup.dataset, by, n=setup.n_of(by))
    rows = []
    for method, metric in itertools.product(given.methods, by):
        bfloat16, float32 = (f"{method} {precision}" for precision in PRECISIONS)
        of_seeds = [measured.evaluations[name] for name in (bfloat16, float32)]
        by_seed = [
            f"{100 * (a.correct[metric].float().mean() - b.correct[metric].float().mean()):+.1f}"
            for a, b in zip(*of_seeds, strict=True)
        ]
        accuracies = [measured.accuracy(name, metric) for name in (bfloat16, float32)]
        rows.append([method, metric, *accuracies, measured.minus(bfloat16, float32, metric), " ".join(by_seed)])
    print(setup)
    table(["method", "accuracy", *PRECISIONS, "difference", "by seed"], rows)


if __name__ == "__main__":
    main()
