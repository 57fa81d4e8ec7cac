"""Attacks against what they must satisfy, and against foolbox's on the same network."""

import json
import math
from dataclasses import replace
from typing import ClassVar

import foolbox
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rkdkit import attacks, data, evaluation, models, statistics
from rkdkit.checks import UnknownNameError


@pytest.fixture(scope="module")
def test_batch(digits):
    return data.to_float(digits.test.images), digits.test.labels


def small_network(channels, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
    )


@given(
    n=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    size=st.integers(1, 9),
    eps=st.sampled_from([0.0, 1e-4, 8 / 255, 0.25, 2.0, math.inf]),
    steps=st.integers(0, 3),
    start=st.sampled_from(attacks.STARTS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_examples_stay_in_the_ball_and_in_range(n, channels, size, eps, steps, start, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((n, channels, size, size), generator=generator, dtype=dtype)
    images.flatten()[::3] = torch.tensor([0.0, 1.0], dtype=dtype)[seed % 2]
    labels = torch.randint(0, 3, (n,), generator=generator)
    network = small_network(channels).eval()
    network(images.float())
    network.to(dtype)
    before, step = images.clone(), min(eps, 1.0) / 2
    for attack in (
        attacks.PGD(eps, step, steps, start),
        attacks.PGD(eps, step, steps, start, restarts=2, loss="margin"),
        attacks.PGD(eps, step, steps, start, restarts=2, iterate="any"),
        attacks.FGSM(eps),
        attacks.FFGSM(eps),
        attacks.MIFGSM(eps, step, steps),
        attacks.DeepFool(eps, steps),
    ):
        perturbed = attack(network, images, labels, seed=seed)
        assert perturbed.shape == images.shape
        assert perturbed.dtype == dtype
        assert not perturbed.requires_grad
        assert (perturbed - images).abs().max() <= eps * (1 + 1e-6) + 1e-7
        assert perturbed.min() >= 0
        assert perturbed.max() <= 1
        assert torch.equal(images, before)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_the_loss_is_not_lower_than_at_the_start(trained, test_batch, steps):
    images, labels = test_batch

    def loss(x):
        with torch.no_grad():
            return F.cross_entropy(trained(x), labels)

    for start in attacks.STARTS:
        started = attacks.PGD(0.1, 0.02, 0, start)(trained, images, labels)
        finished = attacks.PGD(0.1, 0.02, steps, start)(trained, images, labels)
        assert loss(finished) > loss(started)


def test_more_steps_leave_fewer_images_right(trained, test_batch):
    robust = [evaluation.accuracy(trained, *test_batch, attacks.PGD(0.1, 0.025, k)).value for k in (0, 1, 20)]
    assert robust[0] > robust[1] > robust[2]


def foolbox_accuracy(network, attack, images, labels, eps):
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    _, clipped, success = attack(model, images, labels, epsilons=eps)
    return clipped, statistics.proportion(~success)


def test_pgd_without_a_random_start_agrees_with_foolbox(trained, test_batch):
    images, labels = test_batch
    theirs, robust = foolbox_accuracy(
        trained, foolbox.attacks.LinfPGD(abs_stepsize=0.025, steps=20, random_start=False), images, labels, 0.1
    )
    ours = attacks.PGD(0.1, 0.025, 20, "none")(trained, images, labels)
    # the same arithmetic up to rounding: an image may differ where a gradient is all but zero
    same = torch.isclose(ours, theirs, atol=1e-5).flatten(1).all(1).float().mean()
    assert same > 0.95
    right = evaluation.correct_predictions([trained], ours, labels)[0]
    assert statistics.proportion(right).value == pytest.approx(robust.value, abs=2 / len(labels))


def test_pgd_with_a_random_start_agrees_with_foolbox_within_the_interval(trained, test_batch):
    images, labels = test_batch
    torch.manual_seed(0)
    _, theirs = foolbox_accuracy(
        trained, foolbox.attacks.LinfPGD(abs_stepsize=0.025, steps=20, random_start=True), images, labels, 0.1
    )
    ours = evaluation.accuracy(trained, images, labels, attacks.PGD(0.1, 0.025, 20))
    assert ours.low <= theirs.value <= ours.high
    assert 0.05 < ours.value < 0.95, "an attack that breaks all or nothing tells nothing apart"


def test_fgsm_agrees_with_foolbox(trained, test_batch):
    images, labels = test_batch
    theirs, robust = foolbox_accuracy(trained, foolbox.attacks.FGSM(), images, labels, 0.1)
    ours = attacks.FGSM(0.1)(trained, images, labels)
    assert torch.isclose(ours, theirs, atol=1e-6).float().mean() > 0.999
    assert evaluation.accuracy(trained, images, labels, attacks.FGSM(0.1)).value == pytest.approx(
        robust.value, abs=2 / 497
    )


def test_ffgsm_is_one_step_of_wong_et_al(trained, test_batch):
    images, labels = (t[:20] for t in test_batch)
    noise = torch.empty(images.shape).uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(3))
    start = (images + noise).clamp(0, 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(trained(start), labels), start)
    step = (start.detach() - images + 0.125 * gradient.sign()).clamp(-0.1, 0.1)
    assert torch.allclose(attacks.FFGSM(0.1)(trained, images, labels, seed=3), (images + step).clamp(0, 1), atol=1e-6)


class FoolboxMomentum(foolbox.attacks.LinfMomentumIterativeFastGradientMethod):
    """Foolbox adds up the gradients' signs; Dong et al. add up gradients over their l_1 norms."""

    def normalize(self, gradients, *, x, bounds):  # noqa: ARG002
        return gradients / gradients.abs().sum(axis=(1, 2, 3), keepdims=True)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_mi_fgsm_agrees_with_foolbox_image_by_image(trained, test_batch, decay):
    images, labels = test_batch
    attack = FoolboxMomentum(momentum=decay, abs_stepsize=0.02, steps=10, random_start=False)
    theirs, robust = foolbox_accuracy(trained, attack, images, labels, 0.1)
    ours = attacks.MIFGSM(0.1, 0.02, 10, decay)(trained, images, labels)
    assert torch.isclose(ours, theirs, atol=1e-5).flatten(1).all(1).float().mean() > 0.95
    right = evaluation.correct_predictions([trained], ours, labels)[0]
    assert statistics.proportion(right).value == pytest.approx(robust.value, abs=2 / len(labels))


def test_mi_fgsm_agrees_with_foolbox_as_released_within_the_interval(trained, test_batch):
    attack = foolbox.attacks.LinfMomentumIterativeFastGradientMethod(abs_stepsize=0.02, steps=10)
    _, theirs = foolbox_accuracy(trained, attack, *test_batch, 0.1)
    ours = evaluation.accuracy(trained, *test_batch, attacks.MIFGSM(0.1, 0.02, 10))
    assert ours.low <= theirs.value <= ours.high


def test_mi_fgsm_without_momentum_is_pgd_from_the_image(trained, test_batch):
    images, labels = (t[:20] for t in test_batch)
    momentum = attacks.MIFGSM(0.1, 0.02, 5, decay=0)(trained, images, labels)
    assert torch.allclose(momentum, attacks.PGD(0.1, 0.02, 5, "none")(trained, images, labels))
    assert not torch.allclose(momentum, attacks.MIFGSM(0.1, 0.02, 5)(trained, images, labels))


@pytest.mark.parametrize("candidates", [3, 10])
def test_deepfool_agrees_with_foolbox_image_by_image(trained, test_batch, candidates):
    images, labels = (t[:200] for t in test_batch)
    attack = foolbox.attacks.LinfDeepFoolAttack(steps=20, candidates=candidates)
    theirs, robust = foolbox_accuracy(trained, attack, images, labels, 0.1)
    ours = attacks.DeepFool(0.1, 20, candidates)(trained, images, labels)
    assert torch.isclose(ours, theirs, atol=1e-4).flatten(1).all(1).float().mean() > 0.95
    right = evaluation.correct_predictions([trained], ours, labels)[0]
    assert statistics.proportion(right).value == pytest.approx(robust.value, abs=2 / len(labels))
    assert 0.05 < robust.value < 0.95, "an attack that breaks all or nothing tells nothing apart"


def test_deepfool_leaves_alone_what_is_misclassified_already(trained, test_batch):
    images, labels = (t[:100] for t in test_batch)
    labels = torch.where(torch.arange(100) % 2 == 0, labels, (labels + 1) % 10)
    with torch.no_grad():
        wrong = trained(images).argmax(1) != labels
    moved = (attacks.DeepFool(0.1)(trained, images, labels) != images).flatten(1).any(1)
    assert torch.equal(moved, ~wrong)


def test_a_restart_attacks_only_what_is_still_right(trained, test_batch):
    images, labels = (t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in test_batch)
    once = attacks.PGD(0.1, 0.05, 3)(trained, images, labels, seed=5)
    twice = attacks.PGD(0.1, 0.05, 3, restarts=2)(trained, images, labels, seed=5)
    right = evaluation.correct_predictions([trained], once, labels)[0]
    assert torch.equal(twice[~right], once[~right])
    assert (twice[right] != once[right]).flatten(1).any(1).all()
    still = evaluation.correct_predictions([trained], twice, labels)[0]
    assert still.sum() < right.sum()


def first_wrong(attack, network, images, labels, seed=0):
    """The attack's iterates by its first so many steps alone: for each image the first that is wrong, and its place."""
    found, place = images.clone(), torch.full((len(images),), attack.steps)
    for k in reversed(range(attack.steps + 1)):
        x = replace(attack, steps=k, iterate="last")(network, images, labels, seed)
        wrong = (network(x).argmax(1) != labels) | (k == attack.steps)
        found[wrong], place[wrong] = x[wrong], k
    return found, place


@given(
    n=st.integers(1, 6),
    weights=st.lists(st.integers(-3, 3), min_size=42, max_size=42),
    steps=st.integers(0, 6),
    seed=st.integers(0, 1000),
)
def test_any_iterate_that_fools_the_network_decides(n, weights, steps, seed):
    # small whole weights and pixels of sixteenths: nothing is rounded, in batches of whichever size
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    network[1].weight.data = torch.tensor(weights[:24]).view(6, 4).double()
    network[3].weight.data = torch.tensor(weights[24:]).view(3, 6).double()
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 17, (n, 1, 2, 2), generator=generator).double() / 16
    labels = torch.randint(0, 3, (n,), generator=generator)
    labels[1:] = network(images[1:]).argmax(1)  # most are right where they start
    attack = attacks.PGD(0.25, 0.125, steps, "none", loss="margin", iterate="any")
    assert torch.equal(attack(network, images, labels), first_wrong(attack, network, images, labels)[0])


def test_any_iterate_is_the_same_attack_and_never_fools_less_often(trained, test_batch):
    attack = attacks.PGD(0.1, 0.05, 5, iterate="any")
    ours, (expected, _) = attack(trained, *test_batch, seed=3), first_wrong(attack, trained, *test_batch, seed=3)
    # batches of other sizes round otherwise, and a gradient may be all but zero
    assert torch.isclose(ours, expected, atol=1e-6).flatten(1).all(1).float().mean() > 0.98
    for more in ({}, {"restarts": 3}, {"loss": "margin"}, {"start": "none"}):
        any_, last = (
            evaluation.accuracy(trained, *test_batch, replace(attack, iterate=i, **more)) for i in ("any", "last")
        )
        assert 0 < any_.value <= last.value


def test_an_image_that_passed_the_boundary_and_came_back_counts_as_fooled():
    class Dip(nn.Module):
        """Wrong where the mean pixel is between 0.5 and 0.6, and only there."""

        def forward(self, x):
            score = ((x.mean((1, 2, 3)) - 0.55).abs() - 0.05) * 10
            return torch.stack([score, -score], 1)

    images, labels = torch.full((2, 1, 2, 2), 0.45), torch.zeros(2, dtype=torch.int64)
    images[1] = 0.1
    attack = attacks.PGD(0.3, 0.13, 2, "none")
    assert evaluation.correct_predictions([Dip()], images, labels, attack)[0].tolist() == [True, True]
    assert evaluation.correct_predictions([Dip()], images, labels, replace(attack, iterate="any"))[0].tolist() == [
        False,
        True,
    ]


def test_an_image_that_is_settled_is_asked_about_no_more(trained, test_batch):
    images, labels = (t[:100] for t in test_batch)
    attack, asked = attacks.PGD(0.1, 0.05, 5, iterate="any"), []
    _, place = first_wrong(attack, trained, images, labels)
    handle = trained.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    try:
        attack(trained, images, labels)
    finally:
        handle.remove()
    # at its k-th iterate an image is asked about unless an earlier one settled it
    assert asked == pytest.approx([int((place >= k).sum()) for k in range(5)], abs=1)
    assert asked[-1] < asked[0] == 100


def test_what_a_kept_answer_is_known_by_does_not_name_the_iterate_of_the_papers():
    known_by = {
        "name": "PGD", "eps": 0.1, "step_size": 0.05, "steps": 2, "start": "uniform", "restarts": 1, "loss": "CE"
    }  # fmt: skip
    attack = attacks.PGD(0.1, 0.05, 2)
    assert list(attack.identity().items()) == list(known_by.items())
    assert replace(attack, iterate="any").identity() == {**known_by, "iterate": "any"}


def test_restarts_stop_when_nothing_is_right():
    network, images, labels = small_network(1).eval(), torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        labels = (network(images).argmax(1) + 1) % 3
    assert attacks.PGD(0.0, 0.1, 2, restarts=3)(network, images, labels).equal(images)


def test_the_margin_is_the_best_wrong_logit_above_the_true_one():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0]], requires_grad=True)
    margin = attacks.margin_objective(torch.tensor([1, 0]))(logits)
    margin.backward()
    assert margin.item() == (2.0 - 4.0) + (4.0 - 1.0)
    assert logits.grad.tolist() == [[0, -1, 1], [-1, 1, 0]]


