"""The store on disk: files are written whole or not at all, digests detect damage, locks end with their process.

Layout below the root (`paths.store_folder`)::

    runs/<method>-<dataset>-<network>-seed<n>-<id>/
        run.json                          the specification, the finished epochs, every file's digest
        student-0001.safetensors ...      the snapshots, one per role and epoch
        state-0007.safetensors ...        the states after the last two epochs, until the run is finished
    locks/<id>.lock                       held by the process that trains the run, whatever becomes of its folder
    answers/<id>.json                     results of evaluations, by question
    marks/<name>                          while a cluster works for it: how workers tell that they see this store

All files are safetensors or JSON, so reading them cannot run code.
"""

import errno
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

from rkdkit import files, paths, records
from rkdkit.spec import RunSpec, canonical_json, digest_of

REMEASURE = "Delete {} and repeat the command: it is then measured again."
"""What to do about a wrong answer; to be formatted with its file."""


PASSING = (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, getattr(errno, "ESTALE", -1))
"""The errors after which a file may be read again: it is not taken for damaged."""


class StoreError(RuntimeError):
    """The store cannot be read or written as needed; the message says why and what to do."""


class DamagedFileError(StoreError):
    """A file is missing or does not match its digest; the message names it, and it is not used."""


def _for_now(path: Path, error: OSError) -> str:
    return f"{path} cannot be read now: {error.strerror or error}. Repeat the command when it can."


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as :func:`files.write_atomically` does; if it cannot be written, say what to do.

    Raises
    ------
    StoreError
        If it cannot be written (a full disk, an unwritable folder); an earlier version of the file is intact.
    """
    try:
        files.write_atomically(path, content)
    except OSError as error:
        raise StoreError(
            f"Could not write {path} ({len(content) / 2**20:.1f} MiB): {error.strerror or error}. Whatever was "
            "finished before is intact. Free some space or make the folder writable (RKDKIT_STORE names another "
            "for trained runs), then repeat the command: it continues where it stopped."
        ) from error


def write_json(path: Path, value: Any) -> Any:
    """Write a JSON value with its own digest, atomically; return it as :func:`read_json` will."""
    content = json_bytes(value)
    write_atomically(path, content)
    return json.loads(content)["content"]


def json_bytes(value: Any) -> bytes:
    """Return what :func:`write_json` writes."""
    value = json.loads(json.dumps(value, allow_nan=False))  # as it will be read: JSON has text keys and no tuples
    text = json.dumps({"digest": digest_of(value), "content": value}, indent=1, allow_nan=False)
    return text.encode() + b"\n"


def read_json(path: Path, remedy: str) -> Any:
    """Return what :func:`write_json` wrote, or None if there is no such file.

    Parameters
    ----------
    path : the file.
    remedy : what to do about a damaged file, for the message.

    Raises
    ------
    DamagedFileError
        If the file does not match its digest.
    StoreError
        If it cannot be read.
    """
    try:
        text = files.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}. {remedy}") from error
    with suppress(ValueError, KeyError, TypeError, RecursionError):  # RecursionError: it nests too deeply
        wrapped = json.loads(text)
        if wrapped["digest"] == digest_of(wrapped["content"]):
            return wrapped["content"]
    raise DamagedFileError(f"{path} is damaged: it does not match its own digest. {remedy}")


class RunFolder:
    """One run's folder.

    Parameters
    ----------
    path : the folder; it need not exist.
    lock_file : the file that is locked by who trains the run; None: `lock` in the folder.
    """

    def __init__(self, path: Path, lock_file: Path | None = None) -> None:
        self.path = path
        self._lock_file = lock_file or path / "lock"
        self._remedy = f"Delete the folder {path} and repeat the command: that run is then trained again."
        self._written: Any = None

    def read_record(self) -> dict[str, Any] | None:
        """Return the run's record, in today's form; None: there is none.

        Raises
        ------
        DamagedFileError
            If it does not match its digest, or is no record of a run.
        StoreError
            If it cannot be read.
        """
        content = read_json(self.path / "run.json", self._remedy)
        if content is None:
            return None
        record: dict[str, Any] = records.of_today(content)
        if not records.is_record(record):
            raise DamagedFileError(f"{self.path / 'run.json'} is no record of a run. {self._remedy}")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the run's record; the files that it names become the run's content at that moment."""
        self._written = write_json(self.path / "run.json", record)

    def check_unchanged(self) -> None:
        """Refuse to go on if the record is another than this object wrote last: the run's folder was deleted, perhaps.

        Raises
        ------
        StoreError
            If it is another, or there is none.
        """
        try:
            found = self.read_record()
        except StoreError:
            found = None
        if found != self._written:
            raise StoreError(
                f"{self.path} was deleted or changed while the run was trained. Nothing more is written there. Repeat "
                "the command: it goes on from what is there."
            )

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> str:
        """Write tensors as safetensors and return the file's SHA-256 in hex."""
        content = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        write_atomically(self.path / name, content)
        return hashlib.sha256(content).hexdigest()

    def read_tensors(self, name: str, digest: str) -> dict[str, Tensor]:
        """Return the tensors of a file that has the given SHA-256.

        Raises
        ------
        DamagedFileError
            If the file is missing, truncated or altered, or cannot be read.
        """
        path = self.path / name
        try:
            content = files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedFileError(f"{path} is missing. {self._remedy}") from None
        except OSError as error:
            if error.errno in PASSING:
                raise StoreError(_for_now(path, error)) from error
            raise DamagedFileError(f"{path} cannot be read: {error.strerror or error}. {self._remedy}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedFileError(f"{path} is damaged: it does not match its digest. {self._remedy}")
        try:
            return safetensors.torch.load(content)
        except SafetensorError as error:
            raise DamagedFileError(f"{path} is not a safetensors file ({error}). {self._remedy}") from error

    def is_whole(self, name: str, digest: str) -> bool:
        """Return whether a file is there and has the given SHA-256.

        Raises
        ------
        StoreError
            If it cannot be read for a reason that may pass.
        """
        try:
            return hashlib.sha256(files.read(self.path / name)).hexdigest() == digest
        except OSError as error:
            if error.errno in PASSING:
                raise StoreError(_for_now(self.path / name, error)) from error
            return False

    def tidy(self, keep: set[str]) -> None:
        """Delete temporary files of a killed process, and states that are not in `keep`; the caller holds the lock."""
        for file in (*self.path.glob(".*.tmp"), *self.path.glob("state-*.safetensors")):
            if file.name not in keep:
                with suppress(OSError):  # a leftover that cannot be deleted does no harm
                    file.unlink(missing_ok=True)

    @contextmanager
    def lock(self, on_wait: Callable[[], object]) -> Iterator[None]:
        """Lock the run for this process; if another process holds the lock, call `on_wait` and wait for it.

        The lock is the operating system's, so it ends with the process that holds it, even if that process is killed.

        Raises
        ------
        StoreError
            If the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._lock_file, fallback_to_soft=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                on_wait()
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            if files.lacks_locks(error):
                raise StoreError(
                    f"The file system of {self._lock_file} has no locks that end with their process. Mount it with "
                    "flock, or set RKDKIT_STORE to a folder elsewhere."
                ) from error
            where, why = getattr(error, "filename", None) or self.path, getattr(error, "strerror", None) or error
            raise StoreError(
                f"{where} cannot be written to: {why}. Make it writable, or set RKDKIT_STORE to a folder that is."
            ) from error
        try:
            yield
        finally:
            lock.release()


class Store:
    """Everything trained and measured, below one folder.

    Parameters
    ----------
    root : the folder; None: `paths.store_folder`.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or paths.store_folder())

    def run_folder(self, spec: RunSpec) -> RunFolder:
        """Return the folder of a run, whether or not it exists."""
        name = f"{spec.method}-{spec.dataset}-{spec.student}-seed{spec.seed}"
        # some systems do not allow some characters in names, and a list of classes can be long
        folder = self.root / "runs" / f"{re.sub('[^A-Za-z0-9+.-]', '_', name[:80])}-{spec.id}"
        return RunFolder(folder, self.root / "locks" / f"{spec.id}.lock")

    @contextmanager
    def mark(self) -> Iterator[str]:
        """Within a ``with`` block, keep a mark in the store and return its name: other processes see it, too.

        A caller that is killed leaves its mark behind, an empty file. It is not deleted by its age, because it cannot
        be told from the mark of a caller that has been at work for as long.

        Raises
        ------
        StoreError
            If the store cannot be written to.
        """
        name = uuid.uuid4().hex
        write_atomically(self._marks / name, b"")
        try:
            yield name
        finally:
            with suppress(OSError):
                (self._marks / name).unlink(missing_ok=True)

    def has_mark(self, name: str) -> bool:
        """Return whether this store has a mark: it is then the same store as the one that the mark was made in."""
        return (self._marks / name).is_file()

    @property
    def _marks(self) -> Path:
        return self.root / "marks"

    def read_answer(self, question: dict[str, Any]) -> Any:
        """Return the stored answer to a question; None: there is none.

        Raises
        ------
        DamagedFileError
            If the file does not match its digest, or holds the answer to another question.
        StoreError
            If it cannot be read.
        """
        stored = self._read(question)
        return None if stored is None else stored["answer"]

    def read_environment(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return the environment in which a question was answered; None: it was not. Errors as :meth:`read_answer`."""
        stored = self._read(question)
        return None if stored is None else stored["measured_with"]

    def _read(self, question: dict[str, Any]) -> dict[str, Any] | None:
        path = self.answer_path(question)
        stored: dict[str, Any] | None = read_json(path, REMEASURE.format(path))
        if stored is None:
            return None
        complete = isinstance(stored, dict) and stored.keys() == {"question", "answer", "measured_with"}
        if not complete or not isinstance(stored["measured_with"], dict):
            raise DamagedFileError(f"{path} holds no answer. {REMEASURE.format(path)}")
        if canonical_json(stored["question"]) != canonical_json(question):
            raise DamagedFileError(f"{path} holds the answer to another question. {REMEASURE.format(path)}")
        return stored

    def write_answer(self, question: dict[str, Any], answer: Any, environment: dict[str, Any]) -> None:
        """Store the answer (a JSON value) to a question, and the environment in which it was measured."""
        path = self.answer_path(question)
        files.clear_leftovers(path.parent)
        write_json(path, {"question": question, "answer": answer, "measured_with": environment})

    def forget_answer(self, question: dict[str, Any]) -> None:
        """Delete the answer to a question, if there is one."""
        self.answer_path(question).unlink(missing_ok=True)

    def answer_path(self, question: dict[str, Any]) -> Path:
        """Return the file of a question's answer, whether or not it exists."""
        return self.root / "answers" / f"{digest_of(question)}.json"
