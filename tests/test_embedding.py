"""Separation of classes whose silhouette is known, and images that are too few or of no class."""

import itertools

import numpy as np
import pytest
import torch
from conftest import tiny_spec
from sklearn.metrics import silhouette_score

from rkdkit import attacks, claims, data, evaluation, runs
from rkdkit.analysis import embedding
from rkdkit.checks import UnknownNameError
from rkdkit.papers import peeraid_pictures


def clouds(distance, n=20, seed=0):
    """Three classes around the corners of a triangle, and resamplings of them."""
    labels = np.repeat([0, 3, 7], n)
    corners = np.repeat(distance * np.array([[0.0, 0], [1, 0], [0, 1]]), n, axis=0)
    return corners + np.random.default_rng(seed).normal(size=(3 * n, 2)), labels


def test_the_silhouette_of_all_images_is_scikit_learns():
    for distance in (0.0, 2.0, 50.0):
        features, labels = clouds(distance)
        value, _ = embedding.silhouettes(features, labels, np.empty((0, 60)))
        assert value == pytest.approx(silhouette_score(features, labels))


def test_two_pairs_of_points_have_a_silhouette_known_by_hand():
    features, labels = np.array([[0.0], [1], [10], [11]]), np.array([0, 0, 1, 1])
    value, _ = embedding.silhouettes(features, labels, np.empty((0, 4)))
    assert value == pytest.approx((2 * (1 - 1 / 10.5) + 2 * (1 - 1 / 9.5)) / 4)


def test_copies_of_an_image_are_no_neighbours_of_it():
    features, labels = clouds(1.0)
    _, doubled = embedding.silhouettes(features, labels, np.full((1, 60), 2.0))
    value, _ = embedding.silhouettes(features, labels, np.empty((0, 60)))
    # twice everything: an image's other copy counts for nothing, all others twice
    assert doubled[0] == pytest.approx(value)


def test_images_in_one_place_are_not_told_apart():
    value, _ = embedding.silhouettes(np.zeros((10, 3)), np.arange(10) % 2, np.empty((0, 10)))
    assert value == 0


def test_resampling_keeps_the_size_of_classes_and_follows_its_seed():
    labels = clouds(1.0)[1]
    weights = embedding._resampled(labels, 50, seed=1)
    for label in (0, 3, 7):
        assert (weights[:, labels == label].sum(1) == 20).all()
    assert (weights == embedding._resampled(labels, 50, seed=1)).all()
    assert (weights != embedding._resampled(labels, 50, seed=2)).any()


def test_intervals_are_as_wide_as_new_images_scatter():
    found = []
    for seed in range(40):
        features, labels = clouds(1.0, seed=seed)
        weights = embedding._resampled(labels, 200, seed)
        found.append(embedding.silhouettes(features, labels, weights))
    scatter = np.std([value for value, _ in found])
    guessed = np.mean([resampled.std() for _, resampled in found])
    assert guessed == pytest.approx(scatter, rel=0.4)


def test_three_classes_are_drawn_by_seed_and_named_ones_are_taken(digits):
    drawn = embedding.select(digits, seed=0)
    assert len(drawn.classes) == 3
    assert set(drawn.split.labels.tolist()) == set(drawn.classes)
    assert drawn.classes == embedding.select(digits, seed=0).classes
    assert len({tuple(embedding.select(digits, seed=seed).classes) for seed in range(5)}) > 1
    named = embedding.select(digits, ["8", "3"], n=200)
    assert named.classes == {8: "8", 3: "3"}
    assert embedding.select(digits, [8, 3]).classes == named.classes, "digits may be given as numbers"
    assert len(named.split) == int(torch.isin(digits.test.labels[:200], torch.tensor([3, 8])).sum())


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"classes": ["3", "x"]}, UnknownNameError, "Unknown class of digits 'x'"),
        ({"classes": ["3"]}, ValueError, "Two to 6 different classes"),
        ({"classes": ["3", "3"]}, ValueError, "Two to 6 different classes"),
        ({"classes": "38"}, ValueError, "Two to 6 different classes"),
        ({"classes": list("0123456")}, ValueError, "Two to 6 different classes"),
        ({"classes": 38}, ValueError, "are needed to be told apart, not 38"),
        ({"n": 20}, ValueError, r"There are \d test images of class '\d' among the first 20"),
        ({"n": 60, "perplexity": 40}, ValueError, "A perplexity of 40 needs more than 40 images"),
        ({"perplexity": 0.5}, ValueError, "perplexity must be at least 1"),
    ],
)
def test_what_cannot_be_embedded_is_refused(digits, asked, error, message):
    with pytest.raises(error, match=message):
        embedding.select(digits, **asked)


