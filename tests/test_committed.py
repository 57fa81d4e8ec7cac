"""The exhibits in figures/quick and results/small are of today's notebooks: none is older than what draws it."""

import json
import re

import pytest
from committed import FILES, MADE, QUICK, SMALL, committed, git, made
from conftest import ROOT

from rkdkit import exhibits, figures, paths
from rkdkit.plan.ask import Planner, ask
from rkdkit.provenance import code_digest
from rkdkit.saved import command_of, read_exhibit
from rkdkit.spec import RunSpec
from rkdkit.store import Store


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


def ablated(summary):
    """The method of which tab16 tried single differences: which one it is depends on what was measured."""
    methods = {run["spec"]["method"] for run in summary["provenance"]["runs"]}
    return {method.partition(" with the code's ")[0] for method in methods if " with the code's " in method}


def test_each_notebook_has_its_three_files_at_quick():
    names = {notebook.stem for notebook in paths.exhibit_notebooks()}
    assert {file.name for file in QUICK.iterdir()} == {f"{name}.{s}" for name in names for s in ("png", "csv", "json")}


EVERY = pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}-{file.stem}" for file in FILES])


def parameters_of(summary):
    """The parameters by which an exhibit was made, as its JSON says."""
    found = {"profile": summary["profile"], **summary.get("overrides", {}), **summary.get("own", {})}
    if summary["exhibit"] not in exhibits.WITHOUT_SEEDS:
        found |= {"seed": summary["seeds"][0], "n_seeds": len(summary["seeds"])}
    return found


@EVERY
def test_the_committed_exhibit_was_made_by_todays_code_cells(file):
    summary = read_exhibit(file)
    again = f"the notebook changed: make it again with `{command_of(file, summary)}`"
    assert summary["provenance"]["notebook"] == code_digest(ROOT / "notebooks" / f"{file.stem}.ipynb"), again


@EVERY
def test_the_committed_exhibit_rests_on_the_runs_that_its_notebook_asks_for_today(file, tmp_path):
    summary = read_exhibit(file)
    assert summary["profile"] == file.parent.name
    assert file.parent == SMALL or not summary.get("overrides")
    parameters = parameters_of(summary)
    for method in ablated(summary):
        parameters["ablate"] = method
    planner = Planner(Store(tmp_path))
    ask(planner, ROOT / "notebooks" / f"{file.stem}.ipynb", parameters)
    rests_on = [run["spec"] for run in summary["provenance"]["runs"]]
    assert canonical(rests_on) == canonical(task.spec.to_json() for task in planner.trainings)
    certain = {task.spec.id for task in planner.trainings if task.certain}
    assert certain <= {run["id"] for run in summary["provenance"]["runs"]}


@EVERY
def test_the_runs_of_a_committed_exhibit_can_be_read_back(file):
    runs = read_exhibit(file)["provenance"]["runs"]
    assert [RunSpec.from_json(run["spec"]).id for run in runs] == [run["id"] for run in runs]


@pytest.mark.parametrize("name", MADE)
def test_what_came_out_at_quick_can_be_printed(name):
    printed = figures.at_quick(name)
    assert printed.startswith(f"For comparison, in figures/quick/{name}.png")
    assert all(claim["text"].split()[0] in printed for claim in made(name)["claims"])


@pytest.mark.parametrize("name", MADE)
def test_the_committed_exhibit_has_its_number_of_seeds(name):
    number = exhibits.committed_seeds(name)
    again = f"make it again with `rkdkit figures {name} --profile quick -p n_seeds=committed`"
    assert made(name).get("seeds", [0]) == list(range(number or 1)), again


@pytest.mark.parametrize("name", sorted(set(MADE) - set(exhibits.WITHOUT_SEEDS)))
def test_every_committed_claim_rests_on_all_seeds(name):
    summary = made(name)
    for claim in summary["claims"]:
        # a time is measured on networks without training; images are ranked by trainings of their own
        of_others = claim["lower"]["name"].startswith(("time of an update", "enough to rank by"))
        assert of_others or claim["difference"]["seeds"] == len(summary["seeds"]), claim["text"]


NUMBERS = {1: "one seed", 3: "three seeds", 5: "five seeds"}


def test_the_readme_says_how_many_seeds_its_pictures_have():
    beginning, rest = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## The exhibits\n")
    of_exhibits = rest.partition("\n## ")[0]
    for name, text in (("fig1_peer_vs_teacher", beginning), ("tab1_white_box", of_exhibits)):
        assert f"figures/quick/{name}.png" in text
        number = NUMBERS[len(made(name)["seeds"])]
        assert re.search(rf"\b{number}\b", text), f"{name} has {number}"


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


def test_what_a_user_made_since_is_not_taken_for_what_is_committed(tmp_path):
    folder, copy = tmp_path / "here" / "figures" / "quick", tmp_path / "copy"
    folder.mkdir(parents=True)
    copy.mkdir()
    names = ("fig1_peer_vs_teacher", "fig4_loss_landscape", "tab1_white_box")

    def write(name, seeds, text):
        (folder / f"{name}.json").write_text(json.dumps({"seeds": list(range(seeds)), "text": text}))
        (folder / f"{name}.csv").write_text(text)

    def files_of(of):
        return sorted(file.name for file in of.iterdir())

    def texts(of):
        return [json.loads((of / f"{name}.json").read_text())["text"] for name in names], files_of(of)

    for name in names:
        write(name, exhibits.committed_seeds(name), "committed")
    files = files_of(folder)
    assert committed(folder.parent.parent, copy) == folder, "not under git"
    for arguments in (["init"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "text"]):
        git(folder.parent.parent, *arguments)
    assert committed(folder.parent.parent, copy) == folder
    assert not list(copy.iterdir())
    write(names[0], 1, "by make fig1")
    write(names[1], 3, "made again")
    (folder / "changed").mkdir()
    assert committed(folder.parent.parent, copy) == copy
    assert texts(copy) == (["committed", "made again", "committed"], files)
    assert (copy / f"{names[0]}.csv").read_text() == "committed"
    assert texts(folder)[0] == ["by make fig1", "made again", "committed"]
