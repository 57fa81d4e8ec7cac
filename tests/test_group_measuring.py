"""Long measurements by several processes of a group: the same answers, and no harm if one of them is killed."""

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import measuring_groups
import pytest
import torch
from clusters import written_by
from measuring_groups import ALONE, ATTACKED, AUTO, KILLED, LAST, PGD, SOME, TOGETHER

from rkdkit import attacks, autoattack, computations, runtime
from rkdkit.cluster.sharing import shares_of
from rkdkit.determinism import one_thread
from rkdkit.group import measuring
from rkdkit.measurements import CorrectPredictions, PerImage
from rkdkit.plan import estimate
from rkdkit.provenance import together
from rkdkit.references import Images
from rkdkit.store import Store
from rkdkit.tasks import Context

SIZES = [size for size in measuring_groups.SIZES if size > 1]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What groups of processes wrote, see `measuring_groups.main`."""
    return written_by("measuring_groups.py", tmp_path_factory.mktemp("groups"))


@pytest.fixture
def batches():
    with one_thread(), runtime.using(runtime.Settings("off", measuring_groups.BATCH)):
        yield


def context_of(folder):
    return Context(store=Store(folder), device=torch.device("cpu"))


def files_of(folder):
    """The answers in a store by the names of their files: question, answer and where it was measured."""
    found = {}
    for path in (folder / "answers").glob("*.json"):
        content = json.loads(path.read_text())["content"]
        found[path.name] = (content["question"], content["answer"], content["measured_with"])
    return found


def without_origins(files):
    return {name: file[:2] for name, file in files.items()}


def computed(path):
    """What a process computed, round by round; the settings are the first process's in all."""
    noted = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(settings == "off" for settings, _ in noted)
    return [parts for _, parts in noted]


@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_processes_gives_the_same_answers_in_the_same_files(done, size):
    alone, theirs = files_of(done / "store-1"), files_of(done / f"store-{size}")
    assert len(alone) == len(TOGETHER) + len(ALONE) + 1, "two judges"
    assert without_origins(theirs) == without_origins(alone)
    assert not any("unfinished" in question for question, _, _ in theirs.values())
    found = {name: task.find(context_of(done / "store-1")) for name, task in TOGETHER.items()}
    for name, answer in found.items():
        assert answer.float().std() > 0.1, f"{name} tells images apart"
    assert not torch.equal(*found["PGD, two judges"]), "judges differ"


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("size", SIZES)
def test_all_processes_take_part_and_the_record_says_how_many(done, size):
    context = context_of(done / f"store-{size}")
    for task in TOGETHER.values():
        assert all(each["processes"] == size for each in task.environments(context)), task
        assert all("processes" not in each for each in task.environments(context_of(done / "store-1")))
    for task in ALONE.values():
        assert all("processes" not in each for each in task.environments(context)), task
    rounds = [computed(done / f"computed-{size}-{rank}") for rank in range(size)]
    assert len(set(map(len, rounds))) == 1
    starts = [[part for now in own for part in now if isinstance(part, int)] for own in rounds]
    of_batches = [task for name, task in TOGETHER.items() if task not in (AUTO, TOGETHER["Square"])]
    assert sorted(start for own in starts for start in own) == sorted([*range(0, 45, 8)] * len(of_batches))
    assert {len(own) for own in starts} == ({12} if size == 2 else {4, 8}), "4 processes: uneven"
    images = [sum(len(part[1]) for now in own for part in now if not isinstance(part, int)) for own in rounds]
    assert min(images) > 0.3 * max(images), "the last has what is left"
    assert max(images) <= 1.25 * sum(images) / size, "whom all wait for has little more than the others"
    assert not list(done.glob(f"store-{size}-*")), "one process alone has a store"
    assert not computed(done / "computed-1-0")


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("i", range(len(KILLED)), ids=list(KILLED))
def test_one_of_four_is_killed_and_two_go_on(done, i):
    (name, number), task = list(KILLED.items())[i], TOGETHER[list(KILLED)[i]]
    codes = json.loads((done / "ended.json").read_text())
    assert codes[f"killed-{i}"][2] == -9
    assert all(code > 0 for rank, code in enumerate(codes[f"killed-{i}"]) if rank != 2)
    said = [line for path in done.glob(f"log-killed-{i}-*") for line in path.read_text().splitlines() if line.strip()]
    assert len(said) == 1, said
    assert said[0].startswith("One of the 4 processes ended before the others")
    kept = files_of(done / f"killed-{i}-before")
    assert all("unfinished" in question for question, _, _ in kept.values())
    assert {origin["processes"] for _, _, origin in kept.values()} == {4}
    assert len(kept) == (4 if name == "PGD, two judges" else number - 1)
    assert codes[f"goes-on-{i}"] == [0, 0]
    rounds = [computed(done / f"killed-{i}-computed-{rank}") for rank in (0, 1)]
    if name == "AutoAttack":
        assert {part[0] for own in rounds for now in own for part in now} == {*range(number - 1, 13)}
    else:
        assert rounds == [[[32]], [[40]]]
    context = context_of(done / f"killed-{i}")
    assert torch.equal(task.find(context), task.find(context_of(done / "store-1")))
    assert {each["processes"] for each in task.environments(context)} == {"4 and 2"}
    assert not any("unfinished" in question for question, _, _ in files_of(context.store.root).values())


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("i", range(len(KILLED)), ids=list(KILLED))
def test_workers_go_on_after_a_group(done, i, tmp_path, monkeypatch):
    """Their shares find what the group kept; the parts of AutoAttack are those of the group's processes."""
    shutil.copytree(done / f"killed-{i}-before", tmp_path / "store")
    stages = autoattack.AutoAttack.stages
    monkeypatch.setattr(autoattack.AutoAttack, "stages", stages)
    monkeypatch.setattr("rkdkit.autoattack_shares.FEWEST", 4)
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)
    measuring_groups.shorter()
    context, task, attacked = context_of(tmp_path / "store"), TOGETHER[list(KILLED)[i]], []
    answers = {kind: kind.answers for kind in (computations.WholeBatches, computations.AttackSteps)}
    for kind, made in answers.items():

        def noting(self, networks, split, parts, made=made):
            attacked.extend(parts)
            return made(self, networks, split, parts)

        monkeypatch.setattr(kind, "answers", noting)
    for each in shares_of(task, 3, context):
        if each.find(context) is None:
            each.do(context)
    assert torch.equal(task.find(context), task.find(context_of(done / "store-1")))
    assert {"1 and 4", "4 and 1"} & {each["processes"] for each in task.environments(context)}
    if task is AUTO:
        assert {part[0] for part in attacked} == {*range(KILLED["AutoAttack"] - 1, 13)}
    else:
        assert sorted(attacked) == [32, 40]


