"""Two exhibits that share trainings, made by the kit's commands on workers of a scheduler, whatever happens."""

import json
import os
import random
import shutil
import signal
import time
from contextlib import ExitStack

import matplotlib.pyplot as plt
import pytest
from clusters import LONGEST, files_of, outside, records_of, started, wait_until
from conftest import ROOT

from rkdkit import cli, executors
from rkdkit.determinism import one_thread
from rkdkit.plan.ask import ask
from rkdkit.store import Store

EXHIBITS = ("fig1_peer_vs_teacher", "fig3_peer_tutoring")
"""Both rest on PeerAiD and on the same teacher, whose epoch is chosen; only the second trains a student with it."""

CHANGES = {"epochs": 4, "n_train": 192, "n_val": 32, "n_test": 64}
HOW = ("--profile", "smoke", *(word for name, value in CHANGES.items() for word in ("-p", f"{name}={value}")))
STOPPED = "Stopped. What is trained is kept: the same command goes on after the last finished epoch."


def made(project):
    """Return all snapshots and answers of a checkout's store: what must not depend on who made them."""
    answers = {path.name: json.loads(path.read_text())["content"] for path in project.glob("store/answers/*.json")}
    return files_of(project / "store"), {name: content["answer"] for name, content in answers.items()}


def tables(project):
    return {path.name: path.read_bytes() for path in project.glob("figures/smoke/**/*.csv")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What this process makes of the exhibits with one thread."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for name in EXHIBITS:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        given = {"profile": "smoke", "output_dir": str(folder / "figures" / "smoke"), **CHANGES}
        with one_thread():  # this executor does what it is asked, so the notebook goes on and is drawn
            ask(executors.Here(Store(folder / "store")), path, cli.parameters_for(path, given))
    plt.close("all")
    assert len(list(folder.glob("store/runs/*"))) == 3
    assert len(tables(folder)) == 2
    return folder


@pytest.fixture
def checkout(tmp_path):
    """A folder with these notebooks and a store of its own."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name in EXHIBITS:
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "notebooks")
    return tmp_path


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A scheduler; its workers die more often than any scheduler expects."""
    root = tmp_path_factory.mktemp("there")
    with outside(root, root / "unused", 0, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="5") as found:
        yield found


@pytest.fixture
def start(checkout, forking):
    """Start a worker of a scheduler for this checkout's store."""
    return lambda scheduler, name, **given: forking.start(
        scheduler, name, **{"RKDKIT_STORE": str(checkout / "store"), **given}
    )


def kept(store):
    """How many epochs and answers are in a store."""
    return sum(record["finished"] for record in records_of(store)) + len(list(store.glob("answers/*.json")))


def finished(process):
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


def test_workers_are_killed_at_random_moments_and_every_bit_is_the_same(checkout, start, there, forking, undisturbed):
    chance, kills, store = random.Random(0), 0, checkout / "store"
    for i in range(3):
        start(there, f"mortal {i}")
    with started(checkout, "figures", *EXHIBITS, *HOW, "--scheduler", there.address) as process:
        wait_until(lambda: kept(store) or process.poll() is not None, "it gets on")
        while process.poll() is None and kills < 12:
            time.sleep(chance.uniform(0, 0.3))  # not to wait for anything: a random moment
            forking.workers.pop(chance.choice(sorted(forking.workers))).kill()
            kills += 1
            start(there, f"mortal {2 + kills}")
            before = kept(store)
            # however slow the machine is, the work gets on between two kills
            wait_until(lambda: kept(store) > before or process.poll() is not None, "it gets on")  # noqa: B023
        said = finished(process)
    assert kills >= 10, "it was over before"
    assert "Trained networks asked for: 5; different ones: 3; trained now: 3." in said
    assert made(checkout) == made(undisturbed)
    assert tables(checkout) == tables(undisturbed)


def test_a_lost_scheduler_ends_a_command_in_one_line_and_with_another_it_finishes(checkout, start, gate, undisturbed):
    for attempt in ("first", "second"):
        with outside(checkout / attempt, checkout / "store", 0) as found:
            start(found, attempt, **(gate.given if attempt == "first" else {}))
            with started(checkout, "train", *EXHIBITS, *HOW, "--scheduler", found.address) as process:
                if attempt == "second":
                    finished(process)
                    break
                wait_until(lambda: gate.held or process.poll() is not None, "a training has begun")
                found.kill("scheduler")
                said, _ = process.communicate(timeout=LONGEST)
            assert process.returncode == 1, said
            assert len([line for line in said.splitlines() if line]) == 2, said
            assert said.startswith("1 worker; what they do: http://127.0.0.1:")
            assert "\nThe Dask scheduler went away. What is trained is kept up to the last finished epoch." in said
            gate.open()  # its worker may go on as long as it will
            first = {path: path.stat().st_mtime_ns for path in checkout.glob("store/runs/*/student-0001.*")}
    assert len(first) == 1
    assert {path: path.stat().st_mtime_ns for path in first} == first, "it went on where it was"
    assert made(checkout) == made(undisturbed)


def test_two_callers_of_one_scheduler_train_each_run_once(checkout, start, there, gate, undisturbed):
    """Three workers are held in trainings until both callers have handed out theirs; they share two of three runs."""
    for i in range(3):
        start(there, f"shared {i}", **gate.given)
    with ExitStack() as running:
        callers = []
        for name in EXHIBITS:
            command = ("train", name, *HOW, "--scheduler", there.address)
            callers.append(running.enter_context(started(checkout, *command)))
            wait_until(lambda: len(gate.held) == 2 or callers[0].poll() is not None, "two trainings are held")
        wait_until(
            lambda: len(list((checkout / "store" / "marks").iterdir())) == 2 or callers[1].poll() is not None,
            "the other caller has come",
        )
        gate.open()
        for process in callers:
            finished(process)
    assert len(gate.epochs) == 3 * CHANGES["epochs"]
    assert set(gate.epochs.values()) == {1}, "an epoch was trained twice"
    assert made(checkout) == made(undisturbed)


def test_ctrl_c_of_a_caller_leaves_the_workers_to_the_next(checkout, start, there, gate, undisturbed):
    start(there, "left alone", **gate.given)
    command = ("train", EXHIBITS[0], *HOW, "--scheduler", there.address)
    with started(checkout, *command) as process:
        wait_until(lambda: gate.held or process.poll() is not None, "a training has begun")
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=LONGEST)
        assert time.monotonic() - asked < 30
        assert process.returncode == 130, said
        assert [line for line in said.splitlines() if line][1:] == [STOPPED], said
        assert not process.everybody
    (begun,) = gate.held
    gate.open()
    with started(checkout, *command) as process:
        finished(process)
    assert gate.epochs[f"{begun} 1"] == 1, "what was finished is kept"
    for mine, theirs in zip(made(checkout), made(undisturbed), strict=True):
        assert mine
        assert mine.items() <= theirs.items()
