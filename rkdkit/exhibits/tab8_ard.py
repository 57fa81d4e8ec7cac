"""ARD, Tables 6 to 8: students of adversarially robust distillation beside networks that had no teacher."""

from rkdkit.analysis.distillation import SHORTER, Line, Tables, tables_of
from rkdkit.analysis.white_box import WhiteBox, attack_named, noted
from rkdkit.claims import Claim, Quantity
from rkdkit.profiles import PROFILES, ard
from rkdkit.setup import Exhibit, Setup

EXHIBIT = Exhibit(
    paper="ARD, Tables 6 to 8",
    differs={profile: ard(profile) | SHORTER.get(profile, {}) for profile in PROFILES},
    unused=("teacher_method", "peer", "n_autoattack"),  # each line says how its teacher is trained; no AutoAttack
    trains=("PGD-AT", "TRADES", "KD", "ARD"),
    own={"smaller_teacher": None},
)

TABLES = ("Table 6", "Table 7", "Table 8")

_SMALL, _SAME, _LARGE = "mobilenetv2", "resnet18", "wrn-34-10"

CLEAN_STUDENTS = (
    Line("Table 4", "cifar10", _SMALL, "KD", f"TRADES {_LARGE}", 1.0),
    Line("Table 5", "cifar100", _SMALL, "KD", f"PGD-AT {_LARGE}", 0.93),
)
"""The students of KD whose teachers and alpha are those of ARD's students in Tables 6 and 7 (sections 5.1 and 5.2)."""


def tables(setup: Setup, smaller_teacher: str | None = None) -> Tables:
    """Return the lines of Tables 6 to 8 and :data:`CLEAN_STUDENTS` at the exhibit's scale.

    Parameters and errors are those of `distillation.tables_of`.
    """
    return tables_of(setup, TABLES, CLEAN_STUDENTS, smaller_teacher)


def references(lines: Tables) -> dict[str, str]:
    """Return the row of PGD-AT of the same network on the same data, by row, if the exhibit has one.

    PGD-AT itself is compared with nothing. A row of the same table is preferred, then the first one.
    """
    plain = [line for line in lines.lines if line.method == "PGD-AT"]
    found = {}
    for line in lines.lines:
        alike = [each for each in plain if (each.dataset, each.network) == (line.dataset, line.network)]
        if line.method != "PGD-AT" and alike:
            found[lines.row(line)] = lines.row(min(alike, key=lambda each: each.table != line.table))
    return found


def check_claims(lines: Tables, measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Tables 6 to 8 (sections 5, 5.1, 5.2 and 5.3).

    Parameters
    ----------
    lines : as :func:`tables` returns them.
    measured : as `Tables.measure` returns it.
    """

    def quantity(row: str, metric: str) -> Quantity:
        return Quantity(f"{row}, {attack_named(metric)} accuracy", measured.accuracy(row, metric))

    def above(text: str, source: str, metric: str, first: str, second: str) -> Claim:
        difference = measured.minus(first, second, metric)
        return Claim(text, f"ARD, {source}", quantity(first, metric), quantity(second, metric), difference)

    pgd_at, trades = (lines.find("Table 6", method, _SMALL) for method in ("PGD-AT", "TRADES"))
    ard_1, ard_95 = (lines.find("Table 6", "ARD", _SMALL, alpha=alpha) for alpha in (1, 0.95))
    kd, kd_93 = (lines.find(line.table, "KD", _SMALL) for line in CLEAN_STUDENTS)
    ard_93, pgd_at_93 = lines.find("Table 7", "ARD", _SMALL), lines.find("Table 7", "PGD-AT", _SMALL)
    own = {network: lines.find("Table 8", "PGD-AT", network) for network in (_SAME, _SMALL)}
    onto = {network: lines.find("Table 8", "ARD", network, f"PGD-AT {network}") for network in own}
    smaller = lines.find("Table 8", "ARD", _SMALL, f"PGD-AT {_SAME}")
    ours, clean, robust = lines.networks, "clean", lines.robust
    first, second, third = "Table 6 and section 5.1", "Table 7 and section 5.2", "Table 8 and section 5.3"
    checked = [
        above("ARD's student is more accurate than PGD-AT of the same network.", first, clean, ard_1, pgd_at),
        above("ARD's student is more robust than PGD-AT of the same network.", first, robust, ard_1, pgd_at),
        above("ARD's student is more robust than TRADES of the same network.", first, robust, ard_1, trades),
        above("With alpha 0.95, ARD's student is more accurate than TRADES.", first, clean, ard_95, trades),
        above("With alpha 0.95, ARD's student is more robust than TRADES.", first, robust, ard_95, trades),
        above("ARD is more accurate with alpha 0.95 than with alpha 1.", "Table 6 and section 5", clean, ard_95, ard_1),
        above("From a TRADES teacher, ARD's student is more robust than KD's.", first, robust, ard_1, kd),
        above(
            "With alpha 0.93, ARD's student is more robust than PGD-AT of its network.",
            second,
            robust,
            ard_93,
            pgd_at_93,
        ),
        above("With alpha 0.93, ARD's student is more robust than KD's.", second, robust, ard_93, kd_93),
        *(
            above(
                f"ARD from {of} onto {of} makes it more robust than its teacher.", third, robust, onto[name], own[name]
            )
            for name, of in ((network, ours[network]) for network in own)
        ),
        above(
            f"ARD from {ours[_SAME]} onto {ours[_SMALL]} makes it more robust than its teacher.",
            third,
            robust,
            smaller,
            own[_SAME],
        ),
    ]
    return noted(checked, measured)