SAID = {
    "data": "Process 1 .*: it finds other data as folder:squares .* than the first process.* Nothing of the accuracy",
    "no_data": "Process 1 .*: folder:squares was looked for in .*nowhere.* Nothing of the accuracy .* was measured.",
    "package": "Process 1 .*: it attacks by pyautoattack 1, and the first process by pyautoattack 0: install the same",
    "memory": "Process 1 .*: There was too little memory.*goes on from there.",
    "memory_of_the_first": "There was too little memory.*goes on from there.",
    "interrupted": "Stopped. What is trained is kept.*",
    "disk": "The disk is full.",
    "refused": "It returned NaN logits.$",
    "own_attack": "",
}


@pytest.mark.parametrize("name", measuring_groups.SCENARIOS)
def test_what_is_wrong_with_a_process_is_said_once_and_all_end(done, name):
    said = [line for path in sorted(done.glob(f"log-{name}-*")) for line in path.read_text().splitlines() if line]
    goes_well = name in ("refused", "own_attack")
    assert len(said) == (name != "own_attack"), said
    assert re.match(SAID[name], "".join(said)), said
    codes = json.loads((done / "ended.json").read_text())[name]
    assert (codes == [0, 0]) == goes_well
    assert bool(codes[0]) != goes_well
    files = list(files_of(done / f"scenario-{name}").values())
    kept = {"memory": 2, "memory_of_the_first": 2, "interrupted": 2, "disk": 3, "refused": 1, "own_attack": 1}
    assert len(files) == kept.get(name, 0), "what was found before is kept"
    assert all(("unfinished" in question) != goes_well for question, _, _ in files)
    assert all(origin.get("processes") == (None if name == "own_attack" else 2) for _, _, origin in files)


