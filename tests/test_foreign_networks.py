"""Networks, images and labels from elsewhere that do not fit are refused before they give numbers."""

import math

import pytest
import torch
from conftest import tiny_spec
from torch import nn

from rkdkit import attacks, autoattack, data, evaluation, models, runs
from rkdkit.analysis.features import similarities
from rkdkit.training import Training

CLASSES = 5
PGD = attacks.PGD(0.1, 0.05, 3)
SQUARE = autoattack.Square(0.1, queries=3)


class Foreign(nn.Module):
    """A user's own network of 8 x 8 grey images: linear, its logits made into something else by `change`."""

    def __init__(self, change=lambda logits: logits, classes=CLASSES):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.change = nn.Linear(64, classes), change
        self.asked = []

    def forward(self, x):
        self.asked.append(len(x))
        return self.change(self.layer(x.flatten(1)))


@pytest.fixture(scope="module")
def some(digits):
    """Seven images and labels below 5."""
    split = digits.test.take(digits.test.labels < CLASSES).take(slice(0, 7))
    return data.to_float(split.images), split.labels


WAYS = {
    "natural images": lambda n, x, y: evaluation.accuracy(n, x, y),
    "attacked": lambda n, x, y: evaluation.accuracy(n, x, y, PGD),
    "evaluated": lambda n, x, y: evaluation.evaluate(n, x, y, {"clean": None}),
    "logits": lambda n, x, y: evaluation.logits([n], x, y),
    "a quantity": lambda n, x, y: evaluation.per_image("cross entropy", n, x, y),
    "another's judge": lambda n, x, y: evaluation.correct_predictions([Foreign(), n], x, y, PGD, Foreign()),
    "attacked, not judged": lambda n, x, y: evaluation.correct_predictions([Foreign()], x, y, PGD, n),
    "by Square": lambda n, x, y: evaluation.accuracy(n, x, y, SQUARE),
    "transferred from Square": lambda n, x, y: evaluation.correct_predictions([Foreign()], x, y, SQUARE, n),
    "an attack alone": lambda n, x, y: PGD(n, x, y),
    "DeepFool alone": lambda n, x, y: attacks.DeepFool(0.1)(n, x, y),
    "Square alone": lambda n, x, y: SQUARE(n, x, y),
    "Square's verdicts": lambda n, x, y: SQUARE.correct(n, x, y),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda z: z[..., None], r"torch.float32 of shape \(\d, 5, 1\)"),
        (lambda z: z[:, None], r"torch.float32 of shape \(\d, 1, 5\)"),
        (lambda z: z.sum(0), r"torch.float32 of shape \(5,\)"),
        (lambda z: torch.cat([z, z]).mean(0, keepdim=True), None),
        (lambda z: z.argmax(1), r"torch.int64 of shape \(\d,\)"),
        (lambda z: z.long(), r"torch.int64 of shape \(\d, 5\)"),
        (lambda z: z[:, :0], r"torch.float32 of shape \(\d, 0\)"),
        (lambda z: (z, z), "a tuple"),
        (lambda z: {"logits": z}, "a dict"),
    ],
    ids=["column", "row", "summed", "mean of the batch", "classes", "whole", "no classes", "tuple", "dict"],
)
def test_what_is_not_one_row_of_logits_per_image_is_refused(some, way, change, found):
    found = found or r"torch.float32 of shape \(1, 5\)"
    message = rf"Foreign must return logits, one row per image: .* It returns {found}"
    with pytest.raises(ValueError, match=message):
        WAYS[way](Foreign(change), *some)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y.index_fill(0, torch.tensor(6), -1), "labels must .*values go from -1 to"),
        (lambda y: y.index_fill(0, torch.tensor(6), 5), r"labels must lie in 0\.\.4, but their values go from \d to 5"),
        (lambda y: y + 1000, r"labels must lie in 0\.\.4"),
        (lambda y: y.float(), "labels must be int64"),
        (lambda y: y.int(), "labels must be int64"),
        (lambda y: y[:, None], r"labels must be int64 of shape \(7,\)"),
        (lambda y: y[:6], r"labels must be int64 of shape \(7,\)"),
        (lambda y: y.tolist(), "labels must be a torch.Tensor, not a list"),
    ],
    ids=["negative", "one too large", "all too large", "float", "int32", "column", "short", "list"],
)
def test_labels_that_are_no_classes_of_a_network_that_does_not_say_its_number_are_refused(some, way, change, message):
    images, labels = some
    with pytest.raises(ValueError, match=message):
        WAYS[way](Foreign(), images, change(labels))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:0], r"There are no images: images have shape \(0, 1, 8, 8\)"),
        (lambda x: x.index_fill(0, torch.tensor(6), math.nan), "images contain NaN"),
        (lambda x: x + 0.5, r"images must lie in \[0, 1\]"),
        (lambda x: -x, r"images must lie in \[0, 1\]"),
        (lambda x: x[0], r"images must have shape \(N, C, H, W\)"),
        (lambda x: (255 * x).int(), "images must be uint8 or floating point"),
        (lambda x: x.numpy(), "images must be a torch.Tensor, not a ndarray"),
    ],
    ids=["none", "nan", "light", "dark", "one", "int", "numpy"],
)
def test_images_that_are_none_are_refused(some, way, change, message):
    images, labels = some
    images = change(images)
    with pytest.raises(ValueError, match=message):
        WAYS[way](Foreign(), images, labels[: len(images)] if len(images) != 1 else labels)


