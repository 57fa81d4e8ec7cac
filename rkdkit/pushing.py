"""Put what exhibits rest on into a mirror: records, networks and answers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rkdkit import fetching, files, mirror
from rkdkit.drawing import Notebook
from rkdkit.measurements import Measurement
from rkdkit.mirror import Mirror, MirrorError
from rkdkit.plan import Planner, ask
from rkdkit.plan.ask import parts_of
from rkdkit.progress import say, track
from rkdkit.references import Snapshot
from rkdkit.saved import ExhibitFilesError, command_of, read_exhibit
from rkdkit.spec import RunSpec
from rkdkit.store import StoreError
from rkdkit.tasks import Context
from rkdkit.wanted import check_record

AT_ONCE = 4
"""How many files are read, compared and sent at once; each is in memory meanwhile."""

_Read = Callable[[], bytes]


class NotMadeError(RuntimeError):
    """An exhibit is not made, or its JSON does not go with the store; the message says what to do."""


@dataclass
class Contents:
    """What exhibits rest on.

    Attributes
    ----------
    networks : the digests of networks, by run, role and epoch; teachers come before their students.
    answers : the files of answers in the store.
    """

    networks: dict[RunSpec, dict[tuple[str, str], str]] = field(default_factory=dict)
    answers: dict[Path, None] = field(default_factory=dict)


@dataclass
class Sent:
    """What came of it.

    Attributes
    ----------
    files, bytes : what was sent.
    files_there, bytes_there : what was there already with the same content.
    """

    files: int = 0
    bytes: int = 0
    files_there: int = 0
    bytes_there: int = 0

    def __str__(self) -> str:
        return (
            f"{self.files:,} files ({self.bytes / 2**20:.1f} MiB) sent; {self.files_there:,} "
            f"({self.bytes_there / 2**20:.1f} MiB) were there already"
        )


def contents_of(notebook: Notebook, file: Path, contents: Contents) -> None:
    """Add what an exhibit rests on: the networks that its JSON names, and the answers that its notebook asks for.

    Parameters
    ----------
    notebook : the exhibit and the parameters that it was made with.
    file : its JSON.
    contents : it is added here.

    Raises
    ------
    NotMadeError
        If the exhibit is not made, was made from other runs than the notebook asks for, or from other networks than
        are in the store.
    StoreError
        If the store cannot be read.
    Exception
        Whatever the notebook raises.
    """
    parameters = {**notebook.parameters, **notebook.more}
    parameters.pop("more", None)
    asked_for = {"exhibit": notebook.name, "profile": parameters.pop("profile", "quick"), "overrides": parameters}
    make = f"make it with `{command_of(file, asked_for)}`"
    if not file.exists():  # whose parameters only the caller knows
        raise NotMadeError(f"{notebook.name}: {file} is not there: {make}.")
    try:
        summary = read_exhibit(file)
        made_from = {run["id"] for run in summary["provenance"]["runs"]}
        networks = [*summary["networks"], *summary["teachers"]]
    except ExhibitFilesError as error:
        raise NotMadeError(f"{notebook.name}: {error}") from error
    except (KeyError, TypeError) as error:
        raise NotMadeError(f"{notebook.name}: {file} cannot be read ({error}): {make}.") from error
    planner = Planner()
    asked = planner.listen()
    for note in ask(planner, notebook.path, notebook.parameters):
        say(f"{notebook.name}: {note}")
    if planner.missing:
        raise NotMadeError(
            f"{notebook.name}: {len(planner.missing)} of the trainings and measurements that it rests on are not in "
            f"the store: {make}."
        )
    specs = {task.spec.id: task.spec for task in planner.trainings}
    if made_from != set(specs):
        raise NotMadeError(
            f"{notebook.name}: {file} was made from other runs than the notebook asks for with these parameters: give "
            f"the parameters that it was made with, or {make}."
        )
    for spec in specs.values():
        contents.networks.setdefault(spec, {})
    context = planner.context
    for network in networks:
        spec, role = specs[network["run"]], network["role"]
        record = context.record(spec) or {}
        for epoch, digest in network["sha256_by_epoch"].items():
            if record["snapshots"].get(role, {}).get(epoch) != digest:
                raise NotMadeError(
                    f"{notebook.name}: {file} was made from another {role} of {spec} than is in the store now: {make}."
                )
            contents.networks[spec][role, epoch] = digest
    for task in asked.tasks:
        if isinstance(task, Measurement):
            contents.answers |= dict.fromkeys(_files_of(task, context))


def push(contents: Contents, to: Mirror, context: Context, *, everything: bool = False) -> Sent:
    """Write to a mirror what exhibits rest on, records last, so that nobody finds a record without its networks.

    Parameters
    ----------
    contents : what they rest on.
    to : where it is written; what is there with the same content is not sent again.
    context : its store is read.
    everything : whether to write all networks of the runs (--all-snapshots), and not only those in `contents`.

    Raises
    ------
    MirrorError
        If the mirror cannot be written to, or holds another training of a run.
    StoreError
        If a file in the store is damaged.
    """
    to.check_writable()
    networks, records = dict[str, _Read](), dict[str, _Read]()
    for spec, named in contents.networks.items():
        folder, record = context.store.run_folder(spec).path, context.record(spec)
        content = _checked(folder / "run.json")
        try:
            check_record(record, spec)
        except ValueError as error:
            raise StoreError(f"{folder / 'run.json'} cannot be pushed: it {error}.") from error
        assert record is not None
        path = f"runs/{folder.name}/run.json"
        if to.read(path) not in (None, content):
            raise MirrorError(
                f"{to.address(path)} is of another training of {spec} than the one in the store, or is damaged. Push "
                "to another address, or delete that run's folder there first."
            )
        records[path] = partial(_checked, folder / "run.json")
        digests = named
        if everything:
            digests = {(role, e): digest for role, each in record["snapshots"].items() for e, digest in each.items()}
        for (role, epoch), digest in digests.items():
            file = folder / Snapshot(spec, role, int(epoch)).file
            networks[f"runs/{folder.name}/{file.name}"] = partial(_network, file, digest)
    answers = {f"answers/{file.name}": partial(_checked, file) for file in contents.answers}
    sent = Sent()
    _send(networks, "Networks", to, sent)
    _send(answers, "Answers", to, sent, is_there=_is_same_answer)
    _send(records, "Records", to, sent, at_once=1)  # a student's after those of its teachers
    return sent


def _files_of(task: Measurement, context: Context) -> Sequence[Path]:
    """Return the files of a measurement's answers in the store."""
    parts = [part for part in parts_of(task) if isinstance(part, Measurement)]
    questions = [part.question_in(context) for part in parts]
    return [context.store.answer_path(question) for question in questions if question is not None]


