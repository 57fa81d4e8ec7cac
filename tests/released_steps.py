"""Training steps in plain torch and float64: as the released codes do them, and as the kit reads the papers.

Written from facts about the codes (which network is asked where, in which mode and order, what is a constant, how a
loss is reduced), not from their text, and without anything of the kit. Read for it, on 2026-11-22:

- PeerAiD: jaewonalive/PeerAiD, `train_kd` of main.py and `LinfPeerAttack` of attack_function.py;
- RSLAD: zibojia/RSLAD, rslad_loss.py and the two ResNet-18 scripts;
- ARD: goldblum/AdversariallyRobustDistillation, main.py;
- IAD and AKD2: ZFancy/IAD, IAD-I.py and AKD2.py;
- AdaAD: boyellow/AdaAD, main.py and AT_helper.py;
- CAT: liuxingbin/CAT, train_cat.py and trades.py, with the switches of train_cat.sh;
- TRADES: yaodongyu/TRADES, trades.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 10
"""The steps of every attack, in papers and codes."""

RADII = {"TRADES": (0.031, 0.007)}
"""Radius and step of the attack where the code's are not 8/255 and 2/255."""

WEIGHT_DECAYS = {"AdaAD": 5e-4, "CAT": 5e-4}
"""The codes' weight decay where it is not 2e-4."""

WITH_PEER = ("CAT", "PeerAiD")

TEACHERS = {"ARD": ("T",), "RSLAD": ("T",), "IAD": ("T",), "AdaAD": ("T",), "AKD2": ("T_rob", "T_nat")}
"""The fixed networks that a method asks."""


def radius(method: str) -> tuple[float, float]:
    """Radius and step of a code's attack."""
    return RADII.get(method, (8 / 255, 2 / 255))


def batch_size(method: str, dataset: str) -> int:
    """Images per batch in a code."""
    return 256 if (method, dataset) == ("ARD", "cifar100") else 128


def learning_rates(method: str) -> list[float]:
    """The rate of each epoch of a code, in order, by the code's own way of counting."""
    if method in ("ARD", "IAD", "AKD2"):
        rates, rate = [], 0.1
        for epoch in range(200):
            if epoch in (100, 150):
                rate = 0.1 * 0.1  # each time from the initial rate, so the second drop changes nothing
            rates.append(rate)
        return rates
    if method == "AdaAD":
        return [0.1 if epoch < 100 else 0.1 / 10 if epoch < 150 else 0.1 / 100 for epoch in range(200)]
    if method == "CAT":
        return [0.1 if epoch < 100 else 0.1 / 10 if epoch < 150 else 0.1 / 100 for epoch in range(1, 201)]
    if method == "TRADES":
        return [0.1 * (0.1 if epoch >= 75 else 1) for epoch in range(1, 77)]
    first, drops = {"PeerAiD": (0, (214, 259, 284)), "RSLAD": (1, (216, 261, 286))}[method]
    return [0.1 * 0.1 ** sum(epoch >= drop for drop in drops) for epoch in range(first, first + 300)]


