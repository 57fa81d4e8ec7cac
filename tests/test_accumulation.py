"""A batch in parts is the batch where no layer looks at the whole of it, and is refused where one does."""

import threading
from functools import partial

import pytest
import torch
from conftest import tiny_spec
from test_group import by_threads
from torch import nn

from rkdkit import accumulation, attacks, data, methods, models, runtime, splits
from rkdkit.determinism import PartOfDraws, exact_arithmetic
from rkdkit.group.shares import ALONE
from rkdkit.training import Training

CPU = torch.device("cpu")


class Grouped(models.Classifier):
    """A network whose norm is of each image alone."""

    def __init__(self, num_classes, mean, std, norm):
        super().__init__(4, num_classes, mean, std)
        self.stem = nn.Sequential(nn.Conv2d(len(mean), 4, 3, 1, 1, bias=False), norm(4))

    def trunk(self, x):
        return self.stem(x).relu().mean((2, 3))


class Centred(nn.Module):
    """A layer of a user's own, of which torch does not know that it looks at the batch."""

    def __init__(self, _):
        super().__init__()

    def forward(self, x):
        return x - x.mean(0)


@pytest.fixture
def in_float64(monkeypatch):
    def exact(images):
        return images.double() / 255

    for module in (data, splits):
        monkeypatch.setattr(module, "to_float", exact)


def of(norm, monkeypatch):
    monkeypatch.setitem(models.ARCHITECTURES, "resnet18", lambda _, **shape: Grouped(**shape, norm=norm))


def started(digits, method, size, dtype=torch.float64, shares=ALONE, **changes):
    chosen = {"n_train": 40, "n_val": 0, "batch_size": 16, "augmentation": "crop-flip", "swa_start": 1}
    spec = tiny_spec(method, **{**chosen, **changes})
    made = [models.build("resnet18/16", 10, [0.5], [0.5], seed=seed).to(dtype) for seed in range(8)]
    teachers = [made.pop().eval() for _ in spec.teachers]
    networks = {role: made.pop() for role in methods.get(method).roles}
    with runtime.using(runtime.Settings("off", micro_batch=size)):
        return Training(spec, digits, CPU, teachers, networks=networks, shares=shares)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("method", methods.METHODS)
def test_a_batch_in_parts_trains_the_same_weights(digits, monkeypatch, method):
    of(partial(nn.GroupNorm, 2), monkeypatch)
    whole, sevens, ones = (started(digits, method, size) for size in (None, 7, 1))
    for _ in range(2):
        losses = [training.run_epoch().loss for training in (whole, sevens, ones)]
        assert losses == pytest.approx(losses[:1] * 3, abs=1e-6), "kept in float32"
    assert not torch.equal(
        whole.state()["student.head.weight"], started(digits, method, None).state()["student.head.weight"]
    )
    for parts in (sevens, ones):
        state = parts.state()
        for name, value in whole.state().items():
            assert torch.allclose(state[name], value, rtol=0, atol=1e-12), name


@pytest.mark.usefixtures("in_float64")
def test_no_more_than_a_part_goes_through_a_network_at_once(digits, monkeypatch):
    of(partial(nn.GroupNorm, 2), monkeypatch)
    training, seen = started(digits, "PeerAiD", 7), []
    for network in training.networks.values():
        network.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    training.run_epoch()
    assert set(seen) == {5, 6}


@pytest.mark.parametrize("role", ["student", "peer"])
@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (nn.BatchNorm2d, r"layer 'stem.1' \(BatchNorm2d\).*torchrun.*smaller network.*bfloat16"),
        (Centred, "some layer answers by the statistics of the batch"),
    ],
)
def test_a_network_that_looks_at_the_batch_is_refused(digits, monkeypatch, norm, message, role):
    of(norm, monkeypatch)
    layers = {"student": nn.Identity(), "peer": nn.Identity()}
    made = {r: models.build("resnet18/16", 10, [0.5], [0.5], seed=1) for r in layers}
    for r in layers:
        if r != role:
            made[r].stem[1] = nn.GroupNorm(2, 4)
    spec = tiny_spec("PeerAiD", batch_size=16, n_train=40)
    before = {name: value.clone() for name, value in made[role].state_dict().items()}
    with (
        runtime.using(runtime.Settings("off", micro_batch=15)),
        pytest.raises(accumulation.BatchStatisticsError, match=f"of the {role}, {message}"),
    ):
        Training(spec, digits, CPU, networks=made)
    assert all(torch.equal(before[name], value) for name, value in made[role].state_dict().items())
    with runtime.using(runtime.Settings("off", micro_batch=16)):
        Training(spec, digits, CPU, networks=made)


def test_the_kits_own_networks_are_refused_but_for_those_without_batch_norm():
    refused = []
    for name in models.ARCHITECTURES:
        network = models.build(f"{name}/16", 10, [0.5] * 3, [0.5] * 3)
        try:
            assert accumulation.check(1, 2, {"student": network}, torch.rand(2, 3, 16, 16)) == 1
        except accumulation.BatchStatisticsError:
            refused.append(name)
    assert refused == [name for name in models.ARCHITECTURES if not name.startswith("mlp-")]


def test_parts_get_the_draws_of_the_whole_batch():
    images, whole = torch.rand(10, 3, 5, 5), torch.Generator().manual_seed(3)
    attack = attacks.PGD(0.1, 0.1, 0, start="gaussian")
    expected = [attack._start(images, whole) for _ in range(2)]
    for size, before, after in ((3, 0, 0), (10, 2, 1), (1, 4, 0)):
        mine = images[before : 10 - after]
        draws, found = PartOfDraws(), []
        draws.manual_seed(3)
        draws.before, draws.after = before, after

        def loss_of(part, generator, found=found):
            found.append([attack._start(part, generator) for _ in range(2)])
            return part.sum().requires_grad_() * 0, None

        accumulation.in_parts(loss_of, [mine], draws, size, 10)
        for first, other in zip(expected, zip(*found, strict=True), strict=True):
            assert torch.equal(torch.cat(other), first[before : 10 - after])
        assert torch.equal(draws.get_state(), whole.get_state())


def test_the_variable_of_the_environment(monkeypatch):
    assert runtime.current().micro_batch is None
    monkeypatch.setenv("RKDKIT_MICRO_BATCH", "32")
    assert runtime.current().micro_batch == 32
    monkeypatch.setenv("RKDKIT_MICRO_BATCH", "0")
    with pytest.raises(ValueError, match="RKDKIT_MICRO_BATCH must be a whole number of at least 1"):
        runtime.current()


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("method", ["PGD-AT", "Free-AT", "PeerAiD", "ARD+"])
def test_parts_of_the_shares_of_several_processes_are_the_batch(digits, monkeypatch, method):
    of(partial(nn.GroupNorm, 2), monkeypatch)

    seeding = threading.Lock()  # all threads draw fresh weights from torch's one generator

    def trained(shares):
        with seeding:
            training = started(digits, method, None if shares is ALONE else 3, shares=shares, batch_size=19)
        for _ in range(2):
            training.run_epoch()
        return training.state()

    whole = trained(ALONE)
    with exact_arithmetic():  # its settings are the process's: threads that leave it overlapping would not restore them
        states = by_threads(3, trained)
    for state in states:
        assert state.keys() == whole.keys()
        for name, value in whole.items():
            assert torch.allclose(state[name], value, rtol=0, atol=1e-12), name
