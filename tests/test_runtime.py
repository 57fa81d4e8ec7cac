"""What only changes the speed: who decides it, and that it changes nothing else."""

import copy

import pytest
import torch
from conftest import compiled_does_what_plain_does, tiny_spec
from torch import nn
from torch._dynamo.utils import counters

from rkdkit import attacks, evaluation, models, runs, runtime, trainings
from rkdkit.modes import folded_for_inference
from rkdkit.training import Training

CPU = torch.device("cpu")

needs_a_compiler = pytest.mark.skipif(bool(runtime._lacking("cpu")), reason=runtime._lacking("cpu"))


@pytest.fixture(autouse=True)
def _settings_of_one_test(monkeypatch):
    monkeypatch.delenv("RKDKIT_COMPILE", raising=False)
    monkeypatch.delenv("RKDKIT_EVALUATION_BATCH", raising=False)
    monkeypatch.delenv("RKDKIT_GRAPHS", raising=False)


def batch(n, seed=0, shape=(1, 8, 8)):
    noise = torch.Generator().manual_seed(seed)
    return torch.rand(n, *shape, generator=noise), torch.randint(10, (n,), generator=noise)


def lived_in(name, channels=1):
    """A network whose batch norms are not the identity."""
    network = models.build(name, 10, [0.4] * channels, [0.3] * channels).on(CPU)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def test_settings_come_from_the_environment_unless_they_are_set(monkeypatch):
    assert runtime.current() == runtime.Settings("auto", None, "auto")
    monkeypatch.setenv("RKDKIT_COMPILE", "off")
    monkeypatch.setenv("RKDKIT_EVALUATION_BATCH", "512")
    monkeypatch.setenv("RKDKIT_GRAPHS", "on")
    assert runtime.current() == runtime.Settings("off", 512, "on")
    with runtime.using(runtime.Settings("on")):
        assert runtime.current() == runtime.Settings("on", None, "auto")
    assert runtime.current() == runtime.Settings("off", 512, "on")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RKDKIT_COMPILE", "yes", "Unknown RKDKIT_COMPILE 'yes'.*auto, on, off"),
        ("RKDKIT_GRAPHS", "1", "Unknown RKDKIT_GRAPHS '1'.*auto, on, off"),
        ("RKDKIT_EVALUATION_BATCH", "0", "RKDKIT_EVALUATION_BATCH must be a whole number of at least 1, not '0'"),
        ("RKDKIT_EVALUATION_BATCH", "1e3", "RKDKIT_EVALUATION_BATCH must be a whole number of at least 1"),
    ],
)
def test_a_bad_variable_is_refused_by_name(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        runtime.current()


@pytest.mark.parametrize("values", [("fast",), ("on", 0), ("on", 2.5), ("on", None, "yes")])
def test_bad_settings_are_refused(values):
    with pytest.raises(ValueError, match=r"compile|evaluation_batch_size|graphs"):
        runtime.Settings(*values)


@pytest.mark.parametrize(
    ("name", "shape", "passes", "expected"),
    [
        ("resnet18/16", (1, 8, 8), 1e12, False),
        ("resnet18/4", (1, 8, 8), 1e12, False),
        ("resnet18", (3, 32, 32), 50_000 * 300 * 12, True),
        ("resnet18", (3, 32, 32), 1000, False),
        ("resnet18/4", (3, 32, 32), 50_000 * 300 * 12, True),
        ("resnet18/4", (3, 32, 32), 10_000 * 16 * 12, False),
    ],
)
def test_auto_compiles_large_networks_that_have_much_to_do(monkeypatch, name, shape, passes, expected):
    monkeypatch.setattr(runtime, "_lacking", lambda _: "")
    network = models.build(name, 10, [0.5] * shape[0], [0.5] * shape[0])
    assert runtime.compiles(CPU, [network], shape, passes) is expected
    assert not runtime.compiles(torch.device("meta"), [network], shape, passes)
    assert not runtime.compiles(CPU, [nn.Linear(2, 2)], shape, passes), "a network from elsewhere"
    monkeypatch.setenv("RKDKIT_COMPILE", "off")
    assert not runtime.compiles(CPU, [network], shape, passes)


def test_auto_compiles_no_small_network_beside_a_large_one(monkeypatch):
    monkeypatch.setattr(runtime, "_lacking", lambda _: "")
    student, teacher = (models.build(name, 10, [0.5] * 3, [0.5] * 3) for name in ("resnet18/16", "resnet18"))
    assert runtime.compiles(CPU, [teacher], (3, 32, 32), 1e12)
    assert not runtime.compiles(CPU, [student, teacher], (3, 32, 32), 1e12)


@needs_a_compiler
def test_a_gpu_that_triton_does_not_work_on_is_not_compiled_for(monkeypatch):
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    network = models.build("resnet18/16", 10, [0.5], [0.5])
    assert runtime.compiles(CPU, [network], (1, 8, 8), 1)
    with pytest.raises(RuntimeError, match=r"Triton does not work on this GPU.*RKDKIT_COMPILE"):
        runtime.compiles(torch.device("cuda"), [network], (1, 8, 8), 1)


def test_without_a_compiler_auto_does_not_compile_and_on_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    network = models.build("resnet18/16", 10, [0.5] * 3, [0.5] * 3)
    monkeypatch.setattr(runtime, "LEAST_NETWORK", 0)
    assert not runtime.compiles(CPU, [network], (3, 32, 32), 1e12)
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler no-such-compiler: install it.*RKDKIT_COMPILE"):
        runtime.compiles(CPU, [network], (3, 32, 32), 1)


@pytest.mark.parametrize("name", [f"{name}/16" for name in models.ARCHITECTURES])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_network_with_its_norms_folded_answers_the_same(name, precision):
    network, (x, y) = lived_in(name, 3).eval(), batch(6, shape=(3, 8, 8))
    before = copy.deepcopy(network.state_dict())
    kinds = [type(module) for module in network.modules()]

    def answers():
        images = x.clone().requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
            logits = network(images).float()
        return logits, torch.autograd.grad(nn.functional.cross_entropy(logits, y), images)[0]

    logits, gradient = answers()
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16), folded_for_inference(network):
        left = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        # one network's convolutions are padded by hand, and networks for points have no norms
        assert left < kinds.count(nn.BatchNorm2d) or "silu" in name or name.startswith("mlp-")
        folded_logits, folded_gradient = answers()
    scale = 1e-4 if precision == torch.float32 else 0.1
    assert (folded_logits - logits).abs().max() < scale * logits.abs().max()
    assert (folded_gradient - gradient).norm() < 3 * scale * gradient.norm()
    assert [type(module) for module in network.modules()] == kinds
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert list(network.state_dict()) == list(before)
    assert all(p.requires_grad for p in network.parameters())


