"""The table of training methods: what the attack maximises, what the update minimises, and who guides.

A row is data, not code, so the same row trains a network, prints its formula and draws its overview. To add a method of
your own, add a row: ``METHODS["mine"] = Method(...)``.

Points are written as the papers write them. ``S(x)`` is the student's logits at the natural images, ``S(x*)`` at the
finished adversarial examples, ``S(x~)`` at the point being attacked; ``P`` is a peer trained beside the student; ``y``
is the labels. ``P(x*).detach`` is the same logits treated as a constant.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from rkdkit import attacks, checks, losses

Setting = float | str
Settings = Mapping[str, Setting]

ROLES = {"S": "student", "P": "peer"}
"""The letter a network has in a row, and its name everywhere else."""


@dataclass(frozen=True)
class Term:
    """One term of a loss: weight * tau^2 * divergence(target, output).

    Attributes
    ----------
    divergence : "CE" (the target is ``y``) or "KL".
    target : ``y`` or a point, as in the module's docstring.
    output : the point the divergence is taken to; the gradient always reaches it.
    weight, tau : the names of the settings that hold them; "" stands for 1.
    """

    divergence: str
    target: str
    output: str
    weight: str = ""
    tau: str = ""

    def __str__(self) -> str:
        weight = f"{self.weight} " if self.weight else ""
        tau = f"{self.tau}^2 " if self.tau else ""
        at = f"; {self.tau}" if self.tau else ""
        return f"{weight}{tau}{self.divergence}({self.target.removesuffix('.detach')}, {self.output}{at})"


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes
    ----------
    title : what figures and tables call it.
    source : the paper, and where in it.
    minimises : the terms of the update's loss, summed.
    maximises : what the attack maximises; None: no attack.
    start : where the attack starts, one of `attacks.STARTS`.
    settings : the method's own hyper-parameters and their defaults.
    averages_weights : whether its papers report the student's averaged weights (SWA).
    """

    title: str
    source: str
    minimises: tuple[Term, ...]
    maximises: Term | None = None
    start: str = "uniform"
    settings: Settings = field(default_factory=dict)
    averages_weights: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    @property
    def roles(self) -> tuple[str, ...]:
        """The networks it trains, the student first: ("student",) or ("student", "peer")."""
        letters = {term.output[0] for term in self.minimises}
        return tuple(role for letter, role in ROLES.items() if letter in letters)

    def definition(self) -> dict[str, object]:
        """Return all that decides what the row does, as plain JSON values; part of the identity of its runs."""
        terms = [asdict(term) for term in self.minimises]
        return {
            "maximises": asdict(self.maximises) if self.maximises else None,
            "start": self.start,
            "minimises": terms,
        }

    def resolve(self, settings: Settings) -> dict[str, Setting]:
        """Return every setting of the method, `settings` in place of the defaults.

        Raises
        ------
        UnknownNameError
            If the method has no such setting.
        ValueError
            If a weight is negative, a temperature not above 0, or a number no number.
        """
        for name, value in settings.items():
            checks.one_of(f"setting of {self.title}", name, self.settings)
            if name == "kl_reduction":
                checks.one_of("KL reduction", value, losses.KL_REDUCTIONS)
            elif isinstance(value, str):
                raise ValueError(f"Setting {name} of {self.title} must be a number, not {value!r}.")
            else:
                checks.number(f"Setting {name} of {self.title}", value, 1e-6 if name.startswith("tau") else 0)
        return {
            name: value if isinstance(value, str) else float(value)
            for name, value in {**self.settings, **settings}.items()
        }


