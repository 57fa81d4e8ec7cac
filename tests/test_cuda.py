"""What runs on a GPU, run without one: that nothing is on the wrong device, and that no step waits for the device.

Autograd refuses torch's fake CUDA tensors where there is no GPU. So these are real tensors in the CPU's memory, some of
which count as the GPU's: whatever is asked for on "cuda" does, and whatever is computed from that. Rounding, autocast's
choice of dtypes, and what torch's C++ finds out about a device by itself, are the CPU's.
"""

import weakref

import pytest
import torch
from conftest import tiny_spec
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rkdkit import attacks, autoattack, data, evaluation, executors, methods, models, runs, runtime, splits
from rkdkit.analysis import embedding, features, gradients, landscape
from rkdkit.references import Images, Snapshot
from rkdkit.training import Training

CPU, GPU = torch.device("cpu"), torch.device("cuda")
aten = torch.ops.aten

KNOWN_ONCE_COMPUTED = {
    *(aten._local_scalar_dense, aten.nonzero, aten.equal, aten.masked_select, aten._unique2, aten.unique_dim),
    *(aten.unique_consecutive, aten.bincount, aten.repeat_interleave),
}
"""Their answer, or its shape, is known once it is computed: the host waits for a GPU."""

INDEXING = {aten.index, aten.index_put, aten.index_put_}


class WrongDeviceError(Exception):
    """What a GPU would refuse."""


class PretendedGPU(TorchDispatchMode):
    """Refuses what a GPU would refuse, and notes what the host would wait for.

    Attributes
    ----------
    waits : what the host waited for so far: operations, and copies. Only a copy from pinned memory to the GPU that is
        `non_blocking` is made while the host goes on.
    autocasts : types of device that were autocast for.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.autocasts = [], set()
        self._storages = {"GPU": set(), "pinned": set(), "anywhere": set()}
        self._calls = _Calls(self)

    def __enter__(self):
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def has(self, tensor, memory="GPU"):
        return tensor.untyped_storage()._cdata in self._storages[memory]

    def put(self, tensor, memory="GPU"):
        storage, storages = tensor.untyped_storage(), self._storages[memory]
        if storage._cdata not in storages:
            storages.add(storage._cdata)
            weakref.finalize(storage, storages.discard, storage._cdata)
        return tensor

    def copied(self, source, to_gpu, non_blocking):
        if self.has(source) != to_gpu and not (to_gpu and non_blocking and self.has(source, "pinned")):
            self.waits.append(f"copy of {tuple(source.shape)} {'to' if to_gpu else 'from'} the GPU")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunction():
            return self._computed(func, args, kwargs or {})

    def _computed(self, func, args, kwargs):
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors and torch._C._current_autograd_node() is not None:
            return self.put(func(*args, **kwargs), "anywhere")  # zeros of autograd's own, made like a gradient
        if not any(self.has(tensor) for tensor in tensors):
            return func(*args, **kwargs)
        kind = func.overloadpacket
        if kind is aten.copy_:
            to, source, non_blocking = (*args, False)[:3]
            self.copied(source, self.has(to), non_blocking)
            return func(*args, **kwargs)
        if any(isinstance(leaf, torch.Generator) for leaf in leaves):
            raise WrongDeviceError(f"{func}: a CPU's generator draws nothing on a GPU")
        # a number of the CPU's is handed over like any other argument
        strangers = [t for t in tensors if t.ndim and not self.has(t) and not self.has(t, "anywhere")]
        indices = [i for i in args[1] if i is not None] if kind in INDEXING else []
        if any(all(stranger is not i for i in indices) for stranger in strangers):
            raise WrongDeviceError(f"{func}: tensors of the GPU and of the CPU")
        if kind in KNOWN_ONCE_COMPUTED or strangers or any(i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.waits.append(str(func))
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.put(tensor)
        return out


class _Calls(TorchFunctionMode):
    """What never reaches the dispatcher, or would look for a GPU on its way there."""

    def __init__(self, gpu):
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self._gpu, dict(kwargs or {})
        if func == Tensor.device.__get__:
            return GPU if gpu.has(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return gpu.has(args[0])
        if func is Tensor.pin_memory:
            return gpu.put(args[0].clone(), "pinned")
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(args[0], *(args[1:] or (CPU,) * (func is Tensor.cpu)), **kwargs)
        if func is Tensor.numpy and gpu.has(args[0]):
            raise WrongDeviceError("numpy knows no GPU's tensors")
        if func is Tensor.tolist:
            gpu.copied(args[0], False, False)
        pinned, device = kwargs.pop("pin_memory", False), kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            out = func(*args, **kwargs)
            return gpu.put(out, "pinned") if pinned else out
        if func is torch.tensor:
            gpu.waits.append("copy of new numbers to the GPU")
        if kwargs.get("generator") is not None:
            raise WrongDeviceError(f"{func}: a CPU's generator draws nothing on a GPU")
        return gpu.put(func(*args, **{**kwargs, "device": CPU}))

    def _moved(self, tensor, *args, copy=False, **kwargs):
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        to_gpu = self._gpu.has(tensor) if device is None else device.type == "cuda"
        if device is not None and device.type == "meta":
            return tensor.to(device)
        moves = to_gpu != self._gpu.has(tensor)
        how = {} if memory_format is None else {"memory_format": memory_format}
        if not moves:
            return tensor.to(dtype or tensor.dtype, copy=copy, **how)
        self._gpu.copied(tensor, to_gpu, non_blocking)
        with torch._C._DisableTorchDispatch():
            there = tensor.to(dtype or tensor.dtype, copy=True, **how)
        return self._gpu.put(there) if to_gpu else there


@pytest.fixture
def gpu(monkeypatch):
    """Let there be a GPU whose autocast is the CPU's."""
    autocast, enabled, dtype = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype

    def of_the_cpu(device_type, *args, enabled=True, **how):
        if enabled:
            pretended.autocasts.add(device_type)
        return autocast("cpu", *args, enabled=enabled, **how)

    pretended = PretendedGPU()
    monkeypatch.setattr(torch, "autocast", of_the_cpu)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: enabled("cpu"))
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: dtype("cpu"))
    with pretended, executors.using(executors.Here(device=GPU)):
        yield pretended


