"""Landscapes that are known: a quadratic's, and the claims that rest on them."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_spec
from questions import Pretending, each_makes_another_question, has_the_form_of, name_of, the_store_answers
from torch import nn

from rkdkit import attacks, claims, data, executors, losses, runs
from rkdkit.analysis import landscape
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import fig4_loss_landscape as fig4
from rkdkit.measurements import Pass
from rkdkit.references import Images, Snapshot


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
    line = fig4.evenly(5)
    assert line == (-0.75, -0.375, 0.0, 0.375, 0.75)
    for draw in range(3):
        along = [landscape.random_direction(Bowl(), draw)]
        profile = torch.stack(list(landscape.losses_at(Bowl(), along, [(a,) for a in line], quadratic)))
        rise = fig4.mean_rise(profile[None])
        assert rise.tolist() == [pytest.approx([14.5 * sum(a * a for a in line) / 5] * 2)]


def test_the_loss_is_that_of_the_networks_own_adversarial_examples(trained, digits):
    some, attack = digits.test.take(slice(0, 30)), attacks.PGD(0.1, 0.025, 3, "none")
    found = landscape.adversarial_loss(some, attack)(trained)
    x = attack(trained, data.to_float(some.images), some.labels)
    assert torch.allclose(found, losses.cross_entropy(trained(x), some.labels), atol=1e-4)
    assert found.mean() > losses.cross_entropy(trained(data.to_float(some.images)), some.labels).mean()


NETWORKS = {
    "PeerAiD": [Snapshot(tiny_spec("PeerAiD", epochs=1))],
    "PGD-AT": [Snapshot(tiny_spec("PeerAiD", epochs=1), "peer")],
}
"""Two tiny networks around which little is measured."""


def measure(**changes):
    settings = {"n": 10, "n_surface": 5, "points": 3, "directions": 2, "grid": 3, **changes}
    networks, images = settings.pop("networks", NETWORKS), Images("digits")
    return fig4.measure(networks, images, attacks.FGSM(0.1), **settings)


@pytest.fixture(scope="module")
def trained_networks(tmp_path_factory):
    """A store in which the two networks are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        runs.ensure(NETWORKS["PeerAiD"][0].spec)
        yield


def by_hand(snapshot, digits, n, offsets):
    """The loss of the first so many images, where a network is moved along its first directions, by plain torch."""
    network, split = snapshot.load("cpu"), digits.test.take(slice(0, n))
    directions = [landscape.random_direction(network, draw) for draw in range(len(offsets))]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter += sum(offset * along[name] for offset, along in zip(offsets, directions, strict=True))
    x = (split.images.float() / 255).requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(x), split.labels), x)
    with torch.no_grad():
        return F.cross_entropy(network((x + 0.1 * gradient.sign()).clamp(0, 1)), split.labels, reduction="none")


def refuse(*_):
    raise AssertionError("whatever is not kept would need the network")


@pytest.mark.usefixtures("trained_networks")
def test_landscapes_are_kept_and_are_the_losses_of_moved_networks(digits, monkeypatch):
    found = measure(surfaces_of=["PeerAiD"])
    assert found.profiles["PGD-AT"][0].shape == (2, 3, 10)
    assert list(found.surfaces) == ["PeerAiD"]
    middle = found.profiles["PeerAiD"][0][:, 1]
    assert torch.equal(middle[0], middle[1])
    for name, (snapshot,) in NETWORKS.items():
        for i, offset in enumerate((-0.75, 0, 0.75)):
            expected = by_hand(snapshot, digits, 10, [offset])
            assert torch.allclose(found.profiles[name][0][0, i], expected, rtol=1e-3), (name, offset)
    assert not torch.allclose(found.profiles["PeerAiD"][0][0], found.profiles["PeerAiD"][0][1], rtol=1e-3)
    for (i, first), (j, second) in [((0, -0.75), (2, 0.75)), ((2, 0.75), (1, 0)), ((1, 0), (0, -0.75))]:
        expected = by_hand(NETWORKS["PeerAiD"][0], digits, 5, [first, second]).mean()
        assert found.surfaces["PeerAiD"][i, j] == pytest.approx(float(expected), rel=1e-3)
    table = found.table()
    assert table.part.value_counts().to_dict() == {"surface": 9, "profile": 6, "mean rise": 2}
    assert set(table.seeds) == {1}
    monkeypatch.setattr(Snapshot, "read", refuse)
    again = measure(surfaces_of=["PeerAiD"])
    assert torch.equal(again.profiles["PGD-AT"][0], found.profiles["PGD-AT"][0])
    assert again.table().equals(table)
    json.dumps([claim.to_json() for claim in [_claim(found)]], allow_nan=False)


