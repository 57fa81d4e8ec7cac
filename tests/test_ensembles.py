"""RKD's ensembles and generated images: what is trained at each profile, an ensemble as one network, the claims."""

import pandas as pd
import pytest
import torch
from conftest import ROOT, tiny_spec
from given import Given
from test_comparisons import made_up

from rkdkit import attacks, claims, data, executors, exhibits, runs
from rkdkit.analysis import ensembles, state_of_the_art
from rkdkit.analysis.ensembles import CorrectTogether, Ensemble, Networks, Taught
from rkdkit.attacks import PGD
from rkdkit.autoattack import AutoAttack
from rkdkit.exhibits import tab14_teacher_ensembles as tab14
from rkdkit.exhibits import tab15_synthetic_data as tab15
from rkdkit.papers.reported import reported
from rkdkit.plan import Planner, ask
from rkdkit.references import Images
from rkdkit.store import Store
from rkdkit.trainings import Train

TAB14, TAB15 = "tab14_teacher_ensembles", "tab15_synthetic_data"


def nothing_right(task):
    return torch.zeros(len(getattr(task, "judges", "1")), len(task.images), dtype=torch.bool)


def asked(tmp_path, name, profile, answer=nothing_right, options=None, **parameters):
    """The networks of an exhibit, trained by nobody, and the tasks of each gather."""
    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        setup = exhibits.setup(name, profile, **parameters)
        trained = {TAB14: tab14, TAB15: tab15}[name].train(setup, **(options or {}))
    return setup, trained, executor


def specs_of(trained):
    return {name: of[0].spec for part in trained.parts for name, of in part.alone.items()}


# the ensemble as one network


class Fixed(torch.nn.Module):
    """Answers with the given logits, whatever the image, and counts how often it is asked for a gradient."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits + 0 * x.mean((1, 2, 3))[:, None]


def test_an_ensembles_probabilities_are_the_mean_of_its_members():
    members = [Fixed(2.0, -1.0, 0.5), Fixed(-3.0, 1.0, 1.0), Fixed(0.0, 0.0, 9.0)]
    x = torch.rand(2, 1, 4, 4)
    expected = sum(member(x).softmax(1) for member in members) / 3
    assert torch.allclose(Ensemble(members)(x).softmax(1), expected, atol=1e-6)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three networks that differ, in a store: of one training after each of its epochs."""
    with executors.using(executors.Here(Store(tmp_path_factory.mktemp("store")), "cpu")):
        yield runs.ensure(tiny_spec("Natural", n_train=320, epochs=3)).snapshots()


def test_an_ensemble_is_attacked_as_one_network(three):
    """Against PGD written out here, on the gradient of the mean of all probabilities."""
    images, eps, step = Images("digits", n=60), 0.05, 0.02
    split = images.split()
    networks = [snapshot.load("cpu") for snapshot in three]
    x = data.to_float(split.images)
    at = x.clone()
    for _ in range(3):
        at.requires_grad_(True)
        probabilities = torch.stack([network(at).softmax(1) for network in networks]).mean(0)
        loss = -probabilities[torch.arange(60), split.labels].log().sum()
        (gradient,) = torch.autograd.grad(loss, at)
        at = torch.minimum(torch.maximum(at.detach() + step * gradient.sign(), x - eps), x + eps).clamp(0, 1)
    with torch.no_grad():
        right = torch.stack([n(at).softmax(1) for n in networks]).mean(0).argmax(1) == split.labels
        natural = torch.stack([n(x).softmax(1) for n in networks]).mean(0).argmax(1) == split.labels
    attack = PGD(eps, step, 3, start="none")
    task = CorrectTogether(images=images, members=tuple(three), attack=attack)
    (found,), (clean,) = runs.gather([task, CorrectTogether(images=images, members=tuple(three))])
    assert torch.equal(found[0] if found.ndim > 1 else found, right)
    assert torch.equal(clean[0] if clean.ndim > 1 else clean, natural)
    assert natural.sum() > right.sum(), "the attack does something"
    one = CorrectTogether(images=images, members=(three[0],), attack=attack)
    assert not torch.equal(runs.gather([one])[0][0], right), "attacking one network is another question"
    assert len({each.name for each in (task, one, CorrectTogether(images=images, members=tuple(three)))}) == 3


