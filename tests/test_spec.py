"""A run is a specification: canonical, hashable, checked."""

import dataclasses
import itertools
import json

import pytest
from conftest import tiny_spec
from hypothesis import given
from hypothesis import strategies as st

from rkdkit import methods
from rkdkit.checks import UnknownNameError
from rkdkit.spec import RunSpec, Teacher, canonical_json

specs = st.builds(
    tiny_spec,
    method=st.sampled_from(sorted(methods.METHODS)),
    seed=st.integers(0, 2**31),
    eps=st.floats(0, 1),
    n_train=st.none() | st.integers(2, 1000),
    schedule=st.sampled_from(["constant", "onecycle", "exponential"]),
    swa_start=st.none() | st.integers(0, 1),
    precision=st.sampled_from(["float32", "bfloat16"]),
)


@given(specs)
def test_json_and_back_is_the_same_specification(spec):
    again = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.id == spec.id


FEW = {
    "method": ("Natural", "PGD-AT", "ARD"),
    "seed": (0, 0.0, 1),
    "eps": (0, 0.0, 0.1),
    "n_train": (None, "none", 100, 100.0),
    "schedule": ("constant", "onecycle", "exponential"),
}


@pytest.mark.parametrize("method", FEW["method"])
@pytest.mark.parametrize("name", FEW)
def test_ids_are_equal_exactly_when_specifications_are(name, method):
    def meant(choice):
        """Which training is asked for: natural training makes no use of a radius, and "none" is None."""
        radius = None if choice["method"] == "Natural" else choice.get("eps")
        return {**choice, "eps": radius, "n_train": None if choice.get("n_train") == "none" else choice.get("n_train")}

    for values in itertools.product(FEW[name], repeat=2):
        choices = [{"method": method, name: value} for value in values]
        same, (one, other) = meant(choices[0]) == meant(choices[1]), (tiny_spec(**choice) for choice in choices)
        assert (one == other) == same, values
        assert (one.id == other.id) == same, values
        assert (canonical_json(one.to_json()) == canonical_json(other.to_json())) == same, values


def test_numbers_that_are_equal_make_equal_ids():
    assert tiny_spec(lr=1).id == tiny_spec(lr=1.0).id
    assert tiny_spec(epochs=3.0).id == tiny_spec(epochs=3).id


def test_a_default_that_is_spelled_out_changes_nothing():
    assert tiny_spec("TRADES").id == tiny_spec("TRADES", settings=(("beta", 6),)).id
    assert tiny_spec("TRADES").id != tiny_spec("TRADES", settings=(("beta", 5),)).id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "PGDAT"}, "Unknown method 'PGDAT'. Did you mean 'PGD-AT'.*Natural"),
        ({"dataset": "cifar"}, "Unknown dataset 'cifar'. Did you mean 'cifar10'.*digits"),
        ({"student": "resnet19"}, "Unknown model 'resnet19'. Did you mean 'resnet18'"),
        ({"student": "resnet18/3"}, "width divisor"),
        ({"student": "resnet18/"}, "width divisor"),
        ({"schedule": "one-cycle"}, "Unknown schedule 'one-cycle'. Did you mean 'onecycle'"),
        ({"augmentation": "crop"}, "Unknown augmentation"),
        ({"precision": "float16"}, "Unknown precision"),
        ({"eps": -0.1}, "eps must be between 0 and 1"),
        ({"eps": float("nan")}, "eps must be between 0 and 1"),
        ({"step_size": -1}, "step_size must be between 0 and"),
        ({"attack_steps": -1}, "attack_steps must be between 0 and 10000"),
        ({"epochs": 0}, "epochs must be between 1 and 100000"),
        ({"epochs": "20"}, "epochs must be a whole number, not '20'"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be at least 2"),
        ({"n_train": 0}, "n_train must be at least 2"),
        ({"momentum": 1.5}, "momentum must be between 0 and 1"),
        ({"schedule": "multistep", "milestones": (5, 3), "epochs": 9}, "milestones .* must be increasing epochs"),
        ({"schedule": "multistep", "milestones": (5, 9), "epochs": 9}, "between 1 and 8.*together with epochs"),
        ({"schedule": "multistep", "milestones": (0,), "epochs": 9}, "between 1 and 8"),
        ({"schedule": "multistep"}, "milestones"),
        ({"swa_start": 2, "epochs": 2}, "swa_start of a run of 2 epochs must be between 0 and 1"),
        ({"ema_decay": 1.5}, "ema_decay must be between 0 and 1"),
        ({"ema_decay": 0.9, "swa_start": 1}, "set swa_start or ema_decay, not both"),
        ({"extra_fraction": 1.5}, "extra_fraction must be between 0 and 1"),
        ({"extra_fraction": 0.5}, "extra and extra_fraction go together"),
        ({"extra": "more.npz", "extra_fraction": 0.001}, "at least one image of 64"),
        ({"method": "ARD", "teachers": ("TRADES",)}, "Each of teachers must be a Teacher, .* not str"),
        (
            {"method": "ARD", "teachers": [Teacher(run=tiny_spec("TRADES", dataset="digits:1,0"))]},
            "was trained on digits:1,0, but the student is on digits: their classes must be the same",
        ),
        ({"extra": "more.npz"}, "extra and extra_fraction go together"),
        ({"method": "ARD", "teachers": ()}, r"ARD needs a teacher \(T\); teachers given: none"),
        ({"method": "AKD2", "teachers": ()}, r"AKD2 needs a robust teacher \(T_rob\) and a natural teacher \(T_nat\)"),
        ({"teachers": (Teacher(module="mine"),)}, "PGD-AT needs no fixed teacher; teachers given: T"),
        (
            {"method": "ARD", "teachers": (Teacher(module="a", weight=0.5), Teacher(module="b", weight=0.4))},
            "weights of the teachers in slot T must sum to 1, not 0.9",
        ),
        ({"method": "ARD+", "settings": (("mixing", 1.5),)}, r"mixing of ARD\+ must be between 0 and 1"),
        ({"eps": 8}, "eps must be between 0 and 1"),
        ({"peer": "resnet18"}, "PGD-AT trains student: it has no peer"),
        ({"method": "PeerAiD", "peer": ""}, "PeerAiD trains student and peer: name the peer's network"),
        ({"settings": (("tau", 1),)}, "setting of PGD-AT 'tau'"),
        ({"engine": 0}, "engine"),
    ],
)
def test_bad_fields_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_spec(**{"method": "PGD-AT", **changes})


