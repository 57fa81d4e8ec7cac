"""AutoAttack and Square through the kit against the package called by hand."""

import json
import random

import numpy as np
import pyautoattack
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rkdkit import attacks, autoattack, data, evaluation

EPS, BATCH = 0.1, 4


@pytest.fixture(scope="module")
def quick_network(digits):
    """A network that answers fast: AutoAttack asks it some ten thousand times."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(100):
        optimiser.zero_grad()
        F.cross_entropy(network(data.to_float(digits.train.images)), digits.train.labels).backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def some_digits(digits, quick_network):
    """Twenty images, two of them misclassified without any attack."""
    images, labels = data.to_float(digits.test.images), digits.test.labels
    right = evaluation.correct_predictions([quick_network], images, labels)[0]
    chosen = torch.cat([(~right).nonzero()[:2, 0], right.nonzero()[:18, 0]]).sort().values
    return images[chosen], labels[chosen]


def by_hand(network, part, images, labels):
    """Which images withstand the package's own evaluation."""
    adversarial, _ = part.run_standard_evaluation(images, labels, batch_size=BATCH)
    with torch.no_grad():
        return network(adversarial).argmax(1) == labels


@pytest.fixture(scope="module")
def verdicts(quick_network, some_digits):
    return by_hand(quick_network, pyautoattack.AutoAttack(quick_network, eps=EPS, seed=3), *some_digits)


def test_autoattack_says_the_same_of_each_image_as_the_package_by_hand(quick_network, some_digits, verdicts):
    attack, kept = autoattack.AutoAttack(EPS, seed=3, batch_size=BATCH), []
    assert torch.equal(attack.correct(quick_network, *some_digits, on_progress=kept.append), verdicts)
    assert BATCH < verdicts.sum() <= 15, "an attack that breaks all or nothing tells nothing apart"
    assert kept[4].count(-1) == 2, "the natural images come first, five batches of them"


def test_an_evaluation_killed_twice_goes_on_to_the_same_verdicts(quick_network, some_digits, verdicts, monkeypatch):
    attack, kept = autoattack.AutoAttack(EPS, seed=3, batch_size=BATCH), ["null"]

    def run():
        def keep(now):
            kept.append(json.dumps(now))

        return attack.correct(quick_network, *some_digits, json.loads(kept[-1]), keep)

    for part, stage in ((pyautoattack.autopgd_base.APGDAttack, 1), (pyautoattack.square.SquareAttack, 4)):
        asked = watch(part, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            run()
        assert {*json.loads(kept[-1])} == {-1, stage, stage + 1}, "not killed in the midst of a stage"
    assert torch.equal(run(), verdicts)
    images = torch.cat(asked)
    assert len(images.unique(dim=0)) == len(images), "an image was attacked twice by one part"


def watch(part, monkeypatch):
    """Note what a part of the package is handed; it is killed once, after the first batch."""
    asked, deaths, perturb = [], [], part.perturb

    def watched(self, x, y):
        if asked and not deaths:
            deaths.append(part)
            raise KeyboardInterrupt
        asked.append(x)
        return perturb(self, x, y)

    monkeypatch.setattr(part, "perturb", watched)
    return asked


def test_a_finished_evaluation_is_not_run_again(quick_network, some_digits, monkeypatch):
    finished = [5] * 10 + [-1] * 10
    monkeypatch.setattr(pyautoattack.autopgd_base.APGDAttack, "perturb", None)
    correct = autoattack.AutoAttack(EPS).correct(quick_network, *some_digits, finished)
    assert correct.tolist() == [True] * 10 + [False] * 10


def test_square_says_the_same_as_the_package_by_hand(trained, digits):
    images, labels = data.to_float(digits.test.images[:18]), digits.test.labels[:18]
    package = pyautoattack.AutoAttack(trained, eps=EPS, seed=1, version="custom", attacks=["square"])
    package.square.n_queries = 60
    attack = autoattack.Square(EPS, 60, seed=1, batch_size=BATCH)
    theirs = by_hand(trained, package, images, labels)
    adversarial = attack(trained, images, labels)
    right = evaluation.correct_predictions([trained], adversarial, labels)[0]
    assert torch.equal(attack.correct(trained, images, labels), theirs)
    assert torch.equal(right, theirs)
    # a network may be judged by what was made against another, in the memory format evaluation hands over
    assert torch.equal(evaluation.correct_predictions([trained], images, labels, attack, trained)[0], theirs)
    assert (adversarial - images).abs().max() <= EPS + 1e-6
    assert torch.equal(adversarial[theirs], images[theirs])


@pytest.mark.parametrize(("channels", "n", "eps"), [(1, 1, 0.0), (3, 1, 0.2), (3, 4, 0.05)])
def test_examples_stay_in_the_ball_and_in_range(channels, n, eps):
    torch.manual_seed(0)
    images = torch.rand(n, channels, 6, 6).contiguous(memory_format=torch.channels_last)
    network = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    with torch.no_grad():
        labels = network.eval()(images).argmax(1)
    before = images.clone()
    network.train()
    adversarial = autoattack.Square(eps, 20)(network, images, labels)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert (adversarial.shape, adversarial.dtype, adversarial.requires_grad) == (images.shape, torch.float32, False)
    assert torch.equal(images, before)
    assert (adversarial - images).abs().max() <= eps + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


def test_autoattack_targets_the_classes_there_are(monkeypatch):
    monkeypatch.setattr(pyautoattack.square.SquareAttack, "perturb", lambda _, x, y: x)  # noqa: ARG005  (slow, no target)
    torch.manual_seed(1)
    images = torch.rand(6, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()
    with torch.no_grad():
        labels = network(images).argmax(1)
    attack = autoattack.AutoAttack(0.03)
    adversarial = attack(network, images, labels)
    right = evaluation.correct_predictions([network], adversarial, labels)[0]
    assert 0 < right.sum() < 6
    assert (adversarial - images).abs().max() <= 0.03 + 1e-6
    package = pyautoattack.AutoAttack(network, eps=0.03, seed=0)
    package.fab.n_target_classes = package.apgd_targeted.n_target_classes = 3
    assert torch.equal(right, by_hand(network, package, images.contiguous(), labels))


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_are_answered_with_what_to_use(classes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, classes))
    images, labels = torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"at least 4 classes, and there are {classes}. Use Square, or PGD"):
        autoattack.AutoAttack(0.1)(network, images, labels)


