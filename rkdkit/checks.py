"""Refuse bad input with a message that names it, before any work starts."""

import difflib
import math
import os
import stat
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line, which checks names alone, need not wait for torch
    from torch import Tensor, dtype, nn


class UnknownNameError(ValueError):
    """A name that is not among the known ones."""


LONGEST = 60
"""How many characters of a value a message shows."""

LONGEST_NAME = 255
"""How many bytes a name of a file or folder may have: what most file systems allow."""

MOST_TRAININGS = 1_000
"""How many trainings of one kind an exhibit may ask for: seeds, rankers, teachers of an ensemble."""

MOST_STEPS = 10_000
"""How many steps an attack may have, and how often a batch may be replayed; the papers have 1,000 at most."""

MOST_EPOCHS = 100_000
"""How many epochs a training may have."""

LARGEST = 3.4e38
"""The largest number in float32, in which networks are trained."""


def shown(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"


def one_of(kind: str, name: object, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """Return `name` if it is known; otherwise refuse it and list the known names, close matches first.

    Parameters
    ----------
    kind : the kind of thing that is named, for the message: "dataset", "method", ...
    name : the name to look up.
    known : every accepted name.
    synonyms : what others call some of them, in small letters and digits alone: {"epsilon": "eps"}. Such a name is
        refused, too, but the message leads to the right one.

    Raises
    ------
    UnknownNameError
        If `name` is not in `known`.
    """
    names = list(known)
    if isinstance(name, str) and name in names:
        return name
    lower = {n.lower(): n for n in names}
    wanted = str(name).lower()
    near = difflib.get_close_matches(wanted, lower, n=max(len(lower), 1), cutoff=0.5)
    # equally close names keep the order of `known`
    near.sort(key=lambda n: (-difflib.SequenceMatcher(None, n, wanted).ratio(), list(lower).index(n)))
    meant = (synonyms or {}).get("".join(filter(str.isalnum, wanted)), "")
    close = [*([meant] if meant in names else []), *(lower[n] for n in near[:3] if lower[n] != meant)]
    ordered = close + [n for n in names if n not in close]
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownNameError(f"Unknown {kind} {shown(name)}.{hint} Known: {', '.join(ordered)}.")


def number(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse a value that is not a finite number or lies outside [low, high].

    Raises
    ------
    ValueError
        If `value` is not a number, is NaN or infinite, or is below `low` or above `high`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, not {shown(value)}.")
    # a whole number may be too large for a float
    if not low <= value <= high or (isinstance(value, float) and not math.isfinite(value)):
        bounds = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be {bounds}, not {shown(value)}.")


def whole(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> int:
    """Return a number that must be whole and in [low, high], as an int.

    Raises
    ------
    ValueError
        If it is not.
    """
    number(name, value, low, high)
    if value != int(value):
        raise ValueError(f"{name} must be a whole number, not {shown(value)}.")
    return int(value)


def radius(eps: float) -> None:
    """Refuse an l_inf radius that is not in [0, 1], the range of pixels.

    Raises
    ------
    ValueError
        If it is not a number, or is outside [0, 1].
    """
    if isinstance(eps, int | float) and eps > 1:
        raise ValueError(f"eps must be between 0 and 1, as pixels are, not {shown(eps)}: write 8/255 for 8 of 255.")
    number("eps", eps, 0, 1)


def coerce_fields(instance: object) -> None:
    """Convert every number and text field of a dataclass to the field's type, so that equal values give equal JSON.

    A whole float becomes an int in an int field, and a list of whole numbers a tuple. "none" means None in a field for
    a number or None, because a command line cannot pass None.

    Raises
    ------
    ValueError
        If a value does not fit its field.
    """
    for name, kind in typing.get_type_hints(type(instance)).items():
        object.__setattr__(instance, name, _coerced(name, getattr(instance, name), kind))


def _coerced(name: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(k for k in kind.__args__ if k is not type(None))
        if value is None or (value == "none" and kind is not str):
            return None
    plain = not isinstance(value, bool)
    if kind == tuple[int, ...]:
        return tuple(_coerced(name, v, int) for v in listed(name, value, "[1, 2]"))
    if kind not in (int, float, str, bool) or (kind is bool and not plain):
        return value
    if kind is float and plain and isinstance(value, int | float):
        with suppress(OverflowError):  # a whole number that no float can hold
            return float(value)
    if kind is int and plain and (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        return int(value)
    if kind is str and isinstance(value, str):
        return value
    wanted = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[kind]
    raise ValueError(f"{name} must be {wanted}, not {shown(value)}.")


def text(name: str, value: object) -> str:
    """Return a value that must be a text.

    Raises
    ------
    ValueError
        If it is none.
    """
    if isinstance(value, str):
        return value
    raise ValueError(f"{name} must be a text, not {shown(value)}.")


def listed(name: str, value: object, example: str) -> list[Any]:
    """Return a list or tuple as a list; refuse anything else, a text too.

    Parameters
    ----------
    name, value : what is checked.
    example : a list as it may be, for the message.

    Raises
    ------
    ValueError
        If it is no list.
    """
    if isinstance(value, list | tuple):
        return list(value)
    raise ValueError(f"{name} must be a list, as in {example}, not {shown(value)}.")


def by_name(name: str, value: object, example: str) -> dict[str, Any]:
    """Return a mapping whose keys are texts as a dict; refuse anything else.

    Parameters
    ----------
    name, value : what is checked.
    example : a mapping as it may be, for the message.

    Raises
    ------
    ValueError
        If it is no mapping, or a key is no text.
    """
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise ValueError(f"{name} must be values by name, as in {example}, not {shown(value)}.")


def fields(kind: str, values: object, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields of what was read from JSON; refuse unknown ones, and where one is missing.

    Parameters
    ----------
    kind : what they are fields of, for the message: "run", "claim", ...
    values : what was read.
    required, optional : the names of the fields.

    Raises
    ------
    UnknownNameError
        If there is another field.
    ValueError
        If they are no fields by name, or one is missing.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"A {kind} must be a JSON object, not {shown(values)}.")
    needed = list(required)
    known = [*needed, *optional]
    for name in values:
        one_of(f"field of a {kind}", name, known)
    for name in needed:
        if name not in values:
            raise ValueError(f"The field {name!r} of a {kind} is missing.")
    return dict(values)


def is_file_name(name: str) -> bool:
    """Return whether a file or folder can have this name, on most systems; a path is none."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and len(os.fsencode(name)) <= LONGEST_NAME


def inner_path(name: str, path: str, folder: str) -> None:
    """Refuse a path that is not one of a file within a folder.

    Parameters
    ----------
    name : what names it, for the message.
    path : relative to the folder.
    folder : what the folder is called, for the message.

    Raises
    ------
    ValueError
        If it is absolute, leaves the folder, or a name in it is empty or too long.
    """
    parts = path.replace("\\", "/").split("/")
    if not all(map(is_file_name, parts)) or PureWindowsPath(path).drive:
        raise ValueError(
            f"{name} must be a file in {folder}, named from there, with names of {LONGEST_NAME} bytes at most, as in "
            f"'more.npz', not {shown(path)}."
        )


def folder(name: str, path: Path, *, writable: bool = False) -> None:
    """Refuse a path that is no folder and cannot become one; nothing is made.

    Parameters
    ----------
    name : what names it, for the message.
    path : of the folder, which need not exist.
    writable : whether files are to be written there.

    Raises
    ------
    ValueError
        If a name in the path is too long or is that of a file, or if the folder must be writable and is not.
    """
    whole_path = path.absolute()
    for part in whole_path.parts[1:]:
        if len(os.fsencode(part)) > LONGEST_NAME or "\0" in part:
            raise ValueError(f"{name} must be a folder with names of {LONGEST_NAME} bytes at most, not {shown(part)}.")
    for there in (whole_path, *whole_path.parents):
        try:
            mode = there.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            if not there.is_symlink():
                continue
            raise ValueError(f"{name} leads to {there}, a link to nothing: name another folder.") from None
        except OSError as error:
            raise ValueError(f"{name} cannot be {shown(str(path))}: {error.strerror}. Name another.") from error
        if not stat.S_ISDIR(mode):
            raise ValueError(f"{name} leads to {there}, which is a file: name a folder.")
        if writable and not os.access(there, os.W_OK | os.X_OK):
            raise ValueError(f"{name} leads to {there}, which cannot be written to: name another folder.")
        return


def images(x: object, name: str = "images") -> None:
    """Refuse a tensor that is not a batch of images.

    Parameters
    ----------
    x : (N, C, H, W); uint8, or floating point in [0, 1].
    name : its name in the message.

    Raises
    ------
    ValueError
        If it is no tensor, the shape or dtype is wrong, or a value is NaN or outside [0, 1].
    """
    import torch

    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, not a {type(x).__name__}.")
    if x.ndim != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), not {tuple(x.shape)}.")
    if x.dtype == torch.uint8:
        return
    if not x.is_floating_point():
        raise ValueError(f"{name} must be uint8 or floating point in [0, 1], not {x.dtype}.")
    if x.numel() == 0:
        return
    low, high = (v.item() for v in torch.aminmax(x))
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"{name} contain NaN.")
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} must lie in [0, 1], but their values go from {low:g} to {high:g}. "
            "Divide 8-bit images by 255, and do not normalise them: the networks do that themselves."
        )


def labels(y: object, n: int, num_classes: int | None, name: str = "labels") -> None:
    """Refuse a tensor that is not one class index for each of `n` images.

    Parameters
    ----------
    y : (N,) int64 in [0, num_classes).
    n : the number of images.
    num_classes : the number of classes; None: not known, only negative labels are out of range.
    name : its name in the message.

    Raises
    ------
    ValueError
        If it is no tensor, the shape or dtype is wrong, or a label is out of range.
    """
    import torch

    if not isinstance(y, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, not a {type(y).__name__}.")
    if y.shape != (n,) or y.dtype != torch.int64:
        raise ValueError(f"{name} must be int64 of shape ({n},), one per image, not {y.dtype} of {tuple(y.shape)}.")
    if n == 0:
        return
    low, high = (int(v) for v in torch.aminmax(y))
    if low < 0 or (num_classes is not None and high >= num_classes):
        wanted = "be 0 or more" if num_classes is None else f"lie in 0..{num_classes - 1}"
        raise ValueError(f"{name} must {wanted}, but their values go from {low} to {high}.")


def batch(x: "Tensor", y: "Tensor", network: "nn.Module") -> None:
    """Refuse images and labels that a network cannot be attacked or evaluated on.

    Parameters
    ----------
    x : (N, C, H, W), N at least 1; uint8, or floating point in [0, 1].
    y : (N,) int64, classes of the network.
    network : if it says its number of classes (`num_classes`), labels must be among them.

    Raises
    ------
    ValueError
        If images or labels are not as above.
    """
    images(x)
    if len(x) == 0:
        raise ValueError(f"There are no images: images have shape {tuple(x.shape)}.")
    said = getattr(network, "num_classes", None)
    labels(y, len(x), said if isinstance(said, int) else None)


def precision(network: "nn.Module", images: "dtype", remedy: str) -> None:
    """Refuse float64 images for a network with other weights, and other images for a network with float64 weights.

    Parameters
    ----------
    network : the network; its first weights' dtype counts.
    images : the images' dtype.
    remedy : what to do about it, for the message.

    Raises
    ------
    ValueError
        If only one of the two is float64.
    """
    import torch

    weights = next((p.dtype for p in network.parameters() if p.is_floating_point()), images)
    if (weights == torch.float64) != (images == torch.float64):
        raise ValueError(f"The images are {images}, but the weights of {type(network).__name__} {weights}: {remedy}.")


def logits(answer: object, n: int, network: str) -> int:
    """Refuse what a network returned if it is not one row of logits per image; otherwise return the number of classes.

    Only the shape and the dtype are looked at, so a GPU is not waited for.

    Parameters
    ----------
    answer : should be (n, classes) floating point.
    n : the number of images.
    network : the network's name in the message.

    Raises
    ------
    ValueError
        If it is no tensor, or its shape or dtype is wrong.
    """
    import torch

    if not isinstance(answer, torch.Tensor):
        found = f"a {type(answer).__name__}"
    elif answer.is_floating_point() and answer.ndim == 2 and len(answer) == n and answer.shape[1] > 0:
        return answer.shape[1]
    else:
        found = f"{answer.dtype} of shape {tuple(answer.shape)}"
    raise ValueError(
        f"{network} must return logits, one row per image: floating point of shape ({n}, classes) for {n} images. "
        f"It returns {found}."
    )
