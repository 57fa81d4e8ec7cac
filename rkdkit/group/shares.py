"""How a batch is shared out among processes that train the same networks: :class:`Shares`, and a process :data:`ALONE`.

`processes.Processes` is the group of real processes; the training loop knows only what is here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from rkdkit.determinism import PartOfDraws


class Shares:
    """A process that has whole batches to itself, and what a group of processes does otherwise.

    Attributes
    ----------
    rank : the number of this process, counted from 0.
    size : the number of processes.
    """

    rank = 0
    size = 1

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself: a copy of a network belongs to the same group."""
        return self

    def of_batch(self, n: int) -> slice:
        """Return which images of a batch of `n` are this process's; shares differ by one image at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def of_draws(self, generator: torch.Generator, n: int) -> torch.Generator:
        """Return a generator whose draws for a batch are those for all its `n` images, cut to this process's share.

        Parameters
        ----------
        generator : a new CPU generator.
        n : the number of images of every batch that it draws for.
        """
        if self.size == 1:
            return generator
        mine, part = self.of_batch(n), PartOfDraws()
        part.manual_seed(generator.initial_seed())
        part.before, part.after = mine.start, n - mine.stop
        return part

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes in their order; all have the same shape."""
        return [tensor]

    def add(self, tensor: Tensor) -> Tensor:
        """Replace a contiguous tensor by its sum over the processes, the same bits in all of them, and return it."""
        return tensor

    def send_first(self, tensor: Tensor) -> Tensor:
        """Replace a contiguous tensor by the first process's, and return it."""
        return tensor

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each parameter's gradient by its sum over the processes, all of them in one message."""
        if self.size > 1:
            with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
            summed = _in_one_message([p.grad for p in with_gradient if p.grad is not None], self.add)
            for parameter, gradient in zip(with_gradient, summed, strict=True):
                parameter.grad = gradient

    @torch.no_grad()
    def make_equal(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process: other hardware may have rounded otherwise."""
        if self.size > 1:
            listed = list(tensors)
            # what stays on a GPU's host, as the count of averaged weights, is the same number everywhere
            listed = [tensor for tensor in listed if tensor.device == listed[0].device]
            for dtype in dict.fromkeys(tensor.dtype for tensor in listed):
                alike = [tensor for tensor in listed if tensor.dtype == dtype]
                for tensor, first in zip(alike, _in_one_message(alike, self.send_first), strict=True):
                    tensor.copy_(first)

    def whole_batch(self, part: Tensor, n: int) -> Tensor:
        """Return a whole batch, (n, ...), of which each process has its share of the images."""
        if self.size == 1:
            return part
        # a message has the same size from everybody: each fills its own rows
        whole = part.new_zeros(n, *part.shape[1:])
        whole[self.of_batch(n)] = part
        return self.add(whole)


ALONE = Shares()
"""One process, which does everything itself."""


def _in_one_message(tensors: Sequence[Tensor], exchange: Callable[[Tensor], object]) -> list[Tensor]:
    """Return what became of tensors of one dtype, with the same strides, after one exchange of all of them."""
    if not tensors:
        return []
    flat = torch.empty(sum(t.numel() for t in tensors), dtype=tensors[0].dtype, device=tensors[0].device)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    views = [
        part.as_strided(t.shape, t.stride(), part.storage_offset()) for part, t in zip(parts, tensors, strict=True)
    ]
    torch._foreach_copy_(views, list(tensors))
    exchange(flat)
    return views
