"""Input gradients whose values are known, and the numbers that are made of them."""

import itertools
import math

import pytest
import torch
from conftest import tiny_spec
from hypothesis import given
from hypothesis import strategies as st
from questions import Pretending, each_makes_another_question, has_the_form_of
from scipy import stats
from torch import nn

from rkdkit import claims, executors, runs, statistics
from rkdkit.analysis import gradients
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import fig6_semantic_gradients as fig6
from rkdkit.measurements import Pass
from rkdkit.references import Images, Snapshot


def linear_network(weight):
    network = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight), bias=False)).double()
    network[1].weight.data = weight.double()
    return network


def test_a_linear_networks_gradient_is_its_weights_by_the_errors_of_its_answer():
    torch.manual_seed(0)
    weight, x, y = torch.randn(3, 8).double(), torch.rand(5, 2, 2, 2).double(), torch.tensor([0, 1, 2, 0, 1])
    network = linear_network(weight)
    errors = (x.flatten(1) @ weight.T).softmax(1) - nn.functional.one_hot(y, 3)
    expected = (errors @ weight).view_as(x)
    assert torch.allclose(gradients.input_gradients(network, x, y), expected)
    assert not x.requires_grad


def test_a_sure_network_still_has_the_right_direction():
    weight = torch.tensor([[60.0, 0], [0, 60]])
    x = torch.tensor([1.0, 0]).double().view(1, 1, 1, 2)
    gradient = gradients.input_gradients(linear_network(weight), x, torch.tensor([0])).flatten()
    assert gradient[0] == pytest.approx(-60 * math.exp(-60), rel=1e-6, abs=0)
    assert gradient[1] == pytest.approx(60 * math.exp(-60), rel=1e-6, abs=0)


def test_a_network_without_a_gradient_is_refused():
    network = linear_network(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="zero, NaN or infinite"):
        gradients.input_gradients(network, torch.rand(2, 1, 2, 2).double(), torch.tensor([0, 1]))


def test_a_picture_is_clipped_summed_and_scaled():
    gradient = torch.zeros(2, 2, 10, 10)
    gradient[:, 0, 0, 0], gradient[:, 1, 0, 0], gradient[:, 0, 5, 5] = -50.0, 50.0, 1.0
    limit = 3 * float(gradient[0].std())
    assert limit < 50
    shown = gradients.picture(gradient * torch.tensor([1.0, 7.0]).view(2, 1, 1, 1))
    assert shown[0, 0, 0] == 1
    assert shown[0, 5, 5] == pytest.approx(1 / (2 * limit))
    assert (shown.min(), shown[0].count_nonzero()) == (0, 2)
    assert torch.allclose(shown[0], shown[1]), "each image on a scale of its own"


def test_every_picture_has_its_own_scale():
    sizes = torch.tensor([[[[1.0, 1.5], [2.0, 1.0]]], [[[40.0, 20.0], [30.0, 20.0]]], [[[0.3, 0.4], [0.4, 0.2]]]])
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # opposite, so that nothing is clipped
    shown = gradients.picture(sizes * signs)
    expected = [[[0, 0.5], [1, 0]], [[1, 0], [0.5, 0]], [[0.5, 1], [1, 0]]]
    assert torch.allclose(shown, torch.tensor(expected), atol=1e-6)
    assert gradients.picture(torch.full((1, 1, 2, 2), 3.0)).tolist() == [[[0, 0], [0, 0]]], "one value is no picture"


def test_the_gini_index_of_one_pixel_and_of_all_alike():
    one = torch.zeros(1, 4, 4)
    one[0, 2, 1] = 3.0
    assert gradients.gini(one).item() == pytest.approx(1 - 1 / 16)
    assert gradients.gini(torch.full((1, 4, 4), 0.3)).item() == pytest.approx(0, abs=1e-6)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=20))
def test_the_gini_index_is_half_the_relative_mean_difference(values):
    x = torch.tensor(values, dtype=torch.float64)
    expected = (x[:, None] - x).abs().mean() / (2 * x.mean())
    assert gradients.gini(x[None]).item() == pytest.approx(float(expected), abs=1e-9)


