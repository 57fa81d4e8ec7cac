"""Networks: shapes, sizes, normalisation inside, weights that belong to the seed."""

import pytest
import torch

from rkdkit import models


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 64)])
def test_resnet18_takes_any_channels_and_size(channels, size):
    network = models.build("resnet18/16", 7, [0.5] * channels, [0.25] * channels).eval()
    x = torch.rand(2, channels, size, size)
    assert network(x).shape == (2, 7)
    assert network.features(x).shape == (2, 32)
    assert torch.allclose(network.head(network.features(x)), network(x))


def test_resnet18_has_the_published_number_of_parameters():
    network = models.build("resnet18", 10, [0.5] * 3, [0.25] * 3)
    assert sum(p.numel() for p in network.parameters()) == 11_173_962


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
