"""RKD, Tables 5, 10 and 12: students of one teacher and of an ensemble of four, and the ensemble itself."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from rkdkit import attacks, comparisons
from rkdkit.analysis import candidates, ensembles, mixing
from rkdkit.analysis.ensembles import IN_RKD, Networks, Taught, Trained
from rkdkit.analysis.selection import in_images
from rkdkit.analysis.white_box import WhiteBox, attack_named, noted
from rkdkit.claims import Claim, Quantity, below
from rkdkit.comparisons import Guide
from rkdkit.papers.reported import reported
from rkdkit.profiles import PROFILES, rkd
from rkdkit.setup import Exhibit, Setup

EXHIBIT = Exhibit(
    paper="RKD, Tables 5, 10 and 12",
    differs={profile: rkd(profile) for profile in PROFILES},
    unused=("select_on", "teacher_method", "peer"),
    trains=("Natural", "FFGSM-AT", "PGD-AT", "AKD+", "RSLAD+"),
    own={"n_teachers": None, "stops": None, "alphas": None},
    says=in_images,
)

DATASETS = {"paper": ("cifar10", "cifar100")}
"""The datasets of Table 5, by the name of a profile; Tables 10 and 12 have the first alone."""

TEACHERS = ("Natural", "FFGSM-AT", "PGD-AT")
"""The methods that train the teachers of Table 5, in the same order."""

ALONE = "PGD-AT"
"""The method of Table 12's networks."""

NO_GAIN = 0.01
"""An ensemble that gains less than one point counts as not improved (Table 12).

RKD has no threshold. It wants to show that the ensemble's own accuracy is not the reason why its student gains; the
robust accuracy of the student of four PGD-AT teachers gains 1.25 points in its Table 5.
"""

SECTION_C1 = {1: 46.99, IN_RKD: 51.58}
"""AutoAttack accuracy in per cent of one network and of Table 12's ensemble: the text of section C.1 has them."""

TABLE_5, TABLE_10, TABLE_12 = "RKD, Table 5 and section 3.6", "RKD, Table 10 and section B.3", "RKD, Table 12 and C.1"


def students(number: int, tables: Sequence[str] = ("Table 5", "Table 10")) -> list[Taught]:
    """Return the students of Tables 5 and 10, in the paper's order.

    Parameters
    ----------
    number : how many teachers an ensemble has.
    tables : which of the two tables.
    """
    of_table = {
        "Table 5": [Taught("AKD+", teacher, n) for teacher in TEACHERS for n in (1, number)],
        "Table 10": [Taught("RSLAD+", "FFGSM-AT", 1), Taught("RSLAD+", "FFGSM-AT", number), Taught("RSLAD+", ALONE)],
    }
    return [student for table in tables for student in of_table[table]]


def together(number: int) -> str:
    """Return the name of Table 12's ensemble."""
    return f"{number} {ALONE} as one network"


def train(
    setup: Setup,
    number: int | None = None,
    stops: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
) -> Trained:
    """Train teachers and students; runs that are in the store are used again.

    Parameters
    ----------
    setup : the notebook's parameters.
    number : how many teachers an ensemble has, as `ensembles.number_of_teachers`.
    stops, alphas : the hyper-parameters to choose among, as `ensembles.train`.

    Raises
    ------
    ValueError
        As `ensembles.train` and `ensembles.number_of_teachers`, before anything is trained.
    """
    number = ensembles.number_of_teachers(setup, number)
    parts, choices = [], []
    for dataset, own in ensembles.setups_of(setup, DATASETS).items():
        suffix = ensembles.on(dataset, setup.profile.dataset)
        wanted = students(number, ["Table 5"] if suffix else ["Table 5", "Table 10"])
        chosen, _ = ensembles.train(own, wanted, {}, stops, alphas)
        networks = {name + suffix: of_seeds for name, of_seeds in chosen.named.items()}
        choices.append(chosen.table().assign(method=list(networks)))
        if suffix:
            parts.append(Networks(own, networks))
            continue
        # Table 12's networks are the teachers after their last epoch
        guides = [Guide(ALONE, stopped=1.0, another=i) for i in range(number)]
        members = list(
            zip(*comparisons.choose_guides(own, dict(zip(guides, guides, strict=True))).values(), strict=True)
        )
        alone = {ALONE: [of_seed[0] for of_seed in members]}
        parts.append(Networks(own, {**networks, **alone}, {together(number): members}))
    return Trained(number, parts, pd.concat(choices, ignore_index=True))


def attacks_of(setup: Setup) -> dict[str, attacks.Attack | None]:
    """Return the attacks by metric: natural images, Table 12's PGD-7, the profile's PGD, and AutoAttack.

    Raises
    ------
    ValueError
        If the data have too few classes for AutoAttack.
    """
    seven = replace(setup.profile.test_attack, steps=7)
    return {"clean": None, str(seven).lower(): seven, **candidates.test_attacks(setup)}