def test_alignment_is_that_of_directions():
    image = torch.rand(1, 1, 3, 3)
    assert gradients.alignment(image, -4 * image).item() == pytest.approx(1)
    across = torch.zeros(2, 1, 1, 2)
    across[0, 0, 0, 0] = across[1, 0, 0, 1] = 1
    assert gradients.alignment(across[:1], across[1:]).item() == 0


@given(st.integers(-200, 0))
def test_a_cosine_does_not_depend_on_how_small_a_gradient_is(power):
    torch.manual_seed(0)
    images, other = torch.rand(2, 3, 1, 4, 4, dtype=torch.float64)
    scale = 10.0**power
    expected = [
        abs(float(a.flatten() @ b.flatten()) / float(a.norm() * b.norm())) for a, b in zip(images, other, strict=True)
    ]
    assert gradients.alignment(images, scale * other).tolist() == pytest.approx(expected)
    assert gradients.alignment(torch.zeros_like(images), other).tolist() == [0, 0, 0]


def test_an_interval_of_a_mean_is_students():
    values = torch.tensor([0.1, 0.4, 0.2, 0.9]).double()
    theirs = stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.95)
    ours = statistics.mean(values, "nats")
    assert (ours.low, ours.high, ours.n) == (pytest.approx(theirs.low), pytest.approx(theirs.high), 4)
    assert str(ours) == f"0.400 [{ours.low:.3f}, {ours.high:.3f}] nats"
    both = statistics.over_seeds([ours, ours])
    assert (both.low, both.seeds, both.unit) == (pytest.approx(ours.low), 2, "nats")
    with pytest.raises(ValueError, match="two images or more"):
        statistics.mean(values[:1])


IMAGES = Images("digits", n=40)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        seeds = [runs.ensure(tiny_spec("PeerAiD", seed=seed, epochs=1)) for seed in (0, 1)]
        networks = {
            "natural": [run.snapshot("peer") for run in seeds],
            "peer": [run.snapshot("student") for run in seeds],
            "student": [run.snapshot("student") for run in seeds],
        }
        yield fig6.measure(networks, IMAGES, shown=3), networks


def gradients_of(snapshot, images, labels):
    """The gradients of the cross entropy by plain torch, in float64."""
    x = (images.double() / 255).requires_grad_(True)
    loss = nn.functional.cross_entropy(snapshot.load("cpu").double()(x), labels, reduction="sum")
    return x.detach(), torch.autograd.grad(loss, x)[0]


def test_networks_are_measured_on_the_same_images(measured, digits):
    found, networks = measured
    assert found.mean("student", "similarity").value == pytest.approx(1)
    assert found.mean("natural", "similarity").value < 0.999
    some = digits.test.take(slice(0, 40))
    everything = []
    for name, snapshots in networks.items():
        for i, snapshot in enumerate(snapshots):
            x, gradient = gradients_of(snapshot, some.images, some.labels)
            _, students = gradients_of(networks["student"][i], some.images, some.labels)
            maps, their_maps = (each.abs().sum(1).flatten(1) for each in (gradient, students))
            differences = (maps[:, :, None] - maps[:, None]).abs().mean((1, 2))
            expected = {
                "gini": differences / (2 * maps.mean(1)),
                "alignment": (x * gradient).sum((1, 2, 3)).abs()
                / (x.flatten(1).norm(dim=1) * gradient.flatten(1).norm(dim=1)),
                "similarity": (maps * their_maps).sum(1) / (maps.norm(dim=1) * their_maps.norm(dim=1)),
            }
            for measure, values in expected.items():
                of_images = found.values[name][measure][i]
                assert torch.allclose(of_images, values, rtol=1e-10, atol=1e-12), (name, measure, i)
            if name != "peer":  # the same network as the student here
                everything += [expected["gini"], expected["alignment"]]
    for one, another in itertools.combinations(everything, 2):
        assert not torch.allclose(one, another), "or one could stand for another"


def test_what_is_drawn_is_the_first_image_of_each_class(measured, digits):
    found, networks = measured
    assert found.classes == ("0", "1", "2")
    earlier = [digits.test.labels[:place].tolist() for place in found.shown]
    assert [label in labels for label, labels in enumerate(earlier)] == [False] * 3
    assert digits.test.labels[found.shown].tolist() == [0, 1, 2]
    assert torch.equal(found.images, digits.test.images[found.shown])
    for name, snapshots in networks.items():
        _, gradient = gradients_of(snapshots[0], found.images, torch.tensor([0, 1, 2]))
        assert torch.allclose(found.pictures[name], gradients.picture(gradient).float(), atol=1e-6)
    assert not torch.allclose(found.pictures["natural"], found.pictures["student"], atol=0.1)
    table = found.table()
    assert len(table) == 3 * 3 * (1 + 3)
    assert set(table[table.image == "all"].seeds) == {2}


