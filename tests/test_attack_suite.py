"""ARD's Table 11: its attacks and how strong they are, the runs they are tried on, and claims judged rightly."""

import dataclasses
from collections import Counter

import pytest
import torch
from conftest import OneBlock
from given import Given
from test_comparisons import made_up
from test_exhibits import run_until_training
from torch.nn import functional

from rkdkit import attacks, claims, comparisons, executors, exhibits, profiles
from rkdkit.analysis.white_box import white_box
from rkdkit.exhibits import tab10_attack_suite as tab10
from rkdkit.papers.reported import reported
from rkdkit.plan import cost
from rkdkit.store import Store

OWN = ("mi-fgsm-20", "deepfool", "pgd-1000", "pgd-20-restarts-100")
"""The metrics of the paper's Table 11, in its order."""


@pytest.mark.parametrize(
    ("profile", "steps", "restarts", "sentence"),
    [
        ("smoke", 50, 3, "50 steps instead of 1,000 and 3 starts of PGD-20 instead of 100"),
        ("quick", 1000, 20, "20 starts of PGD-20 instead of 100"),
        ("small", 1000, 20, "20 starts of PGD-20 instead of 100"),
        ("paper", 1000, 100, ""),
    ],
)
def test_the_suite_of_a_profile_names_its_steps_and_starts(profile, steps, restarts, sentence):
    scale = profiles.PROFILES[profile]
    eps = scale.test_attack.eps
    suite = tab10.attack_suite(scale)
    assert suite == {
        "clean": None,
        "pgd-20": attacks.PGD(eps, eps / 4, 20),
        "mi-fgsm-20": attacks.MIFGSM(eps, eps / 20, 20, decay=1.0),
        "deepfool": attacks.DeepFool(eps, 50, 10, 0.02),
        f"pgd-{steps}": attacks.PGD(eps, eps / 4, steps),
        f"pgd-20 x {restarts}": attacks.PGD(eps, eps / 4, 20, restarts=restarts),
    }
    assert list(suite)[2:4] == ["mi-fgsm-20", "deepfool"]
    assert tab10.strength(suite) == (f"Weaker than the paper's attacks: {sentence}." if sentence else "")


def test_steps_starts_and_iterate_are_the_notebooks():
    scale = dataclasses.replace(profiles.PROFILES["quick"], test_iterate="any", test_steps=10)
    suite = tab10.attack_suite(scale, 200, 5)
    assert list(suite) == [
        "clean",
        "pgd-10 (any iterate)",
        "mi-fgsm-20",
        "deepfool",
        "pgd-200 (any iterate)",
        "pgd-10 (any iterate) x 5",
    ]
    usual = "Weaker than the paper's attacks: 10 steps of the usual PGD instead of 20"
    assert tab10.strength(suite).startswith(f"{usual} and 200 steps instead of 1,000 and 5 starts")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"long_steps": 20}, "long_steps must be above the 20 steps of the usual attack, not 20"),
        ({"long_steps": 30.5}, "steps must be a whole number"),
        ({"restarts": 1}, "restarts must be at least 2, not 1"),
        ({"restarts": 0}, "restarts must be at least 1, not 0"),
        ({"restarts": "many"}, "restarts must be a whole number"),
        ({"teacher_method": "TRADES"}, "does not use teacher_method"),
        ({"student": "mobilenet"}, "Unknown model 'mobilenet'"),
    ],
)
def test_what_does_not_fit_table_11_is_refused_before_it_trains(parameters, message):
    with pytest.raises(ValueError, match=message):
        run_until_training("tab10_attack_suite", profile="smoke", **parameters)


