"""The parts of a row of the table: the terms of its loss, what its attacks maximise, and the row itself.

The points and weights of a term are written as `notation` says and parsed once, when the term is made.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from rkdkit import attacks, checks, losses
from rkdkit.frozen import FrozenMapping
from rkdkit.identity import identifying_fields
from rkdkit.methods import notation, recipes
from rkdkit.methods.notation import CERTAINTY_POINT, GUIDES, TRAINED, Point, Product, Setting, Settings, split_factors
from rkdkit.modes import MODES

CHOICES = {"kl_reduction": losses.KL_REDUCTIONS, "teacher_weight": ("a", "1")}
"""The settings whose values are words, and the allowed values."""

DIVERGENCES = ("CE", "KL", "MSE")
"""Cross entropy, Kullback-Leibler, and the mean squared difference of logits."""

READINGS = ("paper", "code")
"""How a row can be read: as the paper states the method, or as its authors' released code trains it."""

LARGEST_SETTING = 1e18
"""The largest value of a setting: losses have squares of some, and float32 holds no number above 3.4e38."""

CERTAINTIES = ("a", "1-a", *(name for name, words in CHOICES.items() if "a" in words))
"""What a term's `certainty` may be, if it has one."""

# closed lists: see `identifying_fields`
_TERM_FIELDS = ("divergence", "target", "output", "weight", "tau", "mixing", "certainty")
_MAXIMISED_FIELDS = ("divergence", "target", "output", "start", "makes")
_METHOD_FIELDS = ("minimises", "maximises", "free", "eps_factor", "one_step")
# texts about a row, and defaults that specifications and profiles contain explicitly
_METHOD_REMARKS = (
    *("title", "source", "settings", "settings_on", "recipe", "recipe_on", "differences", "averages_weights", "code"),
)


def _refuse(wrong: bool, message: str) -> None:
    if wrong:
        raise ValueError(message)


class _Points:
    """What a term and an attack share: two points, written as text and parsed once."""

    target: str
    output: str

    @cached_property
    def target_point(self) -> Point | None:
        """Its target; None: the labels."""
        return None if self.target == "y" else Point.parse(self.target, self)

    @cached_property
    def output_point(self) -> Point:
        """Its output; an attack's is the point under attack."""
        return Point.parse(self.output, self)

    @property
    def asked(self) -> tuple[Point, ...]:
        """The points that it needs, none of them marked as a constant."""
        points = (self.target_point, self.output_point)
        return tuple(replace(point, constant=False) for point in points if point is not None)

    @property
    def points(self) -> tuple[str, ...]:
        """The points that it needs as text, without ``.detach``."""
        return tuple(map(str, self.asked))


