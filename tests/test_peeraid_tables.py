"""PeerAiD's Tables 3 to 7: the attacks and networks they ask for, and claims judged rightly."""

import dataclasses

import pandas as pd
import pytest
import torch
from test_evaluation import Threshold
from test_notebooks import setup
from test_students import TINY, made_up

from rkdkit import attacks, autoattack, claims, data, evaluation, figures, models, profiles, runs, students
from rkdkit.analysis.obfuscation import obfuscation_attacks
from rkdkit.analysis.transfer import transfer
from rkdkit.papers import peeraid_averaging, peeraid_guides, peeraid_obfuscation, peeraid_transfer
from rkdkit.papers.reported import beside
from rkdkit.spec import Teacher


def test_an_unbounded_attack_fools_what_a_bounded_one_cannot():
    by = obfuscation_attacks(attacks.PGD(0.1, 0.025, 20))
    assert list(by) == ["fgsm", "pgd-10", "pgd-20", "pgd-1000", "square", "unbounded"]
    assert by["unbounded"].eps == 1
    assert by["square"] == autoattack.Square(0.1)
    images, labels = torch.full((2, 1, 2, 2), 0.9), torch.tensor([1, 1])
    for metric, right in [("pgd-10", 1), ("pgd-1000", 1), ("unbounded", 0)]:
        assert evaluation.accuracy(Threshold(), images, labels, by[metric]).value == right


def test_an_attack_of_ten_steps_is_not_measured_twice():
    assert list(obfuscation_attacks(attacks.PGD(0.1, 0.025, 10))) == [
        "fgsm",
        "pgd-10",
        "pgd-1000",
        "square",
        "unbounded",
    ]


def test_where_any_iterate_decides_table_7_and_its_claims_say_so():
    usual = attacks.PGD(0.1, 0.025, 20, iterate="any")
    by = obfuscation_attacks(usual)
    iterated = [f"pgd-{steps} (any iterate)" for steps in (10, 20, 1000)]
    assert list(by) == ["fgsm", *iterated, "square", "unbounded"]
    assert str(by["unbounded"]) == "PGD-1000 (any iterate)"
    checked = peeraid_obfuscation.table_7_claims(made_up({"PeerAiD": dict.fromkeys(by, 0.5)}), usual)
    assert checked[0].lower.name == "accuracy under PGD-10 (any iterate) minus PGD-1000 (any iterate)"
    assert checked[2].text == "One step is a weaker attack than PGD-20 (any iterate)."
    assert figures.look.metric_name(f"{iterated[1]} from resnet34") == "PGD-20 (any iterate) from resnet34"


@pytest.mark.parametrize(
    ("changed", "failing"),
    [({}, None), ({"pgd-1000": 0.3}, 0), ({"unbounded": 0.3}, 1), ({"fgsm": 0.4}, 2), ({"square": 0.3}, 3)],
)
def test_table_7s_claims_find_what_each_test_looks_for(changed, failing):
    robust = {"fgsm": 0.6, "pgd-10": 0.5, "pgd-20": 0.5, "pgd-1000": 0.49, "square": 0.6, "unbounded": 0.0}
    measured = made_up({"PeerAiD": {**robust, **changed}})
    checked = peeraid_obfuscation.table_7_claims(measured, attacks.PGD(0.1, 0.025, 20))
    assert [claim.verdict == claims.FAILS for claim in checked] == [i == failing for i in range(4)]
    assert all(claim.verdict == claims.HOLDS for i, claim in enumerate(checked) if i != failing)
    similar = checked[0]
    assert similar.difference.value == pytest.approx(similar.higher.estimate.value - similar.lower.estimate.value)


def test_a_methods_accuracies_by_two_attacks_are_compared_image_by_image():
    measured = made_up({"PeerAiD": {"fgsm": 0.6, "pgd-20": 0.5}})
    found = measured.between("PeerAiD", "fgsm", "pgd-20")
    # 500 images right by both, 100 by the first attack alone, 400 by neither: Newcombe's method 10, by hand
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.0812298, 0.1185604), abs=1e-6)
    assert measured.between("PeerAiD", "pgd-20", "fgsm").value == pytest.approx(-0.1)


def test_table_7_has_the_papers_other_numbers_of_peeraid_beside():
    ours = pd.DataFrame({"method": "PeerAiD", "metric": ["fgsm", "pgd-1000", "square"]})
    both = beside(ours, peeraid_obfuscation.table_7(), "cifar10", "resnet18/4")
    assert both.paper.iloc[:2].tolist() == pytest.approx([0.6128, 0.5394])
    assert pd.isna(both.paper.iloc[2])


