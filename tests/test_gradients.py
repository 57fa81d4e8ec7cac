"""Input gradients whose values are known, and the numbers that are made of them."""

import math

import pytest
import torch
from conftest import tiny_spec
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from rkdkit import claims, runs
from rkdkit.analysis import gradients, intervals
from rkdkit.checks import UnknownNameError
from rkdkit.papers import peeraid_pictures


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


def test_an_interval_of_a_mean_is_students():
    values = torch.tensor([0.1, 0.4, 0.2, 0.9]).double()
    theirs = stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.95)
    ours = intervals.mean(values, "nats")
    assert (ours.low, ours.high, ours.n) == (pytest.approx(theirs.low), pytest.approx(theirs.high), 4)
    assert str(ours) == f"0.400 [{ours.low:.3f}, {ours.high:.3f}] nats"
    both = intervals.over_seeds([ours, ours])
    assert (both.low, both.seeds, both.unit) == (pytest.approx(ours.low), 2, "nats")
    with pytest.raises(ValueError, match="two images or more"):
        intervals.mean(values[:1])


@pytest.fixture(scope="module")
def measured(tmp_path_factory, digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        seeds = [runs.ensure(tiny_spec("PeerAiD", seed=seed, epochs=1)) for seed in (0, 1)]
        networks = {
            "natural": [run.snapshot("peer") for run in seeds],
            "peer": [run.snapshot("student") for run in seeds],
            "student": [run.snapshot("student") for run in seeds],
        }
        yield gradients.semantic_gradients(networks, digits, n=40, shown=3), networks, digits


def test_networks_are_measured_on_the_same_images(measured):
    found, networks, digits = measured
    assert found.mean("student", "similarity").value == pytest.approx(1)
    assert found.mean("natural", "similarity").value < 0.999
    some = digits.test.take(slice(0, 40))
    network = networks["natural"][1].load("cpu").double()
    maps = gradients.input_gradients(network, some.images.double() / 255, some.labels).abs().sum(1)
    assert torch.allclose(found.values["natural"]["gini"][1], gradients.gini(maps))


def test_what_is_drawn_is_the_first_image_of_each_class(measured):
    found, _, digits = measured
    assert found.classes == ("0", "1", "2")
    earlier = [digits.test.labels[:place].tolist() for place in found.shown]
    assert [label in labels for label, labels in enumerate(earlier)] == [False] * 3
    assert digits.test.labels[found.shown].tolist() == [0, 1, 2]
    assert found.pictures["peer"].shape == (3, 8, 8)
    table = found.table()
    assert len(table) == 3 * 3 * (1 + 3)
    assert set(table[table.image == "all"].seeds) == {2}


def test_a_difference_is_paired_image_by_image():
    first, second = torch.tensor([0.5, 0.7, 0.6]).double(), torch.tensor([0.4, 0.5, 0.45]).double()
    values = {"peer": {"gini": [first]}, "student": {"gini": [second]}}
    found = gradients.SemanticGradients(values, torch.tensor([0]), torch.zeros(1, 1, 2, 2), ("0",), {})
    difference = found.minus("peer", "student", "gini")
    margin = 4.302653 * 0.05 / math.sqrt(3)  # the differences are 0.1, 0.2 and 0.15
    assert (difference.value, difference.low) == pytest.approx((0.15, 0.15 - margin), abs=1e-6)
    assert difference.high == pytest.approx(0.15 + margin, abs=1e-6)


def test_without_a_student_there_is_nothing_to_compare_with(measured):
    _, networks, digits = measured
    with pytest.raises(UnknownNameError, match="Unknown network 'student'"):
        gradients.semantic_gradients({"peer": networks["peer"]}, digits)


def test_figure_6s_claims_are_judged_by_paired_differences():
    torch.manual_seed(0)
    noise = torch.rand(200).double() / 10

    def made_up(student, peer, natural):
        values = {
            name: {measure: [noise + level] for measure in gradients.MEASURES}
            for name, level in (("student", student), ("peer", peer), ("natural", natural))
        }
        return gradients.SemanticGradients(values, torch.tensor([0]), torch.zeros(1, 1, 2, 2), ("0",), {})

    def verdicts(*levels):
        return [claim.verdict for claim in peeraid_pictures.figure_6_claims(made_up(*levels))]

    assert verdicts(0.6, 0.5, 0.4) == [claims.HOLDS] * 3
    assert verdicts(0.4, 0.5, 0.4) == [claims.OPEN, claims.OPEN, claims.HOLDS]
    assert verdicts(0.3, 0.3, 0.4) == [claims.FAILS] * 3
