"""The two readings of a row: what a released code does otherwise, beside a float64 reference written out here."""

import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import OneBlock, compiled_does_what_plain_does, interrupted_after, tiny_spec
from test_plan import FORWARD, TO_THE_IMAGE, TO_THE_WEIGHTS
from test_runtime import needs_a_compiler
from torch import nn
from torch._dynamo.utils import counters

from rkdkit import (
    attacks,
    comparisons,
    data,
    executors,
    exhibits,
    methods,
    plan,
    profiles,
    runs,
    runtime,
)
from rkdkit.checks import UnknownNameError
from rkdkit.comparisons import Entry
from rkdkit.determinism import generator
from rkdkit.figures import saving
from rkdkit.inventory import stored
from rkdkit.methods import Logits, Maximised, Method, Term
from rkdkit.plan import cost, estimate
from rkdkit.references import Snapshot
from rkdkit.spec import RunSpec, Teacher
from rkdkit.tasks import Context
from rkdkit.training import Training, fresh_networks
from rkdkit.trainings import Train

CPU = torch.device("cpu")
L = 0.75
MINE = Method(
    title="Mine",
    source="a test",
    maximises=(Maximised("CE", "y", "S(x~)"),),
    minimises=(Term("CE", "y", "S(x*)", weight="l"), Term("CE", "y", "S(x)", weight="1-l")),
    settings={"l": L},
)
EVERYTHING = {
    "attack_mode": "train",
    "clamps_start": False,
    "passes": ("S(x)", "S(x*)", "S(x)"),
    "passes_after": ("S(x)",),
    "normalises": False,
}
ANOTHER_RECIPE = {"epochs": 34, "schedule": "constant", "milestones": ()}


@pytest.fixture
def mine(monkeypatch):
    """Put the row into the table, with another code and other fields of its own."""

    def put(code, **changes):
        monkeypatch.setitem(methods.METHODS, "Mine", replace(MINE, code=code, **changes))
        return methods.get("Mine")

    return put