def test_a_table_may_have_its_metrics_in_rows():
    rows = [("PeerAiD", metric, 0.5, 0.4, 0.6, 0.5, 9) for metric in ("fgsm", "pgd-20 from resnet34")]
    table = pd.DataFrame(rows, columns=["method", "metric", "accuracy", "low", "high", "paper", "n"])
    figure = figures.accuracy_by_method(table, "title", "paper", row="metric", panel_of="method")
    (panel,) = figure.axes
    assert panel.get_title() == "PeerAiD"
    assert [label.get_text() for label in panel.get_yticklabels()] == ["FGSM", "PGD-20 from resnet34"]


def test_transferred_examples_are_the_surrogates_and_the_same_for_all_methods(store):
    asked = setup(**TINY)
    methods = students.train(asked, ["PGD-AT", "PeerAiD"]).chosen
    mobile = asked.changed(student=asked.profile.as_wide("mobilenetv2"))
    surrogate = students.train(mobile, ["PGD-AT"]).chosen
    assert surrogate["PGD-AT"][0].architecture == "mobilenetv2/16"
    by = {metric: asked.test_attacks()[metric] for metric in ("fgsm", "pgd-20")}
    both = {"mobilenetv2": surrogate["PGD-AT"], "itself": methods["PGD-AT"]}
    measured = transfer(methods, both, asked.dataset, by, n=20, store=store)
    assert measured.metrics == tuple(f"{metric} from {name}" for name in both for metric in by)
    some = asked.dataset.test.take(slice(0, 20))
    examples = by["fgsm"](surrogate["PGD-AT"][0].load("cpu"), data.to_float(some.images), some.labels)
    for method, (snapshot,) in methods.items():
        right = snapshot.load("cpu")(examples).argmax(1) == some.labels
        assert torch.equal(measured.evaluations[method][0].correct["fgsm from mobilenetv2"], right)
    white_box = runs.correct_predictions([methods["PGD-AT"][0]], some, by["pgd-20"], store=store)
    assert torch.equal(measured.evaluations["PGD-AT"][0].correct["pgd-20 from itself"], white_box[0])
    assert set(measured.table().metric) == set(measured.metrics)
    with pytest.raises(ValueError, match="equally many seeds"):
        transfer(methods, {"none": []}, asked.dataset, by, store=store)


def test_table_6_is_read_by_surrogate_and_its_claims_look_at_each():
    ours = pd.DataFrame({"method": "PeerAiD", "metric": ["fgsm from resnet34", "pgd-20 from mobilenetv2"]})
    both = beside(ours, peeraid_transfer.table_6(), "digits", "resnet18/4")
    assert both.paper.tolist() == pytest.approx([0.4423, 0.4073])
    assert both.paper_dataset[0] == "cifar100"
    metrics = [f"{metric} from {name}" for name in peeraid_transfer.SURROGATES for metric in ("fgsm", "pgd-20")]
    others = {method: dict.fromkeys(metrics, 0.4) for method in peeraid_transfer.TABLE_6}
    first = made_up({**others, "PeerAiD": {**dict.fromkeys(metrics, 0.5), metrics[3]: 0.3}})
    verdicts = [claim.verdict for claim in peeraid_transfer.table_6_claims(first)]
    assert verdicts == [claims.HOLDS] * 3 + [claims.FAILS]


def test_averages_come_from_the_same_training_and_start_where_the_rate_drops(store):
    asked = setup(**TINY)
    trained = students.train(asked, ["PGD-AT", "PeerAiD"])
    chosen = students.with_and_without_averages(asked, trained)
    assert list(chosen) == ["PGD-AT", "PGD-AT + SWA", "PeerAiD", "PeerAiD + SWA"]
    for name, (snapshot,) in chosen.items():
        assert snapshot.role == ("student_averaged" if "SWA" in name else "student")
    assert chosen["PGD-AT"][0].spec == chosen["PGD-AT + SWA"][0].spec == trained.runs["PGD-AT"][0].spec
    assert trained.runs["PeerAiD"][0].spec == asked.profile.spec("PeerAiD"), "shared with the other exhibits"
    plain = runs.ensure(asked.profile.spec("PGD-AT", swa_start=None), store)
    digests = [run.snapshot("student", 2).digest for run in (plain, trained.runs["PGD-AT"][0])]
    assert digests[0] == digests[1], "averaging leaves the training as it is"


