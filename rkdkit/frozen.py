"""A mapping that cannot be changed."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

_Value = TypeVar("_Value")


class FrozenMapping(Mapping[str, _Value]):
    """A mapping that cannot be changed; it is hashable if its values are, and can be pickled.

    Parameters
    ----------
    values : its keys and values, which are copied; a value that is a mapping also becomes a `FrozenMapping`.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {name: FrozenMapping(v) if isinstance(v, Mapping) else v for name, v in values.items()}

    def __getitem__(self, name: str) -> _Value:
        return self._values[name]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)
