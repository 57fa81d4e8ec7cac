"""References to snapshots and images: plain values that can be pickled and exist before anything is trained."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from rkdkit import checks, data, executors, fetching, models
from rkdkit.data import Dataset, Split
from rkdkit.origin import origin_of
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import DamagedFileError, StoreError
from rkdkit.tasks import Context


def epochs_of(spec: RunSpec, role: str = "student") -> tuple[int, ...]:
    """Return the epochs, counted from 1, at which a run keeps a network; averaged weights may start at a later epoch.

    Raises
    ------
    UnknownNameError
        If the run has no such network.
    """
    checks.one_of(f"network of {spec}", role, spec.roles_at(spec.epochs))
    return tuple(e for e in range(1, spec.epochs + 1) if spec.has_snapshot(e) and role in spec.roles_at(e))


@dataclass(frozen=True)
class Snapshot:
    """A network at the end of an epoch, whether or not it has been trained yet.

    Attributes
    ----------
    spec : the run it comes from.
    role : "student", "peer" or "student_averaged".
    epoch : counted from 1; 0 is replaced by the run's last epoch.
    chosen : False: the epoch is a placeholder for one that is not chosen yet; neither compared nor written to files.

    Raises
    ------
    UnknownNameError
        If the run has no such network at that epoch.
    ValueError
        If the run keeps no snapshot of that epoch.
    """

    spec: RunSpec
    role: str = "student"
    epoch: int = 0
    chosen: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "epoch", self.epoch or self.spec.epochs)
        spec, role = self.spec, self.role
        kept = 1 <= self.epoch <= spec.epochs and spec.has_snapshot(self.epoch)
        if not kept or role not in spec.roles_at(self.epoch):
            epochs = ", ".join(map(str, epochs_of(spec, role)))
            raise ValueError(f"{spec} has no snapshot of its {role} at epoch {self.epoch}; it has them at {epochs}.")

    @property
    def certain(self) -> bool:
        """Whether neither its epoch nor an epoch of its teachers is a placeholder."""
        return self.chosen and self.spec.certain

    @property
    def architecture(self) -> str:
        """The name of its architecture, as `models.build` takes it."""
        return self.spec.peer if self.role == "peer" else self.spec.student

    @property
    def file(self) -> str:
        """The name of its file in the run's folder."""
        return f"{self.role}-{self.epoch:04d}.safetensors"

    def as_teacher(self, slot: str = "T", weight: float = 1.0) -> Teacher:
        """Return the snapshot as a fixed teacher, for `RunSpec.teachers`.

        Parameters
        ----------
        slot : its teacher slot in the method's row: "T", "T_rob" or "T_nat".
        weight : its share in an ensemble.
        """
        return Teacher(run=self.spec, epoch=self.epoch, role=self.role, slot=slot, weight=weight, certain=self.chosen)

    def digest(self, context: Context | None = None) -> str | None:
        """Return the SHA-256 of its file, as the run's record has it; None: it is not trained yet.

        Parameters
        ----------
        context : its store is looked in; None: the executor's context.

        Raises
        ------
        DamagedFileError
            If the run's record is damaged.
        """
        record = (context or executors.current().context).record(self.spec)
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
            If the file is missing or damaged.
        NeedsNetworkError
            While planning, when no networks are read.
        """
        context = executors.current().networks_for(str(self))
        return self.read(context if device is None else replace(context, device=torch.device(device)))

    def read(self, context: Context) -> models.Classifier:
        """As :meth:`load`, from the store and onto the device of a context.

        A file that is missing is fetched from the mirror, if there is one.

        Raises
        ------
        DamagedFileError
            If the file is missing or damaged, or holds other weights than the network has.
        MirrorError
            If the mirror has another file, or cannot give it.
        StoreError
            If the run is not trained up to that epoch.
        """
        digest = self.digest(context)
        if digest is None:
            raise StoreError(f"The {self} is not trained yet: call runs.ensure(spec) first.")
        folder = context.store.run_folder(self.spec)
        fetching.restore(folder.path / self.file, digest)
        weights = folder.read_tensors(self.file, digest)
        try:
            network = models.build(
                self.architecture,
                len(weights["head.bias"]),
                weights["mean"].flatten().tolist(),
                weights["std"].flatten().tolist(),
            )
            network.load_state_dict(weights)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # a record may name whatever it likes
            origin = origin_of(folder.path)
            source = f"It was fetched from {origin}: use that mirror no more. " if origin else ""
            raise DamagedFileError(
                f"{folder.path / self.file} does not hold the weights of {self.architecture}, though its digest is "
                f"that of the run's record. {source}Delete the folder {folder.path} and repeat the command."
            ) from error
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
    n : use only the first n images of that part; None: all.
    n_train, n_val : how the training images are divided, as in `RunSpec`; used for "train" and "val".
    classes : of those images, use only these classes, with the dataset's labels; (): all classes.

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
            object.__setattr__(self, "n", checks.whole("n, how many images,", self.n, 0))
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.part == "test":  # fields without effect must not make the same images unequal
            object.__setattr__(self, "n_train", None)
            object.__setattr__(self, "n_val", 0)

    def first(self, n: int | None) -> "Images":
        """Return the first n of these images; None: all of them."""
        return self if n is None else replace(self, n=n if self.n is None else min(n, self.n))

    def split(self, load: Callable[[str], Dataset] | None = None) -> Split:
        """Return the images and labels themselves; the same object each time, so that its digest is computed once.

        Parameters
        ----------
        load : a dataset's name -> the dataset; None: the executor's.

        Raises
        ------
        DataNotFoundError
            If the data are not there.
        ValueError
            If there are fewer images than `n_train` and `n_val` need.
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