def test_averaging_starts_where_the_rate_first_drops_unless_the_notebook_says_otherwise():
    dropping = {"schedule": "multistep", "milestones": (5, 8), "epochs": 10, "swa_start": None}
    assert setup(**{**TINY, **dropping}).profile.spec("PGD-AT").swa_start == 5
    assert setup(**{**TINY, **dropping, "swa_start": 7}).profile.spec("PGD-AT").swa_start == 7
    assert setup(**{**TINY, **dropping, "swa_start": 0.9}).profile.spec("PGD-AT").swa_start == 9
    assert setup(**{**TINY, **dropping, "swa_start": "none"}).profile.spec("PGD-AT").swa_start is None
    assert setup(**{**TINY, "swa_start": 0.5, "epochs": 10}).profile.spec("PGD-AT").swa_start == 5
    assert setup(**TINY).profile.spec("PGD-AT", ema_decay=0.9).swa_start is None


def test_table_3_has_the_baselines_without_averages_from_table_1():
    theirs = peeraid_averaging.table_3()
    assert not theirs.duplicated(["dataset", "network", "method", "metric"]).any()
    ours = pd.DataFrame({"method": ["CAT", "CAT + SWA", "PeerAiD", "PeerAiD + SWA"], "metric": "autoattack"})
    both = beside(ours, theirs, "digits", "resnet18/4")
    assert both.paper.tolist() == pytest.approx([0.1519, 0.1453, 0.2, 0.2167])


def test_table_3s_claims_compare_each_method_with_its_own_average():
    metrics = ("clean", "pgd-20", "autoattack")
    measured = {
        f"{method}{suffix}": dict.fromkeys(metrics, 0.3 + 0.1 * (suffix != ""))
        for method in peeraid_averaging.TABLE_3
        for suffix in ("", " + SWA")
    }
    measured["PeerAiD"] = {"clean": 0.5, "pgd-20": 0.3, "autoattack": 0.35}
    verdicts = [claim.verdict for claim in peeraid_averaging.table_3_claims(made_up(measured))]
    assert verdicts == [claims.HOLDS, claims.FAILS, *[claims.HOLDS] * 6, claims.FAILS]


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_guides_are_larger_than_their_students_at_every_profile(name):
    scale = dataclasses.replace(profiles.PROFILES[name], **peeraid_guides.DIFFERS[name])
    small, large = (models.build(of, 10, [0.5], [0.5]) for of in (scale.student, scale.peer))
    assert scale.peer == scale.teacher_network
    assert sum(p.numel() for p in large.parameters()) > 2 * sum(p.numel() for p in small.parameters())
    assert scale.spec("PeerAiD").peer == scale.peer


def test_an_exhibits_networks_at_a_profile_give_way_to_the_notebooks():
    namespace = {"profile": "smoke", "student": None, "peer": "resnet18/2"}
    asked = profiles.setup(namespace, **peeraid_guides.DIFFERS["smoke"])
    networks = (asked.profile.student, asked.profile.teacher, asked.profile.peer)
    assert networks == ("resnet18/16", "resnet18/8", "resnet18/2")
    assert asked.overrides == {"peer": "resnet18/2"}
    mobile = asked.changed(student=asked.profile.as_wide("mobilenetv2"), teacher=None, peer=None)
    assert mobile.specs("PeerAiD")[0].peer == "mobilenetv2/16"


def test_rows_of_tables_4_and_5_name_student_and_guide():
    scale = profiles.PROFILES["smoke"]
    teacher = Teacher(run=scale.spec("TRADES", student="resnet18/8"))
    specs = {"RSLAD": scale.spec("RSLAD", teachers=(teacher,)), "PeerAiD": scale.spec("PeerAiD", peer="resnet18/8")}
    networks = {method: [runs.Snapshot(spec, "student", 1, "", None)] for method, spec in specs.items()}
    measured = made_up({method: {"clean": 0.5, "autoattack": 0.25} for method in specs})
    table = peeraid_guides.tables_4_and_5(measured, measured, networks, networks)
    assert set(table.row) == {"RSLAD, resnet18/16 by resnet18/8", "PeerAiD, resnet18/16 by resnet18/8"}
    paper = table.set_index(["table", "method", "metric"]).paper
    assert paper["Table 4", "PeerAiD", "autoattack"] == pytest.approx(0.2699)
    assert paper["Table 5", "RSLAD", "clean"] == pytest.approx(0.7991)


def test_tables_4_and_5s_claims_compare_with_all_that_were_trained():
    behind = {method: {"clean": 0.4, "autoattack": 0.2} for method in peeraid_guides.TABLE_4}
    ahead = {"PeerAiD": {"clean": 0.3, "autoattack": 0.4}}
    two = made_up({"RSLAD": {"clean": 0.4, "autoattack": 0.5}, **ahead})
    checked = peeraid_guides.table_4_and_5_claims(made_up({**behind, **ahead}), two)
    assert [claim.verdict for claim in checked] == [claims.HOLDS, claims.FAILS, claims.FAILS, claims.FAILS]
    assert checked[2].text.endswith("compared with RSLAD.")
