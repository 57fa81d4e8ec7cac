"""A mirror of a store: a folder, a web server or a bucket from which networks and answers are fetched.

Its layout is the store's own (`store`), as far as others need it::

    runs/<folder>/run.json
    runs/<folder>/student-0001.safetensors ...
    answers/<id>.json

A mirror is not trusted. A file is checked before it is kept, and it is JSON or safetensors, so nothing in it is
executed. But digests only show that files belong together: whether the numbers are right depends on who serves it.
"""

import hashlib
import io
import json
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from rkdkit import checks, files, origin, web
from rkdkit.progress import say
from rkdkit.store import StoreError, json_bytes, write_json

VARIABLE = "RKDKIT_MIRROR"
"""The environment variable that holds the address of the mirror to look in."""

LIBRARIES = {"file": "", "https": "", "http": "", "s3": "s3fs", "hf": "huggingface_hub"}
"""The kinds of address, and the library that each needs besides those of the kit."""

AT_ONCE = 16
"""How many files are fetched at once."""

PAUSES = (1.0, 4.0)
"""Seconds before a file is asked for again, at a mirror that has answered before."""

_FOLDER = "[A-Za-z0-9+._-]{1,80}-[0-9a-f]{16}"
_LARGEST = {
    re.compile(rf"runs/{_FOLDER}/run\.json"): 2**24,
    re.compile(rf"runs/{_FOLDER}/[a-z_]+-\d{{4,9}}\.safetensors"): 2**32,
    re.compile(r"answers/[0-9a-f]{16}\.json"): 2**26,
}
"""The files that a mirror may hold, and the largest size of each in bytes."""

_NOT_THERE, _FORBIDDEN = (404, 410), (401, 403)


class MirrorError(StoreError):
    """A mirror or a file of it is refused; the message names both and says what to do."""


