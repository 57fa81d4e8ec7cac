"""That an attack may be captured as a graph: the graph of a pretended device is the list of operations itself.

It is replayed on the very tensors that it was captured on, as a GPU does. So what is wrong in a real graph is wrong in
this one: a number that the host looked at, a tensor that is not where it was, a start that was drawn within.
"""

import weakref
from contextlib import contextmanager

import pytest
import torch
from conftest import tiny_spec
from test_cuda import GPU, gpu, start  # noqa: F401
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rkdkit import attacks, data, graphs, methods, models, runs, runtime
from rkdkit.modes import folded_for_inference
from rkdkit.training import Training

CPU = torch.device("cpu")
WITH_PGD = [name for name, row in methods.METHODS.items() if row.maximises]
READ = [*((name, "paper") for name in WITH_PGD), *((name, "code") for name in WITH_PGD if methods.METHODS[name].code)]
"""Every method that attacks by PGD, and those whose code does so otherwise, as in train mode."""


class Tape(TorchDispatchMode):
    """Notes operations with their tensors, and does them again on the same ones.

    Attributes
    ----------
    operations : the function, its arguments, and its results, one by one.
    """

    def __init__(self):
        super().__init__()
        self.operations, self._own, self._before = [], set(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for value in tree_leaves((args, kwargs)):  # all: batch norm does not declare that it writes
            if isinstance(value, Tensor) and value.untyped_storage()._cdata not in self._own | set(self._before):
                self._before[value.untyped_storage()._cdata] = (value.detach(), value.detach().clone())
        out = func(*args, **kwargs)
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.untyped_storage()._cdata not in given]
        self._own |= {t.untyped_storage()._cdata for t in made}
        self.operations.append((func, args, kwargs, out, bool(made)))
        return out

    def undo(self):
        """Let everything that was there before be as it was: capturing does nothing."""
        for tensor, before in self._before.values():
            tensor.copy_(before)

    def replay(self):
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, out, made in self.operations:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True) if made else ():
                    if isinstance(old, Tensor) and old is not new:
                        old.copy_(new)


class Taped:
    """Captures on a CPU; `made` has the results of each graph so far, and `warm` how often work was done for once."""

    def __init__(self):
        self.made, self.warm, self.results = [], 0, []

    def warmed_up(self, work):
        self.warm += 1
        return work()

    def captured(self, work):
        tape = Tape()
        with tape:
            result = work()
        with torch.no_grad():
            tape.undo()
            result.detach().fill_(torch.nan)  # nobody has computed it yet
        addresses = []
        self.made.append(addresses)

        def replay():
            tape.replay()
            addresses.append(result.data_ptr())
            return result

        return replay


@pytest.fixture
def taped(monkeypatch):
    """Let a CPU, and a pretended GPU, capture graphs."""
    taken = []

    def device():
        taken.append(Taped())
        return taken[-1]

    monkeypatch.delenv("RKDKIT_GRAPHS", raising=False)
    monkeypatch.setattr(runtime, "DEVICES", {"cpu": device, "cuda": device})
    return taken


def trained(method, reading, digits, mode, device=CPU, **changes):
    """Train two epochs of four steps; return the losses, the weights, and the training."""
    row = methods.get(method, reading)
    settings = (("warmup", 0.0),) if "IAD" in method else ()
    how = {"n_train": 32, "n_val": 0, "batch_size": 8, "attack_steps": 3, "reading": reading, "settings": settings}
    spec = tiny_spec(method, **{**how, **changes})
    teachers = [models.build("resnet18/16", 10, [0.5], [0.5], seed=5).on(device).eval() for _ in row.guides]
    with runtime.using(runtime.Settings("off", graphs=mode)):
        training = Training(spec, digits, device, teachers)
    losses = [training.run_epoch().loss for _ in range(2)]
    return losses, training.state(), training


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize(("method", "reading"), READ)
def test_a_captured_attack_trains_to_the_same_bits(digits, taped, method, reading):
    losses, state, plain = trained(method, reading, digits, "off")
    assert plain.graphs is None
    assert taped == []
    ours, found, training = trained(method, reading, digits, "on")
    (device,) = taped
    attacked = len(methods.get(method, reading).maximises)
    # AdaAD's teacher is folded again in each epoch, elsewhere in memory; a second graph may have to be captured then
    assert device.warm == len(device.made)
    assert device.warm in ((attacked, 2 * attacked) if "AdaAD" in method else (attacked,))
    assert sum(map(len, device.made)) == 8 * attacked - device.warm
    assert all(len(set(addresses)) == 1 for addresses in device.made)
    assert training.graphs is not None
    assert ours == losses
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("method", "reading"), READ)
def test_a_gpus_graphs_train_to_the_same_bits(digits, method, reading, precision):
    plain, by_graphs = (trained(method, reading, digits, mode, GPU, precision=precision) for mode in ("off", "on"))
    assert by_graphs[2].graphs is not None
    assert by_graphs[0] == plain[0]
    assert all(torch.equal(by_graphs[1][name], value) for name, value in plain[1].items())


