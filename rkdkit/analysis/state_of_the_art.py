"""How RKD trains its state-of-the-art networks, which it calls AT+ (its section 4): more data, averaged weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rkdkit import checks, data
from rkdkit.setup import Setup

GENERATED: dict[str, str] = {
    "smoke": "gaussian-mixture:500",
    "quick": "gaussian-mixture:10000",
    "small": "gaussian-mixture:50000",
}
"""The generated images by the name of a profile; at "paper" they are in files."""

FILES: dict[tuple[str, str], str] = {
    ("cifar10", "DDPM"): "cifar10_ddpm.npz",
    ("cifar10", "EDM"): "cifar10_edm.npz",
    ("cifar100", "DDPM"): "cifar100_ddpm.npz",
    ("cifar100", "EDM"): "cifar100_edm.npz",
}
"""The files in the data folder, by dataset and by the diffusion model that generated a million images each.

Those of DDPM are published with Rebuffi et al. 2021 under these names; those of EDM with Wang et al. 2023, where each
file is called 1m.npz.
"""

NETWORK = "wrn-28-10-silu"
"""RKD's network for teachers and students; below "paper" it is the profile's."""

FRACTION = 0.7
"""The share of generated images in each batch (Rebuffi et al. 2021; RKD states none of its own)."""

RECIPE: dict[str, Any] = {
    **{"epochs": 400, "batch_size": 512, "lr": 0.2, "schedule": "multistep", "milestones": (266,), "gamma": 0.1},
    **{"weight_decay": 5e-4, "ema_decay": 0.995, "attack_steps": 10, "snapshot_every": 100},
}
"""RKD section 4 takes the defaults of Rebuffi et al. 2021 for teachers and students, and prints none of them.

Here: 400 epochs whose rate drops to a tenth after two thirds of them, batches of 512, a moving average of the weights.
Codes of that work that train with generated images let the rate fall along a cosine instead, after a warm-up; the steps
are its setting without generated images (`docs/design.md` lists what else is not taken over).
"""

SCHEDULE = {"epochs", "schedule", "milestones"}
"""Fields of a recipe that belong together."""


def set_otherwise(fixed: Iterable[str]) -> set[str]:
    """Return the fields of `RECIPE` that are not taken: where the notebook sets one of `SCHEDULE`, all that hang on it.

    Parameters
    ----------
    fixed : the fields of a profile that the notebook sets.
    """
    fields = set(fixed)
    return fields | ({*SCHEDULE, "gamma", "snapshot_every"} if fields & SCHEDULE else set())


@dataclass(frozen=True)
class Further:
    """Generated images to train on beside a dataset's own.

    Attributes
    ----------
    dataset : the dataset.
    generator : what generated them: "DDPM", "EDM", or the name that `data.load_extra` takes.
    extra : what `data.load_extra` takes.
    """

    dataset: str
    generator: str
    extra: str

    def changes(self, setup: Setup, fraction: float = FRACTION) -> dict[str, Any]:
        """Return how AT+ and its students are trained with these images: fields of `RunSpec`.

        At "paper" it is RKD's recipe and network, without the fields that the notebook sets. Below, everything is the
        profile's but the average of weights: its decay is such that it reaches back about an epoch.

        Parameters
        ----------
        setup : the notebook's parameters, with this dataset.
        fraction : the share of the generated images in each batch, above 0 and at most 1.

        Raises
        ------
        ValueError
            If the share is out of its range.
        """
        checks.number("extra_fraction", fraction, 0, 1)
        scale, fixed = setup.profile, set_otherwise(setup.profile.fixed)
        recipe: dict[str, Any] = {}
        if scale.recipes:
            recipe = {**RECIPE, "student": NETWORK}
        else:
            steps = data.batches_per_epoch(setup.n_train, scale.batch_size)
            recipe = {"ema_decay": 1 - 1 / max(steps, 2)}
        usual = scale.source.augmentation if scale.augmentation is None else scale.augmentation
        if usual == "crop-flip":
            recipe["augmentation"] = "crop-flip-cutout"
        kept = {name: value for name, value in recipe.items() if name not in fixed}
        return {**kept, "extra": self.extra, "extra_fraction": fraction}


def further_images(setups: Mapping[str, Setup], extra: str | None = None) -> list[Further]:
    """Return the generated images that an exhibit trains on.

    Parameters
    ----------
    setups : by dataset.
    extra : what `data.load_extra` takes, for the first dataset alone; None: at "paper" the files of `FILES` where the
        dataset has them, otherwise `GENERATED` of the profile.
    """
    found = []
    for dataset, setup in setups.items():
        files = [Further(*key, file) for key, file in FILES.items() if key[0] == dataset]
        if extra is not None:
            return [Further(dataset, extra, extra)]
        if setup.profile.name == "paper" and files:
            found += files
        else:
            usual = GENERATED.get(setup.profile.name, GENERATED["small"])
            found.append(Further(dataset, usual, usual))
    return found
