"""Settings that change the kit's speed and, except for rounding, nothing else; they are not part of a specification."""

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

from rkdkit import checks, data, models
from rkdkit.graphs import DEVICES, Graphs

COMPILE = GRAPHS = ("auto", "on", "off")
"""The possible values of `Settings.compile` and of `Settings.graphs`."""

DATA_ON = ("auto", "device", "host")
"""The possible values of `Settings.data_on`."""

LEAST_ON_HOST = 2**28
"""Fewer bytes of images are always on the device where "auto" decides."""

SHARE_OF_DATA = 0.25
"""The share of a GPU's memory beyond which "auto" leaves images on the host; networks and activations take the rest."""

LEAST_NETWORK = 10_000_000
"""The multiply-adds per image from which "auto" compiles a network; compiling a smaller one never pays off."""

OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"deterministic": True}
"""Options of compilation. Without them, reductions on a GPU are tuned by time, and a resumed run could round
differently."""

LEAST_WORK = {"cpu": 1e15}
"""The work from which "auto" compiles, by type of device: multiply-adds times images times passes.

On a device type that is not listed, "auto" compiles nothing; on a GPU it has not been tried yet."""

GRAPHS_PAY: frozenset[str] = frozenset()
"""The types of device on which "auto" captures attacks as graphs: none, until it was seen to be right and faster."""


@dataclass(frozen=True)
class Settings:
    """Settings that only change the speed.

    Attributes
    ----------
    compile : whether networks are compiled by `torch.compile`, which takes a minute or two per architecture: "on",
        "off", or "auto": if the work is large enough and the machine has what compilation needs.
    evaluation_batch_size : images per batch in an evaluation; None: 256. AutoAttack and Square have their own batch
        size.
    graphs : whether the steps of a training's attack are captured as one graph, which only a GPU can: "on", "off", or
        "auto": if it was seen to be right and faster on such a device.
    data_on : where the images are that a network is trained on: on the "device"; on the "host", memory-mapped if they
        are large, from where each batch is copied; or "auto": on a GPU, unless they would take more than
        `SHARE_OF_DATA` of its memory, and otherwise where they are.
    micro_batch : the most images of a training's batch that go through the networks at once; None: the whole batch.
        It is refused where it would change what is trained, see `accumulation`.

    Raises
    ------
    UnknownNameError
        If `compile`, `graphs` or `data_on` is none of these.
    ValueError
        If `evaluation_batch_size` or `micro_batch` is not a whole number, or is below 1.
    """

    compile: str = "auto"
    evaluation_batch_size: int | None = None
    graphs: str = "auto"
    data_on: str = "auto"
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        checks.coerce_fields(self)
        checks.one_of("runtime setting compile", self.compile, COMPILE)
        checks.one_of("runtime setting graphs", self.graphs, GRAPHS)
        checks.one_of("runtime setting data_on", self.data_on, DATA_ON)
        for name in ("evaluation_batch_size", "micro_batch"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), 1)


_HELD: ContextVar[Settings | None] = ContextVar("settings", default=None)


@contextmanager
def using(settings: Settings) -> Iterator[Settings]:
    """Use these settings within a ``with`` block, whatever the environment variables say."""
    token = _HELD.set(settings)
    try:
        yield settings
    finally:
        _HELD.reset(token)


def current() -> Settings:
    """Return the settings of :func:`using`, else of the environment, else the defaults.

    The variables are $RKDKIT_COMPILE, $RKDKIT_EVALUATION_BATCH, $RKDKIT_GRAPHS, $RKDKIT_DATA_ON and
    $RKDKIT_MICRO_BATCH.

    Raises
    ------
    UnknownNameError
        If $RKDKIT_COMPILE is not one of `COMPILE`, $RKDKIT_GRAPHS not one of `GRAPHS`, or $RKDKIT_DATA_ON not one of
        `DATA_ON`.
    ValueError
        If $RKDKIT_EVALUATION_BATCH or $RKDKIT_MICRO_BATCH is not a whole number of at least 1.
    """
    held = _HELD.get()
    if held is not None:
        return held
    mode = os.environ.get("RKDKIT_COMPILE") or "auto"
    checks.one_of("RKDKIT_COMPILE", mode, COMPILE)
    data_on = checks.one_of("RKDKIT_DATA_ON", os.environ.get("RKDKIT_DATA_ON") or "auto", DATA_ON)
    graphs = checks.one_of("RKDKIT_GRAPHS", os.environ.get("RKDKIT_GRAPHS") or "auto", GRAPHS)
    size, parts = _number_in("RKDKIT_EVALUATION_BATCH"), _number_in("RKDKIT_MICRO_BATCH")
    return Settings(mode, size, graphs, data_on=data_on, micro_batch=parts)


