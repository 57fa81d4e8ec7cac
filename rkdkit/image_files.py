"""Read images as uint8 tensors from image folders, CIFAR's and Tiny ImageNet's published files, and .npz archives."""

import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rkdkit import checks
from rkdkit.progress import track

SUFFIXES = (".png", ".jpg", ".jpeg")
MANY = 5_000
"""A progress bar is shown for this many files or more."""

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

LabelledFile = tuple[Path, int]


class DataNotFoundError(FileNotFoundError):
    """The files of a dataset were not found."""


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders in `folder`; hidden folders, such as JupyterLab's, are not classes."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))


def in_class_folders(folder: Path, classes: Sequence[str], inside: str = "") -> list[LabelledFile]:
    """List the image files of ``folder/<class>/*``, class by class, each with its class's index.

    Parameters
    ----------
    folder : holds one folder for each of `classes` and no other.
    classes : the names of the classes, in the order of the labels.
    inside : a folder within each class's folder that holds its images.

    Raises
    ------
    DataNotFoundError
        If a class's folder is missing, there are other folders, or a folder holds no image file.
    """
    found = set(class_names(folder))
    if found != set(classes):
        raise DataNotFoundError(
            f"{folder} must hold one folder for each of the {len(classes)} classes. "
            f"Missing: {', '.join(sorted(set(classes) - found)) or 'none'}; "
            f"not a class: {', '.join(sorted(found - set(classes))) or 'none'}."
        )
    files = []
    for label, name in enumerate(classes):
        paths = sorted(p for p in (folder / name / inside).glob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise DataNotFoundError(f"{folder / name / inside} holds no {' or '.join(SUFFIXES)} files.")
        files += [(path, label) for path in paths]
    return files


def annotated(table: Path, images: Path, classes: Sequence[str]) -> list[LabelledFile]:
    """List the image files named in Tiny ImageNet's ``val_annotations.txt``, each with its class's index.

    Parameters
    ----------
    table : the file: one line per image, with its file name, its class and a box, separated by tabs.
    images : the folder that holds the images.
    classes : the names of the classes, in the order of the labels.

    Raises
    ------
    ValueError
        If a line does not name an image and a known class.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    files = []
    for number, line in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, *columns = line.split("\t")
        if not columns or columns[0] not in label_of:
            raise ValueError(f"Line {number} of {table} names no image and class, but says {line!r}. Unpack it again.")
        files.append((images / name, label_of[columns[0]]))
    return files


def shape_of(path: Path) -> Shape:
    """Return channels (1 for a grey image, otherwise 3), height and width of an image file.

    Raises
    ------
    ValueError
        If the file cannot be read; the message names it.
    """
    channels, height, width = _read_image(path).shape
    return channels, height, width


def read(paths: Sequence[Path], shape: Shape, grey_as_colour: bool) -> Tensor:
    """Read image files into one tensor, with a progress bar for many files.

    Parameters
    ----------
    paths : the N files.
    shape : (C, H, W) of every image.
    grey_as_colour : True: a grey image among colour images gets three equal channels; False: it is refused.

    Returns
    -------
    (N, C, H, W) uint8.

    Raises
    ------
    ValueError
        If a file cannot be read or has another shape; the message names it.
    """
    images = np.empty((len(paths), *shape), np.uint8)  # filled in place: a large set is in memory only once
    for i, pixels in enumerate(read_each(paths, shape, grey_as_colour)):
        images[i] = pixels
    return torch.from_numpy(images)


def read_each(paths: Sequence[Path], shape: Shape, grey_as_colour: bool) -> Iterator[np.ndarray]:
    """Read image files one after another, with a progress bar for many files.

    Parameters, errors: as :func:`read`.

    Yields
    ------
    (C, H, W) uint8.
    """
    fitting = (shape, (1, *shape[1:])) if grey_as_colour else (shape,)
    for path in track(paths, desc="reading images", unit=" images") if len(paths) >= MANY else paths:
        pixels = _read_image(path)
        if pixels.shape not in fitting:
            raise ValueError(f"The image file {path} is {_described(pixels.shape)}, not {_described(shape)}.")
        yield np.broadcast_to(pixels, shape)


def _described(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]} pixels in {'grey' if shape[0] == 1 else 'colour'}"


def _read_image(path: Path) -> np.ndarray:
    """Return (C, H, W) uint8; C is 1 for an image stored as grey or black-and-white, otherwise 3."""
    from PIL import Image

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # whoever opens a FIFO waits for a writer
            raise ValueError("it is not a file")
        with Image.open(path) as image:
            grey = image.mode in ("1", "L")
            if image.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits per channel")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"The image file {path} cannot be read ({error}). Replace it or delete it.") from error
    return pixels[np.newaxis] if grey else pixels.transpose(2, 0, 1)


def published_cifar(name: str, root: Path) -> list[tuple[Tensor, Tensor]]:
    """Read CIFAR's published python files.

    Parameters
    ----------
    name : the name of torchvision's class: "CIFAR10" or "CIFAR100".
    root : the folder that contains the folder of the published files.

    Returns
    -------
    (N, 3, 32, 32) uint8 images and (N,) int64 labels, of the training and of the test set.

    Raises
    ------
    ValueError
        If a file is missing or does not match its published checksum.
    """
    from torchvision import datasets

    reader = getattr(datasets, name)
    splits = []
    for train in (True, False):
        try:
            # torchvision compares every file's checksum with the published one before it unpickles a file
            published = reader(str(root), train=train, download=False)
        except RuntimeError as error:
            raise ValueError(
                f"A file in {root / reader.base_folder} is missing or does not match its published checksum. "
                "Delete that folder and download it again."
            ) from error
        images = torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous()
        splits.append((images, torch.tensor(published.targets)))
    return splits


def read_archive(path: Path, shape: Shape, num_classes: int) -> tuple[Tensor, Tensor]:
    """Read labelled images from an ``.npz`` archive of `image`, uint8 (N, H, W, C), and `label`, (N,) of any integers.

    Parameters
    ----------
    path : the archive.
    shape : (C, H, W) of every image.
    num_classes : every label must be below this number.

    Returns
    -------
    (N, C, H, W) uint8 images and (N,) int64 labels; N is at least 1.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    ValueError
        If it is a folder, a FIFO or a device, is damaged, holds other things than plain arrays, or its arrays do not
        have this form; the message says how they differ. Nothing in it is unpickled.
    """
    wanted = "It should be an .npz archive of the arrays 'image' and 'label'."
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:  # also for a name that no file can have
        raise DataNotFoundError(f"{path} is not there. {wanted}") from error
    if not stat.S_ISREG(kind):  # whoever opens a FIFO waits for a writer
        raise ValueError(f"{path} is not a file, but a folder, a FIFO or a device. {wanted}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz archive, or is damaged. Replace it, or save it with numpy.savez.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("image", "label") if name in archive}
            present = ", ".join(archive.files) or "none"
    except Exception as error:  # numpy and zipfile may raise any error for damaged bytes, also MemoryError
        raise ValueError(f"{path} cannot be read as an .npz archive of plain arrays ({error}). Replace it.") from error
    if len(arrays) < 2:
        raise ValueError(f"{path} must hold the arrays 'image' and 'label', but holds {present}.")
    # numpy returns a member that is no .npy file as bytes
    if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"{path}: {' and '.join(map(repr, strange))} must be saved as arrays, with numpy.savez.")
    image, label = arrays["image"], arrays["label"]
    channels, *size = shape
    if image.dtype != np.uint8 or image.shape[1:] != (*size, channels) or not len(image):
        wanted = ", ".join(map(str, ("N", *size, channels)))
        raise ValueError(f"{path}: 'image' must be uint8 of shape ({wanted}), not {image.dtype} of {image.shape}.")
    if label.dtype.kind not in "iu":
        raise ValueError(f"{path}: 'label' must be of whole numbers, not {label.dtype}.")
    labels = torch.from_numpy(label.astype(np.int64))
    checks.labels(labels, len(image), num_classes, f"{path}: 'label'")
    return torch.from_numpy(image).permute(0, 3, 1, 2).contiguous(), labels


def number_in_archive(path: Path) -> int:
    """Return how many images an archive of :func:`read_archive` says it holds, without reading them; 0: it says none.

    Parameters
    ----------
    path : the archive; there need not be any.
    """
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        if not path.is_file():
            return 0
        with zipfile.ZipFile(path) as archive, archive.open("image.npy") as member:
            shape, _, _ = header[np.lib.format.read_magic(member)](member)
    except (OSError, LookupError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return 0  # whoever reads its images says what is wrong
    return int(shape[0]) if shape else 0
