"""The table of training methods: what the attack maximises, what the update minimises, and which networks guide.

A row is data, not code, so the same row trains a network, prints its formula and draws its overview. To add your own
method, add a row: ``METHODS["mine"] = Method(...)``; ``docs/methods.md`` shows an example. `grammar` defines the parts
of a row, `notation` how its points and weights are written. `recipes` has how the papers train, `released` what the
authors' codes do otherwise.
"""

from dataclasses import replace

from rkdkit.methods import recipes, released
from rkdkit.methods.grammar import Maximised, Method, Term
from rkdkit.methods.recipes import RKD_STUDENT, RKD_TEACHER, multistep
from rkdkit.methods.variants import with_label_mixing

_ON_LABELS = Maximised("CE", "y", "S(x~)")
_ELEMENT_MEAN = (
    "The paper's KL is a sum over classes. The released code's KL is a mean over batch and classes, 1/C of the sum, "
    "and the settings that the paper prints are taken to belong to it: so kl_reduction is 'mean' in the paper's "
    "reading, too. 'batchmean' is the sum; with it, the term weighs C times as much."
)
_RKD_TRAINS = (
    "Weight decay, momentum and the attack's step are not stated; here 2e-4, 0.9 (under OneCycle torch's, from 0.95 to "
    "0.85 and back) and 2/255."
)
_RKD_STUDENTS = (
    "RKD names an initial rate of 0.1 and a highest of 0.21 for OneCycle. Here OneCycle has torch's defaults, which "
    f"start at 0.21 / 25; the initial 0.1 is not used. {_RKD_TRAINS} There is no released code."
)
_ONE_RATE = (
    "The code computes the rate from the initial one at each milestone, so the second drop never comes: the rate stays "
    "at 0.01 to the end."
)


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
        recipe=multistep(205, 102, 154),
        differences="Madry et al. count 80,000 steps with drops after 40,000 and 60,000, which are 205, 102 and 154 "
        "epochs of CIFAR. Their attack has 7 steps, as RKD's; here it has 10, as PeerAiD's and ARD's.",
    ),
    "Low-eps AT": Method(
        title="Low-eps AT",
        source="RKD section 3.5 and Table 4: PGD-AT at 2/255 where 8/255 is tested",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
        recipe=RKD_TEACHER,
        differences="RKD's section 3 trains with batches of 256, its appendix A trains teachers with batches of 128; "
        f"here it is 128. {_RKD_TRAINS} There is no released code.",
        eps_factor=0.25,
    ),
    "FFGSM-AT": Method(
        title="FFGSM-AT",
        source="Wong et al. 2020",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "y", "S(x*)"),),
        recipe={k: v for k, v in RKD_TEACHER.items() if k != "attack_steps"},
        differences="Trained as RKD trains its teachers, not as Wong et al., whose code trains for 15 epochs with a "
        "cyclic learning rate.",
        one_step=1.25,
    ),
    "Free-AT": Method(
        title="Free-AT",
        source="Shafahi et al. 2019; ARD Table 9",
        minimises=(Term("CE", "y", "S(x*)"),),
        settings={"m": 4},
        recipe=recipes.ARD,
        differences="The schedule is that of ARD, in whose Table 9 it stands. Shafahi et al. count 80,000 steps with "
        "drops after 40,000 and 60,000, which are 205, 102 and 154 passes over CIFAR, with m 8.",
        free=True,
        one_step=1.0,
    ),
    "TRADES": Method(
        title="TRADES",
        source="Zhang et al. 2019",
        maximises=(Maximised("KL", "S(x)", "S(x~)", start="gaussian"),),
        minimises=(Term("CE", "y", "S(x)"), Term("KL", "S(x)", "S(x*)", weight="beta")),
        settings={"beta": 6.0, "kl_reduction": "batchmean"},
        recipe=multistep(100, 74, 89, 99),
        recipe_on={"cifar10": {"eps": 0.031, "step_size": 0.007}},
        differences="The KL's gradient also reaches S(x), as in the released code, which asks the student twice about "
        "x, once for each term. On CIFAR-10, paper and code train at eps 0.031, which is not quite 8/255, in steps of "
        "0.007. The paper trains for 100 epochs and does not state the drops, which are those of its code at that "
        "time; the code of today stops after 76 epochs, right after the first drop. ARD's tables do not state the "
        "beta of their TRADES (1/lambda there), RKD's Table 11 not that of its own; somebody's MobileNetV2, trained by "
        "TRADES' own script, is less accurate and more robust than ARD's.",
        code=released.TRADES,
    ),
    "KD": Method(
        title="KD",
        source="Hinton et al. 2015; ARD eq. 3; CKD of RKD eq. 1",
        minimises=(
            Term("CE", "y", "S(x)", weight="1-l"),
            Term("KL", "T(x)", "S(x)", weight="l", tau="tau"),
        ),
        settings={"l": 1.0, "tau": 30.0, "kl_reduction": "mean"},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=recipes.ARD,
        differences="No code was released. The KL is a mean over batch and classes, as in ARD's released code, and not "
        "ARD's sum over classes: see there, also for its order and for temperatures.",
    ),
    "ARD": Method(
        title="ARD",
        source="Goldblum et al. 2020, eq. 1 and Algorithm 1",
        maximises=(_ON_LABELS,),
        minimises=(
            Term("KL", "T(x)", "S(x*)", weight="alpha", tau="tau"),
            Term("CE", "y", "S(x)", weight="1-alpha"),
        ),
        settings={"alpha": 1.0, "tau": 30.0, "kl_reduction": "mean"},
        settings_on={"cifar100": {"tau": 5.0}},
        recipe=recipes.ARD,
        differences=f"{_ELEMENT_MEAN} The paper's 'momentum term of 2e-4' is taken for the weight decay, which is 2e-4 "
        "in the code; the momentum is 0.9. The paper does not state the batch size. It writes KL(S, T) and does not "
        "define the order; here it is the divergence of S from T. Its equations print the cross entropies of loss and "
        "attack at the temperature, its Algorithm 1 that of the attack without; here neither has one. The code asks "
        f"the student about x even where alpha 1 leaves that term no weight. {_ONE_RATE}",
        code=released.ARD,
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
        recipe=recipes.ARD,
        differences="No code was released. The KL is a mean over batch and classes, as in ARD's released code, and not "
        "ARD's sum over classes: see there, also for its order and for temperatures. The paper's Algorithm 2 "
        "perturbs along the gradient of the cross entropy; its text says the gradient of the update's loss, in one "
        "backward pass. Here it is the text's. Algorithm 2 has a step r of its own, and the only step that section 8 "
        "states is 2/255; here it is eps, as in free adversarial training. Algorithm 2 prints the loss at the natural "
        "images, with alpha^2; here it is ARD's, at x*, with alpha tau^2.",
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
        recipe=multistep(300, 215, 260, 285),
        differences="The paper's KL is a sum over classes. The code's is a mean over batch and classes, of which its "
        "authors warn themselves; on CIFAR-100 it is 10 times that mean, which is neither the mean nor the sum. The "
        "code adds 1e-5 inside the logarithm of the teacher's probabilities, which changes the value of the loss but "
        "no gradient; here it is left out.",
        code=released.RSLAD,
    ),
    "AKD": Method(
        title="AKD",
        source="RKD eq. 4 and appendix A",
        maximises=(_ON_LABELS,),
        minimises=(Term("CE", "T(x*)", "S(x*)"),),
        recipe=RKD_STUDENT,
        differences=_RKD_STUDENTS,
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
        recipe=multistep(200, 100, 150),
        differences="a = T(x*)[y]^beta, but a = 1 in the first share `warmup` of the epochs, 60 of 200 (in one "
        "version of the code, none). The paper "
        "weights the teacher's term by a; the released code does not (teacher_weight '1'). The KL is a sum over "
        "classes in the paper and in every version of the code that was read. In the code and here, the gradient "
        "reaches S(x). The code's second term has no temperature, which changes nothing at tau 1. The code asks the "
        "student about x once for a cross entropy of weight 0 and, when the warmup is over, once more for the second "
        f"term. {_ONE_RATE}",
        code=released.IAD,
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
        recipe=multistep(200, 50, 150, weight_decay=5e-4, swa_start=55),
        differences="a1 is the weight of the robust teacher, a2 that of the natural one. In both readings they are "
        "those of IAD's authors, a1 0.5, a2 0.25 and tau 1. The original's command line has a1 0.6, a2 0.1 and tau 2: "
        "its first teacher is the natural one, its second the robust one. The paper's reading has the original's "
        "schedule, which averages weights from epoch 55 on. The code's reading is the version of IAD's authors, which "
        "averages none; the original's code also attacks in train mode, but normalises, clamps the start, and does "
        "drop the rate twice. The version of IAD's authors names drops at 100 and 150, but computes the rate from the "
        "initial one at each, so the second never comes.",
        averages_weights=True,
        code=released.AKD2,
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
        recipe=multistep(200, 100, 150, weight_decay=5e-4),
        differences="The attack's gradient passes through teacher and student. The paper's KL is a sum over classes; "
        "the code's is a mean over batch and classes on CIFAR-10 and the sum on CIFAR-100. The code asks the student "
        "about x even where l 1 leaves that term no weight. The schedule is the code's in both readings.",
        code=released.ADAAD,
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
        recipe=multistep(200, 99, 149, weight_decay=5e-4),
        differences="In the student's TRADES and the peer's ALP, S(x) and P(x) are not constants; the targets that "
        "the two networks give each other are. The code counts epochs from 1 and drops the rate after 99 and 149 of "
        "them; the schedule is the code's in both readings. After each update, the code asks the student once more "
        "about x, to print an accuracy. It clamps the start of the peer's attack, but not that of the student's.",
        code=released.CAT,
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
        recipe=recipes.PEERAID,
        recipe_on=recipes.PEERAID_ON,
        differences=f"{_ELEMENT_MEAN} The paper writes one temperature; the code has one for the peer (tau_p) and one "
        "for the student (tau). The soft label that the peer gives the student is a constant, in the paper and in the "
        "code. The soft label that the student gives the peer is not a constant in the code, and neither is S(x); the "
        "paper does not say that they are. The code asks the student twice about x*, once for each network's loss.",
        averages_weights=True,
        code=released.PEERAID,
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
    differences="The paper says that the loss stays the same, but not what the attack maximises; here it is PeerAiD's "
    "attack with the teacher's output in place of the peer's. There is no released code. The KL is that of PeerAiD.",
    code={},
)
METHODS["ARD+"] = with_label_mixing(
    METHODS["ARD"],
    "RKD eq. 5",
    settings={"tau": 1.0, "kl_reduction": "batchmean"},
    recipe=RKD_STUDENT,
    differences="RKD writes ARD without a temperature and does not state its lambda (alpha here); with alpha 1, there "
    f"is no cross entropy of natural images. {_RKD_STUDENTS}",
)
METHODS["RSLAD+"] = with_label_mixing(
    METHODS["RSLAD"],
    "RKD eq. 6",
    recipe=RKD_STUDENT,
    differences="Labels are mixed into both terms, not into the attack. RKD defines x* of all methods by the cross "
    "entropy with the labels; here RSLAD+ attacks as RSLAD does, along KL(T(x), S(x~)) from a gaussian start. RKD does "
    f"not state its lambda (l here). {_RKD_STUDENTS}",
)
METHODS["AKD+"] = with_label_mixing(METHODS["AKD"], "RKD eq. 7")

BUILT_IN = tuple(METHODS)
"""The names of the kit's own methods; rows that are added later are somebody's own."""
