"""A batch in parts, one after another: the same step in less memory, where no layer looks at the batch as a whole.

The loss of every method is a mean over images, so the parts' gradients, each with the part's share of the images, add
up to the batch's. That holds only if a network answers each image alike whatever the others are. A batch norm in train
mode does not, so for networks that have one this is refused.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from rkdkit.determinism import PartOfDraws

Rest = TypeVar("Rest")


class BatchStatisticsError(ValueError):
    """A batch in parts would train another network."""


def in_parts(
    loss_of: Callable[..., tuple[Tensor, Rest]],
    tensors: Sequence[Tensor],
    generator: torch.Generator,
    size: int | None,
    whole: int | None = None,
) -> tuple[Tensor, Rest]:
    """Return the loss of a batch, of which all parts but the last were propagated backward already.

    Parameters
    ----------
    loss_of : some images of each tensor, and a generator -> the mean loss over these images, and something else.
    tensors : each (N, ...).
    generator : a CPU generator, from which `loss_of` draws through :func:`determinism.drawn`; the parts get the numbers
        that the whole batch would get.
    size : how many images a part has at most; parts differ by one image at most. None: the batch is one part.
    whole : the number of images that the mean is over, if others have more of them; None: N.

    Returns
    -------
    loss : () whose value is the whole batch's, and which has only the last part's gradient still to give.
    rest : what `loss_of` returned beside the last part's loss.
    """
    n = len(tensors[0])
    number = 1 if size is None else math.ceil(n / size)
    if number == 1 and n == (whole or n):
        return loss_of(*tensors, generator)
    before, after = (generator.before, generator.after) if isinstance(generator, PartOfDraws) else (0, 0)
    state, earlier = generator.get_state(), torch.zeros((), device=tensors[0].device)
    for i in range(number):
        start, stop = n * i // number, n * (i + 1) // number
        draws = PartOfDraws()
        draws.set_state(state)
        draws.before, draws.after = before + start, n - stop + after
        loss, rest = loss_of(*(tensor[start:stop] for tensor in tensors), draws)
        loss = loss * ((stop - start) / (whole or n))
        if stop < n:
            loss.backward()  # type: ignore[no-untyped-call]
            earlier = earlier + loss.detach()
    generator.set_state(draws.get_state())
    return loss + earlier, rest


def check(size: int | None, batch_size: int, networks: Mapping[str, nn.Module], images: Tensor) -> int | None:
    """Return how many images a part of a batch has, None for a whole batch; refuse parts that change what is trained.

    Parameters
    ----------
    size : what the user asks for; None: nothing.
    batch_size : the number of images of a batch.
    networks : the networks to train, by role.
    images : (n, C, H, W) float32 in [0, 1], some to try the networks on, on their device.

    Raises
    ------
    BatchStatisticsError
        If a network in train mode answers an image otherwise when it is in another batch. The message names the layer.
    """
    if size is None or size >= batch_size:
        return None
    for role, network in networks.items():
        name, layer = _looks_at_the_batch(network)
        if layer or not _answers_alike(network, images):
            which = f"layer {name!r} ({layer})" if layer else "some layer"
            raise BatchStatisticsError(
                f"RKDKIT_MICRO_BATCH={size} would train another network: of the {role}, {which} answers by the "
                "statistics of the batch, or at random, so a batch in parts is not the batch. To train in less memory, "
                "share each batch out over several devices, with batch norms over all of them (torchrun, see "
                "docs/scaling.md), take a smaller network, or precision=bfloat16. Without RKDKIT_MICRO_BATCH, the "
                "batch is whole."
            )
    return size


def _looks_at_the_batch(network: nn.Module) -> tuple[str, str]:
    """Return name and class of a layer that normalises by the batch in train mode; "", "": torch knows of none."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return name, type(module).__name__
    return "", ""


@torch.no_grad()
def _answers_alike(network: nn.Module, images: Tensor) -> bool:
    """Return whether, in train mode, a network answers some images as it answers each alone, but for rounding."""
    tried = copy.deepcopy(network).train()
    together, alone = tried(images), torch.cat([tried(images[i : i + 1]) for i in range(len(images))])
    return bool(torch.allclose(together, alone, rtol=1e-3, atol=1e-3 * float(together.abs().max())))
