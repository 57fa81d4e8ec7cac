"""RKD, Tables 2 and 9: is distillation or longer training better, for networks of several widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rkdkit import attacks, checks, models
from rkdkit.analysis import candidates, ensembles, mixing
from rkdkit.analysis.candidates import ONLY_TEACHER, Line, Row
from rkdkit.analysis.ensembles import Networks
from rkdkit.analysis.selection import AIMS, check_held_out, in_images
from rkdkit.analysis.white_box import WhiteBox, noted
from rkdkit.claims import Claim
from rkdkit.comparisons import Guide
from rkdkit.papers.reported import reported
from rkdkit.profiles import PROFILES, rkd
from rkdkit.setup import Exhibit, Setup

_DIFFERS: dict[str, dict[str, Any]] = {profile: rkd(profile) for profile in PROFILES}
_DIFFERS["smoke"]["student"] = "resnet18/8"  # so that there is a narrower one

EXHIBIT = Exhibit(
    paper="RKD, Tables 2 and 9",
    differs=_DIFFERS,
    unused=("select_on", "teacher_method", "teacher", "peer"),
    trains=("PGD-AT", *mixing.METHODS),
    own={"widths": None, "teachers": ("PGD-AT",), "stops": None, "alphas": None},
    says=in_images,
)

WIDTHS: dict[str, tuple[int, ...]] = {"smoke": (1, 2), "quick": (1, 2, 4), "small": (1, 2, 4), "paper": (1, 4, 16)}
"""By what the width of the student's network is divided, by profile; networks of `models.build` go down to 1/16."""

_METHODS = {"smoke": ("AKD+", "RSLAD+")}  # by profile; others: all three

TEACHERS = ("PGD-AT",)
"""The methods that train the candidates' teachers.

Table 2 does not say it. Teacher and student together cost as much there as the longer training, so both see attacks.
Its most accurate student of the widest network, ARD+'s with alpha 0.2, may be one of a natural teacher all the same:
section 3.4 advises such teachers for ARD+. The notebook's `teachers` takes several.
"""

TABLE_9_DATA = "tiny_imagenet"
"""The dataset of Table 9, which is made at "paper" only."""

TABLE_9_STOPS, TABLE_9_ALPHAS = (0.3, 0.6, 1.0), (0.3, 0.6, 0.9)
"""Table 9's grid, which is not printed: it contains epoch 30 of 100 and alpha 0.6, which were chosen there."""

SOURCE = "RKD, Table 2 and section 3.3"


@dataclass(frozen=True)
class Part:
    """What one of the two tables needs.

    Attributes
    ----------
    table : "Table 2" or "Table 9".
    setup : gives its data.
    networks : from the widest to the narrowest.
    rows : three for each network: the teacher alone, RKD-Acc., RKD-Rob.
    """

    table: str
    setup: Setup
    networks: Sequence[str]
    rows: Sequence[Row]

    def line(self, network: str, selection: str) -> str:
        """Return the name of a line: "resnet18/4, RKD-Acc."; Table 9's names its dataset, too."""
        where = "" if self.table == "Table 2" else f" on {self.setup.profile.dataset}"
        return f"{network}{where}, {selection}"

    def place(self, network: str) -> int:
        """Return which of the paper's networks a network stands for, counted from the widest, 0; -1: for none."""
        scale = self.setup.profile
        width = models.parse(network)[1] / models.parse(scale.student)[1]
        return WIDTHS[scale.name].index(int(width)) if width in WIDTHS[scale.name] else -1


