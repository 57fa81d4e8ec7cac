"""Train the methods that an exhibit compares, each with the teachers that its row needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rkdkit import checks, methods, runs
from rkdkit.frozen import FrozenMapping
from rkdkit.references import Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import AVERAGED, RunSpec, Teacher
from rkdkit.trainings import Run

Key = TypeVar("Key")

NATURAL = "Natural"
"""The method that trains natural teachers."""


ANOTHER = 1000
"""What is added to a seed for each further training of the same teacher, so that no student has the same seed."""


@dataclass(frozen=True)
class Guide:
    """A fixed teacher: how it is trained, and when it is taken.

    Attributes
    ----------
    method : the method that trains it.
    network : its network; "": the profile's teacher network.
    stopped : the share of its epochs after which it is taken, above 0 and at most 1 (the nearest snapshot; its averaged
        weights if the training has an `ema_decay`); None: at the epoch that `select_on` chooses.
    another : which of several trainings that differ by their seed, for ensembles: 0 has the student's seed, i has
        the student's seed + 1000 i.
    slot, weight : as `spec.Teacher`.
    changes : fields of `RunSpec` of its training, as `Profile.spec` takes them.
    certain : whether it, or what else its students are trained with, was not chosen by a placeholder.

    Raises
    ------
    UnknownNameError
        If there is no such method.
    ValueError
        If `stopped` is out of its range.
    """

    method: str
    network: str = ""
    stopped: float | None = None
    another: int = 0
    slot: str = "T"
    weight: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    certain: bool = True

    def __post_init__(self) -> None:
        methods.get(self.method)
        object.__setattr__(self, "changes", FrozenMapping(self.changes))
        if self.stopped is not None:
            checks.number("early_stop, the share of a teacher's epochs,", self.stopped, 0, 1)
            if self.stopped == 0:
                raise ValueError("early_stop must be above 0: a teacher that has not been trained teaches nothing.")

    def specs(self, setup: Setup) -> list[RunSpec]:
        """Return the specifications of its runs, one per seed of the exhibit."""
        network = self.network or setup.profile.teacher_network
        changes = {"student": network, **self.changes}
        return [setup.profile.spec(self.method, seed + ANOTHER * self.another, **changes) for seed in setup.seeds]


@dataclass(frozen=True)
class Entry:
    """One line of a comparison: a method, its fixed teachers, and what differs from the profile.

    Attributes
    ----------
    method : the method that trains it.
    guides : its fixed teachers, for each teacher slot of the method at least one; several in one slot are an ensemble.
    changes : fields of `RunSpec`, as `Profile.spec` takes them: ``{"student": "resnet18/8", "settings": {"l": 0.9}}``.
        ``{"reading": "code"}`` trains as the method's released code does, at a profile with recipes by its recipe, too.
    """

    method: str
    guides: tuple[Guide, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


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
    of_slot = {slot: usual_guide(slot, robust) for slot in slots}
    entries = {name: Entry(name, tuple(of_slot[slot] for slot in row.guides)) for name, row in rows.items()}
    taken = choose_guides(setup, of_slot)
    trained = _train(setup, entries, {of_slot[slot]: snapshots for slot, snapshots in taken.items()})
    return Students(trained.runs, trained.chosen, taken)


def usual_guide(slot: str, robust: str) -> Guide:
    """Return the fixed teacher of a slot: a naturally trained network for "T_nat", otherwise one by method `robust`."""
    return Guide(NATURAL if slot == "T_nat" else robust, slot=slot)


def usual_guides(setup: Setup, row: methods.Method) -> tuple[Guide, ...]:
    """Return a row's fixed teachers as :func:`train` has them, the robust one trained by the profile's method."""
    return tuple(usual_guide(slot, setup.profile.teacher_method) for slot in row.guides)


def specification(setup: Setup, entry: Entry) -> RunSpec:
    """Return a line's specification for the first seed, before its teachers are known; errors as `Profile.spec`."""
    unknown = tuple(Teacher(module="not known yet", slot=g.slot, weight=g.weight) for g in entry.guides)
    return setup.profile.spec(entry.method, setup.seeds[0], teachers=unknown, **entry.changes)


