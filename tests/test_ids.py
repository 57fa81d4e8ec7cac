"""Ids outlive fields: what a store holds is found again by later code, and every field that counts counts alone."""

import dataclasses
import json

import pytest
from conftest import tiny_spec

from rkdkit import methods, profiles, runs, spec, training
from rkdkit.checks import UnknownNameError
from rkdkit.identity import identifying_fields
from rkdkit.methods import Maximised, Method, Term
from rkdkit.spec import RunSpec, Teacher

EARLY = Teacher(run=tiny_spec("TRADES", epochs=3, seed=1), epoch=1)
NESTED = Teacher(run=tiny_spec("KD", teachers=(EARLY,), epochs=3), epoch=2, weight=0.25)
FOREIGN = Teacher(module="mine", digest="0123456789abcdef", weight=0.75)
ROBUST = Teacher(run=tiny_spec("PGD-AT"), slot="T_rob")
NATURAL = Teacher(run=tiny_spec("Natural", swa_start=1), role="student_averaged", slot="T_nat")

# as they were before any field was left out: a store made then is found by these
PINNED = [
    (tiny_spec("PGD-AT"), "4229b4df88ac8631"),
    (tiny_spec("PeerAiD"), "859cacc9ddfbf021"),
    (tiny_spec("AKD2", teachers=(ROBUST, NATURAL)), "55c69f9fdf6e136a"),
    (tiny_spec("CAT", precision="bfloat16"), "deb48d8b3eae695c"),
    (tiny_spec("KD", teachers=(EARLY,)), "63cd6d72cfa84c8c"),
    (tiny_spec("RSLAD+", teachers=(NESTED, FOREIGN)), "c4c4eb1ffdd65a4f"),
    (tiny_spec("Fast-ARD", teachers=(EARLY,), settings=(("m", 8),)), "f2b64cadbaf62702"),
    # all that can be at its default
    (RunSpec(method="PGD-AT", dataset="digits", student="resnet18"), "e1a1e581d56e3ce9"),
    (
        RunSpec(
            method="KD",
            dataset="digits",
            student="resnet18",
            teachers=(Teacher(module="mine"),),
            **{"epochs": 2, "schedule": "multistep", "milestones": (1,)},
        ),
        "dc741c5dc00f28e0",
    ),
    (profiles.PROFILES["quick"].spec("PeerAiD", 3), "d985315f339a1fc9"),
    # by the profile's own schedule, which was TRADES's when the id was pinned
    (dataclasses.replace(profiles.PROFILES["paper"], recipes=False).spec("TRADES"), "50407270e2272a55"),
]

WRITTEN_BEFORE = """
{"method": "KD", "dataset": "digits", "student": "resnet18/16", "peer": "", "teachers": [{"run": {"method": "TRADES",
"dataset": "digits", "student": "resnet18/16", "peer": "", "teachers": [], "settings": {"beta": 6.0, "kl_reduction":
"batchmean"}, "seed": 1, "n_train": 128, "n_val": 32, "augmentation": "none", "extra": "", "extra_fraction": 0.0,
"eps": 0.25, "step_size": 0.125, "attack_steps": 2, "epochs": 3, "batch_size": 64, "lr": 0.05, "schedule": "constant",
"milestones": [], "gamma": 1.0, "momentum": 0.9, "weight_decay": 0.0002, "swa_start": null, "ema_decay": null,
"precision": "float32", "snapshot_every": 1, "engine": 1}, "epoch": 1, "role": "student", "module": "", "digest": "",
"letter": "T", "weight": 1.0}], "settings": {"kl_reduction": "mean", "l": 1.0, "tau": 30.0}, "seed": 0, "n_train": 128,
"n_val": 32, "augmentation": "none", "extra": "", "extra_fraction": 0.0, "eps": 0.0, "step_size": 0.0, "attack_steps":
0, "epochs": 2, "batch_size": 64, "lr": 0.05, "schedule": "constant", "milestones": [], "gamma": 1.0, "momentum": 0.9,
"weight_decay": 0.0002, "swa_start": null, "ema_decay": null, "precision": "float32", "snapshot_every": 1, "engine": 1}
"""
"""What run.json said of the pinned KD when the ids were pinned."""


@pytest.mark.parametrize(("run", "pinned"), PINNED, ids=[run.method for run, _ in PINNED])
def test_ids_are_what_they_were(run, pinned):
    assert run.id == pinned