@dataclass(frozen=True)
class Term(_Points):
    """One term of a loss: weight * tau^2 * divergence(target, output), averaged over the batch.

    Attributes
    ----------
    divergence : one of `DIVERGENCES`.
    target : ``y`` (only for "CE") or a point, as in `notation`.
    output : the second point of the divergence, of a network that is trained; the gradient always reaches it.
    weight : a product of settings, numbers and remainders: "l2", "0.5 * own", "1-a1-a2"; "" means 1.
    tau : the name of the setting for the temperature of a KL; "" means a temperature of 1.
    mixing : the name of the setting for the weight m of label mixing, with which the target is m T + (1 - m) y.
    certainty : a weight per image, from a = T(x*)[y]^beta, one of `CERTAINTIES`: "a", "1-a", or the name of a setting
        whose value is "a" or "1".

    Raises
    ------
    ValueError
        If the parts do not make a valid term.
    """

    divergence: str
    target: str
    output: str
    weight: str = ""
    tau: str = ""
    mixing: str = ""
    certainty: str = ""

    def __post_init__(self) -> None:
        checks.one_of("divergence", self.divergence, DIVERGENCES)
        target, output = self.target_point, self.output_point
        labels = target is None
        _refuse(
            labels and self.divergence != "CE", f"{self}: the labels y are a target of the cross entropy (CE) only."
        )
        _refuse(output.fixed or output.constant, f"{self}: its output must be of a trained network, without .detach.")
        _refuse(any(p.place == "x~" for p in self.asked), f"{self}: only an attack can use x~.")
        _refuse(bool(self.tau) and self.divergence != "KL", f"{self}: only a KL can have a temperature.")
        mixed = bool(self.mixing) and (target is None or not target.fixed)
        _refuse(mixed, f"{self}: only a fixed teacher's outputs can be mixed with the labels.")
        logits_mixed = bool(self.mixing) and self.divergence == "MSE"
        _refuse(logits_mixed, f"{self}: an MSE compares logits, and labels have none to mix them with.")
        checks.one_of("certainty", self.certainty or "a", CERTAINTIES)
        _ = self.factors  # parsed now, so that a bad weight is refused here

    def __str__(self) -> str:
        target = self.target.replace(".detach", " const")
        if self.mixing:
            target = f"{self.mixing} {target} + (1-{self.mixing}) y"
        factors = [f"({f})" if "-" in f else f for f in (*split_factors(self.weight), self.certainty) if f]
        if self.tau:
            factors.append(f"{self.tau}^2")
        at = f"; {self.tau}" if self.tau else ""
        return " ".join([*factors, f"{self.divergence}({target}, {self.output}{at})"])

    @cached_property
    def factors(self) -> Product:
        """Its weight, parsed, without tau^2 and certainty."""
        return Product.parse(self.weight, self)

    @property
    def asked(self) -> tuple[Point, ...]:
        """The points that the term needs, that of its certainty included, none of them marked as a constant."""
        return (*super().asked, *((CERTAINTY_POINT,) if self.certainty else ()))

    def definition(self) -> dict[str, object]:
        """Return the term as plain JSON values; part of its row's definition."""
        return identifying_fields(self, _TERM_FIELDS)

    @property
    def settings(self) -> frozenset[str]:
        """The settings that the term uses."""
        names = self.factors.settings | {name for name in (self.tau, self.mixing) if name}
        if self.certainty:
            names |= {"beta", "warmup"} | ({self.certainty} - {"a", "1-a"})
        return frozenset(names | ({"kl_reduction"} if self.divergence == "KL" else set()))


