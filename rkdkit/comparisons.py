"""Training the methods that an exhibit compares, each with the teachers its row asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rkdkit import checks, methods, runs
from rkdkit.references import Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import AVERAGED, RunSpec, Teacher
from rkdkit.trainings import Run

NATURAL = "Natural"
"""The method of natural teachers."""


@dataclass(frozen=True)
class Students:
    """Trained networks, and which snapshot of each stands for it.

    Attributes
    ----------
    runs : one a seed, by method.
    chosen : one a seed, by method: the epoch that `select_on` names, of the averaged weights where the method's papers
        report those.
    teachers : the fixed teachers that guided them, one a seed, by their slot in the methods' rows.
    """

    runs: dict[str, list[Run]]
    chosen: dict[str, list[Snapshot]]
    teachers: dict[str, list[Snapshot]]


def train(setup: Setup, names: Sequence[str], teacher_method: str | None = None, *, averages: bool = False) -> Students:
    """Train methods at an exhibit's scale, or find them trained.

    The fixed teachers are chosen at the epoch that `select_on` names; where a row asks for a natural teacher, it is a
    naturally trained network of the same architecture.

    Parameters
    ----------
    setup : what a notebook was asked for.
    names : rows of `methods.METHODS`.
    teacher_method : how their fixed teacher is trained; None: as the profile says.
    averages : whether every run must average its weights.

    Raises
    ------
    UnknownNameError
        If a method is not known.
    ValueError
        If a run would have no averages, and is to have some.
    """
    rows = {name: methods.get(name) for name in names}
    slots = sorted({slot for row in rows.values() for slot in row.guides})
    scale = setup.profile
    for name in rows:  # a specification that does not fit is refused before any training
        if scale.spec(name, teachers=Teacher.placeholders(name)).swa_start is None and averages:
            raise ValueError("No weights are averaged, and here they are to be compared: set swa_start to an epoch.")
    robust = teacher_method or scale.teacher_method
    guide_specs = [setup.teacher_specs(NATURAL if slot == "T_nat" else robust) for slot in slots]
    guide_runs = dict(zip(slots, runs.ensure_all(*guide_specs) if slots else (), strict=True))
    guides = choose_by_name(setup, guide_runs)
    specs = {
        name: [
            scale.spec(name, seed, teachers=tuple(guides[slot][i].as_teacher(slot) for slot in row.guides))
            for i, seed in enumerate(setup.seeds)
        ]
        for name, row in rows.items()
    }
    trained = dict(zip(specs, runs.ensure_all(*specs.values()), strict=True))
    return Students(trained, choose_by_name(setup, trained), guides)


def choose(setup: Setup, trained: Sequence[Run], role: str = "") -> list[Snapshot]:
    """Return the snapshots that stand for runs: the most robust, or most accurate where one trains without an attack.

    Parameters
    ----------
    setup : says on which images to choose (`select_on`) and by which attack.
    trained : runs; all their snapshots are asked about together.
    role : which network; "": the averaged weights where there are some and the method's papers report those (SWA), or
        they were asked for (`ema_decay`).

    Raises
    ------
    UnknownNameError
        If a run has no such network.
    """

    def choice(run: Run) -> runs.Choice:
        row, spec = methods.get(run.spec.method), run.spec
        attack = setup.profile.selection_attack if row.attacks else None
        averaged = AVERAGED in spec.roles_at(spec.epochs) and (row.averages_weights or spec.ema_decay is not None)
        of = role or (AVERAGED if averaged else "student")
        return runs.Choice(run, setup.profile.select_on, attack, of, setup.n_test)

    return runs.select_all([choice(run) for run in trained])


def choose_by_name(setup: Setup, trained: Mapping[str, Sequence[Run]], role: str = "") -> dict[str, list[Snapshot]]:
    """As :func:`choose`, of runs by name, one a seed."""
    chosen = iter(choose(setup, [run for of_seeds in trained.values() for run in of_seeds], role))
    return {name: [next(chosen) for _ in of_seeds] for name, of_seeds in trained.items()}


def akd_specs(setup: Setup, teacher_method: str, mixing: float = 1.0, stopped: float = 1.0) -> list[RunSpec]:
    """Return RKD's students of a fixed teacher, one run a seed: AKD, or AKD+ where labels are mixed in.

    Parameters
    ----------
    setup : what a notebook was asked for.
    teacher_method : how the teacher is trained, at the profile's scale.
    mixing : the share of the teacher's answers, RKD's alpha, in [0, 1]; the labels have the rest.
    stopped : after what share of its epochs the teacher's training is stopped, above 0 and at most 1: the snapshot
        nearest to it.

    Raises
    ------
    UnknownNameError
        If there is no such method.
    ValueError
        If a share is out of its range.
    """
    checks.number("early_stop, the share of a teacher's epochs,", stopped, 0, 1)
    if stopped == 0:
        raise ValueError("early_stop must be above 0: a teacher that has not been trained teaches nothing.")
    method, settings = ("AKD", {}) if mixing == 1 else ("AKD+", {"mixing": mixing})
    guides = setup.teacher_specs(teacher_method)
    return [
        setup.profile.spec(
            method,
            guide.seed,
            settings=tuple(settings.items()),
            teachers=(Teacher(run=guide, epoch=_epoch_near(guide, stopped)),),
        )
        for guide in guides
    ]


def _epoch_near(spec: RunSpec, share: float) -> int:
    kept = [epoch for epoch in range(1, spec.epochs + 1) if spec.has_snapshot(epoch)]
    return min(kept, key=lambda epoch: abs(epoch - share * spec.epochs))