def paper_numbers(dataset: str) -> pd.DataFrame:
    """Return the paper's three tables with the names of lines here, as `ensembles.beside_all` takes them.

    Two more numbers are in the paper's text (:data:`SECTION_C1`). The paper's ensembles are of `ensembles.IN_RKD`
    networks: where ours have another number, its numbers of them stand beside no line.

    Parameters
    ----------
    dataset : the first dataset here, as `ensembles.named_by_dataset`.
    """
    tables = [reported("rkd", f"Table {table}") for table in (5, 10, 12)]
    in_text = tables[-1].drop_duplicates("setting").assign(table="section C.1", metric="autoattack")
    in_text["value"] = in_text.setting.map({f"ensemble={number}": value for number, value in SECTION_C1.items()})
    theirs = pd.concat([*tables, in_text], ignore_index=True)
    of_one = theirs.setting.str.endswith("=1")
    teacher = theirs.guide.str.partition(" ")[0]
    taught = theirs.method + " from " + of_one.map({True: "1", False: str(IN_RKD)}) + " " + teacher
    as_one = of_one.map({True: ALONE, False: together(IN_RKD)})
    return ensembles.named_by_dataset(theirs.assign(method=taught.where(teacher != "", as_one)), dataset)


def numbers_of(setup: Setup, trained: Trained, measured: WhiteBox) -> pd.DataFrame:
    """Return all numbers, with the paper's beside ours and how much each line differs from its reference.

    Parameters
    ----------
    setup, trained, measured : the parameters, the networks, and :func:`ensembles.measure` of them.

    Returns
    -------
    As `WhiteBox.against` and `ensembles.beside_all`. A student of an ensemble, and the ensemble itself, are compared
    with their counterparts of one network.
    """
    both = ensembles.beside_all(measured, trained.choices, paper_numbers(setup.profile.dataset))
    return measured.against(references(list(dict.fromkeys(both.method))), both)


def references(lines: Sequence[str]) -> dict[str, str]:
    """Return what each line is compared with: a line of several networks with that of one.

    Parameters
    ----------
    lines : the names of all lines, here or in the paper.
    """
    found = {}
    for line in lines:
        one = re.sub(r" from \d+ ", " from 1 ", re.sub(r"^\d+ (.+) as one network", r"\1", line))
        if one != line and one in lines:
            found[line] = one
    return found


def check_claims(measured: WhiteBox, number: int, robust: str) -> list[Claim]:
    """Check what the paper says of its Tables 5, 10 and 12, on the first dataset.

    That an ensemble does not improve on one network is not that it is worse: its gain has to be below `NO_GAIN`.

    Parameters
    ----------
    measured : all lines, under the names of :class:`Taught` and :func:`together`.
    number : how many teachers an ensemble has.
    robust : the metric that decides robustness.
    """
    akd, rslad = (
        {teacher: (str(Taught(method, teacher, number)), str(Taught(method, teacher))) for teacher in TEACHERS}
        for method in ("AKD+", "RSLAD+")
    )
    seven = next(metric for metric in measured.metrics if metric.startswith("pgd-7"))
    fast, one, ensemble = "FFGSM-AT", f"{number} teachers instead of one", together(number)
    compared = [
        (TABLE_5, "clean", *akd["Natural"], f"{one}, trained naturally, make AKD+'s student more accurate."),
        (TABLE_5, robust, *akd[fast], f"{one}, trained by FFGSM, make AKD+'s student more robust."),
        (TABLE_5, robust, *akd[ALONE], f"{one}, trained by PGD, make AKD+'s student more robust."),
        (
            TABLE_5,
            robust,
            akd[fast][0],
            akd[ALONE][1],
            f"{number} FFGSM-trained teachers make AKD+'s student more robust than a PGD-trained one does.",
        ),
        (TABLE_10, "clean", *rslad[fast], f"{one}, trained by FFGSM, make RSLAD+'s student more accurate."),
        (TABLE_10, robust, *rslad[fast], f"{one}, trained by FFGSM, make RSLAD+'s student more robust."),
        (
            TABLE_10,
            "clean",
            rslad[ALONE][1],
            rslad[fast][0],
            f"For RSLAD+, a PGD-trained teacher is better than {number} "
            "FFGSM-trained ones: the student is more accurate.",
        ),
        (
            TABLE_12,
            "autoattack",
            ensemble,
            ALONE,
            "AutoAttack succeeds less often against an ensemble than against one of its networks.",
        ),
    ]
    claims = [
        mixing.more(measured, metric, text, source, higher, lower) for source, metric, higher, lower, text in compared
    ]
    text = "AKD+ gains more robustness from an ensemble of FFGSM-trained teachers than RSLAD+ does."
    larger_gain = candidates.larger_gain(measured, akd[fast], rslad[fast], robust, text, TABLE_10)
    not_improved = [
        _no_better(measured, ensemble, metric, how)
        for metric, how in (("clean", "accurate"), (seven, "robust (PGD-7)"))
    ]
    return noted([*claims[:6], larger_gain, claims[6], *not_improved, claims[7]], measured)


def _no_better(measured: WhiteBox, ensemble: str, metric: str, how: str) -> Claim:
    """Return the claim that the ensemble as one network does not improve on one of its networks."""
    gain = Quantity(
        f"{ensemble} minus {ALONE}, {attack_named(metric)} accuracy", measured.minus(ensemble, ALONE, metric)
    )
    text = f"An ensemble is no more {how} than one of its networks: it gains less than {100 * NO_GAIN:g} point."
    return Claim(text, TABLE_12, *below(NO_GAIN, "what counts as a gain", gain))
