"""Figure 1 end to end, as a user runs it; and what its parameters refuse before any work starts."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time

import matplotlib.image
import pandas as pd
import psutil
import pytest
from clusters import kill
from conftest import ROOT
from typer.testing import CliRunner

from rkdkit import claims, cli, data, exhibits, profiles
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import tab1_white_box
from rkdkit.spec import RunSpec, Teacher

PAPERMILL = [sys.executable, "-m", "papermill"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what git tracks that matters here, with a store of its own, so that nothing of ours is touched."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return root


def run(command, cwd, **environment):
    """Run a command, once more if another test took one of the free ports that papermill chose for its kernel."""
    for tries_left in (1, 0):
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, "TQDM_DISABLE": "1", **environment},
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if not (tries_left and "Address already in use" in done.stderr and "Kernel died before" in done.stderr):
            break
    return done


@pytest.fixture(scope="module")
def smoke(checkout):
    """Figure 1 at smoke by papermill from the repository's root, without an output path."""
    done = run([*PAPERMILL, "notebooks/fig1_peer_vs_teacher.ipynb", "-p", "profile", "smoke"], checkout)
    assert done.returncode == 0, done.stderr[-3000:]
    return checkout / "figures" / "smoke"


def test_figure_1_writes_picture_numbers_and_provenance(smoke):
    names = {f"fig1_peer_vs_teacher.{suffix}" for suffix in ("png", "csv", "json")}
    assert {path.name for path in smoke.iterdir()} == names
    picture = matplotlib.image.imread(smoke / "fig1_peer_vs_teacher.png")
    assert min(picture.shape[:2]) > 500
    table = pd.read_csv(smoke / "fig1_peer_vs_teacher.csv")
    assert set(zip(table.network, table.examples, strict=True)) == {
        (n, e) for n in ("teacher", "peer") for e in ("student", "own")
    }
    assert sorted(set(table.epoch)) == [1, 2, 3]
    assert ((table.low <= table.robust_accuracy) & (table.robust_accuracy <= table.high)).all()
    summary = json.loads((smoke / "fig1_peer_vs_teacher.json").read_text())
    assert (summary["exhibit"], summary["profile"], summary["dataset"]) == ("fig1_peer_vs_teacher", "smoke", "digits")
    assert (summary["seeds"], summary["paper"]) == ([0], "PeerAiD, Figure 1")
    (measured,) = summary["measured"]
    assert (measured["attack"]["name"], measured["part"], measured["n"]) == ("PGD-20", "test", 128)
    networks = {(n["method"], n["role"]): len(n["sha256_by_epoch"]) for n in summary["networks"]}
    assert networks == {("PGD-AT", "student"): 1, ("PeerAiD", "peer"): 3, ("PeerAiD", "student"): 3}
    assert len(summary["claims"]) == 3
    for claim in summary["claims"]:
        assert claim["verdict"] in (claims.HOLDS, claims.FAILS, claims.OPEN)
        gap = claim["higher"]["estimate"]["value"] - claim["lower"]["estimate"]["value"]
        assert claim["difference"]["value"] == pytest.approx(gap)
        assert claim["difference"]["low"] <= gap <= claim["difference"]["high"]
    assert summary["teachers"] == [], "the fixed teacher of this figure teaches nobody"
    (teacher,) = [network for network in summary["networks"] if network["method"] == "PGD-AT"]
    assert (teacher["role"], teacher["network"]) == ("student", "resnet18/16")
    assert set(teacher["sha256_by_epoch"]) < {"1", "2", "3"}
    provenance = summary["provenance"]
    again = [RunSpec.from_json(run["spec"]).id for run in provenance["runs"]]
    assert again == [run["id"] for run in provenance["runs"]]
    assert {"python", "torch", "rkdkit", "device"} <= set(provenance["made_with"])
    assert [run["spec"]["method"] for run in provenance["runs"]] == ["PGD-AT", "PeerAiD"]
    assert provenance["training_time_s"] > 0
    assert "git_commit" in provenance["made_with"]


