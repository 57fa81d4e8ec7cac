"""An exhibit's parameters: a profile and the values that differ from it, all checked before any work starts."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from rkdkit import attacks, autoattack, checks, data, evaluation, executors, methods, paths
from rkdkit.methods.own import load_named
from rkdkit.profiles import PROFILES, Profile
from rkdkit.references import Images
from rkdkit.runs import SELECTIONS
from rkdkit.spec import SMALLEST_BATCH, RunSpec, Teacher

FIELDS = tuple(f.name for f in dataclasses.fields(Profile) if f.name not in ("name", "fixed", "without_recipe"))
"""The fields of a profile that a notebook may set."""

SYNONYMS = {
    "arch": "student",
    "architecture": "student",
    "attackstepsize": "step_size",
    "bs": "batch_size",
    "data": "dataset",
    "epsilon": "eps",
    "learningrate": "lr",
    "maxepochs": "epochs",
    "maxlr": "lr",
    "model": "student",
    "network": "student",
    "nepochs": "epochs",
    "numepochs": "epochs",
    "numseeds": "n_seeds",
    "outdir": "output_dir",
    "pgdsteps": "test_steps",
    "radius": "eps",
    "randomseed": "seed",
    "scheduler": "schedule",
    "testsize": "n_test",
    "trainsize": "n_train",
    "wd": "weight_decay",
}
"""What the field also calls parameters, without capitals, hyphens and underscores, and their names here."""

LARGEST_FIRST_SEED = 10**9
"""The largest seed that a notebook may set; those of further teachers lie above it (`comparisons.ANOTHER`)."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """How an exhibit's scale differs from a profile's, and what its parameters must allow.

    Attributes
    ----------
    paper : its name in the paper: "PeerAiD, Table 1".
    differs : values of the fields of :class:`Profile`, by the name of a profile; "" applies to all profiles.
    unused : fields that the exhibit does not use and that must not be set.
    needs : the smallest number of test images that it can use.
    trains : methods that must be trainable with its parameters.
    compares : the methods that it compares where a notebook does not name others; empty: a notebook cannot.
    fewest : how many methods it compares at least.
    slots : the teacher slots for which it has teachers.
    times : whether it measures how long something takes, so that it must not be drawn beside others.
    says : makes a sentence of the parameters, for a line of the caption; None: no further line.
    own : the parameters of its notebook that are no fields of a profile, and their defaults.
    """

    paper: str
    differs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    needs: int = 1
    trains: tuple[str, ...] = ("PeerAiD",)
    compares: tuple[str, ...] = ()
    fewest: int = 1
    slots: tuple[str, ...] = tuple(methods.GUIDES)
    times: bool = False
    says: Callable[["Setup"], str] | None = field(default=None, compare=False)
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_data(self) -> bool:
        """Whether it uses a dataset; if not, no dataset has to be present."""
        return "dataset" not in self.unused


@dataclass(frozen=True)
class Setup:
    """The checked parameters of a notebook.

    Attributes
    ----------
    name : the name of the exhibit and of its notebook.
    exhibit : the `EXHIBIT` of its module.
    formats : those in which its picture is saved, as `saved.formats`.
    profile : the profile with the notebook's overrides applied.
    overrides : the fields that differ from the named profile, and "methods" if they are not the paper's.
    seeds : one per training of each method.
    output_dir : the folder of the exhibit's three files.
    started : `time.perf_counter()` when :func:`prepare` was called.
    asked : all tasks requested since then: the results that the exhibit rests on.
    methods : the methods that are compared, if the exhibit lets a notebook name them.
    own : the notebook's own parameters (`Exhibit.own`) that do not have their defaults.
    """

    name: str
    exhibit: Exhibit
    formats: tuple[str, ...] = field(default=("png",), kw_only=True)
    profile: Profile
    overrides: dict[str, Any]
    seeds: tuple[int, ...]
    output_dir: Path
    started: float
    asked: executors.Asked
    own: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def changes(self) -> dict[str, Any]:
        """What was set that is not the profile's or the notebook's own: by these parameters its folder is named."""
        return _changes(self.overrides, self.own, self.seeds[0])

    @property
    def dataset(self) -> data.Dataset:
        """The dataset, the same object at every access."""
        return _load(self.profile.dataset)

    def specs(self, method: str, **changes: Any) -> list[RunSpec]:
        """Return the specifications of a method's runs, one per seed; parameters as :meth:`Profile.spec`."""
        return [self.profile.spec(method, seed, **changes) for seed in self.seeds]

    def teacher_specs(self, method: str | None = None) -> list[RunSpec]:
        """Return the specifications of a fixed teacher's runs, one per seed; `method` None: the profile's."""
        return self.specs(method or self.profile.teacher_method, student=self.profile.teacher_network)

    def changed(self, **fields: Any) -> "Setup":
        """Return a copy with other values of the profile's fields, set by the exhibit and not by the notebook's user.

        Raises
        ------
        UnknownNameError, ValueError
            If a network, dataset or value does not fit.
        DataNotFoundError
            If the data are not there.
        """
        profile = dataclasses.replace(self.profile, **fields)
        check_runs(profile, (*self.exhibit.trains, *self.methods))
        _load(profile.dataset)
        return dataclasses.replace(self, profile=profile)

    @property
    def n_train(self) -> int:
        """How many training images are used."""
        return self.profile.n_train or len(self.dataset.train) - self.profile.n_val

    @property
    def n_test(self) -> int:
        """How many test images are used."""
        return min(self.profile.n_test or len(self.dataset.test), len(self.dataset.test))

    @property
    def images(self) -> Images:
        """The test images that are used."""
        return Images(self.profile.dataset, n=self.n_test)

    @property
    def train_images(self) -> Images:
        """The images that networks are trained on."""
        scale = self.profile
        return Images(scale.dataset, "train", n_train=scale.n_train, n_val=scale.n_val)

    def test_attacks(self) -> dict[str, attacks.Attack | None]:
        """Return the attacks of PeerAiD's Table 1, by metric; None: natural images.

        Raises
        ------
        ValueError
            If the data have too few classes for AutoAttack.
        """
        autoattack.check_classes(len(self.dataset.classes))
        attack = self.profile.test_attack
        return evaluation.standard_attacks(attack.eps, attack.step_size, attack.steps, attack.iterate)

    def n_of(self, metrics: Iterable[str]) -> dict[str, int]:
        """Return the number of test images for each metric; AutoAttack may use fewer than the others."""
        fewer = min(self.profile.n_autoattack or self.n_test, self.n_test)
        return {metric: fewer if metric == "autoattack" else self.n_test for metric in metrics}

    @property
    def title(self) -> str:
        """Data, network and radius, for a figure's title."""
        eps = self.profile.test_attack.eps
        radius = f"{eps:g}" if eps == round(eps, 4) else f"{eps * 255:.3g}/255"
        return f"{self.profile.dataset}, {self.profile.student}, eps {radius}"

    def described(self, measured_by: Iterable[object], n: int, part: str = "test") -> str:
        """Describe the parameters in words, for a caption.

        Parameters
        ----------
        measured_by : the attacks, if any.
        n, part : the number of images measured, and their part of the data, "test" or "train".
        """
        named = sorted({**self.overrides, **self.own})
        changed = f" ({', '.join(named)} changed)" if named else ""
        seeds = f"seed {self.seeds[0]}" if len(self.seeds) == 1 else f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        toy = "toy scale, " if self.profile.dataset.startswith("digits") else ""
        images = f"{self.n_train:,} training and {n:,} test images" if part == "test" else f"{n:,} training images"
        measured = ", ".join([self.title, *map(str, measured_by), images, seeds])
        return f"{self.profile.name} profile{changed}: {toy}{measured}"

    def __str__(self) -> str:
        return self.described([self.profile.test_attack], self.n_test)


