"""What every exhibit claims: its sentences, their places in the papers, and which quantity is said to be the higher."""

import dataclasses

import numpy as np
import pytest
import torch
from agreed import agreed

from rkdkit import attacks, claims, exhibits, profiles
from rkdkit.analysis.curves import Curve
from rkdkit.analysis.embedding import Scores
from rkdkit.analysis.gradients import MEASURES
from rkdkit.analysis.trajectories import Answers, Trajectories
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.data import Split
from rkdkit.evaluation import Evaluation
from rkdkit.exhibits import fig1_peer_vs_teacher as fig1
from rkdkit.exhibits import fig3_peer_tutoring as fig3
from rkdkit.exhibits import fig4_loss_landscape as fig4
from rkdkit.exhibits import fig5_tsne as fig5
from rkdkit.exhibits import fig6_semantic_gradients as fig6
from rkdkit.exhibits import fig11_entropy as fig11
from rkdkit.exhibits import fig12_trajectories as fig12
from rkdkit.exhibits import fig13_sample_difficulty as fig13
from rkdkit.exhibits import tab1_white_box as tab1
from rkdkit.exhibits import tab2_peer_robustness as tab2
from rkdkit.exhibits import tab3_weight_averaging as tab3
from rkdkit.exhibits import tab4_teacher_architecture as tab4
from rkdkit.exhibits import tab5_transfer_attacks as tab5
from rkdkit.exhibits import tab6_gradient_obfuscation as tab6
from rkdkit.setup import FIELDS, Exhibit

N = 40


@pytest.fixture
def uniform():
    generator = np.random.default_rng(5)

    def draw(*shape, low=0.0, high=1.0):
        return torch.from_numpy(generator.uniform(low, high, shape))

    return draw


def right(hits):
    """The answers of a network that is right on the first `hits` of forty images."""
    return torch.arange(N) < hits


def white_box(hits):
    """Accuracies by method, then metric; every attack is FGSM by name."""
    evaluations = {
        method: [Evaluation({metric: right(number) for metric, number in by.items()})] for method, by in hits.items()
    }
    metrics = next(iter(hits.values()))
    return WhiteBox(evaluations, dict.fromkeys(metrics, attacks.FGSM(0.1)), 10)


def curve(network, examples, *hits):
    return Curve(network, examples, {0: {epoch: right(number) for epoch, number in enumerate(hits, 1)}})


def stated(found):
    """Return what each claim says: text, source, and the names of its higher and its lower quantity.

    Each claim's difference is that of its two quantities: every quantity measured here has another value.
    """
    for claim in found:
        apart = claim.higher.estimate.value - claim.lower.estimate.value
        assert claim.difference.value == pytest.approx(apart, abs=1e-6), claim.text
        assert abs(apart) > 1e-5, f"of two equal values nothing can be told: {claim.text}"
    return [(claim.text, claim.source, claim.higher.name, claim.lower.name) for claim in found]


def test_figure_1():
    curves = fig1.TutoringCurves(
        curve("teacher", "student", 30, 25, 20),
        curve("teacher", "own", 19, 18, 17),
        curve("peer", "student", 10, 21, 32),
        curve("peer", "own", 3, 2, 1),
        10,
    )
    found = fig1.check_claims(curves)
    assert stated(found) == [
        (
            "In the last quarter of the training, the peer is more accurate on the student's adversarial examples than "
            "the fixed teacher.",
            "PeerAiD, Figure 1 and section 1",
            "peer on x*_S, epoch 3",
            "teacher on x*_S, epoch 3",
        ),
        (
            "The fixed teacher's accuracy on the student's adversarial examples falls, from the first epoch measured "
            "to the last quarter of the training.",
            "PeerAiD, Figure 1 and section 1",
            "teacher on x*_S, epoch 1",
            "teacher on x*_S, epoch 3",
        ),
        (
            "In the last quarter of the training, the peer's accuracy on its own adversarial examples is near zero: "
            "below guessing.",
            "PeerAiD, Figure 1 and section 4.4",
            "guessing",
            "peer on x*_P, epoch 3",
        ),
    ]
    assert {claim.confidence for claim in found} == {0.95}
    assert found[2].higher.estimate.value == 0.1


FIGURE_3 = "PeerAiD, Figure 3 and section 4.3"


def figure_3(drops=()):
    def panel(shift):
        hits = ((2, 5, 9, 14, 20), (3, 7, 12, 18, 25), (4, 6, 8, 10, 12), (30, 26, 21, 15, 8))
        return {
            part: curve(*part, *(number + shift for number in of)) for part, of in zip(fig3.LEGEND, hits, strict=True)
        }

    return stated(fig3.check_claims(fig3.PeerTutoring({"test": panel(0), "train": panel(9)}), drops))


