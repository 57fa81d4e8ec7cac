"""One training by several processes: the same weights whatever their number, and no harm if one of them is killed."""

import json
import re
import signal
import subprocess
import sys
import threading
from copy import deepcopy

import groups
import psutil
import pytest
import torch
from clusters import LONGEST, environment, wait_until, written_by
from conftest import ROOT, tiny_spec
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import update_bn

from rkdkit import attacks, runs
from rkdkit.determinism import generator
from rkdkit.group.batch_norm import WholeBatchNorm2d, over_whole_batches
from rkdkit.group.leading import sent
from rkdkit.group.processes import GroupError, _device
from rkdkit.group.shares import ALONE, Shares
from rkdkit.store import Store
from rkdkit.training import Training

SEVERAL = [size for size in groups.SIZES if size > 1]
ROUNDING = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 5e-3}
"""How far weights, statistics and momentum may be from those of one process after two epochs."""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What groups of processes wrote, see `groups.main`."""
    return written_by("groups.py", tmp_path_factory.mktemp("groups"))


def differ(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one if name != "loss")


@pytest.mark.parametrize("i", range(len(groups.CASES)), ids=[case.name for case in groups.CASES])
def test_any_number_of_processes_trains_to_the_same_weights(done, i):
    case = groups.CASES[i]
    alone, before = (load_file(done / f"{i}-1-{what}") for what in ("last", "first"))
    for part in (".weight", "running_mean", "running_var", "num_batches_tracked", "momentum."):
        there = [name for name in before if part in name and name.startswith(("student.", "peer.", "momentum."))]
        assert there, f"{part} is compared"
        assert all(not torch.equal(alone[name], before[name]) for name in there), f"{part} moves"
    assert {value.dtype for value in alone.values()} == {torch.int64, torch.float64, case.dtype}
    allowed = ROUNDING["bfloat16" if case.spec.precision == "bfloat16" else str(case.dtype).partition(".")[2]]
    for size in SEVERAL:
        for what in ("last", "resumed") if size == 2 else ("last",):
            theirs = load_file(done / f"{i}-{size}-{what}")
            assert differ(alone, theirs) < allowed, f"{size} processes, {what}"
            assert float(theirs["loss"]) == pytest.approx(float(alone["loss"]), rel=1e-3 if allowed > 1e-3 else 1e-5)
        with groups.precise(case.dtype):
            resumed = groups.training_of(case, ALONE)
            resumed.load_state(load_file(done / f"{i}-{size}-first"), 1)
            assert differ(alone, groups.after(resumed, resumed.run_epoch().loss)) < allowed, f"one goes on after {size}"


def test_all_methods_readings_and_parts_of_a_state_are_compared(done):
    names = {name for i in range(len(groups.CASES)) for name in load_file(done / f"{i}-4-last")}
    assert {name.partition(".")[0] for name in names} == {
        *("student", "peer", "momentum", "averaged", "delta", "kept", "loss")
    }
    assert {case.spec.batch_size % size for case in groups.CASES for size in SEVERAL} == {0, 1, 3}


SAID = {
    "code": "All processes need the same code of rkdkit. That of process 1 .* is 'other'",
    "command": "All processes need the same command line. That of process 1 .* is 'train tab9'",
    "data": "Process 1 .*: it finds other data as folder:squares .* than the first process",
    "no_data": "Process 1 .*: folder:squares was looked for in .*nowhere",
    "method": "Process 1 .*: its method 'mine' is another than the first process's",
    "workers": "A launcher started several processes, which share each training.*leave one of the two.",
    "few_images": "3 processes cannot share batches of 2 images, as PGD-AT .* has them: start 2 at most.",
    "memory": "Process 1 .*: There was too little memory.*goes on from there.",
    "memory_of_the_first": "There was too little memory.*goes on from there.",
    "told_to_end": "Process 1 .*: There was too little memory.*goes on from there.",
    "interrupted": "Stopped. What is trained is kept.*",
    "disk": "The disk is full.",
    "diverged": "diverged",
    "nothing": "",
}


@pytest.mark.parametrize("name", groups.SCENARIOS)
def test_what_is_wrong_with_a_process_is_said_once_and_all_end(done, name):
    logs = [path.read_text() for path in sorted(done.glob(f"log-{name}-*"))]
    said = [line for log in logs for line in log.splitlines() if line.strip()]
    assert len(said) == (name != "nothing"), said
    assert re.match(SAID[name], "".join(said)), said
    codes = json.loads((done / "ended.json").read_text())[name]
    assert bool(codes[0]) == (name not in ("diverged", "nothing"))
    store = Store(done / f"store-{name}")
    records = [json.loads(path.read_text())["content"] for path in store.root.glob("runs/*/run.json")]
    in_the_second = ("memory", "memory_of_the_first", "told_to_end", "interrupted")
    finished = {"disk": [0], "diverged": [1, 1], **{each: [1] for each in in_the_second}}
    assert sorted(record["finished"] for record in records) == finished.get(name, [3] if name == "nothing" else [])
    assert all(record["environments"][0]["processes"] == 2 for record in records)


KILLED = """
import time, conftest, groups
from rkdkit import models
from rkdkit.training import Training
models.ARCHITECTURES["resnet18"] = lambda _, **shape: conftest.OneBlock(**shape)
run_epoch = Training.run_epoch
Training.run_epoch = lambda self, *given: (time.sleep(0.3), run_epoch(self, *given))[1]
groups.ensure(groups.tiny(epochs=60))
"""


def test_one_of_four_is_killed_and_the_training_goes_on_alone(tmp_path, monkeypatch, one_block):  # noqa: ARG001
    """By torchrun itself, with real processes."""
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    store, spec = Store(tmp_path / "store"), groups.tiny(epochs=60)
    command = ["torch.distributed.run", "--local-addr", "127.0.0.1", "--nproc-per-node", "4", str(program)]
    launcher = subprocess.Popen(
        [sys.executable, "-m", *command], env=environment(store.root), stderr=subprocess.PIPE, text=True
    )

    def finished():
        record = store.run_folder(spec).read_record()
        return record["finished"] if record else 0

    try:
        wait_until(lambda: finished() >= 1, "the first epoch is done")
        members = {int(each.environ()["RANK"]): each for each in psutil.Process(launcher.pid).children()}
        assert sorted(members) == [0, 1, 2, 3]
        members[2].send_signal(signal.SIGKILL)
        said = launcher.communicate(timeout=LONGEST)[1]  # by far less than processes.PATIENCE
    finally:
        launcher.terminate()
        launcher.wait()
    assert launcher.returncode
    assert not any(each.is_running() for each in members.values())
    assert said.count("One of the 4 processes ended before the others") == 1, said
    assert said.count("Traceback") == said.count("raise ChildFailedError") == 1, "torchrun's own"
    kept = finished()
    assert 1 <= kept < 60
    monkeypatch.setenv("RKDKIT_STORE", str(store.root))
    history = runs.ensure(spec).record["history"]
    assert [epoch.get("processes", 1) for epoch in history] == [4] * kept + [1] * (60 - kept)
    environments = runs.ensure(spec).record["environments"]
    assert [each.get("processes", 1) for each in environments] == [4, 1]


def test_the_command_trains_by_two_processes(tmp_path):
    command = ["torch.distributed.run", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command += ["-m", "rkdkit", "train", "fig1"]
    command += ["--profile", "smoke", "-p", "epochs=1", "-p", "n_train=64", "-p", "n_test=32"]
    ended = subprocess.run(
        [sys.executable, "-m", *command], env=environment(tmp_path / "store"),
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert not ended.returncode, ended.stderr[-3000:]
    assert ended.stderr.count("Done: ") == 1
    records = [json.loads(path.read_text())["content"] for path in (tmp_path / "store").glob("runs/*/run.json")]
    assert records
    assert all(epoch["processes"] == 2 for record in records for epoch in record["history"])


@pytest.mark.parametrize(("rank", "said"), [("0", "`rkdkit list` is for one process, and 2 were started."), ("1", "")])
def test_other_commands_are_for_one_process(tmp_path, rank, said):
    given = environment(tmp_path, RANK=rank, WORLD_SIZE="2")
    ended = subprocess.run([sys.executable, "-m", "rkdkit", "list"], env=given, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(said)
    assert bool(ended.stderr) == bool(said)


class Threads(Shares):
    """Shares of threads, which exchange tensors at a barrier."""

    def __init__(self, rank, size, barrier, table):
        self.rank, self.size, self.barrier, self.table = rank, size, barrier, table

    def gather(self, tensor):
        self.table[self.rank] = tensor.clone()
        self.barrier.wait(20)
        everybody = list(self.table)
        self.barrier.wait(20)
        return everybody

    def add(self, tensor):
        return tensor.copy_(torch.stack(self.gather(tensor)).sum(0))

    def send_first(self, tensor):
        return tensor.copy_(self.gather(tensor)[0])


def by_threads(size, what):
    """Return what `what(shares)` returns in each of several threads."""
    barrier, table, answers = threading.Barrier(size), [None] * size, [None] * size

    def run(rank):
        try:
            answers[rank] = what(Threads(rank, size, barrier, table))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer is not None for answer in answers)
    return answers


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_a_batch_norm_over_shares_has_the_gradient_and_statistics_of_the_whole_batch(dtype, rounding, mean, momentum):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(11, 5, 3, 2, dtype=dtype, generator=random) * torch.arange(1, 6).view(1, 5, 1, 1) + mean
    upstream = torch.randn(x.shape, dtype=dtype, generator=random)
    plain = nn.BatchNorm2d(5, momentum=momentum).to(dtype)
    with torch.no_grad():
        plain.weight.uniform_(-2, 2, generator=random)
        plain.bias.uniform_(-1, 1, generator=random)
    twin = deepcopy(plain)
    whole = x.clone().requires_grad_()
    for _ in range(2):
        out = plain(whole)
        (out.square() * upstream).sum().backward()

    def shared(shares):
        norm = over_whole_batches(nn.Sequential(deepcopy(twin)), shares)[0]
        assert isinstance(norm, WholeBatchNorm2d)
        mine = shares.of_batch(len(x))
        part = x[mine].contiguous(memory_format=torch.channels_last).requires_grad_()
        for _ in range(2):
            answer = norm(part)
            (answer.square() * upstream[mine]).sum().backward()
        shares.add_gradients(norm.parameters())
        assert answer.is_contiguous(memory_format=torch.channels_last)
        return answer.detach(), part.grad, norm

    answers = by_threads(3, shared)
    scale = 1 + whole.grad.abs().max() if mean == 0 else 1e3 * whole.grad.abs().max()
    assert torch.allclose(torch.cat([answer for answer, _, _ in answers]), out, atol=rounding * max(1, mean / 10))
    assert torch.allclose(torch.cat([grad for _, grad, _ in answers]), whole.grad, atol=float(rounding * scale))
    for _, _, norm in answers:
        assert norm.state_dict().keys() == plain.state_dict().keys()
        for name, value in plain.state_dict().items():
            assert torch.allclose(norm.state_dict()[name], value, rtol=rounding), name
        assert torch.equal(norm.eval()(x), norm.eval()(x.clone()))
        for ours, theirs in zip(norm.parameters(), plain.parameters(), strict=True):
            assert torch.allclose(ours.grad, theirs.grad, rtol=rounding, atol=float(rounding * scale))


def test_averaged_weights_get_the_statistics_of_whole_batches():
    batches = [torch.randn(7, 3, 4, 4, dtype=torch.float64) + i for i in range(3)]
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double()
    expected = deepcopy(network)
    update_bn(batches, expected)

    def shared(shares):
        ours = over_whole_batches(deepcopy(network), shares)
        update_bn([batch[shares.of_batch(7)] for batch in batches], ours)
        return ours.state_dict()

    for state in by_threads(2, shared):
        assert all(torch.allclose(state[name], value, atol=1e-12) for name, value in expected.state_dict().items())


def test_all_gradients_go_in_one_message_whatever_their_strides():
    shapes = [(4, 3, 3, 3), (5,), (2, 3, 1, 1)]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(2)]

    def summed(shares):
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
        parameters[0].data = parameters[0].data.contiguous(memory_format=torch.channels_last)
        for parameter, gradient in zip(parameters, gradients[shares.rank], strict=True):
            strided = torch.empty_like(parameter)
            parameter.grad = strided.copy_(gradient)
        unused = nn.Parameter(torch.zeros(3))
        shares.add_gradients([*parameters, unused])
        assert unused.grad is None
        assert parameters[0].grad.stride() == parameters[0].stride()
        return [parameter.grad for parameter in parameters]

    for answer in by_threads(2, summed):
        for ours, *theirs in zip(answer, *gradients, strict=True):
            assert torch.allclose(ours, sum(theirs))


@pytest.mark.parametrize(("n", "size"), [(19, 4), (8, 3), (4, 4), (1, 1)])
def test_shares_are_the_whole_batch_in_order(n, size):
    whole = torch.arange(n)
    parts = [whole[Threads(rank, size, None, None).of_batch(n)] for rank in range(size)]
    assert torch.equal(torch.cat(parts), whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("start", ["uniform", "gaussian"])
def test_an_attack_starts_where_the_whole_batch_would(start):
    images = torch.rand(19, 1, 3, 3)
    attack = attacks.PGD(0.1, 0.1, 0, start)
    twice = generator(1, 1, "attack start")
    whole = [attack.perturb(nn.Identity(), images, torch.sum, twice) for _ in range(2)]
    parts = []
    for rank in range(4):
        shares = Threads(rank, 4, None, None)
        drawing = shares.of_draws(generator(1, 1, "attack start"), 19)
        parts.append([attack.perturb(nn.Identity(), images[shares.of_batch(19)], torch.sum, drawing) for _ in range(2)])
    for which in range(2):
        assert torch.equal(torch.cat([part[which] for part in parts]), whole[which])


def test_networks_are_neither_compiled_nor_shared_by_more_processes_than_a_batch_has_images(digits, monkeypatch):
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    spec, cpu = tiny_spec(batch_size=2), torch.device("cpu")
    assert not Training(spec, digits, cpu, shares=Threads(0, 2, None, None)).compiled
    with pytest.raises(ValueError, match="3 processes cannot share batches of 2 images"):
        Training(spec, digits, cpu, shares=Threads(0, 3, None, None))
    with pytest.raises(ValueError, match="200 processes cannot share batches of 128 images"):
        Training(tiny_spec(batch_size=1000), digits, cpu, shares=Threads(0, 200, None, None))


def test_on_a_gpu_torchs_own_norm_is_taken_and_in_eval_mode_none(monkeypatch):
    class OnGpu(torch.Tensor):
        is_cuda = True

    norm = over_whole_batches(nn.Sequential(nn.BatchNorm2d(3)), Threads(0, 2, None, None))[0]
    x = torch.rand(2, 3, 4, 4).as_subclass(OnGpu)
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda *_: "torch's own")
    assert norm(x) == "torch's own"
    assert isinstance(norm.eval()(x), torch.Tensor)


@pytest.mark.parametrize(("processes", "fits"), [("2", True), ("3", False)])
def test_each_process_has_a_gpu_of_its_own(monkeypatch, processes, fits):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.setenv("LOCAL_RANK", "1")
    if fits:
        assert [_device()] == chosen == [torch.device("cuda", 1)]
    else:
        with pytest.raises(GroupError, match="3 processes were started on a machine of 2 GPUs: start one for each"):
            _device()


def test_a_teacher_from_elsewhere_cannot_be_sent():
    with pytest.raises(GroupError, match="module from elsewhere"):
        sent([nn.Linear(2, 2)])
