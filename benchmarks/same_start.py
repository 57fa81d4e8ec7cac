"""Whether it matters that a student of its teacher's architecture and seed starts from its teacher's first weights.

python benchmarks/same_start.py --seeds 5

In the kit, a seed decides the weights that a training starts from and the order of its images, for the teacher as for
the student. So a student with its teacher's seed and architecture starts where its teacher started. Here each student
is trained twice: by the teacher of its own seed, and by that of the next seed (the last by the first's). So both groups
of students have the same seeds and the same teachers, and differ only in which of them go together. Networks are taken
at their last epoch; intervals are of 95 % and hold the test images' and the seeds' uncertainty. Runs are kept in the
store as any other.
"""

from typing import Annotated

import typer
from measuring import Epochs, Profile, paired, setup

from rkdkit import runs
from rkdkit.spec import RunSpec, Teacher

SIDES = ("same", "other")


def main(
    profile: Profile = "quick",
    methods: Annotated[list[str], typer.Option(help="Any with one fixed teacher; repeatable.")] = ("ARD", "RSLAD"),
    teacher: Annotated[str, typer.Option(help="How their teachers are trained.")] = "TRADES",
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.", min=2)] = 5,
    epochs: Epochs = None,
) -> None:
    """Measure what it matters that teacher and student have the same start."""
    scale = setup(profile, [*methods, teacher], n_seeds=seeds, epochs=epochs)
    guides = scale.specs(teacher)
    groups = {
        (method, side): [
            scale.profile.spec(method, seed, teachers=(Teacher(run=guides[(place + step) % seeds]),))
            for place, seed in enumerate(scale.seeds)
        ]
        for method in methods
        for step, side in enumerate(SIDES)
    }
    wanted: list[list[RunSpec]] = list(groups.values())
    of_group = {
        name: [run.snapshot() for run in trained]
        for name, trained in zip(groups, runs.ensure_all(*wanted), strict=True)
    }
    paired(scale, {method: (of_group[method, SIDES[0]], of_group[method, SIDES[1]]) for method in methods}, SIDES)


if __name__ == "__main__":
    typer.run(main)
