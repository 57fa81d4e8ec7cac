"""A measurement in shares: the same bits as in one piece, however it is cut up, killed and gone on with."""

import json
import re
import shutil
from dataclasses import replace

import pyautoattack
import pytest
import torch
from clusters import outside, wait_until
from conftest import tiny_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from rkdkit import attacks, autoattack, autoattack_shares, evaluation, executors, progress, runs, runtime
from rkdkit.autoattack import FOOLED
from rkdkit.autoattack_shares import Pace, after, pieces, stages, withstood
from rkdkit.cluster import TasksFailedError, Workers, sharing
from rkdkit.cluster.sharing import shared_out, shares_of
from rkdkit.determinism import one_thread
from rkdkit.executors import with_inputs
from rkdkit.measurements import CorrectPredictions, PerImage
from rkdkit.plan import estimate
from rkdkit.plan.estimate import costs_of
from rkdkit.references import Images
from rkdkit.shares_of_batches import Joined, Share
from rkdkit.store import DamagedFileError, Store
from rkdkit.tasks import Context
from rkdkit.trainings import Run
from rkdkit.workforce import Workforce

SPEC = tiny_spec(n_train=256, epochs=4, eps=0.1, step_size=0.05)
PGD = attacks.PGD(0.05, 0.02, 2)
SQUARE = autoattack.Square(0.05, 40, batch_size=40)
LAST, BEFORE = Run(SPEC, None).snapshot(), Run(SPEC, None).snapshot(epoch=3)


@pytest.fixture(autouse=True)
def with_one_thread():
    with one_thread(), runtime.using(runtime.Settings("off")):
        yield


@pytest.fixture(scope="module")
def trained_store(tmp_path_factory):
    """A store that holds the network and nothing else."""
    store = Store(tmp_path_factory.mktemp("trained"))
    with one_thread(), executors.using(executors.Here(store)):
        runs.ensure(SPEC)
    return store


@pytest.fixture
def context(trained_store, tmp_path):
    """A context whose store holds the trained network."""
    shutil.copytree(trained_store.root / "runs", tmp_path / "store" / "runs")
    return Context(store=Store(tmp_path / "store"), device=torch.device("cpu"))


def fresh(trained_store):
    """The store of the module without any answers."""
    shutil.rmtree(trained_store.root / "answers", ignore_errors=True)
    return Context(store=trained_store, device=torch.device("cpu"))


def accuracy(n, attack=None, judges=(LAST,), **more):
    return CorrectPredictions(images=Images("digits", n=n), judges=judges, attack=attack, **more)


def whole(task, context):
    """The answer and its file, as one process makes them."""
    if task.find(context) is None:
        task.do(context)
    return task.find(context), answers(context)


def answers(context):
    """The answers in a store: what each file says besides where it was measured."""
    found = {}
    for path in (context.store.root / "answers").glob("*.json"):
        content = runs_json(path)
        found[path.name] = (content["question"], content["answer"])
    return found


def runs_json(path):
    return json.loads(path.read_text())["content"]


def by_shares(task, shares, context):
    """Do all shares, the later ones of each step first; return the answer and the files."""
    tasks = shares_of(task, shares, context)
    assert tasks, "it can be shared out"
    waiting = list(reversed(tasks))
    while waiting:
        ready = [each for each in waiting if not with_inputs(each.inputs(), context)]
        for each in ready:
            if each.find(context) is None:
                each.do(context)
        waiting = [each for each in waiting if each not in ready]
    return task.find(context), answers(context)


