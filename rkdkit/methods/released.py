"""What the authors' released codes do otherwise than their papers: the field `code` of the rows of the table.

Each constant has the fields of its row that the code has otherwise. The codes were read on 2026-11-22, and their
training loops were run unedited beside the kit's steps; `docs/methods.md` prints both readings of a row side by side.
None of these codes normalises the images, and only CAT's clamps the start of an attack, that of one of its two.
"""

from typing import Any

from rkdkit.methods.grammar import Term
from rkdkit.methods.recipes import multistep

_FIRST_GRADIENT: dict[str, Any] = {"clamps_start": False, "normalises": False}
_IN_TRAIN_MODE: dict[str, Any] = {"attack_mode": "train", **_FIRST_GRADIENT}
_ONE_DROP = multistep(200, 100)
"""The rate is set from the same initial rate at both milestones, so the second drop never comes."""

TRADES: dict[str, Any] = {
    **_FIRST_GRADIENT,
    "passes": ("S(x)", "S(x*)", "S(x)"),
    "recipe": multistep(76, 74),
}
"""yaodongyu/TRADES."""

ARD: dict[str, Any] = {
    **_IN_TRAIN_MODE,
    "passes": ("S(x*)", "S(x)"),
    "recipe": _ONE_DROP,
    "recipe_on": {"cifar100": {"batch_size": 256}},
}
"""goldblum/AdversariallyRobustDistillation."""

RSLAD: dict[str, Any] = {
    **_FIRST_GRADIENT,
    "minimises": (
        Term("KL", "T(x)", "S(x*)", weight="factor * l"),
        Term("KL", "T(x)", "S(x)", weight="factor * 1-l"),
    ),
    "settings": {"l": 5 / 6, "factor": 1.0, "kl_reduction": "mean"},
    "settings_on": {"cifar100": {"factor": 10.0}},
}
"""zibojia/RSLAD."""

IAD: dict[str, Any] = {
    **_IN_TRAIN_MODE,
    "minimises": (
        Term("KL", "T(x)", "S(x*)", tau="tau", certainty="teacher_weight"),
        Term("KL", "S(x)", "S(x*)", certainty="1-a"),
    ),
    "settings": {"beta": 0.1, "warmup": 0.3, "tau": 1.0, "teacher_weight": "1", "kl_reduction": "batchmean"},
    "passes": ("S(x*)", "S(x)", "S(x)"),
    "recipe": _ONE_DROP,
}
"""ZFancy/IAD, IAD-I."""

AKD2: dict[str, Any] = {**_IN_TRAIN_MODE, "recipe": _ONE_DROP, "averages_weights": False}
"""ZFancy/IAD: the version of IAD's authors."""

ADAAD: dict[str, Any] = {
    **_FIRST_GRADIENT,
    "settings": {"l": 1.0, "kl_reduction": "mean"},
    "settings_on": {"cifar100": {"kl_reduction": "batchmean"}},
    "passes": ("S(x)", "S(x*)"),
}
"""boyellow/AdaAD."""

CAT: dict[str, Any] = {"clamps_start": ("x*_P",), "passes_after": ("S(x)",), "normalises": False}
"""liuxingbin/CAT."""

PEERAID: dict[str, Any] = {**_FIRST_GRADIENT, "passes": ("P(x*)", "S(x*)", "S(x*)", "S(x)")}
"""jaewonalive/PeerAiD."""