def test_the_margin_is_what_the_attack_raises(trained, test_batch):
    images, labels = test_batch

    def margin(loss):
        adversarial = attacks.PGD(0.1, 0.025, 10, "none", loss=loss)(trained, images, labels)
        with torch.no_grad():
            return attacks.margin_objective(labels)(trained(adversarial))

    assert margin("margin") > margin("CE")


def test_an_infinite_eps_is_the_whole_box(trained, test_batch):
    images, labels = (t[:100] for t in test_batch)
    attack = attacks.PGD(math.inf, 0.1, 20)
    assert attack == attacks.PGD(1, 0.1, 20) == attacks.PGD(7.5, 0.1, 20)
    assert json.loads(json.dumps(attack.parameters(), allow_nan=False))["eps"] == 1.0
    assert evaluation.accuracy(trained, images, labels, attack).value == 0


def test_transfer_judges_by_what_was_made_against_another_network(trained, test_batch):
    images, labels = (t[:100] for t in test_batch)
    surrogate, attack = small_network(1, 10).eval(), attacks.MIFGSM(0.1, 0.02, 5)
    surrogate(images)
    judged = evaluation.correct_predictions([trained, surrogate], images, labels, attack, surrogate)
    made = attack(surrogate, images, labels)
    assert torch.equal(judged, evaluation.correct_predictions([trained, surrogate], made, labels))


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (attacks.PGD(0.1, 0.1, 20), "PGD-20"),
        (attacks.PGD(0.1, 0.1, 20, restarts=10), "PGD-20 x 10"),
        (attacks.PGD(0.1, 0.1, 20, loss="margin"), "PGD-20 (margin)"),
        (attacks.PGD(0.1, 0.1, 20, iterate="any"), "PGD-20 (any iterate)"),
        (attacks.PGD(0.1, 0.1, 20, "none", 10, "margin", "any"), "PGD-20 (margin, any iterate) x 10"),
        (attacks.FGSM(0.1), "FGSM"),
        (attacks.FFGSM(0.1), "FFGSM"),
        (attacks.MIFGSM(0.1, 0.1, 20), "MI-FGSM-20"),
        (attacks.DeepFool(0.1), "DeepFool"),
    ],
)
def test_an_attack_says_its_name_as_the_papers_do(attack, name):
    assert str(attack) == name