def small_network(device, seed=0):
    """A network of one block, if the fixture `one_block` is asked for."""
    return models.build("resnet18/16", 10, [0.5], [0.5], seed=seed).on(device).eval()


def some_digits(digits, network, n=12):
    """Images that the network is right on, but for the first."""
    images = data.to_float(digits.test.images[:n])
    labels = network(images).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    return images, labels


def test_the_pretended_gpu_refuses_and_notes_what_a_real_one_would(gpu):
    x, there = torch.ones(3), torch.ones(3, device=GPU)
    draw = torch.Generator()
    for mistake in (
        lambda: x + there,
        lambda: there.add_(x),
        lambda: x[there.long()],
        lambda: torch.rand(3, generator=draw, device=GPU),
        lambda: there.uniform_(generator=draw),
        lambda: there.numpy(),
    ):
        with pytest.raises(WrongDeviceError):
            mistake()
    for wait in (
        lambda: there[0].item(),
        lambda: bool((there > 0).all()),
        lambda: there.nonzero(),
        lambda: there[there > 0],
        lambda: there[torch.tensor([0])],
        lambda: there.cpu(),
        lambda: there.tolist(),
        lambda: there.to("cpu", non_blocking=True),
        lambda: x.to(GPU, non_blocking=True),
        lambda: x.pin_memory().to(GPU),
        lambda: there.copy_(x),
        lambda: x.copy_(there),
        lambda: torch.tensor([1.0], device=GPU),
    ):
        gpu.waits.clear()
        wait()
        assert len(gpu.waits) == 1
    gpu.waits.clear()
    sent = x.pin_memory().to(GPU, non_blocking=True)
    assert gpu.has(sent + 2 * there.sum() + torch.tensor(1.0))
    assert (sent.is_cuda, sent.device, x.is_cuda, x.device) == (True, GPU, False, CPU)
    assert gpu.waits == []


