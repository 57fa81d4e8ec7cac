"""PeerAiD's Tables 3 to 7: the attacks and networks they ask for, and claims judged rightly."""

import pandas as pd
import pytest
import torch
from given import Given
from test_comparisons import TINY, made_up, right
from test_evaluation import Threshold

from rkdkit import (
    attacks,
    autoattack,
    claims,
    comparisons,
    data,
    evaluation,
    executors,
    exhibits,
    figures,
    models,
    profiles,
    runs,
)
from rkdkit.exhibits import tab3_weight_averaging as tab3
from rkdkit.exhibits import tab4_teacher_architecture as tab4
from rkdkit.exhibits import tab5_transfer_attacks as tab5
from rkdkit.exhibits import tab6_gradient_obfuscation as tab6
from rkdkit.papers.reported import beside
from rkdkit.references import Snapshot
from rkdkit.spec import Teacher
from rkdkit.store import Store


def test_an_unbounded_attack_fools_what_a_bounded_one_cannot():
    by = tab6.obfuscation_attacks(attacks.PGD(0.1, 0.025, 20))
    assert list(by) == ["fgsm", "pgd-10", "pgd-20", "pgd-1000", "square", "unbounded"]
    assert by["unbounded"].eps == 1
    assert by["square"] == autoattack.Square(0.1)
    images, labels = torch.full((2, 1, 2, 2), 0.9), torch.tensor([1, 1])
    for metric, share in [("pgd-10", 1), ("pgd-1000", 1), ("unbounded", 0)]:
        assert evaluation.accuracy(Threshold(), images, labels, by[metric]).value == share


def test_an_attack_of_ten_steps_is_not_measured_twice():
    assert list(tab6.obfuscation_attacks(attacks.PGD(0.1, 0.025, 10))) == [
        "fgsm",
        "pgd-10",
        "pgd-1000",
        "square",
        "unbounded",
    ]


def test_where_any_iterate_decides_table_7_and_its_claims_say_so():
    usual = attacks.PGD(0.1, 0.025, 20, iterate="any")
    by = tab6.obfuscation_attacks(usual)
    iterated = [f"pgd-{steps} (any iterate)" for steps in (10, 20, 1000)]
    assert list(by) == ["fgsm", *iterated, "square", "unbounded"]
    assert str(by["unbounded"]) == "PGD-1000 (any iterate)"
    checked = tab6.check_claims(made_up({"PeerAiD": dict.fromkeys(by, 0.5)}), usual)
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
    checked = tab6.check_claims(measured, attacks.PGD(0.1, 0.025, 20))
    assert [claim.verdict == claims.FAILS for claim in checked] == [i == failing for i in range(4)]
    assert all(claim.verdict == claims.HOLDS for i, claim in enumerate(checked) if i != failing)
    similar = checked[0]
    assert similar.difference.value == pytest.approx(similar.higher.estimate.value - similar.lower.estimate.value)


def test_table_7_has_the_papers_other_numbers_of_peeraid_beside():
    ours = pd.DataFrame({"method": "PeerAiD", "metric": ["fgsm", "pgd-1000", "square"]})
    both = beside(ours, tab6.paper_numbers(), "cifar10", "resnet18/4")
    assert both.paper.iloc[:2].tolist() == pytest.approx([0.6128, 0.5394])
    assert pd.isna(both.paper.iloc[2])


def test_a_table_may_have_its_metrics_in_rows():
    rows = [("PeerAiD", metric, 0.5, 0.4, 0.6, 0.5, 9) for metric in ("fgsm", "pgd-20 from resnet34")]
    table = pd.DataFrame(rows, columns=["method", "metric", "accuracy", "low", "high", "paper", "n"])
    figure = figures.accuracy_by_method(table, "title", "paper", row="metric", panel_of="method")
    (panel,) = figure.axes
    assert panel.get_title() == "PeerAiD"
    assert [label.get_text() for label in panel.get_yticklabels()] == ["FGSM", "PGD-20 from resnet34"]


