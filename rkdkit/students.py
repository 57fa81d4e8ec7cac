"""Training the methods that an exhibit compares, each with the teachers its row asks for."""

from collections.abc import Sequence
from dataclasses import dataclass

from rkdkit import methods, runs
from rkdkit.profiles import Setup
from rkdkit.runs import Run, Snapshot
from rkdkit.spec import AVERAGED, Teacher

NATURAL = "Natural"


@dataclass(frozen=True)
class Students:
    """Trained networks, and which snapshot of each stands for it.

    Attributes
    ----------
    runs : one a seed, by method.
    chosen : one a seed, by method: the epoch that `select_on` names, of the averaged weights where the method's papers
        report those.
    teachers : every fixed teacher that guided one of them.
    teacher_runs : where those come from.
    """

    runs: dict[str, list[Run]]
    chosen: dict[str, list[Snapshot]]
    teachers: list[Snapshot]
    teacher_runs: list[Run]

    @property
    def all_runs(self) -> list[Run]:
        """Every training it rests on, teachers first, each once."""
        of_methods = [run for of_seeds in self.runs.values() for run in of_seeds]
        return list({run.spec.id: run for run in (*self.teacher_runs, *of_methods)}.values())


def train(setup: Setup, names: Sequence[str], teacher_method: str | None = None) -> Students:
    """Train methods at an exhibit's scale, or find them trained.

    The fixed teachers are chosen at the epoch that `select_on` names; where a row asks for a natural teacher, it is a
    naturally trained network of the same architecture.

    Parameters
    ----------
    setup : what a notebook was asked for.
    names : rows of `methods.METHODS`.
    teacher_method : how their fixed teacher is trained; None: as the profile says.

    Raises
    ------
    UnknownNameError
        If a method is not known.
    """
    rows = {name: methods.get(name) for name in names}
    letters = sorted({letter for row in rows.values() for letter in row.guides})
    scale = setup.profile
    for name, row in rows.items():  # a specification that does not fit is refused before any training
        scale.spec(name, teachers=tuple(Teacher(module="to be trained", letter=letter) for letter in row.guides))
    robust = teacher_method or scale.teacher_method
    guide_specs = [
        setup.specs(NATURAL if letter == "T_nat" else robust, student=scale.teacher_network) for letter in letters
    ]
    guide_runs = dict(zip(letters, runs.ensure_all(*guide_specs, store=setup.store), strict=True))
    guides = {letter: [choose(setup, run) for run in of_seeds] for letter, of_seeds in guide_runs.items()}
    specs = {
        name: [
            scale.spec(name, seed, teachers=tuple(guides[letter][i].as_teacher(letter) for letter in row.guides))
            for i, seed in enumerate(setup.seeds)
        ]
        for name, row in rows.items()
    }
    trained = dict(zip(specs, runs.ensure_all(*specs.values(), store=setup.store), strict=True))
    chosen = {name: [choose(setup, run) for run in of_seeds] for name, of_seeds in trained.items()}
    teachers = {teacher.digest: teacher for of_seeds in guides.values() for teacher in of_seeds}
    return Students(
        trained, chosen, [*teachers.values()], [run for of_seeds in guide_runs.values() for run in of_seeds]
    )


def choose(setup: Setup, run: Run) -> Snapshot:
    """Return the snapshot that stands for a run: its most robust, or most accurate where it trains without an attack.

    Parameters
    ----------
    setup : says on which images to choose (`select_on`) and by which attack.
    run : a finished run.
    """
    attack = setup.profile.selection_attack if methods.get(run.spec.method).attacks else None
    role = AVERAGED if AVERAGED in run.record["snapshots"] else "student"
    return runs.select(run, setup.profile.select_on, attack, role=role, n=setup.n_test, store=setup.store)
