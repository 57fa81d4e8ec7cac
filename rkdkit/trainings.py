"""Trainings as tasks: a run is trained once, stored after every epoch, and resumed where it stopped."""

import copy
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rkdkit import data, executors, methods, training
from rkdkit.endings import Stopped
from rkdkit.group.leading import training_of
from rkdkit.progress import say, track
from rkdkit.provenance import environment
from rkdkit.records import names_what_it_keeps
from rkdkit.references import Snapshot, epochs_of
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import DamagedFileError, RunFolder, StoreError
from rkdkit.tasks import Context, Task
from rkdkit.wanted import WantedRecord


@dataclass(frozen=True)
class Run:
    """A training and its record.

    Attributes
    ----------
    spec : what was trained.
    found : the content of `run.json`; None: the run is not trained yet, and this is a placeholder.
    """

    spec: RunSpec
    found: dict[str, Any] | None = field(repr=False)

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says: history, digests, data, and every environment the run was trained in.

        Raises
        ------
        NeedsNetworkError
            While planning, when nothing is known of a run that is not trained.
        StoreError
            If the run is not trained.
        """
        if self.found is None:
            executors.current().networks_for(f"The record of {self.spec}")
            raise StoreError(f"{self.spec} is not trained: call runs.ensure(spec) first.")
        return self.found

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that have snapshots, counted from 1."""
        return self.epochs_of("student")

    def epochs_of(self, role: str) -> tuple[int, ...]:
        """Return the epochs that have snapshots of a network; averaged weights may start at a later epoch.

        Raises
        ------
        UnknownNameError
            If the run has no such network.
        """
        return epochs_of(self.spec, role)

    @property
    def training_seconds(self) -> float:
        """Wall time of all its finished epochs, in seconds, interruptions not counted."""
        return float(sum(epoch["seconds"] for epoch in self.record["history"]))

    def snapshot(self, role: str = "student", epoch: int = 0) -> Snapshot:
        """Return a network's snapshot.

        Parameters
        ----------
        role : "student", "peer" or "student_averaged".
        epoch : counted from 1; 0: the last.

        Raises
        ------
        UnknownNameError
            If the run has no such network.
        ValueError
            If there is no snapshot of that epoch.
        """
        return Snapshot(self.spec, role, epoch)

    def snapshots(self, role: str = "student") -> list[Snapshot]:
        """Return all snapshots of a network, the earliest first; errors as :meth:`epochs_of`."""
        return [Snapshot(self.spec, role, epoch) for epoch in self.epochs_of(role)]


