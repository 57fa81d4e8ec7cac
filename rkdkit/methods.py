"""The table of training methods: what the attack maximises, what the update minimises, and who guides.

A row is data, not code, so the same row trains a network, prints its formula and draws its overview. To add a method of
your own, add a row: ``METHODS["mine"] = Method(...)``; ``docs/methods.md`` shows one.

Points are written as the papers write them. ``S(x)`` is the student's logits at the natural images, ``S(x*)`` at the
finished adversarial examples, ``S(x~)`` at the point being attacked; ``T`` is a fixed teacher, or several of them
averaged by their weights; ``P`` is a peer trained beside the student; ``y`` is the labels. ``P(x*).detach`` is the same
logits treated as a constant. Teachers are always constants.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from rkdkit import attacks, checks, losses

Setting = float | str
Settings = Mapping[str, Setting]

TRAINED = {"S": "student", "P": "peer"}
"""The letter of a network that a row trains, and its name everywhere else."""

GUIDES = {"T": "teacher", "T_rob": "robust teacher", "T_nat": "natural teacher"}
"""The letter of a fixed network, and what it is."""

CHOICES = {"kl_reduction": losses.KL_REDUCTIONS, "teacher_weight": ("a", "1")}
"""The settings that are words, and what they may say."""


DIVERGENCES = ("CE", "KL", "MSE")
"""Cross entropy, Kullback-Leibler, and the mean squared difference of logits."""

_POINT = re.compile(r"(\w+)\((x|x~|x\*\w*)\)(\.detach)?")
_FACTOR = re.compile(r"\d+(\.\d+)?|[A-Za-z]\w*|1(-[A-Za-z]\w*)+")


def _letter(point: str) -> str:
    return point.partition("(")[0]


def _refuse(wrong: bool, message: str) -> None:
    if wrong:
        raise ValueError(message)


def _check_point(of: object, point: str) -> None:
    match = _POINT.fullmatch(point)
    known = [*TRAINED, *GUIDES]
    _refuse(match is None, f"{of}: {point!r} is no point such as 'S(x*)' or 'P(x*).detach'.")
    assert match is not None
    checks.one_of("network of a row", match[1], known)


def _factors(weight: str) -> list[str]:
    return [factor.replace(" ", "") for factor in weight.split("*")] if weight else []


def _is_number(factor: str) -> bool:
    return factor[0].isdigit()


@dataclass(frozen=True)
class Term:
    """One term of a loss: weight * tau^2 * divergence(target, output), averaged over the batch.

    Attributes
    ----------
    divergence : one of `DIVERGENCES`.
    target : ``y`` (for "CE" alone) or a point, as in the module's docstring.
    output : the point the divergence is taken to, of a network that is trained; the gradient always reaches it.
    weight : a product of settings, numbers and remainders: "l2", "0.5 * own", "1-a1-a2"; "" stands for 1.
    tau : the setting that holds the temperature of a KL; "" stands for 1.
    mixing : the setting that holds the share m of label mixing, where a teacher's answer becomes m T + (1 - m) y.
    certainty : a weight for each image, from a = T(x*)[y]^beta: "a", "1-a", or the setting that says "a" or "1".

    Raises
    ------
    ValueError
        If its parts make no term.
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
        if self.target == "y":
            _refuse(self.divergence != "CE", f"{self}: the labels y are a target of the cross entropy (CE) alone.")
        else:
            _check_point(self, self.target)
        _check_point(self, self.output)
        _refuse(_letter(self.output) not in TRAINED or "." in self.output, f"{self}: nothing is trained at its output.")
        _refuse(any("x~" in p for p in (self.target, self.output)), f"{self}: x~ is only known to the attack.")
        _refuse(bool(self.tau) and self.divergence != "KL", f"{self}: only a KL has a temperature.")
        mixed = bool(self.mixing) and _letter(self.target) not in GUIDES
        _refuse(mixed, f"{self}: only a fixed teacher's answers are mixed with the labels.")
        for factor in _factors(self.weight):
            _refuse(not _FACTOR.fullmatch(factor), f"{self}: {factor!r} is no number, setting or remainder 1-a-b.")

    def __str__(self) -> str:
        target = self.target.replace(".detach", " const")
        if self.mixing:
            target = f"{self.mixing} {target} + (1-{self.mixing}) y"
        factors = [f"({f})" if "-" in f else f for f in (*_factors(self.weight), self.certainty) if f]
        if self.tau:
            factors.append(f"{self.tau}^2")
        at = f"; {self.tau}" if self.tau else ""
        return " ".join([*factors, f"{self.divergence}({target}, {self.output}{at})"])

    @property
    def points(self) -> tuple[str, ...]:
        """The points it looks at, without ``.detach``."""
        certain = ("T(x*)",) if self.certainty else ()
        return tuple(p.removesuffix(".detach") for p in (self.target, self.output) if p != "y") + certain

    @property
    def settings(self) -> frozenset[str]:
        """The settings it asks for."""
        names = {name for factor in _factors(self.weight) for name in factor.split("-") if not _is_number(name)}
        names |= {name for name in (self.tau, self.mixing) if name}
        if self.certainty:
            names |= {"beta", "warmup"} | ({self.certainty} - {"a", "1-a"})
        return frozenset(names | ({"kl_reduction"} if self.divergence == "KL" else set()))


