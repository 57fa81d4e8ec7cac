"""The files that a mirror may have, and what each must hold: the record of a finished run, and an answer."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkdkit.forms import has_form_of
from rkdkit.mirror import Mirror, Wanted, mark_origin
from rkdkit.origin import origin_of
from rkdkit.progress import say
from rkdkit.records import is_record, of_today
from rkdkit.references import epochs_of
from rkdkit.spec import RunSpec
from rkdkit.store import RunFolder, write_atomically

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class WantedRecord(Wanted):
    """The record of a run that is not in the store.

    Attributes
    ----------
    spec : the run.
    folder : its folder in the store.
    data : the digest of its dataset as it is found here.
    extra : the digest of its further images as they are found here; None: it has none.
    teachers : for each of its teachers, the digest of the network that is here, and the folder of its run; None: it is
        a module from elsewhere, whose digest is part of the specification.
    """

    spec: RunSpec
    folder: RunFolder
    data: str
    extra: str | None
    teachers: tuple[tuple[str | None, Path | None], ...]

    @property
    def path(self) -> Path:
        """As :attr:`Wanted.path`."""
        return self.folder.path / "run.json"

    def fits(self, content: Any, mirror: Mirror) -> bool:
        """As :meth:`Wanted.fits`: not, if other networks than those in the store guided the run."""
        check_record(content, self.spec)
        for what, then, now in (
            ("data", content["data"]["digest"], self.data),
            ("further images", content["data"]["extra"], self.extra),
        ):
            if then != now:
                raise ValueError(f"was trained on other {what} (digest {then}) than are found here (digest {now})")
        mirror.check_named(self.spec.id, content["snapshots"])
        guides = zip(self.teachers, content["guided_by"], strict=True)
        others = [folder for (digest, folder), then in guides if digest != then]
        if others and all(folder is None or origin_of(folder) == mirror.url for folder in others):
            raise ValueError("names other teachers than its specification and their own records at this mirror")
        if others:
            say(
                f"The mirror {mirror.url} has {self.spec}, but its teacher was another network than the one that is "
                "here, so it is trained here."
            )
        return not others

    def keep(self, content: bytes, mirror: Mirror) -> None:
        """As :meth:`Wanted.keep`, unless another process began to train the run meanwhile."""
        with self.folder.lock(lambda: say(f"Another process is training {self.spec}; waiting for it to finish.")):
            if self.folder.read_record() is None:
                mark_origin(self.folder.path, content, mirror)
                write_atomically(self.path, content)


@dataclass(frozen=True)
class WantedAnswer(Wanted):
    """An answer that is not in the store.

    Attributes
    ----------
    file : where it belongs in the store.
    question : what was asked, as JSON values.
    value : an answer as it is stored -> the answer as callers get it.
    placeholder : returns an answer of the right form.
    """

    file: Path
    question: dict[str, Any]
    value: Callable[[Any], Any]
    placeholder: Callable[[], Any]

    @property
    def path(self) -> Path:
        """As :attr:`Wanted.path`."""
        return self.file

    def fits(self, content: Any, mirror: Mirror) -> bool:
        """As :meth:`Wanted.fits`: always, if it is an answer to the question."""
        del mirror
        if not _has_keys(content, ("question", "answer", "measured_with")):
            raise ValueError("holds no answer")
        if content["question"] != json.loads(json.dumps(self.question)):
            raise ValueError("is the answer to another question")
        if not isinstance(content["measured_with"], dict):
            raise ValueError("does not say with which versions it was measured")
        form = self.placeholder()
        try:
            value = self.value(content["answer"])
        except Exception as error:  # whatever it holds instead
            raise ValueError(f"holds an answer that cannot be read ({type(error).__name__})") from error
        if not has_form_of(value, form):
            raise ValueError("holds an answer of another form than was asked for")
        return True

    def keep(self, content: bytes, mirror: Mirror) -> None:
        """As :meth:`Wanted.keep`."""
        del mirror
        write_atomically(self.file, content)


def check_record(record: Any, spec: RunSpec) -> None:
    """Refuse what is not the record of a finished training.

    Parameters
    ----------
    record : any JSON value.
    spec : what was trained.

    Raises
    ------
    ValueError
        As :meth:`Wanted.fits`.
    """
    if not isinstance(record, dict):
        raise ValueError("holds no record of a run")
    if record.get("spec") != spec.to_json() or record.get("id") != spec.id:
        raise ValueError(f"is the record of another run than {spec} ({spec.id})")
    if record.get("finished") != spec.epochs:
        raise ValueError(f"is the record of a training that is not finished ({spec.epochs} epochs)")
    if record.get("state") or record.get("states"):
        raise ValueError("names states, which only an unfinished training has")
    snapshots: Any = record.get("snapshots")
    roles = {role: {str(epoch) for epoch in epochs_of(spec, role)} for role in spec.roles_at(spec.epochs)}
    if not _has_keys(snapshots, roles) or not all(_has_keys(snapshots[role], roles[role]) for role in roles):
        raise ValueError("does not name the networks that this run has, with their epochs")
    if not all(_is_digest(digest) for by_epoch in snapshots.values() for digest in by_epoch.values()):
        raise ValueError("names a network without its SHA-256")
    data: Any = record.get("data")
    if not _has_keys(data, ("digest", "source", "extra")) or not all(map(_is_text, (data["digest"], data["source"]))):
        raise ValueError("does not say on which data the run was trained")
    guides: Any = record.get("guided_by")
    if not _is_list(guides, _is_text) or len(guides) != len(spec.teachers):
        raise ValueError("does not name the digests of the run's teachers")
    history: Any = record.get("history")
    if not _is_list(history, _is_report) or [report["epoch"] for report in history] != [*range(1, spec.epochs + 1)]:
        raise ValueError("does not hold the history of all epochs")
    environments = record.get("environments")
    if not _is_list(environments, _is_environment) or not environments:
        raise ValueError("does not say on which device the run was trained")
    if not is_record(of_today(record)):
        raise ValueError("holds no record of a run")


def _has_keys(value: Any, keys: Collection[str]) -> bool:
    return isinstance(value, dict) and value.keys() == set(keys)


def _is_list(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(each, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_digest(value: Any) -> bool:
    return _is_text(value) and _DIGEST.fullmatch(value) is not None


def _is_report(value: Any) -> bool:
    """Return whether a value is what is kept of an epoch: its number, mean loss, learning rate and seconds."""
    return isinstance(value, dict) and all(
        type(value.get(name)) in (int, float) and abs(value[name]) < 1e300
        for name in ("epoch", "loss", "lr", "seconds")
    )


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("device"))
