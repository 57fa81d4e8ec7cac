"""A run is a specification: everything that decides a training's outcome, and nothing else."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rkdkit import checks, data, methods, models

ENGINE = 1
"""Raised whenever the same specification would train to another network; part of every id."""

SCHEDULES = ("constant", "multistep", "exponential", "onecycle")
PRECISIONS = ("float32", "bfloat16")


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training, in full: plain JSON, hashable, checked when made.

    Attributes
    ----------
    method : a row of `methods.METHODS`.
    dataset : a name of `data.SOURCES`.
    student : a network, as `models.build` takes it ("resnet18", "resnet18/4").
    peer : the network trained beside the student; "" where the method has none.
    settings : the method's hyper-parameters that differ from its defaults; all are filled in.
    seed : of the weights, the order, the augmentation and the attack's start.
    n_train : how many images to train on; None: all that are not held out.
    n_val : how many training images are held out for choosing an epoch.
    augmentation : one of `data.AUGMENTATIONS`.
    eps : l_inf radius of the training attack, in [0, 1] pixel units.
    step_size : its step, in the same units.
    attack_steps : its number of steps.
    epochs, batch_size : of the training.
    lr : the (highest) learning rate.
    schedule : "constant"; "multistep": times `gamma` at each of `milestones`; "exponential": times `gamma` each
        epoch; "onecycle": torch's OneCycleLR with its defaults.
    milestones : epochs at whose start the rate drops, counted from 0 as PyTorch does; for "multistep".
    gamma : factor of "multistep" and "exponential".
    momentum, weight_decay : of SGD; the momentum is None under "onecycle", which moves it from 0.95 to 0.85 and back.
    swa_start : the epoch, counted from 0, from whose end the student's weights are averaged once an epoch; None: never.
    precision : of the networks' arithmetic: "float32", or "bfloat16" by autocast (weights and losses stay float32).
    snapshot_every : a snapshot is kept at every so many epochs, and at the last.
    engine : see `ENGINE`.

    Fields that a run makes no use of (an attack's without an attack, a schedule's under another) are set to one value,
    so that they do not make it another run.

    Raises
    ------
    UnknownNameError
        If a name is not known.
    ValueError
        If a number is out of its range, or the fields contradict each other.
    """

    method: str
    dataset: str
    student: str
    peer: str = ""
    settings: tuple[tuple[str, methods.Setting], ...] = ()
    seed: int = 0
    n_train: int | None = None
    n_val: int = 0
    augmentation: str = "none"
    eps: float = 8 / 255
    step_size: float = 2 / 255
    attack_steps: int = 10
    epochs: int = 1
    batch_size: int = 128
    lr: float = 0.1
    schedule: str = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    momentum: float | None = 0.9
    weight_decay: float = 2e-4
    swa_start: int | None = None
    precision: str = "float32"
    snapshot_every: int = 1
    engine: int = ENGINE

    def __post_init__(self) -> None:
        checks.coerce_fields(self)
        method = methods.get(self.method)
        checks.one_of("dataset", self.dataset, data.SOURCES)
        models.parse(self.student)
        if ("peer" in method.roles) != bool(self.peer):
            raise ValueError(
                f"{method.title} trains {' and '.join(method.roles)}: "
                + ("name the peer's network, too." if not self.peer else f"it has no peer {self.peer!r}.")
            )
        if self.peer:
            models.parse(self.peer)
        checks.one_of("augmentation", self.augmentation, data.AUGMENTATIONS)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        checks.one_of("precision", self.precision, PRECISIONS)
        for name in ("epochs", "batch_size", "snapshot_every"):
            checks.number(name, getattr(self, name), 1)
        for name in ("n_val", "attack_steps", "step_size", "lr", "weight_decay", "seed"):
            checks.number(name, getattr(self, name), 0)
        if self.eps > 1:
            raise ValueError(f"eps must be between 0 and 1, as pixels are, not {self.eps:g}: write 8/255 for 8 of 255.")
        for name in ("eps", "gamma"):
            checks.number(name, getattr(self, name), 0, 1)
        if self.momentum is not None:
            checks.number("momentum", self.momentum, 0, 1)
        if self.n_train is not None:
            checks.number("n_train", self.n_train, 1)
        if self.swa_start is not None:
            checks.number(f"swa_start of a run of {self.epochs} epochs", self.swa_start, 0, self.epochs - 1)
        if self.schedule == "multistep" and not (
            self.milestones
            and list(self.milestones) == sorted(set(self.milestones))
            and self.milestones[0] > 0
            and self.milestones[-1] < self.epochs
        ):
            raise ValueError(
                f"milestones of a multistep schedule must be increasing epochs between 1 and {self.epochs - 1} (the "
                f"run has {self.epochs}), not {self.milestones}. Change them together with epochs."
            )
        if self.engine != ENGINE:
            raise ValueError(f"This kit trains with engine {ENGINE}; the specification is of engine {self.engine}.")
        # what a run does not use must not make it another run
        unused: dict[str, Any] = {}
        if method.maximises is None:
            unused |= {"eps": 0.0, "step_size": 0.0, "attack_steps": 0}
        if self.schedule not in ("multistep", "exponential"):
            unused |= {"gamma": 1.0}
        if self.schedule == "onecycle":
            unused |= {"momentum": None}
        if self.schedule != "multistep":
            unused |= {"milestones": ()}
        for name, value in unused.items():
            object.__setattr__(self, name, value)
        resolved = method.resolve(dict(self.settings))
        object.__setattr__(self, "settings", tuple(sorted(resolved.items())))

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        return {
            **dataclasses.asdict(self),
            "settings": dict(self.settings),
            "milestones": list(self.milestones),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunSpec":
        """Return the specification that :meth:`to_json` wrote.

        Raises
        ------
        UnknownNameError
            If there is no such field.
        """
        for name in values:
            checks.one_of("field of a run", name, (f.name for f in dataclasses.fields(cls)))
        return cls(**{**values, "settings": tuple(dict(values.get("settings", {})).items())})

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON and of the method's row of the table."""
        return digest_of([self.to_json(), methods.get(self.method).definition()])

    def __str__(self) -> str:
        return f"{self.method} {self.student} on {self.dataset}, seed {self.seed}"
