"""Training the methods that an exhibit compares, each with the teachers its row asks for."""

from collections.abc import Sequence
from dataclasses import dataclass

from rkdkit import checks, methods, runs
from rkdkit.analysis.trajectories import Family
from rkdkit.profiles import Setup
from rkdkit.runs import Run, Snapshot
from rkdkit.spec import AVERAGED, RunSpec, Teacher

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
    teacher_runs : where those come from.
    """

    runs: dict[str, list[Run]]
    chosen: dict[str, list[Snapshot]]
    teachers: dict[str, list[Snapshot]]
    teacher_runs: list[Run]

    @property
    def all_runs(self) -> list[Run]:
        """Every training it rests on, teachers first, each once."""
        of_methods = [run for of_seeds in self.runs.values() for run in of_seeds]
        return list({run.spec.id: run for run in (*self.teacher_runs, *of_methods)}.values())


def train(setup: Setup, names: Sequence[str], teacher_method: str | None = None, *, averages: bool = False) -> Students:
    """Train methods at an exhibit's scale, or find them trained.

    The fixed teachers are chosen at the epoch that `select_on` names; where a row asks for a natural teacher, it is a
    naturally trained network of the same architecture.

    Parameters
    ----------
    setup : what a notebook was asked for.
    names : rows of `methods.METHODS`.
    teacher_method : how their fixed teacher is trained; None: as the profile says.
    averages : whether every run is to average its weights, as :func:`with_and_without_averages` needs.

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
    for name, row in rows.items():  # a specification that does not fit is refused before any training
        absent = tuple(Teacher(module="to be trained", slot=slot) for slot in row.guides)
        if scale.spec(name, teachers=absent).swa_start is None and averages:
            raise ValueError("No weights are averaged, and here they are to be compared: set swa_start to an epoch.")
    robust = teacher_method or scale.teacher_method
    guide_specs = [setup.specs(NATURAL if slot == "T_nat" else robust, student=scale.teacher_network) for slot in slots]
    guide_runs = dict(zip(slots, runs.ensure_all(*guide_specs, store=setup.store) if slots else (), strict=True))
    guides = {slot: [choose(setup, run) for run in of_seeds] for slot, of_seeds in guide_runs.items()}
    specs = {
        name: [
            scale.spec(name, seed, teachers=tuple(guides[slot][i].as_teacher(slot) for slot in row.guides))
            for i, seed in enumerate(setup.seeds)
        ]
        for name, row in rows.items()
    }
    trained = dict(zip(specs, runs.ensure_all(*specs.values(), store=setup.store), strict=True))
    chosen = {name: [choose(setup, run) for run in of_seeds] for name, of_seeds in trained.items()}
    return Students(trained, chosen, guides, [run for of_seeds in guide_runs.values() for run in of_seeds])


def surrogates(setup: Setup, architectures: Sequence[str]) -> dict[str, Setup]:
    """Return the exhibit with other students, to make examples on: by architecture, each as wide as the student is.

    Raises
    ------
    UnknownNameError
        If there is no such architecture.
    ValueError
        If the student is one of them: its own examples are not transferred.
    """
    networks = {name: setup.profile.as_wide(name) for name in architectures}
    if setup.profile.student in networks.values():
        raise ValueError(f"The student {setup.profile.student} is a surrogate itself: choose another network for it.")
    return {name: setup.changed(student=network) for name, network in networks.items()}


def with_and_without_averages(setup: Setup, trained: Students) -> dict[str, list[Snapshot]]:
    """Return what stands for each method, one a seed, as it was trained and averaged: "TRADES" and "TRADES + SWA".

    Parameters
    ----------
    setup : as :func:`choose`.
    trained : of runs that all average their weights.

    Raises
    ------
    UnknownNameError
        If a run has no averaged weights.
    """
    return {
        f"{name}{suffix}": [choose(setup, run, role) for run in of_seeds]
        for name, of_seeds in trained.runs.items()
        for suffix, role in (("", "student"), (" + SWA", AVERAGED))
    }


