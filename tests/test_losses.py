"""Losses against float64 references written from the papers' formulas, without the kit's or torch's help."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rkdkit import losses, methods
from rkdkit.checks import UnknownNameError


def softmax(logits, tau=1.0):
    z = np.asarray(logits, np.float64) / tau
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(labels, logits):
    return -np.mean([math.log(row[y]) for row, y in zip(softmax(logits), labels, strict=True)])


def kl(target, logits, tau=1.0, reduction="batchmean"):
    p, q = softmax(target, tau), softmax(logits, tau)
    per_image = [
        sum(a * math.log(a / b) for a, b in zip(r, s, strict=True) if a > 0) for r, s in zip(p, q, strict=True)
    ]
    return np.mean(per_image) / (p.shape[1] if reduction == "mean" else 1)


def random_logits(seed, n=7, classes=5, scale=4.0):
    return np.random.RandomState(seed).randn(n, classes) * scale


shapes = st.tuples(st.integers(0, 10**6), st.integers(1, 9), st.integers(2, 12))


@given(shapes, st.sampled_from([0.5, 1.0, 5.0, 30.0]), st.sampled_from(losses.KL_REDUCTIONS))
def test_kl_agrees_with_the_reference(shape, tau, reduction):
    seed, n, classes = shape
    t, s = random_logits(seed, n, classes), random_logits(seed + 1, n, classes)
    ours = losses.kl_divergence(torch.tensor(t), torch.tensor(s), tau, reduction).item()
    assert ours == pytest.approx(kl(t, s, tau, reduction), rel=1e-9, abs=1e-12)
    single = losses.kl_divergence(torch.tensor(t).float(), torch.tensor(s).float(), tau, reduction).item()
    assert single == pytest.approx(kl(t, s, tau, reduction), rel=1e-4, abs=1e-6)


@given(shapes)
def test_cross_entropy_agrees_with_the_reference(shape):
    seed, n, classes = shape
    logits, labels = random_logits(seed, n, classes), np.random.RandomState(seed).randint(0, classes, n)
    ours = losses.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item()
    assert ours == pytest.approx(cross_entropy(labels, logits), rel=1e-9)


def test_the_element_wise_mean_is_the_kl_divided_by_the_number_of_classes():
    t, s = (torch.tensor(random_logits(seed, classes=10)) for seed in (0, 1))
    ratio = losses.kl_divergence(t, s, 5.0, "batchmean") / losses.kl_divergence(t, s, 5.0, "mean")
    assert ratio.item() == pytest.approx(10)


def test_kl_gradients_by_finite_differences():
    t, s = (torch.tensor(random_logits(seed, 3, 4), requires_grad=True) for seed in (0, 1))
    for reduction in losses.KL_REDUCTIONS:
        assert torch.autograd.gradcheck(lambda a, b, r=reduction: losses.kl_divergence(a, b, 3.0, r), (t, s))


def test_unknown_reduction_is_refused():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'mean'.*batchmean"):
        losses.kl_divergence(torch.zeros(1, 2), torch.zeros(1, 2), reduction="meen")


class Fixed(torch.nn.Module):
    """A network whose logits at each point are given."""

    def __init__(self, by_point):
        super().__init__()
        self.by_point = by_point

    def forward(self, x):
        return self.by_point["x" if x.item() == 0 else "x*"]


def made_up_step(seed=0, n=6, classes=10):
    """Logits of student and peer at both points, with gradients, and labels."""
    leaves = {
        f"{letter}({point})": torch.tensor(random_logits(seed + i, n, classes), requires_grad=True)
        for i, (letter, point) in enumerate([("S", "x"), ("S", "x*"), ("P", "x"), ("P", "x*")])
    }
    networks = {
        role: Fixed({point: leaves[f"{letter}({point})"] for point in ("x", "x*")})
        for letter, role in methods.ROLES.items()
    }
    points = {"x": torch.tensor(0.0), "x*": torch.tensor(1.0)}
    labels = torch.tensor(np.random.RandomState(seed).randint(0, classes, n))
    return leaves, methods.Logits(networks, points), labels


def references(values, y, h):
    s, s_adv, p_adv = values["S(x)"], values["S(x*)"], values["P(x*)"]
    return {
        "Natural": lambda: cross_entropy(y, s),
        "PGD-AT": lambda: cross_entropy(y, s_adv),
        "TRADES": lambda: cross_entropy(y, s) + h["beta"] * kl(s, s_adv, reduction=h["kl_reduction"]),
        "PeerAiD": lambda: (
            h["g1"] * cross_entropy(y, p_adv)
            + h["g2"] * h["tau_p"] ** 2 * kl(s_adv, p_adv, h["tau_p"], h["kl_reduction"])
            + h["l1"] * cross_entropy(y, s_adv)
            + h["l2"] * h["tau"] ** 2 * kl(p_adv, s_adv, h["tau"], h["kl_reduction"])
            + h["l3"] * h["tau"] ** 2 * kl(s, s_adv, h["tau"], h["kl_reduction"])
        ),
    }


CASES = [
    ("Natural", {}),
    ("PGD-AT", {}),
    ("TRADES", {}),
    ("TRADES", {"beta": 1.5, "kl_reduction": "mean"}),
    ("PeerAiD", {}),
    ("PeerAiD", {"l1": 0.035, "l2": 35, "l3": 20, "tau": 1, "g1": 1, "g2": 100, "kl_reduction": "batchmean"}),
    ("PeerAiD", {"tau": 3, "tau_p": 2, "g1": 0.5, "g2": 0.3, "l1": 0.7, "l2": 0, "l3": 0.2}),
]


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_every_methods_loss_agrees_with_the_papers_formula(name, changes):
    method = methods.get(name)
    settings = method.resolve(changes)
    leaves, logits, labels = made_up_step()
    ours = methods.loss(method, settings, logits, labels).item()
    values = {k: v.detach().numpy() for k, v in leaves.items()}
    assert ours == pytest.approx(references(values, labels.numpy(), settings)[name](), rel=1e-6)


def test_every_method_has_a_reference():
    assert {name for name, _ in CASES} == set(methods.METHODS)


@pytest.mark.parametrize("name", methods.METHODS)
def test_gradients_of_every_methods_loss_by_finite_differences(name):
    method = methods.get(name)
    settings = method.resolve({})
    leaves, _, labels = made_up_step(n=2, classes=3)
    names = [n for n in leaves if any(n in (t.output, t.target) for t in method.minimises)]

    def loss(*values):
        given = {**leaves, **dict(zip(names, values, strict=True))}
        networks = {
            role: Fixed({point: given[f"{letter}({point})"] for point in ("x", "x*")})
            for letter, role in methods.ROLES.items()
        }
        points = {"x": torch.tensor(0.0), "x*": torch.tensor(1.0)}
        terms = [t for t in method.minimises if not t.target.endswith(".detach")]
        row = methods.Method(method.title, method.source, tuple(terms), settings=method.settings)
        return methods.loss(row, settings, methods.Logits(networks, points), labels)

    # float64 all through: only the starting zero is float32, and adding to it is exact
    assert torch.autograd.gradcheck(loss, [leaves[n].detach().requires_grad_() for n in names])


def gradient_arrives(leaves, logits, labels, **weights):
    """Where the gradient of PeerAiD's loss with only these weights arrives."""
    method = methods.get("PeerAiD")
    off = dict.fromkeys(("l1", "l2", "l3", "g1", "g2"), 0.0)
    methods.loss(method, method.resolve({**off, **weights}), logits, labels).backward()
    return {name for name, leaf in leaves.items() if leaf.grad is not None and leaf.grad.abs().sum() > 0}