METHODS: dict[str, Method] = {
    "Natural": Method(
        title="Natural",
        source="ordinary training",
        minimises=(Term("CE", "y", "S(x)"),),
    ),
    "PGD-AT": Method(
        title="PGD-AT",
        source="Madry et al. 2018; PeerAiD eq. 1",
        maximises=Term("CE", "y", "S(x~)"),
        minimises=(Term("CE", "y", "S(x*)"),),
    ),
    "TRADES": Method(
        title="TRADES",
        source="Zhang et al. 2019",
        maximises=Term("KL", "S(x)", "S(x~)"),
        start="gaussian",
        minimises=(Term("CE", "y", "S(x)"), Term("KL", "S(x)", "S(x*)", weight="beta")),
        settings={"beta": 6.0, "kl_reduction": "batchmean"},
    ),
    # The released code takes the KL's element-wise mean, and its weights are tuned for that. The student's soft label
    # is a constant nowhere: neither eq. 3 nor the code detaches it in the peer's loss, nor S(x) in eq. 4.
    "PeerAiD": Method(
        title="PeerAiD",
        source="Jung et al. 2024, eq. 2 to 5; weights of the released CIFAR-10 recipe",
        maximises=Term("KL", "P(x)", "S(x~)"),
        start="gaussian",
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
        averages_weights=True,
    ),
}


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
    networks : by role.
    points : the images by the papers' name of the point: {"x": ..., "x*": ...}, each (N, C, H, W).
    """

    def __init__(self, networks: Mapping[str, nn.Module], points: Mapping[str, Tensor]) -> None:
        self._networks, self._points = networks, points
        self._done: dict[str, Tensor] = {}

    def __getitem__(self, point: str) -> Tensor:
        """Return the logits at, say, "S(x*)"; "S(x*).detach" shares the same forward pass."""
        name, dot, _ = point.partition(".")
        if name not in self._done:
            network, images = self._networks[ROLES[name[0]]], self._points[name[2:-1]]
            self._done[name] = network(images)
        return self._done[name].detach() if dot else self._done[name]


def loss(method: Method, settings: Settings, logits: Logits, labels: Tensor) -> Tensor:
    """Sum what a method's update minimises; terms of weight 0 cost nothing.

    Parameters
    ----------
    method : a row of the table.
    settings : all of its settings, as :meth:`Method.resolve` returns them.
    logits : at x and x*.
    labels : (N,) int64.

    Returns
    -------
    () float32.
    """
    total = torch.zeros((), device=labels.device)
    for term in method.minimises:
        weight = float(settings[term.weight]) if term.weight else 1.0
        if weight == 0:
            continue
        tau = float(settings[term.tau]) if term.tau else 1.0
        value = _divergence(term, logits[term.output], logits, labels, tau, str(settings.get("kl_reduction")))
        total = total + weight * tau**2 * value
    return total


def adversarial_examples(
    method: Method,
    networks: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: Callable[[nn.Module, Tensor, attacks.Objective, torch.Generator], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Perturb images so as to maximise what the method says.

    The guide's answer at the natural images is a constant, asked for once, in eval mode.

    Parameters
    ----------
    method : a row of the table, with something to maximise.
    networks : by role.
    images : (N, C, H, W) float32 in [0, 1].
    labels : (N,) int64.
    attack : the `perturb` of an attack.
    generator : a CPU generator for the attack's start.

    Returns
    -------
    (N, C, H, W) float32, x* of the papers.
    """
    term = method.maximises
    if term is None:
        raise ValueError(f"{method.title} trains without an attack.")
    if term.divergence == "CE":
        objective = attacks.cross_entropy_objective(labels)
    else:
        guide = networks[ROLES[term.target[0]]]
        with torch.no_grad(), attacks.attacked(guide):
            target = guide(images)

        def objective(logits: Tensor) -> Tensor:
            return losses.kl_divergence(target, logits) * len(logits)

    return attack(networks[ROLES[term.output[0]]], images, objective, generator)


def _divergence(term: Term, output: Tensor, logits: Logits, labels: Tensor, tau: float, reduction: str) -> Tensor:
    if term.divergence == "CE":
        return losses.cross_entropy(output, labels)
    return losses.kl_divergence(logits[term.target], output, tau, reduction)