@dataclass(frozen=True)
class Train(Task):
    """Train a run; its answer is the finished :class:`Run`.

    An interrupted training continues from its last finished epoch and, on the same hardware, ends with the same weights
    bit for bit. If another process is training the same run, this one waits for it and uses its result.

    Attributes
    ----------
    spec : what to train.
    """

    spec: RunSpec

    @property
    def name(self) -> str:
        """As :attr:`Task.name`."""
        return f"train-{self.spec.id}"

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """As :attr:`Task.specs`."""
        return (self.spec,)

    def __str__(self) -> str:
        return f"training of {self.spec}"

    def inputs(self) -> list[Task]:
        """Return the trainings of its teachers."""
        return [Train(teacher.run) for teacher in self.spec.teachers if teacher.run is not None]

    def with_teachers(self) -> list["Train"]:
        """Return this training and those of all its teachers (and of their teachers), teachers first, each once."""
        before = [Train(teacher.run) for teacher in self.spec.teachers if teacher.run is not None]
        return list(dict.fromkeys([*(each for task in before for each in task.with_teachers()), self]))

    def check(self, context: Context) -> None:
        """As :meth:`Task.check`, for its teachers, too: bad sizes and extra images are refused before any training."""
        for task in self.with_teachers():
            context.load(task.spec.dataset).split_validation(task.spec.n_train, task.spec.n_val)
            task._extra(context)

    def finished_epochs(self, context: Context) -> int:
        """Return how many of its epochs are in the store; errors as :meth:`find`."""
        record = self._record(context)
        return 0 if record is None else int(record["finished"])

    def find(self, context: Context) -> Run | None:
        """Return the finished run from the store; None: it is not finished.

        Raises
        ------
        DataNotFoundError
            If the data are not there.
        StoreError
            If the record is damaged, or the run was trained on other data, or by another teacher, than are found now.
        """
        record = self._record(context)
        return Run(self.spec, record) if record is not None and record["finished"] == self.spec.epochs else None

    def wanted(self, context: Context) -> list[WantedRecord]:
        """As :meth:`Task.wanted`: the record; none, if the training was begun here."""
        spec, folder = self.spec, context.store.run_folder(self.spec)
        if folder.read_record() is not None:
            return []
        teachers = tuple(_digest_and_folder(teacher, context) for teacher in spec.teachers)
        extra = self._extra(context)
        digests = context.load(spec.dataset).digest, extra.digest if extra else None
        return [WantedRecord(spec, folder, *digests, teachers)]

    def placeholder(self) -> Run:
        """Return the run without a record."""
        return Run(self.spec, None)

    def do(self, context: Context) -> None:
        """Train the missing epochs.

        Raises
        ------
        StoreError
            As :meth:`find`; also if the store cannot be written, or somebody changes the run's folder meanwhile.
        ValueError
            If a teacher's module was not given, or a teacher does not fit the data.
        DivergedError
            If the loss or a weight becomes NaN or infinite.
        Stopped
            If the user interrupts.
        """
        dataset, extra = context.load(self.spec.dataset), self._extra(context)
        teachers = [_teacher(teacher, context) for teacher in self.spec.teachers]
        folder = context.store.run_folder(self.spec)
        with folder.lock(lambda: say(f"Another process is training {self.spec}; waiting for it to finish.")):
            # the other process may have finished it
            record = self._record(context)
            if record is None or record["finished"] < self.spec.epochs:
                try:
                    _train(folder, self.spec, dataset, extra, context, teachers, record)
                except KeyboardInterrupt:
                    kept = folder.read_record()
                    raise Stopped([(str(self.spec), kept["finished"] if kept else 0, self.spec.epochs)]) from None
            else:
                folder.tidy(keep=set())

    def _extra(self, context: Context) -> data.Split | None:
        """Return the extra images of the run; None: it has none."""
        spec = self.spec
        if not spec.extra:
            return None
        return data.load_extra(spec.extra, context.load(spec.dataset), n_train=spec.n_train, n_val=spec.n_val)

    def _record(self, context: Context) -> dict[str, Any] | None:
        """Return the run's record, finished or not; refuse one of another run, of other data or of another teacher."""
        dataset = context.load(self.spec.dataset)
        folder = context.store.run_folder(self.spec)
        record = context.record(self.spec)
        if record is None:  # a plan does not need the extra images, which may be on another machine
            return None
        if record["spec"] != self.spec.to_json():
            raise StoreError(
                f"{folder.path} holds another run than its name says: {record['spec']}. Delete or rename it."
            )
        if not names_what_it_keeps(record):
            raise StoreError(
                f"{folder.path} names other snapshots than {self.spec} keeps. Delete that folder to train again."
            )
        if dataset.source != data.BLANK and record["data"]["digest"] != dataset.digest:
            raise StoreError(
                f"{folder.path} was trained on other data than are found now: {record['data']['source']} then "
                f"(digest {record['data']['digest']}), {dataset.source} now ({dataset.digest}). Set RKDKIT_STORE to "
                "another folder for the data found now, or delete that folder to train again."
            )
        extra = self._extra(context)
        if record["data"]["extra"] != (extra.digest if extra else None):
            raise StoreError(
                f"{folder.path} was trained with other extra images than {self.spec.extra} holds now. Delete that "
                "folder to train again."
            )
        self._check_guides(record, folder, context)
        return record

    def _check_guides(self, record: dict[str, Any], folder: RunFolder, context: Context) -> None:
        """Refuse a record if a teacher that is in the store is not the one that taught the run."""
        found = [_digest(teacher, context) for teacher in self.spec.teachers]
        if len(found) != len(record["guided_by"]):
            raise StoreError(f"{folder.path} does not say who taught it. Delete that folder to train again.")
        for teacher, now, then in zip(self.spec.teachers, found, record["guided_by"], strict=True):
            if now not in (None, then):
                raise StoreError(
                    f"{folder.path} was taught by other weights of {teacher} than are found now: their digest was "
                    f"{then[:16]} and is {(now or '')[:16]}. That teacher was trained anew; another number of threads "
                    "or other hardware is enough for other weights. Delete that folder to train the student again by "
                    "the teacher that is there, or put the earlier teacher's folder back."
                )


def _digest(teacher: Teacher, context: Context) -> str | None:
    """Return the digest of a teacher's weights; None: they are not in the store."""
    if teacher.run is None:
        return teacher.digest
    return Snapshot(teacher.run, teacher.role, teacher.epoch or 0).digest(context)


def _digest_and_folder(teacher: Teacher, context: Context) -> tuple[str | None, Path | None]:
    """Return the digest of a teacher, and the folder of its run; None: it is a module."""
    if teacher.run is None:
        return teacher.digest, None
    folder = context.store.run_folder(teacher.run).path
    return Snapshot(teacher.run, teacher.role, teacher.epoch or 0).digest(context), folder


def _teacher(teacher: Teacher, context: Context) -> tuple[str, nn.Module]:
    """Return the digest and the network of a teacher."""
    if teacher.run is not None:
        snapshot = Snapshot(teacher.run, teacher.role, teacher.epoch or 0)
        return snapshot.digest(context) or "", snapshot.read(context)
    module = context.modules.get((teacher.module, teacher.digest))
    if module is None:
        raise ValueError(
            f"The teacher {teacher.module!r} is a foreign module, which this process was not given: call "
            f"runs.foreign_teacher(module, {teacher.module!r}) first; its weights must have digest {teacher.digest}."
        )
    return teacher.digest, copy.deepcopy(module).to(context.device)


