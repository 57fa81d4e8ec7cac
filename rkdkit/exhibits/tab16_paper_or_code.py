"""Whether it matters if a method is read from its paper or from its released code: a question of the kit's own.

Which methods move is partly the kit's definition. The KL of ARD and PeerAiD is the code's mean over classes in the
paper's reading, too (`methods.table` says why), so that this difference is in neither of their lines; that of RSLAD and
AdaAD goes from the sum to the mean, on ten classes a tenth of the loss at the same learning rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from rkdkit import checks, methods
from rkdkit.analysis.readings import CODE, PAPER, Ablation, code_of
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
    own={"compared": None, "ablate": None},
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


def numbers_of(ablation: Ablation) -> pd.DataFrame:
    """Return the accuracies of all lines, and their paired differences from the paper's reading.

    Parameters
    ----------
    ablation : as `readings.ablate` returns it.

    Returns
    -------
    As `WhiteBox.against`, but without numbers of a paper; with base, the method, and reading: "paper", "code" or the
    name of a single difference. Lines of single differences come last.
    """
    lines = {name: (name, PAPER) for name in ablation.names}
    lines |= {code_of(name): (name, CODE) for name in ablation.names}
    lines |= {methods.part_name(ablation.method, part): (ablation.method, part) for part in ablation.parts}
    references = {line: base for line, (base, reading) in lines.items() if reading != PAPER}
    measured = ablation.measured
    numbers = measured.against(references, measured.table()).drop(columns="paper_difference")
    base, reading = ([lines[line][i] for line in numbers.method] for i in (0, 1))
    return numbers.assign(base=base, reading=reading)


def check_claims(ablation: Ablation) -> list[Claim]:
    """Answer the exhibit's questions. No paper says anything about them, so the sentences are the kit's own.

    With one seed there are no claims: one pair of trainings cannot tell a change by the reading from the change that a
    training with another seed makes.

    Does the reading change the clean accuracy of any method; does it change the PGD accuracy of any; is the change of
    each method's PGD accuracy small; does any single difference change that of the method
    that was ablated? Where one of
    several lines is shown, its interval holds for all of them at once (Bonferroni). For single differences, these are
    the ones of all methods that might have been chosen, so the interval holds whichever was.

    Parameters
    ----------
    ablation : all lines.
    """
    if ablation.seeds == 1:
        return []
    robust, number = f"{attack_named(ablation.robust)} accuracy", len(ablation.names)
    of = f"For at least one of {number} methods" if number > 1 else f"For {ablation.names[0]}"
    whole = {code_of(name): name for name in ablation.names}
    checked = [
        _any(ablation, "clean", whole, number, f"{of}, the reading changes the clean accuracy."),
        _any(ablation, ablation.robust, whole, number, f"{of}, the reading changes the {robust}."),
        *(_small(ablation, name, robust) for name in ablation.names),
    ]
    if ablation.parts:
        text = f"At least one of {len(ablation.parts)} single differences changes the {robust} of {ablation.method}."
        single = {methods.part_name(ablation.method, part): ablation.method for part in ablation.parts}
        checked.append(_any(ablation, ablation.robust, single, ablation.comparisons, text))
    return checked


def caption(ablation: Ablation, ablate: str | None = None) -> str:
    """Return the caption's sentences: why this method was ablated, and which KL is the code's in both readings.

    Parameters
    ----------
    ablation : all lines.
    ablate : the method that the notebook named for the ablation; None: it was the one that moves most.
    """
    why = "it moves most" if ablate is None else "it was named"
    sentences = []
    as_code = [name for name in ablation.names if methods.get(name).settings.get("kl_reduction") == "mean"]
    if as_code:
        sentences.append(f"In both readings, the KL of {' and '.join(as_code)} is the code's mean over classes.")
    if ablation.seeds == 1:
        sentences.append("With one seed nothing is judged.")
    first = f"{ablation.method}, one difference at a time: {why}."
    return "\n".join(filter(None, [first, " ".join(sentences)]))  # in one line, it would be wider than the figure


def _any(ablation: Ablation, metric: str, lines: Mapping[str, str], number: int, text: str) -> Claim:
    """Return the claim that a line's accuracy is another than its method's, for the line that shows it most clearly.

    It holds or is open: that there is no difference anywhere cannot be shown by an interval.

    Parameters
    ----------
    ablation, metric : the measurements, and which of them.
    lines : the lines, and the methods that they are compared with.
    number : how many comparisons the interval must hold for.
    text : the claim's sentence.
    """
    measured, confidence = ablation.measured, 1 - (1 - CONFIDENCE) / number

    def difference(pair: tuple[str, str]) -> Estimate:
        return measured.minus(*pair, metric, confidence)

    pairs = [pair for line, base in lines.items() for pair in ((line, base), (base, line))]
    higher, lower = shown = max(pairs, key=lambda pair: difference(pair).low)
    words = "clean" if metric == "clean" else attack_named(metric)
    sides = [Quantity(f"{line}, {words} accuracy", measured.accuracy(line, metric)) for line in (higher, lower)]
    return Claim(text, SOURCE, sides[0], sides[1], difference(shown), confidence)


def _small(ablation: Ablation, name: str, robust: str) -> Claim:
    """Return the claim that a method's robust accuracies in the two readings differ by less than `LIMIT`."""
    found = ablation.measured.minus(code_of(name), name, ablation.robust)

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