def prepare(
    name: str,
    exhibit: Exhibit,
    profile: str,
    *,
    seed: int = 0,
    n_seeds: int = 1,
    output_dir: str | None = None,
    methods: Sequence[str] | None = None,
    own: Mapping[str, Any] | None = None,
    saves: bool = True,
    **parameters: Any,
) -> Setup:
    """Turn an exhibit's parameters into a checked :class:`Setup`; notebooks call ``exhibits.setup``.

    Parameters
    ----------
    name, exhibit : the exhibit's name, and the `EXHIBIT` of its module.
    profile : the name of a profile.
    seed, n_seeds : the first seed, and the number of trainings of each method.
    output_dir : as `paths.output_folder`; it must be writable, unless the exhibit is only planned. None: where seed,
        parameters or the notebook's own differ from what they are by default, a folder of their own. The number of
        seeds does not count: with more of them, the same is measured more exactly.
    methods : the methods to compare, if the exhibit compares some; None: the paper's. Those of the user's own file are
        known, see `methods.own`.
    own : the values of the notebook's own parameters, as far as they are known.
    saves : whether files will be written to the output folder.
    parameters : fields of :class:`Profile`. With None, a field keeps the profile's value. The text "none" sets a number
        to None where None has a meaning ("all images", "no averaging").

    Raises
    ------
    UnknownNameError
        If a profile, dataset, method, network or parameter is not known; the message lists the known ones.
    ValueError
        If a value does not fit, nothing can be written in the output folder, or the dataset has fewer images than
        requested.
    DataNotFoundError
        If the data are not there.
    """
    started = time.perf_counter()
    load_named()
    scale, overrides = _scaled(exhibit, profile, parameters)
    compared = _compared(exhibit, methods)
    overrides |= {"methods": list(compared)} if compared != exhibit.compares else {}
    seed = checks.whole("seed", seed, 0, LARGEST_FIRST_SEED)
    n_seeds = checks.whole("n_seeds", n_seeds, 1, checks.MOST_TRAININGS)
    different = _set_otherwise(exhibit, own or {})
    folder = paths.output_folder(scale.name, output_dir, _changes(overrides, different, seed))
    checks.folder("output_dir", folder, writable=saves and executors.current().draws)
    _check(exhibit, scale, compared)
    if exhibit.needs_data:
        _check_images(exhibit, scale)
    seeds = tuple(range(seed, seed + n_seeds))
    asked = executors.current().listen()
    return Setup(name, exhibit, scale, overrides, seeds, folder, started, asked, different, methods=compared)


