"""Losses against float64 references written from the papers' formulas, without the kit's or torch's help."""

import math
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_recipes import SETTINGS as DEFAULTS

from rkdkit import losses, methods
from rkdkit.checks import UnknownNameError


def softmax(logits, tau=1.0):
    z = np.asarray(logits, np.float64) / tau
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(labels, logits):
    return -np.mean([math.log(row[y]) for row, y in zip(softmax(logits), labels, strict=True)])


def kl_of(p, q, reduction="batchmean"):
    """KL of two (N, C) tables of probabilities, one value an image."""
    per_image = [
        sum(a * math.log(a / b) for a, b in zip(r, s, strict=True) if a > 0) for r, s in zip(p, q, strict=True)
    ]
    return np.array(per_image) / (p.shape[1] if reduction == "mean" else 1)


def kl(target, logits, tau=1.0, reduction="batchmean"):
    return kl_of(softmax(target, tau), softmax(logits, tau), reduction).mean()


def mixed(teachers, weights, labels, share, tau=1.0):
    """share * sum_i weights_i T_i + (1 - share) y, as probabilities."""
    p = sum(w * softmax(t, tau) for w, t in zip(weights, teachers, strict=True))
    return share * p + (1 - share) * np.eye(p.shape[1])[labels]


def random_logits(seed, n=7, classes=5, scale=4.0):
    return np.random.RandomState(seed).randn(n, classes) * scale


shapes = st.tuples(st.integers(0, 10**6), st.integers(1, 9), st.integers(2, 12))


@given(shapes, st.sampled_from([0.5, 1.0, 5.0, 30.0]), st.sampled_from(losses.KL_REDUCTIONS))
def test_kl_agrees_with_the_reference(shape, tau, reduction):
    seed, n, classes = shape
    t, s = random_logits(seed, n, classes), random_logits(seed + 1, n, classes)
    expected = kl_of(softmax(t, tau), softmax(s, tau), reduction)
    ours = losses.kl_divergence(torch.tensor(t), torch.tensor(s), tau, reduction)
    assert ours.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    single = losses.kl_divergence(torch.tensor(t).float(), torch.tensor(s).float(), tau, reduction)
    assert single.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(shapes)
def test_cross_entropies_and_squared_error_agree_with_the_references(shape):
    seed, n, classes = shape
    logits, labels = random_logits(seed, n, classes), np.random.RandomState(seed).randint(0, classes, n)
    target = random_logits(seed + 1, n, classes)
    ours = losses.cross_entropy(torch.tensor(logits), torch.tensor(labels)).mean().item()
    assert ours == pytest.approx(cross_entropy(labels, logits), rel=1e-9)
    soft = losses.soft_cross_entropy(torch.tensor(target), torch.tensor(logits)).numpy()
    assert soft == pytest.approx(-(softmax(target) * np.log(softmax(logits))).sum(1), rel=1e-9)
    square = losses.squared_error(torch.tensor(target), torch.tensor(logits)).numpy()
    assert square == pytest.approx(((target - logits) ** 2).mean(1), rel=1e-9)


@given(shapes, st.sampled_from([1.0, 5.0]), st.floats(0, 1), st.floats(0, 1), st.integers(1, 3))
def test_a_mixture_has_the_mixed_probabilities(shape, tau, share, weight, n_teachers):
    seed, n, classes = shape
    teachers = [random_logits(seed + i, n, classes) for i in range(n_teachers)]
    weights = [1.0] if n_teachers == 1 else [weight, *[(1 - weight) / (n_teachers - 1)] * (n_teachers - 1)]
    labels = np.random.RandomState(seed).randint(0, classes, n)
    ours = losses.mixture([torch.tensor(t) for t in teachers], weights, tau, torch.tensor(labels), share)
    expected = mixed(teachers, weights, labels, share, tau)
    assert softmax(ours.numpy(), tau) == pytest.approx(expected, abs=1e-12)
    assert losses.kl_divergence(ours, torch.zeros_like(ours), tau).isfinite().all()