def test_an_ensembles_answer_is_kept(three, monkeypatch):
    task = CorrectTogether(images=Images("digits", n=20), members=tuple(three), attack=attacks.FGSM(0.1))
    first = runs.gather([task])[0]
    monkeypatch.setattr(CorrectTogether, "do", None)
    assert torch.equal(runs.gather([task])[0], first)
    assert task.placeholder().shape == first.shape == (1, 20)
    assert [made.judge for made in task.passes()] == three
    assert task.inputs() == [Train(three[0].spec)]


def test_networks_and_ensembles_are_measured_in_one_gather(tmp_path):
    def answer(task):
        share = 6 if isinstance(task, CorrectTogether) else 2 + 2 * task.judges[0].spec.seed
        return (torch.arange(len(task.images)) < share)[None]

    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        setup = exhibits.setup(TAB14, "smoke", n_test=10, n_seeds=2)
        alone = [Train(spec).placeholder().snapshot() for spec in setup.specs("PGD-AT")]
        parts = [Networks(setup, {"one": alone}, {"both": [alone, alone]})]
        measured = ensembles.measure(parts, {"clean": None, "autoattack": AutoAttack(0.1)})
    assert len(executor.gathered) == 1
    assert measured.accuracy("one", "clean").value == pytest.approx(0.3)
    assert [seed["clean"].n for seed in measured.evaluations["one"]] == [10, 10]
    assert [seed["autoattack"].n for seed in measured.evaluations["both"]] == [4, 4]
    assert measured.accuracy("both", "clean").value == pytest.approx(0.6)


# what is trained


def teachers_of(spec):
    return [(t.run.method, t.run.seed, round(t.weight, 6)) for t in spec.teachers]


@pytest.mark.parametrize(("profile", "number"), [("smoke", 2), ("quick", 4), ("paper", 4)])
def test_one_and_several_teachers_differ_in_nothing_else(tmp_path, profile, number):
    _, trained, _ = asked(tmp_path, TAB14, profile)
    specs = specs_of(trained)
    for method, teacher in [("AKD+", "Natural"), ("AKD+", "FFGSM-AT"), ("AKD+", "PGD-AT"), ("RSLAD+", "FFGSM-AT")]:
        one, several = (specs[str(Taught(method, teacher, n))] for n in (1, number))
        assert teachers_of(one) == [(teacher, 0, 1.0)]
        assert teachers_of(several) == [(teacher, 1000 * i, round(1 / number, 6)) for i in range(number)]
        assert {t.epoch for t in several.teachers} == {one.teachers[0].epoch}
        alike = {**several.to_json(), "teachers": one.to_json()["teachers"]}
        assert alike == one.to_json()
    (members,) = trained.parts[0].together[tab14.together(number)]
    assert [(m.spec.method, m.spec.seed, m.epoch) for m in members] == [
        ("PGD-AT", 1000 * i, members[0].spec.epochs) for i in range(number)
    ]
    assert trained.parts[0].alone["PGD-AT"] == [members[0]]


def test_at_paper_tables_5_10_and_12_are_trained_as_in_the_paper(tmp_path):
    setup, trained, executor = asked(tmp_path, TAB14, "paper")
    specs = specs_of(trained)
    assert [part.setup.profile.dataset for part in trained.parts] == ["cifar10", "cifar100"]
    assert len(trained.parts[1].alone) == 6, "Tables 10 and 12 are of CIFAR-10 alone"
    for name, spec in specs.items():
        assert spec.student == "resnet18", name
        assert spec.dataset == ("cifar100" if name.endswith(" on cifar100") else "cifar10")
        if spec.teachers:
            assert (spec.epochs, spec.batch_size, spec.lr, spec.schedule) == (100, 256, 0.21, "onecycle")
            run = spec.teachers[0].run
            assert (run.epochs, run.batch_size, run.schedule, run.gamma) == (100, 128, "exponential", 0.9)
    own, numbers = set(specs) | set(trained.parts[0].together), tab14.paper_numbers("cifar10")
    assert set(numbers.method) == own
    with executors.using(executor):
        assert ensembles.robust_metric(setup) == "autoattack"


