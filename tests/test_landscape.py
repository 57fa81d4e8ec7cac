"""Landscapes that are known: a quadratic's, and the claims that rest on them."""

import json

import pytest
import torch
from conftest import tiny_spec
from torch import nn

from rkdkit import attacks, claims, data, losses, runs
from rkdkit.analysis import landscape
from rkdkit.checks import UnknownNameError
from rkdkit.papers import peeraid_pictures
from rkdkit.store import Store


class Bowl(nn.Module):
    """Two filters and a bias; half their squares are the loss."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.filters = nn.Parameter(scale * torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]))
        self.bias = nn.Parameter(torch.tensor([1.0]))


def quadratic(network):
    return torch.stack([0.5 * sum(p.square().sum() for p in network.parameters())] * 2)


def test_every_filter_of_a_direction_has_the_networks_norm_and_biases_stay():
    direction = landscape.random_direction(Bowl(), 0)
    assert direction["filters"].norm(dim=1).tolist() == pytest.approx([5, 2])
    assert direction["bias"].item() == 0


def test_networks_share_the_random_draws():
    small, large = (landscape.random_direction(Bowl(scale), 3)["filters"] for scale in (1.0, 10.0))
    assert torch.allclose(10 * small, large)
    assert not torch.allclose(small, landscape.random_direction(Bowl(), 4)["filters"])


def test_a_quadratics_landscape_is_the_quadratic():
    bowl = Bowl()
    first, second = (landscape.random_direction(bowl, draw) for draw in (0, 1))
    places = [(0.0, 0.0), (0.5, 0.0), (-0.25, 0.75)]
    found = torch.stack(list(landscape.losses_at(bowl, [first, second], places, quadratic)))
    for (a, b), loss in zip(places, found[:, 0].tolist(), strict=True):
        moved = bowl.filters + a * first["filters"] + b * second["filters"]
        assert loss == pytest.approx(0.5 * float(moved.detach().square().sum()) + 0.5)
    assert torch.equal(bowl.filters, Bowl().filters), "the network itself stays"


def test_a_quadratics_mean_rise_is_known_whatever_the_direction():
    # on a line the linear terms cancel: half the filters' squares, 29, by the mean of the offsets' squares
    line = landscape._evenly(5)
    assert line == (-0.75, -0.375, 0.0, 0.375, 0.75)
    for draw in range(3):
        along = [landscape.random_direction(Bowl(), draw)]
        profile = torch.stack(list(landscape.losses_at(Bowl(), along, [(a,) for a in line], quadratic)))
        rise = landscape.mean_rise(profile[None])
        assert rise.tolist() == [pytest.approx([14.5 * sum(a * a for a in line) / 5] * 2)]


def test_the_loss_is_that_of_the_networks_own_adversarial_examples(trained, digits):
    some, attack = digits.test.take(slice(0, 30)), attacks.PGD(0.1, 0.025, 3, "none")
    found = landscape.adversarial_loss(some, attack)(trained)
    x = attack(trained, data.to_float(some.images), some.labels)
    assert torch.allclose(found, losses.cross_entropy(trained(x), some.labels), atol=1e-4)
    assert found.mean() > losses.cross_entropy(trained(data.to_float(some.images)), some.labels).mean()


@pytest.fixture(scope="module")
def measure(tmp_path_factory, digits):
    """Two tiny networks around which little is measured, and the call that does it."""
    store = Store(tmp_path_factory.mktemp("store"))
    run = runs.ensure(tiny_spec("PeerAiD", epochs=1), store)
    networks = {"PeerAiD": [run.snapshot("student")], "PGD-AT": [run.snapshot("peer")]}

    def call(**changes):
        settings = {"n": 10, "n_surface": 5, "points": 3, "directions": 2, "grid": 3, "store": store, **changes}
        return landscape.landscapes(settings.pop("networks", networks), digits, attacks.FGSM(0.1), **settings)

    return call


def test_landscapes_are_kept_and_their_middle_is_the_network(measure, monkeypatch):
    found = measure(surfaces_of=["PeerAiD"])
    assert found.profiles["PGD-AT"][0].shape == (2, 3, 10)
    assert list(found.surfaces) == ["PeerAiD"]
    middle = found.profiles["PeerAiD"][0][:, 1]
    assert torch.equal(middle[0], middle[1])
    assert found.surfaces["PeerAiD"][1, 1] == pytest.approx(float(middle[0, :5].mean()), rel=1e-4)
    table = found.table()
    assert table.part.value_counts().to_dict() == {"surface": 9, "profile": 6, "mean rise": 2}
    assert set(table.seeds) == {1}
    monkeypatch.setattr(runs.Snapshot, "load", None)  # whatever is not kept would need the network
    again = measure(surfaces_of=["PeerAiD"])
    assert torch.equal(again.profiles["PGD-AT"][0], found.profiles["PGD-AT"][0])
    json.dumps([claim.to_json() for claim in [_claim(found)]], allow_nan=False)


def _claim(found):
    return claims.Claim(
        "", "", claims.Quantity("", found.rise("PGD-AT")), claims.Quantity("", found.rise("PeerAiD")),
        found.rise_minus("PGD-AT", "PeerAiD"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"points": 4}, ValueError, "odd number of places"),
        ({"n": 1000}, ValueError, "n must be between 2 and 497"),
        ({"surfaces_of": ["TRADES"]}, UnknownNameError, "Unknown network 'TRADES'"),
        ({"networks": {}}, ValueError, "one architecture only"),
    ],
)
def test_what_cannot_be_measured_is_refused(measure, changes, error, message):
    with pytest.raises(error, match=message):
        measure(**changes)


def test_figure_4s_claims_compare_the_same_images_along_the_same_lines():
    offsets = torch.linspace(-1, 1, 5).abs().view(1, 5, 1)
    torch.manual_seed(0)
    image = 1 + torch.rand(1, 1, 100)

    def verdicts(pgd, trades, own, itself):
        slopes = {"PGD-AT": pgd, "TRADES": trades, "PeerAiD": own, peeraid_pictures.NOT_AVERAGED: itself}
        direction = torch.tensor([0.9, 1.0, 1.1]).view(3, 1, 1)
        profiles = {name: [1 + slope * direction * offsets * image] for name, slope in slopes.items()}
        found = landscape.Landscape(tuple(range(5)), profiles, (), {}, 0)
        return [claim.verdict for claim in peeraid_pictures.figure_4_claims(found)]

    assert verdicts(2, 1, 1.0, 3) == [claims.HOLDS, claims.OPEN, claims.FAILS, claims.FAILS]
