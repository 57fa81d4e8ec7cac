"""From a specification to a trained run, trained once and kept: ``run = ensure(spec)``."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rkdkit import attacks, autoattack, checks, data, evaluation, methods, models, training
from rkdkit.interchange import digest_of_module
from rkdkit.progress import say, track
from rkdkit.provenance import environment
from rkdkit.spec import RunSpec, Teacher, digest_of
from rkdkit.store import RunFolder, Store, StoreError

EVALUATION_ENGINE = 1
"""Raised whenever the same question would get another answer from the same network, beyond rounding."""

SELECTIONS = ("val", "test", "last")


@dataclass(frozen=True)
class Snapshot:
    """A network as it was at the end of an epoch.

    Attributes
    ----------
    spec : the run it comes from.
    role : "student", "peer" or "student_averaged".
    epoch : counted from 1.
    digest : SHA-256 of its file.
    """

    spec: RunSpec
    role: str
    epoch: int
    digest: str
    _folder: RunFolder

    @property
    def architecture(self) -> str:
        """The network, as `models.build` takes it."""
        return self.spec.peer if self.role == "peer" else self.spec.student

    def as_teacher(self, slot: str = "T", weight: float = 1.0) -> Teacher:
        """Return it as a fixed teacher, for `RunSpec.teachers`.

        Parameters
        ----------
        slot : its place in the method's row: "T", "T_rob" or "T_nat".
        weight : its share in an ensemble.
        """
        return Teacher(run=self.spec, epoch=self.epoch, role=self.role, slot=slot, weight=weight)

    def load(self, device: torch.device | str | None = None) -> models.Classifier:
        """Return the network in eval mode; the file's digest is checked first.

        Parameters
        ----------
        device : where to put it; None: :func:`default_device`.

        Raises
        ------
        DamagedFileError
            If the file is missing or not as it was written.
        NeedsNetworkError
            If it is :func:`only_asked` what there is to do.
        """
        asked = _ASKED.get()
        if asked is not None:
            asked.cut_short = True
            raise NeedsNetworkError(f"Here the network {self.spec} itself is needed, and nothing is to be trained.")
        weights = self._folder.read_tensors(_snapshot_name(self.role, self.epoch), self.digest)
        network = models.build(
            self.architecture,
            len(weights["head.bias"]),
            weights["mean"].flatten().tolist(),
            weights["std"].flatten().tolist(),
        )
        network.load_state_dict(weights)
        return network.on(device or default_device()).eval()


@dataclass(frozen=True)
class Run:
    """A finished training in the store.

    Attributes
    ----------
    spec : what was trained.
    record : what `run.json` says: history, digests, data, and every environment it was trained in.
    """

    spec: RunSpec
    record: dict[str, Any]
    _folder: RunFolder

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs that have snapshots, counted from 1."""
        return self.epochs_of("student")

    def epochs_of(self, role: str) -> tuple[int, ...]:
        """Return the epochs that have snapshots of a network; averaging may begin late.

        Raises
        ------
        UnknownNameError
            If the run has no such network.
        """
        return tuple(self._snapshots(role))

    @property
    def training_seconds(self) -> float:
        """Wall time of its epochs, whenever they were trained."""
        return float(sum(epoch["seconds"] for epoch in self.record["history"]))

    def snapshot(self, role: str = "student", epoch: int | None = None) -> Snapshot:
        """Return a network's snapshot.

        Parameters
        ----------
        role : "student", "peer" or "student_averaged".
        epoch : counted from 1; None: the last.

        Raises
        ------
        UnknownNameError
            If the run has no such network.
        ValueError
            If there is no snapshot of that epoch.
        """
        snapshots = self._snapshots(role)
        epoch = max(snapshots) if epoch is None else epoch
        if epoch not in snapshots:
            raise ValueError(
                f"{self.spec} has no snapshot of its {role} at epoch {epoch}; it has them at "
                f"{', '.join(map(str, sorted(snapshots)))}."
            )
        return Snapshot(self.spec, role, epoch, snapshots[epoch], self._folder)

    def _snapshots(self, role: str) -> dict[int, str]:
        by_role: dict[str, dict[int, str]] = self.record["snapshots"]
        return by_role[checks.one_of(f"network of {self.spec}", role, by_role)]