def _train(
    folder: RunFolder,
    spec: RunSpec,
    dataset: data.Dataset,
    extra: data.Split | None,
    context: Context,
    teachers: Sequence[tuple[str, nn.Module]],
    record: dict[str, Any] | None,
) -> None:
    """Train from the record's last epoch to the run's last, storing each epoch; the caller holds the run's lock."""
    networks = [network for _, network in teachers]
    with training_of(spec, dataset, context, networks, extra) as loop:
        if record is None:
            record = {
                "spec": spec.to_json(),
                "id": spec.id,
                "data": {"digest": dataset.digest, "source": dataset.source, "extra": extra.digest if extra else None},
                "guided_by": [digest for digest, _ in teachers],
                "environments": [],
                "finished": 0,
                "states": {},
                "snapshots": {role: {} for role in methods.get(spec.method, spec.reading).roles},
                "history": [],
            }
        state = _last_whole(folder, spec, record)
        if state is not None:
            loop.load_state(state, record["finished"])
        here = {**environment(context.device), "compiled": loop.compiled, **_processes(loop)}
        here |= ({"graphs": True} if loop.graphs else {}) | (
            {"micro_batch": loop.micro_batch} if loop.micro_batch else {}
        )
        if here not in record["environments"]:
            record["environments"].append(here)
        folder.write_record(record)
        folder.tidy(keep={state["name"] for state in record["states"].values()})
        steps = loop.batches_per_epoch
        with track(
            desc=spec.short, unit="step", total=spec.epochs * steps, initial=loop.epoch * steps, smoothing=0.05
        ) as bar:
            while loop.epoch < spec.epochs:
                started = time.perf_counter()
                report = loop.run_epoch(bar.update)
                _keep(folder, spec, loop, record, report, time.perf_counter() - started)
                bar.set_postfix(loss=f"{report.loss:.3f}")


def _processes(loop: training.Training) -> dict[str, int]:
    """Return what a record says of the number of processes: nothing of one that trains alone."""
    return {"processes": loop.shares.size} if loop.shares.size > 1 else {}


def _last_whole(folder: RunFolder, spec: RunSpec, record: dict[str, Any]) -> dict[str, Tensor] | None:
    """Return the state after the last epoch up to which all files are whole; None: there is no such epoch.

    The record is cut off after that epoch.
    """
    damaged = [
        int(epoch)
        for role, by_epoch in record["snapshots"].items()
        for epoch, digest in by_epoch.items()
        if not folder.is_whole(Snapshot(spec, role, int(epoch)).file, digest)
    ]
    state, reached = None, 0
    for epoch in sorted(map(int, record["states"]), reverse=True):
        if epoch < min(damaged, default=spec.epochs + 1):
            with suppress(DamagedFileError):
                state, reached = folder.read_tensors(**record["states"][str(epoch)]), epoch
                break
    if reached < record["finished"]:
        at = f"goes on after epoch {reached}" if reached else "is trained again from the first epoch"
        say(f"{folder.path}: files of later epochs are damaged or missing, so {spec} {at}.")
        record["finished"], record["history"] = reached, record["history"][:reached]
        for by_epoch in (*record["snapshots"].values(), record["states"]):
            for epoch in [epoch for epoch in by_epoch if int(epoch) > reached]:
                del by_epoch[epoch]
    return state


def _keep(
    folder: RunFolder,
    spec: RunSpec,
    loop: training.Training,
    record: dict[str, Any],
    report: training.EpochReport,
    seconds: float,
) -> None:
    """Store a finished epoch: first the files, then the record that names them.

    Raises
    ------
    StoreError
        If they cannot be written, or the run's folder was deleted or changed since the last epoch.
    """
    folder.check_unchanged()
    epoch, last = report.epoch, report.epoch == spec.epochs
    if spec.has_snapshot(epoch):
        for role, weights in loop.weights().items():
            digest = folder.write_tensors(Snapshot(spec, role, epoch).file, weights)
            record["snapshots"].setdefault(role, {})[str(epoch)] = digest
    if last:
        record["states"] = {}
    else:
        name = f"state-{epoch:04d}.safetensors"
        before = list(record["states"].items())[-1:]  # if one file is damaged, one epoch is trained again
        record["states"] = dict(
            [*before, (str(epoch), {"name": name, "digest": folder.write_tensors(name, loop.state())})]
        )
    record["finished"] = epoch
    record["history"].append({**asdict(report), "seconds": seconds, **_processes(loop)})
    folder.write_record(record)
    folder.tidy(keep={state["name"] for state in record["states"].values()})
