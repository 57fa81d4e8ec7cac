"""The same exhibit at four scales, and what a notebook's parameters make of them."""

import ast
import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from rkdkit import attacks, autoattack, checks, data, evaluation, methods, paths
from rkdkit.runs import SELECTIONS
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import Store


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How large an exhibit is made. Any field can be set by its name in a notebook's parameters.

    Attributes
    ----------
    name : of the profile.
    dataset : as `data.load` takes it; decides `eps` and `augmentation` where they are None.
    student : the network, as `models.build` takes it.
    peer, teacher : the guides' networks; None: as the student's.
    teacher_method : how a fixed teacher is trained.
    select_on : how the epoch of a teacher, or of a network that is compared, is chosen: "val", "test" or "last".
    n_train, n_val, n_test : images to train on, held out, and tested on; None: all.
    n_autoattack : images AutoAttack is tried on, the first so many of the test images; None: all of them.
    recipes : whether each method is trained as its own paper does, where it says how: `methods.Method.recipe`.
    fixed : the fields that a recipe does not change, since a notebook set them itself.
    epochs, batch_size, lr, schedule, milestones, gamma, weight_decay, precision, snapshot_every : as `RunSpec`.
    swa_start : as `RunSpec`; below 1, a share of the epochs; None: no weights are averaged. Unless a notebook sets it,
        a "multistep" run averages from its first milestone on (PeerAiD section 4.5).
    eps : l_inf radius in [0, 1] pixel units; None: the dataset's.
    step_size : None: eps / 4, as 2/255 is of 8/255.
    attack_steps : steps of the attack in training, and of the one that chooses epochs.
    test_steps : steps of the attack that measures robust accuracy.
    test_iterate : which of its iterates decides, the "last", as in the papers, or "any": `attacks.PGD.iterate`.
    augmentation : None: the dataset's.
    settings : hyper-parameters by method: {"PeerAiD": {"tau": 1.0}}.
    """

    name: str
    dataset: str
    student: str
    peer: str | None = None
    teacher: str | None = None
    teacher_method: str = "PGD-AT"
    select_on: str = "val"
    n_train: int | None
    n_val: int
    n_test: int | None
    n_autoattack: int | None = None
    recipes: bool = False
    fixed: tuple[str, ...] = ()
    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    schedule: str = "onecycle"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    weight_decay: float = 2e-4
    swa_start: float | None = None
    precision: str = "float32"
    snapshot_every: int = 1
    eps: float | None = None
    step_size: float | None = None
    attack_steps: int = 10
    test_steps: int = 20
    test_iterate: str = "last"
    augmentation: str | None = None
    settings: Mapping[str, Mapping[str, methods.Setting]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.coerce_fields(self)

    def spec(self, method: str, seed: int = 0, **changes: Any) -> RunSpec:
        """Return the run of a method at this scale; `changes` are fields of `RunSpec`.

        A method that replays each batch m times is trained for 1/m of the epochs, as its papers do.

        Raises
        ------
        UnknownNameError, ValueError
            As `RunSpec`.
        """
        row = methods.get(method)
        common = {f.name for f in dataclasses.fields(self)} & {f.name for f in dataclasses.fields(RunSpec)}
        values: dict[str, Any] = {name: getattr(self, name) for name in common}
        values |= {
            "method": method,
            "seed": seed,
            "peer": (self.peer or self.student) if "peer" in row.roles else "",
            "augmentation": self.source.augmentation if self.augmentation is None else self.augmentation,
            "eps": self.source.eps if self.eps is None else self.eps,
        }
        values["step_size"] = values["eps"] / 4 if self.step_size is None else self.step_size
        values |= {name: value for name, value in self._recipe(row).items() if name not in self.fixed}
        values |= changes
        settings = {**self.settings.get(method, {}), **dict(changes.get("settings", ()))}
        values["settings"] = tuple(settings.items())
        if row.free and "epochs" not in changes:
            m = int(row.resolve(settings, self.dataset)["m"])
            values["epochs"] = max(values["epochs"] // m, 1)
            values["milestones"] = tuple(milestone // m for milestone in values["milestones"])
        if "swa_start" not in changes:
            values["swa_start"] = None if values.get("ema_decay") is not None else self._swa_start(values)
        return RunSpec(**values)

    def _swa_start(self, values: Mapping[str, Any]) -> float | None:
        if values["schedule"] == "multistep" and values["milestones"] and "swa_start" not in self.fixed:
            return int(values["milestones"][0])
        is_share = self.swa_start is not None and 0 < self.swa_start < 1
        return int(self.swa_start * values["epochs"]) if is_share else self.swa_start

    def _recipe(self, row: methods.Method) -> dict[str, Any]:
        if not self.recipes:
            return {}
        dataset, network = self.dataset.partition(":")[0], self.student.partition("/")[0]
        return {**row.recipe, **row.recipe_on.get(dataset, {}), **row.recipe_on.get(f"{dataset} {network}", {})}

    def as_wide(self, architecture: str) -> str:
        """Return another network with its width divided as the student's: "resnet34/4" beside "resnet18/4"."""
        return architecture + "".join(self.student.partition("/")[1:])

    @property
    def source(self) -> data.Source:
        """What is known of the data before they are loaded."""
        return data.source_of(self.dataset)

    @property
    def teacher_network(self) -> str:
        """The fixed teacher's network."""
        return self.teacher or self.student

    @property
    def test_attack(self) -> attacks.PGD:
        """The attack that measures robust accuracy: PGD-20, unless `test_steps` and `test_iterate` say otherwise."""
        return self._attack(self.test_steps, self.test_iterate)

    @property
    def selection_attack(self) -> attacks.PGD:
        """The attack that chooses an epoch: PGD-10, unless `attack_steps` says otherwise."""
        return self._attack(self.attack_steps)

    def _attack(self, steps: int, iterate: str = "last") -> attacks.PGD:
        eps = self.source.eps if self.eps is None else self.eps
        step_size = eps / 4 if self.step_size is None else self.step_size
        return attacks.PGD(eps, step_size, steps, iterate=iterate)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke", dataset="digits", student="resnet18/16",
            n_train=256, n_val=64, n_test=128, n_autoattack=4, epochs=3, batch_size=64, swa_start=2 / 3,
        ),
        Profile(
            name="quick", dataset="digits", student="resnet18/4",
            n_train=1200, n_val=100, n_test=None, n_autoattack=64, epochs=20, batch_size=64, swa_start=0.75,
        ),
        Profile(
            name="small", dataset="cifar10", student="resnet18/4",
            n_train=10_000, n_val=500, n_test=1000, n_autoattack=200, epochs=16, swa_start=0.75,
            precision="bfloat16", snapshot_every=2,
        ),
        Profile(
            name="paper", dataset="cifar10", student="resnet18",
            n_train=None, n_val=1000, n_test=None, epochs=300, precision="bfloat16", snapshot_every=5,
            schedule="multistep", milestones=(214, 259, 284), swa_start=0.75, recipes=True,
        ),
    )
}  # fmt: skip
"""smoke: CI, seconds. quick: the effect, on a laptop in minutes. small: photographs. paper: PeerAiD section 4.1."""