@pytest.fixture(scope="module")
def extremes(digits):
    """Grey noise of the digits' shape, half of its pixels black or white."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (256, 1, 8, 8), dtype=torch.uint8, generator=draw)
    ends = 255 * torch.randint(0, 2, images.shape, dtype=torch.uint8, generator=draw)
    images = torch.where(torch.rand(images.shape, generator=draw) < 0.5, ends, images)
    split = data.Split(images, torch.arange(256) % 10)
    return data.Dataset("digits", split, split, digits.classes, "noise")


class Written:
    """conftest's OneBlock in float64, with its batch norm written out: in train mode, its running statistics move."""

    def __init__(self, network):
        held = {name: value.detach().double().clone() for name, value in network.state_dict().items()}
        self.mean, self.std = held.pop("mean"), held.pop("std")
        self.statistics = [held.pop("stem.1.running_mean"), held.pop("stem.1.running_var")]
        self.passes = int(held.pop("stem.1.num_batches_tracked"))
        self.weights = {name: value.requires_grad_() for name, value in held.items()}

    def __call__(self, x, mode):
        w = self.weights
        z = F.conv2d((x.double() - self.mean) / self.std, w["stem.0.weight"], padding=1)
        mean, variance = self.statistics
        if mode == "train":
            n = z.numel() / z.shape[1]
            mean = z.mean((0, 2, 3))
            variance = (z - mean.view(1, -1, 1, 1)).square().mean((0, 2, 3))
            of_batch = (mean.detach(), variance.detach() * n / (n - 1))
            self.statistics = [0.9 * old + 0.1 * new for old, new in zip(self.statistics, of_batch, strict=True)]
            self.passes += 1
        z = (z - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
        z = z * w["stem.1.weight"].view(1, -1, 1, 1) + w["stem.1.bias"].view(1, -1, 1, 1)
        return z.relu().mean((2, 3)) @ w["head.weight"].T + w["head.bias"]

    def difference(self, network):
        """Return the largest difference of any weight or statistic; the passes that a norm counts must be equal."""
        theirs = network.state_dict()
        assert int(theirs["stem.1.num_batches_tracked"]) == self.passes
        ours = {
            **self.weights,
            **dict(zip(("stem.1.running_mean", "stem.1.running_var"), self.statistics, strict=True)),
        }
        return max((theirs[name] - value).abs().max().item() for name, value in ours.items())


def cross_entropy(logits, labels):
    """One value an image."""
    return logits.logsumexp(1) - logits[torch.arange(len(labels)), labels]


def ascended(answer, x, eps, step, steps, start, labels, clamps=True):
    """PGD on the cross entropy, written out; `start` is added to the images."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    adversarial = x + start
    if clamps:
        adversarial = adversarial.clamp(low, high)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(answer(adversarial), labels).sum(), adversarial)
        adversarial = (adversarial.detach() + step * gradient.sign()).clamp(low, high)
    return adversarial


def trained_by_hand(spec, dataset, network, code):
    """What MINE with this code trains to: its batches and random numbers are the kit's, its arithmetic is its own."""
    network, velocity = Written(network), {}
    mode, clamps = code.get("attack_mode", "eval"), code.get("clamps_start", True)
    passes, after = code.get("passes", ("S(x*)", "S(x)")), code.get("passes_after", ())
    share = code.get("settings", {"l": L})["l"]
    images = dataset.split_validation(spec.n_train, spec.n_val)[0]
    for epoch in range(1, spec.epochs + 1):
        order = generator(spec.seed, epoch, "order and augmentation")
        draw = generator(spec.seed, epoch, "attack start")
        for batch in data.batches(images, spec.batch_size, "none", order):
            x, y = batch.images, batch.labels
            start = torch.empty(x.shape).uniform_(-spec.eps, spec.eps, generator=draw)
            settings = spec.eps, spec.step_size, spec.attack_steps, start, y, clamps
            points = {"S(x)": x, "S(x*)": ascended(lambda z: network(z, mode), x, *settings)}
            logits = {point: network(points[point], "train") for point in passes}
            loss = share * cross_entropy(logits["S(x*)"], y).mean()
            if share < 1:
                loss = loss + (1 - share) * cross_entropy(logits["S(x)"], y).mean()
            gradients = torch.autograd.grad(loss, list(network.weights.values()))
            for (name, weight), gradient in zip(list(network.weights.items()), gradients, strict=True):
                gradient = gradient + spec.weight_decay * weight.detach()
                velocity[name] = 0.9 * velocity[name] + gradient if name in velocity else gradient
                network.weights[name] = (weight.detach() - spec.lr * velocity[name]).requires_grad_()
            for point in after:
                network(points[point], "train")
    return network


def in_float64(spec, dataset):
    """A training whose networks are in float64: its images are float32 all the same."""
    networks = {role: network.double() for role, network in fresh_networks(spec, dataset).items()}
    return Training(spec, dataset, CPU, networks=networks)


def student_after(spec, dataset):
    training = in_float64(spec, dataset)
    for _ in range(spec.epochs):
        training.run_epoch()
    return training.networks["student"]


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize(
    "code",
    [
        {"attack_mode": "train"},
        {"clamps_start": False},
        {"passes": ("S(x)", "S(x*)")},
        {"passes": ("S(x*)", "S(x*)", "S(x)")},
        {"passes_after": ("S(x)", "S(x*)")},
        {"normalises": False},
        EVERYTHING,
        # the term at S(x) has no weight
        {"settings": {"l": 1.0}, "passes": ("S(x)", "S(x*)")},
    ],
    ids=lambda code: ", ".join(code),
)
def test_a_training_in_the_codes_reading_is_the_reference(mine, extremes, code):
    mine(code)
    spec, of_paper = tiny_spec("Mine", reading="code", epochs=3), tiny_spec("Mine", epochs=3)
    before = fresh_networks(spec, extremes)["student"]
    student = student_after(spec, extremes)
    expected = trained_by_hand(spec, extremes, before, code)
    assert expected.difference(student) < 1e-9
    paper = student_after(of_paper, extremes)
    assert (
        trained_by_hand(of_paper, extremes, fresh_networks(of_paper, extremes)["student"], {}).difference(paper) < 1e-9
    )
    apart = [(ours - theirs).abs().max() for ours, theirs in zip(student.parameters(), paper.parameters(), strict=True)]
    assert max(apart) > 1e-6, "the difference matters"


@pytest.mark.usefixtures("one_block")
def test_the_order_of_passes_is_that_of_the_running_statistics(mine, extremes):
    students, images = [], {}
    for passes in (("S(x)", "S(x*)"), ("S(x*)", "S(x)")):
        # one step: both begin with the same weights and the same x*
        mine({"passes": passes, "clamps_start": False})
        spec = tiny_spec("Mine", reading="code", n_train=64, epochs=1)
        training = in_float64(spec, extremes)
        convolution = training.networks["student"].stem[0]
        means = []
        convolution.register_forward_hook(lambda *a, means=means: means.append(a[2].detach().mean((0, 2, 3))))
        training.run_epoch()
        images[passes[0]] = means[-2]  # the attack's passes come before
        students.append(training.networks["student"])
    first, second = students
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    natural, adversarial = images["S(x)"], images["S(x*)"]
    assert torch.allclose(first.stem[1].running_mean, 0.09 * natural + 0.1 * adversarial, atol=1e-12)
    assert torch.allclose(second.stem[1].running_mean, 0.09 * adversarial + 0.1 * natural, atol=1e-12)
    assert (natural - adversarial).abs().max() > 1e-4


@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
def test_the_first_gradient_is_taken_at_the_unclamped_start(extremes, start):
    torch.manual_seed(0)
    network = OneBlock(10, (0.3,), (0.3,)).double().eval()
    images, labels = extremes.train.images[:64].double() / 255, extremes.train.labels[:64]
    assert 0.4 < ((images == 0) | (images == 1)).double().mean() < 0.6
    attack, found = attacks.PGD(0.2, 0.05, 3, start), {}
    for clamps in (True, False):
        draw = torch.Generator().manual_seed(7)
        noise = torch.zeros_like(images)
        if start == "uniform":
            noise.uniform_(-0.2, 0.2, generator=draw)
        elif start == "gaussian":
            noise.normal_(0, 0.001, generator=draw)
        expected = ascended(network, images, 0.2, 0.05, 3, noise, labels, clamps)
        objective, again = attacks.cross_entropy_objective(labels), torch.Generator().manual_seed(7)
        found[clamps] = attack.perturb(network, images, objective, again, clamps_start=clamps)
        assert torch.allclose(found[clamps], expected, rtol=0, atol=1e-12)
        assert 0 <= found[clamps].min() <= found[clamps].max() <= 1
        assert (found[clamps] - images).abs().max() <= 0.2 + 1e-12
    moved = (found[True] != found[False]).double().mean()
    # a start of 0.001 N(0, 1) leaves the box at a quarter of the pixels, and half of these are pushed back inside
    assert moved == 0 if start == "none" else moved > 0.05


def test_a_start_that_is_returned_is_clamped_all_the_same(extremes):
    network, images = OneBlock(10, (0.3,), (0.3,)), extremes.train.images[:8] / 255
    draw = torch.Generator().manual_seed(7)
    found = attacks.PGD(0.2, 0.05, 0).perturb(network, images, torch.sum, draw, clamps_start=False)
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(found, attacks.PGD(0.2, 0.05, 0).perturb(network, images, torch.sum, draw.manual_seed(7)))


@pytest.mark.usefixtures("one_block")
def test_neither_an_attack_nor_a_pass_for_statistics_asks_for_gradients_of_weights(mine, extremes):
    mine(EVERYTHING)
    training = Training(tiny_spec("Mine", reading="code", n_train=64, epochs=1), extremes, CPU)
    student, seen = training.networks["student"], []

    def note(module, inputs, logits):
        weights = {parameter.requires_grad for parameter in module.parameters()}
        seen.append((module.training, inputs[0].requires_grad, weights, logits.requires_grad))

    student.register_forward_hook(note)
    training.run_epoch()
    attack, update, statistics = (
        (True, True, {False}, True),
        (True, False, {True}, True),
        (True, False, {True}, False),
    )
    # S(x) and S(x*) for the update, S(x) again, and S(x) with the new weights
    assert seen == [attack, attack, update, update, statistics, statistics]
    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize("target", ["y", "P(x)", "P(x~)", "T(x)", "T(x~)", "S(x)"])
def test_of_all_networks_only_the_attacked_one_is_in_train_mode_while_it_is_attacked(extremes, target):
    torch.manual_seed(0)
    networks = {slot: OneBlock(10, (0.3,), (0.3,)) for slot in "SPT"}
    networks["T"].eval()
    images, labels = extremes.train.images[:16] / 255, extremes.train.labels[:16]
    modes = {slot: set() for slot in networks}
    for slot, network in networks.items():
        network.register_forward_hook(lambda module, *_, slot=slot: modes[slot].add(module.training))
    logits = Logits({slot: (network,) for slot, network in networks.items()}, {"x": images})
    maximised = Maximised("CE" if target == "y" else "KL", target, "S(x~)")
    attack = attacks.PGD(0.1, 0.05, 3)
    asked = maximised, logits, images, labels, attack, torch.Generator()
    found = methods.adversarial_examples(*asked, "train", clamps_start=False)
    assert (found - images).abs().max() <= 0.1 + 1e-6
    assert modes == {"S": {True}, "P": {False} if "P" in target else set(), "T": {False} if "T" in target else set()}
    # a target S(x) is an answer of the attacked network, too
    passes = {slot: int(network.stem[1].num_batches_tracked) for slot, network in networks.items()}
    assert passes == {"S": 4 if target == "S(x)" else 3, "P": 0, "T": 0}
    assert [networks[slot].training for slot in "SPT"] == [True, True, False]
    assert all(parameter.requires_grad for network in networks.values() for parameter in network.parameters())


def test_an_attack_in_train_mode_follows_the_gradient_through_the_batchs_statistics(extremes):
    torch.manual_seed(0)
    network = OneBlock(10, (0.3,), (0.3,)).double()
    images, labels = extremes.train.images[:32].double() / 255, extremes.train.labels[:32]
    written = Written(network)
    expected = ascended(lambda x: written(x, "train"), images, 0.2, 0.05, 3, torch.zeros_like(images), labels)
    attack, objective = attacks.PGD(0.2, 0.05, 3, "none"), attacks.cross_entropy_objective(labels)
    found = attack.perturb(network.eval(), images, objective, torch.Generator(), "train")
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert written.difference(network) < 1e-12
    assert not network.training
    folded = attack.perturb(network, images, objective, torch.Generator())
    assert (folded != found).double().mean() > 0.01


@pytest.mark.usefixtures("one_block")
def test_a_replayed_batch_makes_the_passes_of_its_row_at_each_update(monkeypatch, extremes):
    code = {"passes": ("S(x*)", "S(x)"), "passes_after": ("S(x)",)}
    row = Method("Free", "", MINE.minimises[:1], settings={"l": 1.0, "m": 3}, free=True, one_step=1.0, code=code)
    monkeypatch.setitem(methods.METHODS, "Mine", row)
    training = Training(tiny_spec("Mine", reading="code", n_train=64, epochs=1), extremes, CPU)
    seen = []
    training.networks["student"].register_forward_hook(lambda *a: seen.append(a[2].requires_grad))
    training.run_epoch()
    assert seen == [True, False, False] * 3


@pytest.mark.usefixtures("store", "one_block")
def test_a_network_that_does_not_normalise_does_not_when_it_is_read_again(mine, extremes):
    mine({"normalises": False})
    images = extremes.train.images[:16] / 255
    of_code = runs.ensure(tiny_spec("Mine", reading="code", epochs=1, swa_start=0))
    for snapshot in (of_code.snapshot(), of_code.snapshot("student_averaged")):
        network = snapshot.load()
        assert (network.mean.item(), network.std.item()) == (0.0, 1.0)
        plain = Written(network)
        plain.mean, plain.std = torch.zeros(()), torch.ones(())
        assert torch.allclose(network(images).double(), plain(images, "eval"), atol=1e-5)
    # nor does it as a teacher
    taught = tiny_spec("KD", teachers=(of_code.snapshot().as_teacher(),), epochs=1)
    teachers, init = [], Training.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "__init__", lambda self, *a, **k: (teachers.extend(a[3]), init(self, *a, **k))[1])
        runs.ensure(taught)
    assert [teacher.mean.item() for teacher in teachers] == [0.0]
    assert runs.ensure(tiny_spec("Mine", epochs=1)).snapshot().load().mean.item() > 0.1


