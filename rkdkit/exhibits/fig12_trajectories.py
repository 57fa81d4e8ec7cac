"""RKD, Figures 6, 7 and 10 to 17: on which images a student does better than its teacher."""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from itertools import product

from torch import Tensor

from rkdkit.analysis.difficulty import BY_IMAGE
from rkdkit.analysis.trajectories import Answers, Trajectories
from rkdkit.claims import Claim, Quantity, below
from rkdkit.profiles import PROFILES, rkd
from rkdkit.setup import Exhibit
from rkdkit.statistics import Measure

EXHIBIT = Exhibit(
    paper="RKD, Figures 6, 7 and 10 to 17",
    differs={profile: rkd(profile, two_classes=True) for profile in PROFILES},
    unused=("select_on", "teacher_method", "peer", "n_autoattack"),
    needs=6,  # a third of six images is two
    trains=("PGD-AT", "Natural", "AKD"),
    own={"mixing": (0.3, 0.7), "early_stop": 0.25, "n_rankers": 5, "within_class": True},
)

TEACHERS = ("PGD-AT", "Natural")
"""The methods of the two fixed teachers."""

OPTIMUM = 0.3
"""Figure 12's best alpha, the weight of the teacher's outputs; claims about label mixing use the nearest alpha
tried."""

GUESSING, SLIGHT = ("guessing", 0.5), ("a slight correction", 0.05)
"""Shares of the images that students are said to stay below; the paper gives no number for "does not correct"."""

AT, NATURAL = TEACHERS
CLEAN, ATTACKED = "natural", "adversarial"
ALL, EASY, HARD, REST = "all", "easiest third", "hardest third", "all but the hardest third"
COSINE, P_T, P_S, GAIN = "cosine", "p_T,K", "p_S,K", "p_S,K - p_T,K"
EARLY, STOPPING = "p_S,K of the early teacher's student", "p_S,K gained by stopping early"
MIXED, MIXING = "p_S,K with labels mixed in", "p_S,K gained by mixing labels in"
RIGHT, RIGHT_MIXED = "accuracy", "accuracy with labels mixed in"

_ALIKE = "Student and teacher develop more alike on easy images than on hard ones"
_UNLIKE = "Student and teacher develop less alike under attack"
_SURER = "AKD's student is surer of the correct class than its teacher"
_UNSURE = "AKD's student is less sure of the correct class than its teacher"
_BETTER = "Stopping the teacher early, at epoch {epoch}, makes the student surer of the correct class"
_WORSE = "Stopping the teacher early, at epoch {epoch}, makes the student less sure of the correct class"
_HELPS = "Labels mixed in, at alpha {alpha:g}, make the student surer of the correct class"
_MORE = "Labels mixed in, at alpha {alpha:g}, do more for hard images than for easy ones"
_CORRECTS = "Labels mixed in, at alpha {alpha:g}, make the student right more often"
_GAINS = "AKD's student gains more"
_HARMS_LESS = "Stopping the teacher early does less harm under attack"


@dataclass(frozen=True)
class _Above:
    """The two sides of a comparison: `higher` is said to be above `lower`."""

    higher: str
    lower: str


@dataclass(frozen=True)
class _Each:
    """Several values; the sentence is checked for each of them separately."""

    of: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    """A sentence of the paper; its `_Above` field says what it compares: teachers, images, parts or quantities."""

    figure: str
    text: str
    teacher: str | _Above
    images: str | _Above | _Each
    part: str | _Above | _Each
    quantity: str | _Above


@dataclass(frozen=True)
class _Side:
    """One side of a comparison: a quantity of one teacher and its students, on a part of one kind of images."""

    teacher: str
    images: str
    part: str
    quantity: str


_BOTH = _Each((CLEAN, ATTACKED))