def test_figure_3():
    found = figure_3([3])
    assert {source for _, source, *_ in found} == {FIGURE_3}
    assert [(text, higher, lower) for text, _, higher, lower in found] == [
        (
            "The peer's test accuracy on its student's adversarial examples rises.",
            "peer on x*_S, mean of epochs 4 to 5",
            "peer on x*_S, epoch 1",
        ),
        (
            "The peer's test accuracy on its student's examples jumps up early: by epoch 2 of 5.",
            "peer on x*_S, epoch 2",
            "peer on x*_S, epoch 1",
        ),
        (
            "Right after the first drop of the learning rate, the peer's test accuracy jumps up again.",
            "peer on x*_S, epoch 4",
            "peer on x*_S, epoch 3",
        ),
        (
            "The fixed teacher's test accuracy on its student's adversarial examples falls.",
            "teacher on x*_S, epoch 1",
            "teacher on x*_S, mean of epochs 4 to 5",
        ),
        (
            "In the last quarter of the training, the peer is more accurate on its student's adversarial examples than "
            "the fixed teacher is.",
            "peer, on x*_S of the student of the peer, mean of epochs 4 to 5",
            "teacher, on x*_S of the student of the teacher, mean of epochs 4 to 5",
        ),
        (
            "In the last quarter of the training, the student taught by the peer is more robust than the one taught by "
            "the fixed teacher.",
            "student, on x*_S of the student of the peer, mean of epochs 4 to 5",
            "student, on x*_S of the student of the teacher, mean of epochs 4 to 5",
        ),
        (
            "On training images, too, the peer's accuracy on its student's adversarial examples rises.",
            "peer on x*_S, mean of epochs 4 to 5",
            "peer on x*_S, epoch 1",
        ),
        (
            "After the first drop of the learning rate, the robust accuracy on training images of the student taught "
            "by the peer keeps rising.",
            "student of the peer on x*_S, epoch 5",
            "student of the peer on x*_S, epoch 4",
        ),
        (
            "On training images, too, the fixed teacher's accuracy on its student's adversarial examples falls.",
            "teacher on x*_S, epoch 1",
            "teacher on x*_S, mean of epochs 4 to 5",
        ),
    ]


def test_figure_3_without_a_drop_of_the_learning_rate():
    found = figure_3()
    assert len(found) == 8
    assert found[6][0].startswith("After 71 % of the epochs (the paper's first drop), the robust accuracy on training")
    assert found[6][2:] == ("student of the peer on x*_S, epoch 5", "student of the peer on x*_S, epoch 4")


def test_figure_4(uniform):
    profiles = {
        name: [uniform(3, 5, 6, low=low, high=low + 1)]
        for low, name in enumerate(("PGD-AT", "TRADES", "PeerAiD", "PeerAiD, not averaged"))
    }
    found = stated(fig4.check_claims(fig4.Landscape((-0.5, -0.25, 0.0, 0.25, 0.5), profiles, (0.0,), {}, 2)))
    assert found == [
        (
            f"The loss landscape of {other} is sharper than that of {own}.",
            "PeerAiD, Figure 4 and section 4.8",
            f"{other}, mean rise of the adversarial loss",
            f"{own}, mean rise of the adversarial loss",
        )
        for own in ("PeerAiD", "PeerAiD, not averaged")
        for other in ("PGD-AT", "TRADES")
    ]


def test_figure_5(uniform):
    scores = {
        name: {
            examples: [Scores(0.1 + i / 10 + j / 50, 0.1 + i / 10 + uniform(50).numpy() / 9, 30)]
            for j, examples in enumerate(("natural", "student"))
        }
        for i, name in enumerate(("PGD-AT", "peer", "TRADES"))
    }
    assert stated(fig5.check_claims(fig5.Embedding(None, scores))) == [
        (
            f"The peer separates the classes of {images} better than the fixed teacher ({teacher}).",
            "PeerAiD, Figure 5 and section 4.9",
            f"peer, silhouette of {images}",
            f"{teacher}, silhouette of {images}",
        )
        for teacher in ("PGD-AT", "TRADES")
        for images in ("natural images", "x*_S")
    ]


def test_figure_6(uniform):
    values = {name: {measure: [uniform(N)] for measure in MEASURES} for name in ("student", "peer", "natural")}
    measured = fig6.SemanticGradients(values, torch.tensor([0]), torch.zeros(1, 1, 2, 2), ("0",), {})
    place = "PeerAiD, Figure 6 and section 4.10"
    assert stated(fig6.check_claims(measured)) == [
        (
            "The natural network's gradient is spread over more of the image than the student's.",
            place,
            "student: Concentration on few pixels (Gini index)",
            "natural: Concentration on few pixels (Gini index)",
        ),
        (
            "The student's gradient follows what is in the image, more than the natural network's.",
            place,
            "student: Alignment with the image (cosine)",
            "natural: Alignment with the image (cosine)",
        ),
        (
            "The peer's gradient has a pattern similar to the student's, though the peer is not robust itself.",
            place,
            "peer: Likeness to the student's map (cosine)",
            "natural: Likeness to the student's map (cosine)",
        ),
    ]


def test_figure_11(uniform):
    nats = {name: {1: [uniform(N)], 3: [uniform(N)]} for name in ("AKD-Std", "AKD-AT", "Natural", "PGD-AT")}
    assert stated(fig11.check_claims(fig11.EntropyCurves(nats, 10))) == [
        (
            f"At the end, AKD's student is less sure of its answers on training images than its {teacher} one.",
            "RKD, Figure 5 and section C.2",
            f"{student}, mean entropy",
            f"{teacher}, mean entropy",
        )
        for student, teacher in (("AKD-Std", "Natural"), ("AKD-AT", "PGD-AT"))
    ]