def test_from_the_notebooks_folder_it_finds_the_same_store_and_trains_nothing(smoke, checkout):
    before = (smoke / "fig1_peer_vs_teacher.csv").read_bytes()
    done = run(
        [*PAPERMILL, "fig1_peer_vs_teacher.ipynb", "../out.ipynb", "-p", "profile", "smoke"], checkout / "notebooks"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (smoke / "fig1_peer_vs_teacher.csv").read_bytes() == before
    assert "to train: 0" in (checkout / "out.ipynb").read_text()
    assert "to train: 2" not in (checkout / "out.ipynb").read_text()
    assert '"name": "stderr"' not in (checkout / "out.ipynb").read_text(), "JupyterLab shows that as an error"
    assert not (checkout / "notebooks" / "store").exists()


def killed_once(command, cwd, environment, condition):
    """Start a notebook and kill it, its kernel first, as soon as a condition is met."""
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(30_000):
            assert process.poll() is None, "it ended before it could be killed"
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError("it never got that far")
    finally:
        kill([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
        process.wait()


def test_a_notebook_killed_while_training_and_again_while_measuring_goes_on_to_the_same_numbers(smoke, checkout):
    store = checkout / "killed_store"
    command = [
        *PAPERMILL,
        "notebooks/fig1_peer_vs_teacher.ipynb",
        "-p",
        "profile",
        "smoke",
        "-p",
        "output_dir",
        "killed",
    ]

    def in_the_midst_of_training():
        records = [json.loads(path.read_text())["content"] for path in store.glob("runs/*/run.json")]
        return any(0 < record["finished"] < record["spec"]["epochs"] for record in records)

    killed_once(command, checkout, {"RKDKIT_STORE": str(store)}, in_the_midst_of_training)
    begun = {path: path.stat().st_mtime_ns for path in store.glob("runs/*/student-0001.safetensors")}
    killed_once(command, checkout, {"RKDKIT_STORE": str(store)}, lambda: len([*store.glob("answers/*.json")]) > 3)
    answered = {path: path.stat().st_mtime_ns for path in store.glob("answers/*.json")}
    assert not (checkout / "killed").exists()
    done = run(command, checkout, RKDKIT_STORE=str(store))
    assert done.returncode == 0, done.stderr[-3000:]
    assert begun
    assert {path: path.stat().st_mtime_ns for path in begun} == begun, "an epoch was trained twice"
    assert {path: path.stat().st_mtime_ns for path in answered} == answered, "an answer was measured twice"
    name = "fig1_peer_vs_teacher.csv"
    assert (checkout / "killed" / name).read_bytes() == (smoke / name).read_bytes()


def test_the_command_line_says_what_was_asked_for_and_what_was_trained(smoke, checkout):
    rkdkit = [sys.executable, "-c", "from rkdkit.cli import app; app()"]
    command = [*rkdkit, "figures", "fig1_peer_vs_teacher", "--profile", "smoke"]
    again = run([*command, "-p", "output_dir=again"], checkout)
    assert again.returncode == 0, again.stderr[-3000:]
    (last,) = again.stderr.splitlines()[-1:]
    assert last.startswith("Exhibits: 1, in ")
    assert "asked for: 2; different ones: 2; trained now: 0." in last
    verdicts = [claim["verdict"] for claim in json.loads((smoke / "fig1_peer_vs_teacher.json").read_text())["claims"]]
    assert f"Claims: holds: {verdicts.count('holds')}; " in last
    trained = run([*command, "-p", "output_dir=fewer", "-p", "epochs=1", "-p", "n_train=64"], checkout)
    assert "asked for: 2; different ones: 2; trained now: 2." in trained.stderr


def test_the_command_line_names_what_is_wrong_before_any_work(checkout):
    rkdkit = [sys.executable, "-c", "from rkdkit.cli import app; app()"]
    unknown = run([*rkdkit, "figures", "fig1_peer_vs_teacher", "--profile", "smoke", "-p", "epss=0.1"], checkout)
    assert unknown.returncode == 1
    assert "Unknown parameter 'epss'. Did you mean 'eps'?" in unknown.stderr
    assert "Traceback" not in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "quik"], "Unknown profile 'quik'. Did you mean 'quick'? Known: quick, smoke"),
        (["fig0"], "Unknown exhibit 'fig0'"),
        (["-p", "eps"], "takes NAME=VALUE, not 'eps'"),
    ],
)
def test_the_command_line_refuses_what_it_does_not_know(arguments, message):
    done = CliRunner().invoke(cli.app, ["figures", *arguments])
    assert (done.exit_code, message in done.output + str(done.exception)) == (1, True), done.output


def test_the_command_line_lists_every_exhibit():
    listed = CliRunner().invoke(cli.app, ["list"]).output
    for name in exhibits.NAMES:
        assert re.search(rf"^{name} +{re.escape(exhibits.get(name).paper)}", listed, re.MULTILINE), listed


