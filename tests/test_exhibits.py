"""Every notebook up to its first training, at every scale; and what each refuses before that."""

import json
import re
import sys
import types
from collections import Counter
from dataclasses import replace

import papermill
import pytest
import torch
from conftest import ROOT

from rkdkit import checks, cli, data, drawing, executors, exhibits, paths, profiles
from rkdkit.comparisons import ANOTHER
from rkdkit.plan.ask import Planner, ask
from rkdkit.splits import Dataset, Split
from rkdkit.trainings import Train

NOTEBOOKS = {path.stem: path for path in sorted(paths.exhibit_notebooks())}
TRAINING = sorted(set(NOTEBOOKS) - {"fig2_method_overview", "tab11_model_cost"})

pytestmark = pytest.mark.usefixtures("store")


class Reached(Exception):
    """A notebook wants to train."""


class UntilTraining(executors.Here):
    """Stops where a training is asked for; its photographs are noise, one for every dataset that is not embedded."""

    def __init__(self, photographs):
        super().__init__()
        self.photographs = photographs

    @property
    def context(self):
        return replace(super().context, load=noise) if self.photographs else super().context

    def answer_all(self, tasks, what):
        del what
        raise Reached([task.spec for task in tasks if isinstance(task, Train)])


def noise(name):
    if name.startswith("digits") or name in data.PLANE:
        return data.load(name)
    chosen = name.partition(":")[2]
    classes = tuple(chosen.split(",")) if chosen else tuple(map(str, range(20)))
    splits = (Split(torch.zeros(n, 3, 8, 8, dtype=torch.uint8), torch.arange(n) % len(classes)) for n in (11_000, 1000))
    return Dataset(name, *splits, classes, "made up")


def run_until_training(name, photographs=False, **parameters):
    """Run a notebook's cells with parameters in place of its own; those it does not have are among its `more`."""
    own = papermill.inspect_notebook(str(NOTEBOOKS[name]))
    more = {key: parameters.pop(key) for key in list(parameters) if key not in own}
    injected = "".join(f"{key} = {value!r}\n" for key, value in {**parameters, "more": more}.items())
    namespace = {}
    with executors.using(UntilTraining(photographs)):
        for cell in json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), namespace)
                if "parameters" in cell["metadata"].get("tags", ()):
                    exec(injected, namespace)
    raise AssertionError("it went through without any training")


def test_there_is_a_module_for_every_notebook_and_a_notebook_for_every_module():
    assert set(exhibits.NAMES) == set(NOTEBOOKS)
    for name in exhibits.NAMES:
        exhibit = exhibits.get(name)
        assert exhibit.paper.split(",")[0] in ("PeerAiD", "RKD", "ARD", "the kit's own")
        assert set(exhibit.differs) <= {"", *profiles.PROFILES}


@pytest.mark.parametrize("profile", profiles.PROFILES)
@pytest.mark.parametrize("name", TRAINING)
def test_every_exhibit_starts_to_train_at_every_scale(name, profile):
    with pytest.raises(Reached) as reached:
        run_until_training(name, True, profile=profile)
    assert reached.value.args[0]


ALONE = {"tab12_capacity", "tab13_teacher_training", "tab14_teacher_ensembles", "tab15_synthetic_data"}
"""The exhibits that also train a teacher alone, for twice the epochs."""


@pytest.mark.parametrize("name", TRAINING)
def test_every_exhibit_can_be_shortened_at_paper_scale(name):
    with pytest.raises(Reached) as reached:
        run_until_training(name, True, profile="paper", epochs=2, milestones=[1])
    longer = {4} if name in ALONE else set()
    assert {spec.epochs for spec in reached.value.args[0]} == {2} | longer


