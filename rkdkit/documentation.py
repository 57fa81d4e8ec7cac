"""The page `docs/methods.md`, printed from the table of methods so that the two cannot differ."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from rkdkit import methods
from rkdkit.profiles import PROFILES

_HEAD = """\
# The methods

Written by `rkdkit methods` from the table in [`rkdkit/methods/table.py`](../rkdkit/methods/table.py); do not edit it by hand.

S is the student, P a peer trained beside it, T a fixed teacher or the weighted average of several (T_rob and T_nat if a
method needs one of each kind). x is a natural image in [0, 1], x~ the current iterate of the attack, x\\* the finished
adversarial example, y the label. KL(p, q) = sum p (log p - log q) is the divergence of q from p; `; tau` means that both
are taken at temperature tau. S, P and T stand for softmax probabilities. Losses are averaged over the batch. In the
update, teachers are always constants (without a gradient); other constants are marked `const`. Attacks start uniformly
in the ball, or at 0.001 N(0, 1) from the image (gaussian). Every attack steps along the sign of the gradient and
projects each iterate to the ball and to [0, 1]. Networks that only guide an attack are in eval mode.

## Two readings

A method's paper and its authors' released code differ in more than they say. Each row can be read in two ways:
`reading="paper"`, the default, is what the paper states; where it states nothing, the kit's choice. `reading="code"` is
what the released code computes, step for step, batch-norm statistics included: `tests/test_released_steps.py` holds both
readings against an independent implementation in float64. `runs.ensure(scale.spec("ARD", reading="code", ...))` trains
by it, and `methods.get("ARD with the code's attack mode")` is a row with a single one of the code's differences. What
the two readings do is in a table at each method that has a released code:

- **attack in**: the mode of the attacked network while x\\* is made. In train mode, its batch-norm statistics are the
  batch's, and its running statistics move with each step of the attack. In their codes, $TRAIN
  attack in train mode, $EVAL in eval mode.
- **random start**: the paper's reading clamps the start of an attack to [0, 1] before its first gradient. The codes take
  the first gradient at the start as it is drawn, outside of [0, 1] wherever a pixel is close to 0 or 1; but CAT's clamps
  that of the peer's attack.
- **forward passes**: those of the trained networks for the update, in train mode, in this order. One that is not needed
  for the loss, or repeats another, changes no gradient, but moves the running statistics, and with them the next attack
  and every measurement.
