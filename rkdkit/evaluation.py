"""Accuracy under attack, always in float32: the robustness of a final model is not measured in lower precision."""

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rkdkit import attacks, autoattack, checks, data, losses, runtime, statistics
from rkdkit.determinism import exact_arithmetic, generator
from rkdkit.modes import eval_without_gradients, folded_for_inference

BATCH_SIZE = 256
"""The number of images per batch, unless `runtime` sets another."""


@dataclass(frozen=True)
class Evaluation:
    """Which test images a network classifies correctly, without and under attacks.

    Attributes
    ----------
    correct : by metric ("clean", "pgd-20", ...): (N,) bool; for a costly attack, N may be smaller: the first images
        only.
    """

    correct: Mapping[str, Tensor]

    def answers(self, metric: str) -> Tensor:
        """Return which images are classified correctly by a metric, (N,) bool.

        Raises
        ------
        UnknownNameError
            If the metric was not measured.
        """
        return self.correct[checks.one_of("metric", metric, self.correct)]

    def __getitem__(self, metric: str) -> statistics.Estimate:
        """Return the accuracy by a metric, with its 95 % interval; errors as :meth:`answers`."""
        return statistics.proportion(self.answers(metric))

    def __str__(self) -> str:
        return "\n".join(f"{metric}: {self[metric]} of {self[metric].n}" for metric in self.correct)


def standard_attacks(
    eps: float, step_size: float | None = None, steps: int = 20, iterate: str = "last"
) -> dict[str, attacks.Attack | None]:
    """Return the attacks of PeerAiD's Table 1, by the metrics' names in `papers`: clean, fgsm, pgd-20, autoattack.

    Parameters
    ----------
    eps : radius of the l_inf ball, in [0, 1] pixel units.
    step_size : PGD's step size; None: eps / 4, such as 2/255 for 8/255.
    steps : PGD's number of steps.
    iterate : PGD's iterate, "last" or "any"; with "any", the metric is "pgd-20 (any iterate)".

    Raises
    ------
    ValueError
        If `eps` is not between 0 and 1.
    UnknownNameError
        If `iterate` is neither of these.
    """
    checks.radius(eps)
    pgd = attacks.PGD(eps, eps / 4 if step_size is None else step_size, steps, iterate=iterate)
    return {"clean": None, "fgsm": attacks.FGSM(eps), str(pgd).lower(): pgd, "autoattack": autoattack.AutoAttack(eps)}


def evaluate(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks_by_metric: Mapping[str, attacks.Attack | None],
    *,
    seed: int = 0,
) -> Evaluation:
    """Measure one network under several attacks; `runs.evaluate` does this for snapshots and stores the answers.

    Parameters
    ----------
    network, images, labels, seed : as :func:`correct_predictions`.
    attacks_by_metric : None for natural images; :func:`standard_attacks` makes the usual ones.
    """
    return Evaluation(
        {
            metric: correct_predictions([network], images, labels, attack, seed=seed)[0]
            for metric, attack in attacks_by_metric.items()
        }
    )


