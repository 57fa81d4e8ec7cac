"""A run is a specification: everything that decides a training's outcome, and nothing else."""

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rkdkit import checks, data, methods, models
from rkdkit.identity import canonical_json as canonical_json
from rkdkit.identity import digest_of as digest_of
from rkdkit.identity import identifying_fields, later_fields

ENGINE = 1
"""A version number, part of every id: raised whenever the same specification gives another network, beyond rounding."""

AVERAGED = "student_averaged"
"""The role of the student's averaged weights, in runs that average them."""

SMALLEST_BATCH = 2
"""The fewest images in a batch, and to train on: batch normalisation cannot be computed from one."""

LARGEST_SEED = 2**53
"""The largest seed: every whole number up to it is also a float."""

SCHEDULES = ("constant", "multistep", "exponential", "onecycle")
PRECISIONS = ("float32", "bfloat16")

# closed lists: see `identifying_fields`
_TEACHER_FIELDS = ("run", "epoch", "role", "module", "digest", "slot", "weight")
_RUN_FIELDS = (
    *("method", "dataset", "student", "peer", "teachers", "settings", "seed", "n_train", "n_val", "augmentation"),
    *("extra", "extra_fraction", "eps", "step_size", "attack_steps", "epochs", "batch_size", "lr", "schedule"),
    *("milestones", "gamma", "momentum", "weight_decay", "swa_start", "ema_decay", "precision", "snapshot_every"),
    "engine",
)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A fixed network that guides a run: another run's network at an epoch, or a foreign module.

    ``runs.Snapshot.as_teacher`` and ``runs.foreign_teacher`` make them.

    Attributes
    ----------
    run : the run it comes from; None: a foreign module.
    epoch : counted from 1; an early epoch gives an early-stopped teacher. None: the run's last.
    role : which network of the run: "student", "peer" or "student_averaged".
    module : the name of a foreign module; "" for a run.
    digest : the digest of the foreign module's weights.
    slot : its teacher slot in the method's row: "T", "T_rob" or "T_nat".
    weight : its weight in an ensemble; the weights in one slot sum to 1.
    certain : False: its epoch is a placeholder, because the answers that choose it are not known yet. Neither compared
        nor written, so not part of an identity.

    Raises
    ------
    UnknownNameError
        If there is no such slot.
    ValueError
        If not exactly one of `run` and `module` is given, the weight is outside [0, 1], or the run has no such network
        or snapshot.
    """

    run: "RunSpec | None" = None
    epoch: int | None = None
    role: str = "student"
    module: str = ""
    digest: str = ""
    slot: str = "T"
    weight: float = 1.0
    certain: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        checks.coerce_fields(self)
        checks.one_of("teacher slot", self.slot, methods.GUIDES)
        run: object = self.run
        if not isinstance(run, RunSpec | None):
            raise ValueError(f"run, the training of a teacher, must be a RunSpec, not {checks.shown(run)}.")
        checks.number(f"weight of teacher {self}", self.weight, 0, 1)
        if (self.run is None) == (not self.module):
            raise ValueError("A teacher is either a run or a foreign module: give exactly one of run and module.")
        if self.run is not None:
            epoch = self.run.epochs if self.epoch is None else self.epoch
            checks.number(f"epoch of teacher {self.run} of {self.run.epochs} epochs", epoch, 1, self.run.epochs)
            object.__setattr__(self, "epoch", epoch)
            if not self.run.has_snapshot(epoch):
                raise ValueError(
                    f"{self.run} keeps a snapshot every {self.run.snapshot_every} epochs and at its last epoch, "
                    f"{self.run.epochs}: it has none at epoch {epoch} for a teacher."
                )
            checks.one_of(f"network of {self.run} at epoch {epoch}", self.role, self.run.roles_at(epoch))

    @classmethod
    def placeholders(cls, method: str, reading: str = "paper") -> tuple["Teacher", ...]:
        """Return a teacher for each slot of a method, to check a specification before its teachers are known."""
        return tuple(cls(module="not known yet", slot=slot) for slot in methods.get(method, reading).guides)

    def to_json(self) -> dict[str, Any]:
        """Return the teacher as plain JSON values; the key of the slot is "letter", as in the first stored runs."""
        values = {**identifying_fields(self, _TEACHER_FIELDS), "run": None if self.run is None else self.run.to_json()}
        return {"letter" if name == "slot" else name: value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Teacher":
        """Return the teacher that :meth:`to_json` wrote; it is certain.

        Raises
        ------
        UnknownNameError
            If there is no such field.
        ValueError
            If a field is missing, or a value does not fit.
        """
        always = ["letter" if name == "slot" else name for name in _TEACHER_FIELDS]
        named = checks.fields("teacher", values, always, later_fields(cls, _TEACHER_FIELDS))
        if named["run"] is not None:
            named["run"] = RunSpec.from_json(named["run"])
        return cls(slot=named.pop("letter"), **named)

    def __str__(self) -> str:
        return self.module if self.run is None else f"{self.run.label} {self.run.student} at epoch {self.epoch}"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """The complete specification of one training: plain JSON values, hashable, checked when it is made.

    Attributes
    ----------
    method : a method, by a name that `methods.get` knows.
    dataset : a name for `data.load`.
    student : the name of a network for `models.build` ("resnet18", "resnet18/4").
    peer : the network trained beside the student; "" if the method has none.
    teachers : the fixed networks that guide the training, an ensemble if several have one slot; () if the method has
        none.
    settings : the method's hyper-parameters that differ from its defaults; the others are filled in.
    seed : the seed of the weights, the order, the augmentation and the attack's start.
    n_train : the number of training images; None: all that are not held out.
    n_val : the number of training images that are held out for choosing an epoch.
    augmentation : one of `data.AUGMENTATIONS`.
    extra : further images for `data.load_extra`, a file or "gaussian-mixture:N"; "": none.
    extra_fraction : the share of these images in each batch, in [0, 1].
    eps : l_inf radius of the training attack, in [0, 1] pixel units; a method's row may use a fraction of it.
    step_size : the step size of the training attack, in the same units.
    attack_steps : the number of steps of the training attack.
    epochs, batch_size : the number of epochs, and of images per batch.
    lr : the (highest) learning rate.
    schedule : "constant"; "multistep": the rate is multiplied by `gamma` at each of `milestones`; "exponential": it is
        multiplied by `gamma` each epoch; "onecycle": torch's OneCycleLR with its defaults.
    milestones : for "multistep": the epochs at whose start the rate drops, counted from 0 as PyTorch does.
    gamma : the factor of "multistep" and "exponential".
    momentum, weight_decay : SGD's; the momentum is None with "onecycle", which moves it from 0.95 to 0.85 and back.
    swa_start : the first epoch, counted from 0, at whose end the student's weights enter the average (SWA), once per
        epoch; None: no average.
    ema_decay : the decay of an exponential moving average of the student's weights, updated at each step; None: no
        average.
    precision : the precision of the networks' arithmetic: "float32", or "bfloat16" by autocast (weights and losses stay
        float32).
    snapshot_every : a snapshot is kept every `snapshot_every` epochs and at the last.
    engine : see `ENGINE`.
    reading : how the method's row is read, one of `methods.READINGS`: "paper", or "code" for what its authors' released
        code does otherwise. Where this makes no difference to the training, it is set to "paper".

    Fields that have no effect in a run (an attack's fields without an attack, the fields of another schedule) are set
    to fixed values, so that they do not change the run's id.

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
    teachers: tuple[Teacher, ...] = ()
    settings: tuple[tuple[str, methods.Setting], ...] = ()
    seed: int = 0
    n_train: int | None = None
    n_val: int = 0
    augmentation: str = "none"
    extra: str = ""
    extra_fraction: float = 0.0
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
    ema_decay: float | None = None
    precision: str = "float32"
    snapshot_every: int = 1
    engine: int = ENGINE
    reading: str = "paper"

    def __post_init__(self) -> None:
        checks.coerce_fields(self)
        object.__setattr__(self, "teachers", tuple(checks.listed("teachers", self.teachers, "[teacher]")))
        method = methods.get(self.method, self.reading)
        data.source_of(self.dataset)
        models.parse(self.student)
        if ("peer" in method.roles) != bool(self.peer):
            raise ValueError(
                f"{method.title} trains {' and '.join(method.roles)}: "
                + ("name the peer's network, too." if not self.peer else f"it has no peer {self.peer!r}.")
            )
        if self.peer:
            models.parse(self.peer)
        self._check_teachers(method)
        checks.one_of("augmentation", self.augmentation, data.AUGMENTATIONS)
        checks.one_of("schedule", self.schedule, SCHEDULES)
        checks.one_of("precision", self.precision, PRECISIONS)
        checks.number("epochs", self.epochs, 1, checks.MOST_EPOCHS)
        checks.number("batch_size", self.batch_size, SMALLEST_BATCH)
        checks.number("snapshot_every", self.snapshot_every, 1)
        checks.radius(self.eps)
        for name in ("gamma", "extra_fraction"):
            checks.number(name, getattr(self, name), 0, 1)
        for name in ("step_size", "lr", "weight_decay"):
            checks.number(name, getattr(self, name), 0, checks.LARGEST)
        checks.number("n_val", self.n_val, 0)
        checks.number("attack_steps", self.attack_steps, 0, checks.MOST_STEPS)
        checks.number("seed", self.seed, 0, LARGEST_SEED)
        if self.momentum is not None:
            checks.number("momentum", self.momentum, 0, 1)
        if self.n_train is not None:
            checks.number("n_train", self.n_train, SMALLEST_BATCH)
        if self.swa_start is not None:
            checks.number(f"swa_start of a run of {self.epochs} epochs", self.swa_start, 0, self.epochs - 1)
        if self.ema_decay is not None:
            checks.number("ema_decay", self.ema_decay, 0, 1)
            if self.swa_start is not None:
                raise ValueError("A run keeps one average of its weights: set swa_start or ema_decay, not both.")
        data.check_extra(self.extra)
        if bool(self.extra) != (round(self.extra_fraction * self.batch_size) > 0):
            raise ValueError(
                "extra and extra_fraction go together: name the images, and a share of each batch that is at least one "
                f"image of {self.batch_size}."
            )
        if self.schedule == "multistep" and not (
            self.milestones
            and list(self.milestones) == sorted(set(self.milestones))
            and self.milestones[0] > 0
            and self.milestones[-1] < self.epochs
        ):
            raise ValueError(
                f"milestones of a multistep schedule must be increasing epochs between 1 and {self.epochs - 1} (the "
                f"run has {self.epochs}), not {checks.shown(self.milestones)}. Change them together with epochs."
            )
        if self.engine != ENGINE:
            raise ValueError(f"This kit trains with engine {ENGINE}; the specification is of engine {self.engine}.")
        # fields without effect must not change the run's id
        unused: dict[str, Any] = {}
        if not method.attacks:
            unused |= {"eps": 0.0, "step_size": 0.0, "attack_steps": 0}
        elif method.one_step is not None:
            unused |= {"step_size": 0.0, "attack_steps": 1}
        if self.schedule not in ("multistep", "exponential"):
            unused |= {"gamma": 1.0}
        if self.schedule == "onecycle":
            unused |= {"momentum": None}
        elif self.momentum is None:
            unused |= {"momentum": 0.0}
        if self.schedule != "multistep":
            unused |= {"milestones": ()}
        if self.reading != "paper":
            decisive = [(row.definition(), row.averages_weights) for row in (method, methods.get(self.method))]
            if decisive[0] == decisive[1]:
                unused |= {"reading": "paper"}
        for name, value in unused.items():
            object.__setattr__(self, name, value)
        try:
            settings = dict(self.settings)
        except (TypeError, ValueError):
            raise ValueError(f"settings must be pairs of name and value, not {checks.shown(self.settings)}.") from None
        resolved = method.resolve(settings, self.dataset)
        methods.check_loss(method, resolved, Counter(teacher.slot for teacher in self.teachers))
        object.__setattr__(self, "settings", tuple(sorted(resolved.items())))

    def has_snapshot(self, epoch: int) -> bool:
        """Whether a snapshot is kept at the end of an epoch, counted from 1."""
        return epoch % self.snapshot_every == 0 or epoch == self.epochs

    def roles_at(self, epoch: int) -> tuple[str, ...]:
        """Return the roles of the networks at the end of an epoch, counted from 1; averaging may start later."""
        averaging = self.ema_decay is not None or (self.swa_start is not None and epoch > self.swa_start)
        return (*methods.get(self.method, self.reading).roles, *((AVERAGED,) if averaging else ()))

    def _check_teachers(self, method: methods.Method) -> None:
        for teacher in self.teachers:
            if not isinstance(teacher, Teacher):
                raise ValueError(
                    "Each of teachers must be a Teacher, as Snapshot.as_teacher() and runs.foreign_teacher(module, "
                    f"name) make them, not {type(teacher).__name__}."
                )
            if teacher.run is not None and teacher.run.dataset != self.dataset:
                raise ValueError(
                    f"The teacher {teacher} was trained on {teacher.run.dataset}, but the student is on "
                    f"{self.dataset}: their classes must be the same, in the same order."
                )
        given = [teacher.slot for teacher in self.teachers]
        if set(given) != set(method.guides):
            wanted = " and ".join(f"a {methods.GUIDES[g]} ({g})" for g in method.guides) or "no fixed teacher"
            raise ValueError(f"{method.title} needs {wanted}; teachers given: {', '.join(given) or 'none'}.")
        for slot in method.guides:
            total = math.fsum(teacher.weight for teacher in self.teachers if teacher.slot == slot)
            if abs(total - 1) > 1e-6:
                raise ValueError(f"The weights of the teachers in slot {slot} must sum to 1, not {total:g}.")

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        return {
            **identifying_fields(self, _RUN_FIELDS),
            "teachers": [teacher.to_json() for teacher in self.teachers],
            "settings": dict(self.settings),
            "milestones": list(self.milestones),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunSpec":
        """Return the specification that :meth:`to_json` wrote.

        Raises
        ------
        UnknownNameError
            If there is no such field, or a name in it is not known.
        ValueError
            If a field is missing, or a value does not fit.
        """
        named = checks.fields("run", values, _RUN_FIELDS, later_fields(cls, _RUN_FIELDS))
        settings = checks.by_name("settings", named["settings"], '{"tau": 5}')
        teachers = [Teacher.from_json(teacher) for teacher in checks.listed("teachers", named["teachers"], "[]")]
        return cls(**{**named, "settings": tuple(settings.items()), "teachers": tuple(teachers)})

    @property
    def certain(self) -> bool:
        """Whether no epoch of its teachers, or of their teachers, is a placeholder."""
        return all(teacher.certain and (teacher.run is None or teacher.run.certain) for teacher in self.teachers)

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of its canonical JSON, its row as read, and its teachers' ids."""
        teachers = [teacher.run.id for teacher in self.teachers if teacher.run is not None]
        row = methods.get(self.method, self.reading)
        return digest_of([self.to_json(), row.definition(), teachers])

    @property
    def label(self) -> str:
        """Its method, with the reading unless it is the paper's: "RSLAD", "RSLAD (code)"."""
        return self.method if self.reading == "paper" else f"{self.method} ({self.reading})"

    @property
    def short(self) -> str:
        """Its method, seed and network, for a progress bar: "RSLAD, seed 0, resnet18/4"."""
        return f"{self.label}, seed {self.seed}, {self.student}"

    def __str__(self) -> str:
        guides = f" from {' and '.join(map(str, self.teachers))}" if self.teachers else ""
        return f"{self.label} {self.student} on {self.dataset}{guides}, seed {self.seed}"