def parts(
    setup: Setup,
    widths: Sequence[int] | None = None,
    teachers: Sequence[str] = TEACHERS,
    stops: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
) -> list[Part]:
    """Return what the tables need: Table 2, and at the profile "paper" Table 9, unless the notebook set a dataset.

    Parameters
    ----------
    setup : the notebook's parameters.
    widths : by what the width of the student's network is divided, one to three different numbers in ascending order;
        None: `WIDTHS` of the profile.
    teachers : the methods that train the teachers of the candidates.
    stops, alphas : as `candidates.students`; None: the profile's.

    Raises
    ------
    UnknownNameError, ValueError
        If a list does not fit, or no images are held out.
    DataNotFoundError
        If the data are not there.
    """
    check_held_out(setup)
    scale = setup.profile
    widths = WIDTHS[scale.name] if widths is None else checks.listed("widths", widths, "[1, 2]")
    if not 1 <= len(widths) <= 3 or list(widths) != sorted(set(widths)):
        raise ValueError(f"widths must list one to three different numbers in ascending order, not {widths!r}.")
    networks = [_narrower(scale.student, width) for width in widths]
    found = [_part("Table 2", setup, networks, teachers, stops, alphas)]
    if scale.name == "paper" and "dataset" not in scale.fixed:
        grid = (stops or TABLE_9_STOPS, alphas or TABLE_9_ALPHAS)
        found.append(_part("Table 9", setup.changed(dataset=TABLE_9_DATA), [scale.student], teachers, *grid))
    return found


def choose(found: Sequence[Part]) -> list[Line]:
    """Train all candidates and the teachers alone, and choose the lines of the tables on held-out images."""
    trained = [candidates.train(part.setup, part.rows) for part in found]
    return [
        line
        for part, of_part in zip(found, trained, strict=True)
        for line in candidates.choose(part.setup, part.rows, of_part)
    ]


def measure(found: Sequence[Part], lines: Sequence[Line], by: Mapping[str, attacks.Attack | None]) -> WhiteBox:
    """Measure the network of each line on its data's test images, naturally and under attacks.

    Parameters
    ----------
    found, lines : as :func:`parts` and :func:`choose` return them.
    by : the attacks by metric; None: natural images.
    """
    snapshots = {line.row.name: line.winner.snapshots for line in lines}
    of_parts = [Networks(part.setup, {row.name: snapshots[row.name] for row in part.rows}) for part in found]
    return ensembles.measure(of_parts, by)


def paper_numbers() -> pd.DataFrame:
    """Return the paper's Tables 2 and 9: a row per number.

    Returns
    -------
    table, place, selection and metric, which together name a number; paper (a fraction), paper_dataset, paper_network;
    paper_loss, paper_early_stop and paper_alpha: what was chosen there.
    """
    numbers = pd.concat([reported("rkd", "Table 2"), reported("rkd", "Table 9")], ignore_index=True)
    settings = numbers.setting.str
    places = numbers.groupby("table").network.transform(lambda networks: pd.factorize(networks)[0])
    return pd.DataFrame(
        {
            **{"table": numbers.table, "place": places, "metric": numbers.metric, "paper": numbers.value / 100},
            "selection": settings.extract(r"selection=([^;]+)")[0],
            **{"paper_dataset": numbers.dataset, "paper_network": numbers.network, "paper_loss": numbers.method},
            "paper_early_stop": settings.extract(r"early stop=(\d+)")[0].astype(float),
            "paper_alpha": settings.extract(r"alpha=([\d.]+)")[0].astype(float),
        }
    )


