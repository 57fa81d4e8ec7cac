"""How the papers train: the recipes of several rows of the table, as fields of a profile."""

from dataclasses import dataclass, fields
from typing import Any

from rkdkit import checks


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """The fields of `RunSpec` that a recipe may set, with their types; which values are allowed, a run says."""

    epochs: int = 1
    batch_size: int = 2
    lr: float = 0.0
    schedule: str = ""
    milestones: tuple[int, ...] = ()
    gamma: float = 0.0
    momentum: float | None = None
    weight_decay: float = 0.0
    swa_start: int | None = None
    ema_decay: float | None = None
    eps: float = 0.0
    step_size: float = 0.0
    attack_steps: int = 0
    augmentation: str = ""
    extra: str = ""
    extra_fraction: float = 0.0
    precision: str = ""
    snapshot_every: int = 1

    def __post_init__(self) -> None:
        checks.coerce_fields(self)


FIELDS = tuple(each.name for each in fields(_Recipe))
"""The fields that a recipe may set."""


def check(title: str, recipe: object, recipe_on: object) -> None:
    """Refuse a recipe with a field that no training has, or a value that is not of the field's type.

    Parameters
    ----------
    title : the row's, for the message.
    recipe, recipe_on : as `Method.recipe` and `Method.recipe_on`.

    Raises
    ------
    UnknownNameError
        If there is no such field.
    ValueError
        If the recipes are no fields by name, or a value does not fit its field.
    """
    named = checks.by_name(f"recipe_on of the row {title}", recipe_on, '{"cifar100": {"batch_size": 256}}')
    by_place = {"": recipe, **{f" on {on}": values for on, values in named.items()}}
    for place, values in by_place.items():
        name = f"recipe of the row {title}{place}"
        given = checks.by_name(name, values, '{"epochs": 100, "lr": 0.1}')
        for field in given:
            checks.one_of(f"field in the {name}", field, FIELDS)
        try:
            _Recipe(**given)
        except ValueError as error:
            raise ValueError(f"In the {name}, {error}") from None


RKD_TEACHER: dict[str, Any] = {
    **{"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": "exponential", "gamma": 0.9},
    "attack_steps": 7,
}
"""How RKD trains every fixed teacher, with any method (RKD appendix A)."""

RKD_STUDENT: dict[str, Any] = {
    **{"epochs": 100, "batch_size": 256, "lr": 0.21, "schedule": "onecycle"},
    "attack_steps": 7,
}
"""How RKD trains its students (RKD appendix A)."""


def multistep(epochs: int, *milestones: int, weight_decay: float = 2e-4, **fields: Any) -> dict[str, Any]:
    """Return a recipe with lr 0.1, a tenth of it from each milestone on, and batches of 128.

    Parameters
    ----------
    epochs : how many.
    milestones : the epochs at whose start the rate drops, counted from 0.
    weight_decay : SGD's.
    fields : further fields of a profile.
    """
    schedule = {"epochs": epochs, "lr": 0.1, "schedule": "multistep", "milestones": milestones}
    return {**schedule, "batch_size": 128, "weight_decay": weight_decay, **fields}


ARD = multistep(200, 100, 150)
"""ARD section 8; the batch size is its code's."""

PEERAID = multistep(300, 214, 259, 284)
"""PeerAiD section 4.1, CIFAR; the paper counts from 1."""

PEERAID_ON = {
    "tiny_imagenet": multistep(200, 99, 149),
    "tiny_imagenet wrn-34-10": multistep(100, 49, 79),
}
"""PeerAiD section 4.1, TinyImageNet."""
