"""Datasets as tensors of uint8, in memory or, where they are large, memory-mapped; without loader processes.

``load("digits")`` needs no files, nor do the sets of points of the plane, such as ``load("moons")``; the other datasets
are read from the data folder.
``load("cifar10:airplane,automobile")`` selects some of the classes, and ``load("folder:NAME")`` reads your own folder
of images. The result is a :class:`Dataset`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from rkdkit import checks, generated, image_cache, image_files, paths
from rkdkit.image_files import DataNotFoundError
from rkdkit.splits import (
    AUGMENTATIONS,
    PARTS,
    Dataset,
    Split,
    augment,
    batches,
    batches_per_epoch,
    fixed_permutation,
    to_float,
)

__all__ = ["BLANK", "CIFAR10_CLASSES", "CIFAR100_CLASSES", "SOURCES", "Source", "load_or_blank"]
__all__ += ["check_extra", "load", "load_extra", "number_of_extra", "source_of"]
__all__ += [
    "AUGMENTATIONS",
    "PARTS",
    "DataNotFoundError",
    "Dataset",
    "Split",
    "augment",
    "batches",
    "batches_per_epoch",
    "to_float",
]


@dataclass(frozen=True)
class Source:
    """The properties of a dataset that are known before it is loaded.

    Attributes
    ----------
    read : a function from the data folder to the dataset.
    eps : the l_inf radius that the papers use (for the digits, a radius at which a prototype showed clear effects), in
        [0, 1] pixel units.
    augmentation : the augmentation that the papers train with, one of `AUGMENTATIONS`.
    classes : the class names in the order of the labels; () if only the files say them.
    published : the numbers of training images, test images and classes, and (C, H, W); None if only the files say them.
    """

    read: Callable[[Path], Dataset]
    eps: float
    augmentation: str
    classes: tuple[str, ...] = ()
    published: tuple[int, int, int, image_files.Shape] | None = None


def source_of(name: str) -> Source:
    """Return the properties of a dataset that are known before it is loaded; no file is read.

    Parameters
    ----------
    name : as in :func:`load`; a selection of classes has the source of the whole dataset.

    Raises
    ------
    UnknownNameError
        If there is no such dataset, or the selected classes are malformed or known not to be in it.
    """
    return _parse(name)[1]


def load(name: str, root: Path | str | None = None) -> Dataset:
    """Load a dataset; a second call returns the same object.

    Parameters
    ----------
    name : "digits" (embedded: scikit-learn's 1,797 8x8 grey images, 1,300 / 497), "cifar10", "cifar100",
        "tiny_imagenet", "folder:NAME" for your own images in ``NAME/{train,test}/<class>/*``, or one of three sets of
        points of the plane, "scattered", "moons" and "circles". A point is an image of one pixel, whose two channels
        are its coordinates; as uint8, they are multiples of 1/255. A list of at least two classes after another colon,
        as in "cifar10:airplane,automobile", selects these classes, labelled 0, 1, ... in the listed order.
    root : the folder to look in; None: :func:`rkdkit.paths.data_folder`.

    Raises
    ------
    UnknownNameError
        If there is no such dataset or class.
    DataNotFoundError
        If its files are not found; the message says where they were expected and how to get them.
    ValueError
        If a file is damaged.
    """
    return _load(name, _data_folder(root))


BLANK = "not here: blank images in their published number"
"""The source of blank datasets, see :func:`load_or_blank`."""


def load_or_blank(name: str) -> Dataset:
    """As :func:`load`, but return blank images if the files of a published dataset are not found.

    The number, shape and classes of the images are the published ones, and their source is `BLANK`. This is enough to
    estimate the cost of a training, but not to train.
    """
    try:
        return load(name)
    except DataNotFoundError:
        if _parse(name)[1].published is None:
            raise
        return _blank(name)


@lru_cache(maxsize=4)
def _blank(name: str) -> Dataset:
    whole, source, classes = _parse(name)
    if classes:
        return _only(classes, _blank(whole), name)
    assert source.published is not None
    n_train, n_test, n_classes, shape = source.published
    # one image in memory for any number of images
    train, test = (
        Split(torch.zeros(1, *shape, dtype=torch.uint8).expand(n, *shape), torch.arange(n) % n_classes)
        for n in (n_train, n_test)
    )
    return Dataset(name, train, test, source.classes or tuple(map(str, range(n_classes))), BLANK)


def load_extra(
    name: str, dataset: Dataset, root: Path | str | None = None, *, n_train: int | None = None, n_val: int = 0
) -> Split:
    """Load synthetic images to train on beside a dataset's own, as RKD does (its section 4, after Rebuffi et al. 2021).

    Parameters
    ----------
    name : an ``.npz`` archive in the data folder, or in a folder of it ("edm/1m.npz"), that holds `image`, (N, H, W, C)
        uint8 (C is 1 for grey images), and `label`, (N,) of any integer type, by the labels of `dataset`; or
        "gaussian-mixture:N" for N images of the generator that ships with the kit, :func:`generated.gaussian_mixture`.
    dataset : the images must have its image shape and classes.
    root : the folder to look in; None: :func:`rkdkit.paths.data_folder`.
    n_train, n_val : how the training images are divided, as in `RunSpec`: the generator is fitted to those that are
        trained on, never to held-out or test images.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    ValueError
        As :func:`check_extra`; or if the file is damaged, or its arrays do not fit: the message names the file and what
        is wrong. Also if the generator is given too few images to fit or to draw.
    """
    check_extra(name)
    number = generated.number_of(name)
    if number is not None:
        train = dataset.images("train", n_train=n_train, n_val=n_val)
        return generated.gaussian_mixture(train, len(dataset.classes), number)
    return _archive(_data_folder(root) / name, dataset.train.shape, len(dataset.classes))


def check_extra(name: str) -> None:
    """Refuse a name that :func:`load_extra` cannot take; no file is read. "" is none, and not refused.

    Raises
    ------
    ValueError
        If it leads out of the data folder, or names the generator without a number of images.
    """
    if name and generated.number_of(name) is None:
        checks.inner_path("extra", name, "the data folder")


def number_of_extra(name: str, root: Path | str | None = None) -> int:
    """Return how many images :func:`load_extra` loads, without loading any; 0: none, or from no file on this machine.

    Parameters
    ----------
    name, root : as :func:`load_extra`; "" is no image.
    """
    check_extra(name)
    drawn = generated.number_of(name)
    if drawn is None:
        return image_files.number_in_archive(_data_folder(root) / name) if name else 0
    return drawn


@lru_cache(maxsize=1)
def _archive(path: Path, shape: image_files.Shape, num_classes: int) -> Split:
    return Split(*image_files.read_archive(path, shape, num_classes))


def _data_folder(root: Path | str | None) -> Path:
    return Path(root or paths.data_folder()).resolve()


def _parse(name: str) -> tuple[str, Source, tuple[str, ...]]:
    """Return the name of the whole dataset, its source, and the selected classes; (): all classes."""
    whole, colon, listed = str(name).partition(":")
    if whole == "folder":
        folder, colon, listed = listed.partition(":")
        if not checks.is_file_name(folder):
            raise checks.UnknownNameError(
                f"{checks.shown(name)} must name one folder in the data folder, without a path and by "
                f"{checks.LONGEST_NAME} bytes at most, as in 'folder:flowers'."
            )
        whole, source = f"folder:{folder}", Source(partial(_own_folder, folder), eps=8 / 255, augmentation="crop-flip")
    else:
        source = SOURCES[checks.one_of("dataset", whole, [*SOURCES, "folder:NAME"])]
    if not colon:
        return whole, source, ()
    classes = tuple(listed.split(","))
    if "" in classes or len(set(classes)) < max(len(classes), 2):
        raise checks.UnknownNameError(
            f"{checks.shown(name)} must list two or more different classes, as in 'cifar10:airplane,automobile'."
        )
    for each in classes:
        if source.classes:
            checks.one_of(f"class of {whole}", each, source.classes)
    return whole, source, classes


@lru_cache(maxsize=4)
def _load(name: str, root: Path) -> Dataset:
    whole, source, classes = _parse(name)
    return _only(classes, _load(whole, root), name) if classes else source.read(root)


def _only(classes: tuple[str, ...], dataset: Dataset, name: str) -> Dataset:
    new_label = torch.full((len(dataset.classes),), -1)
    for label, each in enumerate(classes):
        new_label[dataset.classes.index(checks.one_of(f"class of {dataset.name}", each, dataset.classes))] = label

    def kept(split: Split) -> Split:
        part = split.take(new_label[split.labels] >= 0)
        return replace(part, labels=new_label[part.labels])

    source = BLANK if dataset.source == BLANK else f"{dataset.source}; only its classes {', '.join(classes)}"
    return Dataset(name, kept(dataset.train), kept(dataset.test), classes, source)


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
        classes=DIGITS_CLASSES,
        source="digits as bundled with scikit-learn, split 1,300 / 497 by a fixed shuffle",
    )


def _scattered(_: Path) -> Dataset:
    drawn = np.random.RandomState(0)
    points = np.empty((0, 2), np.int64)
    while len(points) < 32:
        new = drawn.randint(11, 245, (1, 2))  # the box of eps 0.04 around it, 10.2 / 255, is within the unit square
        if (np.abs(points - new).max(1, initial=0) >= APART).all():
            points = np.concatenate([points, new])
    labels = drawn.permutation(np.arange(len(points)) % 2)
    # what is near a training point has its label: 10 points of each box of eps 0.04
    near = np.repeat(points, 10, 0) + drawn.randint(-10, 11, (10 * len(points), 2))
    source = f"32 random points at least {APART}/255 apart in l_inf, with random labels"
    return _plane("scattered", (points / 255, labels), (near / 255, np.repeat(labels, 10)), source)


def _moons(_: Path) -> Dataset:
    from sklearn.datasets import make_moons

    parts = [make_moons(n, noise=0.05, random_state=seed) for seed, n in enumerate((32, 320))]
    train, test = (((points - (0.5, 0.25)) * 0.27 + 0.5, labels) for points, labels in parts)
    return _plane("moons", train, test, "scikit-learn's two moons with noise 0.05, scaled by 0.27")


def _circles(_: Path) -> Dataset:
    from sklearn.datasets import make_circles

    parts = [make_circles(n, noise=0.05, factor=0.5, random_state=seed) for seed, n in enumerate((32, 320))]
    train, test = ((points * 0.36 + 0.5, labels) for points, labels in parts)
    return _plane("circles", train, test, "scikit-learn's two circles with factor 0.5 and noise 0.05, scaled by 0.36")


def _plane(name: str, train: "_Points", test: "_Points", source: str) -> Dataset:
    """Make a dataset of points of the unit square: images of one pixel, with the coordinates as their channels."""

    def split(points: np.ndarray, labels: np.ndarray) -> Split:
        images = torch.from_numpy(np.round(points * 255).astype(np.uint8))
        return Split(images[:, :, None, None], torch.from_numpy(labels.astype(np.int64)))

    described = f"{source}; coordinates rounded to multiples of 1/255"
    return Dataset(name, split(*train), split(*test), PLANE_CLASSES, described)


def _cifar(n_classes: int, folder: str, root: Path) -> Dataset:
    name, title, published, copy = f"cifar{n_classes}", f"CIFAR-{n_classes}", root / folder, root / f"cifar{n_classes}"
    classes = SOURCES[name].classes
    if published.is_dir():
        train, test = (Split(*split) for split in image_files.published_cifar(name.upper(), root))
        return Dataset(name, train, test, classes, f"{title} as published (torchvision's files)")
    if (copy / "train").is_dir():
        return _image_folder(name, copy, classes, (3, 32, 32))
    raise DataNotFoundError(
        f"{title} was looked for in {published} (torchvision's files) and {copy} (train/<class>/*.png or *.jpg, "
        "test/<class>/...), and neither is there. Download it (170 MB) with\n"
        f'    {sys.executable} -c "from torchvision.datasets import {name.upper()}; '
        f'{name.upper()}({str(root)!r}, download=True)"\n'
        "or set RKDKIT_DATA to the folder that holds it."
    )


def _tiny_imagenet(root: Path) -> Dataset:
    folder = root / "tiny-imagenet-200"
    ids, table = folder / "wnids.txt", folder / "val" / "val_annotations.txt"
    for needed in (ids, table):
        if not needed.is_file():
            raise DataNotFoundError(
                f"Tiny ImageNet was looked for in {folder}, and {needed} is not there. Download (250 MB) and unpack\n"
                f"    http://cs231n.stanford.edu/tiny-imagenet-200.zip\nin {root}, "
                "or set RKDKIT_DATA to the folder that holds tiny-imagenet-200."
            )
    classes = tuple(ids.read_text(encoding="utf-8", errors="replace").split())
    train = image_files.in_class_folders(folder / "train", classes, "images")
    test = image_files.annotated(table, folder / "val" / "images", classes)
    for part, files, published in zip(("train", "val"), (train, test), TINY_IMAGENET_SIZES, strict=True):
        if len(files) != published:
            raise ValueError(f"{folder / part} has {len(files):,} images, not {published:,}. Unpack the zip again.")
    source = "Tiny ImageNet as published; its validation images are the test set"
    shape = (3, 64, 64)
    splits = _read(folder / "train", train, shape, True), _read(folder / "val", test, shape, True)
    return Dataset("tiny_imagenet", *splits, classes, source)


def _own_folder(folder: str, root: Path) -> Dataset:
    name, path = f"folder:{folder}", root / folder
    classes = image_files.class_names(path / "train")
    if len(classes) < 2:
        raise DataNotFoundError(
            f"{name} was looked for in {path}, and {path / 'train'} does not hold a folder for each of two or more "
            "classes. Put images there as train/<class>/*.png or *.jpg and test/<class>/..., "
            "or set RKDKIT_DATA to the folder that holds it."
        )
    return _image_folder(name, path, classes)


def _image_folder(name: str, folder: Path, classes: tuple[str, ...], shape: image_files.Shape | None = None) -> Dataset:
    """Read ``train/<class>/*`` and ``test/<class>/*``; without a `shape`, all must have the shape of the first."""
    train, test = (image_files.in_class_folders(folder / part, classes) for part in ("train", "test"))
    suffixes = {path.suffix.lower() for path, _ in train + test}
    source = f"{name} from a folder of {' and '.join(sorted(suffixes))} files"
    if shape and suffixes - {".png"}:
        source += " (a JPEG copy: not pixel-identical to the published images)"
    wanted = shape or image_files.shape_of(train[0][0])
    splits = _read(folder / "train", train, wanted, bool(shape)), _read(folder / "test", test, wanted, bool(shape))
    return Dataset(name, *splits, classes, source)


def _read(folder: Path, files: list[image_files.LabelledFile], shape: image_files.Shape, grey_as_colour: bool) -> Split:
    # the files are listed class by class; after shuffling, the first n test images are a sample of all classes
    order = fixed_permutation(len(files)).tolist()
    images = image_cache.read(folder, [files[i][0] for i in order], shape, grey_as_colour)
    return Split(images, torch.tensor([files[i][1] for i in order]))


_Points = tuple[np.ndarray, np.ndarray]

APART = 32
"""The smallest l_inf distance of two points of "scattered", in multiples of 1/255."""

PLANE = ("scattered", "moons", "circles")
"""The sets of points of the plane."""

PLANE_CLASSES = ("first", "second")
DIGITS_CLASSES = tuple("0123456789")
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# the published order of the fine labels
CIFAR100_CLASSES = (
    *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl"),
    *("boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair"),
    *("chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin"),
    *("elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp"),
    *("lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain"),
    *("mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck"),
    *("pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road"),
    *("rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider"),
    *("squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television"),
    *("tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf"),
    *("woman", "worm"),
)
TINY_IMAGENET_SIZES = (100_000, 10_000)

SOURCES: dict[str, Source] = {
    "digits": Source(_digits, eps=0.25, augmentation="none", classes=DIGITS_CLASSES),
    # at this radius, the boxes around training points of different classes do not meet
    "scattered": Source(_scattered, eps=0.04, augmentation="none", classes=PLANE_CLASSES),
    "moons": Source(_moons, eps=0.04, augmentation="none", classes=PLANE_CLASSES),
    "circles": Source(_circles, eps=0.04, augmentation="none", classes=PLANE_CLASSES),
    "cifar10": Source(
        partial(_cifar, 10, "cifar-10-batches-py"), 8 / 255, "crop-flip", CIFAR10_CLASSES,
        published=(50_000, 10_000, 10, (3, 32, 32)),
    ),
    "cifar100": Source(
        partial(_cifar, 100, "cifar-100-python"), 8 / 255, "crop-flip", CIFAR100_CLASSES,
        published=(50_000, 10_000, 100, (3, 32, 32)),
    ),
    "tiny_imagenet": Source(
        _tiny_imagenet, 8 / 255, "crop-flip", published=(*TINY_IMAGENET_SIZES, 200, (3, 64, 64))
    ),
}  # fmt: skip
"""The datasets by name; :func:`source_of` also accepts "folder:NAME" and selections of classes."""