def _send(
    contents: Mapping[str, _Read],
    what: str,
    to: Mirror,
    sent: Sent,
    at_once: int = AT_ONCE,
    is_there: Callable[[str, bytes, Mirror], bool] = lambda *_: False,
) -> None:
    """Write files unless they are there, and count them; each is read when it is its turn.

    To a hub, one goes after the other: each is a commit there, and it may refuse one that another has overtaken.
    """
    at_once = 1 if to.url.startswith("hf:") else at_once

    def send(item: tuple[str, _Read]) -> tuple[bool, int]:
        path, content = item[0], item[1]()
        return not is_there(path, content, to) and to.put(path, content), len(content)

    with ThreadPoolExecutor(at_once) as pool:
        done: Any = pool.map(send, contents.items())
        for new, size in track(done, total=len(contents), desc=what, unit="file", leave=False):
            if new:
                sent.files, sent.bytes = sent.files + 1, sent.bytes + size
            else:
                sent.files_there, sent.bytes_there = sent.files_there + 1, sent.bytes_there + size


def _is_same_answer(path: str, content: bytes, to: Mirror) -> bool:
    """Return whether a mirror has the same answer, whoever measured it; refuse another answer to the same question."""
    there = to.read(path)
    if there is None:
        return False
    try:
        found = mirror.content_of(there)
    except ValueError:  # damaged: it is replaced
        return False
    if found["answer"] == mirror.content_of(content)["answer"]:
        return True
    raise MirrorError(
        f"{to.address(path)} is another answer to the same question than the one in the store: it was measured with "
        "other versions or on another device. Push to another address, or delete that file there first."
    )


def _checked(file: Path) -> bytes:
    """Return the content of a JSON file of the store, which matches its digest."""
    try:
        content = files.read(file)
        mirror.content_of(content)
        return content
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be pushed: {error}.") from error


def _network(file: Path, digest: str) -> bytes:
    """Return the content of a snapshot; a run that was fetched may not have it here yet."""
    fetching.restore(file, digest)
    try:
        content = files.read(file)
    except FileNotFoundError:
        raise StoreError(
            f"{file} is not there any more (`rkdkit runs prune --snapshots` frees such files). If --all-snapshots was "
            f"given, push without it; otherwise delete the folder {file.parent}, and train that run again."
        ) from None
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}.") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise StoreError(f"{file} is damaged: it does not match its digest. It is not pushed.")
    return content