def test_a_specification_written_before_is_the_same():
    before = json.loads(WRITTEN_BEFORE)
    assert RunSpec.from_json(before).id == "63cd6d72cfa84c8c"
    assert tiny_spec("KD", teachers=(EARLY,)).to_json() == before


# a later kit's classes, each with a field more


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterRunSpec(RunSpec):
    label_noise: float = 0.0
    tags: tuple[str, ...] = dataclasses.field(default_factory=tuple)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterTeacher(Teacher):
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class LaterTerm(Term):
    margin: float = 0.0


@dataclasses.dataclass(frozen=True)
class LaterMaximised(Maximised):
    restarts: int = 1


@dataclasses.dataclass(frozen=True)
class LaterMethod(Method):
    train_mode_attack: bool = False


def fields_of(instance):
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance) if field.init}


def later(cls, instance, **changes):
    """The same value as a later kit has it."""
    return cls(**{**fields_of(instance), **changes})


@pytest.mark.parametrize(("run", "pinned"), PINNED, ids=[run.method for run, _ in PINNED])
def test_a_new_field_of_a_run_or_teacher_changes_no_id_until_it_is_used(run, pinned):
    teachers = tuple(later(LaterTeacher, teacher) for teacher in run.teachers)
    assert later(LaterRunSpec, run, teachers=teachers).id == pinned
    assert later(LaterRunSpec, run).to_json() == run.to_json()
    assert later(LaterRunSpec, run, label_noise=0.1).id != pinned
    assert later(LaterRunSpec, run, label_noise=0.1).to_json()["label_noise"] == 0.1
    assert later(LaterRunSpec, run, tags=("a",)).id != pinned
    if teachers:
        warmer = (later(LaterTeacher, run.teachers[0], temperature=2.0), *teachers[1:])
        assert later(LaterRunSpec, run, teachers=warmer).id != pinned
        assert later(LaterTeacher, run.teachers[0], temperature=2.0).to_json()["temperature"] == 2.0


@pytest.mark.parametrize("name", ["TRADES", "PeerAiD", "Fast-ARD"])
def test_a_new_field_of_a_row_or_its_parts_changes_no_id_until_it_is_used(name, monkeypatch):
    row, before = methods.get(name), tiny_spec(name).id

    def id_with(row):
        monkeypatch.setitem(methods.METHODS, name, row)
        return tiny_spec(name).id

    def with_parts(term=None, attack=None):
        return dataclasses.replace(
            row,
            minimises=tuple(later(LaterTerm, t, **(term or {})) for t in row.minimises),
            maximises=tuple(later(LaterMaximised, a, **(attack or {})) for a in row.maximises),
        )

    assert id_with(with_parts()) == before
    assert id_with(with_parts(term={"margin": 0.5})) != before
    if row.maximises:
        assert id_with(with_parts(attack={"restarts": 2})) != before
    assert id_with(later(LaterMethod, row)) == before
    assert id_with(later(LaterMethod, row, train_mode_attack=True)) != before