class SpyLinear(torch.autograd.Function):
    """A linear layer that notes which gradients its backward pass is asked for."""

    asked: ClassVar[list] = []

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        SpyLinear.asked.append(ctx.needs_input_grad)
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x


def test_an_attack_computes_no_parameter_gradients_and_leaves_the_network_as_it_was():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)
            self.weight = nn.Parameter(torch.randn(3, 16))
            self.fixed = nn.Parameter(torch.randn(3), requires_grad=False)

        def forward(self, x):
            return SpyLinear.apply(self.norm(x).flatten(1), self.weight) + self.fixed

    network = Network().train()
    network.norm.eval()
    statistics = network.norm.running_mean.clone()
    SpyLinear.asked.clear()
    attacks.PGD(0.1, 0.05, 4)(network, torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.int64))
    assert SpyLinear.asked == [(True, False)] * 4
    assert all(p.grad is None for p in network.parameters())
    assert [p.requires_grad for p in (network.weight, network.fixed, network.norm.weight)] == [True, False, True]
    assert network.training
    assert not network.norm.training
    assert torch.equal(network.norm.running_mean, statistics)


def test_the_network_is_restored_when_the_attack_fails():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3)).train()

    def objective(_):
        raise RuntimeError("broken objective")

    with pytest.raises(RuntimeError, match="broken objective"):
        attacks.PGD(0.1, 0.05, 1).perturb(network, torch.rand(2, 1, 4, 4), objective, torch.Generator())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())