@dataclass(frozen=True)
class Measurement:
    """A number of images put to networks, adversarially or not.

    Attributes
    ----------
    attack : None: natural images.
    attacked : the network attacked, as `models.build` takes it.
    judges : those that answer, likewise.
    dataset : the data.
    n : how many images.
    """

    attack: attacks.Attack | None
    attacked: str
    judges: tuple[str, ...]
    dataset: str
    n: int


@dataclass
class Asked:
    """What was asked for while nothing was done; see :func:`only_asked`.

    Attributes
    ----------
    runs : by specification, teachers first, how many of its epochs are in the store.
    measurements : those whose answers are not in the store, each once.
    guesses : how often an answer was asked for that is not known yet.
    cut_short : whether a network itself was needed, so that nobody knows what would have been asked for after that.
    """

    runs: dict[RunSpec, int] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    guesses: int = 0
    cut_short: bool = False
    _noted: set[str] = field(default_factory=set)

    def note(
        self,
        judges: Mapping[str, Snapshot],
        split: data.Split,
        attack: attacks.Attack | None,
        attacked: Snapshot,
    ) -> None:
        """Note what judges, by what their question is known by, would be asked; what comes again is asked once."""
        self.guesses += 1
        new = tuple(judge.architecture for question, judge in judges.items() if question not in self._noted)
        self._noted |= judges.keys()
        if new:
            dataset = attacked.spec.dataset
            self.measurements.append(Measurement(attack, attacked.architecture, new, dataset, len(split)))


class NeedsNetworkError(RuntimeError):
    """A network's weights are wanted where it was only asked what there is to do."""


_ASKED: ContextVar[Asked | None] = ContextVar("asked", default=None)


@contextmanager
def only_asked() -> Iterator[Asked]:
    """Hold a context in which nothing is trained, measured or written: it is noted what is asked for.

    A run that is not in the store is answered by one that has made-up digests, a measurement by zeros; where those
    would choose an epoch, it is the last.
    """
    asked = Asked()
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


_FOREIGN: dict[tuple[str, str], nn.Module] = {}


def foreign_teacher(module: nn.Module, name: str, slot: str = "T", weight: float = 1.0) -> Teacher:
    """Let any network be a fixed teacher, for `RunSpec.teachers`.

    Its name, structure and weights are the run's identity (:func:`interchange.digest_of_module`): two modules that
    differ in something else need different names. The weights are not kept in the store, so a process that trains
    such a run (or goes on with one) calls this first. A finished run no longer needs it.

    Parameters
    ----------
    module : (N, C, H, W) float32 in [0, 1] -> (N, classes) logits; it is copied.
    name : what to call it.
    slot, weight : as `Snapshot.as_teacher`.

    Raises
    ------
    ValueError
        If the module has no weights to be known by.
    """
    digest = digest_of_module(module)
    _FOREIGN[name, digest] = copy.deepcopy(module).eval()
    return Teacher(module=name, digest=digest, slot=slot, weight=weight)


def ensure(spec: RunSpec, store: Store | None = None, device: torch.device | str | None = None) -> Run:
    """Return the finished run of a specification; train it first where it is not in the store.

    A training that was interrupted goes on from its last finished epoch, to the same bits. If another process is
    training the same run, this one waits for it and uses its result. Teachers that are runs are ensured, too.

    Parameters
    ----------
    spec : what to train.
    store : where; None: the default one.
    device : on what; None: :func:`default_device`.

    Raises
    ------
    DataNotFoundError
        If the data are not there.
    StoreError
        If the store cannot be read or written, a file is damaged (:class:`DamagedFileError`), or the run in the store
        was trained on other data than are found now.
    ValueError
        If a teacher is not there (its epoch has no snapshot, its module was not given) or does not fit the data.
    DivergedError
        If the loss becomes NaN or infinite.
    """
    store = store or Store()
    dataset, extra = _inputs(spec)
    folder = store.run_folder(spec)
    record = _read_record(folder, spec, dataset, extra)
    asked = _ASKED.get()
    if asked is not None:
        finished = 0 if record is None else int(record["finished"])
        if record is None or finished < spec.epochs:
            record = _made_up(spec, record or {"snapshots": {}, "history": []}, store)
        asked.runs[spec] = finished
        return Run(spec, record, folder)
    if record is None or record["finished"] < spec.epochs:
        dataset.split_validation(spec.n_train, spec.n_val)  # refuses sizes that do not fit before a teacher is trained
        on = torch.device(device or default_device())
        teachers = [_teacher(teacher, store, on) for teacher in spec.teachers]
        with folder.lock(lambda: say(f"Another process is training {spec}; waiting for it to finish.")):
            record = _train(folder, spec, dataset, extra, on, teachers)
    return Run(spec, record, folder)