def test_a_second_time_nothing_is_measured(measured, monkeypatch):
    found, networks = measured

    def refuse(*_):
        raise AssertionError("whatever is not kept would need the network")

    monkeypatch.setattr(Snapshot, "read", refuse)
    again = fig6.measure(networks, IMAGES, shown=3)
    assert again.table().equals(found.table())
    assert all(torch.equal(again.pictures[name], found.pictures[name]) for name in networks)


def test_gradients_are_kept_by_all_that_they_depend_on(measured):
    _, networks = measured
    natural, student = networks["natural"][0], networks["student"][0]
    task = gradients.InputGradients(images=IMAGES, network=natural, student=student, shown=(2, 5))
    each_makes_another_question(task, network=student, student=natural, shown=(5, 2))
    assert task.passes() == [Pass(natural, None, natural, times=3), Pass(student, None, student, times=3)]
    own = gradients.InputGradients(images=IMAGES, network=student, student=student)
    assert own.passes() == [Pass(student, None, student, times=3)], "its maps are compared with themselves"
    for each in (task, own):
        (answer,) = runs.gather([each])
        has_the_form_of(each.placeholder(), answer)
    assert answer.pictures.shape == (0, 8, 8)


def test_gradients_are_asked_for_all_at_once_and_pretended_answers_are_a_table():
    networks = {
        name: [Snapshot(tiny_spec("PeerAiD", seed=seed), role) for seed in (0, 1)]
        for name, role in (("peer", "peer"), ("student", "student"))
    }
    with executors.using(Pretending()) as pretending:
        found = fig6.measure(networks, IMAGES)
        assert set(found.table().value) == {0.0}
    assert pretending.gathers == [4]
    assert [len(task.shown) for task in pretending.noted] == [8, 0, 8, 0], "only the first seed's are drawn"
    assert [task.student.spec.seed for task in pretending.noted] == [0, 1, 0, 1]


def test_a_difference_is_paired_image_by_image():
    first, second = torch.tensor([0.5, 0.7, 0.6]).double(), torch.tensor([0.4, 0.5, 0.45]).double()
    values = {"peer": {"gini": [first]}, "student": {"gini": [second]}}
    found = fig6.SemanticGradients(values, torch.tensor([0]), torch.zeros(1, 1, 2, 2), ("0",), {})
    difference = found.minus("peer", "student", "gini")
    margin = 4.302653 * 0.05 / math.sqrt(3)  # the differences are 0.1, 0.2 and 0.15
    assert (difference.value, difference.low) == pytest.approx((0.15, 0.15 - margin), abs=1e-6)
    assert difference.high == pytest.approx(0.15 + margin, abs=1e-6)


def test_without_a_student_there_is_nothing_to_compare_with(measured):
    _, networks = measured
    with pytest.raises(UnknownNameError, match="Unknown network 'student'"):
        fig6.measure({"peer": networks["peer"]}, IMAGES)


def test_figure_6s_claims_are_judged_by_paired_differences():
    torch.manual_seed(0)
    noise = torch.rand(200).double() / 10

    def made_up(student, peer, natural):
        values = {
            name: {measure: [noise + level] for measure in gradients.MEASURES}
            for name, level in (("student", student), ("peer", peer), ("natural", natural))
        }
        return fig6.SemanticGradients(values, torch.tensor([0]), torch.zeros(1, 1, 2, 2), ("0",), {})

    def verdicts(*levels):
        return [claim.verdict for claim in fig6.check_claims(made_up(*levels))]

    assert verdicts(0.6, 0.5, 0.4) == [claims.HOLDS] * 3
    assert verdicts(0.4, 0.5, 0.4) == [claims.OPEN, claims.OPEN, claims.HOLDS]
    assert verdicts(0.3, 0.3, 0.4) == [claims.FAILS] * 3