_ROWS = (
    _Row("Figure 6", _ALIKE, AT, _BOTH, _Above(EASY, HARD), COSINE),
    _Row("Figure 6", _UNLIKE, AT, _Above(CLEAN, ATTACKED), HARD, COSINE),
    _Row("Figure 7", _SURER, AT, ATTACKED, HARD, _Above(P_S, P_T)),
    _Row("Figure 7", _UNSURE, AT, ATTACKED, EASY, _Above(P_T, P_S)),
    _Row("Figure 10", _SURER, AT, CLEAN, HARD, _Above(P_S, P_T)),
    _Row("Figure 10", _UNSURE, AT, CLEAN, EASY, _Above(P_T, P_S)),
    _Row("Figures 7 and 10", f"{_GAINS} under attack", AT, _Above(ATTACKED, CLEAN), HARD, GAIN),
    _Row("Figure 11", _BETTER, AT, _BOTH, HARD, _Above(EARLY, P_S)),
    _Row("Figure 11", _WORSE, AT, _BOTH, REST, _Above(P_S, EARLY)),
    _Row("Figure 11", _HARMS_LESS, AT, _Above(ATTACKED, CLEAN), ALL, STOPPING),
    _Row("Figure 12", _HELPS, AT, _BOTH, _Each((ALL, EASY)), _Above(MIXED, P_S)),
    _Row("Figure 12", _MORE, AT, _BOTH, _Above(HARD, EASY), MIXING),
    _Row("Figure 13", _ALIKE, NATURAL, _BOTH, _Above(EASY, HARD), COSINE),
    _Row("Figure 13", _UNLIKE, NATURAL, _Above(CLEAN, ATTACKED), ALL, COSINE),
    _Row("Figure 14", _SURER, NATURAL, CLEAN, HARD, _Above(P_S, P_T)),
    _Row("Figure 14", _UNSURE, NATURAL, CLEAN, EASY, _Above(P_T, P_S)),
    _Row("Figures 14 and 10", f"{_GAINS} with a Natural teacher", _Above(NATURAL, AT), CLEAN, HARD, GAIN),
    _Row("Figure 15", _SURER, NATURAL, ATTACKED, _Each((EASY, HARD)), _Above(P_S, P_T)),
    _Row("Figure 16a", _WORSE, NATURAL, CLEAN, HARD, _Above(P_S, EARLY)),
    _Row("Figure 16b", _BETTER, NATURAL, ATTACKED, EASY, _Above(EARLY, P_S)),
    _Row("Figure 17", _HELPS, NATURAL, CLEAN, _Each((ALL, EASY)), _Above(MIXED, P_S)),
    _Row("Figure 17", _MORE, NATURAL, CLEAN, _Above(HARD, EASY), MIXING),
    _Row("Figure 17", _CORRECTS, NATURAL, ATTACKED, ALL, _Above(RIGHT_MIXED, RIGHT)),
)


def check_claims(measured: Trajectories) -> list[Claim]:
    """Check what the paper says of its Figures 6, 7 and 10 to 17 (sections C.2 and E).

    "Easy" and "hard" have no number in the paper; here they are the easiest and the hardest third of the images. A
    claim about label mixing for all images is checked on their mean and on the easy images, which it helps least. The
    student of an early-stopped teacher and the student with labels mixed in are compared with the student of plain AKD.
    A prediction counts as correct if the correct class has a probability above 1/2, which with two classes makes it the
    more probable one. (Section E.2 says Figures 11b and 12 where it describes Figures 16b and 17.)

    The first claim is that the images can be ranked at all. If it does not hold, nothing is said of easy and hard ones.
    """
    tried = measured.answers[AT][CLEAN].mixed
    alpha = min(tried, key=lambda share: abs(share - OPTIMUM))
    rows = [row for row in _rows(alpha, tried) if measured.difficulty.is_reliable or row.part == ALL]
    compared = [_compared(measured, row, alpha) for row in rows]
    return [measured.difficulty.claim, *compared, *_misclassified(measured, alpha)]


def _rows(alpha: float, tried: Collection[float]) -> list[_Row]:
    """Expand the rows that stand for several claims, and add rows for the other alphas that were tried."""
    high, others = max(tried), [share for share in tried if share != alpha == OPTIMUM]
    best = [
        _Row("Figure 12", f"{_HELPS} than at {other:g}", AT, _BOTH, ALL, _Above(MIXED, _at(other))) for other in others
    ]
    too = f"At alpha {high:g}, too, {_SURER}"
    surer = _Row("Figure 17", too, NATURAL, ATTACKED, ALL, _Above(_at(high), P_T))
    rows = (*_ROWS, *best, *([surer] if high > alpha else []))
    return [
        replace(row, images=images, part=part)
        for row in rows
        for images, part in product(_each(row.images), _each(row.part))
    ]


