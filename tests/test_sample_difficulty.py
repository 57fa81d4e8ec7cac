"""Which images are the easiest and the hardest, on images made by hand."""

import dataclasses
import math

import pytest
import torch
from agreed import agreed
from conftest import tiny_spec
from given import Given
from scipy.stats import rankdata, spearmanr

from rkdkit import claims, data, executors, exhibits, profiles, runs
from rkdkit.analysis import difficulty
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import fig13_sample_difficulty as fig13
from rkdkit.references import Images
from rkdkit.store import Store


def by_hand():
    """Class 0 is black and class 1 white, but for the last image of each, which is nearly the other colour."""
    shades = torch.tensor([0, 0, 0, 0, 0, 204, 255, 255, 255, 255, 255, 51], dtype=torch.uint8)
    images = shades.view(12, 1, 1, 1).expand(12, 3, 2, 2)
    hardness = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.9] * 2)
    return fig13.Ranking(
        data.Split(images, torch.arange(12) // 6), ("airplane", "automobile"), agreed(hardness, torch.arange(12) // 6)
    )


def test_an_image_like_the_other_class_has_negative_likeness():
    likeness = fig13.likeness(by_hand().split)
    black, white = 0.8 / 6, 1 - 0.8 / 6  # the mean images
    assert likeness[[0, 5, 6, 11]].tolist() == pytest.approx(
        [white - black, (white - 0.8) - (0.8 - black), white - black, (0.2 - black) - (white - 0.2)], abs=1e-5
    )


def test_a_flat_image_is_not_busy_and_a_chequered_one_as_busy_as_can_be():
    flat, chequered = torch.full((4, 4), 99), 255 * (torch.arange(4)[:, None] + torch.arange(4)) % 510
    striped = (255 * (torch.arange(4) % 2)).expand(4, 4)
    images = torch.stack([flat, chequered, striped]).to(torch.uint8)[:, None].expand(3, 3, 4, 4)
    busyness = fig13.busyness(data.Split(images, torch.zeros(3, dtype=torch.int64)))
    assert busyness.tolist() == pytest.approx([0.0, 1.0, 0.5])


def test_the_easiest_and_the_hardest_of_each_class():
    ranked = by_hand()
    easy, hard = ranked.extremes(1, 2)
    assert (easy.tolist(), hard.tolist()) == ([6, 7], [11, 10])
    table = ranked.table(2)
    assert list(table[table.drawn].image) == [0, 1, 4, 5, 6, 7, 10, 11]
    assert list(table["rank"]) == [1, 2, 3, 4, 5, 6] * 2


def test_too_few_images_to_draw_are_refused():
    images = Images("digits:3,8", n=40)
    labels = images.split().labels.tolist()
    assert (labels.count(0), labels.count(1)) == (22, 18)
    assert fig13.check(images, 9) == 9
    with pytest.raises(ValueError, match=r"8 has 18 images .* the 10 easiest and 10 hardest .* n_images to 9 or less"):
        fig13.check(images, 10)
    with pytest.raises(ValueError, match=r". has \d images to rank: at least six are needed"):
        fig13.check(images.first(9), 1)
    with pytest.raises(ValueError, match="n_images must be at least 1"):
        fig13.check(images, 0)
    with pytest.raises(ValueError, match=r"n_images must be a whole number, not 2\.5"):
        fig13.check(images, 2.5)
    n = fig13.check(images, 3.0)
    assert isinstance(n, int)
    assert len(by_hand().extremes(0, n)[0]) == 3


def test_train_and_test_images_can_be_ranked():
    asked = exhibits.setup("fig13_sample_difficulty", "smoke")
    trained_on, held_out = asked.dataset.split_validation(None, 0)
    assert (len(trained_on), len(held_out)) == (len(asked.dataset.train), 0)
    assert fig13.images_of(asked, "train").split().digest == trained_on.digest
    assert fig13.images_of(asked, "test").split().digest == asked.dataset.test.digest
    assert asked.dataset.classes == ("3", "8")
    with pytest.raises(UnknownNameError, match=r"Unknown part 'tets'\. Did you mean 'test'"):
        fig13.images_of(asked, "tets")


def test_figures_8_and_9s_claims():
    random = torch.Generator().manual_seed(0)
    hardness = torch.rand(200, generator=random)
    labels = torch.arange(200) % 2
    light = torch.where(labels == 0, 0.9 - 0.5 * hardness, 0.1 + 0.5 * hardness)  # light planes, dark cars
    blue = torch.where(labels == 0, 0.1 - 0.1 * hardness, 0.1 * hardness - 0.1)
    channels = torch.stack([light - blue / 2, light, light + blue / 2], 1).clamp(0, 1)
    # two values around the mean, the farther apart the harder a plane or the easier a car is
    apart = torch.where(labels == 0, hardness, 1 - hardness).view(200, 1, 1, 1) / 20 * torch.tensor([-1, 1, -1, 1])
    pixels = (channels.view(200, 3, 1, 1) + apart).clamp(0, 1).expand(200, 3, 4, 4)
    images = (255 * pixels).round().to(torch.uint8)
    ranked = fig13.Ranking(data.Split(images, labels), ("airplane", "automobile"), agreed(hardness))
    found = fig13.check_claims(ranked)
    assert [claim.verdict for claim in found] == [claims.HOLDS] * 9
    upside_down = dataclasses.replace(ranked, difficulty=agreed(1 - hardness))
    assert {claim.verdict for claim in fig13.check_claims(upside_down)[1:]} == {claims.FAILS}
    grey = dataclasses.replace(ranked, split=data.Split(images[:, :1], labels))
    assert len(fig13.check_claims(grey)) == 3, "nothing is said of looks"


@pytest.mark.usefixtures("store")
def test_a_ranking_is_by_the_loss_over_the_training():
    run, images = runs.ensure(tiny_spec("Natural")), Images("digits", n=20)
    ranked = fig13.measure([run, run], images)
    split, losses = images.split(), []
    for epoch in (1, 2):
        with torch.no_grad():
            answers = run.snapshot(epoch=epoch).load("cpu")(data.to_float(split.images)).double().softmax(1)
        losses.append(-answers[torch.arange(20), split.labels].log())
    assert torch.allclose(ranked.difficulty.scores[0].double(), (losses[0] + losses[1]) / 2, atol=1e-5)
    assert ranked.classes == tuple("0123456789")
    assert torch.equal(ranked.split.images, split.images)


def test_natural_trainings_of_other_seeds_rank(tmp_path):
    def answer(task):
        assert (task.quantity, task.attack, task.snapshot.spec.method) == ("cross entropy", None, "Natural")
        return torch.full((len(task.images),), task.snapshot.epoch + 10.0 * task.snapshot.spec.seed)

    executor = Given(Store(tmp_path), answer)
    with executors.using(executor):
        asked = exhibits.setup("fig13_sample_difficulty", "smoke", seed=3)
        (ranked_by,) = runs.ensure_all(difficulty.ranking_specs(asked, 3))
        executor.gathered.clear()
        ranking = fig13.measure(ranked_by, fig13.images_of(asked, "train"))
    assert len(executor.gathered) == 1
    assert ranking.difficulty.scores[:, 0].tolist() == [2.0 + 10 * seed for seed in (1003, 2003, 3003)]
    assert {run.spec.lr for run in ranked_by} == {asked.profile.lr / 10}
    assert torch.equal(ranking.difficulty.groups, ranking.split.labels)


def test_the_learning_rate_of_the_rankers_is_the_users_and_at_paper_the_papers(tmp_path):
    with executors.using(Given(Store(tmp_path), None)):
        asked = exhibits.setup("fig13_sample_difficulty", "smoke", lr=0.02)
        assert {spec.lr for spec in difficulty.ranking_specs(asked, 2)} == {0.02}
        for n in (1, 0, 2.5, "x"):
            with pytest.raises(ValueError, match="n_rankers"):
                difficulty.ranking_specs(asked, n)
    paper = dataclasses.replace(asked, profile=dataclasses.replace(profiles.PROFILES["paper"], **profiles.rkd("paper")))
    (spec, _) = difficulty.ranking_specs(paper, 2)
    assert (spec.lr, spec.schedule, spec.gamma, spec.epochs) == (0.1, "exponential", 0.9, 100), "RKD's appendix A"


def some_scores():
    random = torch.Generator().manual_seed(1)
    common = torch.randn(90, generator=random)
    return torch.stack([common + s * torch.randn(90, generator=random) for s in (0.5, 1.0, 1.5, 2.0)])


def test_agreement_is_spearmans_correlation():
    scores = some_scores()
    found = difficulty.Difficulty(scores, torch.zeros(90, dtype=torch.int64))
    expected = spearmanr(scores.numpy(), axis=1).statistic
    assert found.correlations == pytest.approx(expected)
    pairs = [expected[i, j] for i in range(4) for j in range(i)]
    assert found.agreement.value == pytest.approx(sum(pairs) / 6)
    assert found.agreement.low < found.agreement.value < found.agreement.high
    r = found.agreement.value
    assert found.reliability.value == pytest.approx(4 * r / (1 + 3 * r))
    assert (found.agreement.n, found.agreement.seeds) == (90, 4)
    assert found.of_images.tolist() == pytest.approx(((rankdata(scores.numpy(), axis=1) - 1) / 89).mean(0))


def test_the_interval_of_the_agreement_covers_that_of_all_images_nineteen_times_out_of_twenty():
    random = torch.Generator().manual_seed(2)
    covered = 0
    for _ in range(100):
        common = torch.randn(60, generator=random)
        found = difficulty.Difficulty(
            torch.stack([common + torch.randn(60, generator=random) for _ in range(3)]),
            torch.zeros(60, dtype=torch.int64),
        ).agreement
        covered += found.low < 6 / math.pi * math.asin(0.5 / 2) < found.high  # Spearman's, where Pearson's is 1/2
    assert 85 <= covered <= 99


def test_within_a_class_a_training_may_prefer_the_class_without_changing_ranks():
    scores, labels = some_scores(), torch.arange(90) % 2
    apart = scores + 100 * labels * torch.tensor([1, -1, 1, -1])[:, None]
    within, preferring = (difficulty.Difficulty(s, labels) for s in (scores, apart))
    assert torch.equal(within.ranks, preferring.ranks)
    assert preferring.is_reliable == within.is_reliable
    together = difficulty.Difficulty(apart, torch.zeros_like(labels))
    assert not together.is_reliable
    assert together.claim.verdict == claims.FAILS
    for label in (0, 1):
        own = within.ranks[:, labels == label]
        assert (float(own.min()), float(own.max())) == (0, 1)


def test_trainings_that_do_not_agree_rank_nothing():
    random = torch.Generator().manual_seed(0)
    ranking = by_hand()
    chance = difficulty.Difficulty(torch.rand(5, 12, generator=random), ranking.split.labels)
    unranked = dataclasses.replace(ranking, difficulty=chance)
    assert not unranked.table(2).drawn.any()
    assert unranked.in_words("train").endswith("do not rank alike.")
    assert ranking.in_words("train").startswith("Ranked by ")
    found = fig13.check_claims(unranked)
    assert [claim.text for claim in found] == [chance.claim.text]
    assert found[0].verdict != claims.HOLDS