def test_hyper_parameters_are_those_that_are_best_on_held_out_images(tmp_path):
    """Students of teachers at epoch 8 are best on natural images, at 20 under attack, and with alpha 0.7."""

    def answer(task):
        (judge,) = task.judges
        assert task.images.part == "val"
        assert not task.attack or task.attack == setup_attack[0]
        if not judge.spec.teachers:  # the teacher alone, so weak that it limits nothing
            return nothing_right(task)
        early = judge.spec.teachers[0].epoch == 8
        share = 10 * (early == (task.attack is None)) + 5 * (dict(judge.spec.settings)["mixing"] == 0.7)
        return (torch.arange(len(task.images)) < share)[None]

    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        setup = exhibits.setup(TAB14, "quick")
        setup_attack = [setup.profile.selection_attack]
        trained = tab14.train(setup)
    chosen = trained.choices.set_index("method")
    assert set(chosen.alpha) == {0.7}
    for name in chosen.index:
        assert chosen.early_stop[name] == (0.4 if "Natural" in name else 1.0), name
        spec = specs_of(trained)[name]
        assert {t.epoch for t in spec.teachers} == {8 if "Natural" in name else 20}
        assert dict(spec.settings)["mixing"] == 0.7
    trainings = [{t.spec for t in g if isinstance(t, Train)} for g in executor.gathered]
    assert len([g for g in trainings if g]) == 2, "the grid in one gather, then the ensembles' students"


@pytest.mark.parametrize(("name", "accurate"), [(TAB14, "Natural"), (TAB15, "Low-eps AT")])
def test_students_are_limited_by_the_teacher_alone_where_the_papers_are(tmp_path, name, accurate):
    """With alpha 0.7, students are best at what they are chosen for, and lose much of the other accuracy."""

    def answer(task):
        (judge,) = task.judges
        settings, teachers = dict(judge.spec.settings), {t.run.method for t in judge.spec.teachers}
        if not teachers:
            assert (judge.spec.method, judge.spec.epochs) == ("PGD-AT", 40)
            return (torch.arange(len(task.images)) < 50)[None]
        best_at = "clean" if teachers == {accurate} else "robust"
        other = best_at != ("robust" if task.attack else "clean")
        return (torch.arange(len(task.images)) < {0.3: (60, 49), 0.7: (80, 10)}[settings["mixing"]][other])[None]

    _, trained, _ = asked(tmp_path, name, "quick", answer)
    chosen = trained.choices.set_index("method")
    limited = [line for line in chosen.index if accurate in line or line == "RSLAD+ from 1 PGD-AT"]
    assert len(limited) == {TAB14: 3, TAB15: 1}[name]
    assert chosen.within.all()
    assert chosen.alpha.to_dict() == {line: 0.3 if line in limited else 0.7 for line in chosen.index}


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_students_of_at_plus_are_trained_as_their_teacher(tmp_path, profile):
    setup, trained, _ = asked(tmp_path, TAB15, profile)
    specs, number = specs_of(trained), trained.number
    at_plus = specs["AT+"]
    assert (at_plus.method, at_plus.extra_fraction) == ("PGD-AT", 0.7)
    assert at_plus.ema_decay is not None
    assert trained.parts[0].alone["AT+"][0].role == "student_averaged"
    alike = (
        "student",
        "extra",
        "extra_fraction",
        "ema_decay",
        "epochs",
        "batch_size",
        "schedule",
        "lr",
        "augmentation",
    )
    for name in ("AKD", "AKD+", "RSLAD", "RSLAD+", "ARD", "ARD+", tab15.STOPPED_AKD, tab15.several("AKD+", number)):
        spec = specs[name]
        assert all(getattr(spec, field) == getattr(at_plus, field) for field in alike), name
        assert spec.teachers[0].run == at_plus
        assert {t.role for t in spec.teachers} == {"student_averaged"}
        assert len(spec.teachers) == (number if "from" in name else 1)
        settings = dict(spec.settings)
        assert settings.get("mixing", 1.0) == (0.8 if "+" in name.partition(" from")[0] else 1.0), name
    assert specs["AKD"].method == "AKD"
    early, last = (specs[name].teachers[0].epoch for name in (tab15.STOPPED_AKD, "AKD"))
    assert (early, last) == {"smoke": (1, 3), "quick": (5, 20), "paper": (100, 400)}[profile]
    for name in ("PGD-AT", tab15.ACCURATE, tab15.ROBUST):
        assert (specs[name].extra, specs[name].ema_decay) == ("", None)
    assert specs["PGD-AT"].epochs == 2 * setup.profile.epochs
    assert [t.run.method for t in specs[tab15.ACCURATE].teachers] == ["Low-eps AT"]
    assert [t.run.method for t in specs[tab15.ROBUST].teachers] == ["FFGSM-AT"] * number


