"""Whole tables: the right teachers, the right network of each run, and claims judged rightly."""

import math

import pandas as pd
import pytest
import torch
from given import Given

from rkdkit import claims, comparisons, data, evaluation, executors, exhibits, methods, statistics
from rkdkit.analysis.white_box import WhiteBox, attack_named, highest, noted, white_box
from rkdkit.claims import Quantity
from rkdkit.exhibits import tab1_white_box as tab1
from rkdkit.references import Snapshot
from rkdkit.store import Store
from rkdkit.trainings import Run

TINY = {"epochs": 2, "swa_start": 1, "n_train": 64, "n_val": 32, "n_test": 40, "attack_steps": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Natural, RSLAD, AKD2 and PeerAiD with two seeds, from an empty store."""
    with executors.using(executors.Here(Store(tmp_path_factory.mktemp("store")), "cpu")):
        asked = exhibits.setup("tab1_white_box", "smoke", **TINY, n_seeds=2)
        yield asked, comparisons.train(asked, ["Natural", "RSLAD", "AKD2", "PeerAiD"])


def right(snapshot, split, attack=None):
    """Which images a network classifies correctly, asked without the kit's evaluation: (N,) bool."""
    network, images = snapshot.load("cpu"), data.to_float(split.images)
    images = images if attack is None else attack(network, images, split.labels)
    with torch.no_grad():
        return network(images).argmax(1) == split.labels


def test_each_student_has_the_teachers_its_row_asks_for(tiny):
    asked, trained = tiny
    for i, seed in enumerate(asked.seeds):
        (rslad,) = trained.runs["RSLAD"][i].spec.teachers
        robust, natural = trained.runs["AKD2"][i].spec.teachers
        assert (rslad.run.method, robust.run, natural.run.method) == ("TRADES", rslad.run, "Natural")
        assert [t.slot for t in (rslad, robust, natural)] == ["T", "T_rob", "T_nat"]
        assert {t.run.seed for t in (rslad, robust, natural)} == {seed}
        assert natural.run == trained.runs["Natural"][i].spec
    methods_of = {slot: [t.spec.method for t in of_seeds] for slot, of_seeds in trained.teachers.items()}
    assert methods_of == {"T": ["TRADES"] * 2, "T_rob": ["TRADES"] * 2, "T_nat": ["Natural"] * 2}


def test_averaged_weights_stand_for_the_methods_whose_papers_average(tiny):
    _, trained = tiny
    roles = {name: {snapshot.role for snapshot in of_seeds} for name, of_seeds in trained.chosen.items()}
    averaged = {name for name, role in roles.items() if role == {"student_averaged"}}
    assert averaged == {"AKD2", "PeerAiD"} == {n for n in roles if methods.get(n).averages_weights}


@pytest.mark.parametrize(("select_on", "part"), [("val", "val"), ("test", "test")])
def test_an_epoch_is_chosen_under_attack_unless_the_method_trains_without_one(tmp_path, select_on, part):
    """The networks of odd epochs are right on natural images, those of even ones under attack."""

    def answer(task):
        (judge,) = task.judges
        assert task.images.part == part
        assert task.attack in (None, asked.profile.selection_attack)
        hits = judge.epoch % 2 == (task.attack is None)
        return torch.full((1, len(task.images)), hits, dtype=torch.bool)

    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        asked = exhibits.setup("tab1_white_box", "smoke", epochs=5, select_on=select_on)
        networks = [Run(asked.profile.spec(method), None) for method in ("Natural", "PGD-AT", "Natural")]
        chosen = comparisons.choose(asked, networks)
        assert [snapshot.epoch for snapshot in chosen] == [1, 2, 1]
        assert len(executor.gathered) == 1, "all epochs of all runs are asked about together"
        assert asked.asked.deciding == set(executor.gathered[0])
        trained = comparisons.train(asked, ["AKD2"])
    teachers = trained.runs["AKD2"][0].spec.teachers
    assert [(t.run.method, t.slot, t.epoch) for t in teachers] == [("TRADES", "T_rob", 2), ("Natural", "T_nat", 1)]
    assert {slot: s.epoch for slot, (s,) in trained.teachers.items()} == {"T_rob": 2, "T_nat": 1}


def test_a_white_box_table_is_what_the_snapshots_answer(tiny):
    asked, trained = tiny
    by = {metric: attack for metric, attack in asked.test_attacks().items() if metric != "autoattack"}
    measured = white_box(trained.chosen, asked.images, by, n=asked.n_of(by))
    table = measured.table().set_index(["method", "metric"])
    assert set(table.index) == {(method, metric) for method in trained.chosen for metric in by}
    first = asked.dataset.test.take(slice(0, 40))
    for method, of_seeds in trained.chosen.items():
        for metric in ("clean", "fgsm"):
            hits = [right(snapshot, first, by[metric]).float().mean() for snapshot in of_seeds]
            assert table.loc[(method, metric)].accuracy == pytest.approx(float(sum(hits)) / 2)
    assert set(table.seeds) == {2}
    assert set(table.n) == {40}
    assert set(table.attack) == {"none", "FGSM, rkdkit", "PGD-20, rkdkit"}
    assert measured.num_classes == 10


def test_fewer_images_are_only_asked_about_by_the_metric_that_says_so(tmp_path):
    executor = Given(Store(tmp_path), lambda task: torch.ones(1, len(task.images), dtype=torch.bool))
    with executors.using(executor):
        asked = exhibits.setup("tab1_white_box", "smoke", n_test=40, n_autoattack=7)
        by = asked.test_attacks()
        snapshots = {"PGD-AT": [Snapshot(asked.profile.spec("PGD-AT"))]}
        measured = white_box(snapshots, asked.images, by, n=asked.n_of(by))
    (tasks,) = executor.gathered
    assert {str(task.attack): (len(task.images), task.images.part) for task in tasks} == {
        "None": (40, "test"), "FGSM": (40, "test"), "PGD-20": (40, "test"), "AutoAttack": (7, "test")
    }  # fmt: skip
    assert measured.accuracy("PGD-AT", "autoattack").n == 7


def made_up(accuracies, n=1000):
    """A table in which each method is right on the first so many images."""
    return WhiteBox(
        {
            method: [evaluation.Evaluation({metric: torch.arange(n) < share * n for metric, share in by.items()})]
            for method, by in accuracies.items()
        },
        {"clean": None, "autoattack": None},
        10,
    )


def verdicts(peeraid_aa=0.5, rival_aa=0.4, peeraid_clean=0.9, rival_clean=0.8, natural=0.0):
    others = {method: {"clean": 0.5, "autoattack": 0.2} for method in tab1.METHODS}
    measured = made_up(
        {
            "Natural": {"clean": 0.99, "autoattack": natural},
            **{name: accuracy for name, accuracy in others.items() if name != "Natural"},
            "PGD-AT": {"clean": 0.97, "autoattack": 0.2},
            "IAD": {"clean": 0.5, "autoattack": rival_aa},
            "CAT": {"clean": rival_clean, "autoattack": 0.2},
            "PeerAiD": {"clean": peeraid_clean, "autoattack": peeraid_aa},
        }
    )
    return [claim.verdict for claim in tab1.check_claims(measured)]


def test_table_1s_claims_compare_with_the_best_of_the_others():
    assert verdicts() == [claims.HOLDS] * 3
    assert verdicts(rival_aa=0.6) == [claims.FAILS, claims.HOLDS, claims.HOLDS]
    assert verdicts(rival_clean=0.95) == [claims.HOLDS, claims.FAILS, claims.HOLDS]
    assert verdicts(rival_aa=0.5, rival_clean=0.9) == [claims.OPEN, claims.OPEN, claims.HOLDS]
    assert verdicts(natural=0.3)[2] == claims.FAILS


@pytest.mark.parametrize(
    ("best", "verdict", "confidence"),
    [(0.4, claims.HOLDS, 0.95), (0.5, claims.OPEN, 0.99), (0.506, claims.OPEN, 0.99), (0.53, claims.FAILS, 0.99)],
)
def test_being_first_of_six_takes_each_rival_at_95_percent_and_is_refuted_at_99(best, verdict, confidence):
    rivals = {f"rival {i}": {"clean": 0.3} for i in range(4)}
    six = made_up({"mine": {"clean": 0.5}, "best": {"clean": best}, **rivals})
    claim = highest(six, "mine", ["best", *rivals], "clean", "accuracy", "mine is first", "nobody")
    assert (claim.verdict, claim.confidence) == (verdict, pytest.approx(confidence))
    if best == 0.506:
        assert six.minus("mine", "best", "clean").high < 0, "95 % would have refuted it"


def test_the_rival_that_is_shown_is_the_one_that_speaks_most_against_being_first():
    def changed(lost, gained, start):  # what "mine" gets right and another gets wrong, and the other way round
        correct = torch.arange(2000) < 1000
        correct[start : start + lost], correct[1000 : 1000 + gained] = False, True
        return [evaluation.Evaluation({"clean": correct})]

    of = {"mine": changed(0, 0, 0), "unlike mine": changed(250, 260, 0), "slightly ahead": changed(3, 12, 500)}
    several = WhiteBox({**of, "behind": changed(300, 0, 0)}, {"clean": None}, 10)
    claim = highest(several, "mine", ["behind", "unlike mine", "slightly ahead"], "clean", "clean accuracy", "", "")
    assert several.minus("mine", "unlike mine", "clean").low < several.minus("mine", "slightly ahead", "clean").low
    assert (claim.verdict, claim.lower.name) == (claims.OPEN, "slightly ahead, clean accuracy")
    assert claim.p_value == pytest.approx(3 * statistics.p_value(several.minus("mine", "slightly ahead", "clean")))
    ahead = highest(several, "unlike mine", ["behind", "mine"], "clean", "clean accuracy", "", "")
    assert (ahead.verdict, ahead.lower.name, ahead.confidence) == (claims.OPEN, "mine, clean accuracy", 0.95)
    assert ahead.p_value == statistics.p_value(several.minus("unlike mine", "mine", "clean"))


def test_a_claim_about_robustness_that_is_none_has_a_note():
    accuracies = {"AKD": {"clean": 0.05, "autoattack": 0.1}, "AKD+": {"clean": 0.9, "autoattack": 0.11}}
    measured = made_up(accuracies)

    def claim(higher, lower, note=""):
        sides = (Quantity(name, measured.accuracy("AKD", "clean")) for name in (higher, lower))
        return claims.Claim("text", "source", *sides, measured.minus("AKD", "AKD+", "clean"), note=note)

    note = "no more robust than guessing: AKD"
    for higher, lower, expected in (
        ("AKD+: AutoAttack accuracy", "AKD: AutoAttack accuracy", note),
        ("AKD minus AKD+, AutoAttack accuracy", "what counts as a gain", note),
        ("AKD+, AutoAttack accuracy", "guessing", ""),
        ("AKD+, clean accuracy", "AKD, clean accuracy", ""),
        ("AKD, PGD-20 accuracy", "guessing", ""),
    ):
        assert noted([claim(higher, lower)], measured)[0].note == expected
    assert noted([claim("AKD, AutoAttack accuracy", "guessing", "more")], measured)[0].note == "more"
    assert [attack_named(name) for name in ("clean", "autoattack", "pgd-20 from resnet34")] == [
        "clean", "AutoAttack", "PGD-20 from resnet34",
    ]  # fmt: skip


def test_a_methods_accuracies_by_two_attacks_are_compared_image_by_image():
    first, second = torch.arange(1000) < 600, torch.arange(1000) % 2 == 0
    seeds = [evaluation.Evaluation({"fgsm": a, "pgd-20": b}) for a, b in ((first, second), (first, ~first))]
    measured = WhiteBox({"PeerAiD": seeds}, {"fgsm": None, "pgd-20": None}, 10)
    assert measured.between("PeerAiD", "fgsm", "pgd-20") == statistics.difference_over_seeds(
        [(first, second), (first, ~first)]
    )


def test_entries_have_their_own_teachers_networks_and_settings(tmp_path):
    def answer(task):
        (judge,) = task.judges
        return torch.full((1, len(task.images)), judge.epoch == 2, dtype=torch.bool)

    natural = [comparisons.Guide("Natural", weight=0.5, another=i, stopped=0.6) for i in (0, 1)]
    entries = {
        "two": comparisons.Entry("AKD+", tuple(natural), {"settings": {"mixing": 0.3}}),
        "wide": comparisons.Entry("ARD", (comparisons.Guide("PGD-AT", "resnet18/8", changes={"epochs": 4}),)),
        "alone": comparisons.Entry("PGD-AT", changes={"student": "resnet18/8", "epochs": 4}),
    }
    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        asked = exhibits.setup("tab1_white_box", "smoke", epochs=5, n_seeds=2)
        trained = comparisons.train_entries(asked, entries)
    assert [[s.epoch for s in of_seeds] for of_seeds in trained.chosen.values()] == [[2, 2]] * 3
    for i, seed in enumerate(asked.seeds):
        two, wide = (trained.runs[name][i].spec for name in ("two", "wide"))
        assert [(t.run.method, t.run.seed, t.epoch, t.weight) for t in two.teachers] == [
            ("Natural", seed, 3, 0.5),
            ("Natural", seed + 1000, 3, 0.5),
        ]
        assert dict(two.settings)["mixing"] == 0.3
        (teacher,) = wide.teachers
        assert teacher.run == trained.runs["alone"][i].spec, "the same training is one run"
        assert (teacher.epoch, teacher.run.student, wide.student) == (2, "resnet18/8", "resnet18/16")


def test_an_entry_that_does_not_fit_is_refused_before_any_training(tmp_path):
    executor = Given(Store(tmp_path), lambda _: None)
    with executors.using(executor):
        asked = exhibits.setup("tab1_white_box", "smoke")
        for entry, words in (
            (comparisons.Entry("ARD"), "ARD needs a teacher"),
            (comparisons.Entry("PGD-AT", changes={"student": "resnet19"}), "Unknown model"),
            (comparisons.Entry("ARD", (comparisons.Guide("PGD-AT", weight=0.5),)), "sum to 1"),
        ):
            with pytest.raises(ValueError, match=words):
                comparisons.train_entries(asked, {"good": comparisons.Entry("PGD-AT"), "bad": entry})
    assert executor.gathered == []
    with pytest.raises(ValueError, match="early_stop must be above 0"):
        comparisons.Guide("Natural", stopped=0)


def test_differences_are_paired_here_and_subtracted_in_the_paper():
    measured = made_up({"A": {"clean": 0.9, "autoattack": 0.5}, "B": {"clean": 0.8, "autoattack": 0.6}})
    papers_own = pd.DataFrame({"method": ["C"], "metric": ["clean"], "paper": [0.3], "n": [math.nan]})
    numbers = pd.concat([measured.table().assign(paper=[0.7, math.nan, 0.6, 0.2]), papers_own], ignore_index=True)
    table = measured.against({"A": "B", "C": "B"}, numbers).set_index(["method", "metric"])
    assert len(table) == len(numbers)
    for metric in ("clean", "autoattack"):
        line, expected = table.loc[("A", metric)], measured.minus("A", "B", metric)
        assert tuple(line[["difference", "difference_low", "difference_high"]]) == (
            expected.value, expected.low, expected.high
        )  # fmt: skip
        assert line.compared_with == "B"
        assert table.loc[("B", metric)].compared_with == ""
        assert math.isnan(table.loc[("B", metric)].difference)
    assert table.loc[("A", "clean")].paper_difference == pytest.approx(0.1)
    assert math.isnan(table.loc[("A", "autoattack")].paper_difference)
    assert table.loc[("C", "clean")].paper_difference == pytest.approx(-0.3)
    assert math.isnan(table.loc[("C", "clean")].difference), "it was not measured here"
