"""What is measured of each image: entropies and losses that are known."""

import itertools
import math

import pytest
import torch
from conftest import tiny_spec
from torch import nn

from rkdkit import attacks, claims, evaluation, runs
from rkdkit.analysis import entropy
from rkdkit.checks import UnknownNameError
from rkdkit.papers import rkd_entropy


class Sure(nn.Module):
    """Class 0 of four, the surer the lighter an image is: logits (10 x, 0, 0, 0) of its mean pixel x."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return torch.eye(4)[0] * self.scale * x.mean((1, 2, 3))[:, None]


IMAGES = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
LABELS = torch.tensor([0, 0, 1])


def test_entropy_and_cross_entropy_where_they_are_known():
    entropies = evaluation.per_image("entropy", Sure(), IMAGES, LABELS)
    losses = evaluation.per_image("cross entropy", Sure(), IMAGES, LABELS)
    p = [math.exp(z) / (math.exp(z) + 3) for z in (0, 5, 10)]
    known = [-q * math.log(q) - (1 - q) * math.log((1 - q) / 3) for q in p]
    assert entropies.tolist() == pytest.approx(known, abs=1e-5)
    assert known[0] == pytest.approx(math.log(4))
    assert losses.tolist() == pytest.approx([-math.log(p[0]), -math.log(p[1]), -math.log((1 - p[2]) / 3)], rel=1e-4)


def test_under_attack_the_loss_is_that_of_the_attacked_image():
    attacked = evaluation.per_image("cross entropy", Sure(), IMAGES, LABELS, attacks.FGSM(0.5))
    there = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)  # FGSM darkens class 0
    assert torch.equal(attacked, evaluation.per_image("cross entropy", Sure(), there, LABELS))


def test_an_unknown_quantity_is_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown quantity 'entropie'. Did you mean 'entropy'"):
        evaluation.per_image("entropie", Sure(), IMAGES, LABELS)


def test_a_snapshots_numbers_are_measured_once(store, digits, monkeypatch):
    snapshot, split = runs.ensure(tiny_spec("Natural"), store).snapshot(), digits.test.take(slice(0, 20))
    found = {quantity: runs.per_image(quantity, snapshot, split, store=store) for quantity in evaluation.QUANTITIES}
    for quantity, values in found.items():
        assert torch.equal(values, evaluation.per_image(quantity, snapshot.load(), split.images, split.labels))
    monkeypatch.setattr(runs.Snapshot, "load", None)
    for quantity, values in found.items():
        assert torch.equal(values, runs.per_image(quantity, snapshot, split, store=store))
    with pytest.raises(TypeError):
        runs.per_image("entropy", snapshot, split, attacks.FGSM(0.1), store=store)


def made_up(**last):
    """Networks that start near guessing and end at a mean entropy."""
    noise = torch.linspace(-0.05, 0.05, 100)
    return entropy.EntropyCurves({name: {1: [noise + 2.2], 2: [noise + nats]} for name, nats in last.items()}, 10)


def test_figure_5s_claims_compare_students_with_their_own_teachers():
    def verdicts(**nats):
        return [claim.verdict for claim in rkd_entropy.figure_5_claims(made_up(**nats))]

    curves = {"Natural": 0.1, "PGD-AT": 0.4, "AKD-Std": 0.2, "AKD-AT": 0.3}
    assert verdicts(**curves) == [claims.HOLDS, claims.FAILS]
    assert verdicts(**{**curves, "AKD-AT": 0.4, "AKD-Std": 0.05}) == [claims.FAILS, claims.OPEN]


def test_the_curves_are_drawn_in_nats():
    table = made_up(Natural=0.5).table()
    assert table.entropy_nats.tolist() == pytest.approx([2.2, 0.5])
    assert list(table.epoch) == [1, 2]


def test_entropies_are_measured_at_every_snapshot(store, digits):
    some = digits.train.take(slice(0, 30))
    specs = {name: tiny_spec("Natural", seed=seed, n_train=1024) for seed, name in enumerate(("a", "b"))}
    networks = {name: [runs.ensure(spec, store)] for name, spec in specs.items()}
    curves = entropy.entropy_curves(networks, some, 10, store=store)
    known = []
    for name, (run,) in networks.items():
        assert list(curves.nats[name]) == [1, 2]
        for epoch in (1, 2):
            with torch.no_grad():
                p = run.snapshot(epoch=epoch).load("cpu")(some.images / 255).double().softmax(1)
            expected = -(p * p.log()).sum(1)
            assert curves.nats[name][epoch][0].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
            assert curves.at(name, epoch).value == pytest.approx(float(expected.mean()), abs=1e-4)
            known.append(expected)
        assert curves.at(name) == curves.at(name, 2)
    for one, another in itertools.combinations(known, 2):
        assert not torch.allclose(one, another, atol=0.01), "or one could stand for the other"
    run = networks["a"][0]
    with pytest.raises(ValueError, match="two images at least"):
        entropy.entropy_curves({"Natural": [run]}, some.take(slice(0, 1)), 10, store=store)