def folder_of(exhibit: Exhibit, given: Mapping[str, Any]) -> Path:
    """Return the folder in which an exhibit is saved, without setting it up.

    Parameters
    ----------
    exhibit : the `EXHIBIT` of its module.
    given : all parameters by name: `profile`, `seed`, `output_dir`, fields of a profile, and the notebook's own.

    Raises
    ------
    UnknownNameError, ValueError
        As :func:`prepare`.
    """
    own = {name: value for name, value in given.items() if name in exhibit.own}
    others = (*own, "profile", "seed", "n_seeds", "output_dir", "methods", "formats")
    profile = given.get("profile", "quick")
    scale, overrides = _scaled(exhibit, profile, {n: value for n, value in given.items() if n not in others})
    compared = _compared(exhibit, given.get("methods"))
    overrides |= {"methods": list(compared)} if compared != exhibit.compares else {}
    seed = checks.whole("seed", given.get("seed", 0), 0, LARGEST_FIRST_SEED)
    changes = _changes(overrides, _set_otherwise(exhibit, own), seed)
    return paths.output_folder(scale.name, given.get("output_dir"), changes)


def check_runs(scale: Profile, methods_trained: Iterable[str]) -> None:
    """Refuse parameters with which a method or the fixed teacher cannot be trained.

    Raises
    ------
    UnknownNameError, ValueError
        As `RunSpec`.
    """
    for method in methods_trained:
        scale.spec(method, teachers=Teacher.placeholders(method))
    scale.spec(scale.teacher_method, student=scale.teacher_network)


def _scaled(exhibit: Exhibit, profile: str, parameters: Mapping[str, Any]) -> tuple[Profile, dict[str, Any]]:
    """Return the exhibit's scale, and of the fields that parameters set those that differ from the profile's."""
    base = PROFILES[checks.one_of("profile", profile, PROFILES)]
    base = dataclasses.replace(base, **{**exhibit.differs.get("", {}), **exhibit.differs.get(profile, {})})
    given = _overrides(exhibit, base, parameters)
    scale = dataclasses.replace(base, **given, fixed=tuple(sorted(given)))
    if scale.schedule != base.schedule and "gamma" not in given:  # the exhibit's factor is that of its own schedule
        scale = dataclasses.replace(scale, gamma=RunSpec.gamma)
    return scale, {name: getattr(scale, name) for name in given if getattr(scale, name) != getattr(base, name)}


