"""What makes a run repeatable: randomness that belongs to (seed, epoch, purpose), and exact arithmetic."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(*key: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on `key` alone, alike on every platform."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """Return a CPU generator derived from (seed, epoch, purpose), never from global state.

    Parameters
    ----------
    seed : the run's seed.
    epoch : the epoch it serves, counted from 1; 0 for what happens before the first.
    purpose : what is drawn from it: "order", "augmentation", "attack", ...
    """
    return torch.Generator().manual_seed(derived_seed(seed, epoch, purpose))


_NEWER_SETTINGS = (
    "torch's fp32_precision was set (torch.backends.fp32_precision, or one below it), which does not go with the kit's "
    "own settings. Leave it alone, in a fresh process: the kit computes in plain float32 by itself."
)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Hold a context in which a GPU's convolutions are deterministic, and float32 is neither TF32 nor autocast to less.

    Whatever the caller chose comes back afterwards.

    Raises
    ------
    RuntimeError
        If the caller set `fp32_precision`, torch's newer settings, to what does not go with the older ones, which this
        function and torch.compile use.
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