ALIKE = "Student and teacher develop more alike on easy images than on hard ones"
UNLIKE = "Student and teacher develop less alike under attack"
SURER = "AKD's student is surer of the correct class than its teacher"
UNSURE = "AKD's student is less sure of the correct class than its teacher"
BETTER = "Stopping the teacher early, at epoch 5, makes the student surer of the correct class"
WORSE = "Stopping the teacher early, at epoch 5, makes the student less sure of the correct class"
HELPS = "Labels mixed in, at alpha 0.3, make the student surer of the correct class"
MORE = "Labels mixed in, at alpha 0.3, do more for hard images than for easy ones"
CORRECTS = "Labels mixed in, at alpha 0.3, make the student right more often"
P_S, P_T, COSINE, GAIN = "p_S,K", "p_T,K", "cosine", "p_S,K - p_T,K"
EARLY, STOPPING = "p_S,K of the early teacher's student", "p_S,K gained by stopping early"
MIXED, MIXING = "p_S,K with labels mixed in", "p_S,K gained by mixing labels in"
RIGHT, RIGHT_MIXED = "accuracy", "accuracy with labels mixed in"
ROBUST, NATURAL = "PGD-AT teacher", "Natural teacher"
CLEAN, ATTACKED = "natural images", "adversarial images"
EASY, HARD, REST = "easiest third", "hardest third", "all but the hardest third"
FIGURES_6_TO_17 = [  # figure, sentence, its conditions, the higher quantity and its own, the lower quantity and its own
    *(
        ("Figure 6", ALIKE, (ROBUST, images), COSINE, (ROBUST, images, EASY), COSINE, (ROBUST, images, HARD))
        for images in (CLEAN, ATTACKED)
    ),
    ("Figure 6", UNLIKE, (ROBUST, HARD), COSINE, (ROBUST, CLEAN, HARD), COSINE, (ROBUST, ATTACKED, HARD)),
    *(
        (figure, text, (teacher, images, part), higher, (teacher, images, part), lower, (teacher, images, part))
        for figure, text, teacher, images, part, higher, lower in (
            ("Figure 7", SURER, ROBUST, ATTACKED, HARD, P_S, P_T),
            ("Figure 7", UNSURE, ROBUST, ATTACKED, EASY, P_T, P_S),
            ("Figure 10", SURER, ROBUST, CLEAN, HARD, P_S, P_T),
            ("Figure 10", UNSURE, ROBUST, CLEAN, EASY, P_T, P_S),
        )
    ),
    (
        "Figures 7 and 10",
        "AKD's student gains more under attack",
        (ROBUST, HARD),
        GAIN,
        (ROBUST, ATTACKED, HARD),
        GAIN,
        (ROBUST, CLEAN, HARD),
    ),
    *(
        ("Figure 11", text, (ROBUST, images, part), higher, (ROBUST, images, part), lower, (ROBUST, images, part))
        for text, part, higher, lower in ((BETTER, HARD, EARLY, P_S), (WORSE, REST, P_S, EARLY))
        for images in (CLEAN, ATTACKED)
    ),
    (
        "Figure 11",
        "Stopping the teacher early does less harm under attack",
        (ROBUST,),
        STOPPING,
        (ROBUST, ATTACKED),
        STOPPING,
        (ROBUST, CLEAN),
    ),
    *(
        ("Figure 12", HELPS, where, MIXED, where, P_S, where)
        for where in ((ROBUST, CLEAN), (ROBUST, CLEAN, EASY), (ROBUST, ATTACKED), (ROBUST, ATTACKED, EASY))
    ),
    *(
        ("Figure 12", MORE, (ROBUST, images), MIXING, (ROBUST, images, HARD), MIXING, (ROBUST, images, EASY))
        for images in (CLEAN, ATTACKED)
    ),
    *(
        ("Figure 13", ALIKE, (NATURAL, images), COSINE, (NATURAL, images, EASY), COSINE, (NATURAL, images, HARD))
        for images in (CLEAN, ATTACKED)
    ),
    ("Figure 13", UNLIKE, (NATURAL,), COSINE, (NATURAL, CLEAN), COSINE, (NATURAL, ATTACKED)),
    ("Figure 14", SURER, (NATURAL, CLEAN, HARD), P_S, (NATURAL, CLEAN, HARD), P_T, (NATURAL, CLEAN, HARD)),
    ("Figure 14", UNSURE, (NATURAL, CLEAN, EASY), P_T, (NATURAL, CLEAN, EASY), P_S, (NATURAL, CLEAN, EASY)),
    (
        "Figures 14 and 10",
        "AKD's student gains more with a Natural teacher",
        (CLEAN, HARD),
        GAIN,
        (NATURAL, CLEAN, HARD),
        GAIN,
        (ROBUST, CLEAN, HARD),
    ),
    *(
        (figure, text, where, higher, where, lower, where)
        for figure, text, where, higher, lower in (
            ("Figure 15", SURER, (NATURAL, ATTACKED, EASY), P_S, P_T),
            ("Figure 15", SURER, (NATURAL, ATTACKED, HARD), P_S, P_T),
            ("Figure 16a", WORSE, (NATURAL, CLEAN, HARD), P_S, EARLY),
            ("Figure 16b", BETTER, (NATURAL, ATTACKED, EASY), EARLY, P_S),
            ("Figure 17", HELPS, (NATURAL, CLEAN), MIXED, P_S),
            ("Figure 17", HELPS, (NATURAL, CLEAN, EASY), MIXED, P_S),
        )
    ),
    ("Figure 17", MORE, (NATURAL, CLEAN), MIXING, (NATURAL, CLEAN, HARD), MIXING, (NATURAL, CLEAN, EASY)),
    *(
        (figure, text, where, higher, where, lower, where)
        for figure, text, where, higher, lower in (
            ("Figure 17", CORRECTS, (NATURAL, ATTACKED), RIGHT_MIXED, RIGHT),
            ("Figure 12", f"{HELPS} than at 0.7", (ROBUST, CLEAN), MIXED, "p_S,K at alpha 0.7"),
            ("Figure 12", f"{HELPS} than at 0.7", (ROBUST, ATTACKED), MIXED, "p_S,K at alpha 0.7"),
            ("Figure 17", f"At alpha 0.7, too, {SURER}", (NATURAL, ATTACKED), "p_S,K at alpha 0.7", P_T),
        )
    ),
]