@pytest.mark.parametrize("name", ["fig11_entropy", "fig12_trajectories", "fig13_sample_difficulty"])
def test_an_exhibit_is_not_refused_for_a_method_that_it_does_not_train(name):
    with pytest.raises(Reached):
        run_until_training(name, True, profile="paper", epochs=100)  # fewer than PeerAiD's milestones


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("fig1_peer_vs_teacher", {"select_on": "best"}, "Unknown selection 'best'"),
        ("fig1_peer_vs_teacher", {"epss": 0.1}, "Unknown parameter 'epss'. Did you mean 'eps'"),
        ("fig3_peer_tutoring", {"teacher_method": "TRADE"}, "Unknown method 'TRADE'"),
        ("fig4_loss_landscape", {"n_test": 20}, "n_test must be between 32 and 497, not 20"),
        ("fig4_loss_landscape", {"test_steps": 5}, "does not use test_steps"),
        ("fig4_loss_landscape", {"test_iterate": "any"}, "does not use test_iterate"),
        ("fig5_tsne", {"classes": ["3", "x"]}, "Unknown class of digits 'x'"),
        ("fig5_tsne", {"classes": ["3", "8"], "n_test": 100}, "perplexity of 30 needs more than 30 images"),
        ("fig5_tsne", {"classes": list("0123456")}, "Two to 6 different classes"),
        ("fig6_semantic_gradients", {"n_test": 1}, "n_test must be between 2"),
        ("fig6_semantic_gradients", {"select_on": "val"}, "does not use select_on"),
        ("fig7_decision_boundaries", {"dataset": "digits"}, "Unknown set of points of the plane 'digits'"),
        ("fig7_decision_boundaries", {"select_on": "val"}, "does not use select_on"),
        ("fig7_decision_boundaries", {"eps": 2}, "eps"),
        ("fig7_decision_boundaries", {"n_train": 33}, "scattered has 32 training images"),
        ("fig11_entropy", {"dataset": "digit"}, "Unknown dataset 'digit'"),
        ("fig12_trajectories", {"dataset": "digits"}, "of two classes, and digits has 10"),
        ("fig12_trajectories", {"dataset": "digits:3,x"}, "'x'"),
        ("fig12_trajectories", {"mixing": [1.0]}, "above 0 and below 1"),
        ("fig12_trajectories", {"mixing": 0.3}, "as in \\[0.3\\], not 0.3"),
        ("fig12_trajectories", {"early_stop": 0.99}, "nearest to the last snapshot"),
        ("fig12_trajectories", {"early_stop": 0}, "early_stop must be above 0"),
        ("fig12_trajectories", {"early_stop": 1.5}, "must be between 0 and 1, not 1.5"),
        ("fig12_trajectories", {"n_test": 4}, "n_test must be between 6"),
        ("fig13_sample_difficulty", {"part": "val"}, "Unknown part 'val'"),
        ("fig13_sample_difficulty", {"n_images": 2.5}, "whole number"),
        ("tab1_white_box", {"dataset": "digits:3,8", "n_train": 64, "n_test": 64}, "at least 4 classes"),
        ("tab1_white_box", {"n_autoattack": 0}, "n_autoattack must be between 1"),
        ("tab2_peer_robustness", {"n_test": 1}, "n_test must be between 2"),
        ("tab3_weight_averaging", {"swa_start": "none"}, "No weights are averaged"),
        ("tab3_weight_averaging", {"swa_start": 3}, "swa_start of a run of 3 epochs must be between 0 and 2"),
        ("tab4_teacher_architecture", {"peer": "resnet19"}, "Unknown model 'resnet19'"),
        ("tab5_transfer_attacks", {"student": "resnet34/16"}, "is a surrogate itself"),
        ("tab6_gradient_obfuscation", {"n_autoattack": 4}, "does not use n_autoattack"),
        ("tab11_model_cost", {"student": "resnet18/3"}, "width divisor"),
        ("tab11_model_cost", {"batches": 2}, "batches must be between 3 and 10000, not 2"),
        ("tab11_model_cost", {"batch_size": 1.5}, "batch_size must be a whole number"),
    ],
)
def test_what_does_not_fit_an_exhibit_is_refused_before_it_trains(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        run_until_training(name, profile="smoke", **parameters)


def test_the_smallest_exhibit_is_made_as_the_page_of_design_shows_it(monkeypatch, tmp_path):
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("The smallest exhibit, whole.")[2]
    module, parameters, cells = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:3]
    shown = types.ModuleType("rkdkit.exhibits.tab99_clean")
    exec(module, shown.__dict__)
    monkeypatch.setitem(sys.modules, shown.__name__, shown)
    monkeypatch.setattr(exhibits, "tab99_clean", shown, raising=False)
    monkeypatch.setattr(exhibits, "NAMES", (*exhibits.NAMES, "tab99_clean"))
    namespace = {}
    exec(parameters, namespace)
    tiny = {"epochs": 2, "n_train": 64, "attack_steps": 1, "swa_start": 1}
    exec(cells, namespace | {"profile": "smoke", "output_dir": str(tmp_path), "more": tiny})
    made = json.loads((tmp_path / "tab99_clean.json").read_text())
    assert [claim["text"] for claim in made["claims"]] == ["TRADES costs clean accuracy."]
    assert [run["spec"]["method"] for run in made["provenance"]["runs"]] == ["PGD-AT", "TRADES"]
    assert [(each["attack"], each["n"]) for each in made["measured"]] == [(None, 128)]
    assert (tmp_path / "tab99_clean.png").exists()


