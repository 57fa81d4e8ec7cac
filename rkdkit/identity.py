"""What identifies a value: the digest of its JSON, and which fields of a dataclass count; stores outlive code by it."""

import dataclasses
import hashlib
import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def canonical_json(value: object) -> str:
    """Return the canonical JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def identifying_fields(
    instance: "DataclassInstance", always: Collection[str], never: Collection[str] = ()
) -> dict[str, Any]:
    """Return the fields that identify a value, by name, in the order of the class.

    A field that is added to the class later is left out while it has its default, so that it does not change the
    identity of values that do not use it. Fields that are computed, or not compared, are not part of an identity.

    Parameters
    ----------
    instance : an instance of a dataclass.
    always : the fields that are included even if they have their default. Do not add a name to this list: everything
        that is stored would get another identity.
    never : the fields that have no effect, such as a title.
    """
    return {
        field.name: getattr(instance, field.name)
        for field in dataclasses.fields(instance)
        if field.init and field.compare and field.name not in never
        if field.name in always or getattr(instance, field.name) != _default(field)
    }


def later_fields(cls: "type[DataclassInstance]", always: Collection[str]) -> list[str]:
    """Return the fields that :func:`identifying_fields` includes only if they do not have their default."""
    fields = [field for field in dataclasses.fields(cls) if field.init and field.compare]
    return [field.name for field in fields if field.name not in always]


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default  # if there is no default, MISSING, which no value equals
