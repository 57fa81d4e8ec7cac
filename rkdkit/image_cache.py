"""Decode a folder of image files once: the pixels are kept in a cache, which all processes share.

Layout of the cache (`paths.cache_folder`), per folder of images::

    images-<folder>-<files>-<sha256>.safetensors    the pixels: one tensor, `images`
    images-<folder>.lock                            held by the process that decodes the folder

``<folder>`` is a digest of the folder's path. ``<files>`` is a digest of what decides the pixels: which files are read,
in which order, their sizes and times of change, how they are read, and pillow's version; so outdated pixels are not
found. ``<sha256>`` is the file's own; so damage is noticed.

Pixels of more than `LEAST_MAPPED` bytes are decoded into the file, an image at a time, and memory-mapped from it: they
are never in memory as a whole, and processes share what of them is in the system's cache of files.
"""

import hashlib
import importlib.metadata
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np
import safetensors.torch
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from torch import Tensor

from rkdkit import files, image_files, paths, progress

FEWEST = 1_000
"""Fewer files are not cached: decoding them takes about a tenth of a second."""

WAIT = 60.0
"""After how many seconds a process says that it waits for another one, which decodes the same folder."""

LEAST_MAPPED = 2**28
"""Pixels of more bytes than this are memory-mapped; fewer are read into memory."""

_FORMAT = 1  # to be raised whenever the same image files are decoded to other pixels, or kept in another form


def read(folder: Path, image_paths: Sequence[Path], shape: image_files.Shape, grey_as_colour: bool) -> Tensor:
    """Return what :func:`image_files.read` returns, from the cache if the files were decoded before.

    If several processes need the same files at once, one decodes them and the others wait for as long as it does. If
    the cache cannot be used, a line says why, and the files are decoded as without a cache. A file that is changed
    while its size and its time of change (in nanoseconds) stay the same is not noticed.

    Parameters
    ----------
    folder : the folder of the image files. The cache keeps the pixels of one version of it.
    image_paths, shape, grey_as_colour : as in :func:`image_files.read`.

    Returns
    -------
    (N, C, H, W) uint8; memory-mapped, if the cache is used and they are more than `LEAST_MAPPED` bytes.

    Raises
    ------
    ValueError
        If the files must be decoded, and one cannot be read or has another shape; the message names it.
    """

    def decoded() -> Tensor:
        return image_files.read(image_paths, shape, grey_as_colour)

    if len(image_paths) < FEWEST:
        return decoded()
    try:
        decoder = importlib.metadata.version("pillow")  # another one may round JPEG files to other pixels
        key = _key([_FORMAT, decoder, shape, grey_as_colour], image_paths)
    except OSError:
        return decoded()  # which names the file that is not there
    pixels = _Pixels(folder, key)
    if (images := pixels.read()) is not None:
        return images
    try:
        held = pixels.lock()
    except (OSError, NotImplementedError) as error:  # filelock's Timeout is an OSError
        pixels.say_unused(error)
        return decoded()
    with held:
        images = pixels.read()  # another process may have decoded them meanwhile
        if images is None and len(image_paths) * math.prod(shape) > LEAST_MAPPED:
            each = image_files.read_each(image_paths, shape, grey_as_colour)
            images = pixels.write_mapped(each, (len(image_paths), *shape))
            return decoded() if images is None else images
        if images is None:
            images = decoded()
            pixels.write(images)
    return images


