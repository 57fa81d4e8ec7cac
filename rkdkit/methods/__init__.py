"""Training methods: the table of methods, the grammar of its rows, and the code that computes losses and attacks.

- `table` has the rows.
- `grammar` says what a row is made of: terms, attacks, settings.
- `notation` says how points and weights are written.
- `variants` makes rows from other rows.
- `compute` evaluates any row on networks and images.

Callers use all names as ``methods.X``. ``METHODS["mine"] = Method(...)`` adds a method; ``docs/methods.md`` shows an
example.
"""

from dataclasses import replace

from rkdkit import checks
from rkdkit.methods.compute import Logits, adversarial_examples, loss
from rkdkit.methods.grammar import CHOICES, DIVERGENCES, READINGS, Maximised, Method, Term
from rkdkit.methods.notation import GUIDES, TRAINED, Point, Setting, Settings
from rkdkit.methods.recipes import RKD_TEACHER
from rkdkit.methods.table import METHODS
from rkdkit.methods.variants import with_label_mixing

__all__ = [
    "CHOICES",
    "DIVERGENCES",
    "GUIDES",
    "METHODS",
    "READINGS",
    "RKD_TEACHER",
    "TRAINED",
    "Logits",
    "Maximised",
    "Method",
    "Point",
    "Setting",
    "Settings",
    "Term",
    "adversarial_examples",
    "get",
    "loss",
    "with_difference",
    "with_label_mixing",
]


def get(name: str, reading: str = "paper") -> Method:
    """Return a method by its name in the table.

    Parameters
    ----------
    name : its name.
    reading : "paper": the row itself; "code": the row as the method's authors' released code trains it.

    Raises
    ------
    UnknownNameError
        If there is no such row or reading.
    ValueError
        If the row has no released code of its own.
    """
    return METHODS[checks.one_of("method", name, METHODS)].read(reading)


def with_difference(name: str, *fields: str) -> Method:
    """Return a method as its paper states it, except for some of the fields that its released code has otherwise.

    Parameters
    ----------
    name : its name in the table.
    fields : names of the row's `code`: "attack_mode", "passes", ...

    Raises
    ------
    UnknownNameError
        If there is no such row, or its code does not differ in a field.
    ValueError
        If the row has no released code of its own, or the fields alone do not make a row.
    """
    row, as_code = get(name), get(name, "code")
    differing = [checks.one_of(f"difference of the code of {row.title}", field, row.code) for field in fields]
    return replace(row, **{field: getattr(as_code, field) for field in differing}, code={})
