"""Work that is the same at each step of a training, captured once as a graph of the device and then replayed.

To a GPU, a replay is one submission instead of thousands, so small steps need not wait for the host. A graph reads and
writes the memory that it was captured on. So what is captured must decide nothing by what is computed, draw no random
numbers, and find all that changes in the tensors that it is called with or in the network's own.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Work = Callable[[], Tensor]
"""Some computation, which returns one tensor."""


class Device(Protocol):
    """What captures work on a type of device."""

    def warmed_up(self, work: Work) -> Tensor:
        """Do the work for once, as it has to be done before it is captured, and return its result."""

    def captured(self, work: Work) -> Work:
        """Capture the work without doing it; return what replays it, with the result in the same memory each time."""


class CUDA:
    """Captures CUDA graphs, on a stream of its own: libraries set themselves up for a stream, which no graph may do."""

    def __init__(self) -> None:
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warmed_up(self, work: Work) -> Tensor:
        """As :meth:`Device.warmed_up`."""
        self._aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._aside):
            result = work()
        torch.cuda.current_stream().wait_stream(self._aside)
        return result.clone()  # so that memory of that stream is used on it only

    def captured(self, work: Work) -> Work:
        """As :meth:`Device.captured`; what the work allocates is kept for the graph as long as it is held."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._aside):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


DEVICES: dict[str, Callable[[], Device]] = {"cuda": CUDA}
"""What captures, by type of device."""


@dataclass
class _Held:
    """A graph, and what it was captured for: `layout` and `state` as :func:`_layout` and :func:`_state` give them."""

    layout: Hashable
    state: Hashable
    inputs: list[Tensor] = field(default_factory=list)
    replay: Work | None = None


class Graphs:
    """Calls functions of tensors, each by its graph.

    Parameters
    ----------
    device : what captures.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._held: dict[Hashable, _Held] = {}

    def call(
        self, name: Hashable, function: Callable[..., Tensor], tensors: Sequence[Tensor], network: nn.Module
    ) -> Tensor:
        """Return what a function returns for these tensors.

        The first call is the work itself, the second captures and replays it, and later ones copy the tensors to where
        the graph reads them, and replay it. If tensors of another shape come, or the network's are elsewhere in memory
        than before, it begins again: a name has one graph.

        Parameters
        ----------
        name : stands for what the function does apart from the tensors; under one name, it always does the same.
        function : tensors -> a tensor; it may change the network's buffers, and nothing else that is there before.
        tensors : what it is called with; they are not changed.
        network : whose parameters and buffers it uses; they are read, at each replay, where they are now.

        Returns
        -------
        The result, in memory of its own.
        """
        layout, state = _layout(tensors), _state(network)
        held = self._held.get(name)
        if held is None or (held.layout, held.state) != (layout, state):
            self._held.pop(name, None)
            result = self._device.warmed_up(lambda: function(*tensors))
            self._held[name] = _Held(layout, state)
            return result
        if held.replay is None:
            held.inputs = [tensor.detach().clone() for tensor in tensors]
            # views, so that what asks for a gradient is not where the next call's tensors are copied to
            held.replay = self._device.captured(lambda: function(*(kept.detach() for kept in held.inputs)))
        else:
            for kept, tensor in zip(held.inputs, tensors, strict=True):
                kept.copy_(tensor.detach())
        return held.replay().detach().clone()


def _layout(tensors: Sequence[Tensor]) -> Hashable:
    return tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in tensors)


def _state(network: nn.Module) -> Hashable:
    """Return where all of a network's tensors are: folded weights, for example, are not where the network's are."""
    tensors: list[Any] = [*network.parameters(), *network.buffers()]
    return tuple(tensor.data_ptr() for tensor in tensors), _layout(tensors)
