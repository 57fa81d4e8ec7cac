"""Read foreign weights (PyTorch state dicts, safetensors) and export networks (safetensors, .pt2).

Nothing in a file is executed: torch's restricted reader accepts only tensors and plain containers.
"""

import copy
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from rkdkit import checks, models
from rkdkit.store import write_atomically


class StateDictError(ValueError):
    """A file's weights do not fit the requested network; the message says how they differ."""


SHOWN = 5
"""How many names of each kind an error lists."""

# the keys under which files hold the state dict, and the prefixes that wrappers add to names: DataParallel, an
# attribute of a larger module, torch.compile, nn.Sequential(normalisation, network)
_NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net")
_WRAPPERS = ("module.", "model.", "net.", "_orig_mod.", "0.", "1.")

# a block's index in kuangliu's and torchvision's ResNets, TRADES's and DeepMind's WideResNets, kuangliu's MobileNetV2
_BLOCK = re.compile(r"(?:layer(\d+)|block(\d+)\.layer|layer\.(\d+)\.block|layers)\.(\d+)\.")

_HEAD = {r"^(linear|fc|logits)\.": "head."}
_RESNET = _HEAD | {r"^conv1\.": "stem.0.", r"^bn1\.": "stem.1.", r"\.downsample\.": ".shortcut."}
_PREACT = _HEAD | {r"^conv1\.": "stem.", r"^bn\.": "norm.", r"\.shortcut\.0\.": ".shortcut."}
_RENAMINGS = {
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "preact-resnet18": _PREACT,
    "preact-resnet18-kuangliu": _PREACT,
    "preact-resnet18-wong": _PREACT,
    # the two WideResNets have weights of the same shapes, but different names
    "wrn-34-10": _HEAD | {r"^conv1\.": "stem.", r"^bn1\.": "norm.", r"\.convShortcut\.": ".shortcut."},
    "wrn-28-10-silu": _HEAD
    | {r"^init_conv\.": "stem.", r"^batchnorm\.": "norm.", r"\.batchnorm_0\.": ".bn1.", r"\.batchnorm_1\.": ".bn2."}
    | {r"\.conv_0\.": ".conv1.", r"\.conv_1\.": ".conv2."},
    "mlp-10": _HEAD,
    "mlp-5": _HEAD,
    "mobilenetv2": _HEAD | {r"^conv1\.": "stem.0.", r"^bn1\.": "stem.1.", r"^conv2\.": "last.0.", r"^bn2\.": "last.1."},
}

NORMALISATIONS = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    "none": ([0.0], [1.0]),
}
"""Mean and std of each channel by name, in [0, 1] pixel units, as DeepMind's code for Gowal et al. 2020 and RobustBench
have them. "none" is for networks that take images in [0, 1] as they are; its numbers are for every channel."""

NORMALISING = ("wrn-28-10-silu", "preact-resnet18-wong")
"""The architectures whose published networks normalise their images by numbers that are not in their files.

DeepMind's WideResNets and those that others trained with its code have the mean and std of their dataset in the
program; so has RobustBench for the network of Wong et al. 2020, while it has another one of that architecture, of
Andriushchenko & Flammarion 2020, without normalisation."""

# the last part of the names that mean and std have in files; the second pair is RobustBench's
_STATISTICS = {"mean": "mean", "std": "std", "mu": "mean", "sigma": "std"}