_TWO_CLASSES: dict[str, dict[str, Any]] = {
    # at the ten digits' radius of 0.25 adversarial training on these two alone does not get beyond guessing
    "digits": {"dataset": "digits:3,8", "eps": 0.15},
    "cifar10": {"dataset": "cifar10:airplane,automobile"},
}


def rkd(profile: object, *, two_classes: bool = False) -> dict[str, Any]:
    """Return the fields in which an exhibit of RKD's appendix C to E differs from a profile; for :func:`setup`.

    Fixed teachers are at their last epoch unless they are stopped early on purpose, so no images choose it.
    At paper scale they are trained as the paper's appendix A says; its students have recipes of their own.

    Parameters
    ----------
    profile : the name of a profile.
    two_classes : whether on two classes only, with none of their images held out and every epoch kept (RKD section
        C.2): planes and cars, or of the digits two that look alike.

    Raises
    ------
    UnknownNameError
        If there is no such profile.
    """
    base = PROFILES[checks.one_of("profile", profile, PROFILES)]
    fields: dict[str, Any] = {"select_on": "last"}
    if base.recipes:
        fields |= methods.RKD_TEACHER
    if two_classes:
        # every epoch counts in S(x) and in a trajectory, the first ones most
        fields |= {**_TWO_CLASSES[base.dataset], "n_train": None, "n_val": 0, "n_test": None, "snapshot_every": 1}
    return fields


NOTEBOOK_PARAMETERS = ("profile", "seed", "n_seeds", "output_dir")

_FIELDS = tuple(f.name for f in dataclasses.fields(Profile) if f.name not in ("name", "fixed"))
"""What of a profile a notebook may set."""


