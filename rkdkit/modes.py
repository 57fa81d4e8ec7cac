"""In which mode a network answers within a ``with`` block, without gradients of its parameters."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from torch import nn

MODES = ("eval", "train")
"""The modes of a network: batch norms use their running statistics, or the batch's, which move the running ones."""


@contextmanager
def without_gradients(network: nn.Module, mode: str = "eval") -> Iterator[nn.Module]:
    """Keep a network in a mode, without gradients of its parameters, within a ``with`` block.

    A backward pass computes only the gradient of the input. Afterwards every module's mode and every parameter's
    `requires_grad` are restored; running statistics that moved in train mode stay as they are then.

    Parameters
    ----------
    network : any network.
    mode : one of `MODES`.
    """
    modes = [(module, module.training) for module in network.modules()]
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if mode == "train":
        network.train()
    else:
        network.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield network
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training


def eval_without_gradients(network: nn.Module) -> AbstractContextManager[nn.Module]:
    """As :func:`without_gradients`, in eval mode: batch-norm statistics are fixed."""
    return without_gradients(network)


@contextmanager
def folded_for_inference(network: nn.Module) -> Iterator[nn.Module]:
    """As :func:`eval_without_gradients`, for many passes: batch norms are folded into convolutions once.

    Every submodule that has a context manager ``folded``, as the kit's networks do, is inside that context.
    """
    with eval_without_gradients(network), ExitStack() as held:
        for module in list(network.modules()):
            folded: Callable[[], AbstractContextManager[object]] | None = getattr(module, "folded", None)
            if callable(folded):  # in a foreign network, `folded` may be a plain flag
                held.enter_context(folded())
        yield network