def test_table_1_writes_its_three_files(checkout):
    """The notebook at a hundredth of a scale: what it measures is tested elsewhere."""
    tiny = {"n_train": 64, "n_val": 32, "n_test": 16, "swa_start": 1, "attack_steps": 1}
    parameters = json.dumps({"profile": "smoke", "output_dir": "t1", "n_autoattack": 1, "epochs": 2, "more": tiny})
    done = run([*PAPERMILL, "notebooks/tab1_white_box.ipynb", "-y", parameters], checkout)
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(checkout / "t1" / "tab1_white_box.csv")
    assert len(table) == table.paper.notna().sum() == 216
    ours = table[table.accuracy.notna()]
    assert len(ours) == 9 * 4
    assert set(ours[ours.metric == "autoattack"].n) == {1}
    summary = json.loads((checkout / "t1" / "tab1_white_box.json").read_text())
    assert len(summary["claims"]) == 3
    (auto,) = [each for each in summary["measured"] if each["attack"] and each["attack"]["name"] == "AutoAttack"]
    assert (auto["attack"]["implementation"].startswith("pyautoattack "), auto["n"]) == (True, 1)
    assert [n["method"] for n in summary["networks"]] == list(tab1_white_box.METHODS)
    assert {n["role"] for n in summary["networks"] if n["method"] in ("AKD2", "PeerAiD")} == {"student_averaged"}
    guided = {run["spec"]["method"]: len(run["guided_by"]) for run in summary["provenance"]["runs"]}
    assert (guided["RSLAD"], guided["AKD2"], guided["PeerAiD"]) == (1, 2, 0)
    assert matplotlib.image.imread(checkout / "t1" / "tab1_white_box.png").shape[1] > 1000


def setup(profile="smoke", **parameters):
    """Figure 1's parameters, checked."""
    return exhibits.setup("fig1_peer_vs_teacher", profile, **parameters)


def test_a_profile_is_what_stands_in_the_table_unless_overridden():
    plain = setup()
    assert plain.profile == profiles.PROFILES["smoke"]
    assert str(plain.profile.test_attack) == "PGD-20"
    assert plain.overrides == {}
    assert setup(n_test="none").n_test == 497
    assert setup(n_test=100.0).profile.n_test == 100
    changed = setup(eps="8/255", epochs=2, n_seeds=3, seed=4, student="resnet18/8", settings={"PeerAiD": {"tau": 2}})
    assert changed.seeds == (4, 5, 6)
    assert set(changed.overrides) == {"eps", "epochs", "student", "settings"}
    spec = changed.profile.spec("PeerAiD", 4)
    assert (spec.eps, spec.step_size) == (pytest.approx(8 / 255), pytest.approx(2 / 255))
    assert (spec.epochs, spec.student, spec.peer) == (2, "resnet18/8", "resnet18/8")
    assert dict(spec.settings)["tau"] == 2.0
    assert str(changed).startswith(
        "smoke profile (epochs, eps, settings, student changed): toy scale, digits, resnet18/8, eps 8/255"
    )