@settings(max_examples=12)
@given(n=st.integers(2, 60), size=st.integers(1, 33), shares=st.integers(2, 7), kind=st.integers(0, 3))
def test_whole_batches_by_several_processes_are_the_same_bits(trained_store, n, size, shares, kind):
    """The random starts, too: a share draws those of the batches before its own and drops them."""
    kinds = (
        accuracy(n, PGD, (LAST, BEFORE), attacked=BEFORE),
        accuracy(n, attacks.FFGSM(0.05)),
        accuracy(n, replace(PGD, start="gaussian", iterate="any")),
        PerImage(images=Images("digits", n=n), quantity="entropy", snapshot=LAST, attack=PGD),
    )
    with one_thread(), runtime.using(runtime.Settings("off", size)):
        context = fresh(trained_store)
        if size >= n:
            assert shares_of(kinds[kind], shares, context) == [], "one batch is not cut"
            return
        before = whole(kinds[kind], context)
        context = fresh(trained_store)
        found = by_shares(kinds[kind], shares, context)
    assert torch.equal(found[0], before[0])
    assert found[1] == before[1], "no more and no other files"


def test_starts_do_not_depend_on_who_attacks(trained_store, digits):
    """Examples themselves: two steps would often come to the same verdicts from other starts."""
    network, split = LAST.read(fresh(trained_store)), digits.test
    given = (network, split.images[:50], split.labels[:50])
    for attack in (PGD, attacks.FFGSM(0.05), replace(PGD, start="gaussian"), attacks.MIFGSM(0.05, 0.02, 2)):
        every = [x for x, _ in evaluation.perturbed(*given, attack, batch_size=12)]
        last = [x for x, _ in evaluation.perturbed(*given, attack, batch_size=12, starts=(24, 48))]
        assert torch.equal(torch.cat(last), torch.cat([every[2], every[4]]))
        assert evaluation.separable(attack)


def test_what_cannot_be_cut_is_left_whole(context):
    class Mine(attacks.PGD):
        pass

    with runtime.using(runtime.Settings("off", 8)):
        for attack in (replace(PGD, restarts=2), Mine(0.05, 0.02, 2)):
            assert shares_of(accuracy(400, attack), 3, context) == []
        transferred = accuracy(40, SQUARE, (BEFORE,), attacked=LAST)
        assert shares_of(transferred, 3, context) == []


@settings(max_examples=150)
@given(data=st.data())
def test_the_pieces_of_a_step_are_all_images_that_are_left_once_each(data):
    n, shares, size = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 120))
    attack = autoattack.AutoAttack(0.1, batch_size=size)
    classes = data.draw(st.integers(4, 12))
    of_stage = stages(attack, classes)
    step = data.draw(st.integers(0, len(of_stage) - 1))
    begin = of_stage.index(of_stage[step])
    places = st.one_of(st.just(step), st.integers(-step, -1)) if step else st.just(0)
    state = data.draw(st.lists(places, min_size=n, max_size=n))
    overhead = data.draw(st.integers(0, 60))
    dealt = [pieces(attack, classes, state, step, share, shares, overhead) for share in range(shares)]
    cut = [piece for own in dealt for piece in own]
    assert sorted(i for piece in cut for i in piece.images) == [i for i, at in enumerate(state) if at >= 0]
    # the batches of the stage, as one process makes them
    began = [i for i, at in enumerate(state) if withstood(at) >= begin]
    for piece in cut:
        assert len(piece.images) <= size
        assert len(piece.cuts) == 1 or step < len(of_stage) - 1, "Square's squares are those of one batch"
        at = 0
        for each in piece.cuts:
            own, at = piece.images[at : at + each.n], at + each.n
            batch = next(b for b in range(0, len(began), size) if own[0] in began[b : b + size])
            left = [
                [i for i in began[batch : batch + size] if withstood(state[i]) >= so_far]
                for so_far in range(begin, step + 1)
            ]
            assert each.drawn == tuple(map(len, left))
            assert list(own) == left[-1][each.first : each.first + each.n]
            assert each.n >= min(autoattack_shares.FEWEST, len(left[-1]))
        assert at == len(piece.images)


