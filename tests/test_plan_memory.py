"""Where a device's memory ends: what is counted is what autograd keeps, and the batch that fits, fits."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch
from conftest import tiny_spec
from typer.testing import CliRunner

from rkdkit import cli, data, executors, plan, runtime
from rkdkit.plan import cost, report
from rkdkit.plan import memory as counting
from rkdkit.spec import Teacher
from rkdkit.training import fresh_networks
from rkdkit.trainings import Train

CPU = torch.device("cpu")
GIB = 2**30


def kind_of(method, **changes):
    return cost.Costs().kind(tiny_spec(method, **{"attack_steps": 1, "epochs": 4, **changes}))


class Kept:
    """What autograd keeps of tensors that are no network's: bytes, each storage once, and the most there were."""

    def __init__(self, networks):
        self.most = self._now = 0
        self._of_networks = {t.untyped_storage().data_ptr() for n in networks for t in n.state_dict().values()}
        self._users = {}

    def pack(self, tensor):
        storage, holder = tensor.untyped_storage(), torch.nn.Identity()
        holder.tensor = tensor
        at, size = storage.data_ptr(), storage.nbytes()
        if at not in self._of_networks:
            self._now += size * (not self._users.get(at))
            self._users[at] = self._users.get(at, 0) + 1
            self.most = max(self.most, self._now)
            weakref.finalize(holder, self._gone, at, size)
        return holder

    def _gone(self, at, size):
        self._users[at] -= 1
        self._now -= size * (not self._users[at])


def kept_by_autograd(kind):
    dataset = cost.Costs().noise(kind.dataset, 2 * kind.batch_size)
    networks = fresh_networks(kind, dataset)
    kept = Kept(networks.values())
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda holder: holder.tensor):
        cost.take_steps(kind, dataset, CPU, networks, [], lambda: True)
    return kept.most, sum(p.nbytes for network in networks.values() for p in network.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("method", "points"), [("Natural", 1), ("TRADES", 2), ("PeerAiD", 3)])
def test_what_is_counted_is_what_autograd_keeps_of_all_points_of_the_loss(method, points, precision):
    kept, counted = {}, {}
    sizes = {"student": "resnet18/8", "precision": precision, "n_train": 512}
    for batch in (128, 256):
        kind = kind_of(method, batch_size=batch, **sizes, **({"peer": "resnet18/8"} if method == "PeerAiD" else {}))
        kept[batch], weights = kept_by_autograd(kind)
        counted[batch] = cost.Costs().memory_of_step(kind)
        # weights, momentum and gradients beside it, and what the way back holds for a moment
        assert weights < counted[batch] - kept[batch] < 4 * weights + 0.15 * kept[batch]
    of_an_image = [(each[256] - each[128]) / 128 for each in (kept, counted)]
    assert 0.95 < of_an_image[1] / of_an_image[0] < 1.1
    of_one_point, _ = kept_by_autograd(kind_of("Natural", batch_size=128, **sizes))
    assert kept[128] == pytest.approx(points * of_one_point, rel=0.02)