def ensure_all(
    *groups: Sequence[RunSpec], store: Store | None = None, device: torch.device | str | None = None
) -> list[list[Run]]:
    """Return the finished runs of several groups of specifications, saying first what is to be trained.

    Parameters and errors are those of :func:`ensure`; a specification that comes twice, or is another's teacher, is
    trained once.

    Returns
    -------
    One list of runs a group, in the groups' order.
    """
    store = store or Store()
    wanted = list(dict.fromkeys(run for group in groups for spec in group for run in (*_teacher_runs(spec), spec)))
    finished = {spec: _finished_epochs(spec, store) for spec in wanted}
    missing = [spec for spec in wanted if finished[spec] < spec.epochs]
    say(f"Trained networks needed: {len(wanted)}, in the store: {len(wanted) - len(missing)}, to train: {len(missing)}")
    for spec in missing:
        steps = data.batches_per_epoch(spec.n_train or len(data.load(spec.dataset).train) - spec.n_val, spec.batch_size)
        replayed = dict(spec.settings).get("m")
        attack = f", with {spec.attack_steps} attack steps in each" if spec.attack_steps else ""
        attack = f", each replayed {replayed:g} times" if replayed else attack
        begun = f", going on after epoch {finished[spec]}" if finished[spec] else ""
        say(f"  {spec}: {spec.epochs} epochs of {steps} steps{attack}{begun}")
    runs = {spec: ensure(spec, store, device) for spec in wanted}
    return [[runs[spec] for spec in group] for group in groups]


