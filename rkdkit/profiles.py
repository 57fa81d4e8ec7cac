"""The four scales at which an exhibit can be made."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rkdkit import attacks, checks, data, methods
from rkdkit.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The scale of an exhibit. Any field can be set by its name in a notebook's parameters.

    Attributes
    ----------
    name : the profile's name.
    dataset : a name for `data.load`; it gives `eps` and `augmentation` if they are None.
    student : the student's network, a name for `models.build`.
    peer, teacher : the guides' networks; None: the student's.
    teacher_method : the method that trains a fixed teacher.
    select_on : how the epoch of a teacher, or of a network in a comparison, is chosen: "val", "test" or "last".
    n_train, n_val, n_test : images to train on, held out, and tested on; None: all.
    n_autoattack : AutoAttack is run on the first `n_autoattack` test images; None: on all of them.
    recipes : whether each method is trained as in its own paper, if the paper says how: `methods.Method.recipe`, in the
        run's reading.
    fixed : the fields that a recipe does not change, because the notebook set them.
    without_recipe : methods that are trained by the profile's fields although they have a recipe, because the paper of
        the exhibit trains them by a schedule of its own.
    epochs, batch_size, lr, schedule, milestones, gamma, weight_decay, precision, snapshot_every : as `RunSpec`.
    swa_start : as `RunSpec`; below 1, a share of the epochs; None: no weights are averaged. Unless a notebook sets it,
        a "multistep" run averages from its first milestone on (PeerAiD section 4.5).
    eps : l_inf radius in [0, 1] pixel units; None: the dataset's.
    step_size : the attacks' step size; None: eps / 4, such as 2/255 for 8/255.
    attack_steps : the number of steps of the training attack, and of the attack that chooses epochs.
    test_steps : the number of steps of the attack that measures robust accuracy.
    test_iterate : the iterate of that attack: "last", as in the papers, or "any"; see `attacks.PGD`.
    augmentation : None: the dataset's.
    settings : hyper-parameters by method: {"PeerAiD": {"tau": 1.0}}.
    """

    name: str
    dataset: str
    student: str
    peer: str | None = None
    teacher: str | None = None
    teacher_method: str = "PGD-AT"
    select_on: str = "val"
    n_train: int | None
    n_val: int
    n_test: int | None
    n_autoattack: int | None = None
    recipes: bool = False
    fixed: tuple[str, ...] = ()
    without_recipe: tuple[str, ...] = ()
    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    schedule: str = "onecycle"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    weight_decay: float = 2e-4
    swa_start: float | None = None
    precision: str = "float32"
    snapshot_every: int = 1
    eps: float | None = None
    step_size: float | None = None
    attack_steps: int = 10
    test_steps: int = 20
    test_iterate: str = "last"
    augmentation: str | None = None
    settings: Mapping[str, Mapping[str, methods.Setting]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.coerce_fields(self)

    def spec(self, method: str, seed: int = 0, **changes: Any) -> RunSpec:
        """Return the specification of a method's run at this scale; `changes` are fields of `RunSpec`.

        A method that replays each batch m times is trained for 1/m of the epochs, as in its papers. With reading="code"
        among `changes`, recipe and settings are those of the released code.

        Raises
        ------
        UnknownNameError, ValueError
            As `RunSpec`.
        """
        row = methods.get(method, changes.get("reading", "paper"))
        common = {f.name for f in dataclasses.fields(self)} & {f.name for f in dataclasses.fields(RunSpec)}
        values: dict[str, Any] = {name: getattr(self, name) for name in common}
        source = data.source_of(changes.get("dataset", self.dataset))
        values |= {
            "method": method,
            "seed": seed,
            "peer": (self.peer or self.student) if "peer" in row.roles else "",
            "augmentation": source.augmentation if self.augmentation is None else self.augmentation,
            "eps": source.eps if self.eps is None else self.eps,
        }
        recipe = self._recipe(row, values | changes, changes) if method not in self.without_recipe else {}
        values |= recipe
        if changes.get("schedule", values["schedule"]) != values["schedule"]:  # the factor was the other schedule's
            values["gamma"] = RunSpec.gamma
        values |= changes
        if "step_size" not in {*recipe, *changes} and self.step_size is None:
            values["step_size"] = values["eps"] / 4
        settings = {**self.settings.get(method, {}), **dict(changes.get("settings", ()))}
        values["settings"] = tuple(settings.items())
        if row.free and "epochs" not in changes:
            m = int(row.resolve(settings, values["dataset"])["m"])
            values["epochs"] = max(values["epochs"] // m, 1)
            dropping = sorted({milestone // m for milestone in values["milestones"]} & set(range(1, values["epochs"])))
            if values["schedule"] == "multistep" and not dropping:  # too few epochs are left for the rate to drop
                values["schedule"] = "constant"
            values["milestones"] = tuple(dropping)
        if "swa_start" not in changes and ("swa_start" not in recipe or values.get("ema_decay") is not None):
            values["swa_start"] = None if values.get("ema_decay") is not None else self._swa_start(values)
        return RunSpec(**values)

    def _swa_start(self, values: Mapping[str, Any]) -> float | None:
        if values["schedule"] == "multistep" and values["milestones"] and "swa_start" not in self.fixed:
            return int(values["milestones"][0])
        is_share = self.swa_start is not None and 0 < self.swa_start < 1
        return int(self.swa_start * values["epochs"]) if is_share else self.swa_start

    def _recipe(self, row: methods.Method, values: Mapping[str, Any], changes: Collection[str]) -> dict[str, Any]:
        if not self.recipes:
            return {}
        dataset, network = str(values["dataset"]).partition(":")[0], str(values["student"]).partition("/")[0]
        recipe = {**row.recipe, **row.recipe_on.get(dataset, {}), **row.recipe_on.get(f"{dataset} {network}", {})}
        if "schedule" in recipe:  # the profile's factor is that of its own schedule
            recipe = {"gamma": RunSpec.gamma, **recipe}
        # another radius is not attacked in the recipe's steps; in other epochs, averaging begins as the profile says
        belongs = {"eps": "step_size", "epochs": "swa_start"}
        fixed = {*self.fixed, *(field for name, field in belongs.items() if name in self.fixed)}
        fixed |= {"step_size"} if "eps" in changes else set()
        fixed |= {"gamma"} if "schedule" in self.fixed and recipe.get("schedule") != self.schedule else set()
        return {name: value for name, value in recipe.items() if name not in fixed}

    def as_wide(self, architecture: str) -> str:
        """Return another network with the student's width divisor: "resnet34/4" if the student is "resnet18/4"."""
        return architecture + "".join(self.student.partition("/")[1:])

    @property
    def source(self) -> data.Source:
        """The properties of the dataset that are known before it is loaded."""
        return data.source_of(self.dataset)

    @property
    def teacher_network(self) -> str:
        """The fixed teacher's network."""
        return self.teacher or self.student

    @property
    def test_attack(self) -> attacks.PGD:
        """The attack that measures robust accuracy: PGD-20, unless `test_steps` and `test_iterate` say otherwise."""
        return self._attack(self.test_steps, self.test_iterate)

    @property
    def selection_attack(self) -> attacks.PGD:
        """The attack that chooses an epoch: PGD-10, unless `attack_steps` says otherwise."""
        return self._attack(self.attack_steps)

    def _attack(self, steps: int, iterate: str = "last") -> attacks.PGD:
        eps = self.source.eps if self.eps is None else self.eps
        step_size = eps / 4 if self.step_size is None else self.step_size
        return attacks.PGD(eps, step_size, steps, iterate=iterate)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke", dataset="digits", student="resnet18/16",
            n_train=256, n_val=64, n_test=128, n_autoattack=4, epochs=3, batch_size=64, swa_start=2 / 3,
        ),
        Profile(
            name="quick", dataset="digits", student="resnet18/4",
            n_train=1200, n_val=100, n_test=None, n_autoattack=64, epochs=20, batch_size=64, swa_start=0.75,
        ),
        Profile(
            name="small", dataset="cifar10", student="resnet18/4",
            n_train=10_000, n_val=500, n_test=1000, n_autoattack=200, epochs=16, swa_start=0.75,
            precision="bfloat16", snapshot_every=2,
        ),
        Profile(
            name="paper", dataset="cifar10", student="resnet18",
            n_train=None, n_val=1000, n_test=None, epochs=300, precision="bfloat16", snapshot_every=5,
            schedule="multistep", milestones=(214, 259, 284), swa_start=0.75, recipes=True,
        ),
    )
}  # fmt: skip
"""smoke: CI, seconds. quick: the effect, on a laptop in minutes. small: photographs. paper: PeerAiD section 4.1."""

_ARD: dict[str, dict[str, Any]] = {
    "smoke": {"student": "mobilenetv2/16", "teacher": "resnet18/16"},
    "quick": {"student": "mobilenetv2/4", "teacher": "resnet18/4"},
    "small": {"student": "mobilenetv2/4", "teacher": "resnet18/4"},
    "paper": {
        **{"student": "mobilenetv2", "teacher": "wrn-34-10", "epochs": 200, "milestones": (100, 150)},
        "without_recipe": ("PGD-AT", "TRADES"),
    },
}


def ard(profile: str) -> dict[str, Any]:
    """Return the fields in which ARD's exhibits differ from a profile: students smaller than their teachers.

    At the profile "paper", all methods are trained by the schedule of ARD's section 8, PGD-AT and TRADES, too. Below
    it, the student's network was chosen by the clean accuracy of natural training alone.

    Parameters
    ----------
    profile : the name of a profile.
    """
    return {"teacher_method": "TRADES", **_ARD[profile]}


_TWO_CLASSES: dict[str, dict[str, Any]] = {
    # with the ten digits' radius of 0.25, adversarial training on these two classes does not get beyond guessing
    "digits": {"dataset": "digits:3,8", "eps": 0.15},
    "cifar10": {"dataset": "cifar10:airplane,automobile"},
}


def rkd(profile: str, *, two_classes: bool = False) -> dict[str, Any]:
    """Return the fields in which an exhibit of RKD's differs from a profile.

    Fixed teachers are taken at their last epoch, unless an exhibit stops them early, so no images are needed to choose
    it. At the profile "paper" they are trained as in RKD's appendix A; the students have their own recipes.

    Parameters
    ----------
    profile : the name of a profile.
    two_classes : whether to use two classes only, with no images held out and a snapshot at every epoch (RKD section
        C.2). The classes are airplane and automobile, or two digits that look alike.
    """
    base = PROFILES[profile]
    fields: dict[str, Any] = {"select_on": "last"}
    if base.recipes:
        fields |= {**methods.RKD_TEACHER, "without_recipe": ("PGD-AT", "TRADES")}
    if two_classes:
        # S(x) and trajectories use every epoch, and the first epochs matter most
        fields |= {**_TWO_CLASSES[base.dataset], "n_train": None, "n_val": 0, "n_test": None, "snapshot_every": 1}
    return fields