def test_below_paper_the_images_are_of_the_generator_that_ships_with_the_kit(tmp_path):
    setup, trained, _ = asked(tmp_path, TAB15, "quick")
    assert {s.extra for s in specs_of(trained).values()} == {"", "gaussian-mixture:10000"}
    assert trained.generators == ["gaussian-mixture:10000"]
    # 1,200 images in batches of 64 are 18 steps: the average reaches back an epoch
    assert specs_of(trained)["AT+"].ema_decay == pytest.approx(1 - 1 / 18)
    assert setup.profile.student == specs_of(trained)["AT+"].student


def test_at_paper_the_images_are_the_papers(tmp_path):
    _, trained, _ = asked(tmp_path, TAB15, "paper")
    specs = specs_of(trained)
    assert trained.generators == ["DDPM", "EDM", "DDPM", "EDM"]
    for name, spec in specs.items():
        where = "cifar100" if " on cifar100" in name else "cifar10"
        images = f"{where}_{'edm' if 'EDM' in name else 'ddpm'}.npz"
        alone = any(name.startswith(start) for start in ("PGD-AT", tab15.ACCURATE, tab15.ROBUST))
        assert (spec.dataset, spec.extra) == (where, "" if alone else images), name
        assert spec.student == ("resnet18" if alone else "wrn-28-10-silu")
    assert len(specs[tab15.ROBUST].teachers) == 4
    assert len(specs[f"{tab15.ROBUST} on cifar100"].teachers) == 1, (
        "Table 1's numbers are those of Table 5's one teacher"
    )
    assert set(tab15.paper_numbers("cifar10").method) == set(specs)


def test_a_notebooks_own_fields_and_images_are_kept(tmp_path):
    options = {"extra": "mine.npz", "extra_fraction": 0.5, "number": 3}
    _, trained, _ = asked(tmp_path, TAB15, "paper", None or nothing_right, options, dataset="cifar100", epochs=200)
    specs = specs_of(trained)
    assert {part.setup.profile.dataset for part in trained.parts} == {"cifar100"}
    assert (specs["AT+"].extra, specs["AT+"].extra_fraction, specs["AT+"].epochs) == ("mine.npz", 0.5, 200)
    assert len(specs["AKD+ from 3 AT+"].teachers) == 3


# the paper's numbers


@pytest.mark.parametrize(
    ("tables", "numbers"), [((5, 10, 12), tab14.paper_numbers), ((1, 6, 7, 8), tab15.paper_numbers)]
)
@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar100"])
def test_every_number_of_the_tables_is_in_the_exhibit(tables, numbers, dataset):
    theirs = numbers(dataset)
    measured = made_up({"AT+": {"clean": 0.5, "autoattack": 0.4}})
    shown = ensembles.beside_all(measured, pd.DataFrame(columns=["method", "early_stop", "alpha", "within"]), theirs)
    assert not shown.duplicated(["method", "metric"]).any()
    found = {
        (table, row.paper_dataset, row.metric, round(100 * row.paper, 2))
        for row in shown[shown.paper.notna()].itertuples()
        for table in row.table.split(", ")
    }
    for table in tables:
        for row in reported("rkd", f"Table {table}").itertuples():
            assert (row.table, row.dataset, row.metric, row.value) in found
    rest = shown[shown.accuracy.isna()]
    assert set(rest.method) >= set(theirs.method) - {"AT+"}
    assert shown[shown.accuracy.notna()].accuracy.tolist() == [0.5, 0.4]