@pytest.mark.usefixtures("store")
def test_transferred_examples_are_the_surrogates_and_the_same_for_all_methods():
    asked = exhibits.setup("tab5_transfer_attacks", "smoke", **TINY)
    methods = comparisons.train(asked, ["PGD-AT", "PeerAiD"]).chosen
    mobile = tab5.surrogate_setups(asked)["mobilenetv2"]
    surrogate = comparisons.train(mobile, ["PGD-AT"]).chosen
    assert surrogate["PGD-AT"][0].architecture == "mobilenetv2/16"
    by = {metric: asked.test_attacks()[metric] for metric in ("fgsm", "pgd-20")}
    both = {"mobilenetv2": surrogate["PGD-AT"], "itself": methods["PGD-AT"]}
    measured = tab5.measure(methods, both, asked.images.first(20), by)
    assert measured.metrics == tuple(f"{metric} from {name}" for name in both for metric in by)
    some = asked.dataset.test.take(slice(0, 20))
    examples = by["fgsm"](surrogate["PGD-AT"][0].load("cpu"), data.to_float(some.images), some.labels)
    for method, (snapshot,) in methods.items():
        answers = snapshot.load("cpu")(examples).argmax(1)
        assert torch.equal(measured.evaluations[method][0].correct["fgsm from mobilenetv2"], answers == some.labels)
    white_box = runs.correct_predictions([methods["PGD-AT"][0]], asked.images.first(20), by["pgd-20"])
    assert torch.equal(measured.evaluations["PGD-AT"][0].correct["pgd-20 from itself"], white_box[0])
    assert torch.equal(
        measured.evaluations["PGD-AT"][0].correct["fgsm from itself"], right(methods["PGD-AT"][0], some, by["fgsm"])
    )
    assert set(measured.table().metric) == set(measured.metrics)
    assert measured.num_classes == 10
    with pytest.raises(ValueError, match="the same number of seeds"):
        tab5.measure(methods, {"none": []}, asked.images, by)


def test_every_seeds_methods_are_shown_the_examples_of_that_seeds_surrogate(tmp_path):
    def answer(task):
        assert {judge.spec.seed for judge in task.judges} == {task.attacked.spec.seed}
        places = torch.arange(len(task.images))
        shares = [{"PGD-AT": 4, "PeerAiD": 6}[judge.spec.method] + task.attacked.spec.seed for judge in task.judges]
        return torch.stack([places < share for share in shares])

    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        asked = exhibits.setup("tab5_transfer_attacks", "smoke", n_test=10, n_seeds=2)
        methods = {method: [Snapshot(spec) for spec in asked.specs(method)] for method in ("PGD-AT", "PeerAiD")}
        others = tab5.surrogate_setups(asked)
        surrogates = {name: [Snapshot(spec) for spec in scale.specs("PGD-AT")] for name, scale in others.items()}
        by = {"fgsm": attacks.FGSM(0.1), "pgd-20": attacks.PGD(0.1, 0.025, 20)}
        measured = tab5.measure(methods, surrogates, asked.images, by)
    assert len(executor.gathered) == 1
    assert len(executor.gathered[0]) == 2 * 2 * 2, "of each attack, surrogate and seed"
    assert measured.metrics == tuple(f"{metric} from {name}" for name in ("resnet34", "mobilenetv2") for metric in by)
    for metric in measured.metrics:
        assert [seed[metric].value for seed in measured.evaluations["PGD-AT"]] == [0.4, 0.5]
        assert [seed[metric].value for seed in measured.evaluations["PeerAiD"]] == [0.6, 0.7]


def test_a_student_that_is_a_surrogate_itself_is_refused():
    asked = exhibits.setup("tab5_transfer_attacks", "smoke", student="resnet34/16")
    with pytest.raises(ValueError, match="The student resnet34/16 is a surrogate itself"):
        tab5.surrogate_setups(asked)


