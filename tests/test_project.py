"""The set-up: lock, environment and project file agree; notebooks are committed clean."""

import json
import re
import shutil
import subprocess
import tomllib

import pytest
import yaml
from committed import QUICK
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rkdkit.saved import read_exhibit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def locked():
    """Every pinned requirement of the lock, with its number of hashes."""
    entries = re.split(r"\n(?=[a-z0-9])", "\n" + re.sub(r"^\s*#.*\n", "", LOCK, flags=re.MULTILINE))
    return [
        (Requirement(entry.split("\\")[0].strip()), len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)))
        for entry in entries
        if entry.strip()
    ]


def test_the_lock_pins_everything_with_hashes_and_names_no_host():
    assert len(locked()) > 100
    for requirement, hashes in locked():
        assert [s.operator for s in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
    assert "://" not in LOCK
    assert "index-url" not in LOCK


def test_the_lock_satisfies_the_project_file():
    versions = {}
    for requirement, _ in locked():
        versions.setdefault(requirement.name, []).append(next(iter(requirement.specifier)).version)
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        assert wanted.name in versions, f"{text} is not in requirements.lock: run `make lock`"
        assert all(wanted.specifier.contains(v) for v in versions[wanted.name]), text


def test_the_conda_environment_is_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == ["--require-hashes", "-r requirements.lock"]
    (python,) = [SpecifierSet(d.removeprefix("python")) for d in conda if d.startswith("python")]
    assert python == SpecifierSet(PROJECT["requires-python"])
    assert set(conda) - {d for d in conda if d.startswith("python")} == {"git", "make", "pip"}


def test_the_installed_package_is_this_checkout():
    import rkdkit

    assert rkdkit.__version__ == PROJECT["version"]
    assert ROOT in type(ROOT)(rkdkit.__file__).parents


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_committed_clean_short_and_parameterized(path):
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert not any(c["outputs"] or c["execution_count"] for c in code)
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
    assert len(cells) <= 12
    for cell in code:
        source = "".join(cell["source"])
        assert not re.search(r"^\s*(for|while|def|class) ", source, re.MULTILINE), source
        assert source.count("\n") < 15


def test_links_between_documents_lead_somewhere():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in target or (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_design_names_every_module():
    layers = (ROOT / "docs" / "design.md").read_text()
    for path in (ROOT / "rkdkit").iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.stem}`" in layers, path.stem
        elif path.is_dir() and any(path.glob("*.py")):
            assert f"`{path.name}/`" in layers, path.name


@pytest.mark.parametrize("path", sorted(QUICK.glob("*.json")), ids=lambda p: p.stem)
def test_a_committed_exhibit_is_the_profiles_own_and_of_committed_code(path):
    summary = read_exhibit(path)
    assert summary["profile"] == "quick"
    assert not summary.get("overrides"), "what is only drawn has none"
    assert not summary["provenance"]["made_with"]["git_commit"].endswith("-dirty")


def test_a_lock_file_can_be_made_where_there_is_none(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    asked = subprocess.run(
        ["make", "-n", "-f", ROOT / "Makefile", "lock"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    before, compiles, _ = asked.stdout.partition("uv pip compile")
    assert compiles
    assert "requirements.lock" not in before, "it is not there yet"