def test_images_are_dealt_out_so_that_nobody_waits_long():
    attack = autoattack.AutoAttack(0.1)

    def dealt(state, step, overhead=0):
        return [pieces(attack, 10, state, step, share, 4, overhead) for share in range(4)]

    def sizes(*given):
        return [[len(piece.images) for piece in own] for own in dealt(*given)]

    assert sizes([0] * 1024, 0) == [[250, 16], [250, 16], [250, 16], [226]]
    state = [4] * 614 + [-2] * 400
    found = dealt(state, stages(attack, 10).index(2) + 2)
    assert [[[cut.n for cut in piece.cuts] for piece in own] for own in found] == [
        [[154]],
        [[96, 58]],
        [[154]],
        [[38, 114]],
    ]
    last, state = len(stages(attack, 10)) - 1, [12] * 614 + [-2] * 400
    assert sizes(state, last) == [[154], [96, 58], [154], [38, 114]]
    assert sizes(state, last, 45) == [[176], [74, 57], [176], [17, 114]], "two passes take time, too"
    assert sizes([0] * 40, 0) == [[20], [20], [], []]


def test_what_a_step_leaves():
    state = after([0, 0, 0], [1])
    assert state == [1, -1, 1]
    assert after(state, [2]) == [2, -1, -2]
    assert [*map(withstood, (2, -1, -2))] == [2, 0, 1]


@pytest.fixture
def _shorter(monkeypatch):
    """AutoAttack with the same parts and fewer iterations."""
    stages_of = autoattack.AutoAttack.stages

    def stages(self, package, num_classes):
        for part in (package.apgd, package.apgd_targeted):
            part.n_iter = 6
        package.fab.n_iter, package.square.n_queries = 3, 30
        return stages_of(self, package, num_classes)

    monkeypatch.setattr(autoattack.AutoAttack, "stages", stages)


@pytest.mark.parametrize("shares", [1, 2, 3, 5])
def test_square_by_several_processes_says_the_same_of_each_image(context, monkeypatch, shares):
    monkeypatch.setattr(autoattack_shares, "FEWEST", 4)
    task = accuracy(93, SQUARE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoattack_shares, "Parts", None)
        before = whole(task, context)
    shutil.rmtree(context.store.root / "answers")
    found = by_shares(task, shares, context)
    assert torch.equal(found[0], before[0])
    assert found[1] == before[1]
    assert 10 < found[0].sum() < 60


def seen_by_parts(monkeypatch):
    """Note which image each part of the package returns from which, as bytes."""
    found = {}
    for name, owner in (
        ("apgd", pyautoattack.autopgd_base.APGDAttack),
        ("square", pyautoattack.square.SquareAttack),
        ("fab", pyautoattack.fab_base.FABAttack),
    ):

        def watched(self, x, y, *more, name=name, run=owner.attack_single_run, **given):
            made = run(self, x, y, *more, **given)
            best = made[3] if name == "apgd" else made[1] if name == "square" else made
            rank = getattr(self, "y_target", None)
            for i in range(len(x)):
                target = int(rank[i]) if rank is not None else getattr(self, "target_class", None)
                found[name, target, x[i].numpy().tobytes()] = best[i].numpy().tobytes()
            return made

        monkeypatch.setattr(owner, "attack_single_run", watched)
    return found


@pytest.mark.usefixtures("_shorter")
@pytest.mark.parametrize("shares", [2, 3])
def test_autoattack_gives_each_image_the_numbers_that_it_has_in_its_batch(context, monkeypatch, shares):
    """To the bit, not only to the verdict: with other random numbers, nearly every example would be another."""
    monkeypatch.setattr(autoattack_shares, "FEWEST", 4)
    task, made = accuracy(45, autoattack.AutoAttack(0.03, seed=1, batch_size=13)), seen_by_parts(monkeypatch)
    before = whole(task, context), dict(made)
    made.clear()
    shutil.rmtree(context.store.root / "answers")
    attacked, fooled = [], autoattack_shares.Parts.fooled
    monkeypatch.setattr(
        autoattack_shares.Parts, "fooled", lambda *given: (attacked.append(given[1:3]), fooled(*given))[1]
    )
    found = by_shares(task, shares, context)
    at_once = {step for step, piece in attacked if len(piece.cuts) > 1}
    assert at_once >= {1, 2, 10, 11} or shares == 3, "images of two batches are attacked at once"
    assert torch.equal(found[0], before[0][0])
    assert found[1] == before[0][1]
    assert {name for name, *_ in made} == {"apgd", "square", "fab"}
    assert made == before[1]
    assert 8 < found[0].sum() < 30