@dataclass(frozen=True)
class Maximised:
    """What an attack maximises: the cross entropy with the labels, or the KL from a network's answer.

    Attributes
    ----------
    divergence : "CE" or "KL".
    target : ``y`` for "CE"; for "KL" a point, at x (a constant) or at x~ (the gradient passes through it, too).
    output : the network attacked, at x~.
    start : where the attack starts, one of `attacks.STARTS`.
    makes : the name of the examples it makes.

    Raises
    ------
    UnknownNameError, ValueError
        If its parts make no attack.
    """

    divergence: str
    target: str
    output: str
    start: str = "uniform"
    makes: str = "x*"

    def __post_init__(self) -> None:
        checks.one_of("divergence of an attack", self.divergence, ("CE", "KL"))
        checks.one_of("attack start", self.start, attacks.STARTS)
        labels = self.target == "y"
        _refuse(labels != (self.divergence == "CE"), f"{self}: an attack takes CE with y, or KL with a point.")
        if not labels:
            _check_point(self, self.target)
            _refuse(not self.target.endswith(("(x)", "(x~)")), f"{self}: the target must be at x or x~.")
        trained = {f"{letter}(x~)" for letter in TRAINED}
        _refuse(self.output not in trained, f"{self}: an attack is on {' or '.join(sorted(trained))}.")
        _refuse(not self.makes.startswith("x*"), f"{self}: the name of what it makes starts with x*.")

    def __str__(self) -> str:
        return f"{self.divergence}({self.target}, {self.output})"

    @property
    def points(self) -> tuple[str, ...]:
        """The points it looks at."""
        return tuple(p for p in (self.target, self.output) if p != "y")


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes
    ----------
    title : what figures and tables call it.
    source : the paper, and where in it.
    minimises : the terms of the update's loss, summed.
    maximises : what the attacks maximise, one an attack, each with a network to itself; none: no attack.
    settings : the method's own hyper-parameters and their defaults.
    settings_on : other defaults by dataset, where the papers have such; some classes of a dataset count as the whole.
    recipe : fields of a profile as its paper or released code has them.
    recipe_on : other such fields by "dataset" or "dataset network".
    differences : where the paper and its released code differ, and what is done here.
    averages_weights : whether its papers report the student's averaged weights (SWA).
    free : whether each batch is replayed, one gradient serving the perturbation and the weights (Shafahi et al. 2019);
        the setting "m" says how often.
    eps_factor : the training attack's radius as a multiple of the run's eps; its step stays the run's.
    one_step : its single step as a multiple of that radius; None: the run's step_size and attack_steps count.

    Raises
    ------
    ValueError
        If a term asks for a setting that the row does not have, or for a point that no attack of the row makes.
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

    def __post_init__(self) -> None:
        for name in ("settings", "settings_on", "recipe", "recipe_on"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        asked = {name for term in self.minimises for name in term.settings} | ({"m"} if self.free else set())
        lacking = sorted(asked - set(self.settings))
        _refuse(bool(lacking), f"The row {self.title} has no default for its setting {', '.join(lacking)}.")
        idle = sorted(set(self.settings) - asked)
        _refuse(bool(idle), f"The row {self.title} makes no use of its setting {', '.join(idle)}.")
        self.resolve(self.settings)
        names = [attack.makes for attack in self.maximises]
        _refuse(len(set(names)) < len(names), f"Two attacks of the row {self.title} make examples of one name.")
        _refuse("student" not in self.roles, f"The row {self.title} does not train the student (S).")
        _refuse(self.free and bool(self.maximises), f"The row {self.title} is free, so it has no attack of its own.")
        made = {"x", "x*"} if self.free else {"x", *(maximised.makes for maximised in self.maximises)}
        points = {point for term in self.minimises for point in term.points}
        looked_at = points.union(*(attack.points for attack in self.maximises))
        for point in sorted(looked_at):
            role = TRAINED.get(_letter(point))
            _refuse(role not in (None, *self.roles), f"The row {self.title} looks at {point} and trains no {role}.")
        unmade = sorted(point for point in points if point.partition("(")[2][:-1] not in made)
        _refuse(bool(unmade), f"The row {self.title} looks at {', '.join(unmade)}, which no attack of it makes.")
        moved = any(term.output == "S(x*)" for term in self.minimises)
        _refuse(self.free and not moved, f"The row {self.title} is free, but its loss does not look at S(x*).")

    @property
    def roles(self) -> tuple[str, ...]:
        """The networks it trains, the student first: ("student",) or ("student", "peer")."""
        letters = {_letter(term.output) for term in self.minimises}
        return tuple(role for letter, role in TRAINED.items() if letter in letters)

    @property
    def guides(self) -> tuple[str, ...]:
        """The letters of the fixed teachers it needs, such as ("T",) or ("T_rob", "T_nat")."""
        points = {point for term in self.minimises for point in term.points}
        letters = {_letter(point) for point in points.union(*(attack.points for attack in self.maximises))}
        return tuple(letter for letter in GUIDES if letter in letters)

    @property
    def attacks(self) -> bool:
        """Whether it trains on adversarial examples."""
        return self.free or bool(self.maximises)

    def definition(self) -> dict[str, object]:
        """Return all that decides what the row does, as plain JSON values; part of the identity of its runs."""
        return {
            "maximises": [asdict(term) for term in self.maximises],
            "minimises": [asdict(term) for term in self.minimises],
            **{"free": self.free, "eps_factor": self.eps_factor, "one_step": self.one_step},
        }

    def resolve(self, settings: Settings, dataset: str = "") -> dict[str, Setting]:
        """Return every setting of the method, `settings` in place of the defaults.

        Parameters
        ----------
        settings : those that differ.
        dataset : whose defaults to take, where its papers have several.

        Raises
        ------
        UnknownNameError
            If the method has no such setting, or a setting that is a word says another.
        ValueError
            If a weight is negative, a temperature not above 0, a number no number, a share outside [0, 1], or shares
            together exceed 1.
        """
        resolved: dict[str, Setting] = {**self.settings, **self.settings_on.get(dataset.partition(":")[0], {})}
        for name, value in settings.items():
            checks.one_of(f"setting of {self.title}", name, self.settings)
            if name in CHOICES:
                checks.one_of(name.replace("_", " ").replace("kl", "KL"), value, CHOICES[name])
            elif isinstance(value, str):
                raise ValueError(f"Setting {name} of {self.title} must be a number, not {value!r}.")
            else:
                low = 1.0 if name == "m" else 1e-6 if name.startswith("tau") else 0.0
                checks.number(f"Setting {name} of {self.title}", value, low, 1.0 if name == "warmup" else math.inf)
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

    def _shares(self) -> Iterator[tuple[str, ...]]:
        """Yield the groups of settings of which 1 minus their sum is a weight, too."""
        for term in self.minimises:
            if term.mixing:
                yield (term.mixing,)
            yield from (tuple(f.split("-")[1:]) for f in _factors(term.weight) if f.startswith("1-"))


def with_label_mixing(method: Method, source: str, **changes: Any) -> Method:
    """Return a method's "+" form: the teacher's answers mixed with the labels (RKD eq. 5 to 7).

    RKD has the same settings on all data, so the new row does, too. A row without a teacher is refused.

    Parameters
    ----------
    method : a row with a teacher.
    source : of the new row.
    changes : further fields of the new row; settings are added to the row's.
    """
    settings = {**method.settings, "mixing": 0.7, **changes.pop("settings", {})}
    terms = tuple(replace(t, mixing="mixing") if _letter(t.target) in GUIDES else t for t in method.minimises)
    return replace(
        method, title=f"{method.title}+", source=source, minimises=terms, settings=settings, settings_on={}, **changes
    )


RKD_TEACHER = {"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": "exponential", "gamma": 0.9, "attack_steps": 7}
"""How RKD trains every fixed teacher, whatever its method (its appendix A); fields of a profile."""

_ON_LABELS = Maximised("CE", "y", "S(x~)")
_RKD_STUDENT = {"epochs": 100, "batch_size": 256, "lr": 0.21, "schedule": "onecycle", "attack_steps": 7}
_ELEMENT_MEAN = (
    "The paper's KL is a sum over classes, the released code's a mean over batch and classes, 1/C of it, and its "
    "weights are tuned for that: kl_reduction 'mean' is the code's, 'batchmean' the paper's."
)


def _multistep(epochs: int, *milestones: int, **fields: Any) -> dict[str, Any]:
    return {"epochs": epochs, "lr": 0.1, "schedule": "multistep", "milestones": milestones, **fields}


METHODS: dict[str, Method] = {
    "Natural": Method(
        title="Natural",
        source="ordinary training",
        minimises=(Term("CE", "y", "S(x)"),),
    ),
    "PGD-AT": Method(
        title="PGD-AT",
        source="Madry et al. 2018; PeerAiD eq. 1",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
    ),
    "Low-eps AT": Method(
        title="Low-eps AT",
        source="RKD section 3.4 and Table 4: PGD-AT at 2/255 where 8/255 is tested",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
        recipe=RKD_TEACHER,
        differences="RKD section 3 trains in batches of 256, its appendix A teachers in batches of 128; here it is "
        "128. The step is not stated; here it stays 2/255. No released code.",
        eps_factor=0.25,
    ),
    "FFGSM-AT": Method(
        title="FFGSM-AT",
        source="Wong et al. 2020",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
        recipe={k: v for k, v in RKD_TEACHER.items() if k != "attack_steps"},
        one_step=1.25,
    ),
    "Free-AT": Method(
        title="Free-AT",
        source="Shafahi et al. 2019; ARD Table 9",
        minimises=(Term("CE", "y", "S(x*)"),),
        settings={"m": 4},
        recipe=_multistep(200, 100, 150),
        free=True,
        one_step=1.0,
    ),
    "TRADES": Method(
        title="TRADES",
        source="Zhang et al. 2019",
        maximises=(Maximised("KL", "S(x)", "S(x~)", start="gaussian"),),
        minimises=(Term("CE", "y", "S(x)"), Term("KL", "S(x)", "S(x*)", weight="beta")),
        settings={"beta": 6.0, "kl_reduction": "batchmean"},
        differences="The KL's gradient reaches S(x), too, as in the released code. ARD's tables use a TRADES whose "
        "beta (1/lambda there) they do not state; public re-runs with beta 6 are less accurate and more robust.",
    ),
    "KD": Method(
        title="KD",
        source="Hinton et al. 2015; ARD eq. 2; CKD of RKD eq. 1",
        minimises=(
            Term("CE", "y", "S(x)", weight="1-l"),
            Term("KL", "T(x)", "S(x)", weight="l", tau="tau"),
        ),
        settings={"l": 1.0, "tau": 30.0, "kl_reduction": "mean"},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=_multistep(200, 100, 150),
        differences=_ELEMENT_MEAN,
    ),
    "ARD": Method(
        title="ARD",
        source="Goldblum et al. 2020, eq. 3 and Algorithm 1",
        maximises=(_ON_LABELS,),
        minimises=(
            Term("KL", "T(x)", "S(x*)", weight="alpha", tau="tau"),
            Term("CE", "y", "S(x)", weight="1-alpha"),
        ),
        settings={"alpha": 1.0, "tau": 30.0, "kl_reduction": "mean"},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=_multistep(200, 100, 150),
        differences=_ELEMENT_MEAN,
    ),
    "Fast-ARD": Method(
        title="Fast-ARD",
        source="Goldblum et al. 2020, Algorithm 2",
        minimises=(
            Term("KL", "T(x)", "S(x*)", weight="alpha", tau="tau"),
            Term("CE", "y", "S(x)", weight="1-alpha"),
        ),
        settings={"alpha": 1.0, "tau": 30.0, "kl_reduction": "mean", "m": 4},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=_multistep(200, 100, 150),
        differences=f"{_ELEMENT_MEAN} The paper's Algorithm 2 perturbs by the cross entropy, its text by the gradient "
        "of the loss that the update takes, in one backward pass; here it is the text's.",
        free=True,
        one_step=1.0,
    ),
    "RSLAD": Method(
        title="RSLAD",
        source="Zi et al. 2021; RKD eq. 3",
        maximises=(Maximised("KL", "T(x)", "S(x~)", start="gaussian"),),
        minimises=(
            Term("KL", "T(x)", "S(x*)", weight="l"),
            Term("KL", "T(x)", "S(x)", weight="1-l"),
        ),
        settings={"l": 5 / 6, "kl_reduction": "batchmean"},
        recipe=_multistep(300, 215, 260, 285, weight_decay=2e-4),
        differences="The authors warn of the KL's reduction in their released code, where it is a mean over batch and "
        "classes: kl_reduction 'mean'. 'batchmean' is the paper's.",
    ),
    "AKD": Method(
        title="AKD",
        source="RKD eq. 4 and appendix A",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "T(x*)", "S(x*)"),),
        recipe=_RKD_STUDENT,
        differences="RKD section 3 names lr 0.1 for its students, appendix A a highest lr of 0.21; here it is 0.21. No "
        "released code.",
    ),
    "IAD": Method(
        title="IAD",
        source="Zhu et al. 2022 (IAD-I)",
        maximises=(_ON_LABELS,),
        minimises=(
            Term("KL", "T(x)", "S(x*)", tau="tau", certainty="teacher_weight"),
            Term("KL", "S(x)", "S(x*)", tau="tau", certainty="1-a"),
        ),
        settings={"beta": 0.1, "warmup": 0.3, "tau": 1.0, "teacher_weight": "a", "kl_reduction": "batchmean"},
        recipe=_multistep(200, 100, 150, batch_size=128, weight_decay=2e-4),
        differences="a = T(x*)[y]^beta, but 1 in the first `warmup` of the epochs, 60 of 200. The paper weights the "
        "teacher's term by a, the released code does not: teacher_weight '1'. The gradient reaches S(x) in the code, "
        "and here. The code attacks the student in train mode, and takes an element-wise mean in part.",
    ),
    "AKD2": Method(
        title="AKD2",
        source="Chen et al. 2021, as the authors of IAD re-implemented it",
        maximises=(_ON_LABELS,),
        minimises=(
            Term("CE", "y", "S(x*)", weight="1-a1-a2"),
            Term("KL", "T_rob(x*)", "S(x*)", weight="a1", tau="tau"),
            Term("KL", "T_nat(x*)", "S(x*)", weight="a2", tau="tau"),
        ),
        settings={"a1": 0.5, "a2": 0.25, "tau": 1.0, "kl_reduction": "batchmean"},
        differences="The original's command line defaults to a1 0.1, a2 0.6 and tau 2.",
        averages_weights=True,
    ),
    "AdaAD": Method(
        title="AdaAD",
        source="Huang et al. 2023",
        maximises=(Maximised("KL", "T(x~)", "S(x~)", start="gaussian"),),
        minimises=(
            Term("KL", "T(x*)", "S(x*)", weight="l"),
            Term("KL", "T(x)", "S(x)", weight="1-l"),
        ),
        settings={"l": 1.0, "kl_reduction": "batchmean"},
        differences="The attack's gradient passes through teacher and student. The released CIFAR-10 code takes an "
        "element-wise mean: kl_reduction 'mean'.",
    ),
    # the networks are called A and B there; here A is the student and B its peer
    "CAT": Method(
        title="CAT",
        source="Liu et al. 2023, with TRADES (the student) and ALP (the peer)",
        maximises=(
            Maximised("KL", "S(x)", "S(x~)", start="gaussian", makes="x*_S"),
            Maximised("CE", "y", "P(x~)", makes="x*_P"),
        ),
        minimises=(
            Term("CE", "y", "S(x)", weight="own"),
            Term("KL", "S(x)", "S(x*_S)", weight="own * beta"),
            Term("CE", "y", "P(x*_P)", weight="own * 0.5"),
            Term("CE", "y", "P(x)", weight="own * 0.5"),
            Term("MSE", "P(x)", "P(x*_P)", weight="own"),
            Term("KL", "P(x*_S).detach", "S(x*_S)", weight="1-own"),
            Term("KL", "S(x*_P).detach", "P(x*_P)", weight="1-own"),
        ),
        settings={"own": 1 / 20, "beta": 6.0, "kl_reduction": "batchmean"},
        recipe={"epochs": 200, "weight_decay": 5e-4, "milestones": (100, 150), "schedule": "multistep"},
        differences="Inside the student's TRADES and the peer's ALP, S(x) and P(x) are no constants; what they teach "
        "each other is. Where the learning rate drops is not known here: 100 and 150 of 200 epochs.",
    ),
    # The released code takes the KL's element-wise mean, and its weights are tuned for that. The student's soft label
    # is a constant nowhere: neither eq. 3 nor the code detaches it in the peer's loss, nor S(x) in eq. 4.
    "PeerAiD": Method(
        title="PeerAiD",
        source="Jung et al. 2024, eq. 2 to 5; weights of the released recipes",
        maximises=(Maximised("KL", "P(x)", "S(x~)", start="gaussian"),),
        minimises=(
            Term("CE", "y", "P(x*)", weight="g1"),
            Term("KL", "S(x*)", "P(x*)", weight="g2", tau="tau_p"),
            Term("CE", "y", "S(x*)", weight="l1"),
            Term("KL", "P(x*).detach", "S(x*)", weight="l2", tau="tau"),
            Term("KL", "S(x)", "S(x*)", weight="l3", tau="tau"),
        ),
        settings={
            **{"l1": 0.0, "l2": 1.0, "l3": 1.0, "tau": 5.0},
            **{"g1": 1.0, "g2": 0.1, "tau_p": 1.0},
            "kl_reduction": "mean",
        },
        settings_on={
            "cifar100": {"g2": 1.0},
            "tiny_imagenet": {"l1": 0.035, "l2": 35.0, "l3": 20.0, "tau": 1.0, "g2": 100.0},
        },
        recipe=_multistep(300, 214, 259, 284, batch_size=128, weight_decay=2e-4),
        recipe_on={
            "tiny_imagenet": _multistep(200, 99, 149, batch_size=128, weight_decay=2e-4),
            "tiny_imagenet wrn-34-10": _multistep(100, 49, 79, batch_size=128, weight_decay=2e-4),
        },
        differences=f"{_ELEMENT_MEAN} The paper writes one temperature; the code has one for the peer (tau_p) and one "
        "for the student (tau). The peer's soft label is a constant for the student in both; the student's is "
        "none for the peer, nor S(x) in the consistency term, in the code, and the paper does not say that they are.",
        averages_weights=True,
    ),
}
METHODS["PeerAiD-fixed"] = replace(
    METHODS["PeerAiD"],
    title="PeerAiD with a fixed teacher",
    source="Jung et al. 2024, section 4.3: eq. 4 with a fixed teacher in the peer's place",
    maximises=(Maximised("KL", "T(x)", "S(x~)", start="gaussian"),),
    minimises=(
        Term("CE", "y", "S(x*)", weight="l1"),
        Term("KL", "T(x*)", "S(x*)", weight="l2", tau="tau"),
        Term("KL", "S(x)", "S(x*)", weight="l3", tau="tau"),
    ),
    settings={"l1": 0.0, "l2": 1.0, "l3": 1.0, "tau": 5.0, "kl_reduction": "mean"},
    settings_on={"tiny_imagenet": {"l1": 0.035, "l2": 35.0, "l3": 20.0, "tau": 1.0}},
    differences=f"{_ELEMENT_MEAN} The paper says that the loss stays the same, not what its attack maximises; here it "
    "is PeerAiD's, too, with the teacher's answer for the peer's. No released code.",
)
METHODS["ARD+"] = with_label_mixing(
    METHODS["ARD"],
    "RKD eq. 5",
    settings={"tau": 1.0, "kl_reduction": "batchmean"},
    recipe=_RKD_STUDENT,
    differences="RKD writes ARD without a temperature and does not state its lambda (alpha here). No released code.",
)
METHODS["RSLAD+"] = with_label_mixing(
    METHODS["RSLAD"],
    "RKD eq. 6",
    recipe=_RKD_STUDENT,
    differences="Both terms are mixed, the attack is not. RKD does not state its lambda (l here). No released code.",
)
METHODS["AKD+"] = with_label_mixing(METHODS["AKD"], "RKD eq. 7")


