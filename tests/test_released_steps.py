"""Five steps of a training, in both readings, against `released_steps`: x*, weights and batch-norm statistics."""

from dataclasses import dataclass, replace

import pytest
import released_steps
import torch
from torch import Tensor, nn

from rkdkit import data, methods, models, profiles, splits
from rkdkit.determinism import generator
from rkdkit.spec import RunSpec, Teacher
from rkdkit.training import Training

BATCH, LR = 8, 0.1
CLASSES = {"cifar10": 10, "cifar100": 12}
"""Of twelve classes, ten times the mean over classes is not their sum."""


@dataclass(frozen=True)
class Case:
    method: str
    dataset: str = "cifar10"
    late: bool = False
    tau: float = 1.0

    def __str__(self) -> str:
        return f"{self.method}-{self.dataset}{'-late' * self.late}{f'-tau{self.tau:g}' * (self.tau != 1)}"


CASES = [
    *(Case(method) for method in ("PeerAiD", "RSLAD", "ARD", "IAD", "AdaAD", "CAT", "TRADES", "AKD2")),
    *(Case(method, "cifar100") for method in ("PeerAiD", "RSLAD", "ARD", "AdaAD")),
    *(Case("IAD", late=True, tau=tau) for tau in (1.0, 2.0)),
]
OF_METHOD = {case.method: [other for other in CASES if other.method == case.method] for case in CASES}