def test_exhibits_that_measure_times_are_not_drawn_beside_others():
    notebooks = [
        drawing.Notebook(ROOT / "notebooks" / f"{name}.ipynb", {"profile": "smoke"}) for name in exhibits.NAMES
    ]
    together, apart = cli._apart(notebooks)
    assert {each.name for each in apart} == {"tab9_fast_ard", "tab11_model_cost"}
    assert {each.name for each in together} | {each.name for each in apart} == set(exhibits.NAMES)
    assert cli._apart(apart[:1]) == (apart[:1], []), "alone as it is"


def test_as_many_seeds_as_committed_are_five_for_tables_and_two_figures_and_three_for_others():
    _, parameters = cli._asked(None, "quick", ["n_seeds=committed"])
    seeds = {name: given.get("n_seeds") for name, given in parameters.items()}
    assert set(seeds) == set(NOTEBOOKS)
    none = set(exhibits.WITHOUT_SEEDS)
    five = {name for name in NOTEBOOKS if name.startswith(("tab", "fig1_", "fig3_"))} - none
    assert {name for name, number in seeds.items() if number is None} == none
    assert {name for name, number in seeds.items() if number == 5} == five
    assert {name for name, number in seeds.items() if number == 3} == set(NOTEBOOKS) - five - none
    assert {name: exhibits.committed_seeds(name) for name in NOTEBOOKS} == seeds


def test_the_command_line_takes_a_number_of_seeds_for_exhibits_that_train():
    _, parameters = cli._asked(["fig1", "tab1"], "quick", ["n_seeds=3"])
    assert [given["n_seeds"] for given in parameters.values()] == [3, 3]
    with pytest.raises(SystemExit, match="fig2_method_overview: Unknown parameter 'n_seeds'"):
        cli._asked(["fig1", "fig2"], "quick", ["n_seeds=3"])
    with pytest.raises(checks.UnknownNameError, match="Unknown exhibit 'fig1'"):
        exhibits.committed_seeds("fig1")


def test_all_notebooks_take_a_number_of_seeds_but_those_for_which_it_makes_no_sense():
    takes = {name: "n_seeds" in papermill.inspect_notebook(str(path)) for name, path in NOTEBOOKS.items()}
    assert {name for name, does in takes.items() if not does} == set(exhibits.WITHOUT_SEEDS)
    for name, why in exhibits.WITHOUT_SEEDS.items():
        with pytest.raises(ValueError, match=f"takes no n_seeds: {why}"):
            exhibits.setup(name, "smoke", n_seeds=2)
        assert exhibits.setup(name, "smoke", n_seeds=1).seeds == (0,)


@pytest.mark.parametrize("name", sorted(set(NOTEBOOKS) - set(exhibits.WITHOUT_SEEDS)))
def test_with_two_seeds_every_network_is_trained_twice(name):
    planner = Planner()
    ask(planner, NOTEBOOKS[name], {"profile": "smoke", "n_seeds": 2})
    specs = [task.spec for task in planner.trainings]
    if name == "fig12_trajectories":  # those that rank the images are there once, whatever the seeds are
        specs = [spec for spec in specs if spec.seed < ANOTHER]
    seeds = Counter(spec.seed % ANOTHER for spec in specs)
    assert set(seeds) == {0, 1}
    first, second = (
        Counter((str(spec).rpartition(", seed")[0], spec.seed // ANOTHER) for spec in specs if spec.seed % ANOTHER == i)
        for i in (0, 1)
    )
    assert first == second


SHOW_THE_FIRST_SEED = {
    "fig4_loss_landscape": "surfaces: seed {setup.seeds[0]}",
    "fig5_tsne": "Points: seed {setup.seeds[0]}",
    "fig6_semantic_gradients": "Maps: seed {setup.seeds[0]}",
    "fig7_decision_boundaries": "Decision regions, seed {seed}",
}


@pytest.mark.parametrize(("name", "words"), SHOW_THE_FIRST_SEED.items())
def test_a_picture_of_single_networks_says_that_they_are_of_the_first_seed(name, words):
    cells = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]
    assert any(words in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