def correct_predictions(
    judges: Sequence[Snapshot],
    split: data.Split,
    attack: attacks.Attack | None = None,
    attacked: Snapshot | None = None,
    *,
    store: Store | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Say which images each of several snapshots classifies correctly; every answer is kept in the store.

    As :func:`evaluation.correct_predictions`, for snapshots. Only what is not in the store is measured.

    Parameters
    ----------
    judges : the snapshots to judge by.
    split : the images and labels to judge on.
    attack, attacked : as there.
    store, device : as :func:`ensure`.

    Returns
    -------
    (len(judges), len(split)) bool.
    """
    store = store or Store()
    attacked = attacked or judges[0]
    questions = [_question(judge, split, attack, attacked) for judge in judges]
    answers = [store.read_answer(question) for question in questions]
    missing = [i for i, answer in enumerate(answers) if answer is None]
    only = _ASKED.get()
    if missing and only is not None:
        only.note({digest_of(questions[i]): judges[i] for i in missing}, split, attack, attacked)
        answers = [bytes(-(-len(split) // 8)).hex() if answer is None else answer for answer in answers]
    elif missing:
        here = environment(torch.device(device or default_device()))
        networks = {snapshot.digest: snapshot.load(device) for snapshot in (attacked, *(judges[i] for i in missing))}
        # AutoAttack and Square judge the network they attack batch by batch, and go on where they were stopped
        target, measured = networks[attacked.digest], {}
        if isinstance(attack, autoattack.Packaged):
            staged = [i for i in missing if judges[i].digest == attacked.digest]
            measured = {i: _withstands(attack, target, split, store, questions[i]) for i in staged}
        others = [i for i in missing if i not in measured]
        if others:
            asked = [networks[judges[i].digest] for i in others]
            found = evaluation.correct_predictions(asked, split.images, split.labels, attack, target)
            measured |= dict(zip(others, found, strict=True))
        for i, correct in measured.items():
            answers[i] = np.packbits(correct.numpy()).tobytes().hex()
            store.write_answer(questions[i], answers[i], here)
            store.forget_answer(_unfinished(questions[i]))
    rows = [np.unpackbits(np.frombuffer(bytes.fromhex(a), np.uint8), count=len(split)) for a in answers]
    return torch.from_numpy(np.stack(rows)).bool()


def per_image(
    quantity: str,
    snapshot: Snapshot,
    split: data.Split,
    attack: attacks.Attack | None = None,
    *,
    store: Store | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Measure something of a snapshot's answer to each image; every answer is kept in the store.

    Parameters
    ----------
    quantity, attack : as :func:`evaluation.per_image`.
    snapshot : of a run; it is attacked itself.
    split : the images and labels.
    store, device : as :func:`ensure`.

    Returns
    -------
    (len(split),) float32, in nats.

    Raises
    ------
    UnknownNameError
        If `quantity` is not known.
    """
    checks.one_of("quantity", quantity, evaluation.QUANTITIES)
    question = {**_question(snapshot, split, attack, snapshot), "question": quantity}

    def measure() -> str:
        values = evaluation.per_image(quantity, snapshot.load(device), split.images, split.labels, attack)
        return values.numpy().astype("<f4").tobytes().hex()

    needs = [(snapshot, attack, snapshot)]
    answer = kept_answer(question, measure, split, needs, bytes(4 * len(split)).hex(), store=store, device=device)
    return torch.from_numpy(np.frombuffer(bytes.fromhex(answer), "<f4").astype(np.float32))


def kept_answer(
    question: dict[str, Any],
    measure: Callable[[], Any],
    split: data.Split,
    needs: Sequence[tuple[Snapshot, attacks.Attack | None, Snapshot]],
    made_up: Any,
    *,
    store: Store | None = None,
    device: torch.device | str | None = None,
) -> Any:
    """Return an answer from the store; measure it and put it there first where it is not.

    Parameters
    ----------
    question : all that the answer depends on, as plain JSON values.
    measure : finds the answer, plain JSON values, too.
    split : the images that are measured on.
    needs : what `measure` does, for :func:`only_asked`: who is asked about the whole split, under which attack on whom.
    made_up : an answer of that form, for :func:`only_asked`.
    store, device : as :func:`ensure`.
    """
    store = store or Store()
    answer = store.read_answer(question)
    if answer is not None:
        return answer
    asked = _ASKED.get()
    if asked is not None:
        known_by = digest_of(question)
        for i, (judge, attack, attacked) in enumerate(needs):
            asked.note({f"{known_by} {i}": judge}, split, attack, attacked)
        return made_up
    answer = measure()
    store.write_answer(question, answer, environment(torch.device(device or default_device())))
    return answer


def evaluate(
    snapshot: Snapshot,
    split: data.Split,
    by: Mapping[str, attacks.Attack | None],
    *,
    n: int | Mapping[str, int | None] | None = None,
    store: Store | None = None,
    device: torch.device | str | None = None,
) -> evaluation.Evaluation:
    """Measure a snapshot naturally and under attacks; every answer is kept in the store.

    Parameters
    ----------
    snapshot : of a run.
    split : the images, usually a dataset's `test`.
    by : attacks by metric, None for natural images; `evaluation.standard_attacks` makes the usual ones.
    n : the first so many images only, for all metrics or by metric; None: all.
    store, device : as :func:`ensure`.

    Raises
    ------
    UnknownNameError
        If `n` names a metric that is not in `by`.
    """
    limits = n if isinstance(n, Mapping) else dict.fromkeys(by, n)
    for metric, limit in limits.items():
        checks.one_of("metric", metric, by)
        if limit is not None:
            checks.number(f"n of {metric}", limit, 1, len(split))
    return evaluation.Evaluation(
        {
            metric: correct_predictions(
                [snapshot], split.take(slice(0, limits.get(metric))), attack, store=store, device=device
            )[0]
            for metric, attack in by.items()
        }
    )


def select(
    run: Run,
    on: str,
    attack: attacks.Attack | None,
    *,
    role: str = "student",
    n: int | None = None,
    store: Store | None = None,
    device: torch.device | str | None = None,
) -> Snapshot:
    """Return the snapshot that a paper would report.

    Parameters
    ----------
    run : a finished run.
    on : "val": the highest robust accuracy on the held-out images; "test": on the test images, as the released codes
        do; "last": simply the last. The earliest of several equals is taken.
    attack : the attack that decides; the papers use PGD-10. None: natural images.
    role : which network: "student", "student_averaged" or "peer".
    n : only the first so many test images, for "test".
    store, device : as :func:`ensure`.

    Raises
    ------
    UnknownNameError
        If `on` is another.
    ValueError
        If nothing was held out and `on` is "val".
    """
    if checks.one_of("selection", on, SELECTIONS) == "last":
        return run.snapshot(role)
    dataset = data.load(run.spec.dataset)
    split = dataset.test.take(slice(0, n))
    if on == "val":
        split = dataset.split_validation(run.spec.n_train, run.spec.n_val)[1]
        if len(split) == 0:
            raise ValueError(f"{run.spec} held out no images: set n_val, or select on 'last'.")
    snapshots = [run.snapshot(role, epoch) for epoch in run.epochs_of(role)]
    asked = _ASKED.get()
    guesses = None if asked is None else asked.guesses
    hits = [
        int(correct_predictions([s], split, attack, store=store, device=device).sum())
        for s in track(snapshots, desc=f"Choosing the epoch of {run.spec}", unit="snapshot")
    ]
    if asked is not None and asked.guesses != guesses:
        return snapshots[-1]
    return snapshots[int(np.argmax(hits))]


def _withstands(
    attack: autoattack.Packaged, network: nn.Module, split: data.Split, store: Store, question: dict[str, Any]
) -> Tensor:
    """Say which images withstand a costly attack, keeping in the store how far it got."""
    unfinished = _unfinished(question)
    with track(total=len(split), desc=str(attack), unit="image", leave=False) as bar:

        def keep(progress: list[int]) -> None:
            store.write_answer(unfinished, progress, {})
            withstood = np.asarray(progress)
            bar.set_description(f"{attack}, part {max(withstood.max(), 1)}", refresh=False)
            bar.n = int(((withstood == autoattack.FOOLED) | (withstood == withstood.max())).sum())
            bar.refresh()

        images = data.to_float(split.images)
        with evaluation.prepared(network, attack, images) as prepared:
            return attack.correct(prepared, images, split.labels, store.read_answer(unfinished), keep)


def _unfinished(question: dict[str, Any]) -> dict[str, Any]:
    return {**question, "unfinished": True}


def _question(judge: Snapshot, split: data.Split, attack: attacks.Attack | None, attacked: Snapshot) -> dict[str, Any]:
    return {
        "engine": EVALUATION_ENGINE,
        "question": "correct predictions",
        "judge": judge.digest,
        "attack": None if attack is None else attack.identity(),
        "attacked": None if attack is None else attacked.digest,
        "data": split.digest,
        "n": len(split),
    }


def _snapshot_name(role: str, epoch: int) -> str:
    return f"{role}-{epoch:04d}.safetensors"


def _teacher_runs(spec: RunSpec) -> Iterator[RunSpec]:
    for teacher in spec.teachers:
        if teacher.run is not None:
            yield from _teacher_runs(teacher.run)
            yield teacher.run


def _teacher(teacher: Teacher, store: Store, device: torch.device) -> tuple[str, nn.Module]:
    """Return the digest and the network of a teacher."""
    if teacher.run is not None:
        snapshot = ensure(teacher.run, store, device).snapshot(teacher.role, teacher.epoch)
        return snapshot.digest, snapshot.load(device)
    if (teacher.module, teacher.digest) not in _FOREIGN:
        raise ValueError(
            f"The teacher {teacher.module!r} is a module from elsewhere, which this process was not given: call "
            f"runs.foreign_teacher(module, {teacher.module!r}) before; its weights must have digest {teacher.digest}."
        )
    return teacher.digest, copy.deepcopy(_FOREIGN[teacher.module, teacher.digest]).to(device)


def _finished_epochs(spec: RunSpec, store: Store) -> int:
    record = _read_record(store.run_folder(spec), spec, *_inputs(spec))
    return 0 if record is None else int(record["finished"])


def _inputs(spec: RunSpec) -> tuple[data.Dataset, data.Split | None]:
    """Return the data and the extra images of a run."""
    dataset = data.load(spec.dataset)
    return dataset, data.load_extra(spec.extra, dataset) if spec.extra else None


def _read_record(
    folder: RunFolder, spec: RunSpec, dataset: data.Dataset, extra: data.Split | None
) -> dict[str, Any] | None:
    record = folder.read_record()
    if record is None:
        return None
    if record["spec"] != spec.to_json():
        raise StoreError(f"{folder.path} holds another run than its name says: {record['spec']}. Delete or rename it.")
    if dataset.source != data.BLANK and record["data"]["digest"] != dataset.digest:
        raise StoreError(
            f"{folder.path} was trained on other data than are found now: {record['data']['source']} then "
            f"(digest {record['data']['digest']}), {dataset.source} now ({dataset.digest}). Set RKDKIT_STORE to "
            "another folder for the data found now, or delete that folder to train anew."
        )
    if record["data"]["extra"] != (extra.digest if extra else None):
        raise StoreError(
            f"{folder.path} was trained with other extra images than {spec.extra} holds now. Delete that folder to "
            "train anew."
        )
    # JSON has text keys only
    record["snapshots"] = {
        role: {int(epoch): digest for epoch, digest in by_epoch.items()}
        for role, by_epoch in record["snapshots"].items()
    }
    return record


def _made_up(spec: RunSpec, record: dict[str, Any], store: Store) -> dict[str, Any]:
    """Return an unfinished run's record as if it were finished, with made-up digests for what is not there."""
    snapshots: dict[str, dict[int, str]] = {}
    for epoch in filter(spec.has_snapshot, range(1, spec.epochs + 1)):
        for role in spec.roles_at(epoch):
            known = record["snapshots"].get(role, {})
            snapshots.setdefault(role, {})[epoch] = known.get(epoch, f"{role} of {spec.id} at epoch {epoch}")
    guided_by = [
        ensure(t.run, store).snapshot(t.role, t.epoch).digest if t.run is not None else t.digest for t in spec.teachers
    ]
    return {**record, "snapshots": snapshots, "guided_by": guided_by, "environments": []}


def _train(
    folder: RunFolder,
    spec: RunSpec,
    dataset: data.Dataset,
    extra: data.Split | None,
    device: torch.device,
    teachers: Sequence[tuple[str, nn.Module]],
) -> dict[str, Any]:
    # another process may have finished it while this one waited for the lock
    record = _read_record(folder, spec, dataset, extra)
    if record is not None and record["finished"] == spec.epochs:
        return record
    guided_by = [digest for digest, _ in teachers]
    loop = training.Training(spec, dataset, device, [network for _, network in teachers], extra)
    if record is None:
        record = {
            "spec": spec.to_json(),
            "id": spec.id,
            "data": {"digest": dataset.digest, "source": dataset.source, "extra": extra.digest if extra else None},
            "guided_by": guided_by,
            "environments": [],
            "finished": 0,
            "state": None,
            "snapshots": {role: {} for role in methods.get(spec.method).roles},
            "history": [],
        }
        folder.write_record(record)
    elif record["guided_by"] != guided_by:
        raise StoreError(
            f"{folder.path} was begun with other teachers than are found now. Delete that folder to train anew."
        )
    here = {**environment(device), "compiled": loop.compiled}
    if here not in record["environments"]:
        record["environments"].append(here)
    if record["state"]:
        loop.load_state(folder.read_tensors(**record["state"]), record["finished"])
    folder.tidy(keep={record["state"]["name"]} if record["state"] else set())
    steps = loop.batches_per_epoch
    with track(
        desc=str(spec), unit="step", total=spec.epochs * steps, initial=loop.epoch * steps, smoothing=0.05
    ) as bar:
        while loop.epoch < spec.epochs:
            started = time.perf_counter()
            report = loop.run_epoch(bar.update)
            _keep(folder, spec, loop, record, report, time.perf_counter() - started)
            bar.set_postfix(loss=f"{report.loss:.3f}")
    return record


def _keep(
    folder: RunFolder,
    spec: RunSpec,
    loop: training.Training,
    record: dict[str, Any],
    report: training.EpochReport,
    seconds: float,
) -> None:
    """Put a finished epoch into the store: first the files, then the record that names them."""
    epoch, last = report.epoch, report.epoch == spec.epochs
    if spec.has_snapshot(epoch):
        for role, weights in loop.weights().items():
            digest = folder.write_tensors(_snapshot_name(role, epoch), weights)
            record["snapshots"].setdefault(role, {})[epoch] = digest
    record["state"] = None
    if not last:
        name = f"state-{epoch:04d}.safetensors"
        record["state"] = {"name": name, "digest": folder.write_tensors(name, loop.state())}
    record["finished"] = epoch
    record["history"].append({**asdict(report), "seconds": seconds})
    folder.write_record(record)
    folder.tidy(keep={record["state"]["name"]} if record["state"] else set())