@pytest.mark.parametrize(
    ("profile", "n", "epochs", "student", "teacher"),
    [
        ("smoke", 64, (3, 1), "mobilenetv2/16", "resnet18/16"),
        ("quick", 497, (20, 5), profiles.ard("quick")["student"], "resnet18/4"),
        ("paper", 10_000, (200, 50), "mobilenetv2", "wrn-34-10"),
    ],
)
def test_table_11s_students_meet_every_attack_on_the_same_images(tmp_path, profile, n, epochs, student, teacher):
    executor = Given(Store(tmp_path), lambda task: task.placeholder())
    with executors.using(executor):
        asked = exhibits.setup("tab10_attack_suite", profile)
        suite = tab10.attack_suite(asked.profile)
        trained = comparisons.train_entries(asked, tab10.ENTRIES)
        before = len(executor.gathered)
        measured = white_box(trained.chosen, asked.images, suite, n=asked.n_of(suite))
        (tasks,) = executor.gathered[before:]
        made = Counter((task.attack, len(task.images), task.images.part) for task in tasks)
    specs = {name: run.spec for name, (run,) in trained.runs.items()}
    assert list(specs) == ["PGD-AT", "ARD", "Free-AT", "Fast-ARD"]
    assert {name: (spec.method, spec.epochs) for name, spec in specs.items()} == {
        name: (name, epochs["F" in name]) for name in specs
    }
    assert {spec.student for spec in specs.values()} == {student}
    guides = {name: [(t.run.method, t.run.student) for t in spec.teachers] for name, spec in specs.items()}
    assert guides == {"PGD-AT": [], "ARD": [("TRADES", teacher)], "Free-AT": [], "Fast-ARD": [("TRADES", teacher)]}
    assert all(dict(specs[name].settings)["m"] == 4 for name in ("Free-AT", "Fast-ARD"))
    assert made == {(attack, n, "test"): 4 for attack in suite.values()}
    assert measured.metrics == tuple(suite)


def accuracies(suite, **changed):
    shares = {"PGD-AT": 0.4, "ARD": 0.5, "Free-AT": 0.2, "Fast-ARD": 0.4}
    measured = made_up({name: dict.fromkeys(suite, changed.get(name, share)) for name, share in shares.items()})
    return dataclasses.replace(measured, measured_by=suite)


def test_every_number_of_table_11_is_beside_ours():
    suite = tab10.attack_suite(profiles.PROFILES["quick"], restarts=7)
    table = tab10.beside_the_paper(accuracies(suite), "digits", "mobilenetv2/4")
    assert set(table.metric) == set(suite)
    assert table.paper.notna().all()
    papers = ("clean", "pgd-20", *OWN)
    assert dict(zip(table.metric, table.paper_metric, strict=True)) == dict(zip(suite, papers, strict=True))
    shown = table.set_index(["method", "paper_metric"])
    printed = reported("ard", "Table 11")
    assert len(printed) == 16
    for line in printed.itertuples():
        assert shown.loc[(line.method, line.metric)].paper == pytest.approx(line.value / 100)
    assert shown.loc[("ARD", "pgd-20-restarts-100")].metric == "pgd-20 x 7"
    assert shown.loc[("ARD", "pgd-20")].paper == pytest.approx(0.5042)
    assert shown.loc[("Fast-ARD", "clean")].paper == pytest.approx(0.8351)
    assert shown.loc[("ARD", "deepfool")].paper_difference == pytest.approx(0.0687)
    assert shown.loc[("ARD", "deepfool")].difference == pytest.approx(0.1)
    tables = [shown.loc[at].table for at in (("ARD", "clean"), ("Fast-ARD", "pgd-20"), ("ARD", "deepfool"))]
    assert tables == ["Table 6", "Table 9", "Table 11"]
    assert set(table.compared_with) == {"", "PGD-AT", "Free-AT"}


@pytest.mark.parametrize(
    ("changed", "verdicts"),
    [
        ({}, [claims.HOLDS] * 8),
        ({"ARD": 0.3}, [claims.FAILS] * 4 + [claims.HOLDS] * 4),
        ({"Free-AT": 0.4}, [claims.HOLDS] * 4 + [claims.OPEN] * 4),
    ],
)
def test_a_claim_is_made_of_each_attack_of_the_papers(changed, verdicts):
    suite = tab10.attack_suite(profiles.PROFILES["paper"])
    checked = tab10.check_claims(accuracies(suite, **changed))
    assert [claim.verdict for claim in checked] == verdicts
    names = ["MI-FGSM-20", "DeepFool", "PGD-1000", "PGD-20 x 100"]
    assert [claim.text for claim in checked] == [
        f"Under {attack}, {first} is more robust than {second}."
        for first, second in (("ARD", "PGD-AT"), ("Fast-ARD", "Free-AT"))
        for attack in names
    ]


def test_a_claim_looks_at_its_own_attack_alone():
    suite = tab10.attack_suite(profiles.PROFILES["paper"])
    measured = accuracies(suite)
    for weak, place in (("deepfool", 1), ("pgd-20 x 100", 3)):
        measured.evaluations["ARD"][0].correct[weak] = torch.zeros(1000, dtype=torch.bool)
        assert tab10.check_claims(measured)[place].verdict == claims.FAILS
    assert tab10.check_claims(measured)[0].verdict == claims.HOLDS


