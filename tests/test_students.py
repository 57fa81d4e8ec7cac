"""Whole tables: the right teachers, the right network of each run, and claims judged rightly."""

import pytest
import torch
from test_notebooks import setup

from rkdkit import claims, evaluation, methods, runs, students
from rkdkit.analysis.white_box import WhiteBox, white_box
from rkdkit.papers import peeraid
from rkdkit.store import Store

TINY = {"epochs": 2, "swa_start": 1, "n_train": 64, "n_val": 32, "n_test": 40, "attack_steps": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Natural, RSLAD, AKD2 and PeerAiD with two seeds, from an empty store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        asked = setup(**TINY, n_seeds=2, teacher_method="TRADES")
        return asked, students.train(asked, ["Natural", "RSLAD", "AKD2", "PeerAiD"])


def test_each_student_has_the_teachers_its_row_asks_for(tiny):
    asked, trained = tiny
    for i, seed in enumerate(asked.seeds):
        (rslad,) = trained.runs["RSLAD"][i].spec.teachers
        robust, natural = trained.runs["AKD2"][i].spec.teachers
        assert (rslad.run.method, robust.run, natural.run.method) == ("TRADES", rslad.run, "Natural")
        assert [t.letter for t in (rslad, robust, natural)] == ["T", "T_rob", "T_nat"]
        assert {t.run.seed for t in (rslad, robust, natural)} == {seed}
        assert natural.run == trained.runs["Natural"][i].spec
        on_held_out = runs.select(
            runs.ensure(rslad.run, asked.store), "val", asked.profile.selection_attack, store=asked.store
        )
        assert rslad.epoch == on_held_out.epoch
    assert len(trained.all_runs) == 2 * 5
    methods_of = {letter: [t.spec.method for t in of_seeds] for letter, of_seeds in trained.teachers.items()}
    assert methods_of == {"T": ["TRADES"] * 2, "T_rob": ["TRADES"] * 2, "T_nat": ["Natural"] * 2}


def test_averaged_weights_stand_for_the_methods_whose_papers_average(tiny):
    _, trained = tiny
    roles = {name: {snapshot.role for snapshot in of_seeds} for name, of_seeds in trained.chosen.items()}
    averaged = {name for name, role in roles.items() if role == {"student_averaged"}}
    assert averaged == {"AKD2", "PeerAiD"} == {n for n in roles if methods.get(n).averages_weights}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("method", ["Natural", "PGD-AT"])
def test_natural_training_is_chosen_by_natural_accuracy_and_adversarial_training_under_attack(method):
    asked = setup(**{**TINY, "epochs": 8, "n_train": 512, "n_val": 64, "eps": 0.5, "attack_steps": 5})
    run = runs.ensure(asked.profile.spec(method, eps=0.001, attack_steps=1), asked.store)  # not robust to 0.5
    held_out = asked.dataset.split_validation(512, 64)[1]

    def best(attack):
        """The first epoch with the most hits, counted without the store."""
        networks = [run.snapshot(epoch=epoch).load("cpu") for epoch in run.epochs]
        right = [evaluation.correct_predictions([n], held_out.images, held_out.labels, attack) for n in networks]
        hits = [int(one.sum()) for one in right]
        return run.epochs[hits.index(max(hits))]

    by = {"Natural": None, "PGD-AT": asked.profile.selection_attack}
    # under attack the best is an early epoch, when a network still gives every image the same class
    assert best(by["Natural"]) != best(by["PGD-AT"])
    assert students.choose(asked, run).epoch == best(by[method])


def test_a_white_box_table_is_what_the_snapshots_answer(tiny):
    asked, trained = tiny
    by = {metric: attack for metric, attack in asked.test_attacks().items() if metric != "autoattack"}
    measured = white_box(trained.chosen, asked.dataset, by, n=asked.n_of(by), store=asked.store)
    table = measured.table().set_index(["method", "metric"])
    assert set(table.index) == {(method, metric) for method in trained.chosen for metric in by}
    for method, of_seeds in trained.chosen.items():
        split = asked.dataset.test.take(slice(0, 40))
        for metric, attack in by.items():
            hits = 0
            for snapshot, found in zip(of_seeds, measured.evaluations[method], strict=True):
                network = snapshot.load("cpu")  # asked without the store
                (right,) = evaluation.correct_predictions([network], split.images, split.labels, attack)
                assert torch.equal(found.correct[metric], right), (method, metric)
                hits += int(right.sum())
            assert table.loc[(method, metric)].accuracy == pytest.approx(hits / 80), (method, metric)
    assert table.accuracy.nunique() > 3, "not all alike"
    assert set(table.seeds) == {2}
    assert set(table.n) == {40}
    assert set(table.attack) == {"none", "FGSM, rkdkit", "PGD-20, rkdkit"}


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
    others = {method: {"clean": 0.5, "autoattack": 0.2} for method in peeraid.TABLE_1}
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
    return [claim.verdict for claim in peeraid.table_1_claims(measured)]


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
    claim = peeraid.highest(six, "mine", ["best", *rivals], "clean", "accuracy", "mine is first", "nobody")
    assert (claim.verdict, claim.confidence) == (verdict, pytest.approx(confidence))
    if best == 0.506:
        assert six.minus("mine", "best", "clean").high < 0, "95 % would have refuted it"


def test_a_table_is_measured_by_its_own_store(tiny):
    asked, _ = tiny
    assert isinstance(asked.store, Store)
    assert next((asked.store.root / "answers").iterdir())
