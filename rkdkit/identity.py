"""Which fields of a dataclass its identity is made of, so that what is stored today is found by later code, too."""

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def identifying_fields(
    instance: "DataclassInstance", always: Collection[str], never: Collection[str] = ()
) -> dict[str, Any]:
    """Return the fields that tell a value from others, by name, in the order in which the class has them.

    A field that is added to the class later is left out while it has its default, so that it changes the identity of
    nothing that does not use it. Fields that are computed, or not compared, are no part of an identity.

    Parameters
    ----------
    instance : of a dataclass.
    always : the fields that are written even where they have their default. The list is closed: a name that is added
        to it gives everything that is stored another identity.
    never : the fields that decide nothing, such as a title.
    """
    return {
        field.name: getattr(instance, field.name)
        for field in dataclasses.fields(instance)
        if field.init and field.compare and field.name not in never
        if field.name in always or getattr(instance, field.name) != _default(field)
    }


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default  # MISSING, which equals nothing, where there is none
