"""The table of training methods: what the attack maximises, what the update minimises, and which networks guide.

A row is data, not code, so the same row trains a network, prints its formula and draws its overview. To add your own
method, add a row: ``METHODS["mine"] = Method(...)``; ``docs/methods.md`` shows an example. `grammar` defines the parts
of a row, `notation` how its points and weights are written.
"""

from dataclasses import replace
from typing import Any

from rkdkit.methods.grammar import Maximised, Method, Term
from rkdkit.methods.variants import with_label_mixing

RKD_TEACHER = {"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": "exponential", "gamma": 0.9, "attack_steps": 7}
"""How RKD trains every fixed teacher, with any method (RKD appendix A); fields of a profile."""

_ON_LABELS = Maximised("CE", "y", "S(x~)")
_RKD_STUDENT = {"epochs": 100, "batch_size": 256, "lr": 0.21, "schedule": "onecycle", "attack_steps": 7}
_ELEMENT_MEAN = (
    "The paper's KL is a sum over classes; the released code's KL is a mean over batch and classes, which is 1/C of "
    "the sum, and the code's weights are tuned for it. kl_reduction 'mean' is the code's KL, 'batchmean' the "
    "paper's."
)


def _multistep(epochs: int, *milestones: int, **fields: Any) -> dict[str, Any]:
    return {"epochs": epochs, "lr": 0.1, "schedule": "multistep", "milestones": milestones, **fields}


