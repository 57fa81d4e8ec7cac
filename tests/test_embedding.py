"""Separation of classes whose silhouette is known, and images that are too few or of no class."""

import itertools

import numpy as np
import pytest
import torch
from conftest import tiny_spec
from questions import Pretending, each_makes_another_question, has_the_form_of, name_of
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from rkdkit import attacks, claims, data, evaluation, executors, runs
from rkdkit.analysis import embedding
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import fig5_tsne as fig5
from rkdkit.measurements import Pass
from rkdkit.references import Images, Snapshot


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
    weights = embedding.resampled(labels, 50, seed=1)
    for label in (0, 3, 7):
        assert (weights[:, labels == label].sum(1) == 20).all()
    assert (weights == embedding.resampled(labels, 50, seed=1)).all()
    assert (weights != embedding.resampled(labels, 50, seed=2)).any()


def test_intervals_are_as_wide_as_new_images_scatter():
    found = []
    for seed in range(40):
        features, labels = clouds(1.0, seed=seed)
        weights = embedding.resampled(labels, 200, seed)
        found.append(embedding.silhouettes(features, labels, weights))
    scatter = np.std([value for value, _ in found])
    guessed = np.mean([resampled.std() for _, resampled in found])
    assert guessed == pytest.approx(scatter, rel=0.4)


def test_three_classes_are_drawn_by_seed_and_named_ones_are_taken(digits):
    everything = Images("digits")
    drawn = fig5.select(everything, seed=0)
    assert len(drawn.classes) == 3
    assert {str(label) for label in drawn.split().labels.tolist()} == set(drawn.classes)
    assert drawn == fig5.select(everything, seed=0)
    assert len({fig5.select(everything, seed=seed).classes for seed in range(5)}) > 1
    named = fig5.select(everything.first(200), ["8", "3"])
    assert named.classes == ("8", "3")
    assert fig5.select(everything.first(200), [8, 3]) == named, "digits may be given as numbers"
    labels = digits.test.labels[:200]
    assert torch.equal(named.split().labels, labels[(labels == 3) | (labels == 8)])


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"classes": ["3", "x"]}, UnknownNameError, "Unknown class of digits 'x'"),
        ({"classes": ["3"]}, ValueError, "Two to 6 different classes"),
        ({"classes": ["3", "3"]}, ValueError, "Two to 6 different classes"),
        ({"classes": "38"}, ValueError, "Two to 6 different classes"),
        ({"classes": list("0123456")}, ValueError, "Two to 6 different classes"),
        ({"classes": 38}, ValueError, "different classes are needed, not 38"),
        ({"n": 20}, ValueError, r"There are \d test images of class '\d' among the first 20"),
        ({"n": 60, "perplexity": 40}, ValueError, "A perplexity of 40 needs more than 40 images"),
        ({"perplexity": 0.5}, ValueError, "perplexity must be at least 1"),
    ],
)
def test_what_cannot_be_embedded_is_refused(asked, error, message):
    n = asked.pop("n", None)
    with pytest.raises(error, match=message):
        fig5.select(Images("digits", n=n), **asked)


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


def refuse(*_):
    raise AssertionError("whatever is not kept would need the network")