- **normalisation**: none of the codes normalises its images (but the original AKD2's). The kit does, inside the network,
  in the paper's reading.
- **KL**: "sum" is the sum over classes, averaged over the batch (kl_reduction 'batchmean'); "mean" is the mean over
  batch and classes ('mean'), 1/C of it. KD, ARD, Fast-ARD, PeerAiD and PeerAiD-fixed have the mean in the paper's
  reading, too: the settings that ARD's and PeerAiD's papers print are taken to belong to it; for KD and Fast-ARD no code
  was released, and they follow ARD. IAD has the sum in its paper and in its code.
- **learning rate**: milestones are the epochs at whose start it drops, counted from 0 as PyTorch does. ARD, IAD and
  AKD2 compute it from the initial rate at each milestone, so their codes' second drop never comes.

Recipes count at the profile `paper` only; smaller profiles have one schedule for all, in both readings.

| method | x\\* maximises (start) | the update minimises |
|---|---|---|
"""

_TAIL = """\

## For all methods

| | papers | released codes | here |
|---|---|---|---|
| choosing the epoch | PeerAiD, for itself and its baselines: best PGD-10 accuracy (for Natural, best natural accuracy), not said on which images; ARD and RKD do not say | PeerAiD and its baselines: on the test images; ARD keeps every epoch and chooses none; RKD's is not released | on held-out images; `select_on` is "val", "test" or "last" |
| averaged weights (SWA) | AKD2 and PeerAiD; RKD's networks with generated images | PeerAiD: from the first drop of the learning rate on, once per epoch; AKD2: from epoch 55 on, in the version of IAD's authors not at all | the same, or from `swa_start` on; a run with a `swa_start` keeps them beside its other weights, and they are reported if the papers report them; batch-norm statistics are re-estimated by one pass over the training images. `ema_decay` is an exponential moving average instead |
| teachers | PeerAiD: TRADES of the same network; RKD: early-stopped | | any run at any of its epochs, an ensemble of them, or any `torch.nn.Module` |
| last batch of an epoch | not said | smaller than the others | the few images left over are not used in that epoch |
| arithmetic | not said | float32; RSLAD's teacher on CIFAR-100 in half precision | at `paper` and `small` bfloat16 by autocast, weights and losses float32; else float32 |
| AutoAttack | version not said | not looked at | the authors' attack from the package `pyautoattack`, whose version is saved with every number. Implementations differ: a user of another one reports 1.92 % for a network to which the authors' gives 2.52 % (github.com/Harry24k/adversarial-attacks-pytorch issue 188) |
| what is kept of a training | not said | the best epoch, or every epoch | at `paper` a snapshot every five epochs, so the best epoch is the best of these |

What a recipe does not say, the profile says; each method's section lists it for `paper`. A method without a recipe is
trained there as PeerAiD is: 300 epochs, batches of 128, lr 0.1, multiplied by 0.1 at epochs 214, 259 and 284, weight
decay 2e-4, PGD-10. Of all methods above, this is $PLAIN alone. The momentum of SGD is 0.9, but under OneCycle torch's,
from 0.95 to 0.85 and back. The exhibits of ARD's tables train Natural, PGD-AT and TRADES for 200 epochs, as its paper
says for all; those of RKD train them for 100 as teachers, PGD-AT alone for 200, and networks with generated images for
400. Recipes are those of CIFAR; for TinyImageNet only PeerAiD's are known, and the others are trained as on CIFAR.
Methods that replay each batch m times are trained for 1/m of their epochs. The settings above are defaults:
`RunSpec.settings` and a profile's `settings` change them.

## Your own method

A method is a row of the table. Write it into a file of your own, say `my_methods.py`. This one attacks as RSLAD does and
learns from labels and from the teacher's outputs, both on the student's adversarial examples:

```python
from rkdkit.methods import METHODS, Maximised, Method, Term

METHODS["mine"] = Method(
    title="Mine",
    source="an example",
    maximises=(Maximised("KL", "T(x)", "S(x~)", start="gaussian"),),
    minimises=(Term("CE", "y", "S(x*)", weight="1-l"), Term("KL", "T(x*)", "S(x*)", weight="l")),
    settings={"l": 0.7, "kl_reduction": "batchmean"},
)
```

Print it as this page prints the others; train it, and draw it in the figure of PeerAiD's Table 1, beside two methods of
the table; compare it with RSLAD over three seeds:

```console
rkdkit methods --methods my_methods.py
rkdkit figures tab1 --methods my_methods.py -p methods='["PGD-AT", "RSLAD", "mine"]' -p output_dir=figures/mine
rkdkit compare RSLAD mine --seeds 3 --profile quick --methods my_methods.py
```

Your method is trained, resumed, measured and drawn like the others, on workers and clusters, too; what is in the store is
not trained again. `rkdkit plan` takes the same options and says first what a figure needs.

- **What a row may say.** Points are S, P (which the row must train) or a teacher, at x or at the examples of an attack of
  the row. Divergences are CE, KL and MSE (of logits). A weight is a product of settings, numbers and remainders such as
  `1-a1-a2`. `.detach` makes a point a constant. The docstrings of `Term`, `Maximised` and `Method` in
  [`rkdkit/methods/grammar.py`](../rkdkit/methods/grammar.py) define all of this, and a row that would not do what it
  prints is refused. `methods.with_label_mixing(row, source, title=...)` makes the "+" form of any row with a teacher.
- **Where it is compared.** `methods` is a parameter of `tab1`, `tab3` to `tab6`, `tab10` and `fig4`; of `fig5`, where it
  lists the methods that train the fixed teachers; and of `fig11`, where it lists those that train the students.
  In `tab1`, `tab4` and `tab5`, differences are from PeerAiD, or from the last method if PeerAiD is not in the list; in
  `tab3`, from the same network without averaged weights; in `tab10`, from PGD-AT or, without it, from the last
  (Fast-ARD from Free-AT). Claims of the paper about methods that are not in the list are left out, and the notebook
  says which. The paper's numbers stand beside the methods that have some.
- **Its teachers** are those of the exhibit: a robust one (T, T_rob), trained by the profile's `teacher_method` (in
  `tab10` by TRADES), and a natural one (T_nat); in `fig11`, T alone, once trained naturally and once by PGD-AT. Where
  an exhibit has no such teacher, the method is refused before anything is trained.
- **Its names.** Files and `methods` have its name, here `mine`; figures and printed comparisons have its `title`.
  Neither may be another method's. The kit's own methods cannot be replaced: give a variant a name of its own, with
  `replace` of `dataclasses`. RSLAD with labels, for example, is `METHODS["mine"] = replace(METHODS["RSLAD"],
  title="RSLAD with labels", minimises=(*METHODS["RSLAD"].minimises, Term("CE", "y", "S(x)", weight="0.3")))`.
- **The file** is executed, whatever it holds, once in each process that needs it. If you change the row, its runs get
  other ids and are trained again. Leave the file as it is while a command runs: the notebooks that it starts refuse one
  that was changed. A file can add several methods.

