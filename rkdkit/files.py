"""Read regular files alone, and write files so that they appear whole or not at all."""

import errno
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

LEFTOVER = 3600.0
"""Seconds after which a temporary file is a killed process's: nothing takes so long to write."""


def read(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises
    ------
    OSError
        If there is no such file, it cannot be read, or it is no regular file: a pipe would wait for a writer for ever.
    """
    waiting = getattr(os, "O_NONBLOCK", 0)  # else to open a pipe waits, too
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | waiting)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, even if the process is killed or the machine stops.

    A process that is killed meanwhile leaves a temporary file ``.<name of the file>.<32 hex digits>.tmp`` beside it.

    Raises
    ------
    OSError
        If it cannot be written (a full disk, an unwritable folder); an earlier version of the file is intact.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all are written beside their places, then renamed into them one by one.

    A process that is killed between two renames leaves new and earlier files side by side. So the last file should say
    what the others hold. One that is killed before leaves temporary files as :func:`write_atomically` does.

    Parameters
    ----------
    contents : by file; they are renamed in this order.

    Raises
    ------
    OSError
        If one cannot be written. If the disk is full, earlier versions of all files are intact.
    """
    temporary = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            temporary[path].replace(path)
    except BaseException:  # Ctrl-C, too
        for left in temporary.values():
            with suppress(OSError):  # if the folder itself cannot be reached, the first error says so
                left.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in contents}:
        sync_folder(folder)


def write_in_parts(folder: Path, parts: Iterable[bytes], named: Callable[[str], str]) -> Path:
    """Write a file that is never in memory as a whole, so that it appears whole or not at all.

    Parameters
    ----------
    folder : where; it is made if it is not there.
    parts : the content, in order. What is raised while they are made is raised, and nothing is left.
    named : the SHA-256 of the content, as 64 hex digits -> the name of the file.

    Returns
    -------
    The file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary, sha = folder / f".{named('')}.{uuid.uuid4().hex}.tmp", hashlib.sha256()
    try:
        with temporary.open("wb", buffering=2**20) as file:
            for part in parts:
                sha.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        path = folder / named(sha.hexdigest())
        temporary.replace(path)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return path


def sync_folder(folder: Path) -> None:
    """Write to the disk which files a folder has, where the system can: a renamed file may else be lost with power."""
    with suppress(OSError):  # Windows cannot open a folder, and some file systems cannot sync one
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@lru_cache(maxsize=64)
def clear_leftovers(folder: Path, names: str = ".*.tmp") -> None:
    """Delete the temporary files that killed processes left in a folder, once in this process.

    Parameters
    ----------
    folder : where they are; it need not exist.
    names : a pattern of their names.
    """
    oldest = time.time() - LEFTOVER
    with suppress(OSError):  # a leftover that cannot be deleted does no harm
        for file in folder.glob(names):
            if file.lstat().st_mtime < oldest:
                file.unlink(missing_ok=True)


def lacks_locks(error: Exception) -> bool:
    """Return whether a lock could not be taken because the file system has none of the operating system's."""
    lacking = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
    return isinstance(error, NotImplementedError) or getattr(error, "errno", None) in lacking
