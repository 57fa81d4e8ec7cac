"""The loop: what a step costs, what it does to the weights, and that it stops on nonsense."""

import copy
import math

import pytest
import torch
from conftest import tiny_spec
from torch import nn

from rkdkit import data, methods, models
from rkdkit.training import AVERAGED, DivergedError, Training

CPU = torch.device("cpu")


def record_passes(training):
    """Note every forward pass: (role, in train mode, asks for gradients)."""
    passes = []
    for role, network in training.networks.items():
        network.register_forward_hook(
            lambda module, _, output, role=role: passes.append((role, module.training, output.requires_grad))
        )
    return passes


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_peeraid_step_makes_k_plus_4_forward_passes(digits, steps):
    training = Training(tiny_spec("PeerAiD", n_train=64, attack_steps=steps), digits, CPU)
    passes = record_passes(training)
    training.run_epoch()
    attack, update = passes[: steps + 1], passes[steps + 1 :]
    assert attack == [("peer", False, False)] + [("student", False, True)] * steps
    assert sorted(update) == [("peer", True, True), ("student", True, True), ("student", True, True)]


@pytest.mark.parametrize(("method", "beyond_the_attack"), [("Natural", 1), ("PGD-AT", 1), ("TRADES", 3)])
def test_no_method_makes_a_forward_pass_twice(digits, method, beyond_the_attack):
    training = Training(tiny_spec(method, n_train=64, attack_steps=5), digits, CPU)
    passes = record_passes(training)
    training.run_epoch()
    assert len(passes) == beyond_the_attack + (0 if method == "Natural" else 5)


def test_a_shared_forward_pass_is_done_once():
    calls = []
    network = nn.Linear(4, 2)
    network.register_forward_hook(lambda *_: calls.append(1))
    logits = methods.Logits({"student": network}, {"x": torch.zeros(3, 4)})
    assert logits["S(x)"] is logits["S(x)"]
    assert not logits["S(x).detach"].requires_grad
    assert len(calls) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", methods.METHODS)
def test_every_methods_loss_falls(digits, method, precision):
    spec = tiny_spec(method, n_train=256, epochs=5, eps=0.05, step_size=0.025, precision=precision)
    training = Training(spec, digits, CPU)
    before = {r: copy.deepcopy(dict(w)) for r, w in training.weights().items()}
    losses = [training.run_epoch().loss for _ in range(spec.epochs)]
    assert losses[-1] < 0.8 * losses[0]
    for role, weights in training.weights().items():
        assert all(w.dtype in (torch.float32, torch.int64) for w in weights.values())
        assert not torch.equal(weights["head.weight"], before[role]["head.weight"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, [0.1] * 4),
        ({"schedule": "multistep", "milestones": (1, 3)}, [0.1, 0.01, 0.01, 0.001]),
        ({"schedule": "exponential", "gamma": 0.9}, [0.1, 0.09, 0.081, 0.0729]),
    ],
)
def test_schedules_by_epoch(digits, changes, expected):
    training = Training(tiny_spec("Natural", n_train=64, lr=0.1, epochs=4, **changes), digits, CPU)
    assert [training.run_epoch().lr for _ in range(4)] == pytest.approx(expected)


def test_onecycle_follows_its_formula_step_by_step(digits):
    spec = tiny_spec("Natural", n_train=320, lr=0.2, epochs=4, schedule="onecycle")  # 20 steps
    training = Training(spec, digits, CPU)
    group = training._optimiser.param_groups[0]
    seen = [(group["lr"], group["momentum"])]
    for _ in range(4):
        training.run_epoch(lambda: seen.append((group["lr"], group["momentum"])))
    peak = 0.3 * 20 - 1

    def between(a, b, share):
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    for step, (lr, momentum) in enumerate(seen[:20]):
        rising, share = step <= peak, step / peak if step <= peak else (step - peak) / (19 - peak)
        expected = between(0.2 / 25, 0.2, share) if rising else between(0.2, 0.2 / 25 / 1e4, share)
        assert lr == pytest.approx(expected, rel=1e-6)
        assert momentum == pytest.approx(between(0.95, 0.85, share) if rising else between(0.85, 0.95, share))