def test_a_mixture_that_is_all_label_lets_a_finite_gradient_through():
    teacher, student = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    target = losses.mixture([teacher], labels=torch.tensor([0, 1, 2]), share=0.0)
    losses.kl_divergence(target, student).sum().backward()
    assert student.grad.isfinite().all()
    assert teacher.grad.abs().max() < 1e-6


def test_the_element_wise_mean_is_the_kl_divided_by_the_number_of_classes():
    t = torch.tensor([[2.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    s = torch.zeros(1, 4, dtype=torch.float64)
    p = math.exp(2) / (math.exp(2) + 3)
    q = (1 - p) / 3
    by_hand = p * math.log(4 * p) + 3 * q * math.log(4 * q)
    assert by_hand == pytest.approx(0.4680, abs=1e-4)
    assert losses.kl_divergence(t, s, 1.0, "batchmean").item() == pytest.approx(by_hand)
    assert losses.kl_divergence(t, s, 1.0, "mean").item() == pytest.approx(by_hand / 4)
    # and so PeerAiD's released weights are worth a tenth on ten classes where the sum becomes the mean
    method = methods.get("PeerAiD")
    _, logits, labels = made_up_step(classes=10)
    whole, tenth = (
        methods.loss(method, method.resolve({"g1": 0, "kl_reduction": reduction}), logits, labels).item()
        for reduction in ("batchmean", "mean")
    )
    assert whole == pytest.approx(10 * tenth)


def test_kl_gradients_by_finite_differences():
    t, s = (torch.tensor(random_logits(seed, 3, 4), requires_grad=True) for seed in (0, 1))
    for reduction in losses.KL_REDUCTIONS:
        assert torch.autograd.gradcheck(lambda a, b, r=reduction: losses.kl_divergence(a, b, 3.0, r), (t, s))


def test_unknown_reduction_is_refused():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'mean'.*batchmean"):
        losses.kl_divergence(torch.zeros(1, 2), torch.zeros(1, 2), reduction="meen")


class Given(torch.nn.Module):
    """A network whose logits at each point are given."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, x):
        return self.answers[int(x.item())]


POINTS = ("x", "x*", "x*_S", "x*_P")
# two teachers as an ensemble, and the two of AKD2
NETWORKS = {"S": ("S",), "P": ("P",), "T": ("T1", "T2"), "T_rob": ("R",), "T_nat": ("N",)}
WEIGHTS = {"T": (0.3, 0.7), "T_rob": (1.0,), "T_nat": (1.0,)}


def made_up_logits(leaves):
    networks = {
        slot: tuple(Given([leaves[f"{name}({point})"] for point in POINTS]) for name in names)
        for slot, names in NETWORKS.items()
    }
    return methods.Logits(networks, {point: torch.tensor(float(i)) for i, point in enumerate(POINTS)}, WEIGHTS)


def made_up_step(seed=0, n=6, classes=10):
    """Logits of every network at every point, with gradients, and labels."""
    names = [f"{name}({point})" for name in chain(*NETWORKS.values()) for point in POINTS]
    leaves = {
        name: torch.tensor(random_logits(seed + i, n, classes), requires_grad=True) for i, name in enumerate(names)
    }
    labels = torch.tensor(np.random.RandomState(seed).randint(0, classes, n))
    return leaves, made_up_logits(leaves), labels


def references(v, y, h):
    """Every method's loss as its paper writes it, from logits `v`, labels `y` and settings `h`."""
    s, s_adv, p_adv = v["S(x)"], v["S(x*)"], v["P(x*)"]
    reduction = h.get("kl_reduction")

    def teacher(point, tau=1.0, share=1.0):
        return mixed([v[f"T1({point})"], v[f"T2({point})"]], WEIGHTS["T"], y, share, tau)

    def from_teacher(point, logits, tau=1.0, share=1.0):
        return kl_of(teacher(point, tau, share), softmax(logits, tau), reduction)

    def kd(logits, weight, share=1.0):
        tau = h["tau"]
        return weight * tau**2 * from_teacher("x", logits, tau, share).mean() + (1 - weight) * cross_entropy(y, s)

    def rslad(point, share=1.0):
        return (
            h["l"] * from_teacher(point, s_adv, share=share).mean()
            + (1 - h["l"]) * from_teacher("x", s, share=share).mean()
        )

    def akd(share=1.0):
        return -(teacher("x*", share=share) * np.log(softmax(s_adv))).sum(1).mean()

    def iad():
        a = teacher("x*")[np.arange(len(y)), y] ** h["beta"]
        first = a if h["teacher_weight"] == "a" else 1.0
        own = kl_of(softmax(s, h["tau"]), softmax(s_adv, h["tau"]), reduction)
        return h["tau"] ** 2 * (first * from_teacher("x", s_adv, h["tau"]) + (1 - a) * own).mean()

    def akd2():
        tau = h["tau"]
        return (
            (1 - h["a1"] - h["a2"]) * cross_entropy(y, s_adv)
            + h["a1"] * tau**2 * kl(v["R(x*)"], s_adv, tau, reduction)
            + h["a2"] * tau**2 * kl(v["N(x*)"], s_adv, tau, reduction)
        )

    def cat():
        a, a_adv, b, b_adv = s, v["S(x*_S)"], v["P(x)"], v["P(x*_P)"]
        trades = cross_entropy(y, a) + h["beta"] * kl(a, a_adv, reduction=reduction)
        alp = (cross_entropy(y, b_adv) + cross_entropy(y, b)) / 2 + ((b - b_adv) ** 2).mean()
        each_other = kl(v["P(x*_S)"], a_adv, reduction=reduction) + kl(v["S(x*_P)"], b_adv, reduction=reduction)
        return h["own"] * (trades + alp) + (1 - h["own"]) * each_other

    def peeraid_student(guided):
        return (
            h["l1"] * cross_entropy(y, s_adv)
            + h["l2"] * h["tau"] ** 2 * guided
            + h["l3"] * h["tau"] ** 2 * kl(s, s_adv, h["tau"], reduction)
        )

    def peeraid():
        peer = h["g1"] * cross_entropy(y, p_adv) + h["g2"] * h["tau_p"] ** 2 * kl(s_adv, p_adv, h["tau_p"], reduction)
        return peer + peeraid_student(kl(p_adv, s_adv, h["tau"], reduction))

    return {
        "Natural": lambda: cross_entropy(y, s),
        **dict.fromkeys(("PGD-AT", "Low-eps AT", "FFGSM-AT", "Free-AT"), lambda: cross_entropy(y, s_adv)),
        "TRADES": lambda: cross_entropy(y, s) + h["beta"] * kl(s, s_adv, reduction=reduction),
        "KD": lambda: kd(s, h["l"]),
        **dict.fromkeys(("ARD", "Fast-ARD"), lambda: kd(s_adv, h["alpha"])),
        "ARD+": lambda: kd(s_adv, h["alpha"], h["mixing"]),
        "RSLAD": lambda: rslad("x"),
        "RSLAD+": lambda: rslad("x", h["mixing"]),
        "AKD": akd,
        "AKD+": lambda: akd(h["mixing"]),
        "IAD": iad,
        "AKD2": akd2,
        "AdaAD": lambda: rslad("x*"),
        "CAT": cat,
        "PeerAiD": peeraid,
        "PeerAiD-fixed": lambda: peeraid_student(from_teacher("x*", s_adv, h["tau"]).mean()),
    }


CASES = [
    *((name, {}) for name in methods.METHODS),
    ("TRADES", {"beta": 1.5, "kl_reduction": "mean"}),
    ("KD", {"l": 0.4, "tau": 3, "kl_reduction": "batchmean"}),
    ("ARD", {"alpha": 0.93, "tau": 5, "kl_reduction": "batchmean"}),
    ("ARD+", {"alpha": 0.6, "tau": 4, "mixing": 0.3}),
    ("ARD+", {"mixing": 0}),
    ("RSLAD", {"l": 0.5, "kl_reduction": "mean"}),
    ("RSLAD+", {"mixing": 1}),
    ("AKD+", {"mixing": 0.25}),
    ("IAD", {"teacher_weight": "1", "beta": 0.7, "tau": 2}),
    ("AKD2", {"a1": 0.1, "a2": 0.6, "tau": 2}),
    ("AdaAD", {"l": 0.8}),
    ("CAT", {"own": 0.4, "beta": 2}),
    ("PeerAiD", {"l1": 0.035, "l2": 35, "l3": 20, "tau": 1, "g1": 1, "g2": 100, "kl_reduction": "batchmean"}),
    ("PeerAiD-fixed", {"l1": 0.7, "l2": 0.4, "tau": 3}),
    ("PeerAiD", {"tau": 3, "tau_p": 2, "g1": 0.5, "g2": 0.3, "l1": 0.7, "l2": 0, "l3": 0.2}),
]


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_every_methods_loss_agrees_with_the_papers_formula(name, changes):
    method = methods.get(name)
    leaves, logits, labels = made_up_step()
    ours = methods.loss(method, method.resolve(changes), logits, labels).item()
    values = {k: v.detach().numpy() for k, v in leaves.items()}
    expected = references(values, labels.numpy(), {**DEFAULTS[name], **changes})[name]()
    assert ours == pytest.approx(expected, rel=1e-6)


def test_iad_trusts_its_teacher_alone_at_first():
    method = methods.get("IAD")
    leaves, logits, labels = made_up_step()
    values = {k: v.detach().numpy() for k, v in leaves.items()}
    teacher = mixed([values["T1(x)"], values["T2(x)"]], WEIGHTS["T"], labels.numpy(), 1.0)
    # of 200 epochs the first 60
    before, after = (methods.loss(method, method.resolve({}), logits, labels, k / 200).item() for k in (59, 60))
    assert before == pytest.approx(kl_of(teacher, softmax(values["S(x*)"])).mean(), rel=1e-6)
    assert after == pytest.approx(references(values, labels.numpy(), DEFAULTS["IAD"])["IAD"](), rel=1e-6)
    assert after != pytest.approx(before, rel=1e-3)


def test_certainty_is_taken_in_float32():
    answers = torch.tensor([[5.0, 0.0, 1.0]]).bfloat16()
    logits = methods.Logits({"T": (Given([answers, answers]),)}, {"x": torch.tensor(0.0), "x*": torch.tensor(1.0)})
    a = logits.certainty(torch.tensor([0]), 0.1)
    assert a.dtype == torch.float32
    assert a.item() == pytest.approx((softmax(answers.float().numpy())[0, 0]) ** 0.1, rel=1e-6)


@pytest.mark.parametrize("name", methods.METHODS)
def test_gradients_of_every_methods_loss_by_finite_differences(name):
    """Where a row detaches a point, the numerical gradient is taken with that point's value held."""
    method = methods.get(name)
    settings = method.resolve({})
    leaves, held, labels = made_up_step(n=2, classes=3)
    trained = [n for n in leaves if n[0] in "SP" and any(n in term.points for term in method.minimises)]

    class HeldConstants(methods.Logits):
        def __getitem__(self, point):
            return held[point] if point.constant else super().__getitem__(point)

    def loss(*values):
        given = {**leaves, **dict(zip(trained, values, strict=True))}
        logits = made_up_logits(given)
        logits.__class__ = HeldConstants
        return methods.loss(method, settings, logits, labels)

    # float64 all through: only the starting zero is float32, and adding to it is exact
    assert torch.autograd.gradcheck(loss, [leaves[n].detach().clone().requires_grad_() for n in trained])


def gradient_arrives(name, **changes):
    """Where the gradient of a method's loss arrives."""
    method = methods.get(name)
    leaves, logits, labels = made_up_step()
    methods.loss(method, method.resolve(changes), logits, labels).backward()
    return {name for name, leaf in leaves.items() if leaf.grad is not None and leaf.grad.abs().sum() > 0}


OFF = dict.fromkeys(("l1", "l2", "l3", "g1", "g2"), 0.0)


@pytest.mark.parametrize(
    ("name", "changes", "arrives"),
    [
        ("TRADES", {}, {"S(x)", "S(x*)"}),
        ("KD", {}, {"S(x)"}),
        ("ARD", {}, {"S(x*)"}),
        ("ARD", {"alpha": 0.5}, {"S(x)", "S(x*)"}),
        ("RSLAD", {}, {"S(x)", "S(x*)"}),
        ("RSLAD+", {}, {"S(x)", "S(x*)"}),
        ("AKD", {}, {"S(x*)"}),
        ("AKD+", {}, {"S(x*)"}),
        ("IAD", {}, {"S(x)", "S(x*)"}),
        ("AKD2", {}, {"S(x*)"}),
        ("AdaAD", {}, {"S(x*)"}),
        # each learns from the other's answers as from a constant
        ("CAT", {"own": 0}, {"S(x*_S)", "P(x*_P)"}),
        ("CAT", {"own": 1}, {"S(x)", "S(x*_S)", "P(x)", "P(x*_P)"}),
        # PeerAiD: the label that the peer gives is a constant, the one that the student gives is not
        ("PeerAiD", {**OFF, "l2": 1.0}, {"S(x*)"}),
        ("PeerAiD", {**OFF, "g2": 1.0}, {"S(x*)", "P(x*)"}),
        ("PeerAiD", {**OFF, "l3": 1.0}, {"S(x)", "S(x*)"}),
        ("PeerAiD", {**OFF, "l1": 1.0}, {"S(x*)"}),
        ("PeerAiD", {**OFF, "g1": 1.0}, {"P(x*)"}),
        ("PeerAiD-fixed", {"l3": 0.0}, {"S(x*)"}),
    ],
)
def test_gradients_arrive_at_the_trained_networks_alone(name, changes, arrives):
    assert gradient_arrives(name, **changes) == arrives


def test_each_forward_pass_is_done_once():
    calls = []

    class Counted(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            calls.append((self.name, int(x.item())))
            return torch.zeros(2, 3) + x

    networks = {"S": (Counted("S"),), "T": (Counted("T1"), Counted("T2"))}
    logits = methods.Logits(networks, {"x": torch.tensor(0.0), "x*": torch.tensor(1.0)}, WEIGHTS)
    method = methods.get("IAD")
    methods.loss(method, method.resolve({}), logits, torch.tensor([0, 1]))
    assert sorted(calls) == sorted(set(calls))
    assert len(calls) == 6
    logits.add("x*", torch.tensor(2.0))
    calls.clear()
    methods.loss(method, method.resolve({}), logits, torch.tensor([0, 1]))
    assert sorted(calls) == [("S", 0), ("S", 2), ("T1", 2), ("T2", 2)], "fixed teachers' answers at x are kept"


def test_terms_print_as_the_papers_write_them():
    def written(name):
        return [str(term) for term in methods.get(name).minimises]

    assert written("TRADES") == ["CE(y, S(x))", "beta KL(S(x), S(x*))"]
    assert written("PeerAiD")[3] == "l2 tau^2 KL(P(x*) const, S(x*); tau)"
    assert written("AKD2")[0] == "(1-a1-a2) CE(y, S(x*))"
    assert written("ARD+")[0] == "alpha tau^2 KL(mixing T(x) + (1-mixing) y, S(x*); tau)"
    assert written("IAD")[1] == "(1-a) tau^2 KL(S(x), S(x*); tau)"
    assert written("CAT")[1] == "own beta KL(S(x), S(x*_S))"


def test_a_row_says_whom_it_trains_and_who_guides():
    assert [methods.get(n).roles for n in ("ARD", "CAT", "PeerAiD")] == [("student",), *[("student", "peer")] * 2]
    assert [methods.get(n).guides for n in ("PGD-AT", "IAD", "AKD2")] == [(), ("T",), ("T_rob", "T_nat")]


def test_a_teacher_that_only_the_attack_asks_is_needed_too():
    attack = methods.Maximised("KL", "T_nat(x)", "S(x~)")
    assert methods.Method("Mine", "", (methods.Term("CE", "y", "S(x*)"),), (attack,)).guides == ("T_nat",)


def test_papers_have_other_settings_on_other_data():
    peeraid, ard = methods.get("PeerAiD"), methods.get("ARD")
    assert (peeraid.resolve({})["g2"], peeraid.resolve({}, "cifar100")["g2"]) == (0.1, 1.0)
    assert peeraid.resolve({"g2": 7}, "tiny_imagenet") == {
        **{"l1": 0.035, "l2": 35.0, "l3": 20.0, "tau": 1.0, "g1": 1.0, "g2": 7.0, "tau_p": 1.0, "kl_reduction": "mean"}
    }
    assert (ard.resolve({})["tau"], ard.resolve({}, "cifar100")["tau"]) == (30.0, 5.0)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("TRADES", {"betta": 1}, "setting of TRADES 'betta'.*Did you mean 'beta'"),
        ("PeerAiD", {"tau": 0}, "tau of PeerAiD must be"),
        ("TRADES", {"beta": -1}, "beta of TRADES must be between 0 and"),
        ("TRADES", {"beta": "6"}, "beta of TRADES must be a number, not '6'"),
        ("ARD+", {"mixing": 1.2}, r"mixing of ARD\+ must be between 0 and 1, not 1.2"),
        ("RSLAD", {"l": 1.5}, "l of RSLAD must be between 0 and 1"),
        ("AKD2", {"a1": 0.6, "a2": 0.6}, "a1 and a2 of AKD2 must not exceed 1 together"),
        ("IAD", {"teacher_weight": "b"}, "Unknown teacher weight 'b'"),
        ("IAD", {"warmup": 60}, "warmup of IAD must be between 0 and 1"),
        ("Free-AT", {"m": 2.5}, "m of Free-AT must be a whole number"),
        ("Free-AT", {"m": 0}, "m of Free-AT must be between 1 and 10000"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        methods.get(name).resolve(changes)


def test_unknown_methods_are_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown method 'peeraid'. Did you mean 'PeerAiD'"):
        methods.get("peeraid")


SETTINGS = {"kl_reduction": "mean", "l": 0.5}
TAUGHT = methods.Term("KL", "T(x)", "S(x)")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.Term("JS", "T(x)", "S(x)"), "Unknown divergence 'JS'"),
        (lambda: methods.Term("KL", "y", "S(x)"), r"labels y are a target of the cross entropy \(CE\) only"),
        (lambda: methods.Term("KL", "Q(x)", "S(x)"), "Unknown network of a row 'Q'"),
        (lambda: methods.Term("KL", "T[x]", "S(x)"), "is not a point such as"),
        (lambda: methods.Term("KL", "S(x)", "T(x)"), "its output must be of a trained network, without .detach"),
        (lambda: methods.Term("KL", "T(x)", "S(x).detach"), "its output must be of a trained network, without .detach"),
        (lambda: methods.Term("KL", "T(x~)", "S(x~)"), "only an attack can use x~"),
        (lambda: methods.Term("CE", "T(x)", "S(x)", tau="tau"), "only a KL can have a temperature"),
        (lambda: methods.Term("KL", "P(x)", "S(x)", mixing="m"), "only a fixed teacher's outputs can be mixed"),
        (lambda: methods.Term("CE", "y", "S(x)", weight="1e-3"), "'1e-3' is not a number, setting or remainder"),
        (lambda: methods.Term("CE", "y", "S(x)", weight="2-l"), "'2-l' is not a number, setting or remainder"),
        (
            lambda: methods.Maximised("CE", "T(x)", "S(x~)"),
            "an attack maximises CE with target y, or KL with a point as target",
        ),
        (
            lambda: methods.Maximised("KL", "y", "S(x~)"),
            "an attack maximises CE with target y, or KL with a point as target",
        ),
        (lambda: methods.Maximised("MSE", "T(x)", "S(x~)"), "Unknown divergence of an attack 'MSE'"),
        (lambda: methods.Maximised("KL", "T(x*)", "S(x~)"), "the target must be at x or x~"),
        (lambda: methods.Maximised("KL", "P(x).detach", "S(x~)"), "the target must be at x or x~"),
        (lambda: methods.Maximised("CE", "y", "T(x~)"), r"the output of an attack must be P\(x~\) or S\(x~\)"),
        (lambda: methods.Maximised("CE", "y", "S(x~)", start="gauss"), "Unknown attack start 'gauss'"),
        (
            lambda: methods.Method("Mine", "", (methods.Term("KL", "T(x)", "S(x)", weight="lam"),)),
            'no default for its setting kl_reduction, lam: .*settings={"kl_reduction": "batchmean", "lam": 1.0}',
        ),
        (
            lambda: methods.Method("Mine", "", (methods.Term("CE", "y", "S(x)", weight="1-lam"),), settings=SETTINGS),
            "has no default for its setting lam",
        ),
        (
            lambda: methods.Method("Mine", "", (methods.Term("CE", "y", "S(x)"),), settings={"tau": 5}),
            "The row Mine does not use its setting tau",
        ),
        (
            lambda: methods.Method("Mine", "", (TAUGHT,), settings={"kl_reduction": "sum"}),
            "Unknown KL reduction 'sum'",
        ),
        (
            lambda: methods.Method(
                "Mine", "", (methods.Term("KL", "P(x)", "S(x)"),), settings={"kl_reduction": "mean"}
            ),
            r"uses P\(x\), but does not train the peer",
        ),
        (
            lambda: methods.Method(
                "Mine", "", (methods.Term("CE", "y", "S(x*)"),), (methods.Maximised("KL", "P(x)", "S(x~)"),)
            ),
            r"uses P\(x\), but does not train the peer",
        ),
        (
            lambda: methods.Method(
                "Mine",
                "",
                (methods.Term("CE", "y", "S(x)"), methods.Term("CE", "y", "P(x*)")),
                settings={"m": 2},
                free=True,
            ),
            "is free, but its loss does not use S",
        ),
        (
            lambda: methods.Method(
                "Mine", "", (methods.Term("CE", "y", "S(x*)"),), (methods.Maximised("CE", "y", "S(x~)"),) * 2
            ),
            "Two attacks of the row Mine make examples with the same name",
        ),
        (
            lambda: methods.with_label_mixing(methods.get("TRADES"), "mine"),
            r"TRADES\+ does not use its setting mixing",
        ),
        (
            lambda: methods.Method("Mine", "", (methods.Term("CE", "y", "S(x*)"),)),
            r"uses S\(x\*\), which none of its attacks makes",
        ),
        (
            lambda: methods.Method("Mine", "", (methods.Term("CE", "y", "S(x)"),), settings={"m": 2}, free=True),
            r"is free, but its loss does not use S\(x\*\)",
        ),
    ],
)
def test_a_row_that_would_not_do_what_it_prints_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_remainders_may_be_written_with_spaces():
    term = methods.Term("CE", "y", "S(x)", weight="0.5 * 1 - l")
    row = methods.Method("Mine", "", (term,), settings={"l": 0.25})
    leaves, logits, labels = made_up_step()
    expected = 0.5 * 0.75 * cross_entropy(labels.numpy(), leaves["S(x)"].detach().numpy())
    assert methods.loss(row, row.resolve({}), logits, labels).item() == pytest.approx(expected, rel=1e-6)