def test_the_first_dataset_here_has_the_names_without_an_end():
    def values(name, metric, dataset):
        theirs = tab15.paper_numbers(dataset)
        return set(theirs.value[(theirs.method == name) & (theirs.metric == metric)])

    assert values("AKD+", "autoattack", "digits") == {60.78}
    assert values("AKD+ (EDM)", "pgd-20", "digits") == {64.51}
    assert values("AKD+ on cifar100 (EDM)", "pgd-20", "digits") == {37.05}
    assert values("AKD+ (EDM)", "pgd-20", "cifar100") == {37.05}
    assert values("AKD+ from 4 AT+ on cifar10", "clean", "cifar100") == {88.41}
    ensemble = tab14.paper_numbers("digits").set_index(["method", "metric"]).value
    assert ensemble["4 PGD-AT as one network", "pgd-7"] == 52.74
    assert ensemble["4 PGD-AT as one network", "autoattack"] == 51.58
    assert ensemble["PGD-AT", "autoattack"] == 46.99
    assert ensemble["RSLAD+ from 1 PGD-AT", "clean"] == 84.10
    assert ensemble["AKD+ from 4 Natural on cifar100", "clean"] == 63.52
    assert all(" (paper)" in name for name in tab15.paper_numbers("digits:3,8").method), "not of a selection of classes"


@pytest.mark.parametrize(("number", "beside"), [(2, False), (4, True)])
def test_the_papers_numbers_of_four_teachers_are_beside_four_teachers_only(tmp_path, number, beside):
    """Otherwise they are lines of their own, whose differences are those of the paper."""
    shown = {}
    for name, module in ((TAB14, tab14), (TAB15, tab15)):
        setup, trained, _ = asked(tmp_path / name, name, "smoke", options={"number": number})
        lines = {
            line: {"clean": 0.5, "autoattack": 0.5} for part in trained.parts for line in (*part.alone, *part.together)
        }
        shown[name] = module.numbers_of(setup, trained, made_up(lines)).set_index(["method", "metric"])
    ensembles_here = {
        TAB14: {f"AKD+ from {number} FFGSM-AT": 0.8411, tab14.together(number): 0.8186},
        TAB15: {tab15.several("AKD+", number): 0.8841, tab15.ROBUST: 0.8411},
    }
    for name, lines in ensembles_here.items():
        for line, theirs in lines.items():
            ours = shown[name].loc[(line, "clean")]
            assert ours.accuracy == 0.5
            assert (ours.paper == pytest.approx(theirs)) if beside else pd.isna(ours.paper)
    if not beside:
        apart = shown[TAB14].loc[("AKD+ from 4 FFGSM-AT", "clean")]
        assert (apart.paper, apart.compared_with) == (pytest.approx(0.8411), "AKD+ from 1 FFGSM-AT")
        assert apart.paper_difference == pytest.approx(0.8411 - 0.8518)
        assert shown[TAB14].loc[("4 PGD-AT as one network", "clean")].paper_difference == pytest.approx(0.8186 - 0.8422)
        assert shown[TAB15].loc[("AKD+ from 4 AT+", "clean")].paper == pytest.approx(0.8841)
        apart = shown[TAB15].loc[(f"{tab15.ROBUST} (paper)", "clean")]
        assert (apart.paper, apart.compared_with) == (pytest.approx(0.8411), "PGD-AT")
    assert shown[TAB14].loc[("AKD+ from 1 FFGSM-AT", "clean")].paper == pytest.approx(0.8518)


def test_different_numbers_of_one_line_are_refused():
    theirs = reported("rkd", "Table 6").assign(method="AKD+")
    with pytest.raises(ValueError, match="different values of one line"):
        ensembles.beside_all(made_up({"AKD+": {"clean": 0.5}}), pd.DataFrame(columns=["method"]), theirs)


def test_what_each_line_is_compared_with():
    lines = list(dict.fromkeys(tab15.paper_numbers("cifar10").method))
    assert set(tab15.references(lines).items()) >= {
        ("AT+", "PGD-AT"),
        ("AKD+ from AT on cifar100", "PGD-AT on cifar100"),
        ("AT+ on cifar100 (EDM)", "PGD-AT on cifar100"),
        ("RSLAD+ on cifar100 (EDM)", "AT+ on cifar100 (EDM)"),
        ("AKD from 4 AT+", "AT+"),
        ("AKD (EDM)", "AT+ (EDM)"),
    }
    assert "PGD-AT" not in tab15.references(lines)
    compared = tab14.references(list(dict.fromkeys(tab14.paper_numbers("cifar10").method)))
    assert compared == {
        **{f"AKD+ from 4 {t}": f"AKD+ from 1 {t}" for t in tab14.TEACHERS},
        **{f"AKD+ from 4 {t} on cifar100": f"AKD+ from 1 {t} on cifar100" for t in tab14.TEACHERS},
        "RSLAD+ from 4 FFGSM-AT": "RSLAD+ from 1 FFGSM-AT",
        "4 PGD-AT as one network": "PGD-AT",
    }


