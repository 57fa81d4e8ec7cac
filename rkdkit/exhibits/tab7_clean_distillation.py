"""ARD, Tables 1 to 5: how much of a teacher's robustness a student takes over that never sees an attack."""

from rkdkit.analysis.distillation import SHORTER, Line, Tables, tables_of
from rkdkit.analysis.white_box import WhiteBox, attack_named
from rkdkit.claims import Claim, Quantity, below_guessing
from rkdkit.profiles import PROFILES, ard
from rkdkit.setup import Exhibit, Setup

EXHIBIT = Exhibit(
    paper="ARD, Tables 1 to 5",
    differs={profile: ard(profile) | SHORTER.get(profile, {}) for profile in PROFILES},
    unused=("teacher_method", "peer", "n_autoattack"),  # each line says how its teacher is trained; no AutoAttack
    needs=2,  # a share of an accuracy has a t interval
    trains=("Natural", "PGD-AT", "TRADES", "KD", "ARD"),
    own={"smaller_teacher": None},
)

TABLES = ("Table 1", "Table 2", "Table 3", "Table 4", "Table 5")

ALMOST_NONE = 0.1
"""A student with less than this share of its teacher's robust accuracy counts as having almost none of it; the paper
gives no threshold. Its own share is 1.30 of 28.36 points."""

_SMALL, _SAME, _LARGE = "mobilenetv2", "resnet18", "wrn-34-10"


def tables(setup: Setup, smaller_teacher: str | None = None) -> Tables:
    """Return the lines of Tables 1 to 5 at the exhibit's scale; parameters and errors as `distillation.tables_of`."""
    return tables_of(setup, TABLES, smaller_teacher=smaller_teacher)


def references(lines: Tables) -> dict[str, str]:
    """Return the row of each student's teacher in the same table, by the student's row."""
    return {lines.row(line): _teacher(lines, line) for line in lines.lines if line.guide}


def check_claims(lines: Tables, measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Tables 1 to 5 (sections 1 and 4).

    Parameters
    ----------
    lines : as :func:`tables` returns them.
    measured : as `Tables.measure` returns it.
    """
    attack = attack_named(lines.robust)

    def robust(row: str) -> Quantity:
        return Quantity(f"{row}, {attack} accuracy", measured.accuracy(row, lines.robust))

    def part(row: str, share: float) -> Quantity:
        scaled = measured.accuracy(row, lines.robust).linear(share)
        return Quantity(f"{share:.0%} of {row}, {attack} accuracy", scaled)

    def kd(table: str, guide: str, network: str = _SMALL, alpha: float = 1) -> str:
        return lines.find(table, "KD", network, guide, alpha)

    def minus(first: str, second: str, text: str, source: str) -> Claim:
        difference = measured.minus(first, second, lines.robust)
        return Claim(text, source, robust(first), robust(second), difference)

    ours, teacher, claims = lines.networks, references(lines), []
    for network in (_SAME, _SMALL):
        natural, plain = kd("Table 2", f"Natural {_SAME}", network), kd("Table 3", f"PGD-AT {_SAME}", network)
        claims += [
            Claim(
                f"KD from a natural {ours[_SAME]} does not make {ours[network]} robust: guessing is better.",
                "ARD, Table 2 and section 4.1",
                *below_guessing(robust(natural), measured.num_classes),
            ),
            minus(
                plain,
                natural,
                f"KD from PGD-AT {ours[_SAME]} makes {ours[network]} more robust than KD from a natural teacher.",
                "ARD, Table 3 and section 4.2",
            ),
            Claim(
                f"KD gives {ours[network]} most (more than half) of the robust accuracy of PGD-AT {ours[_SAME]}.",
                "ARD, Table 3 and section 4.2",
                robust(plain),
                part(teacher[plain], 0.5),
                measured.combination({(plain, lines.robust): 1, (teacher[plain], lines.robust): -0.5}),
            ),
        ]
    onto_small = kd("Table 3", f"PGD-AT {_SAME}")
    claims += [
        minus(
            onto_small,
            kd("Table 4", f"{method} {_LARGE}"),
            f"{method} {ours[_LARGE]} transfers less robustness by KD than PGD-AT {ours[_SAME]} does.",
            "ARD, Table 4 and section 4.3",
        )
        for method in ("PGD-AT", "TRADES")
        if (method, ours[_LARGE]) != ("PGD-AT", ours[_SAME])  # one training is not compared with itself
    ]
    mixed = {alpha: kd("Table 5", f"PGD-AT {_LARGE}", alpha=alpha) for alpha in (1, 0.95, 0.93)}
    claims.append(
        Claim(
            f"KD transfers almost none (less than {ALMOST_NONE:.0%}) of the robust accuracy of PGD-AT {ours[_LARGE]}.",
            "ARD, Table 5 and section 4.3",
            part(teacher[mixed[1]], ALMOST_NONE),
            robust(mixed[1]),
            measured.combination({(teacher[mixed[1]], lines.robust): ALMOST_NONE, (mixed[1], lines.robust): -1}),
        )
    )
    claims += [
        minus(
            mixed[1],
            mixed[alpha],
            f"KD with alpha {alpha:g} transfers less robustness than with alpha 1.",
            "ARD, Table 5 and section 4.3",
        )
        for alpha in (0.95, 0.93)
    ]
    text = f"From the same PGD-AT {ours[_SAME]}, ARD makes {ours[_SMALL]} more robust than KD."
    students = lines.find("Table 1", "ARD", _SMALL), kd("Table 1", f"PGD-AT {_SAME}")
    return [*claims, minus(*students, text, "ARD, Table 1 and section 1")]


def _teacher(lines: Tables, line: Line) -> str:
    method, _, network = line.guide.partition(" ")
    return lines.find(line.table, method, network)