@pytest.mark.usefixtures("one_block")
def test_a_resumed_training_in_the_codes_reading_ends_with_the_same_bits(mine, monkeypatch, tmp_path):
    mine(EVERYTHING)
    spec = tiny_spec("Mine", reading="code", epochs=3, augmentation="crop-flip")
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "whole"))
    whole = runs.ensure(spec).snapshot().digest()
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "interrupted"))
    interrupted_after(spec, 2)
    assert runs.ensure(spec).snapshot().digest() == whole


@pytest.mark.usefixtures("one_block")
def test_the_codes_reading_trains_in_bfloat16(mine, digits):
    mine(EVERYTHING)
    training = Training(tiny_spec("Mine", reading="code", precision="bfloat16"), digits, CPU)
    losses = [training.run_epoch().loss for _ in range(2)]
    weights = training.weights()["student"]
    assert all(w.dtype in (torch.float32, torch.int64) and w.isfinite().all() for w in weights.values())
    assert all(map(math.isfinite, losses))
    assert weights["stem.1.num_batches_tracked"] == 2 * 2 * (2 + 3 + 1)


@needs_a_compiler
@pytest.mark.usefixtures("one_block")
def test_a_compiled_training_in_the_codes_reading_does_what_a_plain_one_does(mine, monkeypatch, digits):
    mine(EVERYTHING)
    compiled_does_what_plain_does(tiny_spec("Mine", reading="code", n_train=64, epochs=1), digits, monkeypatch)


