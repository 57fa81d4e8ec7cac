"""Datasets: embedded, from torchvision's files, from a folder of images; and what is refused."""

import numpy as np
import pytest
import torch
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