def killed_in(monkeypatch, after_pieces):
    """Kill the process after so many pieces, once; return the list of the pieces that were attacked to the end."""
    attacked, fooled = [], autoattack_shares.Parts.fooled

    def killed(self, step, piece, *given):
        if len(attacked) == after_pieces:
            attacked.append(None)
            raise KeyboardInterrupt
        found = fooled(self, step, piece, *given)
        attacked.append((step, piece.images))
        return found

    monkeypatch.setattr(autoattack_shares.Parts, "fooled", killed)
    return attacked


@pytest.mark.parametrize("after_pieces", [0, 2, 3, 5])
@pytest.mark.parametrize("then", [1, 2])
def test_killed_in_the_middle_of_a_share_it_goes_on_and_attacks_nothing_twice(context, monkeypatch, after_pieces, then):
    task = accuracy(93, replace(SQUARE, batch_size=17))
    before, attacked = whole(task, context), killed_in(monkeypatch, after_pieces)
    shutil.rmtree(context.store.root / "answers")
    with pytest.raises(KeyboardInterrupt):
        by_shares(task, 1, context)
    assert len(attacked) == after_pieces + 1
    found = by_shares(task, then, context)
    assert torch.equal(found[0], before[0])
    assert then != 1 or found[1] == before[1]
    images = [(step, i) for each in attacked if each for step, of in [each] for i in of]
    if then == 1:
        assert len(set(images)) == len(images)
    else:  # another number of processes goes on after the last whole step
        first = [i for step, i in images if step == 0]
        assert after_pieces < 6 or len(set(first)) == len(first)


def test_batches_that_are_measured_are_kept_whatever_the_number_of_shares(context, monkeypatch):
    task, measured = accuracy(60, PGD), []
    with runtime.using(runtime.Settings("off", 8)):
        before = whole(task, context)
        shutil.rmtree(context.store.root / "answers")
        examples = attacks.PGD.examples

        def killed(self, network, images, *given):
            if self.steps:
                if len(measured) == 3:
                    measured.append(None)
                    raise KeyboardInterrupt
                measured.append(images[0])
            return examples(self, network, images, *given)

        monkeypatch.setattr(attacks.PGD, "examples", killed)
        with pytest.raises(KeyboardInterrupt):
            by_shares(task, 2, context)
        found = by_shares(task, 3, context)
    assert torch.equal(found[0], before[0])
    assert found[1] == before[1]
    assert len(measured) == 9, "eight batches, each once, and one death"


def test_no_time_is_said_to_be_left_before_a_batch_was_attacked_and_then_what_the_fooled_ones_leave():
    pace = Pace(autoattack.AutoAttack(0.1), 10, [0, 0, 0, 0])
    every = 1 + 202 + 9 * 202 + 2700 + 5001
    assert (pace.done, pace.total) == (0, 4 * every)
    after_first = every - 203
    for at, done, left in (
        ([1, 1, FOOLED, 0], 0, None),
        ([1, 1, FOOLED, 1], 0, None),
        ([2, FOOLED, FOOLED, 1], 4 + 2 * 202, after_first + 202 + after_first / 2),
        ([2, FOOLED, FOOLED, FOOLED], 4 + 3 * 202, after_first),
        ([3, FOOLED, FOOLED, FOOLED], 4 + 3 * 202 + 9 * 202, 2700 + 5001),
        ([FOOLED] * 4, 4 + 3 * 202 + 9 * 202 + 2700, 0),
    ):
        pace.moved(at)
        assert pace.done == done
        assert left is None or pace.total == pytest.approx(done + left)
    on = Pace(autoattack.AutoAttack(0.1), 10, [2, 3, FOOLED, FOOLED])
    assert (on.done, on.total) == (0, 2 * after_first - 9 * 202)