def start(method, digits, device, **changes):
    extra = data.Split(digits.test.images[:3], digits.test.labels[:3])
    chosen = {
        **{"n_train": 16, "batch_size": 8, "augmentation": "crop-flip-cutout", "schedule": "onecycle", "swa_start": 0},
        **{"extra": "some.npz", "extra_fraction": 0.25, "settings": (("warmup", 0.0),) if method == "IAD" else ()},
    }
    spec = tiny_spec(method, **{**chosen, **changes})
    return Training(spec, digits, device, [small_network(device, seed=5) for _ in spec.teachers], extra)


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", methods.METHODS)
def test_a_gpu_trains_what_the_cpu_trains_and_no_step_waits_for_it(digits, gpu, method, precision):
    training, waits = start(method, digits, GPU, precision=precision), []
    gpu.waits.clear()
    loss = training.run_epoch(lambda: waits.append(list(gpu.waits))).loss
    assert waits == [[], []]
    assert gpu.autocasts == ({"cuda"} if precision == "bfloat16" else set())
    # at its end the losses and the weights are looked at, and torch's update_bn asks the norm's counter at each batch
    assert len(gpu.waits) == 3 + training.batches_per_epoch
    assert loss == pytest.approx(start(method, digits, CPU, precision=precision).run_epoch().loss, rel=1e-4)


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("least_as_rows", [0, 2**28])
def test_images_that_stay_on_the_host_reach_a_gpu_without_a_wait_and_train_the_same_bits(
    digits, gpu, monkeypatch, precision, least_as_rows
):
    monkeypatch.setattr(splits, "LEAST_AS_ROWS", least_as_rows)
    ended, waits = {}, []
    for data_on in ("device", "host"):
        with runtime.using(runtime.Settings(data_on=data_on)):
            training = start("PeerAiD", digits, GPU, precision=precision, n_train=30)  # extra images begin anew within
        assert [gpu.has(part.pixels) for part in (training._train, training._extra)] == [data_on == "device"] * 2
        gpu.waits.clear()
        training.run_epoch(lambda: waits.append(list(gpu.waits)))
        ended[data_on] = training.state()
    assert waits == [[]] * 6
    assert all(torch.equal(ended["host"][name].cpu(), value.cpu()) for name, value in ended["device"].items())


@pytest.mark.usefixtures("one_block", "gpu")
@pytest.mark.parametrize("method", ["Free-AT", "PeerAiD"])
@pytest.mark.parametrize("average", [{}, {"swa_start": None, "ema_decay": 0.9}])
def test_a_training_that_was_taken_from_a_gpu_goes_on_there(digits, method, average):
    training, again = (start(method, digits, GPU, **average) for _ in range(2))
    training.run_epoch()
    again.load_state({name: value.cpu() for name, value in training.state().items()}, 1)
    assert again.run_epoch() == training.run_epoch()
    ours, expected = again.weights(), training.weights()
    assert all(torch.equal(ours[role][name], w) for role, by_name in expected.items() for name, w in by_name.items())


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize(
    ("attack", "waits"),
    [
        (attacks.FGSM(0.1), 0),
        (attacks.FFGSM(0.1), 0),
        (attacks.PGD(0.1, 0.05, 3, start="gaussian"), 0),
        (attacks.PGD(0.1, 0.05, 3, loss="margin"), 0),
        (attacks.PGD(0.01, 0.01, 3, iterate="any"), 3),
        (attacks.PGD(0.01, 0.01, 2, restarts=3), 2),
        (attacks.MIFGSM(0.1, 0.05, 3), 0),
        (attacks.DeepFool(0.1, steps=3), 3),
    ],
    ids=str,
)
def test_an_attack_on_a_gpu_finds_what_it_finds_on_the_cpu_and_waits_once_a_step_at_most(digits, gpu, attack, waits):
    images, labels = some_digits(digits, small_network(CPU))
    expected = attack.examples(small_network(CPU), images, labels, torch.Generator().manual_seed(0))
    network, x, y, draw = small_network(GPU), images.to(GPU), labels.to(GPU), torch.Generator().manual_seed(0)
    gpu.waits.clear()
    found = attack.examples(network, x, y, draw)
    assert gpu.waits == ["aten.nonzero.default"] * waits
    assert gpu.has(found)
    assert torch.allclose(found.cpu(), expected, atol=1e-6)