@pytest.mark.parametrize("profile", profiles.PROFILES.values(), ids=lambda p: p.name)
def test_every_profile_makes_valid_runs_of_every_method(profile):
    from rkdkit import methods

    for method, row in methods.METHODS.items():
        teachers = tuple(Teacher(module="any", slot=slot) for slot in row.guides)
        spec = profile.spec(method, teachers=teachers)
        eps = data.source_of(profile.dataset).eps if row.attacks else 0
        own = row.recipe_on.get(profile.dataset, {}) if profile.recipes else {}
        step_size = own.get("step_size", 0 if row.one_step else eps / 4)
        assert (spec.eps, spec.step_size) == (own.get("eps", eps), pytest.approx(step_size))
        replayed = dict(spec.settings).get("m", 1)
        if not profile.recipes:
            assert spec.epochs == max(profile.epochs // replayed, 1)


def test_any_iterate_counts_only_where_a_notebook_says_so_and_never_chooses_an_epoch():
    asked, attack = setup(test_iterate="any"), setup().profile.selection_attack
    assert asked.profile.selection_attack == attack
    assert asked.specs("PGD-AT") == setup().specs("PGD-AT")
    assert list(asked.test_attacks()) == ["clean", "fgsm", "pgd-20 (any iterate)", "autoattack"]
    assert str(asked).startswith(
        "smoke profile (test_iterate changed): toy scale, digits, resnet18/16, eps 0.25, PGD-20 (any iterate), "
    )


def test_settings_that_are_not_mentioned_stay_the_profiles():
    scale = dataclasses.replace(profiles.PROFILES["smoke"], settings={"TRADES": {"beta": 3.0}})
    assert dict(scale.spec("TRADES", settings=(("kl_reduction", "mean"),)).settings) == {
        "beta": 3.0,
        "kl_reduction": "mean",
    }
    free = profiles.PROFILES["quick"].spec("Free-AT", settings=(("m", 8),))
    assert (free.epochs, dict(free.settings)["m"]) == (2, 8.0)


def test_at_paper_scale_each_method_is_trained_as_its_own_paper_does():
    paper, teacher = profiles.PROFILES["paper"], (Teacher(module="any"),)
    ard, fast = (paper.spec(name, teachers=teacher) for name in ("ARD", "Fast-ARD"))
    assert (ard.epochs, ard.milestones) == (200, (100, 150))
    assert (fast.epochs, fast.milestones) == (50, (25, 37)), "200 / m epochs, m being 4"
    akd = paper.spec("AKD", teachers=teacher)
    assert (akd.schedule, akd.lr, akd.batch_size, akd.attack_steps) == ("onecycle", 0.21, 256, 7)
    assert paper.spec("Natural").epochs == paper.spec("PeerAiD").epochs == 300, "it has no recipe of its own"
    trades = [dataclasses.replace(paper, **own).spec("TRADES").epochs for own in ({}, profiles.ard("paper"))]
    assert trades == [100, 200], "in ARD's exhibits, its schedule is ARD's"
    by_rkd = dataclasses.replace(paper, **profiles.rkd("paper")).spec("PGD-AT")
    assert (by_rkd.epochs, by_rkd.schedule, by_rkd.attack_steps) == (100, "exponential", 7)
    tiny = dataclasses.replace(paper, dataset="tiny_imagenet")
    large = dataclasses.replace(tiny, student="wrn-34-10")
    specs = [scale.spec("PeerAiD") for scale in (paper, tiny, large)]
    assert [s.epochs for s in specs] == [300, 200, 100]
    assert [s.milestones for s in specs] == [(214, 259, 284), (99, 149), (49, 79)]
    assert [s.swa_start for s in specs] == [214, 99, 49]
    shorter = dataclasses.replace(paper, epochs=160, fixed=("epochs",))
    assert shorter.spec("ARD", teachers=teacher).epochs == 160, "what a user sets counts"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"profile": "quik"}, "Unknown profile 'quik'. Did you mean 'quick'.*Known: quick"),
        ({"epss": 0.1}, "Unknown parameter 'epss'. Did you mean 'eps'"),
        ({"anything": 1}, "Unknown parameter 'anything'.*Known: .*profile"),
        ({"fixed": ("eps",)}, "Unknown parameter 'fixed'"),
        ({"dataset": "cifar"}, "Unknown dataset 'cifar'. Did you mean 'cifar10'"),
        ({"teacher_method": "TRADE"}, "Unknown method 'TRADE'. Did you mean 'TRADES'"),
        ({"student": "resnet"}, "Unknown model 'resnet'. Did you mean 'resnet18'"),
        ({"select_on": "best"}, "Unknown selection 'best'"),
        ({"settings": {"PeerAid": {}}}, "Unknown method 'PeerAid'. Did you mean 'PeerAiD'"),
        ({"settings": {"PeerAiD": {"temperature": 1}}}, "setting of PeerAiD 'temperature'"),
        ({"eps": -0.1}, "eps must be"),
        ({"eps": 8}, "eps must be between 0 and 1"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"test_steps": 2.5}, "test_steps must be a whole number"),
        ({"n_test": 100.5}, "n_test must be a whole number"),
        ({"n_test": "many"}, "n_test must be a whole number, not 'many'"),
        ({"n_seeds": 1.5}, "n_seeds must be a whole number"),
        ({"seed": "one"}, "seed must be a number"),
        ({"peer": "resnet19"}, "Unknown model 'resnet19'"),
        ({"teacher": "resnet19"}, "Unknown model 'resnet19'"),
        ({"swa_start": -1}, "swa_start"),
        ({"eps": "a lot"}, "number such as 0.03 or '8/255', not 'a lot'"),
        ({"eps": float("nan")}, "eps must be"),
        ({"epochs": 0}, "epochs must be between 1 and 100000"),
        ({"n_seeds": 0}, "n_seeds must be between 1 and 1000"),
        ({"n_train": 2000}, "digits has 1,300 training images"),
        ({"n_test": 1000}, "n_test must be between 1 and 497"),
        ({"n_val": 0}, "Nothing is held out to choose an epoch on"),
        ({"test_steps": -1}, "test_steps must be between 0 and 10000"),
        ({"test_iterate": "all"}, "Unknown test_iterate 'all'.*Known: last, any"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(parameters, message):
    with pytest.raises((UnknownNameError, ValueError), match=message):
        setup(**parameters)