@pytest.mark.usefixtures("one_block")
def test_the_codes_reading_compiles_nothing_anew_from_step_to_step(mine, digits, monkeypatch):
    mine(EVERYTHING)
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda network, **_: compiled(network, backend="eager", dynamic=False))
    monkeypatch.setattr(runtime, "_lacking", lambda _: "")
    monkeypatch.setenv("RKDKIT_COMPILE", "on")
    torch.compiler.reset()
    loop = Training(tiny_spec("Mine", reading="code", n_train=192, precision="bfloat16"), digits, CPU)
    graphs, before = [], counters["stats"]["unique_graphs"]
    for _ in range(2):
        loop.run_epoch(lambda: graphs.append(counters["stats"]["unique_graphs"] - before))
    assert graphs[0] >= 3, "attacked, trained, and asked for its statistics"
    assert set(graphs) == {graphs[0]}


# identities and refusals


def test_rows_have_none_of_the_later_fields_in_the_papers_reading():
    for name in methods.METHODS:
        assert set(methods.get(name).definition()) == {"minimises", "maximises", "free", "eps_factor", "one_step"}


def test_a_code_changes_no_id_of_the_papers_reading(mine):
    mine({})
    plain = tiny_spec("Mine")
    mine(EVERYTHING)
    of_paper, of_code = tiny_spec("Mine"), tiny_spec("Mine", reading="code")
    assert of_paper.id == plain.id
    assert of_paper.to_json() == plain.to_json()
    assert "reading" not in plain.to_json()
    assert of_code.to_json() == {**plain.to_json(), "reading": "code"}
    assert of_code.id != plain.id
    ids = {plain.id, of_code.id}
    for name, value in {
        "attack_mode": "eval",
        "clamps_start": True,
        "passes": ("S(x*)", "S(x)", "S(x)"),
        "passes_after": (),
        "normalises": True,
    }.items():
        code = {field: other for field, other in EVERYTHING.items() if field != name}
        mine(code if value == getattr(MINE, name) else {**code, name: value})
        ids.add(tiny_spec("Mine", reading="code").id)
    assert len(ids) == 7, "every field of the code counts"
    mine({**EVERYTHING, "source": "elsewhere", "recipe": ANOTHER_RECIPE})
    assert tiny_spec("Mine", reading="code").id == of_code.id, "a schedule is in the specification"
    taught = tiny_spec("KD", teachers=(Teacher(run=of_code, epoch=1),))
    assert taught.id != tiny_spec("KD", teachers=(Teacher(run=of_paper, epoch=1),)).id


