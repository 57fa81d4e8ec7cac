"""What `benchmarks/gpu.sh` decides: how long parts may take, what is not done twice, what the last training uses."""

import csv
import importlib.util
import json
import os
import re
import sys
import tarfile
import time

import pytest
import torch
from conftest import ROOT

from rkdkit import profiles


def module_of(name, monkeypatch, folder="benchmarks/gpu"):
    """A module of `benchmarks/gpu`, or of another folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", ROOT / folder / f"{name}.py")
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


def test_a_part_that_the_call_cut_is_run_again_and_one_that_was_given_its_time_is_not(answer, answers, tmp_path):
    began = tmp_path / "began"
    lasting = f"import time; open({str(began)!r}, 'a').write('x'); time.sleep(50)"
    answers.run(part(answer, "cut", lasting, 60.0), time.time() + 6)
    answers.run(part(answer, "slow", lasting, 5.0), time.time() + 60)
    found = json.loads((tmp_path / "out" / "answers.json").read_text())["parts"]
    assert {name: of["ended"] for name, of in found.items()} == {"cut": None, "slow": "stopped at its time"}
    for name in ("cut", "slow"):
        answers.run(part(answer, name, f"open({str(began)!r}, 'a').write('y')"), time.time() + 60)
    assert began.read_text() == "xxy"
    assert answers.found["parts"]["cut"]["ended"] == "done"


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
    for name in ended:
        answers.run(part(answer, name, "print(1)"), time.time() + 60)
        assert answers.found["parts"][name]["ended"] == "done", "what it lacked is there by now"
    assert not (tmp_path / "out.work" / "running").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks into /proc")
@pytest.mark.parametrize("known_by", ["command", "store"])
def test_what_an_earlier_call_left_running_is_ended(answer, answers, known_by):
    code, stores = "import time; time.sleep(60)", [answers.store, f"{answers.store}2"]
    environments = [{**os.environ, "RKDKIT_STORE": str(store)} if known_by == "store" else None for store in stores]
    marked = f"{str(answers.work)!r}; {code}" if known_by == "command" else code
    left, stranger = (
        answer.subprocess.Popen([sys.executable, "-c", run], start_new_session=True, env=environment)
        for run, environment in zip((marked, code), environments, strict=True)
    )
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
        ({"": 2.0, "compiled": 1.0}, False, ("off", "off")),
        ({"": 2.0, "compiled": 1.0}, None, ("off", "off")),
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
    asked = ("a step with graphs has the same bits", "a compiled step has float32's weights")
    found = {"left out": "no GPU", "passed": True} if checked is None else {"found": 0, "passed": checked}
    lines = [{"check": check, "of": "PeerAiD, bfloat16"} | found for check in asked]
    settings = answer.fastest(tmp_path, {"correct": [*lines, {"check": "a loss", "of": "ARD", "passed": False}]})
    assert (settings["RKDKIT_GRAPHS"], settings["RKDKIT_COMPILE"]) == expected


def test_a_check_of_one_way_says_nothing_of_the_other(answer, tmp_path):
    rows = [
        "network,step,precision,how,s",
        *(f"resnet18,kit,bfloat16,{how}" for how in (",2", "graphs,1.5", "compiled,1")),
    ]
    (tmp_path / "step.csv").write_text("\n".join(rows))
    by_graphs, compiled = (
        {"check": check, "of": f"PeerAiD, {precision}", "found": 0, "passed": True}
        for check, precision in (
            ("a step with graphs has the same bits", "bfloat16"),
            ("a compiled step has float32's weights", "float32"),  # bfloat16's was not reached
        )
    )
    settings = answer.fastest(tmp_path, {"correct": [by_graphs, compiled]})
    assert settings == {"RKDKIT_GRAPHS": "on", "RKDKIT_COMPILE": "off"}


@pytest.mark.parametrize(
    ("factor", "wrong"), [(1.0, []), (1.1, ["float32"]), (2.0, ["float32", "bfloat16"])], ids=["same", "near", "far"]
)
def test_a_compiled_step_that_computes_something_else_is_found(tmp_path, monkeypatch, factor, wrong):
    correct = module_of("correct", monkeypatch)

    def pretended(network):  # which is not compiled, but computes otherwise
        network.register_forward_hook(lambda *passed: factor * passed[-1])

    monkeypatch.setattr(correct.runtime, "compiles", lambda *_: correct.runtime.current().compile == "on")
    monkeypatch.setattr(correct.runtime, "compile_in_place", pretended)
    correct.of_steps(correct.Checks(tmp_path / "steps.jsonl"), correct.CPU, "resnet18/16", 8)
    lines = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert "left out" in lines[0]
    assert len(lines) == 5
    told = {"loss": [], "weights": []}
    for line in lines[1:]:
        told[line["check"].split()[-1]] += [line["of"].split()[-1]] * (not line["passed"])
    assert told == {"loss": wrong, "weights": wrong}
    assert not any("error" in line for line in lines)


def test_what_matters_most_is_checked_first(monkeypatch):
    correct, seen = module_of("correct", monkeypatch), []
    correct.of_everything(lambda check, of, _: seen.append((check.partition(" ")[0], of)), correct.CPU, tiny=False)
    first = [seen.index(next(each for each in seen if each[0] == word)) for word in ("the", "a", "no", "attacks")]
    assert first == sorted(first)
    assert {of.removesuffix(", float32") for _, of in seen[: first[1]]} >= set(correct.methods.METHODS)
    code = [at for at, (_, of) in enumerate(seen) if "(code)" in of]
    assert min(code) > max(at for at, (word, of) in enumerate(seen) if word == "no" and "(code)" not in of)


@pytest.mark.parametrize(("not_finished", "tried"), [("PeerAiD", 1), ("PGD-AT", 2), ("", 2)])
def test_a_training_that_does_not_fit_is_not_done(monkeypatch, tmp_path, not_finished, tried):
    true, seen = module_of("true", monkeypatch), []
    monkeypatch.setattr(true, "trained", lambda method, *_: seen.append(method) or method != not_finished)
    try:
        true.main(tmp_path, 0, "cpu", True)
        code = 0
    except true.typer.Exit as ended:
        code = ended.exit_code
    assert (code, len(seen)) == (2 if not_finished else 0, tried)


def test_the_tests_that_are_run_on_a_gpu_are_those_that_need_one(answer, tmp_path):
    needing = re.compile(r"^@pytest.mark.skipif\(not torch.cuda.is_available.*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
    found = {
        f"tests/{file.name}::{name}"
        for file in (ROOT / "tests").glob("test_*.py")
        for name in needing.findall(file.read_text())
    }
    assert found == set(answer.ON_A_GPU)
    (asked,) = [each for each in answer.parts(tiny=False, device="cuda", work=tmp_path) if each.name == "tests"]
    assert set(asked.command) >= found
    assert "-n" in asked.command
    assert dict(asked.settings) == {"RKDKIT_TEST_GPU": "1"}, "else conftest hides it"


def test_a_process_alone_trains_on_the_gpu_and_so_does_its_teacher(monkeypatch):
    measuring, meta = module_of("measuring", monkeypatch, "benchmarks"), torch.device("meta")
    monkeypatch.setattr(measuring, "device", lambda: meta)
    monkeypatch.setattr(measuring, "Training", lambda *given, **_: given[2:])
    where, (teacher,) = measuring.training("ARD", "resnet18/16", 4, steps=1, attack_steps=1)
    assert {where, *(weight.device for weight in teacher.parameters())} == {meta}


def test_the_first_two_questions_leave_most_of_the_time_to_the_third(answer, tmp_path):
    asked = answer.parts(tiny=False, device="cuda", work=tmp_path)
    of = {question: sum(p.seconds for p in asked if p.question == question) for question in ("right", "fast")}
    assert of["right"] <= 8 * 60
    assert of["fast"] <= 10 * 60
    for each in asked:
        files = [name.partition("::")[0] for name in each.command if ".py" in name]
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
