"""Rows are immutable values, parsed once and the same in every process."""

import copy
import dataclasses
import pickle

import pytest
import torch
from conftest import run_python, tiny_spec

from rkdkit import attacks, methods
from rkdkit.checks import UnknownNameError
from rkdkit.frozen import FrozenMapping
from rkdkit.methods import notation
from rkdkit.methods.notation import Factor, Point, Product
from rkdkit.spec import Teacher


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("S(x)", Point("S", "x", False)),
        ("S(x~)", Point("S", "x~", False)),
        ("T_rob(x*)", Point("T_rob", "x*", False)),
        ("P(x*_S).detach", Point("P", "x*_S", True)),
    ],
)
def test_a_point_is_parsed_and_written_as_the_papers_write_it(text, point):
    assert Point.parse(text, "a test") == point
    assert str(point) == text


def test_a_terms_points_and_weight_are_parsed_when_it_is_made():
    term = methods.Term("KL", "P(x*_S).detach", "S(x*_S)", weight="0.5 * own * 1-a1-a2", tau="tau")
    assert (term.target_point, term.output_point) == (Point("P", "x*_S", True), Point("S", "x*_S"))
    assert term.factors == Product((Factor(0.5), Factor("own"), Factor(1.0, ("a1", "a2"))))
    assert term.points == ("P(x*_S)", "S(x*_S)")
    assert term.factors.settings == {"own", "a1", "a2"}
    assert term.factors.shares == (("a1", "a2"),)
    assert term.factors.value({"own": 3.0, "a1": 0.25, "a2": 0.5}) == 0.5 * 3 * 0.25
    assert methods.Term("CE", "y", "S(x)").target_point is None
    assert methods.Term("CE", "y", "S(x)").factors.value({}) == 1.0


@pytest.mark.parametrize("name", methods.METHODS)
def test_nothing_is_parsed_while_a_method_is_evaluated(name, monkeypatch):
    def parsed(*_):
        raise AssertionError("parsed again")

    row = methods.get(name)
    monkeypatch.setattr(notation.Point, "parse", parsed)
    monkeypatch.setattr(notation.Product, "parse", parsed)
    monkeypatch.setattr(notation, "split_factors", parsed)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 2])
    networks = dict.fromkeys(("S", "P", *row.guides), (network,))
    logits = methods.Logits(networks, {"x": images, "x*": images})
    attack = attacks.PGD(0.1, 0.1, 1)
    for maximised in row.maximises:
        examples = methods.adversarial_examples(maximised, logits, images, labels, attack, torch.Generator())
        logits.add(maximised.makes, examples)
    assert methods.loss(row, row.resolve({}), logits, labels).isfinite()


def test_rows_cannot_be_changed():
    row = methods.get("PeerAiD")
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.eps_factor = 2.0
    for mapping in (row.settings, row.settings_on, row.settings_on["cifar100"], row.recipe, row.recipe_on):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["g2"] = 7
    given = {"l": 0.5}
    mine = methods.Method("Mine", "", (methods.Term("CE", "y", "S(x)", weight="l"),), settings=given)
    given["l"] = 0.7
    assert mine.settings == {"l": 0.5}, "a row keeps its own copy"


def test_equal_rows_are_one_key_and_others_are_not():
    row = methods.get("PeerAiD")
    assert copy.deepcopy(row) == row
    assert len({row, copy.deepcopy(row), dataclasses.replace(row, settings={**row.settings, "g2": 1.0})}) == 2
    one, other = FrozenMapping({"a": {"b": 1}}), FrozenMapping({"a": {"b": 2}})
    assert one != other
    assert one == {"a": {"b": 1}}
    assert (repr(one), len(one), list(one), hash(one)) == (
        "{'a': {'b': 1}}",
        1,
        ["a"],
        hash(FrozenMapping({"a": {"b": 1}})),
    )


@pytest.mark.parametrize("name", methods.METHODS)
def test_rows_and_specifications_can_be_pickled(name):
    row, spec = methods.get(name), tiny_spec(name)
    for value in (row, spec, *row.minimises, *row.maximises, *spec.teachers):
        again = pickle.loads(pickle.dumps(value))
        assert again == value
        assert hash(again) == hash(value)
        assert str(again) == str(value)
    again = pickle.loads(pickle.dumps(row))
    assert again.definition() == row.definition()
    assert (again.roles, again.guides, again.resolve({})) == (row.roles, row.guides, row.resolve({}))
    assert [term.factors for term in again.minimises] == [term.factors for term in row.minimises]
    with pytest.raises(TypeError):
        again.settings["beta"] = 1.0


