"""How long it takes to begin: importing the kit beyond torch, and loading a network of a finished run.

python benchmarks/start.py --repetitions 5
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import alternately, arguments, table

from rkdkit import runs
from rkdkit.spec import RunSpec
from rkdkit.store import Store

IMPORTS = {"import torch": "import torch", "from rkdkit import runs": "import torch; from rkdkit import runs"}


def main() -> None:
    """Measure and print."""
    given = arguments(
        __doc__,
        network=("resnet18/4", "whose finished run is loaded: any of the kit's"),
        repetitions=(5, "rounds that count, after one that does not"),
    )
    imports = {name: lambda code=code: subprocess.run([sys.executable, "-c", code]) for name, code in IMPORTS.items()}
    spec = RunSpec(method="Natural", dataset="digits", student=given.network, n_train=128)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        runs.ensure(spec, store)
        loading = {"ensure(spec).snapshot().load()": lambda: runs.ensure(spec, store).snapshot().load()}
        taken = alternately({**imports, **loading}, given.repetitions)
    torch_alone, with_kit = (taken[name] for name in IMPORTS)
    rows = [[name, spent] for name, spent in taken.items()]
    table(["what", "s"], [*rows, ["the kit beyond torch", with_kit - torch_alone]])


if __name__ == "__main__":
    main()