def test_figures_6_to_17(uniform):
    level = iter(range(100))

    def values(rising=True):
        return [uniform(N) * 0.2 + torch.linspace(0, 0.5, N) * (1 if rising else -1) + next(level) % 5 / 50 + 0.1]

    answered = {
        teacher: {
            images: Answers(values(), values(), values(), {0.3: values(), 0.7: values()}, values(), 5)
            for images in ("natural", "adversarial")
        }
        for teacher in ("PGD-AT", "Natural")
    }
    found = stated(fig12.check_claims(Trajectories(agreed(torch.arange(N).flip(0) / N), answered)))

    def claim(figure, text, conditions, higher, of_higher, lower, of_lower):
        sentence = f"{text} ({', '.join(conditions)})."
        return sentence, f"RKD, {figure}", f"{higher} ({', '.join(of_higher)})", f"{lower} ({', '.join(of_lower)})"

    where = "(Natural teacher, adversarial images)"
    limits = [
        (
            f"AKD by itself corrects no misclassification {where}.",
            "RKD, Figure 15",
            "a slight correction",
            f"accuracy, student minus teacher {where}",
        ),
        *(
            (f"At alpha {alpha} a student is not robust {where}.", "RKD, Figure 17", "guessing", f"accuracy {where}")
            for alpha in ("0.7", "1")
        ),
    ]
    assert found == [AGREEMENT, *[claim(*row) for row in FIGURES_6_TO_17], *limits]


AGREEMENT = (
    "The trainings agree on which images are hard, so that they can be ranked.",
    "no claim of RKD, which ranks by one training (eq. 8)",
    "reliability of the mean rank over 2 trainings",
    "enough to rank by",
)


def test_figures_8_and_9():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 4, 4), dtype=torch.uint8, generator=random)
    difficulty = agreed(torch.rand(24, generator=random))
    ranking = fig13.Ranking(Split(images, torch.arange(24) % 2), ("airplane", "automobile"), difficulty)
    closer = "closer to their own class's mean image than to the nearest other's, compared with hard ones"
    looks = {
        "airplane": ("lighter than hard ones", "bluer than hard ones", "simpler than hard ones"),
        "automobile": ("darker than hard ones", "redder than hard ones", "busier than hard ones"),
    }
    assert stated(fig13.check_claims(ranking)) == [
        AGREEMENT,
        *(
            (
                f"Images of class {name} that are easy to learn are {look}.",
                "RKD, Figures 8 and 9, section D",
                f"{name}, easiest third",
                f"{name}, hardest third",
            )
            for name, by_look in looks.items()
            for look in (closer, *by_look)
        ),
    ]


def test_table_1():
    hits = {name: {"clean": 20 + i, "autoattack": 9 + i} for i, name in enumerate(tab1.METHODS)}
    found = tab1.check_claims(white_box({**hits, "Natural": {"clean": 38, "autoattack": 0}}))
    assert stated(found) == [
        (
            "PeerAiD has the highest AutoAttack accuracy.",
            "PeerAiD, Table 1 and section 4.2",
            "PeerAiD, AutoAttack accuracy",
            "AdaAD, AutoAttack accuracy",
        ),
        (
            "PeerAiD has the highest clean accuracy of the adversarial distillation methods.",
            "PeerAiD, Table 1 and section 4.2",
            "PeerAiD, clean accuracy",
            "AdaAD, clean accuracy",
        ),
        (
            "Natural training gives no robustness: its AutoAttack accuracy is below guessing.",
            "PeerAiD, Table 1",
            "guessing",
            "Natural, AutoAttack accuracy",
        ),
    ]
    assert [claim.confidence for claim in found] == [0.95] * 3, "PeerAiD is ahead of all, though not for sure"
    behind = tab1.check_claims(white_box({**hits, "PeerAiD": {"clean": 9, "autoattack": 8}}))
    assert [claim.confidence for claim in behind] == [pytest.approx(1 - 0.05 / 8), pytest.approx(1 - 0.05 / 5), 0.95]


