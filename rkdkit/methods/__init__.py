"""Training methods: the table of methods, the grammar of its rows, and the code that computes losses and attacks.

- `table` has the rows.
- `grammar` says what a row is made of: terms, attacks, settings.
- `notation` says how points and weights are written.
- `variants` makes rows from other rows: with labels mixed in, or with a single difference of the released code.
- `compute` evaluates any row on networks and images.
- `own` reads rows of a Python file of the user's; whoever needs it imports it.

Callers use all names as ``methods.X``. ``METHODS["mine"] = Method(...)`` adds a method; ``docs/methods.md`` shows an
example.
"""

from rkdkit import checks
from rkdkit.methods.compute import Logits, adversarial_examples, check_loss, loss
from rkdkit.methods.grammar import CHOICES, DIVERGENCES, READINGS, Maximised, Method, Term
from rkdkit.methods.notation import GUIDES, TRAINED, Point, Setting, Settings
from rkdkit.methods.recipes import RKD_TEACHER
from rkdkit.methods.table import METHODS
from rkdkit.methods.variants import PARTS, part_name, parts_of, split_name, with_label_mixing, with_part

__all__ = [
    "CHOICES",
    "DIVERGENCES",
    "GUIDES",
    "METHODS",
    "PARTS",
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
    "check_loss",
    "get",
    "loss",
    "part_name",
    "parts_of",
    "row_of",
    "titled",
    "with_label_mixing",
]


def get(name: str, reading: str = "paper") -> Method:
    """Return a method by its name.

    Parameters
    ----------
    name : a key of `METHODS`; or that of a method with a single difference of its code, as :func:`part_name` makes it:
        "ARD with the code's attack mode". Such a row is made from its method's whenever it is asked for, so every
        process knows it by its name.
    reading : "paper": the row itself; "code": the row as the method's authors' released code trains it.

    Raises
    ------
    UnknownNameError
        If there is no such row or reading, or the method's code does not differ in this.
    ValueError
        If the row has no released code of its own.
    """
    of_table = row_of(name)
    row = METHODS[of_table]
    return (row if of_table == name else with_part(row, split_name(name)[1])).read(reading)


def row_of(name: str) -> str:
    """Return the key of `METHODS` that a method's name is made of: "ARD", of "ARD with the code's attack mode", too.

    Raises
    ------
    UnknownNameError
        If there is no such row.
    """
    if not isinstance(name, str) or name in METHODS:
        return checks.one_of("method", name, METHODS)
    return checks.one_of("method", split_name(name)[0], METHODS)


def titled(label: str) -> str:
    """Return a figure's label with a method's title in the place of its name; any other label as it is.

    Parameters
    ----------
    label : a method's name, alone or with more after a space or a comma: "mine", "mine + SWA", "mine, resnet18/8".
    """
    named = [name for name in METHODS if label == name or label.startswith((f"{name} ", f"{name},"))]
    name = max(named, key=len, default="")
    return METHODS[name].title + label[len(name) :] if name else label