# the claims


def lines_of(numbers, metrics, better=()):
    accuracies = {name: dict.fromkeys(metrics, 0.4) for name in numbers}
    for name, metric, value in better:
        accuracies[name][metric] = value
    return made_up(accuracies)


def verdicts(checked):
    return [claim.verdict for claim in checked]


METRICS = ("clean", "pgd-7", "pgd-20", "autoattack")


def test_the_claims_about_ensembles_look_at_what_they_say():
    names = [*map(str, tab14.students(4)), "PGD-AT", tab14.together(4)]
    better = [
        ("AKD+ from 4 Natural", "clean", 0.6),
        ("AKD+ from 4 FFGSM-AT", "pgd-20", 0.7),
        ("AKD+ from 4 PGD-AT", "pgd-20", 0.6),
        ("RSLAD+ from 4 FFGSM-AT", "clean", 0.6),
        ("RSLAD+ from 4 FFGSM-AT", "pgd-20", 0.5),
        ("RSLAD+ from 1 PGD-AT", "clean", 0.8),
        ("PGD-AT", "clean", 0.6),
        ("PGD-AT", "pgd-7", 0.6),
        (tab14.together(4), "autoattack", 0.6),
    ]
    checked = tab14.check_claims(lines_of(names, METRICS, better), 4, "pgd-20")
    assert len(checked) == 11
    assert verdicts(checked) == [claims.HOLDS] * 11
    assert checked[6].difference.value == pytest.approx(0.3 - 0.1)
    turned = [(name, metric, 0.8 - value) for name, metric, value in better]
    assert verdicts(tab14.check_claims(lines_of(names, METRICS, turned), 4, "pgd-20")) == [claims.FAILS] * 11
    alike = verdicts(tab14.check_claims(lines_of(names, METRICS), 4, "pgd-20"))
    assert alike == [claims.OPEN] * 8 + [claims.HOLDS] * 2 + [claims.OPEN]


@pytest.mark.parametrize(("gain", "verdict"), [(0.0, claims.HOLDS), (0.01, claims.OPEN), (0.1, claims.FAILS)])
def test_an_ensemble_does_not_improve_if_it_is_as_good_as_one_network(gain, verdict):
    names = [*map(str, tab14.students(4)), "PGD-AT", tab14.together(4)]
    better = [(tab14.together(4), metric, 0.4 + gain) for metric in ("clean", "pgd-7")]
    clean, robust = tab14.check_claims(lines_of(names, METRICS, better), 4, "pgd-20")[8:10]
    assert (clean.verdict, robust.verdict) == (verdict, verdict)
    assert clean.text == "An ensemble is no more accurate than one of its networks: it gains less than 1 point."
    assert "no more robust (PGD-7) than" in robust.text
    assert robust.lower.estimate.value == pytest.approx(gain)
    assert robust.higher.estimate.value == 0.01


def test_the_claims_about_generated_images_look_at_what_they_say():
    names = dict.fromkeys(tab15.paper_numbers("digits").method)
    better = [
        (tab15.ACCURATE, "clean", 0.6),
        (tab15.ROBUST, "autoattack", 0.6),
        ("AT+", "autoattack", 0.5),
        ("AKD", "autoattack", 0.6),
        ("AKD+", "autoattack", 0.7),
        ("AKD+", "clean", 0.6),
        ("RSLAD+", "autoattack", 0.6),
        ("ARD", "autoattack", 0.6),
        (tab15.several("AKD+", 4), "autoattack", 0.8),
    ]
    checked = tab15.check_claims(lines_of(names, METRICS, better), 4, "autoattack")
    assert verdicts(checked) == [claims.HOLDS] * 12
    turned = [(name, metric, 0.8 - value) for name, metric, value in better]
    assert verdicts(tab15.check_claims(lines_of(names, METRICS, turned), 4, "autoattack")) == [claims.FAILS] * 12