def _each(field: str | _Above | _Each) -> tuple[str | _Above, ...]:
    return field.of if isinstance(field, _Each) else (field,)


def _at(share: float) -> str:
    return f"{P_S} at alpha {share:g}"


def _side(row: _Row, which: str) -> _Side:
    """Return one side, "higher" or "lower", of an expanded row."""
    values = {field.name: getattr(row, field.name) for field in fields(_Side)}
    return _Side(**{n: getattr(v, which) if isinstance(v, _Above) else v for n, v in values.items()})


def _compared(measured: Trajectories, row: _Row, alpha: float) -> Claim:
    one, other = _side(row, "higher"), _side(row, "lower")
    first, second = (_values(measured.answers[s.teacher][s.images], alpha)[s.quantity] for s in (one, other))
    bounds = (-1.0, 1.0) if one.quantity in (GAIN, STOPPING, MIXING) else (0.0, 1.0)
    if one.part == other.part:
        difference = measured.minus(first, second, one.part, bounds)
    else:
        difference = measured.between(first, one.part, other.part, bounds)
    epoch = measured.answers[one.teacher][one.images].early_epoch
    return Claim(
        f"{row.text} ({_words(row)}).".format(alpha=alpha, epoch=epoch),
        f"RKD, {row.figure}",
        Quantity(f"{one.quantity} ({_words(one)})", measured.mean(first, one.part, bounds)),
        Quantity(f"{other.quantity} ({_words(other)})", measured.mean(second, other.part, bounds)),
        difference,
    )


def _words(one: _Row | _Side) -> str:
    """Describe the teacher, the images and the part in words, without the field that is compared."""
    named = {"{} teacher": one.teacher, "{} images": one.images, "{}": one.part}
    return ", ".join(form.format(name) for form, name in named.items() if isinstance(name, str) and name != ALL)


def _values(answers: Answers, alpha: float) -> dict[str, BY_IMAGE]:
    """Return the quantities that are compared; label mixing gives the teacher's outputs the weight `alpha`."""
    plain, mixed = answers.plain, answers.mixed[alpha]
    return {
        COSINE: answers.cosine,
        P_T: answers.teacher,
        P_S: plain,
        EARLY: answers.early,
        MIXED: mixed,
        GAIN: answers.gain(plain),
        STOPPING: _minus(answers.early, plain),
        MIXING: _minus(mixed, plain),
        RIGHT: _right(plain),
        RIGHT_MIXED: _right(mixed),
        **{_at(share): student for share, student in answers.mixed.items()},
    }


def _minus(first: BY_IMAGE, second: BY_IMAGE) -> list[Tensor]:
    return [a - b for a, b in zip(first, second, strict=True)]


def _right(probability: BY_IMAGE) -> list[Tensor]:
    return [p > 0.5 for p in probability]


def _misclassified(measured: Trajectories, alpha: float) -> list[Claim]:
    """Check that students of a Natural teacher are not robust if no labels, or few, are mixed in."""
    answers = measured.answers[NATURAL][ATTACKED]
    corrected = measured.minus(_right(answers.plain), _right(answers.teacher))
    few = {share: student for share, student in answers.mixed.items() if share == max(answers.mixed) > alpha}
    by_share = {share: measured.mean(_right(student)) for share, student in {**few, 1.0: answers.plain}.items()}
    return [
        _below(
            SLIGHT,
            "Figure 15",
            "AKD by itself corrects no misclassification",
            f"{RIGHT}, student minus teacher",
            corrected,
        ),
        *(
            _below(GUESSING, "Figure 17", f"At alpha {share:g} a student is not robust", RIGHT, right)
            for share, right in by_share.items()
        ),
    ]


def _below(limit: tuple[str, float], figure: str, text: str, name: str, found: Measure) -> Claim:
    words = _words(_Side(NATURAL, ATTACKED, ALL, RIGHT))
    lower = Quantity(f"{name} ({words})", found)
    return Claim(f"{text} ({words}).", f"RKD, {figure}", *below(limit[1], limit[0], lower))