def test_an_unknown_field_of_a_file_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'epochs'"):
        RunSpec.from_json({**tiny_spec().to_json(), "epoch": 3})


def test_what_a_run_does_not_use_does_not_make_it_another():
    assert tiny_spec("Natural", eps=0.1).id == tiny_spec("Natural", eps=0.2, attack_steps=7).id
    assert tiny_spec("PGD-AT", eps=0.1).id != tiny_spec("PGD-AT", eps=0.2).id
    assert tiny_spec(schedule="onecycle", gamma=0.5).id == tiny_spec(schedule="onecycle", milestones=(1,)).id
    assert tiny_spec(schedule="onecycle", momentum=0.5).momentum is None
    assert tiny_spec(schedule="exponential", gamma=0.5).id != tiny_spec(schedule="exponential", gamma=0.6).id


def test_a_method_that_changes_makes_other_runs(monkeypatch):
    before = tiny_spec("TRADES").id
    row = methods.METHODS["TRADES"]
    student = tiny_spec("ARD").id
    detached = dataclasses.replace(row.minimises[1], target="S(x).detach")
    for changed in (
        dataclasses.replace(row, minimises=(row.minimises[0], detached)),
        dataclasses.replace(row, maximises=(dataclasses.replace(row.maximises[0], start="uniform"),)),
        dataclasses.replace(row, maximises=(methods.Maximised("CE", "y", "S(x~)", start="gaussian"),)),
        dataclasses.replace(row, eps_factor=0.5),
        dataclasses.replace(row, one_step=1.0),
    ):
        monkeypatch.setitem(methods.METHODS, "TRADES", changed)
        assert tiny_spec("TRADES").id != before
        assert tiny_spec("ARD").id != student, "its teacher is another"
    monkeypatch.setitem(methods.METHODS, "TRADES", dataclasses.replace(row, title="another title"))
    assert tiny_spec("TRADES").id == before


def test_a_teacher_is_part_of_the_run():
    teacher = tiny_spec("TRADES", epochs=3, swa_start=1)
    specs = [
        tiny_spec("ARD", teachers=(Teacher(run=teacher, epoch=epoch, role=role),))
        for epoch, role in ((1, "student"), (3, "student"), (3, "student_averaged"))
    ]
    assert len({spec.id for spec in specs}) == 3
    assert tiny_spec("ARD", teachers=(Teacher(run=teacher),)).id == specs[1].id, "the last epoch, if none is named"
    assert str(specs[0]) == "ARD resnet18/16 on digits from TRADES resnet18/16 at epoch 1, seed 0"
    again = RunSpec.from_json(json.loads(json.dumps(specs[0].to_json())))
    assert again.teachers[0].run == teacher


def test_a_run_is_named_by_method_network_data_teachers_and_seed():
    assert str(tiny_spec("PGD-AT", seed=3)) == "PGD-AT resnet18/16 on digits, seed 3"
    assert str(Teacher(run=tiny_spec("TRADES", epochs=3))) == "TRADES resnet18/16 at epoch 3"
    assert str(Teacher(module="their teacher", digest="12")) == "their teacher"
    of_two = tiny_spec("AKD2")
    assert str(of_two) == (
        "AKD2 resnet18/16 on digits from TRADES resnet18/16 at epoch 1 and TRADES resnet18/16 at epoch 1, seed 0"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either a run or a foreign module"),
        ({"run": tiny_spec(), "module": "mine"}, "either a run or a foreign module"),
        ({"run": tiny_spec(epochs=3), "epoch": 4}, "epoch of teacher .* of 3 epochs must be between 1 and 3, not 4"),
        (
            {"run": tiny_spec(epochs=3, snapshot_every=2), "epoch": 1},
            "keeps a snapshot every 2 epochs .*none at epoch 1",
        ),
        ({"run": tiny_spec(epochs=3), "role": "peer"}, "Unknown network of PGD-AT .* at epoch 3 'peer'"),
        ({"run": tiny_spec(swa_start=1), "epoch": 1, "role": "student_averaged"}, "Unknown network of PGD-AT"),
        ({"run": tiny_spec(), "weight": 1.5}, "weight of teacher .* must be between 0 and 1"),
        ({"run": tiny_spec(), "slot": "T_robust"}, "Unknown teacher slot 'T_robust'. Did you mean 'T_rob'"),
    ],
)
def test_teachers_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Teacher(**fields)