def test_a_network_is_whole_again_after_an_attack_that_failed():
    network, (x, _) = lived_in("resnet18/16"), batch(4)
    kinds, names = [type(module) for module in network.modules()], list(network.state_dict())
    with pytest.raises(ZeroDivisionError):
        attacks.PGD(0.1, 0.1, 1).perturb(network, x, lambda logits: logits.sum() / 0 * (1 // 0), torch.Generator())
    assert [type(module) for module in network.modules()] == kinds
    assert list(network.state_dict()) == names


def test_networks_within_another_module_are_folded_and_twice_is_as_once():
    network, (x, _) = lived_in("resnet18/16").eval(), batch(4)
    expected, names = network(x), list(network.state_dict())
    with folded_for_inference(nn.Sequential(network)), folded_for_inference(network):
        assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        assert torch.allclose(network(x), expected, atol=1e-4)
    assert torch.equal(network(x), expected)
    assert list(network.state_dict()) == names


def test_a_network_from_elsewhere_may_have_a_flag_called_folded():
    network, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), batch(4)
    network.folded = False
    assert (attacks.FGSM(0.1)(network, x, y) != x).any()


def test_a_norm_in_train_mode_or_without_running_statistics_is_not_folded():
    trained, of_the_batch = lived_in("resnet18/16").train(), lived_in("resnet18/16").eval()
    for module in of_the_batch.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    for network in (trained, of_the_batch):
        kinds = [type(module) for module in network.modules()]
        with network.folded():
            assert [type(module) for module in network.modules()] == kinds


@needs_a_compiler
@pytest.mark.usefixtures("one_block")
def test_a_compiled_training_does_what_a_plain_one_does(monkeypatch, digits):
    compiled_does_what_plain_does(tiny_spec("PeerAiD", n_train=64, epochs=1), digits, monkeypatch)


@pytest.mark.usefixtures("one_block")
def test_a_compiled_training_compiles_nothing_anew_from_step_to_step(digits, monkeypatch):
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda network, **_: compiled(network, backend="eager", dynamic=False))
    monkeypatch.setattr(runtime, "_lacking", lambda _: "")
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    torch.compiler.reset()
    loop = Training(tiny_spec("PeerAiD", n_train=192, precision="bfloat16"), digits, CPU)
    graphs, before = [], counters["stats"]["unique_graphs"]
    for _ in range(2):
        loop.run_epoch(lambda: graphs.append(counters["stats"]["unique_graphs"] - before))
    assert len(graphs) == 6
    assert graphs[0] >= 3, "attacked with its norms folded, asked, and trained"
    assert set(graphs) == {graphs[0]}