def load_state_dict(
    path: Path | str,
    architecture: str,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalisation: str | None = None,
) -> models.Classifier:
    """Make a network from foreign weights, or from a snapshot of the kit.

    The names may be the kit's own, or those of kuangliu's and torchvision's ResNets (with the CIFAR stem), Rice's
    PreAct ResNet and its variants, TRADES's WideResNet, DeepMind's WideResNet with SiLU, and kuangliu's MobileNetV2,
    with or without wrappers (`module.`, `model.`, "state_dict", ...). Either every tensor is assigned or nothing is
    loaded, with two exceptions: TRADES's `sub_block1`, which does not affect its network's output, is ignored, and
    batch norm's count of batches, which has no effect here, may be missing.

    Two properties of a network are not in its weights, so name them as its authors do. A PreAct ResNet without a last
    norm is either kuangliu's or that of Wong et al. 2020 (RobustBench's). And many networks take normalised images.

    Parameters
    ----------
    path : a file written by torch.save, or a .safetensors file.
    architecture : a name for `models.build`.
    num_classes : the required number of logits; None: the number in the file's last layer.
    mean, std : the normalisation of the network's images, in [0, 1] pixel units, one number per channel. If the file
        holds its own, these are used, and different arguments are refused. If they are neither given nor in the file,
        the architectures of `NORMALISING` are refused, and for the others they are 0 and 1, for networks that take
        images in [0, 1].
    normalisation : instead of `mean` and `std`, a name of `NORMALISATIONS`: "cifar10", "cifar100" or "none".

    Returns
    -------
    Classifier : in eval mode, on the CPU.

    Raises
    ------
    StateDictError
        If the file cannot be read, holds other things than weights, holds weights of another network (the message says
        which are missing, which are unknown and which have another shape), or does not say how its network normalises.
    UnknownNameError, ValueError
        As `models.build`, `normalisation` included; also if it is given together with `mean` or `std`.
    """
    path = Path(path)
    kind = models.parse(architecture)[0]
    renamings = _RENAMINGS[kind]
    if normalisation is not None:
        checks.one_of("normalisation", normalisation, NORMALISATIONS)
        if mean is not None or std is not None:
            raise ValueError(f"Give either normalisation={normalisation!r} or mean and std, not both.")
    tensors = _read(path)
    held = {
        _STATISTICS[name.rpartition(".")[2]]: tensors.pop(name).flatten().tolist()
        for name in list(tensors)
        if name.rpartition(".")[2] in _STATISTICS
    }
    # TRADES's network builds its first stage twice, and never calls the second one
    tensors = {name: t for name, t in _unwrapped(tensors).items() if not name.startswith("sub_block1.")}
    places = _places(tensors, renamings)
    found = {place: tensors[name] for place, name in places.items()}
    channels = _extent(found, ("stem.weight", "stem.0.weight"), 1, default=3)
    if num_classes is None:
        num_classes = _extent(found, ("head.weight",), 0, default=1)
    if normalisation is not None:
        times = channels if normalisation == "none" else 1
        mean, std = (times * values for values in NORMALISATIONS[normalisation])
    network = models.build(architecture, num_classes, *_normalisation(path, held, mean, std, channels))
    own = network.state_dict()
    if differences := _differences(own, tensors, places):
        raise StateDictError(
            f"The weights in {path} are not those of {architecture!r} for {num_classes} classes and {channels} input "
            f"channels: {'; '.join(differences)}. Nothing was loaded. Name the architecture, width and number of "
            "classes that they were trained with."
        )
    given = {"mean": mean, "std": std}
    if kind in NORMALISING and (lacking := [name for name in given if given[name] is None and name not in held]):
        raise StateDictError(
            f"{path} does not hold the {' and '.join(lacking)} of its network's images, and most published networks of "
            f"the architecture {kind!r} normalise their images. Write normalisation='cifar10' or "
            "normalisation='cifar100' for a network trained on these data, mean=[...] and std=[...] for other data, or "
            "normalisation='none' if it takes images in [0, 1] as they are."
        )
    network.load_state_dict({**own, **found})
    return network.eval()


def export(network: models.Classifier, path: Path | str, example_shape: Sequence[int] | None = None) -> None:
    """Write a network for use outside the kit; the file appears whole or not at all.

    Parameters
    ----------
    network : on any device and in any mode; it is not changed.
    path : its suffix decides the format. `.safetensors`: the weights, with the architecture and the number of classes
        as metadata; :func:`load_state_dict` reads it. `.pt2`: the whole network in eval mode on the CPU, by
        torch.export, for any number of images; `torch.export.load(path).module()` is the network, without the kit.
    example_shape : (C, H, W) of the images for a `.pt2`; not needed for a `.safetensors`.

    Raises
    ------
    UnknownNameError, ValueError
        If the suffix is neither of these, or a `.pt2` has no `example_shape`.
    StoreError
        If the file cannot be written.
    """
    path = Path(path)
    suffix = checks.one_of("suffix of an exported file", path.suffix, (".safetensors", ".pt2"))
    if suffix == ".safetensors":
        weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        described = {"architecture": network.architecture, "num_classes": str(network.num_classes)}
        write_atomically(path, safetensors.torch.save(weights, described))
    elif example_shape is None:
        raise ValueError("A .pt2 takes images of one size: give it as example_shape=(C, H, W).")
    else:
        write_atomically(path, _program(network, example_shape))


