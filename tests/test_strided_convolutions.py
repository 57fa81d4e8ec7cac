"""The kernel of torch's that corrupts memory: that no network meets it, and when it need not be avoided any longer.

What may corrupt memory runs in a process of its own, on more threads than the other tests.
"""

import copy
import signal
import subprocess
import warnings
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from conftest import run_python
from torch import nn

from rkdkit import models
from rkdkit.models.preact import PreActBlock
from rkdkit.models.resnet import BasicBlock
from rkdkit.models.shortcut import ShortcutConv2d

THREADS = (3, 4, 5, 6)

SHAPES = (
    # a batch that is no multiple of the number of threads is affected
    *((2, 5, 10), (3, 64, 32), (4, 3, 16), (4, 7, 12), (5, 7, 16), (6, 2, 10), (8, 128, 32), (8, 5, 16), (12, 7, 12)),
    (3, 2, 32),
)
"""Channels, images and their size. Each but for those of 2, 3, 5 or 7 images leaves some number of threads alone."""

CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE}
WRONG = 3
"""The exit status of a process whose numbers are wrong."""


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def images(channels, n, size, seed=0):
    noise = torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return noise.contiguous(memory_format=torch.channels_last)


def compare_blocks():
    """Run the kit's blocks on SHAPES; exit with the status WRONG where they differ from float64."""
    preact = partial(PreActBlock, activation=torch.relu, conv1=nn.Conv2d)
    # a block's first gradients are sums that nearly cancel: bfloat16 is compared for the shortcut alone
    cases = ((BasicBlock, torch.float32, 1e-4), (preact, torch.float32, 1e-4), (ShortcutConv2d, torch.bfloat16, 0.03))
    for (channels, n, size), (make, precision, tolerance) in product(SHAPES, cases):
        torch.manual_seed(0)
        block, x = make(channels, 8, 2).to(memory_format=torch.channels_last), images(channels, n, size)
        exact = copy.deepcopy(block).double()
        expected = exact(x.double())
        expected.square().sum().backward()
        for threads in THREADS * 2:
            torch.set_num_threads(threads)
            block.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                out = block(x)
            assert out.dtype == precision
            out.float().square().sum().backward()
            errors = {"output": relative_error(out, expected)}
            for (name, ours), theirs in zip(block.named_parameters(), exact.parameters(), strict=True):
                errors[name] = relative_error(ours.grad, theirs.grad)
            if not max(errors.values()) < tolerance:
                print(threads, channels, n, size, precision, errors)
                raise SystemExit(WRONG)


def use_the_kernel(channels):
    """Ask torch for the weight gradient that ShortcutConv2d avoids; exit with the status WRONG where it is wrong."""
    for threads in THREADS:
        torch.set_num_threads(threads)
        for n, size in ((7, 10), (7, 16), (7, 32)):
            x = images(channels, n, size)
            weight = torch.randn(8, channels, 1, 1, generator=torch.Generator().manual_seed(1)).requires_grad_()
            exact = weight.detach().double().requires_grad_()
            F.conv2d(x.double(), exact, stride=2).square().sum().backward()
            for _ in range(15):
                weight.grad = None
                F.conv2d(x, weight, stride=2).square().sum().backward()
                if not relative_error(weight.grad, exact.grad) < 1e-4:
                    raise SystemExit(WRONG)


def in_a_process(call, store):
    """Run a function of this file in a process of its own; return its exit status and what it printed."""
    # waiting threads leave the processor to others; read when torch is loaded
    code = f"import os; os.environ['OMP_WAIT_POLICY'] = 'passive'; import {__name__} as tests; tests.{call}"
    process = run_python(code, store)
    try:
        printed, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:  # a corrupted heap may also hang
        process.kill()
        process.communicate()
        return -signal.SIGABRT, "it hung"
    return process.returncode, printed + errors


def test_blocks_are_right_on_more_than_two_threads(tmp_path):
    status, printed = in_a_process("compare_blocks()", tmp_path)
    assert status == 0, printed


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_no_network_has_another_strided_1x1_convolution(name):
    with torch.device("meta"):
        network = models.build(f"{name}/16", 10, [0.5] * 3, [0.25] * 3)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1):
            assert isinstance(module, ShortcutConv2d)


@pytest.mark.parametrize(("channels", "size", "stride"), [(4, 8, 2), (8, 7, 2), (16, 32, 2), (64, 10, 2), (4, 16, 1)])
def test_what_is_not_affected_keeps_its_bits(channels, size, stride):
    torch.manual_seed(0)
    ours, x = ShortcutConv2d(channels, 8, stride), images(channels, 8, size)
    theirs = nn.Conv2d(channels, 8, 1, stride, bias=False)
    theirs.load_state_dict(ours.state_dict())
    for convolution in (ours, theirs):
        convolution(x).square().sum().backward()
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("size", [9, 10, 16])
def test_skipping_pixels_first_is_the_same_convolution(size):
    ours, x = ShortcutConv2d(6, 8, 2).double(), torch.rand(2, 6, size, size + 1, dtype=torch.float64)
    assert torch.allclose(ours(x), F.conv2d(x, ours.weight, stride=2), rtol=1e-12)
    ours.bias = nn.Parameter(torch.rand(8, dtype=torch.float64))  # as a folded network has it
    assert torch.allclose(ours(x), F.conv2d(x, ours.weight, ours.bias, stride=2), rtol=1e-12)


def test_a_shortcuts_norm_is_folded_with_the_others():
    network = models.build("resnet18/16", 10, [0.5] * 3, [0.25] * 3).eval()
    x = torch.rand(2, 3, 16, 16)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        expected = network(x)
        with network.folded():
            assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
            assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-5)


def test_the_kernel_is_still_to_be_avoided(tmp_path):
    """With a torch that is mended this warns, and does not fail: on another processor the kernel may be another."""
    status, printed = in_a_process("use_the_kernel(16)", tmp_path)
    assert status == 0, f"16 channels are not affected: {printed}"
    status, printed = in_a_process("use_the_kernel(4)", tmp_path)
    assert status in {0, WRONG} | CRASHES, printed
    if status == 0:
        warnings.warn(
            f"torch {torch.__version__} computes strided 1x1 convolutions rightly on this processor "
            f"({torch.backends.cpu.get_cpu_capability()}). Where it does on AVX2 and on AVX512, and with every torch "
            "that pyproject.toml allows, ShortcutConv2d can be nn.Conv2d again.",
            stacklevel=1,
        )
