"""What papers and released codes do differently: one list, typed from the codes, beside the rows and the page.

How they train is typed in `typed_recipes` (the papers) and `released_steps` (the codes).

The list is that of what was found when the released training loops were run beside the kit's steps. A difference that
is missing in a row or on the page, or is there the other way round, fails here.
"""

import re

import pytest
import released_steps
from conftest import ROOT
from typed_recipes import RECIPES, TINY_IMAGENET

from rkdkit import methods, profiles
from rkdkit.documentation import methods_page
from rkdkit.spec import Teacher

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")

CODES = ("TRADES", "ARD", "RSLAD", "IAD", "AKD2", "AdaAD", "CAT", "PeerAiD")
"""The methods whose released code was run beside the kit."""


def of_recipe(recipe):
    """Return the epochs of a recipe and those after which its rate drops."""
    return recipe["epochs"], *recipe["milestones"]


ATTACKED_IN = {
    **dict.fromkeys(("ARD", "IAD", "AKD2"), ("eval", "train")),
    **dict.fromkeys(("TRADES", "RSLAD", "AdaAD", "CAT", "PeerAiD"), ("eval", "eval")),
}

CLAMPED = {
    **dict.fromkeys(CODES, (True, False)),
    "CAT": (True, ("x*_P",)),  # its PGD, which attacks the peer, clamps at once
}

PASSES = {
    "TRADES": ("S(x), S(x*)", "S(x), S(x*), S(x)"),
    "ARD": ("S(x*)", "S(x*), S(x)"),
    "RSLAD": ("S(x*), S(x)", "S(x*), S(x)"),
    "IAD": ("S(x*), S(x)", "S(x*), S(x), S(x)"),
    "AKD2": ("S(x*)", "S(x*)"),
    "AdaAD": ("S(x*)", "S(x), S(x*)"),
    "CAT": ("S(x), S(x*_S), P(x*_P), P(x), P(x*_S), S(x*_P)",) * 2,
    "PeerAiD": ("P(x*), S(x*), S(x)", "P(x*), S(x*), S(x*), S(x)"),
}
"""In the paper's reading each point that the loss needs, once; in the codes more."""

PASSES_AFTER = {**dict.fromkeys(CODES, ((), ())), "CAT": ((), ("S(x)",))}

NORMALISES = dict.fromkeys(CODES, (True, False))

KL = {
    "TRADES": ("sum", "sum"),
    "ARD": ("mean", "mean"),
    "RSLAD": ("sum", "mean; cifar100: 10 times the mean"),
    "IAD": ("sum", "sum"),
    "AKD2": ("sum", "sum"),
    "AdaAD": ("sum", "mean; cifar100: sum"),
    "CAT": ("sum", "sum"),
    "PeerAiD": ("mean", "mean"),
}
"""Over the classes, by data."""

WEIGHTS = {
    "TRADES": ("beta 6",) * 2,
    "ARD": ("alpha 1, tau 30; cifar100: tau 5",) * 2,
    "RSLAD": ("l 0.8333",) * 2,
    "IAD": (
        "beta 0.1, warmup 0.3, tau 1, teacher_weight a",
        "beta 0.1, warmup 0.3, tau 1, teacher_weight 1",
    ),
    "AKD2": ("a1 0.5, a2 0.25, tau 1",) * 2,
    "AdaAD": ("l 1",) * 2,
    "CAT": ("own 0.05, beta 6",) * 2,
    "PeerAiD": (
        "l1 0, l2 1, l3 1, tau 5, g1 1, g2 0.1, tau_p 1; cifar100: g2 1; "
        "tiny_imagenet: l1 0.035, l2 35, l3 20, tau 1, g2 100",
    )
    * 2,
}

RATES = {name: released_steps.learning_rates(name) for name in CODES}

CODES_DROPS = {name: [i for i in range(1, len(rates)) if rates[i] != rates[i - 1]] for name, rates in RATES.items()}

DROPS = {name: (of_recipe(RECIPES[name]), (len(RATES[name]), *CODES_DROPS[name])) for name in CODES}
"""The epochs of a training on CIFAR, and those after which the rate of 0.1 really drops, to a tenth each time."""

