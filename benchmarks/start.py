"""How long it takes to begin: importing the kit beyond torch, and loading a network of a finished run.

python benchmarks/start.py --repetitions 5
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import typer
from measuring import Network, Repetitions, alternately, table

from rkdkit import executors, runs
from rkdkit.spec import RunSpec
from rkdkit.store import Store

IMPORTS = {"import torch": "import torch", "from rkdkit import runs": "import torch; from rkdkit import runs"}


def main(network: Network = "resnet18/4", repetitions: Repetitions = 5) -> None:
    """Measure how long it takes to import the kit beyond torch, and to load a network of a finished run."""
    imports = {name: lambda code=code: subprocess.run([sys.executable, "-c", code]) for name, code in IMPORTS.items()}
    spec = RunSpec(method="Natural", dataset="digits", student=network, n_train=128)
    with tempfile.TemporaryDirectory() as folder, executors.using(executors.Here(Store(Path(folder)))):
        runs.ensure(spec)
        loading = {"ensure(spec).snapshot().load()": lambda: runs.ensure(spec).snapshot().load()}
        taken = alternately({**imports, **loading}, repetitions)
    torch_alone, with_kit = (taken[name] for name in IMPORTS)
    rows = [[name, spent] for name, spent in taken.items()]
    table(["what", "s"], [*rows, ["the kit beyond torch", with_kit - torch_alone]])


if __name__ == "__main__":
    typer.run(main)
