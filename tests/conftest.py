"""What several test files share."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rkdkit import data, executors, methods, models, runs
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import Store
from rkdkit.training import Training

if TYPE_CHECKING:
    from clusters import Gate, Nursery
    from given import Given
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

if "PYTEST_XDIST_WORKER" in os.environ:
    # several workers share the cores: one thread each, and one in the processes that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
if "RKDKIT_TEST_GPU" not in os.environ:  # the tests are of what CPUs compute, but for those that say so
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars would bury what a failed test printed
ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("kit", deadline=None, max_examples=30)
settings.load_profile("kit")


def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers `-n auto` starts: together they have as many threads as the machine has cores."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("OMP_NUM_THREADS", "1")))


TOGETHER = tuple(
    f"tests/test_{name}.py"
    for name in (
        *(
            "browser_lab",
            "browser_site",
            "cluster",
            "cluster_faults",
            "cluster_exhibits",
            "explore",
            "group",
            "group_measuring",
            "mirror",
            "site",
        ),
    )
)
"""The files whose tests share what takes long to make: a server, a site, workers, trained networks.

One process of `-n auto` runs a whole file.
"""


def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling":
    """Hand out tests to the processes of `-n auto` one by one, except those of a file that stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid

    return Scheduling(config, log)


class OneBlock(models.Classifier):
    """A network of one convolution: compiled in seconds, trained in milliseconds."""

    def __init__(self, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(4, num_classes, mean, std)
        self.stem = nn.Sequential(nn.Conv2d(len(mean), 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))

    def trunk(self, x: Tensor) -> Tensor:
        return self.stem(x).relu().mean((2, 3))


def tiny_spec(method: str = "PGD-AT", **changes: object) -> RunSpec:
    """A training of about a second: 128 digits, ResNet-18 / 16, two steps an epoch; its teachers are as small."""
    row = methods.METHODS.get(method, methods.METHODS["PGD-AT"])
    values: dict = {
        "method": method,
        "dataset": "digits",
        "student": "resnet18/16",
        "peer": "resnet18/16" if "peer" in row.roles else "",
        "teachers": tuple(Teacher(run=tiny_spec("TRADES", epochs=1), slot=slot) for slot in row.guides),
        **{"n_train": 128, "n_val": 32, "batch_size": 64, "epochs": 2},
        **{"eps": 0.25, "step_size": 0.125, "attack_steps": 2, "lr": 0.05},
    }
    return RunSpec(**{**values, **changes})


def interrupted_after(spec: RunSpec, epochs: int) -> None:
    """Leave a run in the store as Ctrl-C in the epoch after these does."""
    run_epoch = Training.run_epoch

    def interrupted(self: Training, *a: Any) -> Any:
        if self.epoch == epochs:
            raise KeyboardInterrupt
        return run_epoch(self, *a)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.ensure(spec)


def compiled_does_what_plain_does(spec: RunSpec, dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train an epoch plainly and compiled; refuse other losses and weights, batch-norm buffers included."""
    cpu = torch.device("cpu")
    monkeypatch.setenv("RKDKIT_COMPILE", "off")
    plain = Training(spec, dataset, cpu)
    expected = plain.run_epoch().loss
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    compiled = Training(spec, dataset, cpu)
    assert (plain.compiled, compiled.compiled) == (False, True)
    assert compiled.run_epoch().loss == pytest.approx(expected, rel=1e-4)
    for role, weights in plain.weights().items():
        ours = compiled.weights()[role]
        assert list(ours) == list(weights)
        for name, weight in weights.items():
            assert torch.allclose(ours[name].float(), weight.float(), atol=1e-4), f"{role}: {name}"


def run_python(code: str, store: Path, **options: object) -> subprocess.Popen:
    """Start a Python process that sees the tests' helpers and keeps its runs in `store`."""
    environment = {**os.environ, "RKDKIT_STORE": str(store), "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


OF_THE_TESTS = {"RKDKIT_CHROMIUM", "RKDKIT_SCREENSHOTS", "RKDKIT_SITE", "RKDKIT_TEST_GPU"}
"""The variables by which one tells the tests themselves something."""


@pytest.fixture(scope="session", autouse=True)
def cache_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the tests cache and train out of the checkout; let nothing of the user's answer for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setenv("RKDKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in {*os.environ} - {"RKDKIT_STORE", "RKDKIT_CACHE", "RKDKIT_DATA", *OF_THE_TESTS}:
            if name.startswith("RKDKIT_") or name in ("FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE"):
                patch.delenv(name)
        patch.setenv("RKDKIT_TEXT_PROGRESS", "")  # commands set it, in this process
        yield


@pytest.fixture(scope="session")
def nursery() -> Iterator["Nursery"]:
    """What starts workers at once."""
    from clusters import Nursery

    made = Nursery()
    yield made
    made.stop()


@pytest.fixture
def forking(nursery: "Nursery") -> Iterator["Nursery"]:
    """The same; its workers are ended after the test."""
    yield nursery
    nursery.end()


@pytest.fixture
def gate(tmp_path: Path) -> "Gate":
    """What holds workers in the middle of a training."""
    from clusters import Gate

    return Gate(tmp_path / "gate")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of the test's own, which is also the default one meanwhile."""
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "store"))
    return Store()


@pytest.fixture
def closed() -> Iterator[None]:
    """Close all figures after the test."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def nothing(tmp_path: Path) -> Iterator["Given"]:
    """Nothing is trained; blank data in the place of those that are not here."""
    from given import Given

    with executors.using(Given(Store(tmp_path), None)) as executor:
        yield executor


@pytest.fixture
def one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "resnet18/16" be a network of one block."""
    monkeypatch.setitem(models.ARCHITECTURES, "resnet18", lambda _, **shape: OneBlock(**shape))


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def trained(digits: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> models.Classifier:
    """A network that is right on most digits and robust on some, so that attacks have something to do.

    Of several workers, the first that needs it trains it.
    """
    from rkdkit.training import Training

    spec = tiny_spec("TRADES", n_train=1200, epochs=6, eps=0.1, step_size=0.05, schedule="onecycle", lr=0.1)
    training = Training(spec, digits, torch.device("cpu"))
    network = training.networks["student"]
    assert isinstance(network, models.Classifier)
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with FileLock(shared / "trained.lock"):
        if not (shared / "trained.safetensors").exists():
            for _ in range(spec.epochs):
                training.run_epoch()
            weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
            save_file(weights, shared / "trained.safetensors")
    network.load_state_dict(load_file(shared / "trained.safetensors"))
    return network.eval()
