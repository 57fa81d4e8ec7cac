"""Training methods: the table of methods, the grammar of its rows, and the code that computes losses and attacks.

- `table` has the rows.
- `grammar` says what a row is made of: terms, attacks, settings.
- `notation` says how points and weights are written.
- `compute` evaluates any row on networks and images.

Callers use all names as ``methods.X``. ``METHODS["mine"] = Method(...)`` adds a method; ``docs/methods.md`` shows an
example.
"""

from rkdkit import checks
from rkdkit.methods.compute import Logits, adversarial_examples, loss
from rkdkit.methods.grammar import CHOICES, DIVERGENCES, Maximised, Method, Term, with_label_mixing
from rkdkit.methods.notation import GUIDES, TRAINED, Point, Setting, Settings
from rkdkit.methods.table import METHODS, RKD_TEACHER

__all__ = [
    "CHOICES",
    "DIVERGENCES",
    "GUIDES",
    "METHODS",
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
    "with_label_mixing",
]


def get(name: str) -> Method:
    """Return a method by its name in the table.

    Raises
    ------
    UnknownNameError
        If there is no such row.
    """
    return METHODS[checks.one_of("method", name, METHODS)]
