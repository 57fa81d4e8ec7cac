"""Networks: shapes, sizes, normalisation inside, weights that belong to the seed."""

import math

import pytest
import torch

from rkdkit import models

NAMES = list(models.ARCHITECTURES)


def on_meta(name):
    """A network without weights in memory, for what depends on shapes alone."""
    with torch.device("meta"):
        return models.build(name, 10, [0.5] * 3, [0.25] * 3)


def parameters_of(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 9), (3, 32), (3, 64)])
def test_every_network_takes_any_channels_and_size(name, channels, size):
    network = models.build(f"{name}/16", 7, [0.5] * channels, [0.25] * channels).eval()
    x = torch.rand(2, channels, size, size)
    with torch.no_grad():
        features = network.features(x)
        assert features.shape == (2, network.head.in_features)
        assert network(x).shape == (2, 7)
        assert torch.allclose(network.head(features), network(x))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("preact-resnet18", 11_172_170),
        ("preact-resnet18-kuangliu", 11_171_146),
        ("preact-resnet18-wong", 11_171_146),
        ("wrn-34-10", 46_160_474),
        ("wrn-28-10-silu", 36_479_194),
        ("mobilenetv2", 2_296_922),
        ("mlp-10", 3 * 128 + 128 + 8 * (128 * 128 + 128) + 128 * 10 + 10),
        ("mlp-5", 3 * 128 + 128 + 3 * (128 * 128 + 128) + 128 * 10 + 10),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, parameters):
    assert parameters_of(on_meta(name)) == parameters


@pytest.mark.parametrize(
    ("name", "millions", "operations", "half_a_digit"),
    [
        ("wrn-34-10", 46.2, 13.3e9, 0.05e9),
        ("resnet18", 11.2, 1.1e9, 0.05e9),
        ("mobilenetv2", 2.3, 182.3e6, 0.05e6),  # the paper prints 187 M: test_model_cost.py says why
    ],
)
def test_what_ard_prints_as_multiply_adds_is_twice_their_number(name, millions, operations, half_a_digit):
    cost = models.cost(on_meta(name), (3, 32, 32))
    assert round(cost.parameters / 1e6, 1) == millions
    assert 2 * cost.multiply_adds == pytest.approx(operations, abs=half_a_digit)


def test_multiply_adds_are_those_of_every_convolution_and_linear_layer():
    network = models.build("mobilenetv2/8", 10, [0.5] * 3, [0.25] * 3).eval()
    counted = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(lambda layer, _, out: counted.append(out.numel() * layer.weight[0].numel()))
    network(torch.rand(1, 3, 12, 20))
    expected = sum(counted)
    assert models.cost(network, (3, 12, 20)).multiply_adds == expected


def test_counting_leaves_a_network_as_it_is():
    network = models.build("resnet18/16", 10, [0.5], [0.25])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert models.cost(network, (1, 8, 8)) == models.cost(network.eval(), (1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("shape", [(3, 32, 32), (32, 32), (1, 0, 8)])
def test_a_cost_is_of_images_that_the_network_takes(shape):
    with pytest.raises(ValueError, match="1 channel"):
        models.cost(models.build("resnet18/16", 10, [0.5], [0.25]), shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("divisor", [2, 4, 8, 16])
def test_every_network_can_be_narrowed(name, divisor):
    full, narrow = on_meta(name), on_meta(f"{name}/{divisor}")
    assert narrow.head.in_features == full.head.in_features // divisor
    assert narrow.architecture == f"{name}/{divisor}"
    assert 0.5 < parameters_of(full) / parameters_of(narrow) / divisor**2 < 1.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_reach_every_weight_and_the_image(name, precision):
    network = models.build(f"{name}/16", 3, [0.5], [0.25])
    x = torch.rand(8, 1, 16, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = network(x)
    assert logits.dtype == precision
    logits.float().square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_wide_resnets_start_from_the_fields_weights():
    network = models.build("wrn-34-10/2", 10, [0.5], [0.25])
    weight = network.stages[-1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 320)) ** 0.5, rel=0.01)
    assert not network.head.bias.any()


def test_the_silu_network_is_deepminds():
    network = models.build("wrn-28-10-silu/16", 10, [0.5], [0.25])
    assert {m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}
    strided = next(block.conv1 for block in network.stages if block.conv1.stride == (2, 2))
    x = torch.rand(2, 10, 8, 8)
    expected = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (0, 1, 0, 1)), strided.weight, stride=2)
    assert torch.equal(strided(x), expected)


def test_a_quarter_as_wide_is_a_sixteenth_of_the_weights():
    sizes = [sum(p.numel() for p in models.build(f"resnet18/{k}", 10, [0.5], [0.2]).parameters()) for k in (1, 4)]
    assert 15 < sizes[0] / sizes[1] < 17


def test_normalisation_is_inside():
    plain = models.build("resnet18/16", 3, [0.0], [1.0], seed=1).eval()
    normalising = models.build("resnet18/16", 3, [0.3], [0.2], seed=1).eval()
    x = torch.rand(2, 1, 8, 8)
    assert torch.allclose(normalising(x), plain((x - 0.3) / 0.2), atol=1e-5)
    assert {"mean", "std"} <= set(normalising.state_dict())


def test_weights_belong_to_the_seed_and_leave_global_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, other = (models.build("resnet18/16", 3, [0.5], [0.2], seed=s) for s in (1, 2))
    assert torch.rand(1) == expected
    again = models.build("resnet18/16", 3, [0.5], [0.2], seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_grey_images_are_no_colour_images():
    network = models.build("resnet18/16", 10, [0.5] * 3, [0.25] * 3)
    with pytest.raises(ValueError, match="takes images of 3 channels, not 1"):
        network(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": [0.25, 0.0]}, "std must be at least 1e-07, not 0.0"),
        ({"std": [0.25, -0.25]}, "std must be at least"),
        ({"std": [math.nan, 0.25]}, "std must be at least"),
        ({"std": [0.25, math.inf]}, "std must be at least"),
        ({"mean": [0.5, math.nan]}, "mean must be"),
        ({"mean": [math.inf, 0.5]}, "mean must be"),
        ({"mean": [0.5, "0.5"]}, "mean must be a number"),
        ({"mean": [0.5]}, "one number for each input channel, not 1 and 2 numbers"),
        ({"mean": [], "std": []}, "one number for each input channel, not 0 and 0 numbers"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"num_classes": -1}, "num_classes must be at least 1"),
        ({"num_classes": 2.5}, "num_classes must be a whole number"),
        ({"num_classes": math.nan}, "num_classes must be at least 1"),
        ({"num_classes": True}, "num_classes must be a number"),
    ],
)
def test_what_no_network_can_be_made_of_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        models.build("resnet18/16", **{"num_classes": 3, "mean": [0.5, 0.5], "std": [0.25, 0.25], **changes})


def test_images_of_one_grey_value_can_be_trained_on():
    least = torch.tensor(1e-12).sqrt().item()  # what a dataset says of such images, rounded to float32 and back
    assert models.build("resnet18/16", 3, [0.5], [least]).std.item() == least