def test_a_specification_in_the_codes_reading_comes_back_from_json_and_from_a_pickle(mine):
    row = mine({**EVERYTHING, "settings": {"l": 0.5}})
    spec = tiny_spec("Mine", reading="code")
    assert dict(spec.settings) == {"l": 0.5}
    again = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert (again, again.id) == (spec, spec.id)
    packed = pickle.dumps(Train(spec))
    del methods.METHODS["Mine"]
    task = pickle.loads(packed)
    assert task.spec == spec
    assert methods.get("Mine") == row
    assert methods.get("Mine", "code").passes == EVERYTHING["passes"]
    assert hash(methods.get("Mine")) == hash(row)


@pytest.mark.parametrize("code", [{"recipe": ANOTHER_RECIPE}, {"source": "elsewhere"}, {"settings": {"l": 0.5}}])
def test_a_run_is_of_the_papers_reading_where_the_code_makes_no_difference_to_its_training(mine, code):
    mine(code)
    share = code.get("settings", {"l": L})["l"]
    spec = tiny_spec("Mine", reading="code")
    assert spec == tiny_spec("Mine", settings=(("l", share),))
    assert spec.reading == "paper"
    assert RunSpec.from_json({**spec.to_json(), "reading": "code"}) == spec


def test_a_run_is_of_the_codes_reading_where_other_weights_stand_for_it(mine):
    mine({"averages_weights": True})
    assert tiny_spec("Mine", reading="code").reading == "code"