def test_a_real_network_in_bfloat16_trains_to_the_same_bits(digits, taped):
    how = {"precision": "bfloat16", "n_train": 24, "attack_steps": 2}
    losses, state, _ = trained("PeerAiD", "paper", digits, "off", **how)
    ours, found, _ = trained("PeerAiD", "paper", digits, "on", **how)
    assert [len(device.made) for device in taped] == [1]
    assert ours == losses
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("method", WITH_PGD)
def test_no_captured_step_waits_for_a_gpu(digits, gpu, taped, method):  # noqa: F811
    with runtime.using(runtime.Settings(graphs="on")):
        training = start(method, digits, GPU)
    training.run_epoch()
    waits = []
    gpu.waits.clear()
    training.run_epoch(lambda: waits.append(list(gpu.waits)))
    assert waits == [[], []]
    (device,) = taped
    assert device.made


def network():
    return models.build("resnet18/16", 10, [0.5], [0.5]).on(CPU)


def doubled(graphs, x, name="doubled", of=None):
    return graphs.call(name, lambda x: 2 * x, [x], of or nn.Identity())


def test_a_result_stays_what_it_was_when_the_graph_is_replayed():
    captures = graphs.Graphs(Taped())
    results = [doubled(captures, torch.full((2,), float(n))) for n in range(4)]
    assert [result[0].item() for result in results] == [0, 2, 4, 6]


def test_what_a_call_is_given_is_not_changed():
    captures, given = graphs.Graphs(Taped()), [torch.full((3,), float(n)) for n in range(4)]
    for x in given:
        captures.call("grows", lambda x: x + 1, [x], nn.Identity())
    assert [x[0].item() for x in given] == [0, 1, 2, 3]


def test_another_shape_layout_or_type_is_captured_anew():
    device = Taped()
    captures, image = graphs.Graphs(device), torch.rand(4, 3, 2, 2)
    others = [image[:2], image.contiguous(memory_format=torch.channels_last), image.double()]
    for x in (image, *others):
        for _ in range(3):
            assert torch.equal(doubled(captures, x), 2 * x)
    assert (device.warm, len(device.made)) == (4, 4)


def test_a_network_whose_weights_are_elsewhere_is_captured_anew():
    device, moved = Taped(), nn.Linear(2, 2)
    captures, x = graphs.Graphs(device), torch.rand(1, 2)
    for _ in range(2):
        for _ in range(3):
            assert torch.equal(captures.call("answers", moved, [x], moved), moved(x))
            with torch.no_grad():
                moved.weight.add_(1)  # as an optimiser: where it is
        moved.weight = nn.Parameter(moved.weight + 1)
    assert (device.warm, len(device.made)) == (2, 2)