def test_table_2(uniform):
    hits = iter(range(9, 40))
    measured = {
        guide: {
            **{quantity: [right(next(hits))] for quantity in tab2.ACCURACIES},
            **{quantity: [uniform(N)] for quantity in tab2.COSINES},
        }
        for guide in ("peer", "teacher", "natural")
    }
    peer, teacher, natural = "f being the peer", "f being the fixed robust teacher", "f being the natural teacher"
    found = stated(tab2.check_claims(tab2.Guidance(measured, 10)))
    assert {source for _, source, *_ in found} == {"PeerAiD, Table 2 and section 4.4"}
    assert [(text, higher, lower) for text, _, higher, lower in found] == [
        (
            "The peer is more accurate on its student's adversarial examples than the fixed robust teacher.",
            f"f(x*_S), {peer}",
            f"f(x*_S), {teacher}",
        ),
        (
            "On adversarial examples made against itself, the peer is less robust than the fixed robust teacher.",
            f"f(x*_f), {teacher}",
            f"f(x*_f), {peer}",
        ),
        (
            "The peer itself is not robust at all: below guessing on its own adversarial examples.",
            "guessing",
            f"f(x*_f), {peer}",
        ),
        (
            "A student taught by the peer is more robust than one taught by the fixed robust teacher.",
            f"S(x*_S), {peer}",
            f"S(x*_S), {teacher}",
        ),
        (
            "The peer's features at x and x*_S are closer than the natural teacher's.",
            f"cos(f(x), f(x*_S)), {peer}",
            f"cos(f(x), f(x*_S)), {natural}",
        ),
        (
            "The peer has a higher accuracy on natural images than the fixed robust teacher.",
            f"f(x), {peer}",
            f"f(x), {teacher}",
        ),
        (
            "The peer's accuracy on natural images is even above the natural teacher's.",
            f"f(x), {peer}",
            f"f(x), {natural}",
        ),
        (
            "The peer's cosine similarity between x and x*_S is comparable to the robust teacher's: above the midway "
            "between that and the natural teacher's.",
            f"cos(f(x), f(x*_S)), {peer}",
            "midway between the two teachers",
        ),
        (
            "The peer's features at x are closer to those at its student's adversarial examples than at its own.",
            f"cos(f(x), f(x*_S)), {peer}",
            f"cos(f(x), f(x*_f)), {peer}",
        ),
    ]


def test_table_3():
    names = [name for method in tab3.METHODS for name in (method, f"{method} + SWA")]
    hits = {name: {"clean": 9 + i, "pgd-20": 7 + i, "autoattack": 5 + i} for i, name in enumerate(names)}
    place = "PeerAiD, Table 3 and section 4.5"
    gains = ("PGD-AT", "TRADES", "RSLAD", "IAD", "AdaAD", "PeerAiD")
    assert stated(tab3.check_claims(white_box(hits))) == [
        (
            "PeerAiD without SWA has a higher clean accuracy than the baselines with SWA.",
            place,
            "PeerAiD, clean accuracy",
            "AdaAD + SWA, clean accuracy",
        ),
        (
            "PeerAiD without SWA is more robust (AutoAttack) than the baselines with SWA.",
            place,
            "PeerAiD, AutoAttack accuracy",
            "AdaAD + SWA, AutoAttack accuracy",
        ),
        *(
            (f"SWA makes {m} more robust.", place, f"{m} + SWA, PGD-20 accuracy", f"{m}, PGD-20 accuracy")
            for m in gains
        ),
        (
            "SWA does not make CAT more robust, but less.",
            place,
            "CAT, PGD-20 accuracy",
            "CAT + SWA, PGD-20 accuracy",
        ),
    ]


def test_tables_4_and_5():
    larger = {name: {"clean": 20 + i, "autoattack": 9 + i} for i, name in enumerate(tab4.METHODS)}
    two = {"RSLAD": {"clean": 25, "autoattack": 12}, "PeerAiD": {"clean": 30, "autoattack": 14}}
    others = "compared with AKD2, RSLAD, IAD, CAT, AdaAD."
    assert stated(tab4.check_claims(white_box(larger), white_box(two))) == [
        (
            f"With a larger guide, PeerAiD's student has the highest AutoAttack accuracy, {others}",
            "PeerAiD, Table 4 and section 4.6",
            "PeerAiD, AutoAttack accuracy",
            "AdaAD, AutoAttack accuracy",
        ),
        (
            f"With a larger guide, PeerAiD's student has the highest clean accuracy, {others}",
            "PeerAiD, Table 4 and section 4.6",
            "PeerAiD, clean accuracy",
            "AdaAD, clean accuracy",
        ),
        (
            "With MobileNetV2, PeerAiD's student has the highest AutoAttack accuracy, compared with RSLAD.",
            "PeerAiD, Table 5 and section 4.6",
            "PeerAiD, AutoAttack accuracy",
            "RSLAD, AutoAttack accuracy",
        ),
        (
            "With MobileNetV2, PeerAiD's trade-off is better than the runner-up's (RSLAD): it is more accurate, too.",
            "PeerAiD, Table 5 and section 4.6",
            "PeerAiD, clean accuracy",
            "RSLAD, clean accuracy",
        ),
    ]


