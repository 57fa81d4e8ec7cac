"""Snapshots and images by reference: plain values that can be pickled, known before anything is trained or loaded."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from rkdkit import checks, data, executors, models
from rkdkit.data import Dataset, Split
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import Store
from rkdkit.tasks import Context


def epochs_of(spec: RunSpec, role: str = "student") -> tuple[int, ...]:
    """Return the epochs at which a run keeps a network, counted from 1; weights may be averaged from later on.

    Raises
    ------
    UnknownNameError
        If the run has no such network.
    """
    checks.one_of(f"network of {spec}", role, spec.roles_at(spec.epochs))
    return tuple(e for e in range(1, spec.epochs + 1) if spec.has_snapshot(e) and role in spec.roles_at(e))


@dataclass(frozen=True)
class Snapshot:
    """A network as it is at the end of an epoch, whether or not it is trained already.

    Attributes
    ----------
    spec : the run it comes from.
    role : "student", "peer" or "student_averaged".
    epoch : counted from 1; 0 becomes the run's last.
    chosen : False says that a placeholder chose the epoch; neither compared nor written.

    Raises
    ------
    UnknownNameError
        If the run has no such network at that epoch.
    ValueError
        If it keeps no snapshot of that epoch.
    """

    spec: RunSpec
    role: str = "student"
    epoch: int = 0
    chosen: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "epoch", self.epoch or self.spec.epochs)
        epochs = epochs_of(self.spec, self.role)
        if self.epoch not in epochs:
            raise ValueError(
                f"{self.spec} has no snapshot of its {self.role} at epoch {self.epoch}; it has them at "
                f"{', '.join(map(str, epochs))}."
            )

    @property
    def certain(self) -> bool:
        """Whether no placeholder chose its epoch, nor that of a teacher behind it."""
        return self.chosen and self.spec.certain

    @property
    def architecture(self) -> str:
        """The network, as `models.build` takes it."""
        return self.spec.peer if self.role == "peer" else self.spec.student

    @property
    def file(self) -> str:
        """The name of its file in the run's folder."""
        return f"{self.role}-{self.epoch:04d}.safetensors"

    def as_teacher(self, slot: str = "T", weight: float = 1.0) -> Teacher:
        """Return it as a fixed teacher, for `RunSpec.teachers`.

        Parameters
        ----------
        slot : its place in the method's row: "T", "T_rob" or "T_nat".
        weight : its share in an ensemble.
        """
        return Teacher(run=self.spec, epoch=self.epoch, role=self.role, slot=slot, weight=weight, certain=self.chosen)

    def digest(self, store: Store | None = None) -> str | None:
        """Return the SHA-256 of its file, as the run's record has it; None: it is not trained yet.

        Parameters
        ----------
        store : where to look; None: the executor's.

        Raises
        ------
        DamagedFileError
            If the record is not as it was written.
        """
        store = executors.current().context.store if store is None else store
        record = store.run_folder(self.spec).read_record()
        by_epoch = {} if record is None else record["snapshots"].get(self.role, {})
        digest: str | None = by_epoch.get(str(self.epoch))
        return digest

    def load(self, device: torch.device | str | None = None) -> models.Classifier:
        """Return the network in eval mode, once it is trained; the file's digest is checked first.

        Parameters
        ----------
        device : where to put it; None: the executor's.

        Raises
        ------
        DamagedFileError
            If the file is missing or not as it was written.
        NeedsNetworkError
            If it is only asked what there is to do.
        """
        context = executors.current().networks_for(str(self))
        return self.read(context if device is None else replace(context, device=torch.device(device)))

    def read(self, context: Context) -> models.Classifier:
        """As :meth:`load`, from the store and onto the device of a context.

        Raises
        ------
        DamagedFileError
            If the file is missing or not as it was written.
        """
        digest = self.digest(context.store)
        weights = context.store.run_folder(self.spec).read_tensors(self.file, digest or "")
        network = models.build(
            self.architecture,
            len(weights["head.bias"]),
            weights["mean"].flatten().tolist(),
            weights["std"].flatten().tolist(),
        )
        network.load_state_dict(weights)
        return network.on(context.device).eval()

    def __str__(self) -> str:
        return f"{self.role} of {self.spec} at epoch {self.epoch}"


@dataclass(frozen=True)
class Images:
    """Some images of a dataset and their labels.

    Attributes
    ----------
    dataset : as `data.load` takes it.
    part : one of `data.PARTS`.
    n : the first so many of that part; None: all.
    n_train, n_val : how the training images are divided, as `RunSpec` has it; for "train" and "val".
    classes : of those, only the images of these classes, labelled as in the dataset; (): of all.

    Raises
    ------
    UnknownNameError
        If there is no such dataset, part or class.
    ValueError
        If a number is negative.
    """

    dataset: str
    part: str = "test"
    n: int | None = None
    n_train: int | None = None
    n_val: int = 0
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        data.source_of(self.dataset)
        checks.one_of("part of the data", self.part, data.PARTS)
        if self.n is not None:
            checks.number("n, how many images,", self.n, 0)
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.part == "test":  # what it makes no use of must not make it other images
            object.__setattr__(self, "n_train", None)
            object.__setattr__(self, "n_val", 0)

    def first(self, n: int | None) -> "Images":
        """Return the first n of the same part; None: as many as now."""
        return self if n is None else replace(self, n=n if self.n is None else min(n, self.n))

    def split(self, load: Callable[[str], Dataset] | None = None) -> Split:
        """Return the images and labels themselves; the same object each time, so that its digest is found once.

        Parameters
        ----------
        load : a dataset's name -> the dataset; None: as the executor does.

        Raises
        ------
        DataNotFoundError
            If the data are not there.
        ValueError
            If there are fewer images than `n_train` and `n_val` say.
        """
        dataset = (executors.current().context.load if load is None else load)(self.dataset)
        return dataset.images(**{name: value for name, value in asdict(self).items() if name != "dataset"})

    def __len__(self) -> int:
        return len(self.split())

    @property
    def class_names(self) -> tuple[str, ...]:
        """All classes of the dataset, in the order of the labels."""
        return executors.current().context.load(self.dataset).classes

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "classes": list(self.classes)}