def test_table_6_is_read_by_surrogate_and_its_claims_look_at_each():
    ours = pd.DataFrame({"method": "PeerAiD", "metric": ["fgsm from resnet34", "pgd-20 from mobilenetv2"]})
    both = beside(ours, tab5.paper_numbers(), "digits", "resnet18/4")
    assert both.paper[:2].tolist() == pytest.approx([0.4423, 0.4073])
    assert both.paper_dataset[0] == "cifar100"
    assert set(both.table) == {"Table 6"}
    metrics = [f"{metric} from {name}" for name in tab5.SURROGATES for metric in ("fgsm", "pgd-20")]
    others = {method: dict.fromkeys(metrics, 0.4) for method in tab5.METHODS}
    first = made_up({**others, "PeerAiD": {**dict.fromkeys(metrics, 0.5), metrics[3]: 0.3}})
    verdicts = [claim.verdict for claim in tab5.check_claims(first)]
    assert verdicts == [claims.HOLDS] * 3 + [claims.FAILS]


@pytest.mark.usefixtures("store")
def test_averages_come_from_the_same_training_and_start_where_the_rate_drops():
    asked = exhibits.setup("tab3_weight_averaging", "smoke", **TINY)
    trained = comparisons.train(asked, ["PGD-AT", "PeerAiD"], averages=True)
    chosen = tab3.with_and_without_averages(asked, trained)
    assert list(chosen) == ["PGD-AT", "PGD-AT + SWA", "PeerAiD", "PeerAiD + SWA"]
    for name, (snapshot,) in chosen.items():
        assert snapshot.role == ("student_averaged" if "SWA" in name else "student")
    assert chosen["PGD-AT"][0].spec == chosen["PGD-AT + SWA"][0].spec == trained.runs["PGD-AT"][0].spec
    assert trained.runs["PeerAiD"][0].spec == asked.profile.spec("PeerAiD"), "shared with the other exhibits"
    plain = runs.ensure(asked.profile.spec("PGD-AT", swa_start=None))
    digests = [run.snapshot("student", 2).digest() for run in (plain, trained.runs["PGD-AT"][0])]
    assert digests[0] is not None
    assert digests[0] == digests[1], "averaging leaves the training as it is"
    with pytest.raises(ValueError, match="No weights are averaged, but this exhibit compares averages"):
        comparisons.train(asked.changed(swa_start=None), ["PGD-AT"], averages=True)


def test_trained_and_averaged_weights_are_chosen_each_at_its_own_epoch(tmp_path):
    """As trained, the networks are best at epoch 2; averaged, at epoch 4."""

    def answer(task):
        (judge,) = task.judges
        best = {"student": 2, "student_averaged": 4}[judge.role]
        return torch.full((1, len(task.images)), judge.epoch == best, dtype=torch.bool)

    with executors.using(Given(Store(tmp_path), answer)):
        asked = exhibits.setup("tab3_weight_averaging", "smoke", epochs=5, swa_start=2)
        trained = comparisons.train(asked, ["PGD-AT", "CAT"], averages=True)
        chosen = tab3.with_and_without_averages(asked, trained)
    assert {name: (s.role, s.epoch) for name, (s,) in chosen.items()} == {
        "PGD-AT": ("student", 2),
        "PGD-AT + SWA": ("student_averaged", 4),
        "CAT": ("student", 2),
        "CAT + SWA": ("student_averaged", 4),
    }


def test_averaging_starts_where_the_rate_first_drops_unless_the_notebook_says_otherwise():
    def start(**parameters):
        return (
            exhibits.setup("tab3_weight_averaging", "smoke", **{**TINY, **parameters}).profile.spec("PGD-AT").swa_start
        )

    dropping = {"schedule": "multistep", "milestones": (5, 8), "epochs": 10, "swa_start": None}
    assert start(**dropping) == 5
    assert start(**{**dropping, "swa_start": 7}) == 7
    assert start(**{**dropping, "swa_start": 0.9}) == 9
    assert start(**{**dropping, "swa_start": "none"}) is None
    assert start(swa_start=0.5, epochs=10) == 5
    decayed = exhibits.setup("tab3_weight_averaging", "smoke", **TINY).profile.spec("PGD-AT", ema_decay=0.9)
    assert decayed.swa_start is None


