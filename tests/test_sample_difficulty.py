"""Which images are the easiest and the hardest, on images made by hand."""

import dataclasses

import pytest
import torch
from conftest import tiny_spec

from rkdkit import claims, data, runs
from rkdkit.analysis import sample_difficulty
from rkdkit.papers import rkd_difficulty


def by_hand():
    """Class 0 is black and class 1 white, but for the last image of each, which is nearly the other colour."""
    shades = torch.tensor([0, 0, 0, 0, 0, 204, 255, 255, 255, 255, 255, 51], dtype=torch.uint8)
    images = shades.view(12, 1, 1, 1).expand(12, 3, 2, 2)
    hardness = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.9] * 2)
    return sample_difficulty.Ranking(
        data.Split(images, torch.arange(12) // 6), ("airplane", "automobile"), [hardness, hardness]
    )


def test_an_image_like_the_other_class_has_negative_likeness():
    likeness = sample_difficulty.likeness(by_hand().split)
    black, white = 0.8 / 6, 1 - 0.8 / 6  # the mean images
    assert likeness[[0, 5, 6, 11]].tolist() == pytest.approx(
        [white - black, (white - 0.8) - (0.8 - black), white - black, (0.2 - black) - (white - 0.2)], abs=1e-5
    )


def test_a_flat_image_is_not_busy_and_a_chequered_one_as_busy_as_can_be():
    flat, chequered = torch.full((4, 4), 99), 255 * (torch.arange(4)[:, None] + torch.arange(4)) % 510
    striped = (255 * (torch.arange(4) % 2)).expand(4, 4)
    images = torch.stack([flat, chequered, striped]).to(torch.uint8)[:, None].expand(3, 3, 4, 4)
    busyness = sample_difficulty.busyness(data.Split(images, torch.zeros(3, dtype=torch.int64)))
    assert busyness.tolist() == pytest.approx([0.0, 1.0, 0.5])


def test_the_easiest_and_the_hardest_of_each_class():
    ranked = by_hand()
    easy, hard = ranked.extremes(1, 2)
    assert (easy.tolist(), hard.tolist()) == ([6, 7], [11, 10])
    table = ranked.table(2)
    assert list(table[table.drawn].image) == [0, 1, 4, 5, 6, 7, 10, 11]
    assert list(table["rank"]) == [1, 2, 3, 4, 5, 6] * 2
    with pytest.raises(ValueError, match=r"airplane has 6 images .* Set n_images to 3 or less"):
        sample_difficulty.check(ranked.split, ranked.classes, 4)
    with pytest.raises(ValueError, match="n_images must be at least 1"):
        sample_difficulty.check(ranked.split, ranked.classes, 0)
    with pytest.raises(ValueError, match=r"n_images must be a whole number, not 2\.5"):
        sample_difficulty.check(ranked.split, ranked.classes, 2.5)
    n = sample_difficulty.check(ranked.split, ranked.classes, 3.0)
    assert isinstance(n, int)
    assert len(ranked.extremes(0, n)[0]) == 3


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
    ranked = sample_difficulty.Ranking(data.Split(images, labels), ("airplane", "automobile"), [hardness])
    found = rkd_difficulty.figures_8_and_9_claims(ranked)
    assert [claim.verdict for claim in found] == [claims.HOLDS] * 8
    upside_down = dataclasses.replace(ranked, difficulty=[1 - hardness])
    assert {claim.verdict for claim in rkd_difficulty.figures_8_and_9_claims(upside_down)} == {claims.FAILS}
    grey = dataclasses.replace(ranked, split=data.Split(images[:, :1], labels))
    assert len(rkd_difficulty.figures_8_and_9_claims(grey)) == 2, "nothing is said of looks"


def test_a_ranking_is_by_the_training(store, digits):
    run, some = runs.ensure(tiny_spec("Natural"), store), digits.test.take(slice(0, 20))
    ranked = sample_difficulty.ranking([run], some, digits.classes, store=store)
    with torch.no_grad():
        answers = [run.snapshot(epoch=epoch).load("cpu")(some.images / 255).log_softmax(1) for epoch in (1, 2)]
    losses = [-answer[torch.arange(20), some.labels] for answer in answers]
    assert not torch.allclose(*losses, atol=0.01)
    assert torch.allclose(ranked.difficulty[0], sum(losses) / 2, atol=1e-4)
