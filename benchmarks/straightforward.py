"""Training steps as one would write them down in PyTorch, and as the released codes have them.

Float32 and the usual memory format, unless asked otherwise, and each forward pass where the released codes of TRADES,
ARD and PeerAiD have it: an attack's target anew at each step (TRADES), the student on natural images even where that
counts nothing (ARD), the student twice on the same examples (PeerAiD). The student is attacked in eval mode, but in
train mode in ARD's code. An attack's start is clamped after the first step only. Their attacks ask for the input's
gradient alone, and so do these. Each trained network has an optimiser. The losses are those of the table of methods
with their defaults. One thing is the kit's: the networks normalise their input, which those codes do not.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

EPS, STEP, STEPS = 8 / 255, 2 / 255, 10


class Step:
    """One method's training step on a batch.

    Parameters
    ----------
    method : "PGD-AT", "TRADES", "ARD" or "PeerAiD".
    student, guide : the networks; the guide is ARD's teacher or PeerAiD's peer.
    bfloat16 : whether to take the two lines that many add: autocast to bfloat16, and channels-last.
    """

    def __init__(self, method: str, student: nn.Module, guide: nn.Module, bfloat16: bool = False) -> None:
        self.memory_format = torch.channels_last if bfloat16 else torch.contiguous_format
        self.bfloat16 = bfloat16
        self.student, self.guide = (net.to(memory_format=self.memory_format) for net in (student, guide))
        self._step: Callable[[Tensor, Tensor], Tensor] = {
            "PGD-AT": self._pgd_at,
            "TRADES": self._trades,
            "ARD": self._ard,
            "PeerAiD": self._peeraid,
        }[method]
        self.attacked_in_train_mode = method == "ARD"
        trained = [student, guide] if method == "PeerAiD" else [student]
        self.optimisers = [SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=2e-4) for net in trained]

    def __call__(self, x: Tensor, y: Tensor) -> float:
        """Take a step on images (N, C, H, W) in [0, 1] and labels (N,); return the loss."""
        # with its cache of weights, as usual: no gradient is lost by it (tried with torch 2.15)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = self._step(x.contiguous(memory_format=self.memory_format), y)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        return loss.item()

    def _attack(self, x: Tensor, x_adv: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
        self.student.train(self.attacked_in_train_mode)
        for _ in range(STEPS):
            x_adv = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(objective(self.student(x_adv)), [x_adv])
            x_adv = x_adv.detach() + STEP * gradient.sign()
            x_adv = torch.clamp(torch.min(torch.max(x_adv, x - EPS), x + EPS), 0, 1)
        self.student.train()
        return x_adv.detach()

    def _uniform(self, x: Tensor, y: Tensor) -> Tensor:
        return self._attack(
            x, x + torch.empty_like(x).uniform_(-EPS, EPS), lambda z: F.cross_entropy(z, y, reduction="sum")
        )

    def _gaussian(self, x: Tensor, target: Callable[[], Tensor]) -> Tensor:
        return self._attack(
            x, x + 0.001 * torch.randn_like(x), lambda z: F.kl_div(F.log_softmax(z, 1), target(), reduction="sum")
        )

    def _pgd_at(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.student(self._uniform(x, y)), y)

    def _trades(self, x: Tensor, y: Tensor) -> Tensor:
        x_adv = self._gaussian(x, lambda: F.softmax(self.student(x), 1))
        natural = F.cross_entropy(self.student(x), y)
        answers = F.log_softmax(self.student(x_adv), 1)
        return natural + 6 * F.kl_div(answers, F.softmax(self.student(x), 1), reduction="batchmean")

    def _ard(self, x: Tensor, y: Tensor) -> Tensor:
        x_adv, tau = self._uniform(x, y), 30.0
        answers = F.log_softmax(self.student(x_adv) / tau, 1)
        self.guide.eval()
        with torch.no_grad():
            target = F.softmax(self.guide(x) / tau, 1)
        natural = F.cross_entropy(self.student(x), y)
        return tau**2 * _kl_of_elements(answers, target) + 0.0 * natural

    def _peeraid(self, x: Tensor, y: Tensor) -> Tensor:
        self.guide.eval()
        with torch.no_grad():
            target = F.softmax(self.guide(x), 1)
        x_adv, tau = self._gaussian(x, lambda: target), 5.0
        self.guide.train()
        peer = self.guide(x_adv)
        of_peer = F.cross_entropy(peer, y)
        of_peer = of_peer + 0.1 * _kl_of_elements(F.log_softmax(peer, 1), F.softmax(self.student(x_adv), 1))
        answers = F.log_softmax(self.student(x_adv) / tau, 1)
        taught = _kl_of_elements(answers, F.softmax(peer.detach() / tau, 1))
        consistent = _kl_of_elements(answers, F.softmax(self.student(x) / tau, 1))
        return of_peer + tau**2 * (taught + consistent)


def _kl_of_elements(log_answers: Tensor, target: Tensor) -> Tensor:
    """Return KL(target, answers) as the released codes of ARD and PeerAiD average it: over all elements."""
    return F.kl_div(log_answers, target, reduction="none").mean()
