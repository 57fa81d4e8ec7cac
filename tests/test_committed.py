"""The exhibits under figures/quick are those of today's notebooks: none is older than what draws it."""

import json

import pytest
from conftest import ROOT

from rkdkit import figures
from rkdkit.plan.ask import Planner, ask
from rkdkit.provenance import code_digest
from rkdkit.saved import read_exhibit
from rkdkit.store import Store

QUICK = ROOT / "figures" / "quick"
MADE = sorted(file.stem for file in QUICK.glob("*.json"))


def made(name):
    return read_exhibit(QUICK / f"{name}.json")


def without_choices(spec):
    """A specification without its teachers' epochs and RKD's alpha, because to choose these needs trained networks."""
    teachers = [
        {**teacher, "epoch": None, "run": teacher["run"] and without_choices(teacher["run"])}
        for teacher in spec["teachers"]
    ]
    settings = {name: value for name, value in spec["settings"].items() if name != "mixing"}
    return {**spec, "teachers": teachers, "settings": settings}


def canonical(specs):
    return {json.dumps(without_choices(spec), sort_keys=True) for spec in specs}


def looked_at(summary):
    """The method of which tab16 tried single differences: which one it is depends on what was measured."""
    methods = {run["spec"]["method"] for run in summary["provenance"]["runs"]}
    return {method.partition(" with the code's ")[0] for method in methods if " with the code's " in method}


def test_each_notebook_has_its_three_files_at_quick():
    names = {notebook.stem for notebook in (ROOT / "notebooks").glob("*.ipynb")}
    assert {file.name for file in QUICK.iterdir()} == {f"{name}.{s}" for name in names for s in ("png", "csv", "json")}


@pytest.mark.parametrize("name", MADE)
def test_the_committed_exhibit_was_made_by_todays_code_cells(name):
    again = f"the notebook changed: make it again with `rkdkit figures {name} --profile quick`"
    assert made(name)["provenance"]["notebook"] == code_digest(ROOT / "notebooks" / f"{name}.ipynb"), again


@pytest.mark.parametrize("name", MADE)
def test_the_committed_exhibit_rests_on_the_runs_that_its_notebook_asks_for_today(name, tmp_path):
    summary = made(name)
    assert summary["profile"] == "quick"
    assert not summary.get("overrides")
    parameters = {"profile": "quick"}
    seeds = summary.get("seeds", [0])
    if len(seeds) > 1:
        parameters["n_seeds"] = len(seeds)
    for method in looked_at(summary):
        parameters["closer_look"] = method
    planner = Planner(Store(tmp_path))
    ask(planner, ROOT / "notebooks" / f"{name}.ipynb", parameters)
    rests_on = [run["spec"] for run in summary["provenance"]["runs"]]
    assert canonical(rests_on) == canonical(task.spec.to_json() for task in planner.trainings)
    certain = {task.spec.id for task in planner.trainings if task.certain}
    assert certain <= {run["id"] for run in summary["provenance"]["runs"]}


@pytest.mark.parametrize("name", MADE)
def test_what_came_out_at_quick_can_be_printed(name):
    printed = figures.at_quick(name)
    assert printed.startswith(f"In figures/quick/{name}.png")
    assert all(claim["text"].split()[0] in printed for claim in made(name)["claims"])


def test_a_notebooks_text_may_change_but_not_its_code(tmp_path):
    notebook = json.loads((ROOT / "notebooks" / "fig2_method_overview.ipynb").read_text(encoding="utf-8"))
    copy = tmp_path / "copy.ipynb"

    def digest():
        copy.write_text(json.dumps(notebook), encoding="utf-8")
        return code_digest(copy)

    before = digest()
    text, code = (next(c for c in notebook["cells"] if c["cell_type"] == kind) for kind in ("markdown", "code"))
    text["source"] = ["another text"]
    assert digest() == before
    code["source"] = [*code["source"], "\n1"]
    assert digest() != before