def choose(setup: Setup, run: Run, role: str = "") -> Snapshot:
    """Return the snapshot that stands for a run: its most robust, or most accurate where it trains without an attack.

    Parameters
    ----------
    setup : says on which images to choose (`select_on`) and by which attack.
    run : a finished run.
    role : which network; "": the averaged weights where there are some and the method's papers report those (SWA), or
        they were asked for (`ema_decay`).

    Raises
    ------
    UnknownNameError
        If the run has no such network.
    """
    row = methods.get(run.spec.method)
    attack = setup.profile.selection_attack if row.attacks else None
    reported = row.averages_weights or run.spec.ema_decay is not None
    role = role or (AVERAGED if reported and AVERAGED in run.record["snapshots"] else "student")
    return runs.select(run, setup.profile.select_on, attack, role=role, n=setup.n_test, store=setup.store)


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
    guides = setup.specs(teacher_method, student=setup.profile.teacher_network)
    return [
        setup.profile.spec(
            method,
            guide.seed,
            settings=tuple(settings.items()),
            teachers=(Teacher(run=guide, epoch=_epoch_near(guide, stopped)),),
        )
        for guide in guides
    ]


def families(
    setup: Setup, teacher_methods: Sequence[str], mixing: Sequence[float], early_stop: float
) -> dict[str, Family]:
    """Train fixed teachers and RKD's students of each, or find them trained.

    Parameters
    ----------
    setup : what a notebook was asked for.
    teacher_methods : how the teachers are trained.
    mixing : the shares of the teacher's answers to try, above 0 and below 1; at least one.
    early_stop : the share of its epochs after which a teacher that is stopped early teaches.

    Raises
    ------
    UnknownNameError
        If a method is not known.
    ValueError
        If the data have not two classes, a share is out of its range or comes twice, none is given to try, or the
        snapshot nearest to `early_stop` is the teacher's last.
    """
    if len(setup.dataset.classes) != 2:
        raise ValueError(
            f"RKD's trajectories are of two classes, and {setup.profile.dataset} has {len(setup.dataset.classes)}: "
            "name two of them, as in 'digits:4,9'."
        )
    if not isinstance(mixing, Sequence) or not mixing:
        raise ValueError(f"mixing must list one share of the teacher's answers at least, as in [0.3], not {mixing!r}.")
    for alpha in mixing:
        checks.number("A share in mixing", alpha, 0, 1)
    if not 0 < min(mixing) <= max(mixing) < 1 or len(set(mixing)) < len(mixing):
        raise ValueError(
            f"mixing must list different shares above 0 and below 1, not {mixing!r}: at 0 there is no teacher, and the "
            "student that learns from the teacher alone is always there."
        )
    groups = [
        [
            setup.specs(teacher, student=setup.profile.teacher_network),
            akd_specs(setup, teacher),
            akd_specs(setup, teacher, stopped=early_stop),
            *(akd_specs(setup, teacher, alpha) for alpha in mixing),
        ]
        for teacher in teacher_methods
    ]
    for (guide, *_), plain, early, *_ in groups:
        if early == plain:
            raise ValueError(
                f"early_stop={early_stop:g} of {guide.epochs} epochs comes nearest to the last snapshot: nothing would "
                "be stopped early. Set a lower early_stop, more epochs or a smaller snapshot_every."
            )
    trained = iter(runs.ensure_all(*(specs for group in groups for specs in group), store=setup.store))
    return {
        teacher: Family(next(trained), next(trained), next(trained), {alpha: next(trained) for alpha in mixing})
        for teacher in teacher_methods
    }


def rankers(setup: Setup) -> list[Run]:
    """Train naturally once more for each seed, or find it trained: networks in no family, to rank images by.

    RKD ranks by a naturally trained network and does not say that it is another than the natural teacher. But what one
    training happened to find hard is less hard for any other: if that teacher ranked, any student of its would seem to
    gain on hard images and to lose on easy ones.
    """
    specs = [setup.profile.spec(NATURAL, seed + 1000, student=setup.profile.teacher_network) for seed in setup.seeds]
    (trained,) = runs.ensure_all(specs, store=setup.store)
    return trained


def _epoch_near(spec: RunSpec, share: float) -> int:
    kept = [epoch for epoch in range(1, spec.epochs + 1) if spec.has_snapshot(epoch)]
    return min(kept, key=lambda epoch: abs(epoch - share * spec.epochs))
