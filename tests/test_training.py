"""The loop: what a step costs, what it does to the weights, and that it stops on nonsense."""

import copy
import math

import pytest
import torch
from conftest import tiny_spec
from torch import nn

from rkdkit import attacks, data, methods, models, profiles
from rkdkit.determinism import generator
from rkdkit.spec import AVERAGED, Teacher
from rkdkit.training import DivergedError, Training

CPU = torch.device("cpu")


def start(spec, dataset, teacher=None):
    """A training whose teachers are all the same network."""
    return Training(spec, dataset, CPU, [teacher] * len(spec.teachers))


def record_passes(training, **teachers):
    """Note every forward pass: (role, in train mode, asks for gradients)."""
    passes = []
    for role, network in {**training.networks, **teachers}.items():
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


@pytest.mark.parametrize(
    ("method", "of_the_student", "of_the_teacher"),
    [
        ("Natural", 1, 0),
        ("PGD-AT", 5 + 1, 0),
        ("FFGSM-AT", 1 + 1, 0),
        ("Free-AT", 4, 0),
        ("TRADES", 1 + 5 + 2, 0),
        ("KD", 1, 1),
        ("ARD", 5 + 1, 1),
        ("Fast-ARD", 4, 1),
        ("RSLAD", 5 + 2, 1),
        ("AKD", 5 + 1, 1),
        ("IAD", 5 + 2, 2),
        ("AKD2", 5 + 1, 2),
        ("AdaAD", 5 + 1, 5 + 1),
    ],
)
def test_no_method_makes_a_forward_pass_twice(digits, trained, method, of_the_student, of_the_teacher):
    spec = tiny_spec(method, n_train=64, attack_steps=5)
    if method == "IAD":
        spec = tiny_spec(method, n_train=64, attack_steps=5, settings=(("warmup", 0.0),))
    teacher = copy.deepcopy(trained)
    training = start(spec, digits, teacher)
    passes = record_passes(training, teacher=teacher)
    training.run_epoch()
    assert [role for role, *_ in passes].count("student") == of_the_student
    assert [role for role, *_ in passes].count("teacher") == of_the_teacher


def test_a_teacher_is_asked_in_eval_mode_and_stays_as_it_was(digits, trained):
    teacher = copy.deepcopy(trained).train()
    before = copy.deepcopy(teacher.state_dict())
    training = start(tiny_spec("AdaAD"), digits, teacher)
    passes = record_passes(training, teacher=teacher)
    training.run_epoch()
    assert {in_train_mode for role, in_train_mode, _ in passes if role == "teacher"} == {False}
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    assert teacher.training


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_trains_at_smoke_and_its_loss_falls(digits, trained, method):
    guides = tuple(Teacher(module="trained", slot=slot) for slot in methods.get(method).guides)
    # twice the profile's epochs: an attack this strong takes a while to learn anything against
    spec = profiles.PROFILES["smoke"].spec(method, teachers=guides, epochs=6)
    training = start(spec, digits, trained)
    losses = [training.run_epoch().loss for _ in range(6)]
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_trains_in_bfloat16_with_weights_in_float32(digits, trained, method):
    spec = tiny_spec(method, n_train=256, epochs=5, eps=0.05, step_size=0.025, precision="bfloat16")
    training = start(spec, digits, trained)
    before = {r: copy.deepcopy(dict(w)) for r, w in training.weights().items()}
    losses = [training.run_epoch().loss for _ in range(spec.epochs)]
    assert losses[-1] < 0.8 * losses[0]
    for role, weights in training.weights().items():
        assert all(w.dtype in (torch.float32, torch.int64) for w in weights.values())
        assert not torch.equal(weights["head.weight"], before[role]["head.weight"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("method", ["ARD+", "AdaAD", "CAT", "Free-AT", "PeerAiD"])
def test_a_gpu_trains_what_the_cpu_trains(digits, trained, method):
    teacher = copy.deepcopy(trained)
    losses = []
    for device in (CPU, torch.device("cuda")):
        spec = tiny_spec(method, augmentation="crop-flip", swa_start=0, schedule="onecycle")
        training = Training(spec, digits, device, [teacher.to(device)] * len(spec.teachers))
        first = training.run_epoch().loss
        again = Training(spec, digits, device, [teacher.to(device)] * len(spec.teachers))
        again.load_state({name: value.cpu() for name, value in training.state().items()}, 1)
        assert again.run_epoch().loss == training.run_epoch().loss
        losses.append(first)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def attacks_made(monkeypatch):
    """Note every attack that training starts: its radius, step, number of steps and start."""
    made, perturb = [], attacks.PGD.perturb

    def noting(self, network, images, objective, generator, *mode, **how):
        made.append((self.eps, self.step_size, self.steps, self.start))
        return perturb(self, network, images, objective, generator, *mode, **how)

    monkeypatch.setattr(attacks.PGD, "perturb", noting)
    return made


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("PGD-AT", [(0.2, 0.1, 3, "uniform")]),
        ("Low-eps AT", [(0.05, 0.1, 3, "uniform")]),
        ("FFGSM-AT", [(0.2, 0.25, 1, "uniform")]),
        ("TRADES", [(0.2, 0.1, 3, "gaussian")]),
        ("CAT", [(0.2, 0.1, 3, "gaussian"), (0.2, 0.1, 3, "uniform")]),
        ("Free-AT", []),
    ],
)
def test_a_rows_attack_is_what_it_says(digits, monkeypatch, method, expected):
    made = attacks_made(monkeypatch)
    start(tiny_spec(method, n_train=64, eps=0.2, step_size=0.1, attack_steps=3), digits).run_epoch()
    assert made == [pytest.approx(attack) for attack in expected]


