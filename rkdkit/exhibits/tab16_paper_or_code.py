"""Whether it matters if a method is read from its paper or from its released code: a question of the kit's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from rkdkit import checks
from rkdkit.analysis.readings import CODE, PAPER, Closer, code_of, with_part
from rkdkit.analysis.white_box import attack_named
from rkdkit.claims import Claim, Quantity, below
from rkdkit.setup import Exhibit, Setup
from rkdkit.statistics import CONFIDENCE, Estimate

METHODS = ("TRADES", "AKD2", "ARD", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""The methods that are compared: those whose released codes were run side by side with the kit."""

FEWER: dict[str, tuple[str, ...]] = {"smoke": ("ARD", "PeerAiD")}
"""The methods that are compared, by the name of a profile; at others, all of `METHODS`."""

EXHIBIT = Exhibit(
    paper="the kit's own",
    differs={"": {"teacher_method": "TRADES"}},  # as in PeerAiD's Table 1, so that runs are shared
    unused=("n_autoattack",),
    trains=METHODS,
)

LIMIT = 0.03
"""The change of PGD accuracy, a fraction, below which the two readings are called the same: 3 points.

This is how far apart the six distillation methods of PeerAiD's Table 1 are under PGD-20, the best minus the worst:
between 1.0 and 6.3 points, 3.0 in the mean over three datasets and two networks. A change of this size can turn their
order round.
"""

SOURCE = "the kit's own question"


def compared(setup: Setup, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the methods that are compared, in the order of `METHODS`.

    Parameters
    ----------
    setup : the notebook's parameters.
    names : different methods of `METHODS`, at least one; None: all, or `FEWER` of the profile.

    Raises
    ------
    UnknownNameError
        If one is none of these.
    ValueError
        If it is no list, or a method is missing or there twice.
    """
    if names is None:
        return FEWER.get(setup.profile.name, METHODS)
    given = [checks.one_of("method", name, METHODS) for name in checks.listed("compared", names, '["ARD", "CAT"]')]
    if not given or len(set(given)) < len(given):
        raise ValueError(f"compared must list at least one method, and each once, not {checks.shown(names)}.")
    return tuple(method for method in METHODS if method in given)


def numbers_of(closer: Closer) -> pd.DataFrame:
    """Return the accuracies of all lines, and their paired differences from the paper's reading.

    Parameters
    ----------
    closer : as `readings.look_closer` returns it.

    Returns
    -------
    As `WhiteBox.against`, but without numbers of a paper; with base, the method, and reading: "paper", "code" or the
    name of a single difference. Lines of single differences come last.
    """
    lines = {name: (name, PAPER) for name in closer.names}
    lines |= {code_of(name): (name, CODE) for name in closer.names}
    lines |= {with_part(closer.method, part): (closer.method, part) for part in closer.parts}
    references = {line: base for line, (base, reading) in lines.items() if reading != PAPER}
    measured = closer.measured
    numbers = measured.against(references, measured.table()).drop(columns="paper_difference")
    base, reading = ([lines[line][i] for line in numbers.method] for i in (0, 1))
    return numbers.assign(base=base, reading=reading)


def check_claims(closer: Closer) -> list[Claim]:
    """Answer the exhibit's questions. No paper says anything about them, so the sentences are the kit's own.

    Does the reading change the clean accuracy of any method; does it change the PGD accuracy of any; is the change of
    each method's PGD accuracy small; does any single difference change that of the method looked at? Where one of
    several lines is shown, its interval holds for all of them at once (Bonferroni). For single differences, these are
    the ones of all methods that might have been chosen, so the interval holds whichever was.

    Parameters
    ----------
    closer : all lines.
    """
    robust, number = f"{attack_named(closer.robust)} accuracy", len(closer.names)
    of = f"For at least one of {number} methods" if number > 1 else f"For {closer.names[0]}"
    whole = {code_of(name): name for name in closer.names}
    checked = [
        _any(closer, "clean", whole, number, f"{of}, the reading changes the clean accuracy."),
        _any(closer, closer.robust, whole, number, f"{of}, the reading changes the {robust}."),
        *(_small(closer, name, robust) for name in closer.names),
    ]
    if closer.parts:
        text = f"At least one of {len(closer.parts)} single differences changes the {robust} of {closer.method}."
        single = {with_part(closer.method, part): closer.method for part in closer.parts}
        checked.append(_any(closer, closer.robust, single, closer.comparisons, text))
    return checked


def _any(closer: Closer, metric: str, lines: Mapping[str, str], number: int, text: str) -> Claim:
    """Return the claim that a line's accuracy is another than its method's, for the line that shows it most clearly.

    It holds or is open: that there is no difference anywhere cannot be shown by an interval.

    Parameters
    ----------
    closer, metric : the measurements, and which of them.
    lines : the lines, and the methods that they are compared with.
    number : how many comparisons the interval must hold for.
    text : the claim's sentence.
    """
    measured, confidence = closer.measured, 1 - (1 - CONFIDENCE) / number

    def difference(pair: tuple[str, str]) -> Estimate:
        return measured.minus(*pair, metric, confidence)

    pairs = [pair for line, base in lines.items() for pair in ((line, base), (base, line))]
    higher, lower = shown = max(pairs, key=lambda pair: difference(pair).low)
    words = "clean" if metric == "clean" else attack_named(metric)
    sides = [Quantity(f"{line}, {words} accuracy", measured.accuracy(line, metric)) for line in (higher, lower)]
    return Claim(text, SOURCE, sides[0], sides[1], difference(shown), confidence)


def _small(closer: Closer, name: str, robust: str) -> Claim:
    """Return the claim that a method's robust accuracies in the two readings differ by less than `LIMIT`."""
    found = closer.measured.minus(code_of(name), name, closer.robust)

    def absolute(low: float, high: float) -> tuple[float, float]:
        return max(low, -high, 0.0), max(-low, high)

    low, high = absolute(found.low, found.high)
    distance = replace(found, value=abs(found.value), low=low, high=high)
    if ends := found.ends:
        distance = distance.with_ends(lambda alpha: absolute(*ends(alpha)))
    quantity = Quantity(f"{name}, change of the {robust} by the reading", distance)
    limit = f"{100 * LIMIT:g} points"
    text = f"The reading changes the {robust} of {name} by less than {limit}."
    return Claim(text, f"{SOURCE}; {limit}: PeerAiD, Table 1", *below(LIMIT, limit, quantity))