class TwoBlocks(models.Classifier):
    """`released_steps.Network` as a network of the kit."""

    def __init__(self, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(7, num_classes, mean, std)
        self.conv1 = nn.Conv2d(len(mean), 5, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 7, 3, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(7)

    def trunk(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).relu().mean((2, 3))


@pytest.fixture(autouse=True)
def in_float64(monkeypatch):
    """Let trainings see float64 images, and let "resnet18/16" be a network of two blocks."""
    monkeypatch.setattr(splits, "to_float", lambda images: images.double() / 255)
    monkeypatch.setitem(models.ARCHITECTURES, "resnet18", lambda _, **shape: TwoBlocks(**shape))


def extreme_images(dataset: str, n: int) -> data.Dataset:
    """Random images of which half of the pixels are 0 or 1."""
    random = torch.Generator().manual_seed(4)
    shape = n, 3, 8, 8
    pixels = torch.randint(0, 256, shape, generator=random)
    ends = 255 * torch.randint(0, 2, shape, generator=random)
    images = torch.where(torch.rand(shape, generator=random) < 0.5, ends, pixels).to(torch.uint8)
    assert 0.45 < ((images == 0) | (images == 255)).double().mean() < 0.55
    split = data.Split(images, torch.randint(0, CLASSES[dataset], (n,), generator=random))
    return data.Dataset(dataset, split, split, tuple(map(str, range(CLASSES[dataset]))), "made up")


def teacher(dataset: data.Dataset, seed: int) -> nn.Module:
    """A fixed network with its own normalisation and statistics, confident enough to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = released_steps.Network(len(dataset.classes), torch.full((3,), 0.4), torch.full((3,), 0.3))
    with torch.no_grad():
        network.head.weight.mul_(6)
        network(dataset.train.images.double() / 255)
    return network.eval().requires_grad_(False)


@dataclass
class Trained:
    """What a training was after each of its steps: x* by name, and the state of each network by role and name."""

    examples: list[dict[str, Tensor]]
    states: list[dict[str, Tensor]]


def state_of(networks) -> dict[str, Tensor]:
    return {
        f"{role}.{name}": value.clone()
        for role, network in networks.items()
        for name, value in network.state_dict().items()
        if name not in ("mean", "std")
    }


def trained(monkeypatch, case: Case, reading: str, steps: int = 5) -> tuple[Trained, Trained]:
    """A case trained by the kit and by `released_steps`, from the same weights and random numbers."""
    method, code = case.method, reading == "code"
    dataset = extreme_images(case.dataset, steps * BATCH)
    guides = {slot: teacher(dataset, 20 + i) for i, slot in enumerate(released_steps.TEACHERS.get(method, ()))}
    eps, step_size = released_steps.radius(method)
    spec = RunSpec(
        method=method,
        reading=reading,
        dataset=case.dataset,
        student="resnet18/16",
        peer="resnet18/16" if method in released_steps.WITH_PEER else "",
        teachers=tuple(Teacher(module=slot, slot=slot) for slot in guides),
        settings=(("tau", case.tau), ("warmup", 0.0)) if case.late else (),
        eps=eps,
        step_size=step_size,
        attack_steps=released_steps.STEPS,
        epochs=10,
        batch_size=BATCH,
        lr=LR,
        weight_decay=released_steps.WEIGHT_DECAYS.get(method, 2e-4),
        seed=3,
    )
    training = Training(spec, dataset, torch.device("cpu"), list(guides.values()))
    for network in training.networks.values():
        network.double()
        with torch.no_grad():
            network.head.weight.mul_(4)
    plain = {role: plain_copy(network, dataset, code) for role, network in training.networks.items()}
    kit, reference = Trained([], []), Trained([], [])

    made, of_kit = {}, methods.adversarial_examples

    def noting(maximised, *args, **options):
        made[maximised.makes] = of_kit(maximised, *args, **options)
        return made[maximised.makes].clone()

    def after_a_step():
        kit.examples.append(dict(made))
        kit.states.append(state_of(training.networks))

    with monkeypatch.context() as patch:
        patch.setattr(methods, "adversarial_examples", noting)
        training.run_epoch(after_a_step)

    step_by_step = released_steps.Training(
        *(method, code, plain, guides, LR), many_classes=case.dataset == "cifar100", late=case.late, tau=case.tau
    )
    images, labels = dataset.split_validation(None, 0)[0].images, dataset.split_validation(None, 0)[0].labels
    noise = generator(spec.seed, 1, "attack start")
    batches = data.batches(data.Split(images, labels), BATCH, "none", generator(spec.seed, 1, "order and augmentation"))
    for batch in batches:
        reference.examples.append(step_by_step.step(batch.images, batch.labels, noise))
        reference.states.append(state_of(plain))
    assert len(kit.states) == len(reference.states) == steps
    return kit, reference


def plain_copy(network: nn.Module, dataset: data.Dataset, code: bool) -> nn.Module:
    """The same weights in a network of `released_steps`; only the kit's reading of the papers normalises."""
    mean, std = (torch.tensor(values) for values in dataset.channel_statistics)
    if code:
        mean, std = torch.zeros(3), torch.ones(3)
    copied = released_steps.Network(len(dataset.classes), mean, std)
    copied.load_state_dict({name: value for name, value in network.state_dict().items() if name not in ("mean", "std")})
    return copied


def largest_difference(kit: Trained, reference: Trained) -> float:
    """Over all steps, of x*, weights and batch-norm statistics, the number of batches seen included."""
    pairs = [*zip(kit.examples, reference.examples, strict=True), *zip(kit.states, reference.states, strict=True)]
    assert all(a.keys() == b.keys() for a, b in pairs)
    assert {value.dtype for a, b in pairs for value in (*a.values(), *b.values())} == {torch.float64, torch.int64}
    return max(float((a[name].double() - b[name].double()).abs().max()) for a, b in pairs for name in a)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("reading", ["code", "paper"])
def test_five_steps_are_those_of_the_reference(monkeypatch, case, reading):
    kit, reference = trained(monkeypatch, case, reading)
    assert largest_difference(kit, reference) < 1e-9
    first, last = reference.states[0], reference.states[-1]
    assert all((last[name] - first[name]).abs().max() > 1e-6 for name in first if name.endswith("weight"))


@pytest.mark.parametrize("method", OF_METHOD)
@pytest.mark.parametrize("dataset", CLASSES)
def test_the_schedule_at_paper_is_the_codes(method, dataset):
    teachers = Teacher.placeholders(method)
    spec = profiles.PROFILES["paper"].spec(method, reading="code", dataset=dataset, teachers=teachers)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], spec.lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(spec.milestones), spec.gamma)
    rates = []
    for _ in range(spec.epochs):
        rates += schedule.get_last_lr()
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx(released_steps.learning_rates(method))
    assert (spec.schedule, spec.momentum, spec.attack_steps) == ("multistep", 0.9, released_steps.STEPS)
    assert spec.batch_size == released_steps.batch_size(method, dataset)
    assert spec.weight_decay == released_steps.WEIGHT_DECAYS.get(method, 2e-4)
    if (method, dataset) != ("TRADES", "cifar100"):  # its code is for CIFAR-10
        assert (spec.eps, spec.step_size) == pytest.approx(released_steps.radius(method))


