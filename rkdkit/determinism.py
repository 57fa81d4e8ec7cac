"""What makes a run repeatable: randomness that belongs to (seed, epoch, purpose), and exact arithmetic."""

import hashlib
from contextlib import AbstractContextManager

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


def exact_arithmetic() -> AbstractContextManager[None]:
    """Return a context in which convolutions on a GPU are deterministic and float32 means float32, not TF32."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
