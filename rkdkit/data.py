"""Datasets as tensors: the whole set in memory as uint8, no loader processes.

``load("digits")`` needs nothing; ``load("cifar10")`` reads torchvision's files or a folder of images. The class
docstring of :class:`Dataset` says what comes back.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from rkdkit import checks, paths
from rkdkit.splits import (
    AUGMENTATIONS,
    Dataset,
    Split,
    augment,
    batches,
    batches_per_epoch,
    fixed_permutation,
    to_float,
)

__all__ = ["CIFAR10_CLASSES", "SOURCES", "Source", "load"]
__all__ += [
    "AUGMENTATIONS",
    "DataNotFoundError",
    "Dataset",
    "Split",
    "augment",
    "batches",
    "batches_per_epoch",
    "to_float",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class DataNotFoundError(FileNotFoundError):
    """The files of a dataset are not where they were looked for."""


@dataclass(frozen=True)
class Source:
    """What is known of a dataset before it is loaded.

    Attributes
    ----------
    read : reads it, given the data folder.
    eps : the l_inf radius its papers use (digits: what a prototype showed to be telling), in [0, 1] pixel units.
    augmentation : what its papers train with, one of `AUGMENTATIONS`.
    """

    read: Callable[[Path], Dataset]
    eps: float
    augmentation: str


@lru_cache(maxsize=4)
def _load(name: str, root: Path) -> Dataset:
    return SOURCES[name].read(root)


def load(name: str, root: Path | str | None = None) -> Dataset:
    """Load a dataset; a second call gives the same object.

    Parameters
    ----------
    name : "digits" (embedded: scikit-learn's 1,797 8x8 grey images, 1,300 / 497) or "cifar10".
    root : the folder to look in; None: :func:`rkdkit.paths.data_folder`.

    Raises
    ------
    UnknownNameError
        If there is no such dataset.
    DataNotFoundError
        If its files are not there; the message says where they were looked for and how to get them.
    ValueError
        If a file is damaged.
    """
    return _load(checks.one_of("dataset", name, SOURCES), Path(root or paths.data_folder()).resolve())


def _digits(_: Path) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = fixed_permutation(len(labels))
    everything = Split(images[order], labels[order])
    return Dataset(
        name="digits",
        train=everything.take(slice(0, 1300)),
        test=everything.take(slice(1300, None)),
        classes=tuple("0123456789"),
        source="digits as bundled with scikit-learn, split 1,300 / 497 by a fixed shuffle",
    )


CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def _cifar10(root: Path) -> Dataset:
    published, folder = root / "cifar-10-batches-py", root / "cifar10"
    if published.is_dir():
        return _cifar10_published(root, published)
    if (folder / "train").is_dir():
        return _image_folder("cifar10", folder, CIFAR10_CLASSES, (3, 32, 32))
    raise DataNotFoundError(
        f"CIFAR-10 was looked for in {published} (torchvision's files) and {folder} (train/<class>/*.png or *.jpg, "
        "test/<class>/...), and neither is there. Download it (170 MB) with\n"
        f'    {sys.executable} -c "from torchvision.datasets import CIFAR10; CIFAR10({str(root)!r}, download=True)"\n'
        "or set RKDKIT_DATA to the folder that holds it."
    )


def _cifar10_published(root: Path, folder: Path) -> Dataset:
    from torchvision.datasets import CIFAR10

    splits = []
    for train in (True, False):
        try:
            # torchvision compares every file's checksum with the published one before it unpickles any
            published = CIFAR10(str(root), train=train, download=False)
        except RuntimeError as error:
            raise ValueError(
                f"A CIFAR-10 file in {folder} is missing or does not match its published checksum. "
                "Delete that folder and download it anew."
            ) from error
        images = torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous()
        splits.append(Split(images, torch.tensor(published.targets)))
    return Dataset("cifar10", splits[0], splits[1], CIFAR10_CLASSES, "CIFAR-10 as published (torchvision's files)")


def _image_folder(name: str, root: Path, classes: tuple[str, ...], shape: tuple[int, int, int]) -> Dataset:
    """Read ``train/<class>/*`` and ``test/<class>/*``, one folder a class."""
    suffixes: set[str] = set()
    splits = []
    for part in ("train", "test"):
        found = {path.name for path in (root / part).iterdir() if path.is_dir()} if (root / part).is_dir() else set()
        if found != set(classes):
            raise DataNotFoundError(
                f"{root / part} must hold one folder for each class of {name}. "
                f"Missing: {', '.join(sorted(set(classes) - found)) or 'none'}; "
                f"not a class: {', '.join(sorted(found - set(classes))) or 'none'}."
            )
        files = [
            (path, label)
            for label, name_of_class in enumerate(classes)
            for path in sorted((root / part / name_of_class).iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]
        if not files:
            raise DataNotFoundError(f"{root / part} holds no {' or '.join(IMAGE_SUFFIXES)} files.")
        suffixes |= {path.suffix.lower() for path, _ in files}
        images = torch.from_numpy(np.stack([_read_image(path, shape) for path, _ in files]))
        labels = torch.tensor([label for _, label in files])
        # the files come class by class; shuffled, the first n test images are a sample of all classes
        order = fixed_permutation(len(files))
        splits.append(Split(images[order].permute(0, 3, 1, 2).contiguous(), labels[order]))
    source = f"{name} from a folder of {' and '.join(sorted(suffixes))} files"
    if suffixes - {".png"}:
        source += " (a JPEG copy: not pixel-identical to the published images)"
    return Dataset(name, splits[0], splits[1], classes, source)


def _read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB" if shape[0] == 3 else "L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"The image file {path} cannot be read ({error}). Replace it or delete it.") from error
    if pixels.shape[:2] != shape[1:]:
        raise ValueError(
            f"The image file {path} is {pixels.shape[0]}x{pixels.shape[1]} pixels, not {shape[1]}x{shape[2]}."
        )
    return pixels


SOURCES: dict[str, Source] = {
    "digits": Source(_digits, eps=0.25, augmentation="none"),
    "cifar10": Source(_cifar10, eps=8 / 255, augmentation="crop-flip"),
}