def correct_predictions(
    judges: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: attacks.Attack | None = None,
    attacked: nn.Module | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Return which images each of several networks classifies correctly, all on the same adversarial examples.

    Parameters
    ----------
    judges : networks on one device, (N, C, H, W) -> (N, classes) logits.
    images : (N, C, H, W) uint8, or floating point in [0, 1], N at least 1.
    labels : (N,) int64.
    attack : makes the adversarial examples, with the cross entropy as its loss unless the attack has another; None:
        natural images.
    attacked : the network attacked (for x*_S, the student); None: the first judge.
    seed : the seed of the attack's start.
    batch_size : images per batch; it changes the speed, and the noise that an image gets at a restart. None:
        `runtime`'s batch size for attacks without restarts, otherwise 256.

    Returns
    -------
    (len(judges), N) bool on the CPU.

    Raises
    ------
    ValueError
        If there are no images, they are NaN or outside [0, 1], labels do not fit, `batch_size` is below 1, a network
        has float64 weights, or it returns anything else than one row of finite logits per image.
    """
    attacked = judges[0] if attacked is None else attacked
    if isinstance(attack, autoattack.Packaged) and list(judges) == [attacked]:
        # it makes its own batches, so it gets all images at once, and it evaluates the network itself
        _check(judges, attacked, images, labels, batch_size)
        with prepared(attacked, attack, images) as network:
            return attack.correct(network, _as_float(images), labels)[None]
    answers = logits(judges, images, labels, attack, attacked, seed=seed, batch_size=batch_size)
    return answers.argmax(2) == labels.cpu()


@torch.no_grad()
def logits(
    judges: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: attacks.Attack | None = None,
    attacked: nn.Module | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Return the logits of each of several networks, all on the same adversarial examples.

    Parameters
    ----------
    judges, images, labels, attack, attacked, seed, batch_size : as :func:`correct_predictions`.

    Returns
    -------
    (len(judges), N, classes) float32 on the CPU.

    Raises
    ------
    ValueError
        As :func:`correct_predictions`.
    """
    attacked = judges[0] if attacked is None else attacked
    _check(judges, attacked, images, labels, batch_size)
    if isinstance(attack, autoattack.Packaged):
        with prepared(attacked, attack, images) as network:
            images = attack.examples(network, _as_float(images), labels, torch.Generator())
        attack = None
    batches = batches_of_logits(judges, images, labels, attack, attacked, seed=seed, batch_size=batch_size)
    return finite(torch.cat([answers for _, answers in batches], dim=1))


@torch.no_grad()
def batches_of_logits(
    judges: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: attacks.Attack | None = None,
    attacked: nn.Module | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    starts: Container[int] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield what :func:`logits` returns batch by batch: the batches may be shared out among processes.

    Parameters
    ----------
    judges, images, labels, attack, attacked, seed, batch_size : as :func:`correct_predictions`; the attack is none of
        the package's.
    starts : as :func:`perturbed`.

    Yields
    ------
    The number of the batch's first image, and (len(judges), n, classes) float32 on the judges' device, for
    :func:`finite`.

    Raises
    ------
    ValueError
        As :func:`correct_predictions`.
    """
    attacked = judges[0] if attacked is None else attacked
    _check(judges, attacked, images, labels, batch_size)
    checked = False
    size = batch_size or batch_size_for(attack)
    wanted = [start for start in range(0, len(images), size) if starts is None or start in starts]
    batches = perturbed(attacked, images, labels, attack, seed=seed, batch_size=size, starts=starts)
    for start, (x, _) in zip(wanted, batches, strict=True):
        of_batch = []
        for judge in judges:
            with exact_arithmetic(), eval_without_gradients(judge):
                answer = judge(x)
            classes = checks.logits(answer, len(x), type(judge).__name__)
            if not checked:  # all labels, once
                checks.labels(labels, len(images), classes)
            of_batch.append(answer.float())
        checked = True
        numbers = [answer.shape[1] for answer in of_batch]
        if len(set(numbers)) > 1:
            raise ValueError(f"Networks that are compared must have the same classes, but they have {numbers} of them.")
        yield start, torch.stack(of_batch)


def finite(logits: Tensor) -> Tensor:
    """Return logits on the CPU.

    Raises
    ------
    ValueError
        If some are NaN or infinite.
    """
    logits = logits.cpu()
    if not logits.isfinite().all():
        raise ValueError("A network returned NaN or infinite logits, so it cannot be evaluated.")
    return logits


@torch.no_grad()
def perturbed(
    attacked: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: attacks.Attack | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    starts: Container[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images that networks are evaluated on, batch by batch, on the attacked network's device.

    Parameters
    ----------
    attacked, images, labels, attack, seed, batch_size : as :func:`correct_predictions`, checked there.
    starts : of the batches, only those whose first image has one of these numbers, with the random numbers that they
        have among all, if the attack is :func:`separable`; None: all.

    Yields
    ------
    (n, C, H, W) float32 in [0, 1], and (n,) int64 labels, n at most `batch_size`.

    Raises
    ------
    ValueError
        If the attacked network does not return one row of logits per image, if a label is none of its classes, or if
        the attack is one of the package's, which take all images at once.
    """
    if isinstance(attack, autoattack.Packaged):
        raise ValueError(f"{attack} takes all images at once: make its examples first, and give attack=None.")
    device = _device(attacked)
    noise = generator(seed, 0, "evaluation")
    batch_size = batch_size or batch_size_for(attack)
    network = _compiled(attacked, attack, images, batch_size)
    asked = False
    for start in range(0, len(images), batch_size):
        if starts is not None and start not in starts:
            _skip(attack, images[start : start + batch_size].shape, noise)
            continue
        x = _as_float(images[start : start + batch_size].to(device)).contiguous(memory_format=torch.channels_last)
        y = labels[start : start + batch_size].to(device)
        if attack is not None:
            if not asked:
                attacks.check_answers(attacked, x, labels)
                asked = True
            with exact_arithmetic(), torch.enable_grad():
                x = attack.examples(network, x, y, noise)
        yield x, y


def separable(attack: attacks.Attack | None) -> bool:
    """Return whether a batch can be attacked without those before it, with the random numbers that it has after them.

    A restart draws for those images alone that withstood the starts before it, so what it draws depends on all batches
    before. Of an attack that a notebook defines, nothing is known.

    Parameters
    ----------
    attack : None: natural images.
    """
    if type(attack) is attacks.PGD:
        return attack.restarts == 1
    return type(attack) in (type(None), attacks.FGSM, attacks.FFGSM, attacks.MIFGSM, attacks.DeepFool)


def _skip(attack: attacks.Attack | None, shape: torch.Size, noise: torch.Generator) -> None:
    """Draw and drop the random numbers that an attack draws for a batch of a shape."""
    if isinstance(attack, attacks.FFGSM):
        attack = attacks.PGD(attack.eps, 0.0, 0, "uniform")
    if isinstance(attack, attacks.PGD):  # without steps, it draws the start and asks no network
        start = replace(attack, steps=0, iterate="last")
        start.examples(nn.Identity(), torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64), noise)


@contextmanager
def prepared(network: nn.Module, attack: autoattack.Packaged, images: Tensor) -> Iterator[nn.Module]:
    """Make a network fast for the many passes of a costly attack; afterwards it is restored.

    Parameters
    ----------
    network : the network attacked.
    attack, images : the attack and all images it will be run on.

    Yields
    ------
    The network to give to the attack instead.
    """
    with exact_arithmetic(), folded_for_inference(network):
        yield _compiled(network, attack, images, attack.batch_size)


def _compiled(network: nn.Module, attack: attacks.Attack | None, images: Tensor, batch_size: int) -> nn.Module:
    if attack is None:
        return network
    passes = len(images) * _passes(attack)
    if not runtime.compiles(_device(network), [network], images.shape[1:], passes):
        return network
    return runtime.FullBatches(network, min(batch_size, len(images)))


def _passes(attack: attacks.Attack) -> int:
    """Return approximately how many times an attack passes an image through the network."""
    if isinstance(attack, autoattack.AutoAttack):
        return 2000
    return math.prod(int(getattr(attack, name, 1)) for name in ("steps", "restarts", "queries"))


def batch_size_for(attack: attacks.Attack | None) -> int:
    """Return how many images are attacked at once where nothing else is said."""
    # the first start's noise does not depend on the batches, but the noise of restarts does
    drawn_by_batch = getattr(attack, "restarts", 1) > 1
    return BATCH_SIZE if drawn_by_batch else runtime.current().evaluation_batch_size or BATCH_SIZE


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _check(
    judges: Sequence[nn.Module], attacked: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None
) -> None:
    checks.batch(images, labels, attacked)
    for network in (attacked, *judges):
        checks.precision(network, torch.float32, "evaluations are in float32, so use network.float()")
    if batch_size is not None:
        checks.number("batch_size", batch_size, 1)


def _as_float(images: Tensor) -> Tensor:
    return data.to_float(images) if images.dtype == torch.uint8 else images.float()


QUANTITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross entropy": losses.cross_entropy,
    "entropy": lambda answers, _: losses.soft_cross_entropy(answers, answers),
}
"""The quantities that :func:`per_image` measures, from logits (N, classes) and labels (N,), in nats."""