def test_each_network_of_cat_is_attacked_by_itself(digits, monkeypatch):
    training = start(tiny_spec("CAT", n_train=64), digits)
    attacked, perturb = [], attacks.PGD.perturb
    monkeypatch.setattr(
        attacks.PGD,
        "perturb",
        lambda self, network, *a, **k: (attacked.append(network), perturb(self, network, *a, **k))[1],
    )
    training.run_epoch()
    assert attacked == [training.networks["student"], training.networks["peer"]]


def test_adaads_attack_follows_the_gradient_through_both_networks(digits, trained):
    images, labels = data.to_float(digits.test.images[:8]), digits.test.labels[:8]

    def examples(student):
        logits = methods.Logits({"S": (student,), "T": (trained,)}, {"x": images})
        attack = attacks.PGD(0.1, 0.05, 1, "none")
        return methods.adversarial_examples(
            methods.get("AdaAD").maximises[0], logits, images, labels, attack, torch.Generator()
        )

    other = models.build("resnet18/16", 10, *digits.channel_statistics, seed=5).eval()
    x = images.clone().requires_grad_()
    p, log_q = trained(x).softmax(1), other(x).log_softmax(1)
    (p * (p.log() - log_q)).sum().backward()
    expected = (images + 0.05 * x.grad.sign()).clamp(0, 1)
    assert (examples(other) - expected).abs().max() < 1e-6


def test_adaads_attack_mixes_several_teachers_by_their_weights(digits, trained):
    images, labels = data.to_float(digits.test.images[:8]), digits.test.labels[:8]
    student, second = (models.build("resnet18/16", 10, *digits.channel_statistics, seed=s).eval() for s in (5, 6))
    shares = {"T": (0.25, 0.75)}
    logits = methods.Logits({"S": (student,), "T": (trained, second)}, {"x": images}, shares)
    attack, adaad = attacks.PGD(0.1, 0.05, 1, "none"), methods.get("AdaAD").maximises[0]
    found = methods.adversarial_examples(adaad, logits, images, labels, attack, torch.Generator())
    x = images.clone().requires_grad_()
    p = 0.25 * trained(x).softmax(1) + 0.75 * second(x).softmax(1)
    (p * (p.log() - student(x).log_softmax(1))).sum().backward()
    steps = (found - images).sign() == x.grad.sign()
    assert steps[(images > 0.05) & (images < 0.95)].float().mean() > 0.99
    assert (found - (images + 0.05 * x.grad.sign()).clamp(0, 1)).abs().mean() < 1e-3