@dataclass(frozen=True)
class Setup:
    """What a notebook was asked for, checked.

    Attributes
    ----------
    profile : with the notebook's overrides in it.
    overrides : the fields that differ from the named profile.
    seeds : one a training.
    output_dir : where the three files go.
    store : where runs are kept.
    dataset : the data.
    started : `time.perf_counter()` when it was asked for.
    trains : methods whose runs the exhibit needs.
    """

    profile: Profile
    overrides: dict[str, Any]
    seeds: tuple[int, ...]
    output_dir: Path
    store: Store
    dataset: data.Dataset
    started: float
    trains: tuple[str, ...]

    def specs(self, method: str, **changes: Any) -> list[RunSpec]:
        """Return the runs of a method, one a seed, as :meth:`Profile.spec`."""
        return [self.profile.spec(method, seed, **changes) for seed in self.seeds]

    def changed(self, **fields: Any) -> "Setup":
        """Return the same with other fields of the profile: those that the exhibit sets, not the notebook's user.

        Raises
        ------
        UnknownNameError, ValueError
            If a network, dataset or value does not fit.
        DataNotFoundError
            If the data are not there.
        """
        profile = dataclasses.replace(self.profile, **fields)
        _check_runs(profile, self.trains)
        return dataclasses.replace(self, profile=profile, dataset=data.load(profile.dataset))

    @property
    def n_train(self) -> int:
        """How many training images are used."""
        return self.profile.n_train or len(self.dataset.train) - self.profile.n_val

    @property
    def n_test(self) -> int:
        """How many test images are used."""
        return min(self.profile.n_test or len(self.dataset.test), len(self.dataset.test))

    def test_attacks(self) -> dict[str, attacks.Attack | None]:
        """Return what PeerAiD's Table 1 measures, by metric.

        Raises
        ------
        ValueError
            If the data have too few classes for AutoAttack.
        """
        autoattack.check_classes(len(self.dataset.classes))
        attack = self.profile.test_attack
        return evaluation.standard_attacks(attack.eps, attack.step_size, attack.steps, attack.iterate)

    def n_of(self, metrics: Iterable[str]) -> dict[str, int]:
        """Return how many test images are used by metric: AutoAttack may be tried on fewer."""
        fewer = min(self.profile.n_autoattack or self.n_test, self.n_test)
        return {metric: fewer if metric == "autoattack" else self.n_test for metric in metrics}

    @property
    def title(self) -> str:
        """Data, network and radius, for a figure's title."""
        eps = self.profile.test_attack.eps
        radius = f"{eps:g}" if eps == round(eps, 4) else f"{eps * 255:.3g}/255"
        return f"{self.profile.dataset}, {self.profile.student}, eps {radius}"

    def described(self, measured_by: Iterable[object], n: int, part: str = "test") -> str:
        """Return what was asked for in words.

        Parameters
        ----------
        measured_by : the attacks, if any.
        n, part : on how many images of which part of the data, "test" or "train".
        """
        changed = f" ({', '.join(sorted(self.overrides))} changed)" if self.overrides else ""
        seeds = f"seed {self.seeds[0]}" if len(self.seeds) == 1 else f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        toy = "toy scale, " if self.profile.dataset.startswith("digits") else ""
        images = f"{self.n_train:,} training and {n:,} test images" if part == "test" else f"{n:,} training images"
        measured = ", ".join([self.title, *map(str, measured_by), images, seeds])
        return f"{self.profile.name} profile{changed}: {toy}{measured}"

    def __str__(self) -> str:
        return self.described([self.profile.test_attack], self.n_test)