def per_image(
    quantity: str,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: attacks.Attack | None = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Measure a quantity of a network's output for each image; `runs.per_image` does this for snapshots.

    Parameters
    ----------
    quantity : "cross entropy" with the label, which is -ln of the probability of the correct class; or "entropy" of the
        predicted probabilities, between 0 (certain) and ln(classes) (uniform).
    network, images, labels, attack, seed : as :func:`correct_predictions`; the network itself is attacked.

    Returns
    -------
    (N,) float32 on the CPU, in nats.

    Raises
    ------
    UnknownNameError
        If `quantity` is neither of these.
    ValueError
        As :func:`correct_predictions`.
    """
    measure = QUANTITIES[checks.one_of("quantity", quantity, QUANTITIES)]
    return measure(logits([network], images, labels, attack, seed=seed)[0], labels.cpu())


def accuracy(
    network: nn.Module, images: Tensor, labels: Tensor, attack: attacks.Attack | None = None, *, seed: int = 0
) -> statistics.Estimate:
    """Return the clean or robust accuracy of one network, with its Wilson interval.

    Parameters
    ----------
    network, images, labels, attack, seed : as :func:`correct_predictions`.

    Raises
    ------
    ValueError
        As :func:`correct_predictions`.
    """
    return statistics.proportion(correct_predictions([network], images, labels, attack, seed=seed)[0])
