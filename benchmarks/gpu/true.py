"""PeerAiD on all training images by the paper's recipe, with as many of its epochs as fit, then what it withstands.

python benchmarks/gpu/true.py --folder work --until 1790000000

The schedule is chosen once, from the time that an epoch takes here and the time that is left, and kept in the folder;
run again, it goes on from the last finished epoch and the last measured part. The networks are of the last epoch.
"""

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from rkdkit import attacks, autoattack, data, evaluation, executors, models, profiles, runs, runtime, statistics
from rkdkit.papers.reported import reported as papers_of
from rkdkit.spec import RunSpec
from rkdkit.store import Store
from rkdkit.training import Training

SHARE = 0.72
"""The share of the time left that is for training; the rest is for measuring."""

KEEPING = 0.8
"""Seconds that are allowed for keeping an epoch's state."""

Save = Callable[[], object]
"""Keeps what was found so far."""

PAPER = profiles.PROFILES["paper"]


def scaled(method: str, epochs: int, tiny: bool) -> RunSpec:
    """Return PeerAiD's recipe in fewer epochs: the rate drops, and averaging begins, after the same shares of them."""
    whole = PAPER.spec("PeerAiD", n_val=0)
    drops = sorted({min(max(round(m * epochs / whole.epochs), 1), epochs - 1) for m in whole.milestones})
    swa = None if whole.swa_start is None else min(round(whole.swa_start * epochs / whole.epochs), epochs - 1)
    changes: dict[str, Any] = {"n_val": 0, "epochs": epochs, "milestones": tuple(drops), "swa_start": swa}
    changes |= {"snapshot_every": epochs, "weight_decay": whole.weight_decay, "lr": whole.lr}
    if tiny:
        small = "resnet18/16"
        changes |= {"student": small, "peer": small if method == "PeerAiD" else "", "n_train": 64, "batch_size": 32}
        changes |= {} if _has_cifar() else {"dataset": "digits"}
    return PAPER.spec(method, **changes)


def _has_cifar() -> bool:
    try:
        return bool(data.load("cifar10"))
    except data.DataNotFoundError:
        return False