In JupyterLab and in your own scripts, the variable `RKDKIT_METHODS` does what `--methods` does, as in
`RKDKIT_METHODS=$PWD/my_methods.py make lab`. From Python:

```python
from rkdkit import profiles, runs
from rkdkit.methods import own

own.load("my_methods.py")
scale = profiles.PROFILES["smoke"]
teacher = runs.ensure(scale.spec("TRADES")).snapshot(epoch=2).as_teacher()
run = runs.ensure(scale.spec("mine", teachers=(teacher,)))
```
"""


_KL = {"batchmean": "sum", "mean": "mean"}

_OF_A_RECIPE = ("epochs", "batch_size", "lr", "schedule", "milestones", "gamma", "weight_decay")
_OF_AN_ATTACK = ("eps", "step_size", "attack_steps")


def methods_page() -> str:
    """Return `docs/methods.md`: every method with formula, source, settings, and the differences of paper and code."""
    rows = [
        f"| [{name}](#{_anchor(name)}) | {_cell(_attack(row))} | {_cell(_update(row))} |"
        for name, row in methods.METHODS.items()
    ]
    sections = [_section(name, row) for name, row in methods.METHODS.items()]
    return _filled(_HEAD) + "\n".join(rows) + "\n" + "".join(sections) + _filled(_TAIL)


def readings(row: methods.Method) -> list[tuple[str, str, str]]:
    """Return what the two readings of a row do: what it is about, the paper's, the released code's.

    Parameters
    ----------
    row : a row that has a released code.
    """
    as_code = row.read("code")
    lines = [(label, told(row), told(as_code)) for label, told in _TOLD.items()]
    return [line for line in lines if line[1] != line[2] or line[0] not in _ONLY_IF_DIFFERENT]


def _filled(text: str) -> str:
    modes = {name: row.read("code").attack_mode for name, row in methods.METHODS.items() if row.code}
    text = text.replace("$TRAIN", _and([name for name, mode in modes.items() if mode == "train"]))
    text = text.replace("$EVAL", _and([name for name, mode in modes.items() if mode == "eval"]))
    return text.replace("$PLAIN", _and([name for name, row in methods.METHODS.items() if not row.recipe]))


def _section(name: str, row: methods.Method) -> str:
    guides = ", ".join(f"{slot} ({methods.GUIDES[slot]})" for slot in row.guides)
    lines = [
        ("Source", row.source),
        ("Trains", " and ".join(row.roles) + (f", guided by {guides}" if guides else "")),
        ("Settings", _values(row.settings)),
        ("Settings on some data", _on(row.settings_on)),
        ("Recipe at `paper`", _values(row.recipe)),
        ("Recipe on some data", _on(row.recipe_on)),
        ("Else from the profile `paper`", _values(_from_the_profile(row))),
        ("Its papers report averaged weights", "yes" if row.averages_weights else ""),
        ("Papers and codes", row.differences),
    ]
    listed = "\n".join(f"- **{label}**: {_starred(text)}" for label, text in lines if text)
    formula = f"maximise  {_attack(row)}\nminimise  {_update(row)}"
    section = f'\n<a id="{_anchor(name)}"></a>\n## {name}\n\n```text\n{formula}\n```\n\n{listed}\n'
    return section + (_both(row) if row.code else "")


def _both(row: methods.Method) -> str:
    lines = [
        f"| {label} | {_cell(paper)} | {'the same' if paper == code else _cell(code)} |"
        for label, paper, code in readings(row)
    ]
    return "\n| | paper | released code |\n|---|---|---|\n" + "\n".join(lines) + "\n"


def _attack(row: methods.Method) -> str:
    if row.free:
        return "the update's loss: each batch m times, one gradient for perturbation and weights, steps of eps"
    parts = []
    for term in row.maximises:
        made = "" if term.makes == "x*" else f" for {term.makes}"
        parts.append(f"{term} ({term.start}){made}")
    scaled = f", eps times {row.eps_factor:g}" if row.eps_factor != 1 else ""
    steps = f", one step of {row.one_step:g} eps" if row.one_step is not None else ""
    return "; ".join(parts) + scaled + steps if parts else "nothing: natural images"


def _update(row: methods.Method) -> str:
    return " + ".join(str(term) for term in row.minimises)


def _from_the_profile(row: methods.Method) -> dict[str, Any]:
    """Return the fields that the recipe leaves to the profile `paper`, and that have an effect."""
    scale = PROFILES["paper"]
    schedule = row.recipe.get("schedule", scale.schedule)
    without = {"multistep": (), "exponential": ("milestones",), "onecycle": ("milestones", "gamma")}[schedule]
    unused = {*without, *(("eps", "step_size", "attack_steps") if not row.attacks else ())}
    unused |= {"step_size", "attack_steps"} if row.one_step is not None else set()
    attack = scale.selection_attack
    own = {"eps": "8/255", "step_size": "2/255", "attack_steps": attack.steps}
    values = {name: own.get(name, getattr(scale, name)) for name in (*_OF_A_RECIPE, *_OF_AN_ATTACK)}
    return {name: value for name, value in values.items() if name not in {*row.recipe, *unused}}


def _mode(row: methods.Method) -> str:
    return f"{row.attack_mode} mode"


def _start(row: methods.Method) -> str:
    clamped = [attack.makes for attack in row.maximises if row.clamps(attack)]
    if len(clamped) in (0, len(row.maximises)):
        return "clamped" if clamped else "not clamped"
    others = [attack.makes for attack in row.maximises if attack.makes not in clamped]
    return f"clamped for {_and(clamped)}, not for {_and(others)}"


def _passes(row: methods.Method) -> str:
    terms = [term for term in row.minimises if term.factors.value(row.settings) > 0]
    asked = chain.from_iterable((term.output_point, *term.asked) for term in terms)
    needed = [str(point) for point in asked if point.network in methods.TRAINED]
    return ", ".join(row.passes or dict.fromkeys(needed))


def _kl(row: methods.Method) -> str:
    def told(settings: Mapping[str, Any]) -> str:
        factor, reduction = settings.get("factor", 1.0), _KL[settings["kl_reduction"]]
        return reduction if factor == 1 else f"{factor:g} times the {reduction}"

    by_data = {data: told({**row.settings, **settings}) for data, settings in row.settings_on.items()}
    return "; ".join([told(row.settings), *(f"{d}: {kl}" for d, kl in by_data.items() if kl != told(row.settings))])


def _weights(row: methods.Method) -> str:
    def own(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in ("kl_reduction", "factor")}

    on = {data: own(settings) for data, settings in row.settings_on.items() if own(settings)}
    return "; ".join(text for text in (_values(own(row.settings)), _on(on)) if text)


def _rate(row: methods.Method) -> str:
    def told(recipe: Mapping[str, Any]) -> str:
        drops = _and([f"{epoch}" for epoch in recipe["milestones"]])
        return f"{recipe['lr']:g}, times 0.1 at {drops} of {recipe['epochs']} epochs"

    by_data = {on: told({**row.recipe, **recipe}) for on, recipe in row.recipe_on.items()}
    return "; ".join([told(row.recipe), *(f"{on}: {rate}" for on, rate in by_data.items() if rate != told(row.recipe))])


def _of_recipe(*names: str) -> Any:
    def told(row: methods.Method) -> str:
        def own(recipe: Mapping[str, Any]) -> dict[str, Any]:
            return {name: recipe[name] for name in names if name in recipe}

        def shown(recipe: Mapping[str, Any]) -> str:
            return _values(recipe) if len(names) > 1 else f"{own(recipe)[names[0]]:g}"

        on = {d: own(recipe) for d, recipe in row.recipe_on.items() if own(recipe) and own(recipe) != own(row.recipe)}
        parts = [shown(own(row.recipe))] if own(row.recipe) else []
        return "; ".join([*parts, *(f"{data}: {shown(recipe)}" for data, recipe in on.items())])

    return told


_TOLD = {
    "attack in": _mode,
    "random start": _start,
    "forward passes": _passes,
    "passes after the update": lambda row: ", ".join(row.passes_after) or "none",
    "normalisation": lambda row: "mean and std of the data" if row.normalises else "none",
    "KL": _kl,
    "maximises": _attack,
    "minimises": _update,
    "settings": _weights,
    "learning rate": _rate,
    "batch size": _of_recipe("batch_size"),
    "weight decay": _of_recipe("weight_decay"),
    "radius and step": _of_recipe("eps", "step_size"),
    "weights reported": lambda row: "averaged" if row.averages_weights else "as trained",
}

_ONLY_IF_DIFFERENT = ("maximises", "minimises", "radius and step")


def _on(by_data: Mapping[str, Mapping[str, object]]) -> str:
    return "; ".join(f"{data}: {_values(values)}" for data, values in by_data.items())


def _and(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _values(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {v:.4g}" if isinstance(v, float) else f"{key} {v}" for key, v in values.items())


def _starred(text: str) -> str:
    return text.replace("*", "\\*")


def _cell(text: str) -> str:
    return _starred(text).replace("|", "\\|")


def _anchor(name: str) -> str:
    return name.lower().replace("+", "-plus").replace(" ", "-")
