"""What a full store costs: looking up a finished run, listing all runs, and drawing what is there.

python benchmarks/store.py --runs 2000 --answers 20000
"""

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from measuring import Repetitions, alternately, table

from rkdkit import executors, runs
from rkdkit.spec import RunSpec
from rkdkit.store import Store, write_json

EXHIBIT = "fig1_peer_vs_teacher"


def fill(store: Store, spec: RunSpec, n_runs: int, n_answers: int) -> None:
    """Add so many finished runs to a store, copies of a run that is there with other seeds, and so many answers."""
    pattern = store.run_folder(spec)
    record = pattern.read_record()
    assert record is not None
    for seed in range(10**6, 10**6 + n_runs):
        copy = dataclasses.replace(spec, seed=seed)
        folder = store.run_folder(copy)
        shutil.copytree(pattern.path, folder.path)
        folder.write_record({**record, "spec": copy.to_json(), "id": copy.id})
    for number in range(n_answers):
        question = {"question": "made up", "number": number}
        written = {"question": question, "answer": "0" * 125, "measured_with": record["environments"][0]}
        write_json(store.answer_path(question), written)


def main(
    repetitions: Repetitions = 5,
    runs_: Annotated[int, typer.Option("--runs", help="How many finished runs.")] = 2000,
    answers: Annotated[int, typer.Option(help="How many answers.")] = 20_000,
) -> None:
    """Measure how much longer lookups, `rkdkit runs list` and `rkdkit figures` take with a full store."""
    spec = RunSpec(method="Natural", dataset="digits", student="resnet18/16", n_train=128, epochs=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, full = folder / "small", folder / "full"

        def command(store: Path, *arguments: str) -> None:
            variables = {**os.environ, "RKDKIT_STORE": str(store)}
            code = "from rkdkit.cli import app; app()"
            subprocess.run([sys.executable, "-c", code, *arguments], env=variables, check=True, capture_output=True)

        def draw(store: Path) -> None:
            command(store, "figures", EXHIBIT, "--profile", "smoke", "-p", f"output_dir={folder / 'drawn'}")

        def ensure(store: Path) -> None:
            with executors.using(executors.Here(Store(store))):
                runs.ensure(spec)

        ensure(small)
        draw(small)
        shutil.copytree(small, full)
        fill(Store(full), spec, runs_, answers)
        work = {
            f"{what}, {where.name} store": functools.partial(do, where)
            for where in (small, full)
            for what, do in (
                ("runs.ensure of a finished run", ensure),
                ("rkdkit runs list", lambda store: command(store, "runs", "list")),
                (f"rkdkit figures {EXHIBIT}, all in the store", draw),
            )
        }
        taken = alternately(work, repetitions)
    print(f"The full store has {runs_:,} runs and {answers:,} answers more than the small one.")
    table(["what", "s"], [[what, spent] for what, spent in taken.items()])


if __name__ == "__main__":
    typer.run(main)