def test_one_step_is_sgd_on_the_methods_loss(digits):
    spec = tiny_spec("Natural", n_train=64, lr=0.1, weight_decay=0.01, epochs=1)
    training = Training(spec, digits, CPU)
    reference = copy.deepcopy(training.networks["student"]).train()
    images, labels = digits.split_validation(64, 32)[0].images, digits.split_validation(64, 32)[0].labels
    nn.functional.cross_entropy(reference(images.float() / 255), labels).backward()
    training.run_epoch()
    for ours, theirs in zip(training.networks["student"].parameters(), reference.parameters(), strict=True):
        expected = theirs - 0.1 * (theirs.grad + 0.01 * theirs)
        assert torch.allclose(ours, expected, atol=2e-5)


def test_swa_averages_the_weights_from_its_start_and_reestimates_batch_norm(digits):
    spec = tiny_spec("PeerAiD", epochs=4, swa_start=1)
    training = Training(spec, digits, CPU)
    seen = []
    for epoch in range(1, 5):
        training.run_epoch()
        assert (AVERAGED in training.weights()) == (epoch > 1)
        if epoch > 1:
            seen.append([p.detach().clone() for p in training.networks["student"].parameters()])
    averaged = training.weights()[AVERAGED]
    network = models.build("resnet18/16", 10, *digits.channel_statistics)
    network.load_state_dict(averaged)
    for p, *history in zip(network.parameters(), *seen, strict=True):
        assert torch.allclose(p, torch.stack(history).mean(0), atol=1e-6)
    # the first layer's statistics are those of its input over the training images, not the student's own
    train = digits.split_validation(128, 32)[0]
    x = (data.to_float(train.images) - network.mean) / network.std
    convolution, norm = network.stem
    assert torch.allclose(norm.running_mean, convolution(x).mean((0, 2, 3)), atol=1e-4)
    assert int(norm.num_batches_tracked) == training.batches_per_epoch
    student = training.networks["student"]
    assert not torch.allclose(norm.running_mean, student.stem[1].running_mean, atol=1e-4)


@pytest.mark.parametrize("lr", [1e18, 1e38])
def test_a_loss_that_is_no_number_stops_training_and_says_where(digits, lr):
    training = Training(tiny_spec("Natural", n_train=256, lr=lr, batch_size=64), digits, CPU)
    with pytest.raises(DivergedError, match=r"at step \d of 4 in epoch 1.*Nothing of that epoch was kept"):
        training.run_epoch()
    assert training.epoch == 0


def test_weights_that_are_no_number_after_the_last_step_are_noticed(digits):
    training = Training(tiny_spec("Natural", n_train=64, batch_size=64, lr=1e38, weight_decay=1e6), digits, CPU)
    with pytest.raises(DivergedError, match="weights became NaN at step 1 of 1 in epoch 1"):
        training.run_epoch()


def test_the_same_specification_still_trains_to_the_same_network(digits):
    """Fails when a change alters what a specification trains to: then raise spec.ENGINE and pin anew."""
    pinned = {"attack_steps": 3, "augmentation": "crop-flip"}
    one_step = Training(tiny_spec("PeerAiD", n_train=64, epochs=1, **pinned), digits, CPU)
    assert one_step.run_epoch().loss == pytest.approx(2.618236, rel=1e-4)
    norms = {r: sum(p.double().norm().item() for p in n.parameters()) for r, n in one_step.networks.items()}
    assert norms == pytest.approx({"student": 116.390891, "peer": 116.732309}, rel=1e-6)
    # rounding, which differs between machines and numbers of threads, grows with every step
    longer = Training(tiny_spec("PeerAiD", **pinned), digits, CPU)
    assert [longer.run_epoch().loss for _ in range(2)] == pytest.approx([2.6601, 2.529], rel=1e-2)