def test_a_run_in_the_codes_reading_says_so(mine, store):
    mine(EVERYTHING)
    spec = tiny_spec("Mine", reading="code")
    taught = tiny_spec("KD", teachers=(Teacher(run=spec, epoch=1),))
    assert str(spec) == "Mine (code) resnet18/16 on digits, seed 0"
    assert str(taught) == "KD resnet18/16 on digits from Mine (code) resnet18/16 at epoch 1, seed 0"
    assert str(tiny_spec("Mine")) == "Mine resnet18/16 on digits, seed 0"
    for each in (spec, taught, tiny_spec("Mine")):
        assert stored.title(each.to_json()) == str(each)
        assert stored.folder_name(each.to_json(), each.id) == store.run_folder(each).path.name
    shown = saving._networks([Snapshot(spec), Snapshot(tiny_spec("Mine"))], Context(store, CPU))
    assert [network.get("reading") for network in shown] == ["code", None]


@pytest.mark.parametrize("reading", ["released", "Code", "", 1])
def test_an_unknown_reading_is_refused(mine, reading):
    mine(EVERYTHING)
    with pytest.raises(UnknownNameError, match="Unknown reading"):
        methods.get("Mine", reading)
    with pytest.raises(ValueError, match="reading"):
        tiny_spec("Mine", reading=reading)