def test_a_trained_networks_features_are_of_some_images(trained, digits):
    with pytest.raises(ValueError, match="There are no images"):
        similarities(trained, trained, digits.test.images[:0], digits.test.labels[:0], PGD)


@pytest.mark.parametrize("attack", [PGD, attacks.FGSM(0.1), attacks.DeepFool(0.1), SQUARE], ids=str)
@pytest.mark.parametrize(
    ("images", "weights", "message"),
    [
        (torch.float16, torch.float32, "images must be float32, not torch.float16"),
        (torch.bfloat16, torch.bfloat16, "images must be float32, not torch.bfloat16"),
        (torch.float64, torch.float32, "images are torch.float64, but the weights of Foreign torch.float32: convert"),
        (torch.float32, torch.float64, "images are torch.float32, but the weights of Foreign torch.float64: convert"),
    ],
)
def test_an_attack_takes_images_of_the_networks_precision_and_of_no_less_than_float32(
    some, attack, images, weights, message
):
    with pytest.raises(ValueError, match=message):
        attack(Foreign().to(weights), some[0].to(images), some[1])


def test_an_evaluation_is_of_networks_in_float32(some):
    wide = Foreign().double()
    for judges, attacked in (([wide], None), ([Foreign(), wide], None), ([Foreign()], wide)):
        with pytest.raises(ValueError, match=r"weights of Foreign torch.float64: evaluations are .*network.float\(\)"):
            evaluation.correct_predictions(judges, *some, PGD, attacked)
    half = some[0].half()
    assert torch.equal(
        evaluation.logits([Foreign()], half, some[1]), evaluation.logits([Foreign()], half.float(), some[1])
    )


def test_networks_of_different_classes_are_not_compared(some):
    with pytest.raises(ValueError, match=r"must have the same classes, but they have \[5, 10\] of them"):
        evaluation.correct_predictions([Foreign(), Foreign(classes=10)], *some)


@pytest.mark.parametrize("size", [0, -1, math.nan])
def test_a_batch_has_an_image(some, size):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluation.logits([Foreign()], *some, batch_size=size)


def test_a_network_from_elsewhere_is_asked_once_more_in_all_and_not_at_each_step(some):
    network = Foreign()
    PGD(network, *some)
    assert network.asked == [7] * (1 + PGD.steps)
    network.asked.clear()
    evaluation.correct_predictions([network], *some, PGD, batch_size=3)
    passes = PGD.steps + 1  # and its answer to what was made
    assert network.asked == [3] * (1 + passes) + [3] * passes + [1] * passes


def test_the_kits_own_networks_are_not_asked_more_often(trained, digits):
    asked = []
    handle = trained.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    try:
        PGD(trained, data.to_float(digits.test.images[:7]), digits.test.labels[:7])
    finally:
        handle.remove()
    assert asked == [7] * PGD.steps


def test_a_flag_does_not_make_a_network_one_of_the_kits(some):
    network = Foreign(lambda z: z[..., None])
    network.folded, network.num_classes = True, CLASSES
    with pytest.raises(ValueError, match="must return logits"):
        PGD(network, *some)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: (z, z), "The teacher mine must answer with logits, not with a tuple"),
        (lambda z: z[..., None], r"The teacher mine answers two images with logits of shape \(2, 10, 1\)"),
        (lambda z: z.mean(0), r"logits of shape \(10,\)"),
        (lambda z: z.mean(0, keepdim=True), r"logits of shape \(1, 10\)"),
    ],
)
def test_a_teacher_that_does_not_answer_with_logits_is_refused(digits, change, message):
    module = Foreign(change, classes=10)
    spec = tiny_spec("ARD", teachers=(runs.foreign_teacher(module, "mine"),))
    with pytest.raises(ValueError, match=message):
        Training(spec, digits, torch.device("cpu"), [module])


def test_a_network_of_the_kit_still_refuses_labels_by_its_number_of_classes(some):
    network = models.build("resnet18/16", 3, [0.5], [0.25]).eval()
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        PGD(network, *some)