class Deaf(nn.Module):
    """Its answer does not depend on the image, and its gradient is zero."""

    def forward(self, x):
        return torch.tensor([1.0, 0.5, 0.2, 0.1]) + 0 * x.flatten(1)[:, :4]


def test_the_package_prints_nothing_and_leaves_the_global_generators_as_they_were(capfd, caplog, recwarn):
    images, labels = torch.rand(3, 1, 4, 4), torch.tensor([0, 0, 1])
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    assert autoattack.AutoAttack(0.1).correct(Deaf(), images, labels).tolist() == [True, True, False]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1][1])
    assert random.getstate() == before[2]
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not recwarn.list


def test_parameters_name_the_implementation():
    parameters = autoattack.AutoAttack(8 / 255, seed=2).parameters()
    assert parameters == {"eps": 8 / 255, "seed": 2, "batch_size": 250, "implementation": "pyautoattack 0.2.0"}
    assert autoattack.Square(0.1).parameters()["queries"] == 5000
    assert str(autoattack.AutoAttack(0.1)) == "AutoAttack"
    assert isinstance(autoattack.Square(0.1), attacks.Attack)


def test_squares_name_says_its_queries_but_stored_answers_are_known_by_the_same_key_as_ever():
    assert [str(autoattack.Square(0.1, *queries)) for queries in ((), (500,))] == ["Square-5000", "Square-500"]
    known_by = {"name": "Square", "eps": 0.1, "seed": 0, "batch_size": 250, "queries": 500}
    assert list(autoattack.Square(0.1, 500).identity().items()) == [
        *known_by.items(),
        ("implementation", "pyautoattack 0.2.0"),
    ]


def broken():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.constant_(network[1].bias, float("nan"))
    return network


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda n, x, y: autoattack.Square(0.1).correct(n.double(), x.double(), y),
            "Square-5000 works on float32",
        ),
        (lambda n, x, y: autoattack.Square(0.1).correct(n, x * 2, y), r"must lie in \[0, 1\]"),
        (lambda n, x, y: autoattack.Square(0.1).correct(n, x, y[:1]), r"int64 of shape \(2,\)"),
        (lambda n, x, y: autoattack.Square(0.1).correct(n, x, y, [0]), "progress does not belong to these images"),
        (lambda n, x, y: autoattack.Square(0.1).correct(n, x, y, [3, 0]), "progress does not belong to these images"),
        (lambda _, x, y: autoattack.Square(0.1).correct(broken(), x, y), "NaN or infinite logits"),
        (lambda *_: autoattack.Square(0.1, -1), "queries must be at least 0"),
        (lambda *_: autoattack.AutoAttack(0.1, batch_size=0), "batch_size must be at least 1"),
        (lambda *_: autoattack.AutoAttack(-0.1), "eps must be at least 0"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=message):
        call(network, torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64))
