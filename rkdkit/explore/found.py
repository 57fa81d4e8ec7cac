"""What of a store can be looked at: runs of which a network is here; and what is wrong with the other runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rkdkit import checks, paths
from rkdkit.inventory import stored
from rkdkit.inventory.stored import StoredRun
from rkdkit.methods import own
from rkdkit.spec import RunSpec
from rkdkit.store import Store

FIRST = "`make fig1`, or `rkdkit figures fig1_peer_vs_teacher --profile quick`,"
"""What trains networks to look at, as a sentence begins."""

MOST_LINES = 12
"""How many unusable runs are named; the others are counted."""

_UNKNOWN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a specification that only other code knows may raise: whole records may hold anything."""


@dataclass(frozen=True)
class FoundRun:
    """A run of which at least one network is in the store.

    Attributes
    ----------
    id : the run's id.
    name : its method, network, teachers and seed, what tells it from other such runs, and the beginning of its id.
    spec : its specification.
    epochs : the epochs, counted from 1, whose networks are here, by role: "student", "peer", "student_averaged".
    data_digest : the digest of the dataset that it was trained on.
    note : what is not here of it, and what to do about that, in a sentence; "": it is all here.
    """

    id: str
    name: str
    spec: RunSpec
    epochs: Mapping[str, tuple[int, ...]]
    data_digest: str
    note: str = ""

    @property
    def every_epoch(self) -> tuple[int, ...]:
        """The epochs of which some network is here, in order."""
        return tuple(sorted({epoch for epochs in self.epochs.values() for epoch in epochs}))