def test_the_bar_of_a_costly_attack_shows_the_work_of_its_stages(context):
    shares = []

    class Heard:
        def moved(self, share):
            shares.append(share)

        def said(self, message):
            pass

    with progress.heard_by(Heard()):
        accuracy(93, replace(SQUARE, batch_size=10)).do(context)
    assert shares[:11] == [0] * 11, "ten batches of natural images say nothing"
    assert 0 < shares[11] < shares[-1] == 1


def one_share_done(task, context, shares=2):
    """Do the first share; return all tasks and the file of its progress."""
    tasks = shares_of(task, shares, context)
    tasks[0].do(context)
    (path,) = (context.store.root / "answers").glob("*.json")
    return tasks, path


@pytest.mark.parametrize("attack", [PGD, SQUARE], ids=str)
def test_damaged_progress_is_named(context, attack):
    with runtime.using(runtime.Settings("off", 20)):
        tasks, path = one_share_done(accuracy(40, attack), context)
        path.write_text(path.read_text().replace('"answer"', '"anfwer"'))
        with pytest.raises(DamagedFileError, match=path.name):
            tasks[0].find(context)
        with pytest.raises(DamagedFileError, match=path.name):
            tasks[-1].share.forget(context, of_others=True)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "",
            [],
            ["1"],
            {"left": 0},
            {"left": 0, "fooled": [99]},
            {"left": "0", "fooled": []},
            {"left": 0, "fooled": 3},
        ),
        {"left": 0, "fooled": []},
        {"left": 0, "fooled": [], "images": list(range(10))},
        {"left": 0, "fooled": [], "images": list(range(39))},
        {"left": 0, "fooled": [39], "images": list(range(20))},
    ],
    ids=str,
)
@pytest.mark.parametrize("attack", [PGD, SQUARE], ids=str)
def test_progress_of_another_form_is_made_again(context, attack, wrong):
    task = accuracy(40, attack)
    with runtime.using(runtime.Settings("off", 20)):
        before = whole(task, context)
        shutil.rmtree(context.store.root / "answers")
        _, path = one_share_done(task, context)
        content = runs_json(path)
        context.store.write_answer(content["question"], wrong, content["measured_with"])
        found = by_shares(task, 2, context)
    assert torch.equal(found[0], before[0])


@pytest.mark.parametrize("attack", [PGD, SQUARE], ids=str)
def test_progress_of_other_versions_is_forgotten_and_other_machines_are_named(context, attack):
    task = accuracy(40, attack)
    with runtime.using(runtime.Settings("off", 20)):
        tasks, path = one_share_done(task, context)
        content = runs_json(path)
        question, answer, origin = content["question"], content["answer"], content["measured_with"]
        tasks[-1].share.forget(context, of_others=True)
        assert path.exists()
        context.store.write_answer(question, answer, {**origin, "torch": "1.0"})
        tasks[-1].share.forget(context, of_others=True)
        assert not path.exists()
        context.store.write_answer(question, answer, {**origin, "device": "an abacus"})
        tasks[-1].share.forget(context, of_others=True)
        by_shares(task, 2, context)
    (environment,) = task.environments(context)
    assert environment["device"] == "an abacus and cpu, 1 threads"
    assert environment["torch"] == origin["torch"]


def test_shares_of_one_measurement_differ_in_name_and_of_equal_ones_do_not(context):
    tasks = [*shares_of(accuracy(40, SQUARE), 3, context), *shares_of(accuracy(40, SQUARE), 2, context)]
    with runtime.using(runtime.Settings("off", 8)):
        tasks += [*shares_of(accuracy(40, PGD), 3, context), *shares_of(accuracy(40, PGD), 2, context)]
    assert len({task.name for task in tasks}) == len(tasks)
    assert [task.name for task in shares_of(accuracy(40, SQUARE), 3, context)] == [each.name for each in tasks[:7]]


