"""The lines of ARD's tables at an exhibit's scale: trained, measured, and with the paper's numbers beside ours."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from rkdkit import attacks, checks, comparisons, models
from rkdkit.analysis.white_box import WhiteBox, white_box_of
from rkdkit.comparisons import Entry, Guide, Students
from rkdkit.measurements import CorrectPredictions
from rkdkit.papers.reported import reported, with_replications
from rkdkit.references import Images
from rkdkit.setup import Setup

SMALLER_TEACHER = {"smoke": "resnet18/16", "quick": "resnet18/8", "small": "resnet18/8", "paper": "resnet18"}
"""The network in the place of the paper's ResNet-18, by the name of a profile: half as wide as the teacher."""

CIFAR100 = {"paper": "cifar100"}
"""The dataset of the tables on CIFAR-100, by the name of a profile; other profiles use one dataset for all tables."""

SHORTER = {"smoke": {"attack_steps": 3}}
"""What saves time where nothing but that everything runs is looked at; fields of a profile, by its name."""

ALPHA = {"KD": "l", "ARD": "alpha"}
"""The setting that ARD's paper calls alpha, by method: the weight of the teacher's answers; labels have the rest."""

_LABELS = ["table", "dataset", "network", "method", "guide"]


@dataclass(frozen=True)
class Line:
    """One line of ARD's tables, in the paper's terms.

    Attributes
    ----------
    table, dataset, network, method, guide : as `papers.reported.reported`; the guide is "PGD-AT wrn-34-10", or "".
    alpha : the weight of the teacher's answers; None: no teacher.
    """

    table: str
    dataset: str
    network: str
    method: str
    guide: str = ""
    alpha: float | None = None


@dataclass(frozen=True)
class Tables:
    """Some lines of ARD's tables, and what stands for the paper's networks and data at an exhibit's scale.

    A line of a table is called a *row* where it counts with its table ("Table 4: KD mobilenetv2/4 from PGD-AT
    resnet18/4"). Rows of several tables can be one training.

    Attributes
    ----------
    setup : the notebook's parameters.
    lines : the lines, in the paper's order.
    networks, datasets : ours, by the paper's names.
    """

    setup: Setup
    lines: tuple[Line, ...]
    networks: Mapping[str, str]
    datasets: Mapping[str, str]

    @property
    def attacks(self) -> dict[str, attacks.Attack | None]:
        """The paper's two measures, by metric: natural images (None), and PGD-20 or the profile's other PGD."""
        attack = self.setup.profile.test_attack
        return {"clean": None, self.robust: attack}

    @property
    def robust(self) -> str:
        """The metric of robust accuracy: "pgd-20", unless the parameters change the attack."""
        return str(self.setup.profile.test_attack).lower()

    def network_of(self, line: Line) -> str:
        """Return the network of a line here."""
        return self.networks[line.network]

    def guide_of(self, line: Line) -> str:
        """Return the teacher of a line here, such as "PGD-AT resnet18/4"; "": none."""
        method, _, network = line.guide.partition(" ")
        return f"{method} {self.networks[network]}" if line.guide else ""

    def name(self, line: Line) -> str:
        """Return the name of a line's training: method, networks, alpha, and the dataset if there are several."""
        guide = f" from {self.guide_of(line)}" if line.guide else ""
        alpha = "" if line.alpha in (None, 1) else f" (alpha {line.alpha:g})"
        dataset = f" on {self.datasets[line.dataset]}" if len(set(self.datasets.values())) > 1 else ""
        return f"{line.method} {self.network_of(line)}{guide}{alpha}{dataset}"

    def row(self, line: Line) -> str:
        """Return the name of a row: the table and the training."""
        return f"{line.table}: {self.name(line)}"

    def find(self, table: str, method: str, network: str, guide: str = "", alpha: float | None = None) -> str:
        """Return the name of the one row with these labels, which are the paper's; "" or None: any.

        Raises
        ------
        ValueError
            If not exactly one line has these labels.
        """
        found = [
            line
            for line in self.lines
            if (line.table, line.method, line.network) == (table, method, network)
            and guide in ("", line.guide)
            and alpha in (None, line.alpha)
        ]
        if len(found) != 1:
            raise ValueError(f"{len(found)} lines of {table} are {method} {network} {guide} {alpha}, not one.")
        return self.row(found[0])

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """The trainings by name, each once."""
        return {self.name(line): self._entry(line) for line in self.lines}

    def train(self) -> Students:
        """Train all lines, on all datasets, side by side; parameters and errors as `comparisons.train_entries`."""
        return comparisons.train_entries(self.setup, self.entries)

    def measure(self, trained: Students) -> WhiteBox:
        """Measure each training under :attr:`attacks` on its own dataset's test images; the result is by row."""
        tasks = {
            (name, i, metric): CorrectPredictions(
                images=Images(snapshot.spec.dataset, n=self.setup.n_test), judges=(snapshot,), attack=attack
            )
            for name, of_seeds in trained.chosen.items()
            for i, snapshot in enumerate(of_seeds)
            for metric, attack in self.attacks.items()
        }
        measured, rows = white_box_of(tasks, self.attacks), {self.row(line): self.name(line) for line in self.lines}
        by_row = {row: measured.evaluations[name] for row, name in rows.items()}
        classes = {row: measured.classes[name] for row, name in rows.items()}
        return replace(measured, evaluations=by_row, classes=classes)

    def numbers(self, measured: WhiteBox, references: Mapping[str, str]) -> pd.DataFrame:
        """Return our numbers, the paper's and those of others, and differences from the rows to compare with.

        Parameters
        ----------
        measured : as :meth:`measure` returns it.
        references : by row, the row whose accuracy is subtracted.

        Returns
        -------
        As `WhiteBox.against`, with the rows as methods, in the order of the lines. Further columns: table, paper
        (a fraction), paper_dataset, paper_network, others and source (what others report who repeated it, as
        `reported.with_replications`), dataset and network. A number of the paper that is not measured
        here has an accuracy of NaN.
        """
        numbers = measured.table().merge(self._reported(), on=["method", "metric"], how="outer")
        rows, metrics = [self.row(line) for line in self.lines], list(dict.fromkeys([*self.attacks, *numbers.metric]))
        numbers = numbers.set_index(["method", "metric"]).reindex(pd.MultiIndex.from_product([rows, metrics]))
        numbers = numbers.rename_axis(["method", "metric"]).dropna(how="all").reset_index()
        numbers = numbers.fillna({"others": "", "source": ""})
        labels = pd.DataFrame(
            {
                "method": self.row(line),
                "table": line.table,
                "dataset": self.datasets[line.dataset],
                "network": self.network_of(line),
                "paper_dataset": line.dataset,
                "paper_network": line.network,
            }
            for line in self.lines
        )
        return measured.against(references, numbers.merge(labels, on="method", validate="many_to_one"))

    def _entry(self, line: Line) -> Entry:
        dataset = self.datasets[line.dataset]
        own = {} if dataset == self.setup.profile.dataset else {"dataset": dataset}
        changes: dict[str, Any] = {"student": self.network_of(line), **own}
        if not line.guide:
            return Entry(line.method, changes=changes)
        method, _, network = self.guide_of(line).partition(" ")
        settings = {ALPHA[line.method]: line.alpha}
        return Entry(line.method, (Guide(method, network, changes=own),), {**changes, "settings": settings})

    def _reported(self) -> pd.DataFrame:
        """Return the paper's numbers, as fractions, and those of others, by row and metric."""
        rows = []
        for line, theirs in _lines():
            if line in self.lines and ":" not in self.datasets[line.dataset]:  # the paper has no selection of classes
                rows.append({"method": self.row(line), "metric": theirs.metric, "paper": theirs.value / 100})
                rows[-1] |= {"others": theirs.others, "source": theirs.source}
        found = pd.DataFrame(rows, columns=["method", "metric", "paper", "others", "source"])
        return found.astype({"paper": float})


