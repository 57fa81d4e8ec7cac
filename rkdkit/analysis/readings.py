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

PARTS: dict[str, tuple[str, ...]] = {
    "attack mode": ("attack_mode",),
    "start of the attack": ("clamps_start",),
    "forward passes": ("passes", "passes_after"),
    "normalisation": ("normalises",),
    "loss": ("minimises", "maximises", "settings", "settings_on"),
    "schedule": ("recipe", "recipe_on"),
    "weight averaging": ("averages_weights",),
}
"""The differences that are tried alone, and the fields of a row that each of them is made of.

Terms and their settings are one difference, because a row with the one and without the other may not be valid.
"""


def code_of(method: str) -> str:
    """Return the name of a method's line in its code's reading: "ARD (code)"; that of the paper's is the method's."""
    return f"{method} ({CODE})"


def with_part(method: str, part: str) -> str:
    """Return the name of a method's row and line with a single difference: "ARD with the code's attack mode"."""
    return f"{method} with the code's {part}"


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
    """Return a method's lines with one difference each, by part, and put their rows into the table of methods.

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
    for part, fields in PARTS.items():
        differing = [field for field in fields if field in methods.get(method).code]
        if differing:
            name = with_part(method, part)
            row = methods.with_difference(method, *differing)
            methods.METHODS[name] = replace(row, title=name)
            guides = tuple(replace(guide, certain=certain) for guide in comparisons.usual_guides(setup, row))
            entry = Entry(name, guides, {"settings": dict(own)} if own else {})
            if _shown(setup, entry) != _shown(setup, plain):
                found[part] = entry
    return found if len(found) > 1 else {}


def _shown(setup: Setup, entry: Entry) -> tuple[object, ...]:
    """Return what tells a line's network from another's, apart from the name of its row."""
    spec = comparisons.specification(setup, entry)
    row = methods.get(entry.method)
    return {**spec.to_json(), "method": ""}, row.definition(), row.averages_weights


def train(setup: Setup, names: Sequence[str], closer_look: str | None = None) -> Students:
    """Train methods in both readings; runs that are in the store are used again.

    All lines are checked before anything is trained, those with a single difference, too, and the rows of these are in
    the table of methods from then on.

    Parameters
    ----------
    setup : the notebook's parameters.
    names : methods that have a released code.
    closer_look : as :func:`look_closer`.

    Returns
    -------
    The students by the names of :func:`both`.

    Raises
    ------
    UnknownNameError, ValueError
        If a parameter does not fit, before anything is trained.
    """
    if closer_look is not None:
        checks.one_of("closer_look", closer_look, names)
    for name in names if closer_look is None else [closer_look]:
        single_differences(setup, name)  # a cluster is opened anew where the table of methods is another
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
class Closer:
    """Methods in both readings, and one of them with single differences.

    Attributes
    ----------
    names : the methods that are compared.
    method : the one that was looked at more closely.
    parts : its single differences that were trained; their lines are named by :func:`with_part`.
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
    def robust(self) -> str:
        """The metric of the robust accuracy."""
        return self.measured.metrics[1]


def look_closer(
    setup: Setup, names: Sequence[str], trained: Students, measured: WhiteBox, closer_look: str | None = None
) -> Closer:
    """Train and measure one method with each single difference of its code.

    Parameters
    ----------
    setup, names : as :func:`train`.
    trained, measured : as :func:`train` and :func:`measure` return them.
    closer_look : the method; None: that of :func:`moves_most`.
    """
    method, known = (closer_look, True) if closer_look else moves_most(setup, names, trained.chosen)
    lines = single_differences(setup, method, certain=known)
    if not known and not methods.get(method).guides:
        lines = {}  # nothing can say that they are not certain, so they are not planned
    evaluations = dict(measured.evaluations)
    if lines:
        further = comparisons.train_entries(setup, {entry.method: entry for entry in lines.values()})
        evaluations |= measure(setup, further).evaluations
    eligible = [method] if closer_look else names
    count = sum(len(single_differences(setup, name)) for name in eligible)
    return Closer(tuple(names), method, tuple(lines), count, replace(measured, evaluations=evaluations))