def _set_otherwise(exhibit: Exhibit, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a notebook's own parameters that do not have their defaults, as JSON has them."""
    plain = {name: paths.plain_value(value) for name, value in own.items()}
    return {name: value for name, value in plain.items() if value != paths.plain_value(exhibit.own[name])}


def _changes(overrides: Mapping[str, Any], own: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {**overrides, **own, **({"seed": seed} if seed else {})}


def _overrides(exhibit: Exhibit, base: Profile, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile's fields that parameters set, with fractions as numbers; refuse unknown and unused names."""
    known = [name for name in FIELDS if name not in exhibit.unused]
    always = ["profile", "seed", "n_seeds", "output_dir", *(["methods"] if exhibit.compares else [])]
    for name, value in parameters.items():
        if name not in exhibit.unused:
            checks.one_of("parameter", name, [*always, *known], SYNONYMS)
        elif value is not None:
            raise checks.UnknownNameError(f"This exhibit does not use {name}: leave it out.")
    overrides = {name: value for name, value in parameters.items() if value is not None}
    for name in overrides.keys() & {"eps", "step_size"}:
        overrides[name] = _fraction(name, overrides[name])
    if "settings" in overrides:  # a setting that is not given keeps the profile's value
        example = '{"KD": {"tau": 5}}'
        own = checks.by_name("settings", overrides["settings"], example)
        own = {
            checks.one_of("method", method, methods.METHODS): checks.by_name(f"settings of {method}", given, example)
            for method, given in own.items()
        }
        overrides["settings"] = {m: {**base.settings.get(m, {}), **own.get(m, {})} for m in {**base.settings, **own}}
    return overrides


def _compared(exhibit: Exhibit, names: object) -> tuple[str, ...]:
    """Return the methods that an exhibit compares: those that its notebook names, or the paper's."""
    if names is None:
        return exhibit.compares
    if not exhibit.compares:
        raise checks.UnknownNameError("This exhibit takes no methods: what it compares is fixed. Leave it out.")
    given = checks.listed("methods", names, '["PGD-AT", "RSLAD"]')
    for name in given:
        row = known_method(name)
        for slot in row.guides:
            if slot not in exhibit.slots:
                raise ValueError(f"{name} needs a {methods.GUIDES[slot]} ({slot}), and none is trained here for it.")
    if len(given) < exhibit.fewest or len(set(given)) < len(given):
        number = f"{exhibit.fewest} method{'s' if exhibit.fewest > 1 else ''}"
        raise ValueError(f"methods must list at least {number}, and each once, not {checks.shown(names)}.")
    return tuple(given)


def known_method(name: object) -> methods.Method:
    """Return a row of the table, which may be one of the user's own file.

    Raises
    ------
    UnknownNameError
        If there is none; the message lists the known ones, and says where one of the user's own is looked for.
    ValueError
        If the user's own file is refused.
    """
    load_named()
    try:
        return methods.get(name)  # type: ignore[arg-type]
    except checks.UnknownNameError as error:
        hint = "" if load_named() else " One of your own is in a Python file: --methods FILE."
        raise checks.UnknownNameError(f"{error}{hint}") from None


def _check(exhibit: Exhibit, scale: Profile, compared: Sequence[str]) -> None:
    data.source_of(scale.dataset)
    checks.one_of("selection", scale.select_on, SELECTIONS)
    checks.number("test_steps", scale.test_steps, 0, checks.MOST_STEPS)
    checks.one_of("test_iterate", scale.test_iterate, attacks.ITERATES)
    for method in scale.settings:
        methods.get(method).resolve(scale.settings[method])
    check_runs(scale, dict.fromkeys((*exhibit.trains, *compared)))
    if scale.select_on == "val" and scale.n_val == 0:
        raise ValueError("Nothing is held out to choose an epoch on: set n_val, or select_on to 'last' or 'test'.")


def _check_images(exhibit: Exhibit, scale: Profile) -> None:
    dataset = _load(scale.dataset)
    train, _ = dataset.split_validation(scale.n_train, scale.n_val)
    checks.number("n_train, the number of training images that are not held out,", len(train), SMALLEST_BATCH)
    for what, low in (("n_test", exhibit.needs), ("n_autoattack", 1)):
        asked = getattr(scale, what)
        checks.number(what, len(dataset.test) if asked is None else asked, low, len(dataset.test))


def _load(dataset: str) -> data.Dataset:
    return executors.current().context.load(dataset)


def _fraction(name: str, value: Any) -> Any:
    """Read a radius or step size, which may be written as a fraction: "8/255"."""
    if not isinstance(value, str) or value == "none":
        return value
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a number such as 0.03 or '8/255', not {checks.shown(value)}.") from None
