"""Methods in two readings, the paper's and the released code's; and which single difference between them matters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rkdkit import checks, comparisons, methods, runs
from rkdkit.analysis.white_box import WhiteBox, white_box
from rkdkit.comparisons import Entry, Students
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Snapshot
from rkdkit.setup import Setup

PAPER, CODE = "paper", "code"
"""The two readings."""


def code_of(method: str) -> str:
    """Return the name of a method's line in its code's reading: "ARD (code)"; that of the paper's is the method's."""
    return f"{method} ({CODE})"


def both(setup: Setup, names: Sequence[str]) -> dict[str, Entry]:
    """Return the lines of methods in both readings; both have the same teachers, unless the code has other slots.

    Parameters
    ----------
    setup : the notebook's parameters.
    names : methods that have a released code.

    Raises
    ------
    ValueError
        If a method has no other reading.
    """
    lines = {}
    for name in names:
        lines[name] = Entry(name, comparisons.usual_guides(setup, methods.get(name)))
        guides = comparisons.usual_guides(setup, methods.get(name, CODE))
        lines[code_of(name)] = Entry(name, guides, {"reading": CODE})
    return lines


def single_differences(setup: Setup, method: str, *, certain: bool = True) -> dict[str, Entry]:
    """Return a method's lines with a single difference of its code each, by part.

    Only differences that count at this scale are there: below "paper", for instance, schedules are the profile's. If
    only one counts, there are no lines: its line would be the code's reading.

    Parameters
    ----------
    setup : the notebook's parameters.
    method : a method that has a released code.
    certain : whether the method was not chosen by placeholders; its teachers say so.
    """
    plain = Entry(method, comparisons.usual_guides(setup, methods.get(method)))
    own = setup.profile.settings.get(method, {})  # settings go by the name of a row, and these rows have others
    found = {}
    for part in methods.parts_of(methods.get(method)):
        name = methods.part_name(method, part)
        guides = comparisons.usual_guides(setup, methods.get(name))
        guides = tuple(replace(guide, certain=certain) for guide in guides)
        entry = Entry(name, guides, {"settings": dict(own)} if own else {})
        if _shown(setup, entry) != _shown(setup, plain):
            found[part] = entry
    return found if len(found) > 1 else {}


def _shown(setup: Setup, entry: Entry) -> tuple[object, ...]:
    """Return what tells a line's network from another's, apart from the name of its row."""
    spec = comparisons.specification(setup, entry)
    row = methods.get(entry.method)
    return {**spec.to_json(), "method": ""}, row.definition(), row.averages_weights


def train(setup: Setup, names: Sequence[str], ablate: str | None = None) -> Students:
    """Train methods in both readings; runs that are in the store are used again.

    All lines are checked before anything is trained, those with a single difference, too.

    Parameters
    ----------
    setup : the notebook's parameters.
    names : methods that have a released code.
    ablate : as :func:`ablate`.

    Returns
    -------
    The students by the names of :func:`both`.

    Raises
    ------
    UnknownNameError, ValueError
        If a parameter does not fit, before anything is trained.
    """
    if ablate is not None:
        checks.one_of("ablate", ablate, names)
    for name in names if ablate is None else [ablate]:
        single_differences(setup, name)
    return comparisons.train_entries(setup, both(setup, names))


def measure(setup: Setup, trained: Students) -> WhiteBox:
    """Measure every line on the test images: naturally, and under the profile's PGD."""
    pgd = setup.profile.test_attack
    by = {"clean": None, str(pgd).lower(): pgd}
    return white_box(trained.chosen, setup.images, by, n=setup.n_of(by))


def moves_most(setup: Setup, names: Sequence[str], chosen: Mapping[str, Sequence[Snapshot]]) -> tuple[str, bool]:
    """Return the method whose PGD accuracy differs most between the readings, and whether that was measured.

    The rule: the largest absolute difference of the accuracies over all seeds; of equals, the first. In a plan, the
    first method with a teacher is a placeholder, because teachers can say that a training is not certain.

    Parameters
    ----------
    setup : the notebook's parameters.
    names : the methods that are compared.
    chosen : the snapshots of their lines, one per seed.
    """
    pgd = setup.profile.test_attack
    tasks = {
        line: [CorrectPredictions(images=setup.images, judges=(snapshot,), attack=pgd) for snapshot in of_seeds]
        for line, of_seeds in chosen.items()
    }
    asked = [task for name in names for line in (name, code_of(name)) for task in tasks[line]]
    answers = dict(zip(asked, runs.executor().gather(asked, deciding=True), strict=True))
    if not all(answer.known for answer in answers.values()):
        return next((name for name in names if methods.get(name).guides), names[0]), False

    def hits(line: str) -> int:
        return sum(int(answers[task].value.sum()) for task in tasks[line])

    return max(names, key=lambda name: abs(hits(code_of(name)) - hits(name))), True


@dataclass(frozen=True)
class Ablation:
    """Methods in both readings, and one of them with single differences of its code: an ablation.

    Attributes
    ----------
    names : the methods that are compared.
    method : the one with single differences.
    parts : its single differences that were trained; their lines are named by :func:`methods.part_name`.
    comparisons : how many single differences it was chosen from: its own, and those of all methods that might have been
        chosen in its place.
    measured : the measurements of all lines.
    """

    names: tuple[str, ...]
    method: str
    parts: tuple[str, ...]
    comparisons: int
    measured: WhiteBox

    @property
    def seeds(self) -> int:
        """How many trainings each line has."""
        return len(next(iter(self.measured.evaluations.values())))

    @property
    def robust(self) -> str:
        """The metric of the robust accuracy."""
        return self.measured.metrics[1]


def ablate(
    setup: Setup, names: Sequence[str], trained: Students, measured: WhiteBox, ablate: str | None = None
) -> Ablation:
    """Train and measure one method with each single difference of its code.

    Parameters
    ----------
    setup, names : as :func:`train`.
    trained, measured : as :func:`train` and :func:`measure` return them.
    ablate : the method; None: that of :func:`moves_most`.
    """
    method, known = (ablate, True) if ablate else moves_most(setup, names, trained.chosen)
    lines = single_differences(setup, method, certain=known)
    if not known and not methods.get(method).guides:
        lines = {}  # nothing can say that they are not certain, so they are not planned
    evaluations = dict(measured.evaluations)
    if lines:
        further = comparisons.train_entries(setup, {entry.method: entry for entry in lines.values()})
        evaluations |= measure(setup, further).evaluations
    eligible = [method] if ablate else names
    count = sum(len(single_differences(setup, name)) for name in eligible)
    return Ablation(tuple(names), method, tuple(lines), count, replace(measured, evaluations=evaluations))