@pytest.mark.usefixtures("one_block")
def test_a_run_that_was_stored_before_a_field_was_added_is_found_and_not_trained_again(monkeypatch):
    run = runs.ensure(tiny_spec("ARD", epochs=1))

    def trained_again(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(training.Training, "run_epoch", trained_again)
    teachers = tuple(later(LaterTeacher, teacher) for teacher in run.spec.teachers)
    found = runs.ensure(later(LaterRunSpec, run.spec, teachers=teachers))
    assert found.record == run.record
    with pytest.raises(AssertionError, match="trained again"):
        runs.ensure(later(LaterRunSpec, run.spec, label_noise=0.1))


def test_what_identifies_a_value():
    @dataclasses.dataclass
    class Value:
        given: int
        old: int = 1
        new: int = 2
        listed: list = dataclasses.field(default_factory=list)
        computed: int = dataclasses.field(default=3, init=False)
        beside: int = dataclasses.field(default=4, compare=False)
        title: str = ""

    def identity(**changes):
        return identifying_fields(Value(**{"given": 0, **changes}), always=("old",), never=("title",))

    assert identity() == {"given": 0, "old": 1}
    assert identity(new=5, listed=[6], beside=7, title="mine") == {"given": 0, "old": 1, "new": 5, "listed": [6]}


# every field that counts, alone

MULTISTEP = {"epochs": 5, "schedule": "multistep", "milestones": (2,)}
EXTRA = {"extra": "more.npz", "extra_fraction": 0.5}
RUN_FIELDS = {
    "dataset": ("TRADES", {}, "digits:3,8"),
    "student": ("TRADES", {}, "resnet18/8"),
    "peer": ("PeerAiD", {}, "resnet18/8"),
    "teachers": ("ARD", {}, (EARLY,)),
    "settings": ("TRADES", {}, (("beta", 5.0),)),
    "seed": ("TRADES", {}, 1),
    "n_train": ("TRADES", {}, None),
    "n_val": ("TRADES", {}, 31),
    "augmentation": ("TRADES", {}, "crop-flip"),
    "extra": ("TRADES", EXTRA, "other.npz"),
    "extra_fraction": ("TRADES", EXTRA, 0.25),
    "eps": ("TRADES", {}, 0.2),
    "step_size": ("TRADES", {}, 0.1),
    "attack_steps": ("TRADES", {}, 3),
    "epochs": ("TRADES", {}, 3),
    "batch_size": ("TRADES", {}, 32),
    "lr": ("TRADES", {}, 0.06),
    "schedule": ("TRADES", {"gamma": 1.0}, "exponential"),
    "milestones": ("TRADES", MULTISTEP, (2, 3)),
    "gamma": ("TRADES", MULTISTEP, 0.2),
    "momentum": ("TRADES", {}, 0.8),
    "weight_decay": ("TRADES", {}, 5e-4),
    "swa_start": ("TRADES", {}, 1),
    "ema_decay": ("TRADES", {}, 0.99),
    "precision": ("TRADES", {}, "bfloat16"),
    "snapshot_every": ("TRADES", {}, 2),
}


def differing(one, other):
    return {name for name, value in fields_of(one).items() if getattr(other, name) != value}


@pytest.mark.parametrize("name", RUN_FIELDS)
def test_a_run_that_differs_in_one_field_is_another_run(name):
    method, beside, value = RUN_FIELDS[name]
    one, other = tiny_spec(method, **beside), tiny_spec(method, **{**beside, name: value})
    assert differing(one, other) == {name}
    assert one != other
    assert one.id != other.id
    assert one.to_json() != other.to_json()


def test_a_run_of_another_name_engine_or_reading_is_another_run(monkeypatch):
    row = dataclasses.replace(methods.get("TRADES"), code={"attack_mode": "train"})
    monkeypatch.setitem(methods.METHODS, "Mine", row)
    one, renamed, read = tiny_spec("TRADES"), tiny_spec("Mine"), tiny_spec("Mine", reading="code")
    monkeypatch.setattr(spec, "ENGINE", 2)
    rebuilt = tiny_spec("TRADES", engine=2)
    assert (differing(one, renamed), differing(one, rebuilt)) == ({"method"}, {"engine"})
    assert differing(renamed, read) == {"reading"}
    assert len({one.id, renamed.id, rebuilt.id, read.id}) == 4
    # so every field is tried; whoever adds one adds a line above
    assert {*RUN_FIELDS, "method", "engine", "reading"} == {field.name for field in dataclasses.fields(RunSpec)}


AVERAGING = tiny_spec("TRADES", epochs=3, swa_start=1)
HALF = Teacher(run=AVERAGING, weight=0.5)
TEACHER_FIELDS = {
    "run": ({"run": AVERAGING}, tiny_spec("TRADES", epochs=3, swa_start=1, seed=1)),
    "epoch": ({"run": AVERAGING}, 2),
    "role": ({"run": AVERAGING}, "student_averaged"),
    "module": ({"module": "mine", "digest": "ab"}, "other"),
    "digest": ({"module": "mine", "digest": "ab"}, "cd"),
    "slot": ({"run": AVERAGING, "slot": "T_rob"}, "T_nat"),
    "weight": ({"run": AVERAGING, "weight": 0.5}, 0.25),
}


@pytest.mark.parametrize("name", TEACHER_FIELDS)
def test_a_teacher_that_differs_in_one_field_makes_another_run(name):
    given, value = TEACHER_FIELDS[name]
    one, other = Teacher(**given), Teacher(**{**given, name: value})
    assert differing(one, other) == {name}
    assert one != other
    assert one.to_json() != other.to_json()

    def taught_by(teacher, weight):
        # those that make the row complete are the same for both, but for what the other lacks
        if name == "slot":
            rest = (Teacher(module="rest", slot={"T_rob": "T_nat", "T_nat": "T_rob"}[teacher.slot]),)
            return tiny_spec("AKD2", teachers=(teacher, *rest))
        rest = (Teacher(module="rest", weight=1 - weight),) if weight < 1 else ()
        return tiny_spec("ARD", teachers=(teacher, *rest))

    assert taught_by(one, one.weight).id != taught_by(other, other.weight).id


def test_every_field_of_a_teacher_counts_but_whether_it_is_certain():
    assert {*TEACHER_FIELDS, "certain"} == {field.name for field in dataclasses.fields(Teacher)}
    sure, unsure = Teacher(run=AVERAGING), Teacher(run=AVERAGING, certain=False)
    assert sure == unsure
    assert hash(sure) == hash(unsure)
    assert sure.to_json() == unsure.to_json()
    assert set(sure.to_json()) == {"run", "epoch", "role", "module", "digest", "letter", "weight"}
    assert tiny_spec("ARD", teachers=(sure,)).id == tiny_spec("ARD", teachers=(unsure,)).id


def test_a_run_is_certain_if_all_its_teachers_and_theirs_are():
    unsure = dataclasses.replace(EARLY, certain=False)
    assert tiny_spec("PGD-AT").certain
    assert tiny_spec("ARD", teachers=(EARLY,)).certain
    one_below = tiny_spec("ARD", teachers=(unsure,))
    two_below = tiny_spec("RSLAD", teachers=(Teacher(run=one_below),))
    assert not one_below.certain
    assert not two_below.certain
    assert not tiny_spec("AKD2", teachers=(ROBUST, dataclasses.replace(NATURAL, certain=False))).certain
    assert RunSpec.from_json(two_below.to_json()).certain, "what is written was decided"


def test_an_unknown_field_of_a_teacher_is_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown field of a teacher 'epok'\. Did you mean 'epoch'"):
        Teacher.from_json({**EARLY.to_json(), "epok": 3})
    for not_written in ("slot", "certain"):
        with pytest.raises(UnknownNameError, match="Unknown field of a teacher"):
            Teacher.from_json({**EARLY.to_json(), not_written: "T"})


TERM = Term("KL", "T(x)", "S(x)", weight="l", tau="tau")
ATTACK = Maximised("KL", "T(x)", "S(x~)")
ROW = Method(
    "Mine", "here", (Term("CE", "y", "S(x*)"), Term("CE", "y", "S(x)", weight="l")), (ATTACK,), settings={"l": 1.0}
)


@pytest.mark.parametrize(
    ("one", "name", "value"),
    [
        (Term("KL", "S(x)", "S(x*)"), "divergence", "MSE"),
        (TERM, "target", "S(x)"),
        (TERM, "output", "S(x*)"),
        (TERM, "weight", "m"),
        (TERM, "tau", "m"),
        (TERM, "mixing", "m"),
        (TERM, "certainty", "a"),
        (ATTACK, "target", "T(x~)"),
        (ATTACK, "output", "P(x~)"),
        (ATTACK, "start", "gaussian"),
        (ATTACK, "makes", "x*_S"),
        (ROW, "minimises", ROW.minimises[::-1]),
        (ROW, "maximises", (dataclasses.replace(ATTACK, start="gaussian"),)),
        (ROW, "eps_factor", 0.5),
        (ROW, "one_step", 1.25),
        (ROW, "attack_mode", "train"),
        (ROW, "clamps_start", False),
        (ROW, "passes", ("S(x)", "S(x*)")),
        (ROW, "passes_after", ("S(x)",)),
        (ROW, "normalises", False),
    ],
)
def test_a_row_or_a_part_of_it_that_differs_in_one_field_has_another_definition(one, name, value):
    other = dataclasses.replace(one, **{name: value})
    assert differing(one, other) == {name}
    assert one.definition() != other.definition()


def test_an_attack_on_labels_and_a_free_row_have_definitions_of_their_own():
    # neither field can differ alone: an attack on labels has another target, a free row no attack
    assert Maximised("CE", "y", "S(x~)").definition()["divergence"] == "CE"
    assert ATTACK.definition()["divergence"] == "KL"
    assert [methods.get(name).definition()["free"] for name in ("Free-AT", "PGD-AT")] == [True, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", "Another"),
        ("source", "there"),
        ("settings", {"l": 0.5}),
        ("settings_on", {"cifar10": {"l": 0.5}}),
        ("recipe", {"epochs": 3}),
        ("recipe_on", {"cifar10": {"epochs": 3}}),
        ("differences", "none"),
        ("averages_weights", True),
        ("code", {"attack_mode": "train"}),
    ],
)
def test_what_a_row_says_about_itself_is_no_part_of_its_definition(name, value):
    assert dataclasses.replace(ROW, **{name: value}).definition() == ROW.definition()