def test_robustness_is_decided_by_autoattack_only_where_all_images_are_tried(tmp_path):
    with executors.using(Given(Store(tmp_path), nothing_right)):
        assert ensembles.robust_metric(exhibits.setup(TAB15, "smoke")) == "pgd-20"
        assert ensembles.robust_metric(exhibits.setup(TAB15, "smoke", n_test=4)) == "autoattack"
        assert ensembles.robust_metric(exhibits.setup(TAB15, "smoke", n_autoattack="none")) == "autoattack"


# what is refused


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (TAB14, {"number": 1}, "n_teachers, the number of teachers in an ensemble, must be between 2 and 1000"),
        (TAB14, {"number": 2.5}, "n_teachers.* must be a whole number"),
        (TAB14, {"number": "four"}, "n_teachers.* must be a number"),
        (TAB14, {"stops": [0, 1]}, "stops must list different shares above 0"),
        (TAB14, {"alphas": 0.5}, "alphas must list at least one share"),
        (TAB15, {"number": 0}, "n_teachers"),
        (TAB15, {"extra_fraction": 1.5}, "extra_fraction must be between 0 and 1"),
        (TAB15, {"extra_fraction": 0.0}, "extra and extra_fraction go together"),
        (TAB15, {"extra": "gaussian-mixture:many"}, "must say how many images are generated"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_trained(tmp_path, name, options, message):
    executor = Given(Store(tmp_path), nothing_right)
    with executors.using(executor):
        setup = exhibits.setup(name, "smoke")
        with pytest.raises(ValueError, match=message):
            {TAB14: tab14, TAB15: tab15}[name].train(setup, **options)
    assert executor.gathered == []


@pytest.mark.parametrize("name", [TAB14, TAB15])
def test_without_held_out_images_nothing_is_trained(tmp_path, name):
    executor = Given(Store(tmp_path), nothing_right)
    with executors.using(executor):
        setup = exhibits.setup(name, "smoke", n_val=0)
        with pytest.raises(ValueError, match="held out"):
            {TAB14: tab14, TAB15: tab15}[name].train(setup)
    assert executor.gathered == []


def test_a_missing_file_of_images_is_named_before_anything_is_trained(store, monkeypatch, tmp_path):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    setup = exhibits.setup(TAB15, "smoke")
    with pytest.raises(data.DataNotFoundError, match=r"mine\.npz is not there"):
        tab15.train(setup, "mine.npz")
    assert not any(store.root.glob("runs/*"))


def test_files_are_named_by_dataset_and_generator():
    assert set(state_of_the_art.FILES) == {(d, g) for d in ("cifar10", "cifar100") for g in ("DDPM", "EDM")}


@pytest.mark.parametrize("name", ["tab14_teacher_ensembles", "tab15_synthetic_data"])
def test_students_with_hyper_parameters_of_a_placeholder_are_not_certain(tmp_path, name):
    planner = Planner(Store(tmp_path))
    assert ask(planner, ROOT / "notebooks" / f"{name}.ipynb", {"profile": "smoke"}) == []
    of_several = [
        task
        for task in planner.trainings
        if len(task.spec.teachers) > 1 and not task.spec.extra  # with generated images, nothing is chosen
    ]
    assert of_several
    assert not any(task.certain for task in of_several)
    assert any(task.certain for task in planner.trainings if len(task.spec.teachers) == 1), "the grid itself"


def test_where_a_table_has_fewer_lines_the_claims_about_the_others_are_left_out(tmp_path, capsys):
    """Of CIFAR-100's images by DDPM the paper has AT+ and AKD+ alone."""
    _, trained, _ = asked(tmp_path, TAB15, "paper", dataset="cifar100")
    measured = made_up({name: {"clean": 0.5, "autoattack": 0.4} for name in specs_of(trained)})
    found = tab15.check_claims(measured, trained.number, "autoattack")
    assert [claim.source for claim in found] == ["RKD, Table 1"] * 3 + ["RKD, Table 6 and section 4"] * 2
    assert "not compared here: RSLAD+" in capsys.readouterr().err