DATA = ("cifar10", "cifar100")

BATCHES = {
    name: (
        dict.fromkeys(DATA, RECIPES[name]["batch_size"]),
        {on: released_steps.batch_size(name, on) for on in DATA},
    )
    for name in CODES
}

DECAY = {name: (RECIPES[name]["weight_decay"], released_steps.WEIGHT_DECAYS.get(name, 2e-4)) for name in CODES}

AVERAGES = {**dict.fromkeys(CODES, (False, False)), "PeerAiD": (True, True), "AKD2": (True, False)}

MINIMISES = {
    "IAD": (
        "teacher_weight tau^2 KL(T(x), S(x*); tau) + (1-a) tau^2 KL(S(x), S(x*); tau)",
        "teacher_weight tau^2 KL(T(x), S(x*); tau) + (1-a) KL(S(x), S(x*))",
    ),
    "RSLAD": (
        "l KL(T(x), S(x*)) + (1-l) KL(T(x), S(x))",
        "factor l KL(T(x), S(x*)) + factor (1-l) KL(T(x), S(x))",
    ),
}
"""Where the terms are not the same: IAD's second has no temperature, RSLAD's are multiplied by 10 on CIFAR-100."""

SAID = [
    # what is in no table: method, or "" for the part on all methods, and what its section says
    ("", r"none of the codes normalises its images \(but the original AKD2's\)"),
    ("", r"but CAT's clamps\s+that of the peer's attack"),
    ("", r"bfloat16"),
    ("", r"a snapshot every five epochs"),
    ("", r"on the test images"),
    ("ARD", r"The paper does not state the batch size"),
    ("PeerAiD", r"The soft label that the peer gives the student is a constant"),
    ("PeerAiD", r"The soft label that the student gives the peer is not a constant in the code, and neither is S\(x\)"),
    ("RSLAD", r"adds 1e-5 inside the logarithm"),
    ("AKD2", r"The original's command line has a1 0.6, a2 0.1 and tau 2"),
    ("CAT", r"counts epochs from 1"),
]


def section(name):
    if not name:
        return PAGE.split("\n<a id=")[0] + PAGE.split("\n## For all methods\n")[1]
    return re.split(r"\n<a id=|\n## ", PAGE.split(f"\n## {name}\n")[1])[0]


def printed(name):
    """Return what a method's table on the page says, by its first column: the paper's reading, and the code's."""
    cells = [line.strip("|").split(" | ") for line in section(name).splitlines() if line.startswith("| ")]
    table = {label.strip(): (paper.strip(), code.strip()) for label, paper, code in cells[1:]}
    plain = {label: tuple(cell.replace("\\*", "*") for cell in row) for label, row in table.items()}
    return {label: (paper, paper if code == "the same" else code) for label, (paper, code) in plain.items()}


def drops(epochs, *after):
    *others, last = map(str, after)
    return f"0.1, times 0.1 at {', '.join(others)} and {last} of {epochs} epochs".replace("at  and", "at")


def expected(name):
    """Return the table that the page must have, written from the lists above."""

    def worded(pair, words):
        return tuple(words(value) for value in pair)

    table = {
        "attack in": worded(ATTACKED_IN[name], "{} mode".format),
        "random start": worded(
            CLAMPED[name],
            lambda how: {True: "clamped", False: "not clamped"}.get(how, "clamped for x*_P, not for x*_S"),
        ),
        "forward passes": PASSES[name],
        "passes after the update": worded(PASSES_AFTER[name], lambda passes: ", ".join(passes) or "none"),
        "normalisation": worded(NORMALISES[name], lambda yes: "mean and std of the data" if yes else "none"),
        "KL": KL[name],
        "settings": WEIGHTS[name],
        "learning rate": worded(DROPS[name], lambda rate: drops(*rate)),
        "batch size": worded(
            BATCHES[name],
            lambda size: "128" if size["cifar10"] == size["cifar100"] else f"128; cifar100: {size['cifar100']}",
        ),
        "weight decay": worded(DECAY[name], "{:g}".format),
        "weights reported": worded(AVERAGES[name], lambda yes: "averaged" if yes else "as trained"),
        **({"minimises": MINIMISES[name]} if name in MINIMISES else {}),
    }
    if name == "PeerAiD":
        tiny = "; ".join(f"{on}: {drops(*of_recipe(recipe))}" for on, recipe in TINY_IMAGENET.items())
        table["learning rate"] = (f"{drops(*DROPS[name][0])}; {tiny}",) * 2
    return table