@needs_a_compiler
@pytest.mark.usefixtures("one_block")
def test_a_compiled_run_resumes_to_the_same_bits_and_says_that_it_was_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    spec = tiny_spec("PGD-AT", n_train=64, augmentation="crop-flip")
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "whole"))
    whole = runs.ensure(spec).snapshot().digest()
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "interrupted"))
    kept, keep = [], trainings._keep

    def stop_after_an_epoch(*arguments):
        keep(*arguments)
        kept.append(arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainings, "_keep", stop_after_an_epoch)
        with pytest.raises(KeyboardInterrupt):
            runs.ensure(spec)
    resumed = runs.ensure(spec)
    assert len(kept) == 1
    assert resumed.snapshot().digest() == whole
    assert [e["compiled"] for e in resumed.record["environments"]] == [True]


@needs_a_compiler
@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize(
    "attack",
    [
        attacks.PGD(0.1, 0.05, 2),
        attacks.PGD(0.1, 0.05, 2, restarts=2),
        attacks.PGD(0.1, 0.05, 2, iterate="any"),
    ],
    ids=str,
)
def test_evaluation_compiled_in_batches_of_one_size_gives_the_same_answers(monkeypatch, attack):
    network, (x, y) = lived_in("resnet18/16").eval(), batch(21)
    plain = evaluation.logits([network], x, y, attack, batch_size=8)
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    compiled = evaluation.logits([network], x, y, attack, batch_size=8)
    assert torch.allclose(plain, compiled, atol=1e-4)
    examples = torch.cat([adversarial for adversarial, _ in evaluation.perturbed(network, x, y, attack, batch_size=8)])
    assert (examples - x).abs().max() <= 0.1 + 1e-6
    assert examples.min() >= 0
    assert examples.max() <= 1


@pytest.mark.parametrize("n", [1, 4, 5, 7, 8, 9])
def test_a_batch_is_filled_up_to_one_size_or_not_compiled(monkeypatch, n):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: lambda x: (asked.append(len(x)), call(x))[1])
    network, (x, _) = lived_in("resnet18/16").eval(), batch(n)
    images, filled = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, answers = network(images), runtime.FullBatches(network, 8)(filled)
    assert asked == ([8] if 4 < n <= 8 else [])
    assert torch.allclose(answers, expected, atol=1e-5)
    answers.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(filled.grad, images.grad, atol=1e-5)


@pytest.mark.parametrize("restarts", [1, 2])
def test_the_size_of_evaluations_batches_changes_no_noise(monkeypatch, restarts):
    network, (x, y) = lived_in("resnet18/16").eval(), batch(40)
    attack = attacks.PGD(0.3, 0.1, 1, restarts=restarts)
    usual = evaluation.logits([network], x, y, attack)
    monkeypatch.setenv("RKDKIT_EVALUATION_BATCH", "16")
    sizes = [len(labels) for _, labels in evaluation.perturbed(network, x, y, attack)]
    assert sizes == ([16, 16, 8] if restarts == 1 else [40])
    assert torch.allclose(evaluation.logits([network], x, y, attack), usual, atol=1e-4)