def test_table_6():
    hits = {
        name: {"fgsm from resnet34": 20 + i, "pgd-20 from mobilenetv2": 9 + i} for i, name in enumerate(tab5.METHODS)
    }
    assert stated(tab5.check_claims(white_box(hits))) == [
        (
            f"PeerAiD has the highest accuracy of all methods under {attack}, a transferred attack.",
            "PeerAiD, Table 6 and section 4.7",
            f"PeerAiD, accuracy under {attack}",
            f"AdaAD, accuracy under {attack}",
        )
        for attack in ("FGSM from resnet34", "PGD-20 from mobilenetv2")
    ]


def test_table_7():
    hits = {"fgsm": 30, "pgd-10": 24, "pgd-20": 23, "pgd-1000": 21, "square": 27, "unbounded": 1}
    found = tab6.check_claims(white_box({"PeerAiD": hits}), attacks.PGD(0.1, 0.025, 20))
    # the first claim's lower quantity is itself a difference, as it says
    assert stated(found) == [
        (
            "A hundred times as many steps change little: PGD-1000 takes less than 5 points more.",
            "PeerAiD, Table 7 and section 4.7",
            "what counts as similar",
            "accuracy under PGD-10 minus PGD-1000",
        ),
        (
            "The unbounded attack reaches 0 %: the accuracy is below guessing.",
            "PeerAiD, Table 7 and section 4.7",
            "guessing",
            "accuracy under the unbounded attack",
        ),
        (
            "One step is a weaker attack than PGD-20.",
            "PeerAiD, section 4.7",
            "accuracy under FGSM",
            "accuracy under PGD-20",
        ),
        (
            "An attack that sees no gradients (Square) is weaker than one that does.",
            "PeerAiD, section 4.7; Athalye et al. 2018, section 3.1",
            "accuracy under Square",
            "accuracy under PGD-1000",
        ),
    ]
    assert found[0].higher.estimate.value == 0.05
    assert found[0].lower.estimate.value == pytest.approx(3 / 40)


def test_table_7s_attacks():
    usual = attacks.PGD(0.1, 0.025, 20, iterate="any")
    by_metric = tab6.obfuscation_attacks(usual)
    iterated = [f"pgd-{steps} (any iterate)" for steps in (10, 20, 1000)]
    assert list(by_metric) == ["fgsm", *iterated, "square", "unbounded"]
    assert [by_metric[name] for name in iterated] == [
        attacks.PGD(0.1, 0.025, steps, iterate="any") for steps in (10, 20, 1000)
    ]
    assert (by_metric["fgsm"].eps, by_metric["square"].eps) == (0.1, 0.1)
    unbounded = by_metric["unbounded"]
    assert (unbounded.eps, unbounded.steps, unbounded.step_size) == (1.0, 1000, 0.025), "pixels are in [0, 1]"
    assert (unbounded.start, unbounded.iterate) == ("none", "any"), "it starts from the image"