def needs(size, *specs):
    return counting.memory(cost.Costs(), specs, int(size)).needs


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("method", ["PGD-AT", "PeerAiD"])
def test_the_largest_batch_fits_and_a_larger_one_does_not(method):
    spec = tiny_spec(method, n_train=1200, n_val=0, swa_start=1)
    kind = dataclasses.replace(cost.Costs().kind(spec), attack_steps=1)
    (found,) = needs(GIB, spec)
    assert found.largest == {"float32": 1200, "bfloat16": 1200}
    assert found.images == 1200 * 64
    for share in (0.8, 3):
        (need,) = needs(share * found.peaks["float32"], spec)
        assert need.peaks == found.peaks
        for precision, largest in need.largest.items():
            assert 4 < largest < 1200
            room = (
                share * found.peaks["float32"] - found.images - 4 * cost.Costs().of(spec.student, "digits").parameters
            )

            def memory(batch, precision=precision):
                return cost.Costs().memory_of_step(dataclasses.replace(kind, precision=precision, batch_size=batch))

            assert memory(largest) <= room * 1.001
            assert memory(largest + largest // 10) > room or share < 1, "below the batch, there may be more"
    (need,) = needs(found.images + 1000, spec)
    assert need.largest == {"float32": 0, "bfloat16": 0}


@pytest.mark.usefixtures("one_block")
def test_trainings_that_need_the_same_are_one_line():
    same = [tiny_spec("PGD-AT"), tiny_spec("PGD-AT", seed=3, eps=0.1, lr=0.1, precision="bfloat16", attack_steps=7)]
    others = [tiny_spec("PGD-AT", batch_size=32), tiny_spec("PGD-AT", n_train=100), tiny_spec("PGD-AT", ema_decay=0.9)]
    found = needs(GIB, *same, *others)
    assert [need.batch_size for need in found] == [64, 32, 64, 64]
    assert [need.images // 64 for need in found] == [128, 128, 100, 128]
    plain, averaged = found[0], found[3]
    parameters = cost.Costs().of("resnet18/16", "digits").parameters
    for precision, peak in plain.peaks.items():
        assert averaged.peaks[precision] - peak == 4 * parameters
    assert plain.peaks["bfloat16"] < plain.peaks["float32"]


@pytest.mark.usefixtures("one_block")
def test_teachers_and_peers_are_named():
    taught = tiny_spec("ARD", teachers=(Teacher(run=tiny_spec("TRADES", student="resnet18/8")),))
    names = [need.name for need in needs(GIB, taught, tiny_spec("PeerAiD"), tiny_spec("PGD-AT"))]
    assert names == ["ARD resnet18/16 with resnet18/8", "PeerAiD resnet18/16 with resnet18/16", "PGD-AT resnet18/16"]


@pytest.mark.usefixtures("one_block")
def test_images_that_stay_on_the_host_take_nothing_of_the_device(monkeypatch):
    monkeypatch.setattr(runtime, "LEAST_ON_HOST", 0)
    spec = tiny_spec("PGD-AT")
    assert [need.images for size in (4 * 128 * 64, 4 * 128 * 64 - 8) for need in needs(size, spec)] == [128 * 64, 0]
    with runtime.using(runtime.Settings(data_on="host")):
        assert [need.images for need in needs(GIB, spec)] == [0]


@pytest.mark.usefixtures("one_block", "store")
def test_extra_images_of_a_file_count_where_it_is_here_and_are_named_where_not(tmp_path, monkeypatch):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    spec = tiny_spec("PGD-AT", extra="more.npz", extra_fraction=0.5)
    drawn = dataclasses.replace(spec, extra="gaussian-mixture:500")

    def said():
        planner = plan.Planner()
        with executors.using(planner):
            planner.gather([Train(spec), Train(drawn)])
        text = plan.count(planner, calibrated=False, device_memory=GIB).text()
        assert "not on this machine" not in plan.count(planner, calibrated=False).text()
        return "more.npz is not on this machine" in " ".join(text.split())

    assert [need.images for need in needs(GIB, spec, drawn)] == [128 * 64, 628 * 64]
    assert said()
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "more.npz", label=np.zeros(300, np.int64), image=np.zeros((300, 8, 8, 1), np.uint8))
        assert [need.images for need in needs(GIB, spec, drawn)] == [428 * 64, 628 * 64]
        assert not said()
    monkeypatch.setattr(runtime, "LEAST_ON_HOST", 0)
    assert [need.images for need in needs(4 * 200 * 64, spec)] == [128 * 64], "the others stay on the host"
    for damaged in (b"", b"PK", (tmp_path / "more.npz").read_bytes()[:200]):
        (tmp_path / "more.npz").write_bytes(damaged)
        assert data.number_of_extra("more.npz") == 0
    assert data.number_of_extra("") == 0


@pytest.mark.usefixtures("one_block", "store")
def test_a_plan_says_it_where_a_device_is_named():
    planner = plan.Planner()
    with executors.using(planner):
        planner.gather([Train(tiny_spec("PGD-AT"))])
    assert "Memory of a device" not in plan.count(planner, calibrated=False).text()
    text = plan.count(planner, calibrated=False, device_memory=GIB).text()
    (line,) = (line for line in text.splitlines() if line.startswith("PGD-AT resnet18/16"))
    (need,) = needs(GIB, tiny_spec("PGD-AT"))
    peaks = [report.memory_size(need.peaks[precision]) for precision in ("float32", "bfloat16")]
    assert line.split("  ")[-1].strip() == "never"
    assert [cell for cell in (part.strip() for part in line.split("  ")) if cell] == [
        *("PGD-AT resnet18/16", "64", "0.0078 MiB", peaks[0], "never", peaks[1], "never")
    ]
    tight = plan.count(planner, calibrated=False, device_memory=int(0.7 * need.peaks["float32"])).text()
    assert "never" not in tight.partition("Memory of a device of")[2].partition("Memory of a device:")[0]


@pytest.mark.parametrize("memory", ["0", "-1", "nan"])
def test_a_size_that_no_device_has_is_refused(memory):
    done = CliRunner().invoke(cli.app, ["plan", "tab1", "--profile", "smoke", "--memory", memory])
    assert done.exit_code == 1
    assert "memory must be between 0.001 and 1e+06" in str(done.exception)


@pytest.mark.parametrize(
    ("size", "said"), [(2**20, "1 MiB"), (500 * 2**20, "500 MiB"), (1.84 * GIB, "1.8 GiB"), (24 * GIB, "24 GiB")]
)
def test_a_size_is_said_in_the_unit_that_suits_it(size, said):
    assert report.memory_size(size) == said