def tables_of(
    setup: Setup, tables: Collection[str], further: Sequence[Line] = (), smaller_teacher: str | None = None
) -> Tables:
    """Return the lines of some of ARD's tables at an exhibit's scale.

    The profile's student stands for the paper's MobileNetV2, and its teacher for the WRN-34-10.

    Parameters
    ----------
    setup : the notebook's parameters.
    tables : tables of which all lines are taken: "Table 6".
    further : further lines of other tables.
    smaller_teacher : the network in the place of the paper's ResNet-18; None: that of :data:`SMALLER_TEACHER`.

    Raises
    ------
    UnknownNameError
        If there is no such network or table.
    ValueError
        If a line of `further` is not in the paper, if the notebook sets alpha, which the lines themselves say, or if
        two lines of a table would be one, because networks that differ in the paper do not here.
    DataNotFoundError
        If the data are not there.
    """
    scale = setup.profile
    for method, name in ALPHA.items():
        if name in scale.settings.get(method, {}):
            raise ValueError(
                f"Each line of the tables says its own alpha: leave {name} out of the settings of {method}."
            )
    networks = {"mobilenetv2": scale.student, "wrn-34-10": scale.teacher_network}
    networks["resnet18"] = smaller_teacher or SMALLER_TEACHER[scale.name]
    models.parse(networks["resnet18"])
    other = scale.dataset if "dataset" in scale.fixed else CIFAR100.get(scale.name, scale.dataset)
    if other != scale.dataset:
        setup.changed(dataset=other)  # refuses absent data before anything is trained
    known = {line.table for line, _ in _lines()}
    for table in tables:
        checks.one_of("table", table, known)
    lines = dict.fromkeys(line for line, _ in _lines() if line.table in tables or line in further)
    if not set(further) <= set(lines):
        raise ValueError(f"ARD's tables have no such line: {', '.join(map(str, set(further) - set(lines)))}.")
    found = Tables(setup, tuple(lines), networks, {"cifar10": scale.dataset, "cifar100": other})
    (row, times), *_ = Counter(map(found.row, found.lines)).most_common(1)
    if times > 1:
        used = ", ".join(f"{here} for {theirs}" for theirs, here in networks.items())
        raise ValueError(f"{row}: {times} lines of the paper would be this one. Choose other networks than {used}.")
    return found


def _lines() -> list[tuple[Line, pd.Series]]:
    """Return the lines of ARD's Tables 1 to 8, one for each number, with the number."""
    theirs = with_replications(reported("ard"))
    theirs = theirs[
        theirs.method.isin({"Natural", "PGD-AT", "TRADES", *ALPHA}) & theirs.metric.isin(["clean", "pgd-20"])
    ]
    alpha = theirs.setting.str.extract(r"alpha=([\d.]+)", expand=False)
    return [
        (Line(**{label: row[label] for label in _LABELS}, alpha=float(weight) if row.guide else None), row)
        for (_, row), weight in zip(theirs.iterrows(), alpha, strict=True)
    ]
