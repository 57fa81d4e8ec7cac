"""An exhibit's parameters: a profile and the values that differ from it, all checked before any work starts."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from rkdkit import attacks, autoattack, checks, data, evaluation, executors, methods, paths
from rkdkit.profiles import PROFILES, Profile
from rkdkit.references import Images
from rkdkit.runs import SELECTIONS
from rkdkit.spec import SMALLEST_BATCH, RunSpec, Teacher

FIELDS = tuple(f.name for f in dataclasses.fields(Profile) if f.name not in ("name", "fixed", "without_recipe"))
"""The fields of a profile that a notebook may set."""

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
    times : whether it measures how long something takes, so that it must not be drawn beside others.
    says : makes a sentence of the parameters, for a line of the caption; None: no further line.
    """

    paper: str
    differs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    needs: int = 1
    trains: tuple[str, ...] = ("PeerAiD",)
    times: bool = False
    says: Callable[["Setup"], str] | None = field(default=None, compare=False)

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
    overrides : the fields that differ from the named profile.
    seeds : one per training of each method.
    output_dir : the folder of the exhibit's three files.
    started : `time.perf_counter()` when :func:`prepare` was called.
    asked : all tasks requested since then: the results that the exhibit rests on.
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
        check_runs(profile, self.exhibit.trains)
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
        changed = f" ({', '.join(sorted(self.overrides))} changed)" if self.overrides else ""
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
    **parameters: Any,
) -> Setup:
    """Turn an exhibit's parameters into a checked :class:`Setup`; notebooks call ``exhibits.setup``.

    Parameters
    ----------
    name, exhibit : the exhibit's name, and the `EXHIBIT` of its module.
    profile : the name of a profile.
    seed, n_seeds : the first seed, and the number of trainings of each method.
    output_dir : as `paths.output_folder`; it must be writable, unless the exhibit is only planned.
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
    base = PROFILES[checks.one_of("profile", profile, PROFILES)]
    base = dataclasses.replace(base, **{**exhibit.differs.get("", {}), **exhibit.differs.get(profile, {})})
    overrides = _overrides(exhibit, base, parameters)
    scale = dataclasses.replace(base, **overrides, fixed=tuple(sorted(overrides)))
    overrides = {name: getattr(scale, name) for name in overrides if getattr(scale, name) != getattr(base, name)}
    seed = checks.whole("seed", seed, 0, LARGEST_FIRST_SEED)
    n_seeds = checks.whole("n_seeds", n_seeds, 1, checks.MOST_TRAININGS)
    folder = paths.output_folder(scale.name, output_dir)
    checks.folder("output_dir", folder, writable=executors.current().draws)
    _check(exhibit, scale)
    if exhibit.needs_data:
        _check_images(exhibit, scale)
    seeds = tuple(range(seed, seed + n_seeds))
    return Setup(name, exhibit, scale, overrides, seeds, folder, started, executors.current().listen())


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


def _overrides(exhibit: Exhibit, base: Profile, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile's fields that parameters set, with fractions as numbers; refuse unknown and unused names."""
    known = [name for name in FIELDS if name not in exhibit.unused]
    for name, value in parameters.items():
        if name not in exhibit.unused:
            checks.one_of("parameter", name, ["profile", "seed", "n_seeds", "output_dir", *known])
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


def _check(exhibit: Exhibit, scale: Profile) -> None:
    data.source_of(scale.dataset)
    checks.one_of("selection", scale.select_on, SELECTIONS)
    checks.number("test_steps", scale.test_steps, 0, checks.MOST_STEPS)
    checks.one_of("test_iterate", scale.test_iterate, attacks.ITERATES)
    for method in scale.settings:
        methods.get(method).resolve(scale.settings[method])
    check_runs(scale, exhibit.trains)
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
