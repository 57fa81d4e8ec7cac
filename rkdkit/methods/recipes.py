"""How the papers train: the recipes of several rows of the table, as fields of a profile."""

from typing import Any

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