def beside_the_paper(measured: WhiteBox, found: Sequence[Part], lines: Sequence[Line]) -> pd.DataFrame:
    """Return our numbers with the paper's beside them, what was chosen, and the differences from the teacher alone.

    Beside a network is the paper's that it stands for, by :meth:`Part.place`. The paper's numbers for which nothing was
    trained here have lines of their own, without an accuracy.

    Parameters
    ----------
    measured, found, lines : as :func:`measure`, :func:`parts` and :func:`choose` return them.

    Returns
    -------
    As `WhiteBox.against`, with the columns of `candidates.hyper_parameters` and :func:`paper_numbers`, and remark.
    """
    subset = ":" in found[0].setup.profile.dataset
    places = pd.DataFrame(
        {"method": row.name, "table": part.table, "place": -1 if subset else part.place(row.network)}
        for part in found
        for row in part.rows
    )
    about = candidates.hyper_parameters(lines).merge(places, on="method")
    keys = ["table", "place", "selection", "metric"]
    both = measured.table().merge(about, on="method").merge(paper_numbers(), on=keys, how="outer")
    theirs = both.paper_network + " on " + both.paper_dataset + ", " + both.selection + " (paper)"
    both = both.assign(only_theirs=both.method.isna(), method=both.method.fillna(theirs))
    order = {value: i for i, value in enumerate((ONLY_TEACHER, *AIMS, *measured.metrics))}
    both = both.sort_values(["only_theirs", *keys], key=lambda column: column.replace(order))
    references = {
        name: name.replace(selection, ONLY_TEACHER)
        for name, selection in zip(both.method, both.selection, strict=True)
        if selection != ONLY_TEACHER
    }
    both = both.drop(columns=["place", "only_theirs"]).assign(remark=candidates.remarks(both, measured.guessing))
    return measured.against(references, both)


def check_claims(measured: WhiteBox, found: Sequence[Part], robust: str = "pgd-20") -> list[Claim]:
    """Check what the paper says of its Tables 2 and 9 (sections 3.3 and B.2).

    Parameters
    ----------
    measured, found : as :func:`measure` and :func:`parts` return them.
    robust : the metric that decides about robustness: an attack that is feasible on all images.
    """
    part, networks = found[0], found[0].networks

    def more(part: Part, network: str, higher: str, lower: str, metric: str, text: str, source: str = SOURCE) -> Claim:
        return mixing.more(measured, metric, text, source, part.line(network, higher), part.line(network, lower))

    gain = "Distillation makes {} more {} than longer training."
    longer = "Longer training makes the narrowest network, {}, more robust than distillation."
    checked = [more(part, n, "RKD-Acc.", ONLY_TEACHER, "clean", gain.format(n, "accurate")) for n in networks]
    for n in networks:
        if part.place(n) in (0, 1):
            checked.append(more(part, n, "RKD-Rob.", ONLY_TEACHER, robust, gain.format(n, "robust")))
        elif part.place(n) == 2:
            checked.append(more(part, n, ONLY_TEACHER, "RKD-Rob.", robust, longer.format(n)))
    if len(networks) > 1:
        wide, narrow = ((part.line(n, "RKD-Rob."), part.line(n, ONLY_TEACHER)) for n in (networks[0], networks[-1]))
        text = f"Distillation adds more robustness to the widest network, {networks[0]}, than to the narrowest."
        checked.append(candidates.larger_gain(measured, wide, narrow, robust, text, SOURCE))
    for other in found[1:]:
        (network,) = other.networks
        text = f"On {other.setup.profile.dataset}, distillation makes {network} more accurate than longer training."
        checked.append(more(other, network, "RKD-Acc.", ONLY_TEACHER, "clean", text, "RKD, Table 9 and section B.2"))
    return noted(checked, measured)


def _narrower(network: str, width: int) -> str:
    """Return a network with its width divided once more: "resnet18/8" of "resnet18/4" and 2."""
    architecture, divisor = models.parse(network)
    name = architecture if divisor * width == 1 else f"{architecture}/{divisor * width}"
    models.parse(name)
    return name


def _part(table: str, setup: Setup, networks: Sequence[str], teachers: Sequence[str], *grid: Any) -> Part:
    part = Part(table, setup, networks, ())
    rows = []
    for network in networks:
        guides = [Guide(method, network=network) for method in checks.listed("teachers", teachers, '["PGD-AT"]')]
        students = candidates.students(setup, _METHODS.get(setup.profile.name, mixing.METHODS), guides, network, *grid)
        rows.append(Row(part.line(network, ONLY_TEACHER), network, ONLY_TEACHER))
        rows += [Row(part.line(network, aim), network, aim, students) for aim in AIMS]
    return replace(part, rows=rows)