METHODS: dict[str, Method] = {
    "Natural": Method(
        title="Natural",
        source="ordinary training",
        minimises=(Term("CE", "y", "S(x)"),),
    ),
    "PGD-AT": Method(
        title="PGD-AT",
        source="Madry et al. 2018; PeerAiD eq. 1",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
    ),
    "Low-eps AT": Method(
        title="Low-eps AT",
        source="RKD section 3.4 and Table 4: PGD-AT at 2/255 where 8/255 is tested",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
        recipe=RKD_TEACHER,
        differences="RKD's section 3 trains with batches of 256, its appendix A trains teachers with batches of 128; "
        "here it is 128. The step size is not stated; here it stays 2/255. There is no released code.",
        eps_factor=0.25,
    ),
    "FFGSM-AT": Method(
        title="FFGSM-AT",
        source="Wong et al. 2020",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
        recipe={k: v for k, v in RKD_TEACHER.items() if k != "attack_steps"},
        one_step=1.25,
    ),
    "Free-AT": Method(
        title="Free-AT",
        source="Shafahi et al. 2019; ARD Table 9",
        minimises=(Term("CE", "y", "S(x*)"),),
        settings={"m": 4},
        recipe=_multistep(200, 100, 150),
        free=True,
        one_step=1.0,
    ),
    "TRADES": Method(
        title="TRADES",
        source="Zhang et al. 2019",
        maximises=(Maximised("KL", "S(x)", "S(x~)", start="gaussian"),),
        minimises=(Term("CE", "y", "S(x)"), Term("KL", "S(x)", "S(x*)", weight="beta")),
        settings={"beta": 6.0, "kl_reduction": "batchmean"},
        differences="The KL's gradient also reaches S(x), as in the released code. ARD's tables do not state the "
        "beta of their TRADES (1/lambda there); public re-runs with beta 6 are less accurate and more robust.",
    ),
    "KD": Method(
        title="KD",
        source="Hinton et al. 2015; ARD eq. 2; CKD of RKD eq. 1",
        minimises=(
            Term("CE", "y", "S(x)", weight="1-l"),
            Term("KL", "T(x)", "S(x)", weight="l", tau="tau"),
        ),
        settings={"l": 1.0, "tau": 30.0, "kl_reduction": "mean"},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=_multistep(200, 100, 150),
        differences=_ELEMENT_MEAN,
    ),
    "ARD": Method(
        title="ARD",
        source="Goldblum et al. 2020, eq. 3 and Algorithm 1",
        maximises=(_ON_LABELS,),
        minimises=(
            Term("KL", "T(x)", "S(x*)", weight="alpha", tau="tau"),
            Term("CE", "y", "S(x)", weight="1-alpha"),
        ),
        settings={"alpha": 1.0, "tau": 30.0, "kl_reduction": "mean"},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=_multistep(200, 100, 150),
        differences=_ELEMENT_MEAN,
    ),
    "Fast-ARD": Method(
        title="Fast-ARD",
        source="Goldblum et al. 2020, Algorithm 2",
        minimises=(
            Term("KL", "T(x)", "S(x*)", weight="alpha", tau="tau"),
            Term("CE", "y", "S(x)", weight="1-alpha"),
        ),
        settings={"alpha": 1.0, "tau": 30.0, "kl_reduction": "mean", "m": 4},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=_multistep(200, 100, 150),
        differences=f"{_ELEMENT_MEAN} The paper's Algorithm 2 perturbs along the gradient of the cross entropy; its "
        "text says the gradient of the update's loss, in one backward pass. Here it is the text's.",
        free=True,
        one_step=1.0,
    ),
    "RSLAD": Method(
        title="RSLAD",
        source="Zi et al. 2021; RKD eq. 3",
        maximises=(Maximised("KL", "T(x)", "S(x~)", start="gaussian"),),
        minimises=(
            Term("KL", "T(x)", "S(x*)", weight="l"),
            Term("KL", "T(x)", "S(x)", weight="1-l"),
        ),
        settings={"l": 5 / 6, "kl_reduction": "batchmean"},
        recipe=_multistep(300, 215, 260, 285, weight_decay=2e-4),
        differences="The authors warn of the KL's reduction in their released code, which is a mean over batch and "
        "classes (kl_reduction 'mean'); 'batchmean' is the paper's.",
    ),
    "AKD": Method(
        title="AKD",
        source="RKD eq. 4 and appendix A",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "T(x*)", "S(x*)"),),
        recipe=_RKD_STUDENT,
        differences="RKD's section 3 gives lr 0.1 for its students, its appendix A a highest lr of 0.21; here it is "
        "0.21. There is no released code.",
    ),
    "IAD": Method(
        title="IAD",
        source="Zhu et al. 2022 (IAD-I)",
        maximises=(_ON_LABELS,),
        minimises=(
            Term("KL", "T(x)", "S(x*)", tau="tau", certainty="teacher_weight"),
            Term("KL", "S(x)", "S(x*)", tau="tau", certainty="1-a"),
        ),
        settings={"beta": 0.1, "warmup": 0.3, "tau": 1.0, "teacher_weight": "a", "kl_reduction": "batchmean"},
        recipe=_multistep(200, 100, 150, batch_size=128, weight_decay=2e-4),
        differences="a = T(x*)[y]^beta, but a = 1 in the first share `warmup` of the epochs, 60 of 200. The paper "
        "weights the teacher's term by a; the released code does not (teacher_weight '1'). In the code and here, "
        "the gradient reaches S(x). The code attacks the student in train mode, and in part takes an element-wise "
        "mean.",
    ),
    "AKD2": Method(
        title="AKD2",
        source="Chen et al. 2021, as the authors of IAD re-implemented it",
        maximises=(_ON_LABELS,),
        minimises=(
            Term("CE", "y", "S(x*)", weight="1-a1-a2"),
            Term("KL", "T_rob(x*)", "S(x*)", weight="a1", tau="tau"),
            Term("KL", "T_nat(x*)", "S(x*)", weight="a2", tau="tau"),
        ),
        settings={"a1": 0.5, "a2": 0.25, "tau": 1.0, "kl_reduction": "batchmean"},
        differences="The original's command line defaults to a1 0.1, a2 0.6 and tau 2.",
        averages_weights=True,
    ),
    "AdaAD": Method(
        title="AdaAD",
        source="Huang et al. 2023",
        maximises=(Maximised("KL", "T(x~)", "S(x~)", start="gaussian"),),
        minimises=(
            Term("KL", "T(x*)", "S(x*)", weight="l"),
            Term("KL", "T(x)", "S(x)", weight="1-l"),
        ),
        settings={"l": 1.0, "kl_reduction": "batchmean"},
        differences="The attack's gradient passes through teacher and student. The released CIFAR-10 code takes an "
        "element-wise mean: kl_reduction 'mean'.",
    ),
    # the paper calls the networks A and B; here A is the student and B its peer
    "CAT": Method(
        title="CAT",
        source="Liu et al. 2023, with TRADES (the student) and ALP (the peer)",
        maximises=(
            Maximised("KL", "S(x)", "S(x~)", start="gaussian", makes="x*_S"),
            Maximised("CE", "y", "P(x~)", makes="x*_P"),
        ),
        minimises=(
            Term("CE", "y", "S(x)", weight="own"),
            Term("KL", "S(x)", "S(x*_S)", weight="own * beta"),
            Term("CE", "y", "P(x*_P)", weight="own * 0.5"),
            Term("CE", "y", "P(x)", weight="own * 0.5"),
            Term("MSE", "P(x)", "P(x*_P)", weight="own"),
            Term("KL", "P(x*_S).detach", "S(x*_S)", weight="1-own"),
            Term("KL", "S(x*_P).detach", "P(x*_P)", weight="1-own"),
        ),
        settings={"own": 1 / 20, "beta": 6.0, "kl_reduction": "batchmean"},
        recipe={"epochs": 200, "weight_decay": 5e-4, "milestones": (100, 150), "schedule": "multistep"},
        differences="In the student's TRADES and the peer's ALP, S(x) and P(x) are not constants; the targets that "
        "the two networks give each other are. The epochs at which the learning rate drops are not known here; 100 "
        "and 150 of 200 are used.",
    ),
    # The released code takes the KL's element-wise mean, and its weights are tuned for that. The student's soft label
    # is never a constant: neither eq. 3 nor the code detaches it in the peer's loss, and neither eq. 4 nor the code
    # detaches S(x).
    "PeerAiD": Method(
        title="PeerAiD",
        source="Jung et al. 2024, eq. 2 to 5; weights of the released recipes",
        maximises=(Maximised("KL", "P(x)", "S(x~)", start="gaussian"),),
        minimises=(
            Term("CE", "y", "P(x*)", weight="g1"),
            Term("KL", "S(x*)", "P(x*)", weight="g2", tau="tau_p"),
            Term("CE", "y", "S(x*)", weight="l1"),
            Term("KL", "P(x*).detach", "S(x*)", weight="l2", tau="tau"),
            Term("KL", "S(x)", "S(x*)", weight="l3", tau="tau"),
        ),
        settings={
            **{"l1": 0.0, "l2": 1.0, "l3": 1.0, "tau": 5.0},
            **{"g1": 1.0, "g2": 0.1, "tau_p": 1.0},
            "kl_reduction": "mean",
        },
        settings_on={
            "cifar100": {"g2": 1.0},
            "tiny_imagenet": {"l1": 0.035, "l2": 35.0, "l3": 20.0, "tau": 1.0, "g2": 100.0},
        },
        recipe=_multistep(300, 214, 259, 284, batch_size=128, weight_decay=2e-4),
        recipe_on={
            "tiny_imagenet": _multistep(200, 99, 149, batch_size=128, weight_decay=2e-4),
            "tiny_imagenet wrn-34-10": _multistep(100, 49, 79, batch_size=128, weight_decay=2e-4),
        },
        differences=f"{_ELEMENT_MEAN} The paper writes one temperature; the code has one for the peer (tau_p) and one "
        "for the student (tau). In the student's loss, the peer's soft label is a constant in paper and code. In "
        "the code, the student's soft label in the peer's loss and S(x) in the consistency term are not constants; "
        "the paper does not say that they are.",
        averages_weights=True,
    ),
}
METHODS["PeerAiD-fixed"] = replace(
    METHODS["PeerAiD"],
    title="PeerAiD with a fixed teacher",
    source="Jung et al. 2024, section 4.3: eq. 4 with a fixed teacher in the peer's place",
    maximises=(Maximised("KL", "T(x)", "S(x~)", start="gaussian"),),
    minimises=(
        Term("CE", "y", "S(x*)", weight="l1"),
        Term("KL", "T(x*)", "S(x*)", weight="l2", tau="tau"),
        Term("KL", "S(x)", "S(x*)", weight="l3", tau="tau"),
    ),
    settings={"l1": 0.0, "l2": 1.0, "l3": 1.0, "tau": 5.0, "kl_reduction": "mean"},
    settings_on={"tiny_imagenet": {"l1": 0.035, "l2": 35.0, "l3": 20.0, "tau": 1.0}},
    differences=f"{_ELEMENT_MEAN} The paper says that the loss stays the same, but not what the attack maximises; "
    "here it is PeerAiD's attack with the teacher's output in place of the peer's. There is no released code.",
)
METHODS["ARD+"] = with_label_mixing(
    METHODS["ARD"],
    "RKD eq. 5",
    settings={"tau": 1.0, "kl_reduction": "batchmean"},
    recipe=_RKD_STUDENT,
    differences="RKD writes ARD without a temperature and does not state its lambda (alpha here). There is no "
    "released code.",
)
METHODS["RSLAD+"] = with_label_mixing(
    METHODS["RSLAD"],
    "RKD eq. 6",
    recipe=_RKD_STUDENT,
    differences="Labels are mixed into both terms, not into the attack. RKD does not state its lambda (l here). "
    "There is no released code.",
)
METHODS["AKD+"] = with_label_mixing(METHODS["AKD"], "RKD eq. 7")