def test_free_training_carries_the_perturbation_over_and_moves_it_by_the_updates_gradient(digits):
    spec = tiny_spec("Free-AT", n_train=64, lr=0.0, weight_decay=0.0, eps=0.1, settings=(("m", 1),))
    training = start(spec, digits)
    network = copy.deepcopy(training.networks["student"]).train()
    delta = torch.zeros(64, 1, 8, 8)
    for epoch in (1, 2):
        order = generator(spec.seed, epoch, "order and augmentation")
        (batch,) = data.batches(digits.split_validation(64, 32)[0], 64, "none", order)
        delta.requires_grad_()
        loss = nn.functional.cross_entropy(network((batch.images + delta).clamp(0, 1)), batch.labels)
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() + 0.1 * gradient.sign()).clamp(-0.1, 0.1)
        assert training.run_epoch().loss == pytest.approx(loss.item(), rel=1e-4)
        differing = (training.state()["delta"] - delta).abs() > 1e-6
        assert differing.float().mean() < 0.01, "rounding may turn the sign of a gradient that is all but 0"
        delta = training.state()["delta"].clone()


def test_free_training_replays_each_batch_m_times(digits):
    spec = tiny_spec("Free-AT", n_train=128, schedule="onecycle", settings=(("m", 3),), epochs=2)
    training = start(spec, digits)
    passes = record_passes(training)
    for _ in range(2):
        training.run_epoch()
    assert len(passes) == 2 * 2 * 3
    assert training._scheduler.last_epoch == 12
    assert training._scheduler.total_steps == 12


def test_an_ensemble_teaches_by_its_weighted_answers(digits, trained):
    other = models.build("resnet18/16", 10, *digits.channel_statistics, seed=5).eval()
    teacher = tiny_spec("TRADES", epochs=1)
    pair = (Teacher(run=teacher, weight=0.25), Teacher(run=teacher, weight=0.75, role="student"))
    spec = tiny_spec("KD", n_train=64, teachers=pair, settings=(("tau", 2.0), ("kl_reduction", "batchmean")), lr=0.0)
    training = Training(spec, digits, CPU, [trained, other])
    student = copy.deepcopy(training.networks["student"]).train()
    order = generator(spec.seed, 1, "order and augmentation")
    (batch,) = data.batches(digits.split_validation(64, 32)[0], 64, "none", order)
    with torch.no_grad():
        target = 0.25 * (trained(batch.images) / 2).softmax(1) + 0.75 * (other(batch.images) / 2).softmax(1)
        log_q = (student(batch.images) / 2).log_softmax(1)
        expected = 4 * (target * (target.log() - log_q)).sum(1).mean()
    assert training.run_epoch().loss == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("classes", [2, 100])
def test_a_teacher_with_another_number_of_classes_is_refused_before_training(digits, classes):
    teacher = models.build("resnet18/16", classes, *digits.channel_statistics)
    with pytest.raises(ValueError, match=rf"logits of shape \(2, {classes}\), but the student has 10 classes"):
        start(tiny_spec("ARD"), digits, teacher)


def test_extra_images_are_mixed_into_every_batch(digits):
    extra = data.Split(torch.full((32, 1, 8, 8), 255, dtype=torch.uint8), torch.zeros(32, dtype=torch.int64))
    spec = tiny_spec("Natural", extra="white.npz", extra_fraction=0.25)
    training = Training(spec, digits, CPU, extra=extra)
    shares = []
    training.networks["student"].register_forward_pre_hook(
        lambda _, x: shares.append((x[0] == 1).flatten(1).all(1).float().mean().item())
    )
    training.run_epoch()
    assert shares == [0.25, 0.25]


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


def test_an_exponential_moving_average_follows_every_step(digits):
    training = start(tiny_spec("Natural", ema_decay=0.9, epochs=2), digits)
    student, history = training.networks["student"], []
    for _ in range(2):
        training.run_epoch(lambda: history.append([p.detach().clone() for p in student.parameters()]))
    expected = history[0]
    for step in history[1:]:
        expected = [0.9 * e + 0.1 * p for e, p in zip(expected, step, strict=True)]
    averaged = training.weights()[AVERAGED]
    network = models.build("resnet18/16", 10, *digits.channel_statistics)
    network.load_state_dict(averaged)
    for p, e in zip(network.parameters(), expected, strict=True):
        assert torch.allclose(p, e, atol=1e-5)
    assert not torch.equal(averaged["stem.1.running_mean"], student.stem[1].running_mean), "statistics, too"


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