def test_table_3_has_the_baselines_without_averages_from_table_1():
    theirs = tab3.paper_numbers()
    assert not theirs.duplicated(["dataset", "network", "method", "metric"]).any()
    ours = pd.DataFrame({"method": ["CAT", "CAT + SWA", "PeerAiD", "PeerAiD + SWA"], "metric": "autoattack"})
    both = beside(ours, theirs, "digits", "resnet18/4")
    assert both.paper[:4].tolist() == pytest.approx([0.1519, 0.1453, 0.2, 0.2167])
    assert list(both.table[:4]) == ["Table 1", "Table 3", "Table 3", "Table 3"]


def test_table_3s_claims_compare_each_method_with_its_own_average():
    metrics = ("clean", "pgd-20", "autoattack")
    measured = {
        f"{method}{suffix}": dict.fromkeys(metrics, 0.3 + 0.1 * (suffix != ""))
        for method in tab3.METHODS
        for suffix in ("", " + SWA")
    }
    measured["PeerAiD"] = {"clean": 0.5, "pgd-20": 0.3, "autoattack": 0.35}
    verdicts = [claim.verdict for claim in tab3.check_claims(made_up(measured))]
    assert verdicts == [claims.HOLDS, claims.FAILS, *[claims.HOLDS] * 6, claims.FAILS]


@pytest.fixture
def nothing(tmp_path):
    """Blank data in the place of those that are not here; whatever is measured is wrong."""
    answer = lambda task: torch.zeros(len(task.judges), len(task.images), dtype=torch.bool)  # noqa: E731
    with executors.using(Given(Store(tmp_path), answer)) as executor:
        yield executor


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("name", profiles.PROFILES)
def test_guides_are_larger_than_their_students_at_every_profile(name):
    scale = exhibits.setup("tab4_teacher_architecture", name).profile
    small, large = (models.build(of, 10, [0.5], [0.5]) for of in (scale.student, scale.peer))
    assert scale.peer == scale.teacher_network
    assert sum(p.numel() for p in large.parameters()) > 2 * sum(p.numel() for p in small.parameters())
    assert scale.spec("PeerAiD").peer == scale.peer


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize(
    ("profile", "parameters", "data_of"),
    [
        ("smoke", {}, ("digits", "digits")),
        ("small", {}, ("cifar10", "cifar10")),
        ("paper", {}, ("cifar100", "cifar10")),
        ("paper", {"dataset": "cifar100"}, ("cifar100", "cifar100")),
        ("paper", {"dataset": "tiny_imagenet"}, ("tiny_imagenet", "tiny_imagenet")),
    ],
)
def test_table_5_has_data_and_networks_of_its_own(profile, parameters, data_of):
    asked = exhibits.setup("tab4_teacher_architecture", profile, **parameters)
    mobile = tab4.mobile(asked)
    assert (asked.profile.dataset, mobile.profile.dataset) == data_of
    assert (mobile.dataset.name, mobile.images.dataset) == (data_of[1], data_of[1])
    network = "mobilenetv2" + asked.profile.student.removeprefix("resnet18")
    (spec,), (teacher,) = mobile.specs("PeerAiD"), mobile.teacher_specs()
    assert {spec.student, spec.peer, teacher.student} == {network}
    assert (spec.dataset, teacher.dataset, teacher.method) == (data_of[1], data_of[1], "TRADES")
    assert mobile.asked is asked.asked, "what is asked for is noted in one place"
    assert mobile.name == asked.name