def test_the_peers_soft_label_is_a_constant_for_the_student():
    assert gradient_arrives(*made_up_step(), l2=1.0) == {"S(x*)"}


def test_the_students_soft_label_is_no_constant_for_the_peer():
    assert gradient_arrives(*made_up_step(), g2=1.0) == {"S(x*)", "P(x*)"}


def test_the_natural_logits_are_no_constant_in_the_consistency_term():
    assert gradient_arrives(*made_up_step(), l3=1.0) == {"S(x)", "S(x*)"}


def test_hard_labels_reach_one_network_each():
    assert gradient_arrives(*made_up_step(), l1=1.0) == {"S(x*)"}
    assert gradient_arrives(*made_up_step(), g1=1.0) == {"P(x*)"}


def test_terms_print_as_the_papers_write_them():
    assert [str(t) for t in methods.get("TRADES").minimises] == ["CE(y, S(x))", "beta KL(S(x), S(x*))"]
    assert str(methods.get("PeerAiD").minimises[3]) == "l2 tau^2 KL(P(x*), S(x*); tau)"


def test_unknown_methods_and_settings_are_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown method 'peeraid'. Did you mean 'PeerAiD'"):
        methods.get("peeraid")
    with pytest.raises(UnknownNameError, match=r"setting of TRADES 'betta'.*Did you mean 'beta'"):
        methods.get("TRADES").resolve({"betta": 1})
    with pytest.raises(ValueError, match="tau of PeerAiD must be"):
        methods.get("PeerAiD").resolve({"tau": 0})
    with pytest.raises(ValueError, match="beta of TRADES must be at least 0"):
        methods.get("TRADES").resolve({"beta": -1})
    with pytest.raises(ValueError, match="beta of TRADES must be a number, not '6'"):
        methods.get("TRADES").resolve({"beta": "6"})