def _number_in(variable: str) -> int | None:
    """Return the number in a variable of the environment; None: it is not set."""
    said = os.environ.get(variable)
    if said and not (said.isdecimal() and int(said) > 0):
        raise ValueError(f"{variable} must be a whole number of at least 1, not {said!r}.")
    return int(said) if said else None


def placed(images: data.Split, device: torch.device) -> data.Split:
    """Return the images of a training where it is to find them: on its device, or where they are.

    Parameters
    ----------
    images : in memory or memory-mapped; :func:`data.batches` takes them in both places.
    device : of the training.
    """
    where = current().data_on
    if where == "auto":
        size = math.inf
        if device.type == "cuda" and torch.cuda.is_available():
            size = torch.cuda.get_device_properties(device).total_memory
        where = "host" if device.type == "cpu" or stays_on_host(images.nbytes, size) else "device"
    return images if where == "host" else images.to(device)


def stays_on_host(nbytes: int, size: float) -> bool:
    """Return whether images of so many bytes stay on the host, where the GPU has `size` bytes of memory."""
    where = current().data_on
    return where == "host" or (where == "auto" and nbytes > max(LEAST_ON_HOST, SHARE_OF_DATA * size))


def compiles(device: torch.device, networks: Sequence[nn.Module], shape: Sequence[int], passes: float) -> bool:
    """Decide whether networks are compiled, from the settings, the device and the total work.

    Parameters
    ----------
    device : the networks' device.
    networks : the networks to decide about; foreign networks are never compiled.
    shape : (C, H, W) of an image.
    passes : the number of images that go through each network, each pass counted, from the start to the end of the
        work. It does not depend on the progress, so a resumed training decides as it did at first and ends with the
        same bits.

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
    """Compile a network in place, if it is one of the kit's; its weights keep their names.

    It is compiled separately for each batch size, and for training, attack and evaluation. Networks of one architecture
    share the compiled code.
    """
    if isinstance(network, models.Classifier):
        _make_room()
        network.compile(dynamic=False, options=OPTIONS)


def graphs(device: torch.device, networks: Sequence[nn.Module]) -> Graphs | None:
    """Return what captures the steps of a training's attacks, as the settings and the device decide; None: nothing.

    Parameters
    ----------
    device : the networks' device.
    networks : all networks of the training; with one from elsewhere nothing is captured, since it may decide by what
        it computes.

    Raises
    ------
    RuntimeError
        If the setting is "on", and the device is none that captures.
    """
    mode = current().graphs
    if mode == "on" and device.type not in DEVICES:
        raise RuntimeError(
            f"RKDKIT_GRAPHS is on, but only a GPU ({', '.join(DEVICES)}) captures graphs, and this training is on "
            f"{device.type}: set RKDKIT_GRAPHS to auto or off."
        )
    wanted = mode == "on" or (mode == "auto" and device.type in GRAPHS_PAY)
    if not wanted or not all(isinstance(network, models.Classifier) for network in networks):
        return None
    return Graphs(DEVICES[device.type]())


class FullBatches(nn.Module):
    """A network in eval mode that is compiled for one batch size and accepts any number of images.

    Parameters
    ----------
    network : (N, C, H, W) -> (N, classes); it is not changed.
    size : the number of images in a full batch. At most half a batch, or more than a batch, goes through the network
        itself, uncompiled; otherwise repeated images fill the batch, and their outputs are dropped.
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
    # all networks share one limit, beyond which nothing is compiled
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)


@lru_cache
def _multiply_adds(architecture: str, shape: tuple[int, ...]) -> int:
    with torch.device("meta"):
        network = models.build(architecture, 10, [0.5] * shape[0], [0.5] * shape[0])
    return models.cost(network, shape).multiply_adds


def _lacking(device_type: str) -> str:
    """Say which is missing of a C++ compiler, Python's headers and, for a GPU, Triton; "": none is missing."""
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
