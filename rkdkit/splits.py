"""Images and labels as uint8, in memory or memory-mapped, and the batches made from them, without loader processes.

Images that a device has no room for stay on the host: a batch is gathered there, and the next one beside its use.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import checks

PARTS = ("test", "train", "val")
"""The test images, the training images, and the images that are held out for choosing an epoch."""

AUGMENTATIONS = ("none", "crop-flip", "crop-flip-cutout")

LEAST_AS_ROWS = 2**28
"""A choice of images of more bytes than this is kept as a list of their rows: no image is copied until it is used."""

CHUNK = 2**22
"""How many bytes of images are looked at together where all of them are looked at."""


@dataclass(frozen=True, eq=False)
class Split:
    """Some images and their labels.

    Attributes
    ----------
    pixels : (M, C, H, W) uint8; they may be memory-mapped.
    labels : (N,) int64.
    rows : (N,) int64, which of `pixels` are the images, in their order; None: all of them, as they stand.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor | None = None

    @property
    def images(self) -> Tensor:
        """The images, (N, C, H, W) uint8; where they are kept as rows, each access gathers a copy of all of them."""
        return self.pixels if self.rows is None else self.pixels[self.rows]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def nbytes(self) -> int:
        """The bytes of the images, wherever they are."""
        return len(self) * math.prod(self.shape) * self.pixels.element_size()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | slice) -> "Split":
        """Return the images and labels at `index`; for a slice of all of them, the same object, digest included.

        More than `LEAST_AS_ROWS` bytes of images are not copied, but kept as rows.
        """
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self
        if self.rows is None and isinstance(index, slice):
            return Split(self.pixels[index], self.labels[index])
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)
        labels = self.labels[index]
        chosen = index if self.rows is None else self.rows[index]
        assert isinstance(chosen, Tensor)
        kept = Split(self.pixels, labels, chosen)
        return kept if kept.nbytes > LEAST_AS_ROWS else Split(self.pixels[chosen], labels)

    def to(self, device: torch.device) -> "Split":
        """Return the same images and labels on `device`, as pixels."""
        if self.rows is None:
            return Split(self.pixels.to(device), self.labels.to(device))
        images = torch.empty((len(self), *self.shape), dtype=self.pixels.dtype, device=device)
        start = 0
        for chunk in self.chunks():
            images[start : start + len(chunk)].copy_(chunk)
            start += len(chunk)
        return Split(images, self.labels.to(device))

    def chunks(self) -> Iterator[Tensor]:
        """Yield all images in order, (n, C, H, W) of `CHUNK` bytes at most, or one image."""
        n = max(1, CHUNK // max(math.prod(self.shape) * self.pixels.element_size(), 1))
        for start in range(0, len(self), n):
            at = slice(start, start + n)
            yield self.pixels[at if self.rows is None else self.rows[at]]

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of shape, images and labels, which identifies the data."""
        sha = hashlib.sha256(repr((len(self), *self.shape)).encode())
        for tensor in itertools.chain(self.chunks(), [self.labels]):
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
    _parts: dict[tuple[object, ...], Split] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for part, split in (("training", self.train), ("test", self.test)):
            checks.images(split.pixels, f"{self.name}: {part} images")
            if split.pixels.dtype != torch.uint8:
                raise ValueError(f"{self.name}: {part} images must be uint8, not {split.pixels.dtype}.")
            n = len(split.pixels if split.rows is None else split.rows)
            checks.labels(split.labels, n, len(self.classes), f"{self.name}: {part} labels")
        if self.train.shape != self.test.shape:
            raise ValueError(
                f"{self.name}: training images are {self.train.shape}, test images {self.test.shape}; "
                "they must be of one shape."
            )

    @cached_property
    def digest(self) -> str:
        """The digest of the two splits' digests, which identifies the data."""
        return hashlib.sha256(f"{self.train.digest}{self.test.digest}".encode()).hexdigest()[:16]

    @cached_property
    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of the training images, as fractions of 255."""
        counted = torch.zeros(self.train.shape[0], 256, dtype=torch.int64)
        for chunk in self.train.chunks():
            pixels = chunk.transpose(0, 1).flatten(1)
            counted += torch.stack([torch.bincount(channel, minlength=256) for channel in pixels])
        # a histogram is exact in float64 and needs no float copy of the images
        counts = counted.double()
        values = torch.arange(256, dtype=torch.float64) / 255
        share = counts / counts.sum(1, keepdim=True)
        mean = share @ values
        std = (share @ values.square() - mean.square()).clamp_min(1e-12).sqrt()
        return tuple(mean.tolist()), tuple(std.tolist())

    def split_validation(self, n_train: int | None, n_val: int) -> tuple[Split, Split]:
        """Split the training set into images to train on and held-out ones, the same for every run and seed.

        Parameters
        ----------
        n_train : the number of images to train on; None: all that are not held out.
        n_val : the number of images to hold out for choosing an epoch.

        Returns
        -------
        train, validation : two :class:`Split` without a common image.

        Raises
        ------
        ValueError
            If there are fewer images than requested.
        """
        total = len(self.train)
        n_val = checks.whole("n_val", n_val, 0)
        n_train = total - n_val if n_train is None else checks.whole("n_train", n_train)
        if n_train < 1 or n_train + n_val > total:
            raise ValueError(
                f"{self.name} has {total:,} training images: n_train {n_train:,} and n_val {n_val:,} "
                "must be at least 1 and 0 and together no more than that."
            )
        order = fixed_permutation(total)
        return self.train.take(order[n_val : n_val + n_train]), self.train.take(order[:n_val])

    def images(
        self,
        part: str = "test",
        n: int | None = None,
        n_train: int | None = None,
        n_val: int = 0,
        classes: Sequence[str] = (),
    ) -> Split:
        """Return some of the images; the same object each time, so that its digest is computed once.

        Parameters
        ----------
        part : "test"; "train", the images to train on; or "val", the held-out images.
        n : use only the first n images of that part, a whole number of at least 0; None: all.
        n_train, n_val : as :meth:`split_validation`.
        classes : of those images, use only these classes; (): all classes.

        Raises
        ------
        UnknownNameError
            If there is no such part or class.
        ValueError
            As :meth:`split_validation`; or if `n` is negative or not whole.
        """
        checks.one_of("part of the data", part, PARTS)
        n = None if n is None else checks.whole("n, how many images,", n, 0)
        asked = (part, n, n_train, n_val, tuple(classes))
        if asked not in self._parts:
            train, val = self.split_validation(n_train, n_val) if part != "test" else (self.train, self.train)
            split = {"test": self.test, "train": train, "val": val}[part].take(slice(0, n))
            if classes:
                labels = [self.classes.index(checks.one_of(f"class of {self.name}", c, self.classes)) for c in classes]
                split = split.take(torch.isin(split.labels, torch.tensor(labels)))
            self._parts[asked] = split
        return self._parts[asked]


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [0, 1], with the same shape and device."""
    return images.float().div_(255)


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Augment a batch on its device; the random numbers are drawn on the CPU, so they are the same on every device.

    Parameters
    ----------
    images : (N, C, H, W), any dtype.
    kind : "none"; "crop-flip": pad with 4 zeros on each side, crop at a random place, mirror with probability 1/2; or
        "crop-flip-cutout": also Cutout (DeVries & Taylor 2017), which sets a square of side H // 2 around a random
        pixel to 0; the square may extend beyond the image. Here 0 is black, because Cutout comes before normalisation;
        in the authors' code it comes after, so 0 is the mean. The padding is 4 for larger images, too: the papers do
        not give it, and PeerAiD's code uses 4 for Tiny ImageNet.
    generator : a CPU generator.

    Returns
    -------
    (N, C, H, W), same dtype and device.

    Raises
    ------
    UnknownNameError
        If `kind` is none of these.
    """
    if checks.one_of("augmentation", kind, AUGMENTATIONS) == "none":
        return images
    images = _crop_and_flip(images, generator)
    return images if kind == "crop-flip" else _cut_out(images, generator)


def _crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    n, channels, height, width = images.shape
    top = torch.randint(0, 9, (n, 1), generator=generator)
    left = torch.randint(0, 9, (n, 1), generator=generator)
    mirrored = torch.rand((n, 1), generator=generator) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width))
    here = images.device
    at = torch.arange(n, device=here).view(n, 1, 1, 1), torch.arange(channels, device=here).view(1, channels, 1, 1)
    drawn = _sent(rows.view(n, 1, height, 1), here), _sent(columns.view(n, 1, 1, width), here)
    return F.pad(images, (4, 4, 4, 4))[*at, *drawn]


def _cut_out(images: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    side = height // 2

    def hidden(length: int) -> Tensor:
        start = torch.randint(0, length, (n, 1), generator=generator) - side // 2
        offset = torch.arange(length) - start
        return _sent((offset >= 0) & (offset < side), images.device)

    rows, columns = hidden(height), hidden(width)
    return images.masked_fill(rows.view(n, 1, height, 1) & columns.view(n, 1, 1, width), 0)


def _sent(drawn: Tensor, device: torch.device) -> Tensor:
    """Return on `device` random numbers that were drawn on the CPU."""
    # pinned memory, so that the copy does not wait for the GPU's current work
    return (drawn.pin_memory() if device.type == "cuda" else drawn).to(device, non_blocking=True)


def batches(
    split: Split,
    batch_size: int,
    augmentation: str,
    order: torch.Generator,
    extra: Split | None = None,
    extra_fraction: float = 0.0,
    device: torch.device | None = None,
) -> Iterator[Split]:
    """Return one epoch of shuffled, augmented batches with float32 images in [0, 1].

    Every batch has the same size. The few images left over at the end of an epoch's order are not used in that epoch,
    because batch normalisation over a few images would change the network. A split smaller than `batch_size` is one
    batch.

    With extra images, an epoch has as many batches as without, so that the schedule stays the same (Rebuffi et al.
    2021). So an epoch uses only some images of `split`, each at most once. `extra` is used in a shuffled order; if it
    ends within the epoch, it starts again in a new order.

    Parameters
    ----------
    split : the images, on `device` or on the host.
    batch_size : the number of images per batch.
    augmentation : one of `AUGMENTATIONS`.
    order : a CPU generator for the order and the augmentation.
    extra : images to mix in, of the same shape.
    extra_fraction : the share of `extra` in a batch, in [0, 1], rounded to whole images.
    device : of the batches; None: that of `split`. Images that are on the host when it is another are gathered there,
        a batch ahead, and copied without a wait; the batches are the same bit for bit.

    Raises
    ------
    ValueError
        If there are no images, `batch_size` is below 1, or `extra_fraction` is outside [0, 1] or above 0 without extra
        images.
    """
    checks.number("The number of images to make batches of", len(split), 1)
    batch_size = checks.whole("batch_size", batch_size, 1)
    checks.number("extra_fraction", extra_fraction, 0, 1)
    size = min(batch_size, len(split))
    n_extra = round(extra_fraction * size)
    if extra_fraction and not extra:
        raise ValueError(f"extra_fraction is {extra_fraction:g}, but there are no extra images.")
    steps = range(batches_per_epoch(len(split), batch_size))
    parts = [(split, _shuffled_passes(split, size - n_extra, order))]
    if extra:
        parts.append((extra, _shuffled_passes(extra, n_extra, order)))
    here = split.labels.device if device is None else device
    if any(part.labels.device != here for part, _ in parts):
        return _gathered_ahead(parts, len(steps), here, lambda taken: _batch(taken, augmentation, order))
    return (_batch([part.take(next(index)) for part, index in parts], augmentation, order) for _ in steps)


def _gathered_ahead(
    parts: Sequence[tuple[Split, Iterator[Tensor]]],
    steps: int,
    device: torch.device,
    made: Callable[[list[Split]], Split],
) -> Iterator[Split]:
    """Yield batches of images of the host; while one is used, a thread gathers the next.

    Random numbers are drawn as without it, the next batch's order after this one's augmentation.
    """

    def begun(beside: ThreadPoolExecutor) -> list[tuple[Split, Future[Tensor] | None]]:
        taken: list[tuple[Split, Future[Tensor] | None]] = []
        for part, indices in parts:
            index = next(indices)
            if part.labels.device == device:
                taken.append((part.take(index), None))
                continue
            # torch keeps pinned memory for use again, once the copy from it is done
            pinned = device.type == "cuda"
            images = torch.empty((len(index), *part.shape), dtype=part.pixels.dtype, pin_memory=pinned)
            rows = index if part.rows is None else part.rows[index]
            gathering = beside.submit(torch.index_select, part.pixels, 0, rows, out=images)
            taken.append((Split(images, _sent(part.labels[index], device)), gathering))
        return taken

    def there(taken: Split, gathering: "Future[Tensor] | None") -> Split:
        if gathering is None:
            return taken
        gathering.result()
        return Split(taken.pixels.to(device, non_blocking=True), taken.labels)

    with ThreadPoolExecutor(1, "images") as beside:
        ahead = begun(beside)
        for step in range(steps):
            batch = made([there(*each) for each in ahead])
            if step + 1 < steps:
                ahead = begun(beside)
            yield batch


def _shuffled_passes(split: Split, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Yield `size` indices into `split` at a time, from one shuffled order after another."""
    waiting = torch.empty(0, dtype=torch.int64, device=split.labels.device)
    while True:
        while len(waiting) < size:
            shuffled = _sent(torch.randperm(len(split), generator=order), waiting.device)
            waiting = torch.cat([waiting, shuffled])
        yield waiting[:size]
        waiting = waiting[size:]


def _batch(parts: list[Split], augmentation: str, order: torch.Generator) -> Split:
    images = torch.cat([part.images for part in parts])
    return Split(to_float(augment(images, augmentation, order)), torch.cat([part.labels for part in parts]))


def batches_per_epoch(n_images: int, batch_size: int) -> int:
    """Return the number of batches of :func:`batches`."""
    return max(n_images // batch_size, 1)


def fixed_permutation(n: int) -> Tensor:
    """Return one shuffled order of 0 .. n - 1, the same for every run, seed and version; (n,) int64."""
    # numpy's compatibility policy guarantees RandomState's stream, so the split is the same in every version
    return torch.from_numpy(np.random.RandomState(0).permutation(n))