class Wanted(ABC):
    """A file that is not in the store and may be at a mirror."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """Where it belongs in the store."""

    @abstractmethod
    def fits(self, content: Any, mirror: "Mirror") -> bool:
        """Return whether a file's content goes with what is in the store; if not, the mirror is not to blame.

        Parameters
        ----------
        content : the JSON value in the file, which may be anything.
        mirror : where it comes from.

        Raises
        ------
        ValueError
            If it is not what the file must hold; the message says why, in words that follow "it".
        """

    @abstractmethod
    def keep(self, content: bytes, mirror: "Mirror") -> None:
        """Write the file to the store.

        Raises
        ------
        StoreError
            If it cannot be written.
        """


class Mirror:
    """A mirror of a store.

    Parameters
    ----------
    url : the address of its folder: "file:///folder" (or just "/folder"), "https://...", "http://...",
        "s3://bucket/..." or "hf://...".

    Attributes
    ----------
    url : the same, without a user's name and password: what messages say.

    Raises
    ------
    ValueError
        If it is no such address, or the library for it is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # takes a moment, and most work is done without a mirror

        kind, separator, rest = url.partition("://")
        if not separator:
            kind, rest = "file", url
        checks.one_of("kind of mirror", kind, LIBRARIES)
        parts = urlsplit(url)
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        self._is_folder, self._is_server = kind == "file", kind in ("http", "https")
        if not rest.strip("/") or "::" in url:
            raise ValueError(
                f"The address of a mirror must name a folder, as in https://host/folder, not {self.url!r}."
            )
        if self._is_folder and not rest.startswith("/"):
            raise ValueError(
                "The address of a mirror is file:///folder (from the root on), https://host/folder, "
                f"s3://bucket/folder or hf://datasets/user/name, not {url!r}."
            )
        if self._is_server and (parts.query or parts.fragment):
            raise ValueError(f"The address of a mirror must end with its folder, without ? and #: {self.url!r}.")
        self._root = url.rstrip("/")
        if self._is_folder:
            self._root = (unquote(rest) if separator else rest).rstrip("/")
        try:
            self._files: Any = fsspec.filesystem(kind, **(web.options() if self._is_server else {}))
        except ImportError as error:
            name = LIBRARIES[kind]
            raise ValueError(
                f"The mirror {self.url} needs the library {name}, which is not installed: `pip install {name}`."
            ) from error
        self._absent: set[str] = set()
        self._named: dict[Path, dict[tuple[str, str, str], str]] = {}
        self._answered = False
        self._failure = self._forbidden = ""
        self._told: set[str] = set()
        self._lock = threading.Lock()

    @property
    def lost(self) -> bool:
        """Whether it could not be reached: it is then not asked again."""
        return bool(self._failure)

    def address(self, path: str) -> str:
        """Return the address of a file, for messages."""
        return f"{self.url}/{path}"

    def refused(self, path: str, why: str) -> MirrorError:
        """Return the error that says why a file is not accepted.

        Parameters
        ----------
        path : the file, from the mirror's folder on.
        why : in words that follow "it".
        """
        return MirrorError(
            f"{self.address(path)} is refused: it {why}. Nothing of it was kept. Tell whoever serves this mirror. "
            f"Until it is mended, unset {VARIABLE} or set it to another mirror, and repeat the command."
        )

    def fetch(self, path: str) -> bytes | None:
        """Return the content of a file; None: it is not there, or the mirror cannot be reached, which is said once.

        Parameters
        ----------
        path : the file, from the mirror's folder on, as in a store: "answers/0123456789abcdef.json".

        Raises
        ------
        MirrorError
            If a store has no such file, or it is no regular file, or is too large.
        """
        content = self._fetch(path)
        self._tell()
        return content

    def fetch_all(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield files and their contents as :meth:`fetch`, many of which are fetched at once."""
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            yield from zip(paths, pool.map(self._fetch, paths), strict=True)
        finally:  # after Ctrl-C, what is not begun is not fetched
            pool.shutdown(cancel_futures=True)
        self._tell()

    def put(self, path: str, content: bytes) -> bool:
        """Write a file, unless it is there with this content; return whether it was written.

        Parameters
        ----------
        path : as :meth:`fetch`.
        content : the whole file, which then appears whole or not at all.

        Raises
        ------
        MirrorError
            If it cannot be written.
        """
        self.check_writable()
        if self.read(path) == content:
            return False
        try:
            if self._is_folder:
                files.write_atomically(Path(self._place(path)), content)
            else:
                self._files.pipe_file(self._place(path), content)
        except Exception as error:  # each library has errors of its own
            raise MirrorError(
                f"{self.address(path)} could not be written ({_in_a_line(error)}). What was written before is there; "
                "repeat the command, and it goes on."
            ) from error
        self._absent.discard(path)
        return True

    def read(self, path: str) -> bytes | None:
        """As :meth:`fetch`, but a mirror that cannot be reached is an error.

        Raises
        ------
        MirrorError
            As :meth:`fetch`; also if it cannot be reached.
        """
        content = self._fetch(path)
        if self.lost:
            raise MirrorError(f"The mirror {self.url} cannot be reached ({self._failure}).")
        return content

    def pass_over(self, path: str) -> None:
        """Do not fetch a file again that does not fit what is in the store."""
        self._absent.add(path)

    def check_writable(self) -> None:
        """Refuse a mirror that cannot be written to.

        Raises
        ------
        MirrorError
            If it is a web server.
        """
        if self._is_server:
            raise MirrorError(
                f"{self.url} is a web server, which cannot be written to: push to the folder that it serves "
                "(file:///folder), or to a bucket (s3://, hf://)."
            )

    def hold_to(self, file: Path) -> None:
        """Accept from now on only those networks of an exhibit that its JSON names, if there is a JSON.

        Parameters
        ----------
        file : the exhibit's JSON. Of a run that it does not name, any network is accepted.

        Raises
        ------
        MirrorError
            If the JSON cannot be read.
        """
        self._named.pop(file, None)
        try:
            self._named[file] = _digests_in(json.loads(files.read(file)))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MirrorError(
                f"{file} says which networks may be fetched for this exhibit, and cannot be read "
                f"({_in_a_line(error)}). Restore or delete it, or unset {VARIABLE}, and repeat the command."
            ) from error

    def check_named(self, run: str, snapshots: Mapping[str, Mapping[str, str]]) -> None:
        """Refuse networks that an exhibit's JSON names with other digests.

        Parameters
        ----------
        run : the id of the run.
        snapshots : the digest of each snapshot, by role and epoch, as in a run's record.

        Raises
        ------
        ValueError
            As :meth:`Wanted.fits`.
        """
        for file, named in self._named.items():
            for (of, role, epoch), digest in named.items():
                found = snapshots.get(role, {}).get(epoch)
                if of == run and found != digest:
                    raise ValueError(
                        f"has the {role} of epoch {epoch} with digest {found}, but {file} was made with {digest}, and "
                        "accepts no other from a mirror (to make it anew from these networks, delete that file first)"
                    )

    def _place(self, path: str) -> str:
        return f"{self._root}/{quote(path) if self._is_server else path}"  # "+" is a blank to some servers

    def _fetch(self, path: str) -> bytes | None:
        most = next((size for pattern, size in _LARGEST.items() if pattern.fullmatch(path)), None)
        if most is None:
            raise MirrorError(f"{path!r} is no file of a store: it is not looked for at {self.url}.")
        for pause in (*PAUSES, None):
            if self.lost or path in self._absent:
                return None
            try:
                content = self._read(path, most)
                self._answered = True
                return content
            except MirrorError:
                raise
            except Exception as error:  # each library has errors of its own
                status = getattr(error, "status", 0)
                if isinstance(error, FileNotFoundError) or status in (*_NOT_THERE, *_FORBIDDEN):
                    self._answered = True
                    self._absent.add(path)
                    if status in _FORBIDDEN:  # some servers say so of what is not there
                        self._forbidden = _in_a_line(error)
                    return None
                if pause is None or not self._answered:
                    self._failure = self._failure or _in_a_line(error)
                    return None
                time.sleep(pause)
        return None

    def _read(self, path: str, most: int) -> bytes:
        place, content = self._place(path), _Bounded(most)
        if self._is_folder and not self._files.isfile(place):
            if not self._files.lexists(place):
                raise FileNotFoundError(place)
            raise self.refused(path, "is no regular file")
        try:
            if self._is_server:
                self._files.get_file(place, content)
            else:  # not every library's get_file takes a file that is open; s3fs's takes a path alone
                with self._files.open(place, "rb") as file:
                    content.write(file.read(most + 1))
        except _TooLargeError:
            raise self.refused(path, f"is larger than {most / 2**20:,.0f} MiB") from None
        except web.NotEncryptedError as error:
            raise self.refused(path, f"cannot be fetched safely: {error}") from None
        return content.getvalue()

    def tell_that_it_has_nothing(self, looked_for: int) -> None:
        """Say once that nothing of what was looked for is there: the address may be wrong."""
        with self._lock:
            if not self.lost and not self._told:
                self._told.add("nothing")
                say(
                    f"The mirror {self.url} has none of the {looked_for:,} files that were looked for first: check the "
                    f"address in {VARIABLE} if it should. What is not in the store is trained and measured here."
                )

    def _tell(self) -> None:
        """Say once what went wrong; not in the threads that fetch, whose output a notebook may lose."""
        with self._lock:
            if self._failure and "lost" not in self._told:
                self._told.add("lost")
                say(
                    f"The mirror {self.url} cannot be reached ({self._failure}). It is not asked again: what is not in "
                    "the store is trained and measured here."
                )
            if self._forbidden and "forbidden" not in self._told:
                self._told.add("forbidden")
                say(
                    f"The mirror {self.url} does not give out some files ({self._forbidden}): as if they "
                    "were not there."
                )


def current() -> Mirror | None:
    """Return the mirror that `RKDKIT_MIRROR` names, the same one for the whole process; None: there is none.

    Raises
    ------
    ValueError
        As :class:`Mirror`.
    """
    url = os.environ.get(VARIABLE, "").strip()
    if not url:
        return None
    try:
        return _opened(url)
    except ValueError as error:
        raise ValueError(f"{VARIABLE}: {error}") from error


def content_of(text: bytes) -> Any:
    """Return the JSON value in a file of a store, which must be what the kit itself would have written, to the byte.

    Raises
    ------
    ValueError
        As :meth:`Wanted.fits`.
    """
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        content = json.loads(text)["content"]
        if json_bytes(content) == text:
            return content
    raise ValueError("is damaged, or not a file of a store: it does not match its own digest")


def mark_origin(folder: Path, record: bytes, mirror: Mirror) -> None:
    """Write into a run's folder where its record is fetched from, before the record itself.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    write_json(folder / origin.FILE, {"url": mirror.url, "record": hashlib.sha256(record).hexdigest()})


_opened = lru_cache(maxsize=8)(Mirror)


class _TooLargeError(Exception):
    """More bytes came than a file may have."""


class _Bounded(io.BytesIO):
    """Takes a file's bytes as they come, and no more than it may have."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.most:
            raise _TooLargeError
        return super().write(data)


def _digests_in(summary: Mapping[str, Any]) -> dict[tuple[str, str, str], str]:
    """Return the digests in an exhibit's JSON, by run, role and epoch."""
    return {
        (network["run"], network["role"], epoch): digest
        for network in (*summary["networks"], *summary["teachers"])
        for epoch, digest in network["sha256_by_epoch"].items()
    }


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].removesuffix(": ")