def noticed(monkeypatch, method: str, reading: str = "code", **wrong: object) -> bool:
    """Whether, if its code's row has these fields instead, one of its cases is not the reference's.

    A row that is refused is an error here: it would say nothing about what is trained.
    """
    row = methods.METHODS[method]
    code = {name: value for name, value in {**row.code, **wrong}.items() if value != getattr(row, name)}
    with monkeypatch.context() as patch:
        patch.setitem(methods.METHODS, method, replace(row, code=code))
        return any(
            largest_difference(*trained(monkeypatch, case, reading, steps=2)) > 1e-6 for case in OF_METHOD[method]
        )


OF_A_STEP = ("minimises", "maximises", "settings", "settings_on", "attack_mode", "clamps_start", "passes")
OF_A_STEP += ("passes_after", "normalises")

ONLY_TOGETHER = {"RSLAD": ("minimises", "settings", "settings_on")}
"""Fields that make no row one by one: the setting `factor` is of the code's terms alone."""


def changed_together(method: str) -> list[tuple[str, ...]]:
    """The fields of a code's row that decide a step, each alone where that makes a row."""
    together = ONLY_TOGETHER.get(method, ())
    alone = [(name,) for name in OF_A_STEP if name in methods.METHODS[method].code and name not in together]
    return [*alone, together] if together else alone


@pytest.mark.parametrize("method", OF_METHOD)
def test_each_field_of_a_codes_row_matters(monkeypatch, method):
    row = methods.METHODS[method]
    idle = [
        names
        for names in changed_together(method)
        if not noticed(monkeypatch, method, **{name: getattr(row, name) for name in names})
    ]
    assert idle == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"settings": {"l": 5 / 6, "factor": 1.0, "kl_reduction": "batchmean"}},
        {"settings": {"l": 5 / 6, "factor": 2.0, "kl_reduction": "mean"}},
        {"settings": {"l": 4 / 6, "factor": 1.0, "kl_reduction": "mean"}},
        {"settings_on": {}},
        {"minimises": methods.get("RSLAD", "code").minimises[::-1][:1] * 2},
    ],
    ids=str,
)
def test_a_mistake_in_the_terms_of_rslads_code_is_noticed(monkeypatch, wrong):
    assert noticed(monkeypatch, "RSLAD", **wrong)


@pytest.mark.parametrize("method", OF_METHOD)
def test_a_mistake_in_a_codes_row_is_noticed(monkeypatch, method):
    row = methods.get(method, "code")
    points = [point for term in row.minimises for point in (term.output_point, *term.asked) if not point.fixed]
    passes = row.passes or tuple(dict.fromkeys(map(str, points)))
    replace(row, passes=passes)  # it is not refused: what is noticed below is what trains
    mistakes = [
        {"attack_mode": "train" if row.attack_mode == "eval" else "eval"},
        {"clamps_start": not row.clamps_start},
        {"normalises": not row.normalises},
        {"passes_after": () if row.passes_after else ("S(x)",)},
        {"passes": (*passes, passes[-1])},
        *({"passes": passes[::-1]} for _ in range(passes[::-1] != passes)),
        *({"passes": passes[:i] + passes[i + 1 :]} for i, point in enumerate(passes) if point in passes[:i]),
    ]
    assert [wrong for wrong in mistakes if not noticed(monkeypatch, method, **wrong)] == []