def test_a_network_without_the_feature_layer_is_refused():
    with pytest.raises(ValueError, match="Flatten shows no penultimate features"):
        embedding.penultimate(torch.nn.Flatten(), torch.rand(1, 1, 2, 2))


def given_to_the_head(network, images):
    """What a network's last layer is given, as a hook sees it."""
    seen = []
    network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0].numpy()))
    with torch.no_grad():
        network(images)
    return seen[0]


def test_networks_are_asked_about_the_same_images(digits, store):
    run = runs.ensure(tiny_spec("PeerAiD", epochs=1), store)
    student, peer = run.snapshot("student"), run.snapshot("peer")
    selection, attack = embedding.select(digits, ["0", "1"], n=60, perplexity=5), attacks.FGSM(0.25)
    found = embedding.embed({"peer": [peer], "student": [student]}, [student], selection, attack, resamplings=20)
    n = len(selection.split)
    assert found.points.groupby(["network", "examples"]).size().tolist() == [n] * 4
    table = found.table()
    assert len(table) == 4 * n + 4
    against = evaluation.perturbed(student.load(), selection.split.images, selection.split.labels, attack)
    x = torch.cat([batch for batch, _ in against])
    assert (x - data.to_float(selection.split.images)).abs().max() <= 0.25 + 1e-6
    right = evaluation.correct_predictions([peer.load()], x, selection.split.labels)[0]
    images, labels = selection.split.images, selection.split.labels
    expected = evaluation.correct_predictions([peer.load()], images, labels, attack, student.load())[0]
    assert torch.equal(right, expected), "the very examples that robust accuracy is measured on"
    scores = []
    for name, network in (("peer", peer), ("student", student)):
        for examples, shown in (("natural", data.to_float(images)), ("student", x)):
            score = found.silhouette(name, examples)
            features = given_to_the_head(network.load("cpu"), shown)
            assert score.value == pytest.approx(silhouette_score(features, labels.numpy()), abs=1e-5)
            assert score.low < score.value < score.high
            scores.append(score.value)
    assert min(abs(a - b) for a, b in itertools.combinations(scores, 2)) > 0.001, "or one could stand for another"
    with pytest.raises(ValueError, match="One student a seed is needed, not 2"):
        embedding.embed({"peer": [peer]}, [student, student], selection, attack)


def test_a_difference_is_paired_resampling_by_resampling():
    scatter = np.linspace(-0.2, 0.2, 41)
    scores = {"a": embedding.Scores(0.5, 0.5 + scatter, 9), "b": embedding.Scores(0.3, 0.3 + 1.5 * scatter, 9)}
    found = embedding.Embedding(None, {name: {"student": [score]} for name, score in scores.items()})
    difference = found.minus("a", "b", "student")
    # half the scatter remains, from 0.2 - 0.1 to 0.2 + 0.1, and 95 % of that
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.2, 0.105, 0.295))
    assert found.minus("b", "a", "student").value == pytest.approx(-0.2)


def test_figure_5s_claims_compare_the_peer_with_each_teacher():
    spread = np.random.default_rng(0).normal(0, 0.01, 500)

    def scores(natural, student):
        return {"natural": [_scores(natural)], "student": [_scores(student)]}

    def _scores(value):
        return embedding.Scores(value, value + spread * (1 + value), 100)

    by_network = {"PGD-AT": scores(0.2, 0.6), "TRADES": scores(0.5, 0.5), "peer": scores(0.5, 0.5)}
    checked = peeraid_pictures.figure_5_claims(embedding.Embedding(None, by_network))
    assert [claim.verdict for claim in checked] == [claims.HOLDS, claims.FAILS, claims.OPEN, claims.OPEN]
    assert "(PGD-AT)" in checked[1].text
    assert "x*_S" in checked[1].text