def test_a_row_without_a_code_has_no_other_reading(monkeypatch):
    monkeypatch.setitem(methods.METHODS, "PGD-AT", replace(methods.get("PGD-AT"), code={}))
    message = "PGD-AT has no released code, or it does what the paper says: leave reading='paper'"
    for asked in (
        lambda: methods.get("PGD-AT", "code"),
        lambda: tiny_spec("PGD-AT", reading="code"),
        lambda: profiles.PROFILES["quick"].spec("PGD-AT", reading="code"),
        lambda: methods.get("PGD-AT with the code's attack mode"),
    ):
        with pytest.raises(ValueError, match=message):
            asked()
    assert methods.get("PGD-AT", "paper") is methods.get("PGD-AT")


NATURAL = Method("Natural", "", (Term("CE", "y", "S(x)"),))


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (MINE, {"attack_mode": "test"}, "Unknown mode of an attack 'test'.*eval, train"),
        (NATURAL, {"attack_mode": "train"}, "no attack of its own, so attack_mode and clamps_start mean nothing"),
        (NATURAL, {"clamps_start": False}, "no attack of its own"),
        (methods.get("CAT", "code"), {"clamps_start": ("x*",)}, r"Unknown examples of the row CAT 'x\*'.*x\*_S, x\*_P"),
        (MINE, {"clamps_start": ("x*",)}, "clamps the start of none or all of its attacks: write False or True"),
        (MINE, {"clamps_start": []}, "clamps the start of none or all of its attacks"),
        (MINE, {"clamps_start": "x*"}, "clamps_start of the row Mine"),
        (MINE, {"passes": ("S(x)",)}, r"needs S\(x\*\), which its passes do not list"),
        (MINE, {"passes": ("S(x)", "S(x*)", "T(x)")}, r"lists a pass T\(x\): it must be of a trained network"),
        (MINE, {"passes": ("S(x)", "S(x*).detach")}, r"lists a pass S\(x\*\)\.detach: it must be of a trained network"),
        (MINE, {"passes_after": ("P(x)",)}, r"lists a pass P\(x\), but does not train the peer"),
        (MINE, {"passes_after": ("S(x~)",)}, r"lists a pass S\(x~\), but none of its attacks makes x~"),
        (MINE, {"passes_after": ("S(x*_P)",)}, r"none of its attacks makes x\*_P"),
        (MINE, {"passes_after": ("S(y)",)}, r"passes_after of the row Mine: 'S\(y\)' is not a point"),
        (MINE, {"passes": "S(x)"}, "passes of the row Mine must be a list"),
        (
            MINE,
            {"code": {"atack_mode": "train"}},
            "Unknown field of the released code of Mine.*Did you mean 'attack_mode'",
        ),
        (MINE, {"code": {"code": {}}}, "Unknown field of the released code of Mine 'code'"),
        (MINE, {"code": {"normalises": True}}, "has the paper's normalises: leave it out"),
        (MINE, {"code": {"settings": {"l": L}}}, "has the paper's settings: leave it out"),
        (MINE, {"code": {"passes": ("S(x*)",)}}, r"needs S\(x\), which its passes do not list"),
        (MINE, {"code": {"settings": {"l": 0.5, "tau": 1.0}}}, "does not use its setting tau"),
    ],
)
def test_a_row_that_would_not_do_what_it_says_is_refused(row, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(row, **changes)


def test_a_single_difference_is_the_papers_row_with_that_field_of_the_code(mine):
    mine({**EVERYTHING, "source": "elsewhere", "recipe": ANOTHER_RECIPE})
    name = "Mine with the code's attack mode"
    assert methods.get(name) == replace(MINE, title=name, attack_mode="train")
    name = "Mine with the code's forward passes"
    passes = {name: EVERYTHING[name] for name in ("passes", "passes_after")}
    assert methods.get(name) == replace(MINE, title=name, **passes)
    with pytest.raises(ValueError, match="has no released code"):
        methods.get(name, "code")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine with the code's loss", "Unknown difference of the code of Mine 'loss'.*Known: attack mode"),
        ("Mine with the code's pases", "Unknown difference of the code of Mine 'pases'"),
        ("Mine with the code's attack mode with the code's attack mode", "Unknown difference"),
        ("Nobody's with the code's attack mode", 'Unknown method "Nobody\'s"'),
    ],
)
def test_a_single_difference_that_is_none_is_refused(mine, name, message):
    mine(EVERYTHING)
    with pytest.raises(UnknownNameError, match=message):
        methods.get(name)