RKD_TEACHER = {"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": "exponential", "gamma": 0.9, "attack_steps": 7}
"""RKD, appendix A."""
OWN_SCHEDULE = {"without_recipe": ("PGD-AT", "TRADES")}
BY_APPENDIX = {**RKD_TEACHER, **OWN_SCHEDULE}
ALL_IMAGES = {"n_train": None, "n_val": 0, "n_test": None, "snapshot_every": 1}
TWO_DIGITS = {"select_on": "last", "dataset": "digits:3,8", "eps": 0.15, **ALL_IMAGES}
TWO_PHOTOGRAPHS = {"select_on": "last", "dataset": "cifar10:airplane,automobile", **ALL_IMAGES}
TWO_CLASSES = {
    "smoke": TWO_DIGITS, "quick": TWO_DIGITS, "small": TWO_PHOTOGRAPHS, "paper": {**BY_APPENDIX, **TWO_PHOTOGRAPHS}
}  # fmt: skip
LAST = {"select_on": "last"}
BY_TRADES = {"teacher_method": "TRADES"}
RKD = {"smoke": LAST, "quick": LAST, "small": LAST, "paper": {**LAST, **BY_APPENDIX}}
OF_RKD = ("select_on", "teacher_method", "peer")
PLUS = ("AKD+", "RSLAD+", "ARD+")
ARD = {
    "smoke": {"teacher_method": "TRADES", "student": "mobilenetv2/16", "teacher": "resnet18/16", "attack_steps": 3},
    "quick": {"teacher_method": "TRADES", "student": "mobilenetv2/4", "teacher": "resnet18/4"},
    "small": {"teacher_method": "TRADES", "student": "mobilenetv2/4", "teacher": "resnet18/4"},
    "paper": {
        **{"teacher_method": "TRADES", "student": "mobilenetv2", "teacher": "wrn-34-10"},
        **{"epochs": 200, "milestones": (100, 150)},
        **OWN_SCHEDULE,
    },
}
WIDTHS = {**RKD, "smoke": {**LAST, "student": "resnet18/8"}}
TWICE_AS_WIDE = {"student": "resnet18/8", "teacher": "resnet18/4", "peer": "resnet18/4"}
SIX = ("AKD2", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
EXHIBITS = {
    "fig1_peer_vs_teacher": Exhibit(paper="PeerAiD, Figure 1"),
    "fig2_method_overview": Exhibit(paper="PeerAiD, Figure 2; ARD, Figure 1", unused=FIELDS, needs=1, trains=()),
    "fig3_peer_tutoring": Exhibit(paper="PeerAiD, Figure 3", differs={"paper": {"dataset": "cifar100"}}),
    "fig4_loss_landscape": Exhibit(
        paper="PeerAiD, Figure 4",
        differs={"": BY_TRADES, "paper": {"dataset": "cifar100", "student": "wrn-34-10"}},
        unused=("test_steps", "test_iterate"),
        needs=32,
        compares=("PGD-AT", "TRADES", "PeerAiD"),
    ),
    "fig5_tsne": Exhibit(
        paper="PeerAiD, Figure 5",
        unused=("teacher_method", "n_autoattack"),
        compares=("PGD-AT", "TRADES"),
        slots=(),
    ),
    "fig6_semantic_gradients": Exhibit(
        paper="PeerAiD, Figure 6",
        differs={"": LAST, "paper": {"dataset": "tiny_imagenet"}},
        unused=("select_on", "teacher", "teacher_method", "test_steps", "test_iterate", "n_autoattack"),
        needs=2,
    ),
    "fig7_decision_boundaries": Exhibit(
        paper="ARD, Figure 2",
        differs={
            "": {
                **{"dataset": "scattered", "student": "mlp-5", "teacher": "mlp-10", "teacher_method": "PGD-AT"},
                **{"n_train": None, "n_val": 0, "n_test": None, "select_on": "last", "recipes": False},
                **{"epochs": 500, "batch_size": 32, "lr": 0.02, "schedule": "onecycle", "milestones": ()},
                **{"swa_start": None, "snapshot_every": 500, "precision": "float32"},
            },
            "smoke": {"epochs": 20},
        },
        unused=("peer", "select_on", "n_val", "n_test", "n_autoattack", "swa_start", "recipes"),
        trains=("Natural", "PGD-AT", "KD", "ARD"),
    ),
    "fig11_entropy": Exhibit(
        paper="RKD, Figure 5",
        differs={"smoke": LAST, "quick": LAST, "small": LAST, "paper": {**LAST, **BY_APPENDIX}},
        unused=("select_on", "teacher_method", "peer", "n_test", "test_steps", "test_iterate", "n_autoattack"),
        needs=1,
        trains=("PGD-AT", "Natural", "AKD"),
        compares=("AKD",),
        slots=("T",),
    ),
    "fig12_trajectories": Exhibit(
        paper="RKD, Figures 6, 7 and 10 to 17",
        differs=TWO_CLASSES,
        unused=("select_on", "teacher_method", "peer", "n_autoattack"),
        needs=6,
        trains=("PGD-AT", "Natural", "AKD"),
    ),
    "fig13_sample_difficulty": Exhibit(
        paper="RKD, Figures 8 and 9",
        differs=TWO_CLASSES,
        unused=("select_on", "teacher_method", "peer", "test_steps", "test_iterate", "n_autoattack"),
        needs=1,
        trains=("Natural",),
    ),
    "tab1_white_box": Exhibit(
        paper="PeerAiD, Table 1", differs={"": BY_TRADES}, compares=("Natural", "PGD-AT", "TRADES", *SIX), fewest=2
    ),
    "tab2_peer_robustness": Exhibit(paper="PeerAiD, Table 2", differs={"paper": {"dataset": "cifar100"}}, needs=2),
    "tab3_weight_averaging": Exhibit(
        paper="PeerAiD, Table 3",
        differs={"": BY_TRADES, "paper": {"dataset": "tiny_imagenet"}},
        compares=("Natural", "PGD-AT", "TRADES", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD"),
    ),
    "tab4_teacher_architecture": Exhibit(
        paper="PeerAiD, Tables 4 and 5",
        differs={
            "": BY_TRADES,
            "smoke": {"student": "resnet18/16", "teacher": "resnet18/8", "peer": "resnet18/8"},
            "quick": TWICE_AS_WIDE,
            "small": TWICE_AS_WIDE,
            "paper": {"dataset": "cifar100", "student": "resnet18", "teacher": "wrn-34-10", "peer": "wrn-34-10"},
        },
        compares=SIX,
        fewest=2,
    ),
    "tab5_transfer_attacks": Exhibit(
        paper="PeerAiD, Table 6",
        differs={"": BY_TRADES, "paper": {"dataset": "cifar100"}},
        compares=("PGD-AT", "TRADES", *SIX),
        fewest=2,
    ),
    "tab6_gradient_obfuscation": Exhibit(
        paper="PeerAiD, Table 7",
        differs={"": BY_TRADES, "smoke": {"n_test": 16}, "quick": {"n_test": 256}, "small": {"n_test": 800}},
        unused=("n_autoattack",),
        compares=("PeerAiD",),
    ),
    "tab9_fast_ard": Exhibit(
        paper="ARD, Tables 9 and 10",
        differs={profile: profiles.ard(profile) for profile in ("smoke", "quick", "small", "paper")},
        unused=("teacher_method", "peer", "n_autoattack"),
        trains=("PGD-AT", "TRADES", "KD", "ARD", "Free-AT", "Fast-ARD"),
        times=True,
    ),
    "tab10_attack_suite": Exhibit(
        paper="ARD, Table 11",
        differs={
            "smoke": {**profiles.ard("smoke"), "n_test": 64},
            "quick": profiles.ard("quick"),
            "small": {**profiles.ard("small"), "n_test": 400},
            "paper": profiles.ard("paper"),
        },
        unused=("teacher_method", "peer", "n_autoattack"),
        trains=("PGD-AT", "TRADES", "ARD", "Free-AT", "Fast-ARD"),
        compares=("PGD-AT", "ARD", "Free-AT", "Fast-ARD"),
    ),
    "fig8_early_stopping_label_mixing": Exhibit(
        paper="RKD, Figures 1 and 4", differs=RKD, unused=OF_RKD, trains=("Natural", "PGD-AT", "AKD", *PLUS)
    ),
    "fig9_teacher_robustness": Exhibit(
        paper="RKD, Figure 2", differs=RKD, unused=OF_RKD, trains=("Natural", "PGD-AT", "AKD", *PLUS)
    ),
    "fig10_ensemble_mixing": Exhibit(
        paper="RKD, Figure 3", differs=RKD, unused=OF_RKD, trains=("Natural", "PGD-AT", "AKD+")
    ),
    "tab7_clean_distillation": Exhibit(
        paper="ARD, Tables 1 to 5",
        differs=ARD,
        unused=("teacher_method", "peer", "n_autoattack"),
        needs=2,
        trains=("Natural", "PGD-AT", "TRADES", "KD", "ARD"),
    ),
    "tab8_ard": Exhibit(
        paper="ARD, Tables 6 to 8",
        differs=ARD,
        unused=("teacher_method", "peer", "n_autoattack"),
        trains=("PGD-AT", "TRADES", "KD", "ARD"),
    ),
    "tab12_capacity": Exhibit(
        paper="RKD, Tables 2 and 9",
        differs=WIDTHS,
        unused=("select_on", "teacher_method", "teacher", "peer"),
        trains=("PGD-AT", *PLUS),
    ),
    "tab13_teacher_training": Exhibit(
        paper="RKD, Tables 3, 4 and 11",
        differs=RKD,
        unused=("select_on", "teacher_method", "teacher", "peer"),
        trains=("Natural", "FFGSM-AT", "Low-eps AT", "PGD-AT", "TRADES", "AKD", "AKD+", "RSLAD+"),
    ),
    "tab14_teacher_ensembles": Exhibit(
        paper="RKD, Tables 5, 10 and 12",
        differs=RKD,
        unused=OF_RKD,
        trains=("Natural", "FFGSM-AT", "PGD-AT", "AKD+", "RSLAD+"),
    ),
    "tab15_synthetic_data": Exhibit(
        paper="RKD, Tables 1, 6, 7 and 8",
        differs=RKD,
        unused=("select_on", "teacher_method", "teacher", "peer"),
        trains=("PGD-AT", "Low-eps AT", "FFGSM-AT", "AKD", "AKD+", "RSLAD+", "ARD+"),
    ),
    "tab16_paper_or_code": Exhibit(
        paper="the kit's own",
        differs={"": BY_TRADES},
        unused=("n_autoattack",),
        trains=("TRADES", "AKD2", "ARD", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD"),
    ),
    "tab11_model_cost": Exhibit(
        paper="ARD, section 6", unused=tuple(field for field in FIELDS if field != "student"), trains=(), times=True
    ),
}


@pytest.mark.parametrize("name", exhibits.NAMES)
def test_an_exhibits_scale_and_what_it_uses(name):
    assert dataclasses.replace(exhibits.get(name), own={}) == EXHIBITS[name]


def test_a_claim_that_a_quantity_is_below_a_number():
    own = claims.Estimate(0.3, 0.25, 0.4, 50, 3)
    higher, lower, difference = claims.below(0.5, "half", claims.Quantity("ours", own))
    assert (higher.name, higher.estimate) == ("half", claims.Estimate(0.5, 0.5, 0.5, 50, 3))
    assert (lower.name, lower.estimate) == ("ours", own)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.2, 0.1, 0.25))
    assert claims.below_guessing(lower, 4)[0] == claims.Quantity("guessing", claims.Estimate(0.25, 0.25, 0.25, 50, 3))