def epoch_seconds(spec: RunSpec, device: torch.device) -> float:
    """Return how long an epoch takes, from a tenth of it."""
    dataset = data.load(spec.dataset)
    n = len(dataset.split_validation(spec.n_train, 0)[0])
    some = min(n, max(n // 10 // spec.batch_size, 2) * spec.batch_size)
    loop = Training(dataclasses.replace(spec, n_train=some), dataset, device)
    loop.run_epoch()  # warms up
    began = time.perf_counter()
    loop.run_epoch()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * n / some


class Reported:
    """Prints what a training has reached, and writes it to a CSV, while another thread trains."""

    def __init__(self, spec: RunSpec, kept: Path) -> None:
        self.spec, self.kept, self.seen = spec, kept, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Reported":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(2):
            self._look()

    def _look(self) -> None:
        try:
            record = Store().run_folder(self.spec).read_record()
        except Exception:  # it is being written, or it is damaged, of which the training itself tells
            return
        if record is None or record["finished"] == self.seen:
            return
        self.seen = record["finished"]
        rows = [f"{epoch + 1},{at['loss']},{at['seconds']}" for epoch, at in enumerate(record["history"])]
        self.kept.write_text("\n".join(["epoch,loss,seconds", *rows]) + "\n", encoding="utf-8")
        last = record["history"][-1]
        print(f"epoch {self.seen} of {self.spec.epochs}: loss {last['loss']:.4f}, {last['seconds']:.2f} s", flush=True)


def reported(method: str) -> dict[str, float]:
    """Return what PeerAiD's Table 1 says of a method with ResNet-18 on CIFAR-10, in percent; {}: nothing."""
    table = papers_of("peeraid", "Table 1")
    rows = table[(table["dataset"] == "cifar10") & (table["network"] == "resnet18") & (table["method"] == method)]
    return {f"{row['metric']} ({row['setting']})": float(row["value"]) for _, row in rows.iterrows()}


class NoTimeError(Exception):
    """The time is over."""


def withstood(
    network: models.Classifier,
    split: data.Split,
    attack: autoattack.AutoAttack,
    kept: dict[str, Any],
    until: float,
    save: Save,
) -> Tensor | None:
    """Return which images withstand AutoAttack, (N,) bool; None: no time is left, and `kept` says how far it came."""
    images = data.to_float(split.images)

    def progress(stages: list[int]) -> None:
        kept["progress"] = stages
        save()
        print(f"AutoAttack: {sum(stage != autoattack.FOOLED for stage in stages)} not fooled so far", flush=True)
        if time.time() > until:
            raise NoTimeError

    try:
        with evaluation.prepared(network, attack, images) as fast:
            found = attack.correct(fast, images, split.labels, kept.get("progress"), progress)
    except NoTimeError:
        return None
    kept.pop("progress", None)
    return found


def measured(found: dict[str, Any], spec: RunSpec, device: torch.device, n: int, until: float, save: Save) -> None:
    """Fill in what the run's networks withstand, the cheapest first; `save` is called after each."""
    dataset, run = data.load(spec.dataset), runs.ensure(spec)
    roles = [role for role in ("student_averaged", "student") if role in spec.roles_at(spec.epochs)]
    every, some = dataset.images("test"), dataset.images("test", n)
    pgd = attacks.PGD(spec.eps, spec.eps / 4, 20)
    asked: list[tuple[str, str, attacks.Attack | None, data.Split]] = []
    for role in roles:
        asked += [
            (role, "clean, all test images", None, every),
            (role, "clean", None, some),
            (role, str(pgd), pgd, some),
        ]
    if find_spec("pyautoattack") is None:
        found["AutoAttack"] = "left out: pyautoattack is not there"
    else:
        asked.append((roles[0], "AutoAttack", autoattack.AutoAttack(spec.eps), some))
    for role, name, attack, split in asked:
        kept = found.setdefault(role, {}).setdefault(name, {"images": len(split), "seconds": 0.0})
        if "accuracy" in kept:
            continue
        began, network, right = time.perf_counter(), run.snapshot(role).load(device), None
        if isinstance(attack, autoattack.AutoAttack):
            right = withstood(network, split, attack, kept, until, save)
        elif time.time() < until:
            right = evaluation.correct_predictions([network], split.images, split.labels, attack)[0]
        kept["seconds"] += time.perf_counter() - began
        if right is None:
            print(f"{role}, {name}: no time is left", flush=True)
        else:
            kept["accuracy"] = str(statistics.proportion(right))
            kept["correct"] = "".join(map(str, right.int().tolist()))
            print(f"{role}, {name}: {kept['accuracy']} of {len(split)} images, {kept['seconds']:.1f} s", flush=True)
        save()


def epochs_that_fit(method: str, chosen: dict[str, Any], device: torch.device, tiny: bool, until: float) -> int | None:
    """Return in how many epochs a method is trained: PeerAiD in as many as fit, others in as many as PeerAiD.

    None: they do not fit.
    """
    taken = 1.05 * epoch_seconds(scaled(method, 10, tiny), device) + KEEPING
    whole, left = PAPER.spec("PeerAiD").epochs, until - time.time()
    chosen.setdefault(method, {})["seconds of an epoch, estimated"] = taken
    if method == "PeerAiD":
        return 3 if tiny else max(3, min(whole, int(SHARE * left / taken)))
    first = chosen["PeerAiD"]
    measuring = sum(kept["seconds"] for by in roles_of(first["measured"]) for kept in by.values())
    return first["epochs"] if first["epochs"] * taken + measuring < left else None


def roles_of(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what was measured, role by role, without remarks."""
    return [by for by in found.values() if isinstance(by, Mapping)]


def trained(method: str, chosen: dict[str, Any], folder: Path, device: torch.device, tiny: bool, until: float) -> bool:
    """Train a method and measure it, as far as it goes; return whether it went all the way.

    `chosen` holds what was decided and found, and is kept in the folder.
    """
    path = folder / "true.json"

    def save() -> None:
        waiting = path.with_suffix(".new")
        waiting.write_text(json.dumps(chosen, indent=1), encoding="utf-8")
        waiting.replace(path)

    if "epochs" not in chosen.get(method, {}):
        epochs = epochs_that_fit(method, chosen, device, tiny, until)
        if epochs is None:
            print(f"{method}: it would not be finished in the {until - time.time():.0f} s that are left.", flush=True)
            return False
        chosen[method]["epochs"] = epochs
        chosen[method]["runtime"] = dataclasses.asdict(runtime.current())
    mine = chosen[method]
    spec, whole = scaled(method, mine["epochs"], tiny), PAPER.spec("PeerAiD").epochs
    mine |= {"epochs of the paper's recipe": whole, "specification": spec.to_json()}
    mine["images"] = data.load(spec.dataset).source
    save()
    print(f"{method}: {spec.epochs} epochs of the recipe's {whole}, drops after {spec.milestones}", flush=True)
    with runtime.using(runtime.Settings(**mine["runtime"])), Reported(spec, folder / f"true_{method}.csv"):
        run = runs.ensure(spec)
    (folder / f"true_{method}_record.json").write_text(json.dumps(run.record, indent=1), encoding="utf-8")
    mine["training seconds"] = run.training_seconds
    mine["the paper's, in percent"] = reported(method)
    measured(mine.setdefault("measured", {}), spec, device, 16 if tiny else 1000, until, save)
    return all("accuracy" in kept for by in roles_of(mine["measured"]) for kept in by.values())


def main(
    folder: Annotated[Path, typer.Option(help="Where results are kept.")] = Path(),
    until: Annotated[float, typer.Option(help="When to stop, in seconds since 1970; 0: in an hour.")] = 0,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    tiny: Annotated[bool, typer.Option(help="A rehearsal: 64 images, a tiny network.")] = False,
) -> None:
    """Train PeerAiD, measure it, then PGD-AT, too; exit with 2 if there was not time for all of it."""
    until = until or time.time() + 3600
    path, where = folder / "true.json", torch.device(device)
    chosen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with executors.using(executors.Here(device=where)):
        for method in ("PeerAiD", "PGD-AT"):
            if not trained(method, chosen, folder, where, tiny, until):
                raise typer.Exit(2)  # unfinished: a later call goes on


if __name__ == "__main__":
    typer.run(main)