@pytest.mark.parametrize("name", [f"{name}/16" for name in models.ARCHITECTURES])
def test_every_network_is_trained_and_attacked_on_a_gpu_without_a_wait(gpu, name):
    network = models.build(name, 10, [0.5] * 3, [0.5] * 3).on(GPU)
    x, y = torch.rand(2, 3, 16, 16, device=GPU), torch.zeros(2, dtype=torch.int64, device=GPU)
    gpu.waits.clear()
    examples = attacks.PGD(0.1, 0.1, 1).examples(network, x, y, torch.Generator())
    network.train()(examples).square().sum().backward()
    assert all(gpu.has(p.grad) for p in network.parameters())
    assert gpu.waits == []


@pytest.mark.usefixtures("one_block", "gpu")
@pytest.mark.parametrize(
    "attack",
    [None, attacks.PGD(0.1, 0.05, 2), autoattack.Square(0.1, queries=3, batch_size=5)],
    ids=str,
)
def test_an_evaluation_on_a_gpu_says_what_it_says_on_the_cpu(digits, attack):
    split = digits.test.take(slice(0, 12))
    kept, told = [], []
    for device in (CPU, GPU):
        student, peer = small_network(device), small_network(device, seed=1)
        kept.append(evaluation.logits([student, peer], split.images, split.labels, attack, batch_size=5))
        told.append(evaluation.correct_predictions([student], split.images, split.labels, attack))
    assert torch.allclose(*kept, atol=1e-5)
    assert torch.equal(*told)


@pytest.mark.usefixtures("one_block", "gpu")
def test_what_exhibits_measure_on_a_gpu_is_what_they_measure_on_the_cpu(digits):
    split, attack, found = digits.test.take(slice(0, 12)), attacks.PGD(0.1, 0.05, 1), []
    images, labels = some_digits(digits, small_network(CPU))
    for device in (CPU, GPU):
        guide, student = small_network(device, seed=1), small_network(device)
        direction = landscape.random_direction(guide, 0)
        (loss,) = landscape.losses_at(guide, [direction], [(0.5,)], landscape.adversarial_loss(split, attack))
        similar = features.similarities(guide, student, split.images, split.labels, attack)
        shown = embedding.penultimate(guide, images)
        gradient = gradients.input_gradients(student.double(), images.double().to(device), labels.to(device))
        measured = gradient, gradients.gini(gradient.abs()), gradients.picture(gradient)
        found.append([loss, similar, shown, *(tensor.cpu() for tensor in measured)])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert torch.allclose(on_cpu, on_gpu, atol=1e-5)


@pytest.mark.usefixtures("one_block", "gpu")
def test_what_exhibits_ask_of_snapshots_is_answered_alike_on_a_gpu():
    spec, images, attack = tiny_spec("PeerAiD"), Images("digits", n=12), attacks.PGD(0.1, 0.05, 1)
    student, peer = Snapshot(spec), Snapshot(spec, "peer")
    both = {"images": images, "network": peer, "student": student}
    tasks = [
        features.Similarities(images=images, guide=peer, student=student, attack=attack),
        landscape.LossesAround(images=images, snapshot=peer, draws=(0,), places=((0.5,),), attack=attack),
        embedding.Embedded(**both, attack=attack, resamplings=2, seed=0),
        gradients.InputGradients(**both, shown=(0, 5)),
    ]
    found = []
    for device in (CPU, GPU):

        def load(snapshot, device=device):
            return small_network(device, seed=int(snapshot == peer))

        split = images.split()
        *measured, features_of, gradients_of = [task.value(task.measured(load, split), split) for task in tasks]
        measured += [torch.from_numpy(scores.resampled) for scores in features_of.scores.values()]
        found.append([*measured, *gradients_of.values.values(), gradients_of.pictures])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert torch.allclose(on_cpu, on_gpu, atol=1e-5)


@pytest.mark.usefixtures("one_block", "store", "gpu")
def test_a_run_is_trained_kept_and_measured_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a pretended GPU")
    spec = tiny_spec("PeerAiD", n_train=16, batch_size=8, n_val=8)
    run = runs.ensure(spec)
    assert [environment["device"] for environment in run.record["environments"]] == ["a pretended GPU"]
    assert runs.select(run, "val", attacks.FGSM(0.1)).load().head.weight.is_cuda


def test_fresh_weights_leave_the_gpus_generators_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    models.build("resnet18/16", 10, [0.5], [0.5], seed=3)
    assert seeded == []
