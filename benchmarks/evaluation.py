"""Evaluation by PGD-20 and by AutoAttack: the kit against foolbox and against pyautoattack, on the same network.

python benchmarks/evaluation.py --profile small --n 200 --n-autoattack 50

The network is a profile's PGD-AT student, whose run is kept in the store as any other: it is trained first where that
was not done before.
"""

import copy
import functools
import warnings
from collections.abc import Iterator, Sequence
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

from rkdkit import attacks, autoattack, data, evaluation, models, runs, runtime
from rkdkit.setup import Setup

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


def measured(
    scale: Setup, n_pgd: int, n_autoattack: int, compiled: Sequence[str], repetitions: int
) -> Iterator[list[object]]:
    """Yield a row for the package and for each way of the kit's, attack by attack."""
    [spec] = scale.specs("PGD-AT")
    dataset, eps = scale.dataset, spec.eps
    own = runs.ensure(spec).snapshot().load(device())
    # the packages get the network in the usual memory format
    network = copy.deepcopy(own).to(memory_format=torch.contiguous_format)
    x, y = data.to_float(dataset.test.images).to(device()), dataset.test.labels.to(device())
    for n, theirs, attack, warm_up in (
        (n_pgd, by_foolbox, attacks.PGD(eps, eps / 4, 20, "none"), 1),
        # long enough to need no warming up; what is compiled is compiled within its time
        (n_autoattack, by_pyautoattack, autoattack.AutoAttack(eps), 0),
    ):
        if n == 0:
            continue
        verdicts: dict[str, Tensor] = {}

        def judge(name: str, work: functools.partial[Tensor], verdicts: dict[str, Tensor] = verdicts) -> None:
            verdicts[name] = work().cpu()

        works = {theirs.__name__.removeprefix("by_"): functools.partial(theirs, network, x[:n], y[:n], eps)}
        for mode in compiled:
            name = "kit, compiled" if mode == "on" else "kit"
            works[name] = functools.partial(by_kit, own, x[:n], y[:n], attack, mode)
        candidates = {name: functools.partial(judge, name, work) for name, work in works.items()}
        taken = alternately({**candidates, PRODUCTS: matrix_products(torch.float32)}, repetitions, warm_up)
        first = next(iter(works))
        for name in works:
            same = (verdicts[name] == verdicts[first]).float().mean().item()
            robust = int(verdicts[name].sum())
            yield [str(attack), len(verdicts[name]), robust, name, taken[name], taken[first] / taken[name], 100 * same]
        yield [str(attack), "", "", f"{PRODUCTS}: {rate(taken[PRODUCTS]) / 1e9:.0f} GFLOP/s", taken[PRODUCTS], "", ""]


def main(
    profile: Profile = "quick",
    epochs: Epochs = None,
    n: Annotated[int, typer.Option(help="Test images for PGD-20; 0: leave it out.")] = 256,
    n_autoattack: Annotated[int, typer.Option(help="Test images for AutoAttack; 0: leave it out.")] = 100,
    compile: Annotated[list[Compile], typer.Option(help="Whether the kit's network is compiled.")] = ("off",),
    repetitions: Repetitions = 3,
) -> None:
    """Measure PGD-20 and AutoAttack: the kit against foolbox and pyautoattack, on a profile's PGD-AT student."""
    warnings.filterwarnings("ignore")
    header = ["attack", "images", "withstand", "by", "s", "times faster", "% same verdicts"]
    table(header, measured(setup(profile, ["PGD-AT"], epochs=epochs), n, n_autoattack, compile, repetitions))


if __name__ == "__main__":
    typer.run(main)