def plain_pgd(network, images, labels, eps, step_size, steps, restarts, seed):
    """Return which images withstand every start: PGD as one would write it down, with the starts of one generator."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.arange(len(images))
    for _ in range(restarts):
        natural = images[left]
        x = natural + torch.empty(natural.shape).uniform_(-eps, eps, generator=generator)
        x = torch.min(torch.max(x.clamp(0, 1), natural - eps), natural + eps)
        for _ in range(steps):
            x = x.detach().requires_grad_(True)
            functional.cross_entropy(network(x), labels[left]).backward()
            x = x + step_size * x.grad.sign()
            x = torch.min(torch.max(x, natural - eps), natural + eps).clamp(0, 1)
        left = left[network(x).argmax(1) == labels[left]]
    withstood = torch.zeros(len(images), dtype=torch.bool)
    withstood[left] = True
    return withstood


def plain_mi_fgsm(network, image, label, eps, steps):
    """Return MI-FGSM's example of one image, (C, H, W), by its authors' algorithm 1 with a decay of 1."""
    x, momentum = image, torch.zeros_like(image)
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        functional.cross_entropy(network(x[None]), label[None]).backward()
        momentum = momentum + x.grad / x.grad.abs().sum()
        x = (x + eps / steps * momentum.sign()).clamp(0, 1)
    return x.detach()


def plain_deepfool(network, image, label, eps, steps, overshoot):
    """Return DeepFool's example of one image, (C, H, W), by its authors' algorithm 2 in l_inf, clipped to the ball."""
    moved, x = torch.zeros_like(image), image
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        logits = network(x[None])[0]
        if logits.argmax() != label:
            break
        nearest = None
        for other in range(len(logits)):
            if other == label:
                continue
            gap = logits[other] - logits[label]
            (slope,) = torch.autograd.grad(gap, x, retain_graph=True)
            distance = gap.abs().item() / slope.abs().sum().item()
            if nearest is None or distance < nearest[0]:
                nearest = distance, slope.sign()
        moved = moved + (nearest[0] + 1e-4) * nearest[1]
        x = (image + (1 + overshoot) * moved).clamp(0, 1)
    return torch.min(torch.max(x.detach(), image - eps), image + eps)


def test_restarts_agree_with_what_one_would_write_down(trained, digits):
    some, eps = digits.test.take(slice(0, 60)), 0.1
    images, labels = some.images.float() / 255, some.labels
    by_starts = [plain_pgd(trained, images, labels, eps, eps / 2, 1, restarts, seed=3) for restarts in (1, 2, 3)]
    assert by_starts[0].sum() > by_starts[1].sum() > by_starts[2].sum() > 30, "each start fools the network once more"
    for restarts, withstood in enumerate(by_starts, start=1):
        examples = attacks.PGD(eps, eps / 2, 1, restarts=restarts)(trained, images, labels, seed=3)
        with torch.no_grad():
            assert torch.equal(trained(examples).argmax(1) == labels, withstood)


def test_mi_fgsm_and_deepfool_agree_with_what_one_would_write_down(trained, digits):
    some, eps = digits.test.take(slice(0, 12)), 0.1
    images, labels = some.images.float() / 255, some.labels
    pairs = list(zip(images, labels, strict=True))
    ours = attacks.MIFGSM(eps, eps / 20, 20)(trained, images, labels)
    theirs = torch.stack([plain_mi_fgsm(trained, *pair, eps, 20) for pair in pairs])
    assert torch.isclose(ours, theirs, atol=1e-5).flatten(1).all(1).sum() >= 11
    ours = attacks.DeepFool(eps, 20)(trained, images, labels)
    theirs = torch.stack([plain_deepfool(trained, *pair, eps, 20, 0.02) for pair in pairs])
    assert torch.isclose(ours, theirs, atol=1e-4).flatten(1).all(1).sum() >= 11


def test_deepfool_asks_a_network_that_withstands_it_as_often_as_planned():
    """Its first class is far ahead everywhere, and the images hardly matter."""
    network = OneBlock(10, (0.3,), (0.3,)).eval()
    with torch.no_grad():
        network.head.weight.mul_(1e-4)
        network.head.bias[0] = 1000.0
    forward, backward = [], []

    def count(module, inputs, logits):
        del module, inputs
        forward.append(logits)
        if logits.requires_grad:
            logits.register_hook(backward.append)

    network.register_forward_hook(count)
    images, labels = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
    attack = attacks.DeepFool(0.1, steps=4, candidates=6)
    attack(network, images, labels)
    asked = cost.passes(attack, 10)
    assert (len(backward), asked.at_most) == (asked.gradient, True)
    assert asked.forward + asked.gradient >= len(forward) == 1 + 4