def test_a_gpu_warms_up_and_captures_on_one_stream_beside_the_trainings(monkeypatch):
    calls = []

    class Stream:
        def __init__(self, name="aside"):
            self.name = name

        def wait_stream(self, other):
            calls.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self):
            calls.append("replays")

    @contextmanager
    def within(what):
        calls.append(what)
        yield
        calls.append("ends")

    training_stream = Stream("training")
    for name, stands_in in {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "current_stream": lambda: training_stream,
        "stream": lambda stream: within(f"on {stream.name}"),
        "graph": lambda _, stream: within(f"captures on {stream.name}"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stands_in)
    captures = graphs.Graphs(graphs.DEVICES["cuda"]())
    for _ in range(3):
        doubled(captures, torch.ones(2))
    warming = ["aside waits for training", "on aside", "ends", "training waits for aside"]
    assert calls == [*warming, "captures on aside", "ends", "replays", "replays"]


def test_one_name_has_one_graph():
    device = Taped()
    captures = graphs.Graphs(device)
    for _ in range(2):
        doubled(captures, torch.ones(2))
    kept = weakref.ref(captures._held["doubled"].inputs[0])
    doubled(captures, torch.ones(3))
    assert kept() is None
    for _ in range(2):
        captures.call("thrice", lambda x: 3 * x, [torch.ones(2)], nn.Identity())
    assert len(device.made) == 2


def test_the_tape_shows_what_a_graph_gets_wrong():
    captures, found = graphs.Graphs(Taped()), []
    for n in (1.0, 1.0, -2.0):
        x = torch.full((2,), n)
        found.append(captures.call("decides", lambda x: x + 0 if x.sum() > 0 else -x, [x], nn.Identity())[0].item())
    assert found == [1, 1, -2], "the host decided when it was captured"
    captures, found = graphs.Graphs(Taped()), []
    for n in range(3):
        other = torch.full((2,), float(n))
        found.append(captures.call("reads", lambda x, o=other: x + o, [torch.zeros(2)], nn.Identity())[0].item())
    assert found == [0, 1, 1], "a tensor that is not one of those given"


def test_the_folded_weights_of_a_graph_follow_the_networks_own(digits):
    attacked, device = network(), Taped()
    captures, attack = graphs.Graphs(device), attacks.PGD(0.25, 0.1, 2)
    images, labels = data.to_float(digits.test.images[:6]), digits.test.labels[:6]

    def examples(call):
        def objective(logits, y):
            return attacks.cross_entropy_objective(y)(logits)

        draw = torch.Generator().manual_seed(0)
        return attack.perturb(attacked, images, objective, draw, given=[labels], call=call)

    for step in range(4):
        expected = examples(None)
        assert torch.equal(examples(lambda *asked: captures.call("attack", *asked)), expected), step
        with torch.no_grad():
            for tensor in [*attacked.parameters(), *attacked.buffers()]:
                tensor.copy_(1.1 * tensor)
    assert len(device.made) == 1
    with folded_for_inference(attacked), torch.no_grad():
        assert attacked(images).isfinite().all()


def test_a_cpu_that_is_asked_for_graphs_says_what_to_do(digits, monkeypatch):
    monkeypatch.setenv("RKDKIT_GRAPHS", "on")
    with pytest.raises(RuntimeError, match=r"RKDKIT_GRAPHS is on, but only a GPU \(cuda\).*cpu: set RKDKIT_GRAPHS"):
        Training(tiny_spec(), digits, CPU)


@pytest.mark.usefixtures("one_block", "taped")
def test_auto_captures_nothing_before_it_was_tried(monkeypatch):
    for device in (CPU, GPU):
        assert runtime.graphs(device, [network()]) is None
    monkeypatch.setattr(runtime, "GRAPHS_PAY", frozenset({"cuda"}))
    assert runtime.graphs(GPU, [network()]) is not None
    assert runtime.graphs(CPU, [network()]) is None
    monkeypatch.setenv("RKDKIT_GRAPHS", "off")
    assert runtime.graphs(GPU, [network()]) is None
    monkeypatch.setenv("RKDKIT_GRAPHS", "on")
    assert runtime.graphs(GPU, [network(), nn.Linear(2, 2)]) is None, "a network from elsewhere"


@pytest.mark.usefixtures("one_block", "taped", "store")
def test_a_record_says_that_attacks_were_captured(monkeypatch):
    spec = tiny_spec("PGD-AT", n_train=16, batch_size=8, n_val=0)
    monkeypatch.setenv("RKDKIT_GRAPHS", "on")
    assert [environment["graphs"] for environment in runs.ensure(spec).record["environments"]] == [True]
    monkeypatch.setenv("RKDKIT_GRAPHS", "off")
    (environment,) = runs.ensure(tiny_spec("PGD-AT", n_train=16, batch_size=8, n_val=0, seed=1)).record["environments"]
    assert "graphs" not in environment
