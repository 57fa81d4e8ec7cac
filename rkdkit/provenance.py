"""The origin of a result: versions, platform, device, commit."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkdkit import paths

if TYPE_CHECKING:  # `rkdkit --version` need not wait for torch
    import torch

CODE = ("rkdkit", "notebooks", "pyproject.toml", "requirements.lock")
PACKAGES = ("rkdkit", "torch", "torchvision", "numpy", "scikit-learn", "pyautoattack")

AND = " and "
"""Between the names of several environments in the field of one."""


def environment(device: "torch.device") -> dict[str, str | None]:
    """Return the versions, the platform, the device and the checkout's commit.

    "-dirty" after the commit means that code or notebooks differed from it; None means that there is no checkout. The
    version of a package that is not installed, as the kit itself where it runs from a folder, is None, too.
    """
    import torch

    gpu = device.type == "cuda"
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if gpu else f"{device.type}, {torch.get_num_threads()} threads",
        "git_commit": _git_commit(),
    }


def same_versions(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Return whether two environments have the same versions, platform and device, whatever their commits."""
    return {**one, "git_commit": None} == {**other, "git_commit": None}


def together(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several environments as one; where they differ, it names all: "cpu, 1 threads and cpu, 4 threads".

    Parameters
    ----------
    environments : as :func:`environment`; in some, "processes" may say how many computed together, if not one alone.
    """
    if any("processes" in each for each in environments):
        environments = [{**each, "processes": each.get("processes", 1)} for each in environments]
    found = {}
    for name in dict.fromkeys(name for each in environments for name in each):
        values = dict.fromkeys(each[name] for each in environments if each.get(name) is not None)
        parts = dict.fromkeys(part for value in values for part in str(value).split(AND))
        found[name] = AND.join(parts) if len(values) > 1 else next(iter(values), None)
    return found


def versions() -> str:
    """Return the kit's version with its commit, torch's and Python's, in a line."""
    commit = _git_commit()
    at = f" (commit {commit[:12]}{', changed since' if commit.endswith('-dirty') else ''})" if commit else ""
    kit, torch_version = (importlib.metadata.version(name) for name in ("rkdkit", "torch"))
    return f"rkdkit {kit}{at}, torch {torch_version}, Python {platform.python_version()}"


def processor() -> str:
    """Return the processor's name, as far as the operating system says it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _git_commit() -> str | None:
    try:
        commit, changed = (_git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=paths.project_root(), capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def code_digest(notebook: Path) -> str:
    """Return the SHA-256 of a notebook's code cells, which tells whether a figure is older than its notebook.

    Parameters
    ----------
    notebook : the notebook as it is committed; parameters given by papermill are not in it.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()