@dataclass(frozen=True)
class Maximised(_Points):
    """What an attack maximises: the cross entropy with the labels, or the KL from a network's output.

    Attributes
    ----------
    divergence : "CE" or "KL".
    target : ``y`` for "CE"; for "KL" a point, at x (a constant) or at x~ (the gradient also passes through it).
    output : the network attacked, at x~.
    start : the attack's starting point, one of `attacks.STARTS`.
    makes : the name of the examples that the attack makes.

    Raises
    ------
    UnknownNameError, ValueError
        If the parts do not make a valid attack.
    """

    divergence: str
    target: str
    output: str
    start: str = "uniform"
    makes: str = "x*"

    def __post_init__(self) -> None:
        checks.one_of("divergence of an attack", self.divergence, ("CE", "KL"))
        checks.one_of("attack start", self.start, attacks.STARTS)
        target, attacked = self.target_point, [Point(slot, "x~") for slot in sorted(TRAINED)]
        labels = target is None
        _refuse(
            labels != (self.divergence == "CE"),
            f"{self}: an attack maximises CE with target y, or KL with a point as target.",
        )
        misplaced = target is not None and (target.place not in ("x", "x~") or target.constant)
        _refuse(misplaced, f"{self}: the target must be at x or x~.")
        _refuse(
            self.output_point not in attacked,
            f"{self}: the output of an attack must be {' or '.join(map(str, attacked))}.",
        )
        _refuse(not self.makes.startswith("x*"), f"{self}: the name of its examples must start with x*.")

    def __str__(self) -> str:
        return f"{self.divergence}({self.target}, {self.output})"

    def definition(self) -> dict[str, object]:
        """Return the attack as plain JSON values; part of its row's definition."""
        return identifying_fields(self, _MAXIMISED_FIELDS)


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes
    ----------
    title : the method's name in figures and tables.
    source : the paper, and the place in it.
    minimises : the terms of the update's loss, which are summed.
    maximises : what the attacks maximise, one entry per attack; empty: no attack.
    settings : the method's own hyper-parameters and their defaults.
    settings_on : the defaults that differ on a dataset, by dataset; they also apply to a subset of its classes.
    recipe : how the method's paper or released code trains: fields of a run, `recipes.FIELDS`.
    recipe_on : the fields of the recipe that differ, by "dataset" or "dataset network".
    differences : where the paper and its released code differ, and what this code does.
    averages_weights : whether its papers report the student's averaged weights (SWA).
    free : whether each batch is replayed "m" times (a setting), and each gradient updates both the perturbation and the
        weights (Shafahi et al. 2019).
    eps_factor : the training attack's radius as a multiple of the run's eps; the step size stays the run's.
    one_step : the length of the training attack's single step as a multiple of that radius; None: the attack uses the
        run's step_size and attack_steps.
    attack_mode : the mode of the attacked network while x* is made, one of `modes.MODES`. In "train", its batch-norm
        statistics are the batch's, and its running statistics move with each of the attack's passes.
    clamps_start : whether an attack's start is clamped to [0, 1] before its first gradient; if only some of the row's
        attacks do so, the names of their examples. Later iterates always are.
    passes : the forward passes of the trained networks for the update, in train mode, in this order, such as
        ("S(x*)", "S(x*)", "S(x)"); (): those that the terms need, each once, in the terms' order. A pass that is listed
        again, or that no term of weight above 0 needs, only moves batch-norm statistics. While a term waits for the
        end of the warmup, one pass of each point that only it needs is left out.
    passes_after : forward passes in train mode after the update, with the new weights, which only move batch-norm
        statistics.
    normalises : whether the trained networks normalise their input by the mean and std of the data.
    code : the fields of the row that its authors' released code has otherwise, by name; empty: there is no released
        code, or it does what the paper says. :meth:`read` gives the row with these fields.

    Raises
    ------
    ValueError
        If a term needs a setting that the row does not have, or a point that no attack of the row makes; if its passes
        leave out a point that a term needs; if it has a bad recipe; if its `code` makes no row, or repeats the row's.
    """

    title: str
    source: str
    minimises: tuple[Term, ...]
    maximises: tuple[Maximised, ...] = ()
    settings: Settings = field(default_factory=dict)
    settings_on: Mapping[str, Settings] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    differences: str = ""
    averages_weights: bool = False
    free: bool = False
    eps_factor: float = 1.0
    one_step: float | None = None
    attack_mode: str = "eval"
    clamps_start: bool | tuple[str, ...] = True
    passes: tuple[str, ...] = ()
    passes_after: tuple[str, ...] = ()
    normalises: bool = True
    code: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipes.check(self.title, self.recipe, self.recipe_on)
        for name in ("settings", "settings_on", "recipe", "recipe_on", "code"):
            object.__setattr__(self, name, FrozenMapping(getattr(self, name)))
        for name in ("passes", "passes_after"):
            listed = checks.listed(f"{name} of the row {self.title}", getattr(self, name), '("S(x*)", "S(x)")')
            object.__setattr__(self, name, tuple(listed))
        asked = {name for term in self.minimises for name in term.settings} | ({"m"} if self.free else set())
        lacking = {name: CHOICES.get(name, (1.0,))[0] for name in sorted(asked - set(self.settings))}
        _refuse(bool(lacking), notation.without_default(self.title, lacking))
        idle = sorted(set(self.settings) - asked)
        _refuse(bool(idle), f"The row {self.title} does not use its setting {', '.join(idle)}.")
        for values in (self.settings, *self.settings_on.values()):
            self.resolve(values)
        names = [attack.makes for attack in self.maximises]
        _refuse(len(set(names)) < len(names), f"Two attacks of the row {self.title} make examples with the same name.")
        _refuse("student" not in self.roles, f"The row {self.title} does not train the student (S).")
        _refuse(self.free and bool(self.maximises), f"The row {self.title} is free, so it has no attack of its own.")
        made = {"x", "x*"} if self.free else {"x", *(maximised.makes for maximised in self.maximises)}
        for point in sorted(self._asked, key=str):
            role = TRAINED.get(point.network)
            _refuse(
                role not in (None, *self.roles), f"The row {self.title} uses {point}, but does not train the {role}."
            )
        unmade = {str(point) for term in self.minimises for point in term.asked if point.place not in made}
        _refuse(
            bool(unmade), f"The row {self.title} uses {', '.join(sorted(unmade))}, which none of its attacks makes."
        )
        moved = any(term.output_point == Point("S", "x*") for term in self.minimises)
        _refuse(self.free and not moved, f"The row {self.title} is free, but its loss does not use S(x*).")
        checks.one_of("mode of an attack", self.attack_mode, MODES)
        _refuse(
            not self.maximises and (self.attack_mode, self.clamps_start) != ("eval", True),
            f"The row {self.title} has no attack of its own, so attack_mode and clamps_start mean nothing.",
        )
        self._check_starts(names)
        self._check_passes(made)
        self._check_code()

    def _check_starts(self, names: Collection[str]) -> None:
        if not isinstance(self.clamps_start, bool):
            listed = checks.listed(f"clamps_start of the row {self.title}", self.clamps_start, '("x*_P",)')
            some = tuple(checks.one_of(f"examples of the row {self.title}", name, names) for name in listed)
            object.__setattr__(self, "clamps_start", some)
            none_or_all = f"The row {self.title} clamps the start of none or all of its attacks: write False or True."
            _refuse(not 0 < len(set(some)) < len(names), none_or_all)

    def clamps(self, maximised: Maximised) -> bool:
        """Whether the start of one of its attacks is clamped to [0, 1] before its first gradient."""
        which = self.clamps_start
        return which if isinstance(which, bool) else maximised.makes in which

    def _check_passes(self, made: Collection[str]) -> None:
        for point in (*self.points_passed, *self.points_passed_after):
            passing = f"The row {self.title} lists a pass {point}"
            role = TRAINED.get(point.network)
            _refuse(role is None or point.constant, f"{passing}: it must be of a trained network, without .detach.")
            _refuse(role not in self.roles, f"{passing}, but does not train the {role}.")
            _refuse(point.place not in made, f"{passing}, but none of its attacks makes {point.place}.")
        needed = {str(point) for term in self.minimises for point in term.asked if not point.fixed}
        unlisted = sorted(needed - set(self.passes)) if self.passes else []
        _refuse(bool(unlisted), f"The row {self.title} needs {', '.join(unlisted)}, which its passes do not list.")

    def _check_code(self) -> None:
        known = [each.name for each in fields(self) if each.name != "code"]
        for name, value in self.code.items():
            checks.one_of(f"field of the released code of {self.title}", name, known)
            same = value == getattr(self, name)
            _refuse(same, f"The released code of {self.title} has the paper's {name}: leave it out of the row's code.")
        if self.code:
            _ = self._as_code  # made now, so that a bad field is refused here

    def read(self, reading: str) -> "Method":
        """Return the row as a reading has it: the row itself, or with the fields of its authors' released code.

        Parameters
        ----------
        reading : one of `READINGS`.

        Raises
        ------
        UnknownNameError
            If there is no such reading.
        ValueError
            If the row has no released code of its own.
        """
        if checks.one_of("reading", reading, READINGS) == "paper":
            return self
        nothing = "has no released code, or it does what the paper says: leave reading='paper'."
        _refuse(not self.code, f"{self.title} {nothing}")
        return self._as_code

    @cached_property
    def _as_code(self) -> "Method":
        return replace(self, **{**self.code, "code": {}})

    @cached_property
    def points_passed(self) -> tuple[Point, ...]:
        """Its `passes`, parsed."""
        return tuple(Point.parse(text, f"passes of the row {self.title}") for text in self.passes)

    @cached_property
    def points_passed_after(self) -> tuple[Point, ...]:
        """Its `passes_after`, parsed."""
        return tuple(Point.parse(text, f"passes_after of the row {self.title}") for text in self.passes_after)

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The networks it trains, the student first: ("student",) or ("student", "peer")."""
        slots = {term.output_point.network for term in self.minimises}
        return tuple(role for slot, role in TRAINED.items() if slot in slots)

    @cached_property
    def guides(self) -> tuple[str, ...]:
        """The teacher slots that it needs, such as ("T",) or ("T_rob", "T_nat")."""
        slots = {point.network for point in self._asked}
        return tuple(slot for slot in GUIDES if slot in slots)

    @property
    def _asked(self) -> set[Point]:
        parts: tuple[Term | Maximised, ...] = (*self.minimises, *self.maximises)
        return {point for part in parts for point in part.asked}

    @property
    def attacks(self) -> bool:
        """Whether it trains on adversarial examples."""
        return self.free or bool(self.maximises)

    def definition(self) -> dict[str, object]:
        """Return what decides the row's computation, as plain JSON values; part of the identity of its runs."""
        return {
            **identifying_fields(self, _METHOD_FIELDS, _METHOD_REMARKS),
            "maximises": [attack.definition() for attack in self.maximises],
            "minimises": [term.definition() for term in self.minimises],
        }

    def resolve(self, settings: Settings, dataset: str = "") -> dict[str, Setting]:
        """Return all settings of the method: the given `settings`, and the defaults of the others.

        Parameters
        ----------
        settings : the settings that differ from the defaults.
        dataset : the dataset whose defaults are used, if the row has several.

        Raises
        ------
        UnknownNameError
            If the method has no such setting, or a setting whose values are words has an unknown value.
        ValueError
            If a weight is negative, a temperature is not above 0, a value is not a number, a share is outside [0, 1],
            or the sum of shares exceeds 1.
        """
        resolved: dict[str, Setting] = {**self.settings, **self.settings_on.get(dataset.partition(":")[0], {})}
        for name, value in settings.items():
            checks.one_of(f"setting of {self.title}", name, self.settings)
            if name in CHOICES:
                checks.one_of(name.replace("_", " ").replace("kl", "KL"), value, CHOICES[name])
            elif isinstance(value, str):
                raise ValueError(f"Setting {name} of {self.title} must be a number, not {checks.shown(value)}.")
            else:
                low, high = self._range(name)
                checks.number(f"Setting {name} of {self.title}", value, low, high)
            resolved[name] = value
        resolved = {name: value if isinstance(value, str) else float(value) for name, value in resolved.items()}
        for shares in self._shares():
            for name in shares:
                checks.number(f"Setting {name} of {self.title}", float(resolved[name]), 0, 1)
            if math.fsum(float(resolved[name]) for name in shares) > 1 + 1e-9:
                raise ValueError(f"Settings {' and '.join(shares)} of {self.title} must not exceed 1 together.")
        if self.free and not float(resolved["m"]).is_integer():
            raise ValueError(f"Setting m of {self.title} must be a whole number, not {resolved['m']}.")
        return resolved

    def _range(self, name: str) -> tuple[float, float]:
        """Return the smallest and the largest value of a setting that is a number."""
        ranges = {"warmup": (0.0, 1.0), **({"m": (1.0, float(checks.MOST_STEPS))} if self.free else {})}
        return ranges.get(name, (1e-6 if name.startswith("tau") else 0.0, LARGEST_SETTING))

    def _shares(self) -> Iterator[tuple[str, ...]]:
        """Yield the groups of settings that must not exceed 1 together: 1 minus their sum is a weight."""
        for term in self.minimises:
            if term.mixing:
                yield (term.mixing,)
            yield from term.factors.shares
