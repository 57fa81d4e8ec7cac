"""What is measured of each image: entropies and losses that are known."""

import math

import pytest
import torch
from conftest import tiny_spec
from given import Given
from torch import nn

from rkdkit import attacks, claims, evaluation, executors, exhibits, runs
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import fig11_entropy as fig11
from rkdkit.references import Images, Snapshot
from rkdkit.spec import Teacher
from rkdkit.store import Store


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


@pytest.mark.usefixtures("store")
def test_a_snapshots_numbers_are_measured_once(monkeypatch):
    snapshot, images = runs.ensure(tiny_spec("Natural")).snapshot(), Images("digits", n=20)
    found = {quantity: runs.per_image(quantity, snapshot, images) for quantity in evaluation.QUANTITIES}
    split = images.split()
    for quantity, values in found.items():
        assert torch.equal(values, evaluation.per_image(quantity, snapshot.load(), split.images, split.labels))

    def read(*_):
        raise TypeError("a network is needed")

    monkeypatch.setattr(Snapshot, "read", read)
    for quantity, values in found.items():
        assert torch.equal(values, runs.per_image(quantity, snapshot, images))
    with pytest.raises(TypeError, match="a network is needed"):
        runs.per_image("entropy", snapshot, images, attacks.FGSM(0.1))


def made_up(**last):
    """Networks that start near guessing and end at a mean entropy."""
    noise = torch.linspace(-0.05, 0.05, 100)
    return fig11.EntropyCurves({name: {1: [noise + 2.2], 2: [noise + nats]} for name, nats in last.items()}, 10)


def test_figure_5s_claims_compare_students_with_their_own_teachers():
    def verdicts(**nats):
        return [claim.verdict for claim in fig11.check_claims(made_up(**nats))]

    curves = {"Natural": 0.1, "PGD-AT": 0.4, "AKD-Std": 0.2, "AKD-AT": 0.3}
    assert verdicts(**curves) == [claims.HOLDS, claims.FAILS]
    assert verdicts(**{**curves, "AKD-AT": 0.4, "AKD-Std": 0.05}) == [claims.FAILS, claims.OPEN]


def test_the_curves_are_drawn_in_nats():
    table = made_up(Natural=0.5).table()
    assert table.entropy_nats.tolist() == pytest.approx([2.2, 0.5])
    assert list(table.epoch) == [1, 2]


@pytest.mark.usefixtures("store")
def test_entropies_are_those_of_the_answers_at_every_snapshot():
    run, images = runs.ensure(tiny_spec("Natural")), Images("digits", "train", 30)
    curves = fig11.measure({"Natural": [run]}, images)
    assert list(curves.nats["Natural"]) == [1, 2]
    for epoch in (1, 2):
        with torch.no_grad():
            answers = run.snapshot(epoch=epoch).load("cpu")(images.split().images.float() / 255).double().softmax(1)
        entropy = -(answers * answers.log()).sum(1).mean()
        assert curves.at("Natural", epoch).value == pytest.approx(float(entropy), abs=1e-5)
    assert curves.at("Natural") == curves.at("Natural", 2)
    assert curves.num_classes == 10
    with pytest.raises(ValueError, match="at least two images"):
        fig11.measure({"Natural": [run]}, images.first(1))


def test_every_network_of_every_seed_is_asked_at_every_epoch_in_one_go(tmp_path):
    """The entropy given to a task says which network, epoch and seed it is of."""

    def answer(task):
        assert (task.quantity, task.attack, task.images) == ("entropy", None, asked.train_images)
        spec, epoch = task.snapshot.spec, task.snapshot.epoch
        taught_by = spec.teachers[0].run.method if spec.teachers else ""
        network = {"Natural": 0.1, "PGD-AT": 0.2, "AKDNatural": 0.3, "AKDPGD-AT": 0.4}[spec.method + taught_by]
        return torch.full((len(task.images),), network + epoch + 10 * spec.seed)

    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        asked = exhibits.setup("fig11_entropy", "smoke", n_seeds=2)
        trained = fig11.train(asked)
        executor.gathered.clear()
        curves = fig11.measure(trained, asked.train_images)
    assert len(executor.gathered) == 1
    for name, network in {"Natural": 0.1, "PGD-AT": 0.2, "AKD-Std": 0.3, "AKD-AT": 0.4}.items():
        assert list(curves.nats[name]) == [1, 2, 3]
        for epoch, seeds in curves.nats[name].items():
            assert [float(of_seed[0]) for of_seed in seeds] == pytest.approx([network + epoch, network + epoch + 10])
    assert len(asked.train_images) == 256
    assert asked.train_images.part == "train"


def test_each_teacher_teaches_as_it_is_after_its_last_epoch(tmp_path):
    with executors.using(Given(Store(tmp_path), None)):
        asked = exhibits.setup("fig11_entropy", "smoke", teacher="resnet18/8")
        trained = fig11.train(asked)
    for student, method in {"AKD-Std": "Natural", "AKD-AT": "PGD-AT"}.items():
        (run,), (teacher,) = trained[student], trained[method]
        assert (teacher.spec.method, teacher.spec.student) == (method, "resnet18/8")
        assert run.spec == asked.profile.spec("AKD", teachers=(Teacher(run=teacher.spec, epoch=3),))


def test_what_the_figure_does_not_use_is_refused():
    with pytest.raises(UnknownNameError, match="This exhibit does not use n_test"):
        exhibits.setup("fig11_entropy", "smoke", n_test=10)
    assert exhibits.setup("fig11_entropy", "smoke").profile.select_on == "last"


def test_no_interval_of_a_mean_entropy_goes_beyond_what_entropies_can_be():
    seeds = [torch.full((30,), value) for value in (0.1, 2.2, 0.3)]
    curves = fig11.EntropyCurves({"a": {1: seeds}, "b": {1: seeds[::-1]}}, 10)
    found = curves.at("a")
    assert (found.low, found.high) == (0, pytest.approx(math.log(10)))
    swings = [torch.full((30,), value) for value in (0.1, 2.2, 0.1)]
    apart = fig11.EntropyCurves({"a": {1: swings}, "b": {1: [2.3 - each for each in swings]}}, 10).minus("a", "b")
    assert (apart.low, apart.high) == pytest.approx((-math.log(10), math.log(10)))
