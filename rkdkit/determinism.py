"""Repeatable runs: random numbers that depend on (seed, epoch, purpose) only, and exact arithmetic."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derived_seed(*key: int | str) -> int:
    """Return a seed in [0, 2**63) that depends only on `key` and is the same on every platform."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Return a CPU generator derived from (seed, epoch, purpose), never from global state.

    Parameters
    ----------
    seed : the run's seed.
    epoch : the epoch it is used in, counted from 1; 0: before the first epoch.
    purpose : what the random numbers are used for: "order", "augmentation", "attack", ...
    """
    return torch.Generator().manual_seed(derived_seed(seed, epoch, purpose))


class PartOfDraws(torch.Generator):
    """A CPU generator for a process that has a share of each batch: what is drawn for whole batches is cut to it.

    Attributes
    ----------
    before, after : how many images of each batch belong to others, before and after this process's.
    """

    before: int = 0
    after: int = 0


def drawn(like: Tensor, generator: torch.Generator, draw: Callable[[Tensor], object]) -> Tensor:
    """Return random numbers of the shape and dtype of some images, on the CPU, and pinned if the images are on a GPU.

    Parameters
    ----------
    like : (N, ...), the images of a batch, or this process's share of them.
    generator : as given to the caller; with a :class:`PartOfDraws`, numbers are drawn for the whole batch.
    draw : fills the tensor that it is given.
    """
    before, after = (generator.before, generator.after) if isinstance(generator, PartOfDraws) else (0, 0)
    n = len(like)
    # pinned memory, so that the copy does not wait for the GPU's current work
    noise = torch.empty((before + n + after, *like.shape[1:]), dtype=like.dtype, pin_memory=like.is_cuda)
    draw(noise)
    return noise[before : before + n]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread within a ``with`` block: the bits then do not depend on how many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_NEWER_SETTINGS = (
    "torch's fp32_precision was set (torch.backends.fp32_precision, or one below it), which conflicts with the kit's "
    "own settings. Start a new process and do not set it: the kit computes in plain float32 without it."
)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within a ``with`` block, make a GPU's convolutions deterministic, and use neither TF32 nor autocast for float32.

    Afterwards the caller's settings are restored.

    Raises
    ------
    RuntimeError
        If the caller set `fp32_precision`, one of torch's newer settings, to a value that conflicts with the older
        settings, which this function and torch.compile use.
    """
    try:
        chosen, _ = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError as error:
        raise RuntimeError(_NEWER_SETTINGS) from error
    if torch.backends.mkldnn.conv.fp32_precision not in ("none", "ieee"):  # type: ignore[attr-defined]
        raise RuntimeError(_NEWER_SETTINGS)
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with flags, torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(chosen)