def digest_of_module(module: nn.Module) -> str:
    """Return the first 16 hex digits of the SHA-256 of a module's class, structure and weights.

    The digest depends on the weights' names, dtypes, shapes and bytes, not on their device, memory layout or order.
    Properties that are neither printed with the module nor in its state dict do not change it.

    Raises
    ------
    ValueError
        If the module has no weights, so that no digest identifies it.
    """
    if not module.state_dict():
        raise ValueError(f"{type(module).__name__} has no weights, so it cannot be told from others of its class.")
    sha = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}\n{module!r}\n".encode())
    for name, tensor in sorted(module.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


def _program(network: models.Classifier, shape: Sequence[int]) -> bytes:
    # contiguous, because torch.export.save warns of channels-last weights
    frozen = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format).eval()
    # two images, because torch.export treats a batch of one as a constant
    images = torch.zeros(2, *shape)
    program = torch.export.export(frozen, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:  # removes paths of this machine
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by their names in it."""
    content: Any
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StateDictError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a reader may raise any error for bytes of another format
        raise StateDictError(
            f"{path} is damaged, or holds other things than tensors; nothing in it was executed. At its origin, "
            "save the network's state_dict() alone, with torch.save or safetensors."
        ) from error
    for key in _NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise StateDictError(f"{path} holds a {type(content).__name__}, not a network's state_dict().")
    if strange := [name for name, value in content.items() if not isinstance(name, str) or not _is_plain(value)]:
        raise StateDictError(
            f"{path} is not a state_dict(): {_listed('entries that are not plain tensors', strange)}. At its origin, "
            "save the network's state_dict() alone."
        )
    return dict(content)


def _is_plain(value: object) -> bool:
    # sparse, quantised or meta tensors cannot be copied into a network's weights
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            return _unwrapped({name.removeprefix(wrapper): tensor for name, tensor in tensors.items()})
    return tensors


def _places(names: Iterable[str], renamings: dict[str, str]) -> dict[str, str]:
    """Return the file's names by the kit's names; if two names are for the same place, the first is used."""
    # (stage, block), where the file numbers stages; the kit numbers all blocks consecutively
    blocks = {n: (int(m[1] or m[2] or m[3] or 0), int(m[4])) for n in names if (m := _BLOCK.match(n))}
    order = sorted(set(blocks.values()))
    places: dict[str, str] = {}
    for name in names:
        place = _BLOCK.sub(f"stages.{order.index(blocks[name])}.", name, count=1) if name in blocks else name
        for pattern, replacement in renamings.items():
            place = re.sub(pattern, replacement, place)
        places.setdefault(place, name)
    return places


def _extent(tensors: dict[str, Tensor], names: Iterable[str], dimension: int, default: int) -> int:
    """Return the size, at least 1, of the first of `names` that is in `tensors`."""
    sizes = (tensors[name].shape[dimension] for name in names if name in tensors and tensors[name].ndim > dimension)
    return max(1, next(sizes, default))


def _normalisation(
    path: Path,
    held: dict[str, list[float]],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channels: int,
) -> tuple[list[float], list[float]]:
    """Return the mean and std of each channel: the file's own, or the arguments, or 0 and 1."""
    chosen = []
    for name, given, neutral in (("mean", mean, 0.0), ("std", std, 1.0)):
        values = list(held.get(name, [neutral] * channels if given is None else given))
        if len(values) != channels:
            raise StateDictError(f"{name} must have one number for each of {channels} input channels, not {values}.")
        if given is not None and name in held and not _close(values, given):
            raise StateDictError(f"{path} holds its own {name}, {values}, not {list(given)}: give no other.")
        chosen.append(values)
    return chosen[0], chosen[1]


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and np.allclose(one, other, atol=1e-3)


def _differences(own: dict[str, Tensor], tensors: dict[str, Tensor], places: dict[str, str]) -> list[str]:
    """Return which weights are missing, unknown or of another shape, in words; empty: all fit."""
    kept_anyway = ("mean", "std", "num_batches_tracked")
    missing = [place for place in own if place not in places and place.rpartition(".")[2] not in kept_anyway]
    fitting = {name: own[place] for place, name in places.items() if place in own}
    unknown = [name for name in tensors if name not in fitting]
    other = [
        f"{name} is {_kind(tensors[name])} and should be {_kind(tensor)}"
        for name, tensor in fitting.items()
        if _kind(tensors[name]) != _kind(tensor)
    ]
    kinds = {"missing": missing, "unknown": unknown, "of another shape or kind": other}
    return [_listed(kind, entries) for kind, entries in kinds.items() if entries]


def _kind(tensor: Tensor) -> str:
    # all floating-point types are converted; integer weights would be quantised, without their scale
    return f"{'floating point' if tensor.is_floating_point() else 'not floating point'} {tuple(tensor.shape)}"


def _listed(kind: str, entries: Sequence[object]) -> str:
    more = ", ..." if len(entries) > SHOWN else ""
    return f"{len(entries)} {kind} ({', '.join(map(str, entries[:SHOWN]))}{more})"