class _Pixels:
    """The cached pixels of one version of a folder."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.cache = folder, paths.cache_folder()
        self.name = f"images-{_digest(str(folder.absolute()))[:16]}"
        self.key = key[:16]

    def read(self) -> Tensor | None:
        """Return the pixels; None: they are not there, or were damaged, and are deleted."""
        with suppress(OSError):  # what cannot be read is decoded
            for path in self.cache.glob(f"{self.name}-{self.key}-*.safetensors"):
                if not path.is_file():  # a FIFO, for example: to open it would take forever
                    continue
                if path.stat().st_size > LEAST_MAPPED:
                    with path.open("rb") as file:
                        whole = path == self.place_of(hashlib.file_digest(file, "sha256").hexdigest())
                    if whole:
                        return _mapped(path)
                else:
                    content = path.read_bytes()
                    if path == self.place_of(hashlib.sha256(content).hexdigest()):
                        return safetensors.torch.load(content)["images"]
                progress.say(f"{path} is damaged: it does not match its digest. {self.folder} is decoded again.")
                path.unlink()
        return None

    def lock(self) -> AbstractContextManager[object]:
        """Wait until no other process decodes the folder, and return the lock, held.

        The system frees the lock of a process that ends, so whoever holds it still decodes. A file system without such
        locks has filelock's, which may outlive their process and are waited for no longer than `WAIT`.
        """
        lock: BaseFileLock = FileLock(self.cache / f"{self.name}.lock")
        try:
            return lock.acquire(timeout=WAIT)
        except Timeout:
            if isinstance(lock, SoftFileLock):
                raise
        progress.say(f"Another process decodes {self.folder}; this one waits for it ({lock.lock_file}).")
        return lock.acquire()

    def write(self, images: Tensor) -> None:
        """Keep the pixels, and delete those of other versions of the folder; the caller holds the lock."""
        content = safetensors.torch.save({"images": images})
        path = self.place_of(hashlib.sha256(content).hexdigest())
        try:
            files.write_atomically(path, content)
        except OSError as error:
            self.say_unused(error)
        self._delete_others(path)

    def write_mapped(self, images: Iterator[np.ndarray], shape: tuple[int, ...]) -> Tensor | None:
        """Keep pixels image by image, as :meth:`write` does, and return them memory-mapped; None: it cannot write.

        Parameters
        ----------
        images : N arrays of (C, H, W) uint8.
        shape : (N, C, H, W).
        """
        self._delete_others(None)  # first: there may be no room for both
        parts = itertools.chain([_header(shape)], (image.tobytes() for image in images))
        try:
            path = files.write_in_parts(self.cache, parts, lambda sha: self.place_of(sha).name)
        except OSError as error:
            self.say_unused(error)
            return None
        return _mapped(path)

    def _delete_others(self, path: Path | None) -> None:
        with suppress(OSError):  # a leftover that cannot be deleted does no harm
            # those with a leading dot are of a process that was killed while it wrote
            for other in (*self.cache.glob(f"{self.name}-*"), *self.cache.glob(f".{self.name}-*.tmp")):
                if other != path:
                    other.unlink()

    def place_of(self, sha: str) -> Path:
        """Return the path of the file whose content has this SHA-256, in hex digits."""
        return self.cache / f"{self.name}-{self.key}-{sha[:32]}.safetensors"

    def say_unused(self, error: Exception) -> None:
        """Say in a line that the cache is not used, and why."""
        why = getattr(error, "strerror", None) or error
        progress.say(
            f"The cache of images in {self.cache} cannot be used ({why}). {self.folder} is decoded without it; "
            "RKDKIT_CACHE names another folder for it."
        )


def _mapped(path: Path) -> Tensor:
    return safetensors.torch.load_file(path)["images"]


def _header(shape: tuple[int, ...]) -> bytes:
    """Return what stands before one tensor of uint8, `images`, in a safetensors file."""
    said = {"images": {"dtype": "U8", "shape": shape, "data_offsets": [0, math.prod(shape)]}}
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _key(how: Sequence[object], image_paths: Sequence[Path]) -> str:
    """Return the digest of the JSON of `how` and a list of all files' identities, which is never whole in memory."""
    sha = hashlib.sha256(json.dumps(how).removesuffix("]").encode() + b", [")
    for i, path in enumerate(image_paths):
        sha.update(b", " * (i > 0) + json.dumps(_identity(path)).encode())
    sha.update(b"]]")
    return sha.hexdigest()


def _identity(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