def setup(
    namespace: Mapping[str, Any],
    further: Iterable[str] = (),
    *,
    fewest: int = 1,
    without: Iterable[str] = (),
    trains: Iterable[str] = ("PeerAiD",),
    **exhibit: Any,
) -> Setup:
    """Turn a notebook's parameters into a checked :class:`Setup`, before any work starts.

    Call it as ``setup(globals())`` right after the parameters cell. Besides `profile`, `seed`, `n_seeds` and
    `output_dir`, any field of :class:`Profile` can be set there by its name. None leaves it to the profile; the text
    "none" sets a number to None, where that means something ("all images", "no averaging").

    Parameters
    ----------
    namespace : the notebook's globals.
    further : other names that its parameters cell may set: those that the exhibit itself reads.
    fewest : how many test images the exhibit needs at least.
    without : fields of :class:`Profile` that the exhibit makes no use of, and that are not to be set.
    trains : methods whose runs must be possible with these parameters.
    exhibit : fields of :class:`Profile` in which the exhibit differs from the others: `teacher_method="TRADES"`.

    Raises
    ------
    UnknownNameError
        If a profile, dataset, method, network or parameter is not known; the message lists the known ones.
    ValueError
        If a value does not fit, or the data hold fewer images than asked for.
    DataNotFoundError
        If the data are not there.
    """
    started = time.perf_counter()
    given = parameters(namespace, further, without)
    base = dataclasses.replace(PROFILES[checks.one_of("profile", given.get("profile"), PROFILES)], **exhibit)
    overrides = {name: value for name, value in given.items() if name in _FIELDS and value is not None}
    for name in overrides.keys() & {"eps", "step_size"}:
        overrides[name] = _fraction(name, overrides[name])
    if "settings" in overrides:  # a setting that is not mentioned stays the profile's
        own = overrides["settings"]
        overrides["settings"] = {m: {**base.settings.get(m, {}), **own.get(m, {})} for m in {**base.settings, **own}}
    profile = dataclasses.replace(base, **overrides, fixed=tuple(sorted(overrides)))
    overrides = {name: getattr(profile, name) for name in overrides if getattr(profile, name) != getattr(base, name)}
    seed, n_seeds = given.get("seed", 0), given.get("n_seeds", 1)
    for name, value, low in (("seed", seed, 0), ("n_seeds", n_seeds, 1)):
        checks.number(name, value, low)
        if value != int(value):
            raise ValueError(f"{name} must be a whole number, not {value!r}.")
    data.source_of(profile.dataset)
    checks.one_of("selection", profile.select_on, SELECTIONS)
    checks.number("test_steps", profile.test_steps, 0)
    checks.one_of("test_iterate", profile.test_iterate, attacks.ITERATES)
    for method in profile.settings:
        methods.get(method).resolve(profile.settings[method])
    trains = tuple(trains)
    _check_runs(profile, trains)
    if profile.select_on == "val" and profile.n_val == 0:
        raise ValueError("Nothing is held out to choose an epoch on: set n_val, or select_on to 'last' or 'test'.")
    dataset = data.load(profile.dataset)
    dataset.split_validation(profile.n_train, profile.n_val)
    for name, low in (("n_test", fewest), ("n_autoattack", 1)):
        asked = getattr(profile, name)
        checks.number(name, len(dataset.test) if asked is None else asked, low, len(dataset.test))
    seeds = tuple(range(int(seed), int(seed + n_seeds)))
    output_dir = output_folder(profile.name, given.get("output_dir"))
    return Setup(profile, overrides, seeds, output_dir, Store(), dataset, started, trains)


def _check_runs(profile: Profile, trains: Iterable[str]) -> None:
    # making a run checks every field
    for method in trains:
        profile.spec(method, teachers=tuple(Teacher(module="any", slot=g) for g in methods.get(method).guides))
    profile.spec(profile.teacher_method, student=profile.teacher_network)


def output_folder(profile: str, output_dir: Any = None) -> Path:
    """Return where an exhibit's files go: below the project, unless `output_dir` is absolute.

    Parameters
    ----------
    profile : the profile's name.
    output_dir : as a notebook's parameters say; None or "": figures/<profile>.
    """
    return paths.project_root() / (output_dir or f"figures/{profile}")


def parameters(
    namespace: Mapping[str, Any], further: Iterable[str] = (), without: Iterable[str] = ()
) -> dict[str, Any]:
    """Return what a notebook's parameters cell sets, as it is written there, if all of it is known.

    Parameters
    ----------
    namespace, further, without : as :func:`setup`.

    Raises
    ------
    UnknownNameError
        If a parameter is not known, or is one of `without`, which may be None all the same.
    """
    given = _parameters(namespace)
    known = [name for name in (*NOTEBOOK_PARAMETERS, *further, *_FIELDS) if name not in without]
    for name, value in given.items():
        if name not in without:
            checks.one_of("parameter", name, known)
        elif value is not None:
            raise checks.UnknownNameError(f"This exhibit does not use {name}: leave it out.")
    return given


def _parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a notebook's parameters cell sets, and the cell that papermill may put behind it.

    Only names that the cells as they are now assign count: a line that was run once and then deleted is gone, and other
    variables of the notebook are none of its parameters. A plain mapping without a history of cells is taken whole.
    """
    if "In" not in namespace:
        return dict(namespace)
    assigned = [_assigned_names(cell) for cell in namespace["In"]]
    is_parameters = [i for i, cell in enumerate(namespace["In"]) if "profile" in assigned[i] and not _injected(cell)]
    start = is_parameters[-1] if is_parameters else 0
    injected = [i for i, cell in enumerate(namespace["In"]) if i > start and _injected(cell)]
    return {name: namespace[name] for i in (start, *injected) for name in assigned[i]}


def _injected(cell: str) -> bool:
    return cell.startswith("# Parameters\n")


def _assigned_names(cell: str) -> list[str]:
    try:
        statements = ast.parse(cell).body
    except SyntaxError:  # a cell of magics
        return []
    targets = [t for s in statements if isinstance(s, ast.Assign) for t in s.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _fraction(name: str, value: Any) -> Any:
    """Read a radius or step that may be written as a fraction: "8/255"."""
    if not isinstance(value, str) or value == "none":
        return value
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a number such as 0.03 or '8/255', not {value!r}.") from None
