"""Settings that change how fast the kit is and, but for rounding, nothing else: they are no part of a specification."""

import math
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from rkdkit import checks, models

COMPILE = ("auto", "on", "off")
"""What `Settings.compile` may be."""

LEAST_NETWORK = 10_000_000
"""From how many multiply-adds an image on "auto" compiles a network: a smaller one never pays for it."""

OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"deterministic": True}
"""Of compilation: on a GPU reductions would else be tuned by time, and a run taken up again would round differently."""

LEAST_WORK = {"cpu": 1e15}
"""From how much work on "auto" compiles, by type of device: multiply-adds times images times passes.

On a device that is not here it compiles nothing: on a GPU nobody has tried it yet."""


@dataclass(frozen=True)
class Settings:
    """What only changes the speed.

    Attributes
    ----------
    compile : whether networks are compiled by `torch.compile`, a minute or two of work for each architecture: "on",
        "off", or "auto", where the work ahead is worth it and the machine can.
    evaluation_batch_size : images at once in an evaluation; None: 256. AutoAttack and Square have their own.

    Raises
    ------
    UnknownNameError
        If `compile` is another.
    ValueError
        If `evaluation_batch_size` is no whole number, or below 1.
    """

    compile: str = "auto"
    evaluation_batch_size: int | None = None

    def __post_init__(self) -> None:
        checks.coerce_fields(self)
        checks.one_of("runtime setting compile", self.compile, COMPILE)
        if self.evaluation_batch_size is not None:
            checks.number("evaluation_batch_size", self.evaluation_batch_size, 1)


_HELD: ContextVar[Settings | None] = ContextVar("settings", default=None)


@contextmanager
def using(settings: Settings) -> Iterator[Settings]:
    """Hold a context that goes by these settings, whatever the environment says."""
    token = _HELD.set(settings)
    try:
        yield settings
    finally:
        _HELD.reset(token)


def current() -> Settings:
    """Return what :func:`using` holds, else what $RKDKIT_COMPILE and $RKDKIT_EVALUATION_BATCH say, else the defaults.

    Raises
    ------
    UnknownNameError
        If $RKDKIT_COMPILE is not one of `COMPILE`.
    ValueError
        If $RKDKIT_EVALUATION_BATCH is no whole number of at least 1.
    """
    held = _HELD.get()
    if held is not None:
        return held
    mode, size = os.environ.get("RKDKIT_COMPILE") or "auto", os.environ.get("RKDKIT_EVALUATION_BATCH")
    checks.one_of("RKDKIT_COMPILE", mode, COMPILE)
    if size and not (size.isdecimal() and int(size) > 0):
        raise ValueError(f"RKDKIT_EVALUATION_BATCH must be a whole number of at least 1, not {size!r}.")
    return Settings(mode, int(size) if size else None)


def compiles(device: torch.device, networks: Sequence[nn.Module], shape: Sequence[int], passes: float) -> bool:
    """Decide whether networks are to be compiled, by the settings, the device and the whole of the work.

    Parameters
    ----------
    device : where they are.
    networks : what would be compiled; networks from elsewhere never are.
    shape : (C, H, W) of an image.
    passes : how many images go through each of them, counted each time, from the beginning to the end of the work:
        a training that is taken up again decides as it did at first, and so goes on to the same bits.

    Raises
    ------
    RuntimeError
        If the setting is "on" and the machine lacks what compilation needs.
    """
    mode = current().compile
    own = [network.architecture for network in networks if isinstance(network, models.Classifier)]
    if mode == "off" or not own:
        return False
    if mode == "on":
        if lacking := _lacking(device.type):
            raise RuntimeError(f"RKDKIT_COMPILE is on, but {lacking}; or set RKDKIT_COMPILE to auto or off.")
        return True
    costs = [_multiply_adds(architecture, tuple(shape)) for architecture in own if architecture]
    enough = sum(costs) * passes >= LEAST_WORK.get(device.type, math.inf)
    return enough and min(costs, default=0) >= LEAST_NETWORK and not _lacking(device.type)


def compile_in_place(network: nn.Module) -> None:
    """Let a network run compiled from now on, if it is the kit's; its weights keep their names.

    It is compiled anew for each size of batch, and for training, for being attacked and for being asked. Networks of
    one architecture share what was compiled.
    """
    if isinstance(network, models.Classifier):
        _make_room()
        network.compile(dynamic=False, options=OPTIONS)


class FullBatches(nn.Module):
    """A network in eval mode that is compiled for one size of batch, and can be asked about any number of images.

    Parameters
    ----------
    network : (N, C, H, W) -> (N, classes); it stays as it is.
    size : of a full batch. Up to half as many images go through the network itself; up to a full batch, repeated images
        fill it, and their answers are dropped.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        _make_room()
        self.network, self.size = network, size
        self.num_classes = getattr(network, "num_classes", torch.iinfo(torch.int64).max)
        self._compiled = torch.compile(network.__call__, dynamic=False, options=OPTIONS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        n = len(x)
        if not self.size // 2 < n <= self.size:
            answers: Tensor = self.network(x)
            return answers
        if n < self.size:
            x = torch.cat([x, x.detach()[: self.size - n]])
        answers = self._compiled(x)
        return answers[:n]


def _make_room() -> None:
    # all networks share one limit, and beyond it nothing is compiled any more
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)


@lru_cache
def _multiply_adds(architecture: str, shape: tuple[int, ...]) -> int:
    with torch.device("meta"):
        network = models.build(architecture, 10, [0.5] * shape[0], [0.5] * shape[0])
    return models.cost(network, shape).multiply_adds


def _lacking(device_type: str) -> str:
    """Say what is not there of a C++ compiler, Python's headers and, for a GPU, Triton; "" where all are."""
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler}: install it (on Debian and Ubuntu: apt install g++)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers (Python.h) are not there: install them (on Debian and Ubuntu: apt install python3-dev)"
    if device_type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "Triton does not work on this GPU: install triton, if the GPU's compute capability is 7.0 or more"
    return ""