def test_an_interruption_does_not_wait_for_the_others(done):
    assert float((done / "stopped").read_text()) < float((done / "awake").read_text())


@pytest.mark.usefixtures("batches")
def test_short_measurements_and_unknown_attacks_are_not_shared(done, monkeypatch):
    context = context_of(done / "trained")
    assert measuring.share_of(ATTACKED, 4, context) is None, "it is short"
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)
    share = measuring.share_of(ATTACKED, 4, context)
    assert (share.shares, share.whole.judges) == (4, ATTACKED.judges)
    assert measuring.share_of(AUTO, 4, context).shares == 4
    for mine in (replace(ATTACKED, attack=replace(PGD, restarts=2)), replace(AUTO, attack=measuring_groups.Mine(0.05))):
        assert measuring.share_of(mine, 4, context) is None
    assert measuring.share_of(replace(ATTACKED, images=SOME.first(9)), 4, context).shares == 2
    seconds = estimate.costs_of([ATTACKED], context)[ATTACKED] / estimate.A_SECOND
    for least, long in ((0.99 * seconds, True), (1.01 * seconds, False)):
        monkeypatch.setattr(measuring, "LEAST_SECONDS", least)
        assert (measuring.share_of(ATTACKED, 4, context) is not None) == long


@pytest.mark.parametrize(
    "attack",
    [
        None,
        PGD,
        replace(PGD, start="gaussian", iterate="any", loss="margin", restarts=3),
        attacks.FGSM(0.1),
        attacks.FFGSM(1 / 3),
        attacks.MIFGSM(0.1, 0.3, 7, decay=0.7),
        attacks.DeepFool(float("inf"), 3, 4, 0.1),
        autoattack.AutoAttack(8 / 255, seed=5, batch_size=7),
        autoattack.Square(8 / 255, queries=77, seed=1),
    ],
    ids=str,
)
def test_a_computation_is_the_same_after_it_was_sent(attack):
    for sent in (
        computations.WholeBatches(attack=attack, quantity="entropy", batch_size=3),
        computations.AttackSteps(attack=attack, classes=7),
    ):
        assert sent.can_be_sent
        assert computations.received(json.loads(json.dumps(sent.to_json()))) == sent


def test_all_attacks_of_the_kit_can_be_sent():
    def below(kind):
        return {kind, *(each for child in kind.__subclasses__() for each in below(child))}

    own = {kind for kind in below(attacks.Attack) if kind.__module__.startswith("rkdkit.")}
    assert own - {attacks.Attack, autoattack.Packaged} == set(computations.OWN)


@pytest.mark.parametrize(
    "task",
    [
        CorrectPredictions(images=Images("digits", n=400), judges=(LAST,), attack=PGD),
        PerImage(images=Images("digits", n=400), quantity="entropy", snapshot=LAST, attack=PGD),
    ],
    ids=["accuracy", "entropy"],
)
def test_processes_meet_about_as_often_however_many_batches_there_are(done, task, tmp_path):
    shutil.copytree(done / "trained" / "runs", tmp_path / "runs")
    context, rounds, letters = context_of(tmp_path), [], 8 if isinstance(task, PerImage) else 1
    with runtime.using(runtime.Settings("off", 4)):
        share = shares_of(task, 3, context)[-1].share
        while (now := share.round(context)) is not None:
            rounds.append(now)
            share.keep([(part, ["0" * 4 * letters]) for own in now.parts for part in own], context, {"device": "none"})
    assert len(rounds) == 7
    parts = [[list(own) for own in now.parts] for now in rounds]
    assert [start for now in parts for own in now for start in own] == list(range(0, 400, 4))
    assert {len(own) for now in parts[:-1] for own in now} == {5}
    assert [len(own) for own in parts[-1]] == [3, 3, 4]
    places = [(now.before, now.after) for now in rounds]
    assert places[0][0] == 0
    assert places[-1][1] == 1
    assert all(one[1] == other[0] for one, other in pairwise(places))


def test_environments_of_different_numbers_of_processes_name_all():
    one, four, six = {"torch": "2"}, {"torch": "2", "processes": 4}, {"torch": None, "processes": 6}
    assert together([one, one]) == one
    assert together([four, four]) == four
    assert together([one, four, four])["processes"] == "1 and 4"
    assert together([together([one, four]), six]) == {"torch": "2", "processes": "1 and 4 and 6"}
