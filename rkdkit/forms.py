"""Whether an answer has the form that was asked for."""

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor


def has_form_of(value: object, placeholder: object) -> bool:
    """Return whether a value has the types, shapes and lengths of a placeholder, in all its parts."""
    if isinstance(placeholder, bool) or isinstance(value, bool):
        return type(value) is type(placeholder)
    if isinstance(placeholder, int | float):
        return isinstance(value, int | float)
    if type(value) is not type(placeholder):
        return False
    if isinstance(placeholder, Tensor | np.ndarray):
        assert isinstance(value, Tensor | np.ndarray)
        return value.shape == placeholder.shape and value.dtype == placeholder.dtype
    return _parts(value).keys() == _parts(placeholder).keys() and all(
        has_form_of(part, _parts(placeholder)[name]) for name, part in _parts(value).items()
    )


def _parts(value: object) -> dict[Any, Any]:
    """Return the parts of a mapping, a sequence or a dataclass by their names or places; a plain value has none."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return {each.name: getattr(value, each.name) for each in fields(value)} if is_dataclass(value) else {}
