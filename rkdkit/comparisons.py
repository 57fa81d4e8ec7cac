"""Train the methods that an exhibit compares, each with the teachers that its row needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rkdkit import checks, methods, runs
from rkdkit.references import Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import AVERAGED, RunSpec, Teacher
from rkdkit.trainings import Run

NATURAL = "Natural"
"""The method that trains natural teachers."""


@dataclass(frozen=True)
class Students:
    """The trained runs of several methods, and the snapshot that represents each run.

    Attributes
    ----------
    runs : the runs by method, one per seed.
    chosen : the snapshots by method, one per seed, as :func:`choose` chooses them.
    teachers : the snapshots of the fixed teachers by teacher slot, one per seed.
    """

    runs: dict[str, list[Run]]
    chosen: dict[str, list[Snapshot]]
    teachers: dict[str, list[Snapshot]]


def train(setup: Setup, names: Sequence[str], teacher_method: str | None = None, *, averages: bool = False) -> Students:
    """Train methods at an exhibit's scale; runs that are in the store are used again.

    The epoch of each fixed teacher is chosen as `select_on` says. The natural teacher (slot "T_nat") is a naturally
    trained network of the robust teacher's architecture.

    Parameters
    ----------
    setup : the notebook's parameters.
    names : rows of `methods.METHODS`.
    teacher_method : the method that trains the fixed robust teacher; None: the profile's.
    averages : whether every run must average its weights.

    Raises
    ------
    UnknownNameError
        If a method is not known.
    ValueError
        If `averages` is set and a run would not average its weights.
    """
    rows = {name: methods.get(name) for name in names}
    slots = sorted({slot for row in rows.values() for slot in row.guides})
    scale = setup.profile
    for name in rows:  # a specification that does not fit is refused before any training
        if scale.spec(name, teachers=Teacher.placeholders(name)).swa_start is None and averages:
            raise ValueError("No weights are averaged, but this exhibit compares averages: set swa_start to an epoch.")
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
    """Return the snapshot that represents each run, at the epoch that `select_on` chooses.

    The choice is by robust accuracy, or by natural accuracy if the method trains without an attack.

    Parameters
    ----------
    setup : gives the images (`select_on`) and the attack that the choice uses.
    trained : the runs; all their snapshots are evaluated in one gather.
    role : which network; "": the averaged weights if the run has them and either the method's papers report them (SWA)
        or `ema_decay` is set, otherwise the student.

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
    """As :func:`choose`, for the runs under each name, one per seed."""
    chosen = iter(choose(setup, [run for of_seeds in trained.values() for run in of_seeds], role))
    return {name: [next(chosen) for _ in of_seeds] for name, of_seeds in trained.items()}


def akd_specs(setup: Setup, teacher_method: str, mixing: float = 1.0, stopped: float = 1.0) -> list[RunSpec]:
    """Return the runs of RKD's students of a fixed teacher, one per seed: AKD, or AKD+ if labels are mixed in.

    Parameters
    ----------
    setup : the notebook's parameters.
    teacher_method : the method that trains the teacher, at the profile's scale.
    mixing : the weight of the teacher's outputs, RKD's alpha, in [0, 1]; the labels have the rest.
    stopped : the share of its epochs after which the teacher is taken, above 0 and at most 1; the nearest snapshot is
        taken.

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