def test_the_methods_with_a_released_code_are_those_of_the_list():
    assert tuple(name for name, row in methods.METHODS.items() if row.code) == CODES
    assert {name for name in methods.METHODS if "| paper | released code |" in section(name)} == set(CODES)
    assert methods_page() == PAGE


@pytest.mark.parametrize("name", CODES)
def test_the_page_says_what_both_readings_do(name):
    assert printed(name) == expected(name)


@pytest.mark.parametrize("reading", ["paper", "code"])
@pytest.mark.parametrize("name", CODES)
def test_the_rows_do_what_the_page_says(name, reading):
    row, i = methods.get(name, reading), ("paper", "code").index(reading)
    assert row.attack_mode == ATTACKED_IN[name][i]
    assert row.clamps_start == CLAMPED[name][i]
    assert row.passes_after == PASSES_AFTER[name][i]
    assert row.normalises == NORMALISES[name][i]
    assert row.averages_weights == AVERAGES[name][i]
    listed = ", ".join(row.passes)
    assert listed == PASSES[name][i] or (not listed and PASSES[name][i] == PASSES[name][0])
    for data, kl in (("cifar10", KL[name][i].split("; ")[0]), ("cifar100", KL[name][i].split("cifar100: ")[-1])):
        settings = row.resolve({}, data)
        times = settings.get("factor", 1) * (1 if settings["kl_reduction"] == "mean" else 0)
        assert {"sum": 0, "mean": 1, "10 times the mean": 10}[kl] == times, data
    if name in MINIMISES:
        assert " + ".join(map(str, row.minimises)) == MINIMISES[name][i]


@pytest.mark.parametrize("name", CODES)
def test_the_profile_paper_trains_as_the_page_says(name):
    """In the paper's reading; `test_released_steps` holds the code's."""
    for data, size in BATCHES[name][0].items():
        spec = profiles.PROFILES["paper"].spec(name, teachers=Teacher.placeholders(name), dataset=data)
        assert (spec.epochs, *spec.milestones) == DROPS[name][0]
        assert (spec.batch_size, spec.weight_decay, spec.lr, spec.gamma) == (size, DECAY[name][0], 0.1, 0.1)
        assert (spec.schedule, spec.attack_steps) == ("multistep", 10)
        own = (0.031, 0.007) if (name, data) == ("TRADES", "cifar10") else (8 / 255, 2 / 255)
        assert (spec.eps, spec.step_size) == own


@pytest.mark.parametrize(("name", "words"), SAID, ids=[f"{name or 'all'}-{i}" for i, (name, _) in enumerate(SAID)])
def test_the_page_says_it(name, words):
    assert re.search(words, section(name)), words


def test_the_page_says_what_each_method_takes_from_the_profile():
    """Nothing falls back to PeerAiD's schedule without the page saying so."""
    fields = ("epochs", "batch_size", "lr", "schedule", "weight_decay", "attack_steps")
    for name, row in methods.METHODS.items():
        spec = profiles.PROFILES["paper"].spec(name, teachers=Teacher.placeholders(name))
        said = dict(re.findall(r"- \*\*(Recipe at `paper`|Else from the profile `paper`)\*\*: (.*)", section(name)))
        assert set(said) == {"Else from the profile `paper`"} | ({"Recipe at `paper`"} if row.recipe else set())
        words, m = ", ".join(said.values()), int(row.settings.get("m", 1))
        for field in fields:
            value = getattr(spec, field) * (m if field == "epochs" else 1)
            if field == "attack_steps" and (row.one_step is not None or not row.attacks):
                assert field not in words
            else:
                assert f"{field} {value if field == 'schedule' else f'{value:g}'}" in words, (name, field)
        if spec.milestones:
            (at,) = re.findall(r"milestones \(([\d, ]+?),?\)", words)
            assert tuple(int(epoch) // m for epoch in at.split(", ")) == spec.milestones
