"""Datasets as tensors: the whole set in memory as uint8, no loader processes.

``load("digits")`` needs nothing; ``load("cifar10")`` reads torchvision's files or a folder of images. The class
docstring of :class:`Dataset` says what comes back.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import checks, paths

AUGMENTATIONS = ("none", "crop-flip")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class DataNotFoundError(FileNotFoundError):
    """The files of a dataset are not where they were looked for."""


@dataclass(frozen=True, eq=False)
class Split:
    """Some images and their labels.

    Attributes
    ----------
    images : (N, C, H, W) uint8.
    labels : (N,) int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | slice) -> "Split":
        """Return the images and labels at `index`."""
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """Return the same images and labels on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of shape, images and labels: which data these really are."""
        sha = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            sha.update(tensor.cpu().contiguous().numpy().data)
        return sha.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set, checked when made.

    Attributes
    ----------
    name : the name it was loaded by.
    train, test : the two :class:`Split`.
    classes : the class names, in the order of the labels.
    source : where the images came from, for provenance.

    Raises
    ------
    ValueError
        If images are not uint8 of one shape, or a label is out of range.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        for part, split in (("training", self.train), ("test", self.test)):
            checks.images(split.images, f"{self.name}: {part} images")
            if split.images.dtype != torch.uint8:
                raise ValueError(f"{self.name}: {part} images must be uint8, not {split.images.dtype}.")
            checks.labels(split.labels, len(split.images), len(self.classes), f"{self.name}: {part} labels")
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ValueError(
                f"{self.name}: training images are {tuple(self.train.images.shape[1:])}, "
                f"test images {tuple(self.test.images.shape[1:])}; they must be of one shape."
            )

    @cached_property
    def digest(self) -> str:
        """The two splits' digests as one: which data this really is."""
        return hashlib.sha256(f"{self.train.digest}{self.test.digest}".encode()).hexdigest()[:16]

    @cached_property
    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of the training images, as fractions of 255."""
        pixels = self.train.images.transpose(0, 1).flatten(1)
        # a histogram is exact in float64 and needs no float copy of the images
        counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        share = counts / counts.sum(1, keepdim=True)
        mean = share @ values
        std = (share @ values.square() - mean.square()).clamp_min(1e-12).sqrt()
        return tuple(mean.tolist()), tuple(std.tolist())

    def split_validation(self, n_train: int | None, n_val: int) -> tuple[Split, Split]:
        """Split the training set into images to train on and held-out ones, the same for every run and seed.

        Parameters
        ----------
        n_train : how many to train on; None: all that are not held out.
        n_val : how many to hold out for choosing an epoch.

        Returns
        -------
        train, validation : two :class:`Split` without a common image.

        Raises
        ------
        ValueError
            If there are fewer images than asked for.
        """
        total = len(self.train)
        checks.number("n_val", n_val, 0)
        if n_train is None:
            n_train = total - n_val
        if n_train < 1 or n_train + n_val > total:
            raise ValueError(
                f"{self.name} has {total:,} training images: n_train {n_train:,} and n_val {n_val:,} "
                "must be at least 1 and 0 and together no more than that."
            )
        order = _fixed_permutation(total)
        return self.train.take(order[n_val : n_val + n_train]), self.train.take(order[:n_val])


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


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 images into float32 in [0, 1]; shape and device stay."""
    return images.float().div_(255)


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Augment a batch where it lies; the random draws are made on the CPU, so they are alike on every device.

    Parameters
    ----------
    images : (N, C, H, W), any dtype.
    kind : "none", or "crop-flip": pad 4 zeros, crop back at a random place, mirror every second image or so.
    generator : a CPU generator.

    Returns
    -------
    (N, C, H, W), same dtype and device.

    Raises
    ------
    UnknownNameError
        If `kind` is another.
    """
    if checks.one_of("augmentation", kind, AUGMENTATIONS) == "none":
        return images
    n, channels, height, width = images.shape
    top = torch.randint(0, 9, (n, 1), generator=generator)
    left = torch.randint(0, 9, (n, 1), generator=generator)
    mirrored = torch.rand((n, 1), generator=generator) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width))
    at = torch.arange(n).view(n, 1, 1, 1), torch.arange(channels).view(1, channels, 1, 1)
    index = (*at, rows.view(n, 1, height, 1), columns.view(n, 1, 1, width))
    return F.pad(images, (4, 4, 4, 4))[tuple(i.to(images.device, non_blocking=True) for i in index)]


def batches(split: Split, batch_size: int, augmentation: str, order: torch.Generator) -> Iterator[Split]:
    """Yield one epoch of shuffled, augmented batches with float32 images in [0, 1].

    Every batch has the same size: the few images left over at the end of an epoch's order are not used in it, since
    batch normalisation over a handful of images would be another network. A set smaller than `batch_size` is one batch.

    Parameters
    ----------
    split : the images, on the device where the batches are wanted.
    batch_size : images a batch.
    augmentation : one of `AUGMENTATIONS`.
    order : a CPU generator for the order and the augmentation.
    """
    size = min(batch_size, len(split))
    permutation = torch.randperm(len(split), generator=order).to(split.labels.device)
    for start in range(0, len(split) - size + 1, size):
        batch = split.take(permutation[start : start + size])
        yield Split(to_float(augment(batch.images, augmentation, order)), batch.labels)


def batches_per_epoch(n_images: int, batch_size: int) -> int:
    """Return how many batches :func:`batches` yields."""
    return max(n_images // batch_size, 1)


def _fixed_permutation(n: int) -> Tensor:
    # RandomState's stream is frozen by numpy's compatibility policy, so the split never changes with a version
    return torch.from_numpy(np.random.RandomState(0).permutation(n))


def _digits(_: Path) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    order = _fixed_permutation(len(labels))
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
        order = _fixed_permutation(len(files))
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