@pytest.mark.usefixtures("trained_networks")
def test_losses_are_kept_by_all_that_they_depend_on(digits):
    (student,), (peer,) = NETWORKS.values()
    attack = attacks.FGSM(0.1)
    task = landscape.LossesAround(
        images=Images("digits", n=6), snapshot=student, draws=(0, 1), places=((0.0, 0.5), (0.25, 0.0)), attack=attack
    )
    # what the kit has always asked: answers of older stores are found by it
    assert task.question(name_of, digits.test.take(slice(0, 6))) == {
        "engine": 2,
        "question": "losses along random directions",
        "network": "student 1 of PeerAiD 0",
        "draws": [0, 1],
        "places": [[0.0, 0.5], [0.25, 0.0]],
        "attack": attack.identity(),
        "data": digits.test.take(slice(0, 6)).digest,
    }
    places = ((0.0, 0.5), (0.25, 0.5))
    each_makes_another_question(task, snapshot=peer, draws=(1, 0), places=places, attack=attacks.FGSM(0.2))
    (answer,) = runs.gather([task])
    assert torch.equal(the_store_answers(task), answer)
    has_the_form_of(task.placeholder(), answer)
    assert task.passes() == [Pass(student, attack, student, times=2)]


def test_lines_and_planes_are_asked_for_all_at_once_and_pretended_answers_are_a_table():
    with executors.using(Pretending()) as pretending:
        found = measure()
        assert set(found.table().loss) == {0.0}
    assert pretending.gathers == [2 * 2 + 2]
    assert sum(task.passes()[0].times * len(task.images) for task in pretending.noted) == 4 * 3 * 10 + 2 * 9 * 5


def test_few_test_images_get_fewer_places():
    assert fig4.sizes(200) == {"n": 25, "n_surface": 12, "points": 5, "grid": 3, "directions": 3}
    assert fig4.sizes(497) == {"n": 62, "n_surface": 31, "points": 31, "grid": 15, "directions": 3}
    with pytest.raises(ValueError, match="n_test must be at least 32"):
        fig4.sizes(31)


def _claim(found):
    return claims.Claim(
        "", "", claims.Quantity("", found.rise("PGD-AT")), claims.Quantity("", found.rise("PeerAiD")),
        found.rise_minus("PGD-AT", "PeerAiD"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"points": 4}, ValueError, "points must be odd"),
        ({"grid": 4}, ValueError, "grid must be odd"),
        ({"n": 1000}, ValueError, "n must be between 2 and 497"),
        ({"surfaces_of": ["TRADES"]}, UnknownNameError, "Unknown network 'TRADES'"),
        ({"networks": {}}, ValueError, "one architecture only"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        measure(**changes)


def test_figure_4s_claims_compare_the_same_images_along_the_same_lines():
    offsets = torch.linspace(-1, 1, 5).abs().view(1, 5, 1)
    torch.manual_seed(0)
    image = 1 + torch.rand(1, 1, 100)

    def verdicts(pgd, trades, own, itself):
        slopes = {"PGD-AT": pgd, "TRADES": trades, "PeerAiD": own, fig4.NOT_AVERAGED: itself}
        direction = torch.tensor([0.9, 1.0, 1.1]).view(3, 1, 1)
        profiles = {name: [1 + slope * direction * offsets * image] for name, slope in slopes.items()}
        found = fig4.Landscape(tuple(range(5)), profiles, (), {}, 0)
        return [claim.verdict for claim in fig4.check_claims(found)]

    assert verdicts(2, 1, 1.0, 3) == [claims.HOLDS, claims.OPEN, claims.FAILS, claims.FAILS]
