"""ARD, Table 11: whether its students are also the more robust ones under attacks other than PGD-20."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from rkdkit import attacks, checks, methods
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim, Quantity, Question, judged
from rkdkit.comparisons import Entry, Guide, usual_guide
from rkdkit.papers.reported import beside, reported
from rkdkit.profiles import PROFILES, Profile, ard
from rkdkit.setup import Exhibit

PAPER_USUAL_STEPS, PAPER_STEPS, PAPER_RESTARTS = 20, 1000, 100
"""Steps of the paper's usual and of its longest PGD, and the starts of its PGD with restarts."""

STRENGTH = {"smoke": (50, 3), "quick": (1000, 20), "small": (1000, 20)}
"""Steps of the longest PGD and starts of PGD with restarts, by the name of a profile; at others, the paper's."""

_IMAGES = {"smoke": {"n_test": 64}, "small": {"n_test": 400}}  # a thousand attack steps on every image take long

ENTRIES = {
    "PGD-AT": Entry("PGD-AT"),
    "ARD": Entry("ARD", (Guide("TRADES"),)),
    "Free-AT": Entry("Free-AT", changes={"settings": {"m": 4}}),
    "Fast-ARD": Entry("Fast-ARD", (Guide("TRADES"),), {"settings": {"m": 4}}),
}
"""The lines of the paper's Table 11, in the same order; Free-AT and Fast-ARD with m=4."""

METHODS = tuple(ENTRIES)
"""The methods of these lines."""

EXHIBIT = Exhibit(
    paper="ARD, Table 11",
    differs={profile: {**ard(profile), **_IMAGES.get(profile, {})} for profile in PROFILES},
    unused=("teacher_method", "peer", "n_autoattack"),
    trains=("PGD-AT", "TRADES", "ARD", "Free-AT", "Fast-ARD"),
    compares=METHODS,
    own={"long_steps": None, "restarts": None},
)

COMPARED = {"ARD": "PGD-AT", "Fast-ARD": "Free-AT"}
"""Each of ARD's methods, and the method without a teacher that the paper compares it with."""

SOURCE = "ARD, Table 11 and section 5.5"


def entries(names: Sequence[str]) -> dict[str, Entry]:
    """Return the lines of methods: the paper's, and others with robust teachers that TRADES trains."""
    guides = {name: tuple(usual_guide(slot, "TRADES") for slot in methods.get(name).guides) for name in names}
    return {name: ENTRIES.get(name, Entry(name, guides[name])) for name in names}


def compared(names: Sequence[str]) -> dict[str, str]:
    """Return what methods are compared with: ARD's as in `COMPARED`, others with PGD-AT or, without it, the last."""
    reference = "PGD-AT" if "PGD-AT" in names else names[-1]
    pairs = {name: COMPARED.get(name, reference) for name in names if name in COMPARED or name not in METHODS}
    return {name: other for name, other in pairs.items() if other in names and other != name}


def attack_suite(
    scale: Profile, steps: int | None = None, restarts: int | None = None
) -> dict[str, attacks.Attack | None]:
    """Return natural images, the usual PGD, and the attacks of the paper's Table 11.

    What the paper does not state is as follows. MI-FGSM takes steps of eps / 20 with a decay of 1, as its authors do.
    DeepFool is the l_inf one of Foolbox 3, with 50 steps and an overshoot of 0.02; what it finds is clipped to the
    `eps` ball, so that its accuracy is one at `eps` like all others. PGD takes the profile's steps from a random start.
    An image is robust to PGD with restarts if it is classified correctly after every start's last step.

    Parameters
    ----------
    scale : the exhibit's profile.
    steps : the number of steps of the longest PGD; None: as :data:`STRENGTH`.
    restarts : the number of starts of PGD with restarts; None: likewise.

    Returns
    -------
    By metric, in the paper's order, after "clean" and the usual PGD: for instance "mi-fgsm-20", "deepfool", "pgd-1000"
    and "pgd-20 x 100". The names tell steps and starts.

    Raises
    ------
    ValueError
        If `steps` or `restarts` is not a whole number, `steps` is not above the usual PGD's, or `restarts` is below 2.
    """
    usual = scale.test_attack
    own_steps, own_restarts = STRENGTH.get(scale.name, (PAPER_STEPS, PAPER_RESTARTS))
    longest = replace(usual, steps=own_steps if steps is None else steps)
    restarted = replace(usual, restarts=own_restarts if restarts is None else restarts)
    if longest.steps <= usual.steps:
        raise ValueError(f"long_steps must be above the {usual.steps} steps of the usual attack, not {longest.steps}.")
    if restarted.restarts < 2:
        raise ValueError(f"restarts must be at least 2, not {restarted.restarts}: one start is the usual attack.")
    for name, number in (("long_steps", longest.steps), ("restarts", restarted.restarts)):
        checks.number(name, number, 1, checks.MOST_STEPS)
    momentum = attacks.MIFGSM(usual.eps, usual.eps / 20, 20)
    suite = (usual, momentum, attacks.DeepFool(usual.eps), longest, restarted)
    return {"clean": None, **{str(attack).lower(): attack for attack in suite}}


