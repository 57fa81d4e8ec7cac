"""Evaluation by PGD-20 and by AutoAttack: the kit against foolbox and against pyautoattack, on the same network.

python benchmarks/evaluation.py --profile small --n 200 --n-autoattack 50
python benchmarks/evaluation.py --n 1024 --n-autoattack 1024 --workers 4 --repetitions 1

With `--workers`, that many processes of one thread each do one evaluation in shares, and everybody else has all
threads; the workers are started before anything is timed. Where there are fewer test images than are asked for,
training images are taken, and the table says so.

The network is a profile's PGD-AT student, whose run is kept in the store as any other: it is trained first where that
was not done before.
"""

import contextlib
import copy
import functools
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import foolbox
import pyautoattack
import torch
import typer
from measuring import (
    Compile,
    Epochs,
    Profile,
    Repetitions,
    alternately,
    device,
    matrix_products,
    rate,
    setup,
    table,
)
from torch import Tensor

from rkdkit import attacks, autoattack, data, evaluation, executors, models, runs, runtime
from rkdkit.cluster import Workers, sharing
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import RunSpec
from rkdkit.store import Store
from rkdkit.workforce import Workforce

PRODUCTS = "matrix products"
"""The machine's ceiling."""


def by_foolbox(network: models.Classifier, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return which images withstand foolbox's PGD-20, (N,) bool."""
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=eps / 4, steps=20, random_start=False)
    return torch.cat([~attack(model, a, b, epsilons=eps)[2] for a, b in zip(x.split(256), y.split(256), strict=True)])


def by_pyautoattack(network: models.Classifier, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return which images withstand AutoAttack as its package runs it, (N,) bool."""
    package = pyautoattack.AutoAttack(network, eps=eps, seed=0, device=device())
    found = package.run_standard_evaluation(x, y, batch_size=250)
    with torch.no_grad():
        return network(found[0] if isinstance(found, tuple) else found).argmax(1) == y


def by_kit(network: models.Classifier, x: Tensor, y: Tensor, attack: attacks.Attack, compiled: str) -> Tensor:
    """Return which images withstand an attack of the kit's, (N,) bool."""
    with runtime.using(runtime.Settings(compiled)):
        return evaluation.correct_predictions([network], x, y, attack)[0]


@contextlib.contextmanager
def workers(number: int, snapshot: Snapshot, images: Images) -> Iterator[Workers]:
    """Start workers with a store of their own, which has the trained networks; let each of them work once."""
    sharing.LEAST_SECONDS = 0.0  # also short evaluations are shared out, to be timed
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as held:
        (Path(folder) / "runs").symlink_to((Store().root / "runs").resolve())
        executor = Workers(Workforce(number), Store(folder))
        held.callback(executor.close)
        began = time.perf_counter()
        by_workers(executor, snapshot, images, attacks.FGSM(0.1))
        print(f"Starting {number} workers, and their first share: {time.perf_counter() - began:.0f} s.")
        yield executor


def by_workers(executor: Workers, snapshot: Snapshot, images: Images, attack: attacks.Attack) -> Tensor:
    """Return which images withstand an attack of the kit's, by workers that share them out, (N,) bool."""
    shutil.rmtree(executor.context.store.root / "answers", ignore_errors=True)
    with executors.using(executor):
        return runs.correct_predictions([snapshot], images, attack)[0]


def images_of(spec: RunSpec, n: int) -> Images:
    """Return the first n test images, or training images where there are not as many."""
    test = Images(spec.dataset, n=n)
    return test if len(test) == n else Images(spec.dataset, "train", n=n, n_train=spec.n_train, n_val=spec.n_val)


def measured(
    scale: Setup,
    n_pgd: int,
    n_autoattack: int,
    compiled: Sequence[str],
    repetitions: int,
    number: int,
    held: contextlib.ExitStack,
) -> Iterator[list[object]]:
    """Yield a row for the package and for each way of the kit's, attack by attack."""
    [spec] = scale.specs("PGD-AT")
    eps, snapshot = spec.eps, runs.ensure(spec).snapshot()
    own = snapshot.load(device())
    # the packages get the network in the usual memory format
    network = copy.deepcopy(own).to(memory_format=torch.contiguous_format)
    executor = held.enter_context(workers(number, snapshot, images_of(spec, 256 * number))) if number > 1 else None
    for n, theirs, attack, warm_up in (
        (n_pgd, by_foolbox, attacks.PGD(eps, eps / 4, 20, "none"), 1),
        # long enough to need no warming up; what is compiled is compiled within its time
        (n_autoattack, by_pyautoattack, autoattack.AutoAttack(eps), 0),
    ):
        if n == 0:
            continue
        images = images_of(spec, n)
        split = images.split()
        x, y = data.to_float(split.images).to(device()), split.labels.to(device())
        verdicts: dict[str, Tensor] = {}

        def judge(name: str, work: functools.partial[Tensor], verdicts: dict[str, Tensor] = verdicts) -> None:
            verdicts[name] = work().cpu()

        works = {theirs.__name__.removeprefix("by_"): functools.partial(theirs, network, x, y, eps)}
        for mode in compiled:
            name = "kit, compiled" if mode == "on" else "kit"
            works[name] = functools.partial(by_kit, own, x, y, attack, mode)
        if executor is not None:
            works[f"kit, {number} workers"] = functools.partial(by_workers, executor, snapshot, images, attack)
        candidates = {name: functools.partial(judge, name, work) for name, work in works.items()}
        taken = alternately({**candidates, PRODUCTS: matrix_products(torch.float32)}, repetitions, warm_up)
        first = next(iter(works))
        for name in works:
            same = (verdicts[name] == verdicts[first]).float().mean().item()
            robust = int(verdicts[name].sum())
            what = f"{len(verdicts[name])} {images.part}"
            yield [str(attack), what, robust, name, taken[name], taken[first] / taken[name], 100 * same]
        yield [str(attack), "", "", f"{PRODUCTS}: {rate(taken[PRODUCTS]) / 1e9:.0f} GFLOP/s", taken[PRODUCTS], "", ""]


def main(
    profile: Profile = "quick",
    epochs: Epochs = None,
    n: Annotated[int, typer.Option(help="Images for PGD-20; 0: leave it out.")] = 256,
    n_autoattack: Annotated[int, typer.Option(help="Images for AutoAttack; 0: leave it out.")] = 100,
    compile: Annotated[list[Compile], typer.Option(help="Whether the kit's network is compiled.")] = ("off",),
    repetitions: Repetitions = 3,
    workers: Annotated[int, typer.Option(help="Workers that share an evaluation out; 1: leave that out.")] = 1,
) -> None:
    """Measure PGD-20 and AutoAttack: the kit against foolbox and pyautoattack, on a profile's PGD-AT student."""
    warnings.filterwarnings("ignore")
    header = ["attack", "images", "withstand", "by", "s", "times faster", "% same verdicts"]
    scale = setup(profile, ["PGD-AT"], epochs=epochs)
    with contextlib.ExitStack() as held:
        table(header, measured(scale, n, n_autoattack, compile, repetitions, workers, held))


if __name__ == "__main__":
    typer.run(main)