def get(name: str) -> Method:
    """Return a method by its name in the table.

    Raises
    ------
    UnknownNameError
        If there is no such row.
    """
    return METHODS[checks.one_of("method", name, METHODS)]


class Logits:
    """The logits of some networks at some points, each forward pass done once however many terms ask for it.

    Parameters
    ----------
    networks : by letter: {"S": (student,), "P": (peer,), "T": teachers}. Teachers are in eval mode and want no
        parameter gradients.
    points : the images by the papers' name of the point: {"x": ..., "x*": ...}, each (N, C, H, W).
    weights : of several teachers, by letter, each summing to 1.
    """

    def __init__(
        self,
        networks: Mapping[str, Sequence[nn.Module]],
        points: Mapping[str, Tensor],
        weights: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        self.networks, self.weights = networks, weights
        self._points = dict(points)
        self._done: dict[str, tuple[Tensor, ...]] = {}

    def add(self, point: str, images: Tensor) -> None:
        """Name the images of a point; whatever was answered there, or by a network that is trained, is forgotten."""
        self._points[point] = images
        self._done = {
            name: answer
            for name, answer in self._done.items()
            if _letter(name) in GUIDES and not name.endswith(f"({point})")
        }

    def __getitem__(self, point: str) -> Tensor:
        """Return the logits of a network that is trained at, say, "S(x*)"; "S(x*).detach" shares the forward pass."""
        name, dot, _ = point.partition(".")
        (logits,) = self._at(name)
        return logits.detach() if dot else logits

    def target(self, term: Term, settings: Settings, labels: Tensor) -> Tensor:
        """Return logits whose softmax at the term's temperature is its target, teachers and labels mixed in."""
        if _letter(term.target) not in GUIDES:
            return self[term.target]
        return self.taught(term.target, _number(term.tau, settings), labels, _number(term.mixing, settings))

    def taught(self, point: str, tau: float = 1.0, labels: Tensor | None = None, share: float = 1.0) -> Tensor:
        """Return the teachers' answers at a point as :func:`losses.mixture` mixes them."""
        return losses.mixture(self._at(point), self.weights.get(_letter(point), (1.0,)), tau, labels, share)

    def certainty(self, labels: Tensor, beta: float) -> Tensor:
        """Return a = T(x*)[y]^beta of IAD, (N,) in [0, 1]."""
        return self.taught("T(x*)").softmax(1).gather(1, labels[:, None])[:, 0] ** beta

    def _at(self, name: str) -> tuple[Tensor, ...]:
        if name not in self._done:
            letter = _letter(name)
            images = self._points[name[len(letter) + 1 : -1]]
            fixed = letter in GUIDES
            with torch.set_grad_enabled(torch.is_grad_enabled() and not fixed):
                answers = [network(images) for network in self.networks[letter]]
            self._done[name] = tuple(answer.detach() if fixed else answer for answer in answers)
        return self._done[name]


def loss(method: Method, settings: Settings, logits: Logits, labels: Tensor, progress: float = 1.0) -> Tensor:
    """Sum what a method's update minimises; terms of weight 0 cost nothing.

    Parameters
    ----------
    method : a row of the table.
    settings : all of its settings, as :meth:`Method.resolve` returns them.
    logits : at the natural images and at what the attacks made.
    labels : (N,) int64.
    progress : the share of its epochs that the training has finished, for methods that change on the way.

    Returns
    -------
    () float32.
    """
    total = torch.zeros((), device=labels.device)
    for term in method.minimises:
        weight = _number(term.weight, settings) * _number(term.tau, settings) ** 2
        certainty = _certainty(term, settings, logits, labels, progress)
        if weight == 0 or certainty is None:
            continue
        total = total + weight * (certainty * _divergence(term, settings, logits, labels)).mean()
    return total


def adversarial_examples(
    maximised: Maximised,
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    attack: attacks.PGD,
    generator: torch.Generator,
) -> Tensor:
    """Perturb images so as to maximise what a row says.

    A target at the natural images is a constant, asked for once, in eval mode; a target at the point under attack is
    asked anew at each step, and the gradient passes through it.

    Parameters
    ----------
    maximised : of a row.
    logits : has the networks; what fixed teachers answer at the natural images is shared with the update.
    images : (N, C, H, W) float32 in [0, 1].
    labels : (N,) int64.
    attack : the attack; its start is the row's.
    generator : a CPU generator for the attack's start.

    Returns
    -------
    (N, C, H, W) float32, x* of the papers.
    """
    (attacked,) = logits.networks[_letter(maximised.output)]
    if maximised.divergence == "CE":
        return attack.perturb(attacked, images, attacks.cross_entropy_objective(labels), generator)
    guide = _letter(maximised.target)
    if maximised.target.endswith("(x~)"):
        weights = logits.weights.get(guide, (1.0,))

        def gap(answers: Tensor) -> Tensor:
            return losses.kl_divergence(losses.mixture(answers[1:].unbind(), weights), answers[0]).sum()

        return attack.perturb(_SideBySide(attacked, *logits.networks[guide]), images, gap, generator)
    with torch.no_grad(), attacks.attacked(logits.networks[guide][0]) as network:
        target = logits.taught(maximised.target) if guide in GUIDES else network(images)
    return attack.perturb(attacked, images, lambda z: losses.kl_divergence(target, z).sum(), generator)


class _SideBySide(nn.Module):
    """Several networks' logits at the same images: (N, C, H, W) -> (networks, N, classes)."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks])


def _divergence(term: Term, settings: Settings, logits: Logits, labels: Tensor) -> Tensor:
    output = logits[term.output]
    if term.target == "y":
        return losses.cross_entropy(output, labels)
    target = logits.target(term, settings, labels)
    if term.divergence == "CE":
        return losses.soft_cross_entropy(target, output)
    if term.divergence == "MSE":
        return losses.squared_error(target, output)
    return losses.kl_divergence(target, output, _number(term.tau, settings), str(settings["kl_reduction"]))


def _certainty(
    term: Term, settings: Settings, logits: Logits, labels: Tensor, progress: float
) -> Tensor | float | None:
    """Return the weight of each image in a term; None where it is 0 for all."""
    which = str(settings.get(term.certainty, term.certainty))
    if which in ("", "1"):
        return 1.0
    if progress < float(settings["warmup"]):
        return 1.0 if which == "a" else None
    certainty = logits.certainty(labels, float(settings["beta"]))
    return certainty if which == "a" else 1 - certainty


def _number(product: str, settings: Settings) -> float:
    """Return the value of a product of settings, numbers and remainders such as "1-a1-a2"; of "": 1."""
    value = 1.0
    for factor in _factors(product):
        first, *subtracted = factor.split("-")
        number = float(first) if _is_number(first) else float(settings[first])
        value *= number - sum(float(settings[name]) for name in subtracted)
    return value
