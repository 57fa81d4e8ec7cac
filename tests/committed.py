"""The exhibits that came with the kit, though somebody may have made some of them again in this checkout.

`make fig1` writes a picture of one seed over the committed one of five, and further exhibits leave folders beside it.
The tests of what is committed have to pass all the same.
"""

import atexit
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from conftest import ROOT

from rkdkit import exhibits
from rkdkit.saved import read_exhibit

GIT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}
"""The environment without what a user, or a hook that runs the tests, tells git."""


def git(root: Path, *arguments: str) -> bytes:
    """Return what git prints; nothing, if `root` is no checkout."""
    try:
        return subprocess.run(["git", "-C", root, *arguments], env=GIT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""


def made_here(root: Path, names: list[str]) -> set[str]:
    """The exhibits among `names` whose JSON is not that of the last commit, and has another number of seeds."""
    changed = git(root, "diff", "--name-only", "--relative", "HEAD", "--", "figures/quick").decode().split()
    found = set()
    for name in names:
        if f"figures/quick/{name}.json" in changed and name not in exhibits.WITHOUT_SEEDS:
            seeds = json.loads((root / "figures" / "quick" / f"{name}.json").read_text(encoding="utf-8"))["seeds"]
            if seeds != list(range(exhibits.committed_seeds(name) or 1)):
                found.add(name)
    return found


def committed(root: Path, copy: Path) -> Path:
    """Return `figures/quick` as it is committed: the folder itself, or where it holds anything else, a copy.

    An exhibit that was made again with its number of seeds counts as what is going to be committed.
    """
    folder = root / "figures" / "quick"
    tracked = git(root, "ls-files", "--", "figures/quick").decode().split()
    wanted = {Path(file).name for file in tracked} or {file.name for file in folder.iterdir() if file.is_file()}
    mine = made_here(root, sorted(Path(name).stem for name in wanted if name.endswith(".json")))
    if not mine and wanted == {file.name for file in folder.iterdir()}:
        return folder
    for name in wanted:
        if Path(name).stem in mine:
            (copy / name).write_bytes(git(root, "show", f"HEAD:./figures/quick/{name}"))
        else:
            shutil.copy2(folder / name, copy)
    return copy


_COPY = tempfile.TemporaryDirectory(prefix="rkdkit-committed-")
atexit.register(_COPY.cleanup)
_PLACE = Path(_COPY.name, "quick")
_PLACE.mkdir()
QUICK = committed(ROOT, _PLACE)
SMALL = ROOT / "results" / "small"
MADE = sorted(file.stem for file in QUICK.glob("*.json"))
FILES = [*sorted(QUICK.glob("*.json")), *sorted(SMALL.glob("*.json"))]


def made(name: str) -> dict[str, Any]:
    """The JSON of a committed exhibit, whose picture and numbers have the digests that it names."""
    return read_exhibit(QUICK / f"{name}.json")