def paper_numbers(suite: Mapping[str, attacks.Attack | None]) -> pd.DataFrame:
    """Return the paper's Table 11, as `reported`, under our metrics, and the numbers of Tables 6 and 9 that go with it.

    Tables 6 and 9 have the same students' accuracies on natural images and under PGD-20.

    Parameters
    ----------
    suite : as :func:`attack_suite` returns it.

    Returns
    -------
    As `reported`, with the column paper_metric: the metric in the paper's words.
    """
    ours = dict(
        zip(("clean", "pgd-20", "mi-fgsm-20", "deepfool", "pgd-1000", "pgd-20-restarts-100"), suite, strict=True)
    )
    table_6, table_9, table_11 = (reported("ard", f"Table {i}") for i in (6, 9, 11))
    table_6 = table_6[(table_6.network == "mobilenetv2") & table_6.method.isin(ENTRIES)]
    table_6 = table_6[~table_6.setting.str.startswith("alpha=0.95")]
    both = pd.concat([table_6, table_9[table_9.setting.str.startswith("m=4")], table_11], ignore_index=True)
    return both.assign(paper_metric=both.metric, metric=both.metric.map(ours))


def beside_the_paper(measured: WhiteBox, dataset: str, network: str) -> pd.DataFrame:
    """Return accuracies with the paper's beside them, and differences: as `WhiteBox.against`, with paper_metric.

    Parameters
    ----------
    measured : the lines under the attacks of :func:`attack_suite`.
    dataset, network : as `reported.beside`.
    """
    theirs = paper_numbers(measured.measured_by)
    words = dict(zip(theirs.metric, theirs.paper_metric, strict=True))
    numbers = beside(measured.table(), theirs, dataset, network)
    return measured.against(
        compared(list(measured.evaluations)), numbers.assign(paper_metric=numbers.metric.map(words))
    )


def strength(suite: Mapping[str, attacks.Attack | None]) -> str:
    """Say in a sentence where the attacks are weaker than the paper's; "": nowhere.

    Parameters
    ----------
    suite : as :func:`attack_suite` returns it.
    """
    usual, longest, restarted = (attack for attack in suite.values() if isinstance(attack, attacks.PGD))
    fewer = [
        f"{found:,} {what} instead of {paper:,}"
        for found, what, paper in (
            (usual.steps, "steps of the usual PGD", PAPER_USUAL_STEPS),
            (longest.steps, "steps", PAPER_STEPS),
            (restarted.restarts, f"starts of PGD-{restarted.steps}", PAPER_RESTARTS),
        )
        if found < paper
    ]
    return f"Weaker than the paper's attacks: {' and '.join(fewer)}." if fewer else ""


def check_claims(measured: WhiteBox) -> list[Claim]:
    """Check that ARD's students are the more robust ones under every attack (section 5.5).

    Parameters
    ----------
    measured : the lines under the attacks of :func:`attack_suite`. A claim about methods that are not among them is
        left out.
    """
    under = [(metric, str(attack)) for metric, attack in measured.measured_by.items()][2:]

    def question(method: str, other: str, metric: str, attack: str) -> Question:
        def judge(text: str) -> Claim:
            sides = [
                Quantity(f"{name}, accuracy under {attack}", measured.accuracy(name, metric))
                for name in (method, other)
            ]
            return Claim(text, SOURCE, sides[0], sides[1], measured.minus(method, other, metric))

        return Question(f"Under {attack}, {method} is more robust than {other}.", (method, other), judge)

    questions = [question(*pair, *metric) for pair in COMPARED.items() for metric in under]
    return judged(questions, measured.evaluations)
