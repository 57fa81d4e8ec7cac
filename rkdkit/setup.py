"""What an exhibit was asked for: a profile, the parameters that differ from it, all checked before any work starts."""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from rkdkit import attacks, autoattack, checks, data, evaluation, executors, methods, paths
from rkdkit.profiles import PROFILES, Profile
from rkdkit.references import Images
from rkdkit.runs import SELECTIONS
from rkdkit.spec import RunSpec, Teacher

FIELDS = tuple(f.name for f in dataclasses.fields(Profile) if f.name not in ("name", "fixed"))
"""What of a profile a notebook may set."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """How an exhibit's scale differs from a profile's, and what its parameters must allow; each module has one.

    Attributes
    ----------
    paper : what the paper calls it: "PeerAiD, Table 1".
    differs : fields of :class:`Profile` by the name of a profile; "" for all profiles.
    unused : fields that it makes no use of, and that are not to be set.
    needs : how many test images it needs at least.
    trains : methods whose runs must be possible with its parameters.
    """

    paper: str
    differs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    needs: int = 1
    trains: tuple[str, ...] = ("PeerAiD",)

    @property
    def needs_data(self) -> bool:
        """Whether it makes use of a dataset; if not, none has to be there."""
        return "dataset" not in self.unused


@dataclass(frozen=True)
class Setup:
    """What a notebook was asked for, checked.

    Attributes
    ----------
    name : the exhibit's, and its notebook's.
    exhibit : what its module says.
    profile : with the notebook's overrides in it.
    overrides : the fields that differ from the named profile.
    seeds : one a training.
    output_dir : where the three files go.
    started : `time.perf_counter()` when it was asked for.
    asked : all tasks that were asked for since: what the exhibit rests on.
    """

    name: str
    exhibit: Exhibit
    profile: Profile
    overrides: dict[str, Any]
    seeds: tuple[int, ...]
    output_dir: Path
    started: float
    asked: executors.Asked

    @property
    def dataset(self) -> data.Dataset:
        """The data; the same object each time."""
        return _load(self.profile.dataset)

    def specs(self, method: str, **changes: Any) -> list[RunSpec]:
        """Return the runs of a method, one a seed, as :meth:`Profile.spec`."""
        return [self.profile.spec(method, seed, **changes) for seed in self.seeds]

    def teacher_specs(self, method: str | None = None) -> list[RunSpec]:
        """Return the runs of a fixed teacher, one a seed; None: trained as the profile says."""
        return self.specs(method or self.profile.teacher_method, student=self.profile.teacher_network)

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
    name, exhibit : the exhibit's name, and what its module says.
    profile : the name of a profile.
    seed, n_seeds : the first seed, and how many trainings there are of each method.
    output_dir : as :func:`output_folder`.
    parameters : fields of :class:`Profile`. None leaves a field to the profile; the text "none" sets a number to None,
        where that means something ("all images", "no averaging").

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
    base = PROFILES[checks.one_of("profile", profile, PROFILES)]
    base = dataclasses.replace(base, **{**exhibit.differs.get("", {}), **exhibit.differs.get(profile, {})})
    overrides = _overrides(exhibit, base, parameters)
    scale = dataclasses.replace(base, **overrides, fixed=tuple(sorted(overrides)))
    overrides = {name: getattr(scale, name) for name in overrides if getattr(scale, name) != getattr(base, name)}
    for what, value, low in (("seed", seed, 0), ("n_seeds", n_seeds, 1)):
        checks.number(what, value, low)
        if value != int(value):
            raise ValueError(f"{what} must be a whole number, not {value!r}.")
    _check(exhibit, scale)
    if exhibit.needs_data:
        _check_images(exhibit, scale)
    seeds = tuple(range(int(seed), int(seed + n_seeds)))
    folder = output_folder(scale.name, output_dir)
    return Setup(name, exhibit, scale, overrides, seeds, folder, started, executors.current().listen())


def output_folder(profile: str, output_dir: str | None = None) -> Path:
    """Return where an exhibit's files go: below the project, unless `output_dir` is absolute.

    Parameters
    ----------
    profile : the profile's name.
    output_dir : as a notebook's parameters say; None or "": figures/<profile>.
    """
    return paths.project_root() / (output_dir or f"figures/{profile}")


def check_runs(scale: Profile, methods_trained: Iterable[str]) -> None:
    """Refuse parameters by which a method, or the fixed teacher, could not be trained.

    Raises
    ------
    UnknownNameError, ValueError
        As `RunSpec`.
    """
    for method in methods_trained:
        scale.spec(method, teachers=Teacher.placeholders(method))
    scale.spec(scale.teacher_method, student=scale.teacher_network)


def _overrides(exhibit: Exhibit, base: Profile, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the profile that parameters set, read as they may be written; refuse what is not known."""
    known = [name for name in FIELDS if name not in exhibit.unused]
    for name, value in parameters.items():
        if name not in exhibit.unused:
            checks.one_of("parameter", name, ["profile", "seed", "n_seeds", "output_dir", *known])
        elif value is not None:
            raise checks.UnknownNameError(f"This exhibit does not use {name}: leave it out.")
    overrides = {name: value for name, value in parameters.items() if value is not None}
    for name in overrides.keys() & {"eps", "step_size"}:
        overrides[name] = _fraction(name, overrides[name])
    if "settings" in overrides:  # a setting that is not mentioned stays the profile's
        own = overrides["settings"]
        overrides["settings"] = {m: {**base.settings.get(m, {}), **own.get(m, {})} for m in {**base.settings, **own}}
    return overrides


def _check(exhibit: Exhibit, scale: Profile) -> None:
    data.source_of(scale.dataset)
    checks.one_of("selection", scale.select_on, SELECTIONS)
    checks.number("test_steps", scale.test_steps, 0)
    checks.one_of("test_iterate", scale.test_iterate, attacks.ITERATES)
    for method in scale.settings:
        methods.get(method).resolve(scale.settings[method])
    check_runs(scale, exhibit.trains)
    if scale.select_on == "val" and scale.n_val == 0:
        raise ValueError("Nothing is held out to choose an epoch on: set n_val, or select_on to 'last' or 'test'.")


def _check_images(exhibit: Exhibit, scale: Profile) -> None:
    dataset = _load(scale.dataset)
    dataset.split_validation(scale.n_train, scale.n_val)
    for what, low in (("n_test", exhibit.needs), ("n_autoattack", 1)):
        asked = getattr(scale, what)
        checks.number(what, len(dataset.test) if asked is None else asked, low, len(dataset.test))


def _load(dataset: str) -> data.Dataset:
    return executors.current().context.load(dataset)


def _fraction(name: str, value: Any) -> Any:
    """Read a radius or step that may be written as a fraction: "8/255"."""
    if not isinstance(value, str) or value == "none":
        return value
    try:
        return float(Fraction(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a number such as 0.03 or '8/255', not {value!r}.") from None