@dataclass(frozen=True)
class Found:
    """What :func:`look_through` found.

    Attributes
    ----------
    root : the store's folder.
    runs : the runs that can be looked at, by method, those of the most usual network first.
    problems : a line for each run that cannot be, with what to do about it.
    """

    root: Path
    runs: tuple[FoundRun, ...]
    problems: tuple[str, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets of the runs, the one of most runs first."""
        return tuple(name for name, _ in Counter(run.spec.dataset for run in self.runs).most_common())

    def of(self, dataset: str) -> dict[str, list[FoundRun]]:
        """Return the runs on a dataset by their methods' labels, such as "RSLAD" or "RSLAD (code)"."""
        found: dict[str, list[FoundRun]] = {}
        for run in self.runs:
            if run.spec.dataset == dataset:
                found.setdefault(run.spec.label, []).append(run)
        return found

    def named(self, name: str, dataset: str | None = None) -> FoundRun:
        """Return a run by the beginning of its id, or by a method: then the first run of this method.

        Parameters
        ----------
        name : "2b725c75" or "PeerAiD".
        dataset : only runs on this dataset; None: on any.

        Raises
        ------
        UnknownNameError
            If there is no such run, or several ids begin so.
        """
        among = [run for run in self.runs if dataset in (None, run.spec.dataset)]
        on = f" on {dataset}" if dataset else ""
        if len(by_id := [run for run in among if name and run.id.startswith(name)]) == 1:
            return by_id[0]
        if by_id:
            ids = ", ".join(run.id for run in by_id)
            raise checks.UnknownNameError(f"Several runs' ids begin with {name}: {ids}. Write more of the id.")
        labels = dict.fromkeys(run.spec.label for run in among)
        if name in labels:
            return next(run for run in among if run.spec.label == name)
        raise checks.UnknownNameError(
            f"No run{on} in {self.root} has the method or the id {checks.shown(name)}. Methods there: "
            f"{', '.join(labels) or 'none'}. `rkdkit runs list` lists the ids."
        )

    def __str__(self) -> str:
        if not self.runs:
            lines = [
                f"There are no trained networks to look at in {self.root}. {FIRST} trains some within minutes; then "
                "run this notebook again. Another folder: set `store` above, or RKDKIT_STORE."
            ]
        else:
            of = Counter(run.spec.dataset for run in self.runs)
            counts = ", ".join(f"{number} on {name}" for name, number in of.most_common())
            lines = [f"Runs to look at in {self.root}: {counts}."]
        lines += self.problems[:MOST_LINES]
        left = len(self.problems) - MOST_LINES
        return "\n".join([*lines, *([f"... and {left} more that cannot be shown."] if left > 0 else [])])


def look_through(store: str | Path | None = None) -> Found:
    """Look through a store for networks to look at. Only the runs' records are read; nothing is written.

    Runs of the user's own methods are among them, if `own.VARIABLE` names the methods' file, which is executed.

    Parameters
    ----------
    store : its folder; None: `paths.store_folder`. It need not exist.

    Raises
    ------
    ValueError
        If it is a file.
    OSError
        If a folder cannot be read.
    """
    root = paths.store_folder() if store is None else Path(store)
    checks.folder("store", root)
    runs, problems = list[FoundRun](), list[str]()
    try:
        own.load_named()
    except ValueError as error:  # the runs of other methods can be looked at all the same
        problems.append(str(error))
    for each in stored.take(root, answers=False).runs:
        try:
            runs.append(_found(each, root))
        except ValueError as error:
            problems.append(" ".join(str(error).split()))
    return Found(root, tuple(_told_apart(runs)), tuple(problems))


def _found(run: StoredRun, root: Path) -> FoundRun:
    """Return a run to look at.

    Raises
    ------
    ValueError
        If there is nothing to look at; the message is a line that begins with the run.
    """
    record = run.record
    if record is None:
        raise ValueError(
            f"{run.folder.name}: damaged, its run.json {run.problem}; `rkdkit runs verify {run.id}` says what to do."
        )
    try:
        spec = RunSpec.from_json(record["spec"])
    except _UNKNOWN as error:
        raise ValueError(
            f"{run.title}: not known to this kit: {error} If the method is your own, load its file first: "
            f"set {own.VARIABLE} to its path, or call rkdkit.methods.own.load, and run this again."
        ) from error
    if Store(root).run_folder(spec).path.name != run.folder.name:
        raise ValueError(
            f"{run.folder.name}: {spec} has the id {spec.id} today, because its method is defined otherwise than when "
            "it was trained, or the folder was renamed. To train it by today's definition, run the command again."
        )
    here = {file.name for file in run.files if file.kind == stored.SNAPSHOT}
    epochs: dict[str, list[int]] = {}
    named = 0
    for role, epoch, _ in run.snapshots:
        named += 1
        known = epoch <= spec.epochs and spec.has_snapshot(epoch) and role in spec.roles_at(epoch)
        if known and run.snapshot_file(role, epoch) in here:
            epochs.setdefault(role, []).append(epoch)
    whole = f"delete the folder {run.folder}, and run the command that made it"
    if not named:
        raise ValueError(f"{run.title} ({run.id[:6]}): no epoch is finished yet; go on with its training first.")
    if not epochs:
        raise ValueError(f"{run.title} ({run.id[:6]}): its networks were pruned. To train them again, {whole}.")
    present = sum(map(len, epochs.values()))
    note = ""
    if present < named:
        note = (
            f"{present} of this run's {named} networks are here, the others were pruned or not fetched. "
            f"To train them again, {whole}."
        )
    elif not run.finished:
        note = f"This run is not finished: {run.progress}."
    ordered = {role: tuple(sorted(found)) for role, found in epochs.items()}
    return FoundRun(run.id, _label(spec), spec, ordered, record["data"]["digest"], note)


def _label(spec: RunSpec) -> str:
    alike = Counter(map(str, spec.teachers))
    named = " and ".join(f"{number} times {name}" if number > 1 else name for name, number in alike.items())
    guides = f" from {named}" if named else ""
    return f"{spec.label} {spec.student}{guides}, seed {spec.seed}"


def _told_apart(runs: Iterable[FoundRun]) -> list[FoundRun]:
    """Return runs by method, those of the most usual network first; what tells runs apart is added to their names."""
    alike: dict[tuple[str, str], list[FoundRun]] = {}
    for run in runs:
        alike.setdefault((run.spec.dataset, run.name), []).append(run)
    named = []
    for group in alike.values():
        for run, rare in zip(group, _rarities([_fields(run.spec) for run in group]), strict=True):
            name = "; ".join([run.name, *([rare] if rare else [])])
            named.append(replace(run, name=f"{name} ({run.id[:6]})"))
    usual = Counter(run.spec.student for run in named)
    return sorted(named, key=lambda run: (run.spec.label, -usual[run.spec.student], run.name))


def _fields(spec: RunSpec) -> dict[str, Any]:
    """Return the fields of a specification, its settings among them, without its teachers."""
    values = {name: value for name, value in spec.to_json().items() if name != "teachers"}
    return {**values.pop("settings"), **values}


def _rarities(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each of several runs the fields in which it differs from most of the others: "mixing 0.25"."""
    names = dict.fromkeys(name for run in runs for name in run)
    usual = {name: Counter(str(run.get(name)) for run in runs).most_common(1)[0][0] for name in names}
    return [", ".join(f"{name} {run[name]}" for name in run if str(run[name]) != usual[name]) for run in runs]
