"""Datasets: embedded, from torchvision's files, from a folder of images; and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rkdkit import data
from rkdkit.checks import UnknownNameError


def test_digits_are_embedded_and_their_split_is_fixed(digits):
    assert digits.train.images.shape == (1300, 1, 8, 8)
    assert (len(digits.train), len(digits.test), len(digits.classes)) == (1300, 497, 10)
    assert digits.train.images.max() == 255
    assert digits.digest == "559e9c58c09ae4b8"
    together = torch.cat([digits.train.images, digits.test.images]).flatten(1)
    from sklearn.datasets import load_digits

    original = torch.from_numpy(np.round(load_digits().images * 255 / 16)).flatten(1)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, original.tolist()))


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


def test_unknown_dataset_lists_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"Unknown dataset 'digit'. Did you mean 'digits'\? Known: digits, cifar10"
    ):
        data.load("digit")


def test_missing_cifar10_says_where_it_looked_and_how_to_get_it(tmp_path):
    with pytest.raises(data.DataNotFoundError, match=r"(?s)cifar-10-batches-py.*cifar10.*download=True.*RKDKIT_DATA"):
        data.load("cifar10", tmp_path)


def make_image_folder(root, per_class=2, size=(32, 32), mode="RGB"):
    random = np.random.RandomState(0)
    for part in ("train", "test"):
        for name in data.CIFAR10_CLASSES:
            folder = root / "cifar10" / part / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                shape = (*size, 3) if mode == "RGB" else size
                Image.fromarray(random.randint(0, 256, shape, np.uint8)).save(folder / f"{i:04d}.png")
    return root


def test_cifar10_from_a_folder_of_images(tmp_path):
    root = make_image_folder(tmp_path)
    dataset = data.load("cifar10", root)
    assert dataset.train.images.shape == (20, 3, 32, 32)
    assert dataset.source == "cifar10 from a folder of .png files"
    assert sorted(dataset.train.labels.tolist()) == sorted(list(range(10)) * 2)
    assert dataset.test.labels.tolist() != sorted(dataset.test.labels.tolist()), "not class by class"
    stored = {
        tuple(i.flatten().tolist()): int(y) for i, y in zip(dataset.test.images, dataset.test.labels, strict=True)
    }
    for label, name in enumerate(data.CIFAR10_CLASSES):
        pixels = np.asarray(Image.open(root / "cifar10" / "test" / name / "0001.png")).transpose(2, 0, 1)
        assert stored[tuple(pixels.flatten().tolist())] == label


def test_grey_images_are_read_as_colour(tmp_path):
    dataset = data.load("cifar10", make_image_folder(tmp_path, 1, mode="L"))
    assert torch.equal(dataset.train.images[:, 0], dataset.train.images[:, 1])


def test_a_damaged_image_file_is_named(tmp_path):
    root = make_image_folder(tmp_path)
    broken = root / "cifar10" / "train" / "cat" / "0001.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cat/0001\.png cannot be read"):
        data.load("cifar10", root)


def test_an_image_of_another_size_is_named(tmp_path):
    root = make_image_folder(tmp_path)
    Image.new("RGB", (31, 32)).save(root / "cifar10" / "test" / "dog" / "0000.png")
    with pytest.raises(ValueError, match=r"dog/0000\.png is 32x31 pixels, not 32x32"):
        data.load("cifar10", root)


def test_a_missing_class_folder_is_refused(tmp_path):
    root = make_image_folder(tmp_path)
    (root / "cifar10" / "test" / "ship").rename(root / "ship")
    (root / "cifar10" / "test" / "boat").mkdir()
    with pytest.raises(data.DataNotFoundError, match=r"test must hold .* Missing: ship; not a class: boat"):
        data.load("cifar10", root)


def test_a_jpeg_copy_says_so(tmp_path):
    root = make_image_folder(tmp_path)
    png = root / "cifar10" / "train" / "frog" / "0000.png"
    Image.open(png).save(png.with_suffix(".jpg"))
    source = "cifar10 from a folder of .jpg and .png files (a JPEG copy: not pixel-identical to the published images)"
    assert data.load("cifar10", root).source == source


def test_published_files_with_a_wrong_checksum_are_not_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    mark = tmp_path / "executed"
    bomb = f"cbuiltins\nopen\n(V{mark}\nVw\ntR.".encode()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]:
        (folder / name).write_bytes(bomb)
    with pytest.raises(ValueError, match="does not match its published checksum"):
        data.load("cifar10", tmp_path)
    assert not mark.exists()


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
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), "one an image"),
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