def test_table_5_has_two_methods_below_the_papers_scale_unless_all_are_asked_for():
    six = ("AKD2", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
    assert tab4.METHODS == tab4.mobile_methods("paper") == tab4.mobile_methods("smoke", all_mobile=True) == six
    assert tab4.mobile_methods("small") == ("RSLAD", "PeerAiD")


def test_an_exhibits_networks_at_a_profile_give_way_to_the_notebooks():
    asked = exhibits.setup("tab4_teacher_architecture", "smoke", student=None, peer="resnet18/2")
    networks = (asked.profile.student, asked.profile.teacher, asked.profile.peer)
    assert networks == ("resnet18/16", "resnet18/8", "resnet18/2")
    assert asked.overrides == {"peer": "resnet18/2"}
    assert tab4.mobile(asked).specs("PeerAiD")[0].peer == "mobilenetv2/16"


def test_rows_of_tables_4_and_5_name_student_and_guide():
    scale = profiles.PROFILES["smoke"]
    teacher = Teacher(run=scale.spec("TRADES", student="resnet18/8"), epoch=1)
    specs = {"RSLAD": scale.spec("RSLAD", teachers=(teacher,)), "PeerAiD": scale.spec("PeerAiD", peer="resnet18/4")}
    networks = {method: [Snapshot(spec, "student", 1)] for method, spec in specs.items()}
    measured = made_up({method: {"clean": 0.5, "autoattack": 0.25} for method in specs})
    table = tab4.beside_the_paper(measured, measured, networks, networks)
    ours = table[table.accuracy.notna()]
    both = ("RSLAD, resnet18/16 by resnet18/8", "PeerAiD, resnet18/16 by resnet18/4")
    assert set(ours.row) == {f"{row} ({which})" for row in both for which in ("Table 4", "Table 5")}, "told apart"
    one = tab4.beside_the_paper(measured, made_up({"RSLAD": {"clean": 0.5}}), networks, {"RSLAD": networks["RSLAD"]})
    assert set(one.row[one.accuracy.notna() & (one.method == "PeerAiD")]) == {both[1]}, "nothing to tell apart"
    assert list(ours.table) == ["Table 4"] * 4 + ["Table 5"] * 4
    paper = table.set_index(["table", "method", "metric"]).paper
    assert paper["Table 4", "PeerAiD", "autoattack"] == pytest.approx(0.2699)
    assert paper["Table 5", "RSLAD", "clean"] == pytest.approx(0.7991)
    other = {"PeerAiD": [Snapshot(scale.spec("PeerAiD", dataset="digits:3,8"), "student", 1)]}
    apart = tab4.beside_the_paper(measured, made_up({"PeerAiD": {"clean": 0.5}}), networks, other)
    rows = apart.row[apart.accuracy.notna()]
    assert rows.iloc[-1] == "PeerAiD, resnet18/16 by resnet18/16 on digits:3,8"
    assert rows.iloc[0].endswith(" on digits")


def test_tables_4_and_5s_claims_compare_with_all_that_were_trained():
    behind = {method: {"clean": 0.4, "autoattack": 0.2} for method in tab4.METHODS}
    ahead = {"PeerAiD": {"clean": 0.3, "autoattack": 0.4}}
    two = made_up({"RSLAD": {"clean": 0.4, "autoattack": 0.5}, **ahead})
    checked = tab4.check_claims(made_up({**behind, **ahead}), two)
    assert [claim.verdict for claim in checked] == [claims.HOLDS, claims.FAILS, claims.FAILS, claims.FAILS]
    assert checked[2].text.endswith("compared with RSLAD.")


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize(
    ("name", "datasets", "n_test"),
    [
        ("tab3_weight_averaging", ("digits", "digits", "cifar10", "tiny_imagenet"), (128, None, 1000, None)),
        ("tab5_transfer_attacks", ("digits", "digits", "cifar10", "cifar100"), (128, None, 1000, None)),
        ("tab6_gradient_obfuscation", ("digits", "digits", "cifar10", "cifar10"), (16, 256, 800, None)),
    ],
)
def test_the_data_of_each_table_at_each_profile(name, datasets, n_test):
    scales = [exhibits.setup(name, profile).profile for profile in ("smoke", "quick", "small", "paper")]
    assert tuple(scale.dataset for scale in scales) == datasets
    assert tuple(scale.n_test for scale in scales) == n_test
    assert {scale.teacher_method for scale in scales} == {"TRADES"}