class Network(nn.Module):
    """Two convolutions with batch norm: (N, C, H, W) -> (N, classes), in float64.

    `mean` and `std`, one number for each channel, normalise the input.
    """

    def __init__(self, classes: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(len(mean), 5, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 7, 3, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(7)
        self.head = nn.Linear(7, classes)
        self.double()
        self.shift, self.scale = mean.double().view(1, -1, 1, 1), std.double().view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm1(self.conv1((x - self.shift) / self.scale)).relu()
        return self.head(self.norm2(self.conv2(hidden)).relu().mean((2, 3)))


@dataclass
class Training:
    """A training that goes step by step: `step(x, y, noise)` gives the adversarial examples by their names.

    `networks` are the trained ones, "student" and perhaps "peer"; `teachers` are in eval mode. `code` says whether it
    is the code's step or the paper's, `many_classes` whether it is CIFAR-100, for which some codes have other numbers,
    `late` whether IAD's first 60 epochs are over, and `tau` is IAD's temperature.
    """

    method: str
    code: bool
    networks: Mapping[str, nn.Module]
    teachers: Mapping[str, nn.Module]
    lr: float
    many_classes: bool = False
    late: bool = False
    tau: float = 1.0

    def __post_init__(self) -> None:
        decay = WEIGHT_DECAYS.get(self.method, 2e-4)
        self._optimisers = [
            torch.optim.SGD(network.parameters(), self.lr, momentum=0.9, weight_decay=decay)
            for network in self.networks.values()
        ]
        self._student, self._peer = self.networks["student"], self.networks.get("peer")

    def step(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        steps: dict[str, Callable[..., dict[str, Tensor]]] = {
            **{"PeerAiD": self._peeraid, "RSLAD": self._rslad, "ARD": self._ard, "IAD": self._iad},
            **{"AdaAD": self._adaad, "CAT": self._cat, "TRADES": self._trades, "AKD2": self._akd2},
        }
        return steps[self.method](x, y, noise)

    def _peeraid(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        S, P = self._student, self._peer
        tau, g2 = 5.0, 1.0 if self.many_classes else 0.1
        P.eval()
        guide = answer(P, x)
        P.train()
        S.eval()
        made = self._ascended(x, gaussian(x, noise), lambda now: divergences(guide, S(now)).sum())
        S.train()
        peer, first = P(made), S(made)
        second = S(made) if self.code else first
        natural = S(x)
        of_peer = F.cross_entropy(peer, y) + g2 * divergences(first, peer).mean()
        of_student = divergences(peer.detach(), second, tau).mean() + divergences(natural, second, tau).mean()
        self._update(of_peer + tau**2 * of_student)
        return {"x*": made}

    def _rslad(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        del y
        S, soft = self._student, answer(self.teachers["T"], x)
        S.eval()
        made = self._ascended(x, gaussian(x, noise), lambda now: divergences(soft, S(now)).sum())
        S.train()
        adversarial = S(made)
        natural = S(x)

        def distance(output: Tensor) -> Tensor:
            if not self.code:
                return divergences(soft, output).sum(1).mean()
            p = soft.softmax(1)
            entries = p * (p + 1e-5).log() - p * output.log_softmax(1)
            return (10 if self.many_classes else 1) * entries.mean()

        self._update(5 / 6 * distance(adversarial) + 1 / 6 * distance(natural))
        return {"x*": made}

    def _ard(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        S, tau = self._student, 5.0 if self.many_classes else 30.0
        made = self._against_labels(x, y, noise)
        adversarial = S(made)
        loss = tau**2 * divergences(answer(self.teachers["T"], x), adversarial, tau).mean()
        if self.code:
            loss = loss + 0.0 * F.cross_entropy(S(x), y)
        self._update(loss)
        return {"x*": made}

    def _iad(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        S, T, tau = self._student, self.teachers["T"], self.tau
        made = self._against_labels(x, y, noise)
        adversarial = S(made)
        trust = answer(T, made).softmax(1)[torch.arange(len(y)), y] ** 0.1
        taught = tau**2 * divergences(answer(T, x), adversarial, tau).sum(1)
        if self.code:
            loss = taught.mean() + 0.0 * F.cross_entropy(S(x), y)
        else:
            loss = (trust * taught if self.late else taught).mean()
        if self.late:
            of_own = 1.0 if self.code else tau
            loss = loss + ((1 - trust) * of_own**2 * divergences(S(x), adversarial, of_own).sum(1)).mean()
        self._update(loss)
        return {"x*": made}

    def _akd2(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        made = self._against_labels(x, y, noise)
        output = self._student(made)
        robust, natural = answer(self.teachers["T_rob"], made), answer(self.teachers["T_nat"], made)
        self._update(
            0.25 * F.cross_entropy(output, y)
            + 0.5 * divergences(robust, output).sum(1).mean()
            + 0.25 * divergences(natural, output).sum(1).mean()
        )
        return {"x*": made}

    def _adaad(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        del y
        S, T = self._student, self.teachers["T"]
        S.eval()
        made = self._ascended(x, gaussian(x, noise), lambda now: divergences(T(now), S(now)).sum())
        S.train()
        if self.code:
            S(x)
        entries = divergences(answer(T, made), S(made))
        self._update(entries.mean() if self.code and not self.many_classes else entries.sum(1).mean())
        return {"x*": made}

    def _cat(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        A, B = self._student, self._peer
        own, clamped = self._trades_attack(x, noise), self._uniform(x, noise).clamp(0, 1)
        B.eval()
        other = self._ascended(x, clamped, lambda now: F.cross_entropy(B(now), y, reduction="sum"))
        B.train()
        a_natural, a_own = A(x), A(own)
        b_own, b_natural = B(other), B(x)
        a_other, b_other = A(other), B(own)
        trades = F.cross_entropy(a_natural, y) + 6 * divergences(a_natural, a_own).sum(1).mean()
        pairing = (F.cross_entropy(b_own, y) + F.cross_entropy(b_natural, y)) / 2 + (b_own - b_natural).square().mean()
        each_other = divergences(b_other.detach(), a_own) + divergences(a_other.detach(), b_own)
        self._update(1 / 20 * (trades + pairing) + 19 / 20 * each_other.sum(1).mean())
        if self.code:
            A(x)
        return {"x*_S": own, "x*_P": other}

    def _trades(self, x: Tensor, y: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        S = self._student
        made = self._trades_attack(x, noise)
        natural, adversarial = S(x), S(made)
        again = S(x) if self.code else natural
        self._update(F.cross_entropy(natural, y) + 6 * divergences(again, adversarial).sum(1).mean())
        return {"x*": made}

    def _trades_attack(self, x: Tensor, noise: torch.Generator) -> Tensor:
        S = self._student
        S.eval()
        natural = answer(S, x)
        made = self._ascended(x, gaussian(x, noise), lambda now: divergences(natural, S(now)).sum())
        S.train()
        return made

    def _against_labels(self, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        """The attack of ARD, IAD and AKD2: the codes leave the student in train mode."""
        S = self._student
        S.train(self.code)
        made = self._ascended(x, self._uniform(x, noise), lambda now: F.cross_entropy(S(now), y, reduction="sum"))
        S.train()
        return made

    def _uniform(self, x: Tensor, noise: torch.Generator) -> Tensor:
        eps, _ = radius(self.method)
        return x + torch.empty(x.shape, dtype=x.dtype).uniform_(-eps, eps, generator=noise)

    def _ascended(self, x: Tensor, start: Tensor, height: Callable[[Tensor], Tensor]) -> Tensor:
        """Signed steps; each is projected to the ball and the box, the codes' start to neither."""
        eps, step = radius(self.method)
        now = start if self.code else start.clamp(0, 1)
        for _ in range(STEPS):
            now = now.detach().requires_grad_()
            (slope,) = torch.autograd.grad(height(now), now)
            now = now.detach() + step * slope.sign()
            now = torch.minimum(torch.maximum(now, x - eps), x + eps).clamp(0, 1)
        return now.detach()

    def _update(self, loss: Tensor) -> None:
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self._optimisers:
            optimiser.step()


def gaussian(x: Tensor, noise: torch.Generator) -> Tensor:
    """The random start of the attacks that maximise a divergence."""
    return x + torch.empty(x.shape, dtype=x.dtype).normal_(0, 0.001, generator=noise)


@torch.no_grad()
def answer(network: nn.Module, x: Tensor) -> Tensor:
    """Logits that are a constant."""
    return network(x)


def divergences(target: Tensor, output: Tensor, tau: float = 1.0) -> Tensor:
    """The summands of KL(softmax(target / tau) || softmax(output / tau)): (N, classes)."""
    return (target / tau).softmax(1) * ((target / tau).log_softmax(1) - (output / tau).log_softmax(1))
