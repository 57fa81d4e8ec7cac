"""What `benchmarks/gpu.sh` decides: how long parts may take, what is not done twice, what the last training uses."""

import csv
import importlib.util
import json
import os
import sys
import tarfile
import time

import pytest
from conftest import ROOT

from rkdkit import profiles


def module_of(name, monkeypatch):
    """A module of `benchmarks/gpu`."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", ROOT / "benchmarks" / "gpu" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def answer(monkeypatch):
    return module_of("answer", monkeypatch)


@pytest.fixture
def answers(answer, tmp_path):
    return answer.Answers(tmp_path / "out", tmp_path / "out.work")


def part(answer, name, code, seconds=60.0, **more):
    return answer.Part(name, more.pop("question", "fast"), ["-c", code], seconds, **more)


def test_a_part_that_takes_too_long_is_ended_with_its_children_and_the_next_one_runs(answer, answers, tmp_path):
    lasting = (
        "import subprocess,sys; print('here'); subprocess.run([sys.executable,'-c','import time; time.sleep(50)'])"
    )
    soon = time.time() + 100
    answers.run(part(answer, "long", lasting, 6.0), soon)
    answers.run(part(answer, "short", "print('there')"), soon)
    assert time.time() < soon - 70
    found = json.loads((tmp_path / "out" / "answers.json").read_text())["parts"]
    assert {name: of["ended"] for name, of in found.items()} == {"long": "stopped at its time", "short": "done"}
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "here" in log
    assert "there" in log


def test_what_is_done_is_not_done_again_but_an_unfinished_training_is(answer, answers, tmp_path):
    counting = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    ends = [
        part(answer, "step", counting),
        part(answer, "training", f"{counting}; raise SystemExit(2)", question="true"),
    ]
    for _ in range(2):
        calls = answer.Answers(answers.folder, answers.work)
        for each in ends:
            calls.run(each, time.time() + 60)
    assert (tmp_path / "count").read_text() == "xxx"
    assert calls.found["parts"]["training"]["ended"] == "unfinished"


def test_a_part_without_its_packages_is_left_out_and_one_without_time_waits_for_the_next_call(
    answer, answers, tmp_path
):
    answers.run(part(answer, "beside", "print(1)", modules=("no_such_package",)), time.time() + 60)
    answers.run(part(answer, "late", "print(1)"), time.time() + 1)
    ended = {name: of["ended"] for name, of in answers.found["parts"].items()}
    assert ended == {"beside": "left out, without no_such_package", "late": None}
    answers.run(part(answer, "late", "print(1)"), time.time() + 60)
    assert answers.found["parts"]["late"]["ended"] == "done"
    assert not (tmp_path / "out.work" / "running").exists()


def test_what_an_earlier_call_left_running_is_ended(answer, answers):
    code = f"import time; {str(answers.work)!r}; time.sleep(60)"
    left = answer.subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    stranger = answer.subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        for process in (stranger, left):
            (answers.work / "running").write_text(str(process.pid))
            answers.end_leftover()
        assert left.wait(10) == -9
        assert stranger.poll() is None
    finally:
        stranger.kill()
        left.kill()


@pytest.mark.parametrize(
    ("times", "checked", "expected"),
    [
        ({"": 2.0, "graphs": 1.0}, True, ("on", "off")),
        ({"": 2.0, "graphs": 1.0}, False, ("off", "off")),
        ({"": 2.0, "graphs": 1.0}, None, ("off", "off")),
        ({"": 1.0, "graphs": 2.0}, True, ("off", "off")),
        ({"": 2.0, "compiled": 1.9, "graphs": "failed"}, True, ("off", "off")),
        ({"": 2.0, "compiled": 1.0, "graphs": 1.5}, True, ("off", "on")),
        ({}, True, ("off", "off")),
    ],
)
def test_the_training_uses_what_was_fastest_and_right(answer, tmp_path, times, checked, expected):
    with (tmp_path / "step.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["network", "step", "precision", "how", "s"])
        rows.writerows(["resnet18", "kit", "bfloat16", how, taken] for how, taken in times.items())
        rows.writerow(["resnet18", "kit", "float32", "graphs", 0.001])
        rows.writerow(["wrn-34-10", "kit", "bfloat16", "graphs", 0.001])
    line = {"check": "attacks captured as graphs give the same bits", "of": "PeerAiD"}
    found = {"left out": "no GPU", "passed": True} if checked is None else {"found": 0, "passed": checked}
    settings = answer.fastest(tmp_path, {"correct": [line | found, {"check": "a loss", "of": "ARD", "passed": False}]})
    assert (settings["RKDKIT_GRAPHS"], settings["RKDKIT_COMPILE"]) == expected


def test_the_first_two_questions_leave_most_of_the_time_to_the_third(answer, tmp_path):
    asked = answer.parts(tiny=False, device="cuda", work=tmp_path)
    of = {question: sum(p.seconds for p in asked if p.question == question) for question in ("right", "fast")}
    assert of["right"] <= 4 * 60 + 1
    assert of["fast"] <= 10 * 60
    for each in asked:
        files = [name for name in each.command if name.endswith(".py")]
        assert files
        assert all((ROOT / name).is_file() for name in files), each


@pytest.mark.parametrize("names", [["train/cat/1.jpg"], ["cifar-10-batches-py/data_batch_1"]])
def test_an_archive_of_images_is_unpacked_once(answer, tmp_path, names):
    given, work, said = tmp_path / "data", tmp_path / "work", []
    given.mkdir()
    assert answer.data_folder(given, work, said.append) == given
    for name in names:
        (tmp_path / "made" / name).parent.mkdir(parents=True)
        (tmp_path / "made" / name).touch()
    with tarfile.open(given / "cifar10-jpeg.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "made" / names[0].partition("/")[0], names[0].partition("/")[0])
    for _ in range(2):
        assert answer.data_folder(given, work, said.append) == work / "data"
    assert len(said) == 1
    top = "cifar10/train" if names[0].startswith("train") else "cifar-10-batches-py"
    assert (work / "data" / top).is_dir()


def test_a_schedule_is_shrunk_in_proportion(monkeypatch):
    true = module_of("true", monkeypatch)
    whole, half = profiles.PROFILES["paper"].spec("PeerAiD", n_val=0), true.scaled("PeerAiD", 150, False)
    assert true.scaled("PeerAiD", 300, False).milestones == whole.milestones == (214, 259, 284)
    assert (half.milestones, half.epochs, half.n_train, half.n_val) == ((107, 130, 142), 150, None, 0)
    assert half.swa_start == round(whole.swa_start / 2)
    assert true.scaled("PeerAiD", 3, False).milestones == (2,)
    other = true.scaled("PGD-AT", 150, False)
    assert (other.milestones, other.lr, other.weight_decay) == (half.milestones, half.lr, half.weight_decay)
    assert (other.peer, half.peer) == ("", "resnet18")


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_without_a_gpu_the_script_says_how_to_rehearse(answer, tmp_path):
    if answer.importlib.util.find_spec("torch") and __import__("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    asked = ["sh", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = answer.subprocess.run(asked, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "--tiny --device cpu" in done.stderr