def test_the_seed_decides_the_start():
    network, images, labels = small_network(1).eval(), torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    network(images)  # its last layer takes its shape from the first images
    attack = attacks.PGD(0.1, 0.01, 1)
    assert torch.equal(attack(network, images, labels, seed=1), attack(network, images, labels, seed=1))
    assert not torch.equal(attack(network, images, labels, seed=1), attack(network, images, labels, seed=2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: attacks.PGD(-0.1, 0.1, 1), "eps must be at least 0"),
        (lambda: attacks.PGD(float("nan"), 0.1, 1), "eps must be at least 0"),
        (lambda: attacks.PGD(0.1, -0.1, 1), "step_size must be at least 0"),
        (lambda: attacks.PGD(0.1, 0.1, -1), "steps must be at least 0"),
        (lambda: attacks.PGD(0.1, 0.1, 1, "unifrom"), "Did you mean 'uniform'"),
        (lambda: attacks.PGD(-math.inf, 0.1, 1), "eps must be at least 0"),
        (lambda: attacks.PGD(0.1, math.inf, 1), "step_size must be at least 0"),
        (lambda: attacks.PGD(0.1, 0.1, 1, restarts=0), "restarts must be at least 1"),
        (lambda: attacks.PGD(0.1, 0.1, 1, loss="cw"), "Unknown attack loss 'cw'.*Known: CE, margin"),
        (lambda: attacks.PGD(0.1, 0.1, 1, iterate="first"), "Unknown deciding iterate 'first'.*Known: last, any"),
        (lambda: attacks.PGD("0.1", 0.1, 1), "eps must be a number"),
        (lambda: attacks.FGSM(-1), "eps must be at least 0"),
        (lambda: attacks.FFGSM(float("nan")), "eps must be at least 0"),
        (lambda: attacks.MIFGSM(0.1, 0.1, 1, decay=-1), "decay must be at least 0"),
        (lambda: attacks.MIFGSM(0.1, -0.1, 1), "step_size must be at least 0"),
        (lambda: attacks.MIFGSM(0.1, 0.1, 1.5), "steps must be a whole number"),
        (lambda: attacks.DeepFool(0.1, -1), "steps must be at least 0"),
        (lambda: attacks.DeepFool(0.1, candidates=1), "candidates must be at least 2"),
        (lambda: attacks.DeepFool(0.1, overshoot=-0.1), "overshoot must be at least 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.full((1, 1, 8, 8), 1.5), torch.tensor([0]), r"must lie in \[0, 1\], but their values go from 1.5"),
        (torch.full((1, 1, 8, 8), -0.1), torch.tensor([0]), r"must lie in \[0, 1\]"),
        (torch.full((1, 1, 8, 8), float("nan")), torch.tensor([0]), "contain NaN"),
        (torch.zeros(1, 8, 8), torch.tensor([0]), r"shape \(N, C, H, W\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]), "to_float"),
        (torch.zeros(1, 1, 8, 8), torch.tensor([10]), "must lie in 0..9, but their values go from 10"),
        (torch.zeros(1, 1, 8, 8), torch.tensor([-1]), "must lie in 0..9"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([1]), r"int64 of shape \(2,\)"),
        (torch.zeros(1, 1, 8, 8), torch.tensor([1.0]), r"int64 of shape \(1,\)"),
    ],
)
def test_bad_images_and_labels_are_refused_by_name(images, labels, message):
    network = models.build("resnet18/16", 10, [0.5], [0.5]).eval()
    with pytest.raises(ValueError, match=message):
        attacks.PGD(0.1, 0.1, 1)(network, images, labels)


def test_unknown_start_is_an_unknown_name():
    with pytest.raises(UnknownNameError):
        attacks.PGD(0.1, 0.1, 1, "normal")


def test_who_visits_an_attack_sees_its_start_and_the_image_after_each_step(trained, test_batch):
    images, labels = (part[:8] for part in test_batch)
    attack, visited = attacks.PGD(0.25, 0.0625, 5), []
    noise = torch.Generator().manual_seed(3)
    objective = attacks.cross_entropy_objective(labels)
    last = attack.perturb(trained, images, objective, noise, visit=lambda x: visited.append(x.detach()))
    assert torch.equal(last, attack(trained, images, labels, seed=3)), "being looked at changes nothing"
    assert len(visited) == 6
    for steps, seen in enumerate(visited):
        assert torch.equal(seen, replace(attack, steps=steps)(trained, images, labels, seed=3))
        assert not seen.requires_grad


@pytest.mark.parametrize("attack", [attacks.FGSM(0.1), attacks.DeepFool(0.1), attacks.PGD(0.1, 0.05, 2)], ids=str)
def test_an_attack_takes_its_gradients_where_none_are_taken(attack):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        found = attack(network, images, labels)
        assert not torch.is_grad_enabled()
    assert torch.equal(found, attack(network, images, labels))
