"""Images in memory: what is refused, held-out images, augmentation and batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rkdkit import data


def test_channel_statistics_are_those_of_the_pixels(digits):
    pixels = digits.train.images.double() / 255
    (mean,), (std,) = digits.channel_statistics
    assert mean == pytest.approx(pixels.mean().item())
    assert std == pytest.approx(pixels.std(correction=0).item())


@given(n_train=st.none() | st.integers(1, 1000), n_val=st.integers(0, 300))
def test_validation_images_are_held_out_and_the_same_whatever_is_trained_on(n_train, n_val):
    digits = data.load("digits")
    numbered = data.Split(torch.zeros(1300, 1, 1, 1, dtype=torch.uint8), torch.arange(1300))
    dataset = data.Dataset("numbered", numbered, numbered, tuple(map(str, range(1300))), "made up")
    train, val = dataset.split_validation(n_train, n_val)
    assert (len(train), len(val)) == (1300 - n_val if n_train is None else n_train, n_val)
    assert not set(train.labels.tolist()) & set(val.labels.tolist())
    assert torch.equal(val.labels, dataset.split_validation(1, n_val)[1].labels)
    assert digits.split_validation(n_train, n_val)[0].images.dtype == torch.uint8


def test_more_images_than_there_are_are_refused(digits):
    with pytest.raises(ValueError, match="digits has 1,300 training images: n_train 1,290 and n_val 20"):
        digits.split_validation(1290, 20)


def split(images, labels):
    return data.Split(images, labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), "must be uint8"),
        (torch.full((2, 1, 4, 4), float("nan")), torch.zeros(2, dtype=torch.int64), "contain NaN"),
        (torch.full((2, 1, 4, 4), 2.0), torch.zeros(2, dtype=torch.int64), r"must lie in \[0, 1\]"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"shape \(N, C, H, W\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), r"must lie in 0..1, but .* from 0 to 2"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), "one per image"),
    ],
)
def test_a_dataset_of_bad_images_or_labels_is_refused(images, labels, message):
    good = split(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(ValueError, match=message):
        data.Dataset("mine", split(images, labels), good, ("a", "b"), "made up")
    with pytest.raises(ValueError, match=f"test .*{message}"):
        data.Dataset("mine", good, split(images, labels), ("a", "b"), "made up")


@given(seed=st.integers(0, 1000), n=st.integers(1, 6), channels=st.sampled_from([1, 3]), size=st.integers(1, 9))
def test_augmented_images_are_crops_of_the_padded_image_or_its_mirror(seed, n, channels, size):
    images = torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(seed)).byte()
    augmented = data.augment(images, "crop-flip", torch.Generator().manual_seed(seed))
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.uint8
    padded = torch.zeros(n, channels, size + 8, size + 8, dtype=torch.uint8)
    padded[:, :, 4 : 4 + size, 4 : 4 + size] = images
    for image, whole in zip(augmented, padded, strict=True):
        crops = [whole[:, y : y + size, x : x + size] for y in range(9) for x in range(9)]
        assert any(torch.equal(image, crop) or torch.equal(image, crop.flip(2)) for crop in crops)


def test_augmentation_shifts_and_mirrors():
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(200, 1, 1, 1)
    augmented = data.augment(images, "crop-flip", torch.Generator().manual_seed(0))
    assert len({tuple(image.flatten().tolist()) for image in augmented}) > 80
    assert data.augment(images, "none", torch.Generator()) is images


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
)
def test_cutout_blackens_one_clipped_square_and_nothing_else(seed, n, channels, height, width, dtype):
    images = torch.randint(1, 256, (n, channels, height, width), generator=torch.Generator().manual_seed(seed))
    images = images.to(dtype)
    before = data.augment(images, "crop-flip", torch.Generator().manual_seed(seed))
    after = data.augment(images, "crop-flip-cutout", torch.Generator().manual_seed(seed))
    assert after.dtype == dtype
    side = height // 2
    squares = []
    for y in range(-(side // 2), height - side // 2):
        for x in range(-(side // 2), width - side // 2):
            square = torch.ones(height, width, dtype=torch.bool)
            square[max(y, 0) : y + side, max(x, 0) : x + side] = False
            squares.append(square)
    for crop, image in zip(before, after, strict=True):
        assert any(torch.equal(crop * square, image) for square in squares)


@pytest.mark.parametrize("size", [32, 64])
def test_cutouts_square_is_half_as_high_as_the_image_around_any_pixel(size):
    white = torch.full((2000, 1, size, size), 255, dtype=torch.uint8)
    cut = data.augment(white, "crop-flip-cutout", torch.Generator().manual_seed(0))
    hidden = (cut == 0)[:, 0, 4:-4, 4:-4]  # cropping blackens no pixel farther in
    half = size // 2
    assert hidden.flatten(1).sum(1).max() == half**2
    # pixel 4 is hidden by squares around pixels 0 to size / 4 + 4, the one in the middle by half of them all
    share = hidden.float().mean(0)
    assert share[half - 4, half - 4] == pytest.approx(1 / 4, abs=0.04)
    assert share[0, 0] == pytest.approx(((size // 4 + 5) / size) ** 2, abs=0.04)


@given(n=st.integers(1, 50), batch_size=st.integers(1, 60))
def test_an_epochs_batches_are_of_one_size_and_without_repetition(n, batch_size):
    whole = data.Split(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.arange(n))
    seen = list(data.batches(whole, batch_size, "none", torch.Generator().manual_seed(0)))
    assert len(seen) == data.batches_per_epoch(n, batch_size)
    assert {len(b) for b in seen} == {min(n, batch_size)}
    labels = torch.cat([b.labels for b in seen]).tolist()
    assert len(labels) == len(set(labels))
    assert n - len(labels) < min(n, batch_size)
    assert all(b.images.dtype == torch.float32 for b in seen)


@given(
    n=st.integers(1, 50),
    n_more=st.integers(1, 20),
    batch_size=st.integers(1, 60),
    share=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_every_batch_has_its_share_of_extra_images(n, n_more, batch_size, share, seed):
    real = data.Split(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.arange(n))
    more = data.Split(torch.full((n_more, 1, 2, 2), 255, dtype=torch.uint8), torch.arange(100, 100 + n_more))
    seen = list(data.batches(real, batch_size, "none", torch.Generator().manual_seed(seed), more, share))
    size = min(n, batch_size)
    assert len(seen) == data.batches_per_epoch(n, batch_size)
    for batch in seen:
        assert len(batch) == size
        assert int((batch.labels >= 100).sum()) == round(share * size)
        assert torch.equal(batch.images[:, 0, 0, 0], (batch.labels >= 100).float())
    labels = torch.cat([batch.labels for batch in seen])
    from_real, from_more = labels[labels < 100].tolist(), labels[labels >= 100].tolist()
    assert len(from_real) == len(set(from_real)), "no real image twice in an epoch"
    for start in range(0, len(from_more), n_more):
        one_pass = from_more[start : start + n_more]
        assert len(one_pass) == len(set(one_pass)), "no extra image twice before all were seen"


def test_extra_images_come_in_another_order_each_time_they_are_gone_through():
    real = data.Split(torch.zeros(400, 1, 1, 1, dtype=torch.uint8), torch.zeros(400, dtype=torch.int64))
    more = data.Split(torch.zeros(20, 1, 1, 1, dtype=torch.uint8), torch.arange(20))
    seen = data.batches(real, 40, "none", torch.Generator().manual_seed(0), more, 0.5)
    orders = {tuple(batch.labels[20:].tolist()) for batch in seen}
    assert len(orders) == 10
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(20))}


def test_without_extra_images_the_draws_are_what_they_always_were():
    whole = data.Split(torch.arange(256, dtype=torch.uint8).view(16, 1, 4, 4), torch.arange(16))
    more = data.Split(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    for extra in ({}, {"extra": more, "extra_fraction": 0.0}):
        order, expected = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
        seen = list(data.batches(whole, 6, "crop-flip", order, **extra))
        permutation = torch.randperm(16, generator=expected)
        for i, batch in enumerate(seen):
            index = permutation[6 * i : 6 * i + 6]
            assert torch.equal(batch.labels, index)
            augmented = data.augment(whole.images[index], "crop-flip", expected)
            assert torch.equal(batch.images, data.to_float(augmented))
        assert torch.equal(order.get_state(), expected.get_state())


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), "half"])
def test_an_impossible_share_of_extra_images_is_refused_at_once(digits, share):
    with pytest.raises(ValueError, match="extra_fraction must be"):
        data.batches(digits.train, 8, "none", torch.Generator(), digits.test, share)


@pytest.mark.parametrize("extra", [None, data.Split(torch.zeros(0, 1, 8, 8), torch.zeros(0))])
def test_a_share_of_no_extra_images_is_refused(digits, extra):
    with pytest.raises(ValueError, match=r"extra_fraction is 0\.3, but there are no extra images"):
        data.batches(digits.train, 8, "none", torch.Generator(), extra, 0.3)