def test_a_row_and_its_run_are_the_same_in_a_process_that_never_saw_them(tmp_path, monkeypatch):
    """What a worker does: it gets a row that its table lacks and a specification that rests on it."""
    row = dataclasses.replace(methods.get("ARD+"), title="Mine", settings_on={"digits": {"tau": 3.0}})
    monkeypatch.setitem(methods.METHODS, "Mine", row)
    teachers = (Teacher(run=tiny_spec("TRADES", epochs=3), epoch=1),)
    spec = tiny_spec("Mine", teachers=teachers)
    made = pickle.dumps((row, spec)).hex()
    code = f"""
import pickle
from rkdkit import methods
row, spec = pickle.loads(bytes.fromhex({made!r}))
methods.METHODS[spec.method] = row
print(spec.id, spec.teachers[0].run.id, hash(row) == hash(pickle.loads(pickle.dumps(row))))
print(" + ".join(map(str, row.minimises)))
print(row.resolve({{}}, spec.dataset))
print(spec == type(spec).from_json(spec.to_json()), spec.to_json())
"""
    process = run_python(code, tmp_path)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert out.splitlines() == [
        f"{spec.id} {teachers[0].run.id} True",
        " + ".join(map(str, row.minimises)),
        str(row.resolve({}, "digits")),
        f"True {spec.to_json()}",
    ]


def test_a_certainty_is_a_word_or_a_setting_that_holds_one():
    for certainty in ("", "a", "1-a", "teacher_weight"):
        methods.Term("KL", "T(x)", "S(x*)", certainty=certainty)
    with pytest.raises(UnknownNameError, match=r"Unknown certainty 'w'\. Known: a, 1-a, teacher_weight"):
        methods.Term("KL", "T(x)", "S(x*)", certainty="w")


def test_a_setting_called_a_does_not_stand_for_the_certainty():
    """At beta 0, a is 1 for every image, so a term that is weighted by a counts, and one by 1-a does not."""
    settings = {"a": 0.5, "beta": 0.0, "warmup": 0.0, "kl_reduction": "batchmean"}
    images, labels = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    losses = {}
    for certainty in ("", "a", "1-a"):
        term = methods.Term("KL", "T(x)", "S(x)", weight="a", certainty=certainty)
        row = methods.get("PGD-AT")
        used = {name: settings[name] for name in term.settings}
        row = dataclasses.replace(row, title="Mine", minimises=(term,), settings=used, code={})
        slots = {"S": (nets[0],), "T": (nets[1],)}
        logits = methods.Logits(slots, {"x": images, "x*": images})
        losses[certainty] = float(methods.loss(row, row.resolve({}), logits, labels))
    assert losses["a"] == pytest.approx(losses[""])
    assert losses["1-a"] == pytest.approx(0, abs=1e-9)


def test_settings_of_a_dataset_are_checked_as_the_others():
    row = methods.get("RSLAD")
    for values, words in (({"l": -1.0}, "between 0"), ({"taau": 5}, "taau"), ({"kl_reduction": "sum"}, "sum")):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(row, title="Mine", settings_on={"digits": values})


def test_a_setting_called_m_counts_updates_in_free_rows_alone():
    term = methods.Term("KL", "T(x)", "S(x)", mixing="m")
    row = methods.Method("Mine", "a test", (term,), settings={"m": 0.7, "kl_reduction": "batchmean"})
    assert row.resolve({"m": 0.2})["m"] == 0.2
    with pytest.raises(ValueError, match="between 1 and 10000"):
        methods.get("Free-AT").resolve({"m": 0.2})


def test_logits_are_not_mixed_with_labels_nor_those_of_several_teachers():
    with pytest.raises(ValueError, match="an MSE compares logits"):
        methods.Term("MSE", "T(x)", "S(x)", mixing="m")
    row = methods.Method("Mine", "a test", (methods.Term("MSE", "T(x)", "S(x)"),))
    methods.check_loss(row, {}, {"T": 1})
    with pytest.raises(ValueError, match="several teachers are mixed as probabilities"):
        methods.check_loss(row, {}, {"T": 2})


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        (
            "PeerAiD-fixed",
            {"l1": 0, "l2": 0, "l3": 0},
            "no term of PeerAiD with a fixed teacher with a weight above 0 trains the student",
        ),
        ("PeerAiD", {"l1": 0, "l2": 0, "l3": 0, "g2": 0}, "trains the student"),
        ("PeerAiD", {"g1": 0, "g2": 0}, "trains the peer"),
        ("Fast-ARD", {"alpha": 0}, "no term of Fast-ARD is at x"),
    ],
)
def test_settings_with_which_nothing_is_trained_are_refused(method, settings, words):
    teachers = () if method == "PeerAiD" else (Teacher(run=tiny_spec("TRADES"), epoch=1),)
    tiny_spec(method, teachers=teachers)
    with pytest.raises(ValueError, match=words):
        tiny_spec(method, teachers=teachers, settings=tuple(settings.items()))