def train_entries(setup: Setup, entries: Mapping[str, Entry]) -> Students:
    """Train the lines of a comparison, each with its own teachers; runs that are in the store are used again.

    Parameters
    ----------
    setup : the notebook's parameters.
    entries : the lines by name; all that do not wait for a teacher's choice of epoch are trained side by side.

    Returns
    -------
    The students by the lines' names. Their teachers are in their specifications, so `teachers` is empty.

    Raises
    ------
    UnknownNameError, ValueError
        As `Profile.spec`, before anything is trained.
    """
    for entry in entries.values():
        specification(setup, entry)
    guides = list(dict.fromkeys(guide for entry in entries.values() for guide in entry.guides))
    return _train(setup, entries, choose_guides(setup, dict(zip(guides, guides, strict=True))))


def _train(setup: Setup, entries: Mapping[str, Entry], taken: Mapping[Guide, Sequence[Snapshot]]) -> Students:
    specs = {
        name: [
            setup.profile.spec(
                entry.method,
                seed,
                teachers=tuple(taken[guide][i].as_teacher(guide.slot, guide.weight) for guide in entry.guides),
                **entry.changes,
            )
            for i, seed in enumerate(setup.seeds)
        ]
        for name, entry in entries.items()
    }
    trained = dict(zip(specs, runs.ensure_all(*specs.values()), strict=True))
    return Students(trained, choose_by_name(setup, trained), {})


def choose_guides(setup: Setup, guides: Mapping[Any, Guide]) -> dict[Any, list[Snapshot]]:
    """Return the snapshots of fixed teachers under the same keys, one per seed; train those that a choice rests on."""
    specs = {guide: guide.specs(setup) for guide in dict.fromkeys(guides.values())}
    chosen = {guide: of_seeds for guide, of_seeds in specs.items() if guide.stopped is None}
    trained = dict(zip(chosen, runs.ensure_all(*chosen.values()) if chosen else (), strict=True))
    snapshots = choose_by_name(setup, trained)
    for guide, of_seeds in specs.items():
        if guide.stopped is not None:
            snapshots[guide] = [
                # as in `choose`: where a moving average is kept from the first step on, it stands for the network
                Snapshot(spec, "student" if spec.ema_decay is None else AVERAGED, _epoch_near(spec, guide.stopped))
                for spec in of_seeds
            ]
    return {
        key: [replace(snapshot, chosen=snapshot.chosen and guide.certain) for snapshot in snapshots[guide]]
        for key, guide in guides.items()
    }


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
        row, spec = methods.get(run.spec.method, run.spec.reading), run.spec
        attack = setup.profile.selection_attack if row.attacks else None
        averaged = AVERAGED in spec.roles_at(spec.epochs) and (row.averages_weights or spec.ema_decay is not None)
        of = role or (AVERAGED if averaged else "student")
        return runs.Choice(run, setup.profile.select_on, attack, of, setup.n_test)

    return runs.select_all([choice(run) for run in trained])


def choose_by_name(setup: Setup, trained: Mapping[Key, Sequence[Run]], role: str = "") -> dict[Key, list[Snapshot]]:
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
    checks.number("early_stop", stopped, 0, 1)  # None has a meaning for a Guide, but not here
    guide = Guide(teacher_method, stopped=stopped)
    method, settings = mixed("AKD+", mixing)
    return [
        setup.profile.spec(method, snapshot.spec.seed, settings=settings, teachers=(snapshot.as_teacher(),))
        for snapshot in choose_guides(setup, {"T": guide})["T"]
    ]


def mixed(method: str, alpha: float) -> tuple[str, dict[str, float]]:
    """Return the method and the settings that mix labels in; AKD+ with alpha 1 is AKD, the same run in all exhibits.

    Parameters
    ----------
    method : "AKD+", "RSLAD+" or "ARD+".
    alpha : RKD's alpha, the weight of the teacher's outputs, in [0, 1].
    """
    return ("AKD", {}) if method == "AKD+" and alpha == 1 else (method, {"mixing": alpha})


def _epoch_near(spec: RunSpec, share: float) -> int:
    kept = [epoch for epoch in range(1, spec.epochs + 1) if spec.has_snapshot(epoch)]
    return min(kept, key=lambda epoch: abs(epoch - share * spec.epochs))