def test_a_row_with_label_mixing_has_no_released_code():
    row = Method(
        "Mine",
        "",
        (Term("KL", "T(x)", "S(x*)"),),
        MINE.maximises,
        {"kl_reduction": "mean"},
        code={"attack_mode": "train"},
    )
    mixed = methods.with_label_mixing(row, "a test")
    assert mixed.code == {}
    assert mixed.read("paper").attack_mode == "eval"


# profiles, comparisons and plans


def test_a_recipe_is_that_of_the_reading(mine):
    mine({**EVERYTHING, "recipe": ANOTHER_RECIPE, "settings": {"l": 0.5}}, recipe={**ANOTHER_RECIPE, "epochs": 12})
    paper, quick = profiles.PROFILES["paper"], profiles.PROFILES["quick"]
    specs = [paper.spec("Mine"), paper.spec("Mine", reading="code")]
    assert [(spec.reading, spec.epochs, dict(spec.settings)["l"]) for spec in specs] == [
        ("paper", 12, L),
        ("code", 34, 0.5),
    ]
    of_quick = quick.spec("Mine", reading="code")
    assert (of_quick.epochs, dict(of_quick.settings)["l"]) == (quick.epochs, 0.5)
    assert paper.spec("Mine", reading="code", settings={"l": 0.25}).settings == (("l", 0.25),)


@pytest.mark.usefixtures("store")
def test_a_line_of_a_comparison_is_of_the_reading_it_names(mine):
    mine(EVERYTHING)
    sizes = {"epochs": 2, "swa_start": 1, "n_train": 64, "n_val": 32, "n_test": 40, "attack_steps": 1}
    planner = plan.Planner()
    with executors.using(planner):
        asked = exhibits.setup("tab1_white_box", "smoke", **sizes)
        entries = {"paper": Entry("Mine"), "code": Entry("Mine", changes={"reading": "code"})}
        trained = comparisons.train_entries(asked, entries)
    assert [trained.runs[name][0].spec.reading for name in entries] == ["paper", "code"]
    assert {task.spec.reading for task in planner.trainings} == {"paper", "code"}
    assert trained.chosen["code"][0].spec == trained.runs["code"][0].spec


@pytest.mark.usefixtures("store", "one_block")
def test_a_plan_counts_attacks_in_train_mode_and_passes_for_statistics(mine, monkeypatch):
    mine(EVERYTHING)
    steps = 3
    of_paper, of_code = (tiny_spec("Mine", reading=reading, attack_steps=steps) for reading in ("paper", "code"))
    planner = plan.Planner()
    with executors.using(planner):
        planner.gather([Train(of_paper), Train(of_code)])
    work = {line.name.split(maxsplit=1)[1]: line.work for line in plan.count(planner, calibrated=False).trainings}
    images = 2 * 2 * 64  # epochs, steps, images
    paper = steps * (FORWARD + TO_THE_IMAGE) + 2 * (FORWARD + TO_THE_WEIGHTS)
    expected = {"Mine resnet18/16": images * 2 * paper, "Mine (code) resnet18/16": images * 2 * (paper + 2 * FORWARD)}
    assert work == expected, "no gradient of a weight in an attack, and two passes more"
    monkeypatch.setattr(estimate, "LEAST", 0.0)
    known = cost.Costs()
    more = estimate.training(of_code, known) - estimate.training(of_paper, known)
    assert more == pytest.approx(images * 2 * known.forward("resnet18/16", "digits"))
