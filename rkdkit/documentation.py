"""The page `docs/methods.md`, printed from the table of methods so that the two cannot differ."""

from collections.abc import Mapping

from rkdkit import methods

_HEAD = """\
# The methods

Written by `rkdkit methods` from the table in [`rkdkit/methods/table.py`](../rkdkit/methods/table.py); do not edit it by hand.

S is the student, P a peer trained beside it, T a fixed teacher or the weighted average of several (T_rob and T_nat if a
method needs one of each kind). x is a natural image in [0, 1], x~ the current iterate of the attack, x\\* the finished
adversarial example, y the label. KL(p, q) = sum p (log p - log q) is the divergence of q from p; `; tau` means that both
are taken at temperature tau. S, P and T stand for softmax probabilities. Losses are averaged over the batch. In the
update, teachers are always constants (without a gradient); other constants are marked `const`. The attacked network is
in eval mode while x\\* is made and in train mode for the update. Attacks start uniformly in the ball, or at
0.001 N(0, 1) from the image (gaussian).

| method | x\\* maximises (start) | the update minimises |
|---|---|---|
"""

_TAIL = """\

## For all methods

| | papers | released codes | here |
|---|---|---|---|
| choosing the epoch | best PGD-10 accuracy, not said on which images | on the test images | on held-out images; `select_on` is "val", "test" or "last" |
| averaged weights (SWA) | AKD2 and PeerAiD | from the first drop of the learning rate on, once per epoch | the same, or from `swa_start` on; every run keeps them beside its other weights, and they are reported if the papers report them; batch-norm statistics are re-estimated by one pass over the training images. `ema_decay` is an exponential moving average instead |
| teachers | PeerAiD: TRADES of the same network; RKD: early-stopped | | any run at any of its epochs, an ensemble of them, or any `torch.nn.Module` |
| last batch of an epoch | not said | smaller than the others | the few images left over are not used in that epoch |

If no training settings of a method's own paper are listed, the `paper` profile trains it as PeerAiD does: 300 epochs,
batches of 128, lr 0.1, multiplied by 0.1 at epochs 214, 259 and 284, weight decay 2e-4, SGD with momentum 0.9, PGD-10.
Methods that replay each batch m times are trained for 1/m of their epochs. The settings above are defaults:
`RunSpec.settings` and a profile's `settings` change them. Milestones are the epochs at whose start the learning rate
drops, counted from 0 as PyTorch does; the sources used here for ARD, RSLAD and CAT do not say whether they count from 0
or 1.

## A method of your own

A method is a row of the table. This one attacks as RSLAD does and learns from the teacher's outputs on the student's
adversarial examples:

```python
from rkdkit import methods, profiles, runs
from rkdkit.methods import Maximised, Method, Term

methods.METHODS["Mine"] = Method(
    title="Mine",
    source="an example",
    maximises=(Maximised("KL", "T(x)", "S(x~)", start="gaussian"),),
    minimises=(Term("CE", "y", "S(x*)", weight="1-l"), Term("KL", "T(x*)", "S(x*)", weight="l")),
    settings={"l": 0.7, "kl_reduction": "batchmean"},
)
scale = profiles.PROFILES["smoke"]
teacher = runs.ensure(scale.spec("TRADES")).snapshot(epoch=2).as_teacher()
run = runs.ensure(scale.spec("Mine", teachers=(teacher,)))
```

Points are S, P (which the row must train) or a teacher, at x or at the examples of an attack of the row. Divergences are
CE, KL and MSE (of logits). A weight is a product of settings, numbers and remainders such as `1-a1-a2`. `.detach` makes
a point a constant. The docstrings of `Term`, `Maximised` and `Method` in
[`rkdkit/methods/grammar.py`](../rkdkit/methods/grammar.py) define all of this, and a row that would not do what it prints
is refused. Your method is trained, resumed, measured and drawn like the others. If you change the row, its runs get
other ids and are trained again.
`methods.with_label_mixing(row, source)` makes the "+" form of any row with a teacher.
"""


def methods_page() -> str:
    """Return `docs/methods.md`: every method with formula, source, settings, and the differences of paper and code."""
    rows = [
        f"| [{name}](#{_anchor(name)}) | {_cell(_attack(row))} | {_cell(_update(row))} |"
        for name, row in methods.METHODS.items()
    ]
    sections = [_section(name, row) for name, row in methods.METHODS.items()]
    return _HEAD + "\n".join(rows) + "\n" + "".join(sections) + _TAIL


def _section(name: str, row: methods.Method) -> str:
    guides = ", ".join(f"{slot} ({methods.GUIDES[slot]})" for slot in row.guides)
    on = "; ".join(f"{dataset}: {_values(settings)}" for dataset, settings in row.settings_on.items())
    lines = [
        ("Source", row.source),
        ("Trains", " and ".join(row.roles) + (f", guided by {guides}" if guides else "")),
        ("Settings", _values(row.settings)),
        ("Settings on other data", on),
        ("Its papers train it with", _values(row.recipe)),
        ("Its papers report averaged weights", "yes" if row.averages_weights else ""),
        ("Papers and codes", row.differences),
    ]
    listed = "\n".join(f"- **{label}**: {_starred(text)}" for label, text in lines if text)
    formula = f"maximise  {_attack(row)}\nminimise  {_update(row)}"
    return f'\n<a id="{_anchor(name)}"></a>\n## {name}\n\n```text\n{formula}\n```\n\n{listed}\n'


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


def _values(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {v:.4g}" if isinstance(v, float) else f"{key} {v}" for key, v in values.items())


def _starred(text: str) -> str:
    return text.replace("*", "\\*")


def _cell(text: str) -> str:
    return _starred(text).replace("|", "\\|")


def _anchor(name: str) -> str:
    return name.lower().replace("+", "-plus").replace(" ", "-")