def test_long_measurements_are_shared_out_where_workers_would_wait_for_them(context):
    second = estimate.A_SECOND
    long, other = accuracy(40, SQUARE), accuracy(41, SQUARE)
    found, costs = shared_out([long], {long: 100 * second}, 4, context)
    assert isinstance(found[-1], Joined)
    assert sum(isinstance(each, Share) for each in found) == 8, "two steps by four"
    assert sum(costs.values()) == pytest.approx(100 * second, rel=1e-3), "the bar counts the same work"
    for work, workers in (
        ({long: 10 * second}, 4),  # short
        ({long: 100 * second}, 1),
        ({long: 100 * second, other: 2000 * second}, 4),  # nobody waits for it
    ):
        assert shared_out([long], work, workers, context) == ([long], work)
    many = {accuracy(n, SQUARE): 100 * second for n in range(40, 60)}
    assert shared_out(list(many), many, 4, context)[0] == list(many)


def test_a_single_long_measurement_takes_workers(context, monkeypatch):
    monkeypatch.setattr("rkdkit.cluster.workers.cores", lambda: 4)
    monkeypatch.setattr("rkdkit.cluster.workers.most_workers", lambda _=0: 100)
    task = replace(accuracy(0, autoattack.AutoAttack(0.03)), images=Images("digits", "train", n=1000))
    costs = costs_of([task], context)
    workers, tasks, _ = Workers(Workforce("auto"), context.store).shared_out([task], costs, context)
    assert workers == 4
    assert len(tasks) == 13 * 4 + 1
    short = accuracy(8, PGD)
    assert Workers(Workforce("auto")).shared_out([short], costs_of([short], context), context)[:2] == (1, [short])


@pytest.fixture(scope="module")
def there(tmp_path_factory, trained_store):
    """A scheduler and three workers, whose store has the network."""
    root = tmp_path_factory.mktemp("there")
    shutil.copytree(trained_store.root / "runs", root / "store" / "runs")
    with outside(root / "dask", root / "store", 3) as found:
        wait_until(lambda: found.registered("0", "1", "2"), "all workers register")
        yield found


@pytest.fixture
def theirs(there, monkeypatch):
    monkeypatch.setenv("RKDKIT_STORE", str(there.store))
    monkeypatch.setattr(sharing, "LEAST_SECONDS", 0.0)
    executor = Workers(Workforce(scheduler_file=str(there.file)), Store(there.store))
    yield executor
    executor.close()


def test_workers_share_a_measurement_out_though_one_is_killed_over_it(context, there, theirs, monkeypatch):
    square = accuracy(93, autoattack.Square(0.05, 400, batch_size=40))
    tasks = [square, PerImage(images=Images("digits", n=93), quantity="entropy", snapshot=LAST, attack=PGD)]
    before = [whole(task, context)[0] for task in tasks]
    begun = there.store / "answers"

    killed, cluster = [], theirs.cluster(0, theirs.context)
    hear = cluster._hear

    def heard():
        hear()
        if not killed and len(list(begun.glob("*.json"))) > 3:
            killed.append(there.kill("0"))

    monkeypatch.setattr(cluster, "_hear", heard)
    with runtime.using(runtime.Settings("off", 20)), executors.using(theirs):
        found = [answer.value for answer in theirs.gather(tasks)]
    assert killed
    for mine, alone in zip(found, before, strict=True):
        assert torch.equal(mine, alone)
    assert len(list(begun.glob("*.json"))) == 2, "of the shares nothing is left"


def test_a_share_that_fails_names_its_measurement(theirs):
    bad = accuracy(60, attacks.PGD(0.05, 0.02, 2), (replace(LAST, epoch=1),))
    path = theirs.context.store.run_folder(SPEC).path / bad.judges[0].file
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    try:
        with runtime.using(runtime.Settings("off", 20)), pytest.raises(TasksFailedError) as caught:
            theirs.gather([bad])
    finally:
        path.write_bytes(content)
    # a worker that another test has killed may not be there again
    assert re.search(rf"share 1 of [23] of the {re.escape(str(bad))} failed", str(caught.value))
    assert f"Without it there is no {bad}." in str(caught.value)
    assert bad in {each.whole for each in caught.value.prevented}