@pytest.mark.usefixtures("store")
def test_networks_are_asked_about_the_same_images_once(monkeypatch):
    run = runs.ensure(tiny_spec("PeerAiD", epochs=1))
    student, peer = run.snapshot("student"), run.snapshot("peer")
    selected, attack = fig5.select(Images("digits", n=60), ["0", "1"], perplexity=5), attacks.FGSM(0.25)
    networks = {"peer": [peer], "student": [student]}

    def measure():
        return fig5.measure(networks, [student], selected, attack, perplexity=5, resamplings=20, seed=4)

    found = measure()
    images, labels = selected.split().images, selected.split().labels
    n = len(labels)
    assert found.points.groupby(["network", "examples"]).size().tolist() == [n] * 4
    table = found.table()
    assert len(table) == 4 * n + 4
    against = evaluation.perturbed(student.load(), images, labels, attack)
    x = torch.cat([batch for batch, _ in against])
    assert (x - data.to_float(images)).abs().max() <= 0.25 + 1e-6
    right = evaluation.correct_predictions([peer.load()], x, labels)[0]
    expected = evaluation.correct_predictions([peer.load()], images, labels, attack, student.load())[0]
    assert torch.equal(right, expected), "the very examples that robust accuracy is measured on"
    scores = []
    for name, network in (("peer", peer), ("student", student)):
        features = {}
        for examples, shown in (("natural", data.to_float(images)), ("student", x)):
            score = found.silhouette(name, examples)
            features[examples] = given_to_the_head(network.load("cpu"), shown)
            assert score.value == pytest.approx(silhouette_score(features[examples], labels.numpy()), abs=1e-5)
            assert score.low < score.value < score.high
            scores.append(score.value)
        tsne = TSNE(perplexity=5, init="pca", random_state=4).fit_transform(np.concatenate(list(features.values())))
        drawn = found.points[found.points.network == name]
        assert drawn.examples.tolist() == ["natural"] * n + ["student"] * n
        assert drawn["class"].tolist() == [str(label) for label in labels.tolist()] * 2
        assert drawn.image.tolist() == [*range(n), *range(n)]
        assert np.array_equal(drawn[["x", "y"]], tsne)
    assert min(abs(a - b) for a, b in itertools.combinations(scores, 2)) > 0.001, "or one could stand for another"
    with pytest.raises(ValueError, match="One student per seed is needed, not 2"):
        fig5.measure({"peer": [peer]}, [student, student], selected, attack)
    monkeypatch.setattr(Snapshot, "read", refuse)
    assert measure().table().equals(table)


@pytest.mark.usefixtures("store")
def test_what_is_measured_of_features_is_kept_by_all_that_it_depends_on():
    spec = tiny_spec("PeerAiD", epochs=1)
    student, peer, attack = Snapshot(spec), Snapshot(spec, "peer"), attacks.FGSM(0.25)
    task = embedding.Embedded(
        images=Images("digits", n=20), network=peer, student=student, attack=attack, resamplings=3, seed=0, perplexity=5
    )
    each_makes_another_question(
        task, network=student, student=peer, attack=attacks.FGSM(0.2), resamplings=4, seed=1, perplexity=None
    )
    assert task.question(name_of, task.images.split())["perplexity"] == 5
    assert task.passes() == [Pass(peer, None, peer), Pass(peer, attack, student)]
    runs.ensure(spec)
    for each in (task, embedding.Embedded(**{**vars(task), "perplexity": None})):
        (answer,) = runs.gather([each])
        has_the_form_of(each.placeholder(), answer)
    assert answer.points is None


def test_only_the_first_seed_is_drawn_and_pretended_answers_are_a_table():
    runs_of = [tiny_spec("PeerAiD", seed=seed) for seed in (0, 1)]
    networks = {"peer": [Snapshot(spec, "peer") for spec in runs_of]}
    with executors.using(Pretending()) as pretending:
        images = fig5.select(Images("digits"), ["0", "1"])
        found = fig5.measure(networks, [Snapshot(spec) for spec in runs_of], images, attacks.FGSM(0.1), resamplings=7)
        assert len(found.table()) == 2 * len(images) + 2
    assert pretending.gathers == [2]
    assert [task.perplexity for task in pretending.noted] == [30, None]
    assert [task.student.spec.seed for task in pretending.noted] == [0, 1]
    assert found.silhouette("peer", "natural").seeds == 2


def test_a_difference_is_paired_resampling_by_resampling():
    scatter = np.linspace(-0.2, 0.2, 41)
    scores = {"a": embedding.Scores(0.5, 0.5 + scatter, 9), "b": embedding.Scores(0.3, 0.3 + 1.5 * scatter, 9)}
    found = fig5.Embedding(None, {name: {"student": [score]} for name, score in scores.items()})
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
    checked = fig5.check_claims(fig5.Embedding(None, by_network))
    assert [claim.verdict for claim in checked] == [claims.HOLDS, claims.FAILS, claims.OPEN, claims.OPEN]
    assert "(PGD-AT)" in checked[1].text
    assert "x*_S" in checked[1].text
