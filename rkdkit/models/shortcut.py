"""The 1x1 convolution of a shortcut, which avoids a kernel of torch that corrupts memory."""

import torch.nn.functional as F
from torch import Tensor, nn


class ShortcutConv2d(nn.Conv2d):
    """A 1x1 convolution without bias whose weight gradient does not corrupt memory.

    On a CPU with three threads or more, torch 2.14.1 and 2.15 (oneDNN 3.12 and 3.13.3) write outside of an array in the
    weight gradient of a 1x1 convolution with stride 2, if the images are channels-last, larger than 8 x 8, and their
    number of channels is not a multiple of 16. The process crashes, or continues with wrong numbers. With stride 1 this
    does not happen. A 1x1 convolution with a stride only skips pixels, so the pixels are skipped first, and the
    convolution has stride 1: the same sums of the same products. This makes a training step of resnet18/8 on 32 x 32
    images a few per cent slower.

    Shapes that are not affected use torch's own kernel, because another kernel rounds differently. The decision does
    not depend on the images' device and memory layout, so that a network computes the same operations on every device.

    `tests/test_strided_convolutions.py` warns when this class can be replaced by `nn.Conv2d`.

    Parameters
    ----------
    in_width, width : channels of its input and output.
    stride : with 2, every other row and column is used.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__(in_width, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_width, H, W) -> (N, width, ceil(H / stride), ceil(W / stride))."""
        rows, columns = self.stride
        if rows == 1 or self.in_channels % 16 == 0 or max(x.shape[2:]) <= 8:
            return super().forward(x)
        # with the bias, which a network has while it is folded for inference
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)
