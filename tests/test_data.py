"""Datasets by name: embedded, from published files, folders and archives of images; and what is refused."""

import hashlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from fifos import fifo
from PIL import Image

from rkdkit import data, image_files
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
        UnknownNameError,
        match=r"Unknown dataset 'digit'. Did you mean 'digits'\? Known: digits, scattered, moons, circles, cifar10",
    ):
        data.load("digit")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", r"(?s)cifar-10-batches-py.*cifar10.*import CIFAR10; .*download=True.*RKDKIT_DATA"),
        ("cifar100", r"(?s)cifar-100-python.*cifar100.*import CIFAR100; .*download=True.*RKDKIT_DATA"),
        ("tiny_imagenet", r"(?s)tiny-imagenet-200.*wnids\.txt is not there.*tiny-imagenet-200\.zip.*RKDKIT_DATA"),
        ("folder:mine", r"mine/train does not hold .* train/<class>/\*\.png .*RKDKIT_DATA"),
    ],
)
def test_a_missing_dataset_says_where_it_was_looked_for_and_how_to_get_it(tmp_path, name, message):
    with pytest.raises(data.DataNotFoundError, match=message):
        data.load(name, tmp_path)


def save_image(path, size=(32, 32), mode="RGB"):
    """Save an image whose pixels follow from its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(int(hashlib.sha256("/".join(path.parts[-3:]).encode()).hexdigest()[:8], 16))
    shape = size if mode == "L" else (*size, len(mode))
    Image.fromarray(random.randint(0, 256, shape, np.uint8)).save(path)


def make_image_folder(root, name="cifar10", classes=data.CIFAR10_CLASSES, per_class=2, **image):
    for part in ("train", "test"):
        for each in classes:
            for i in range(per_class):
                save_image(root / name / part / each / f"{i:04d}.png", **image)
    return root


def label_of_pixels(split):
    return {i.numpy().tobytes(): int(y) for i, y in zip(split.images, split.labels, strict=True)}


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).tobytes()


def test_cifar10_from_a_folder_of_images(tmp_path):
    root = make_image_folder(tmp_path)
    dataset = data.load("cifar10", root)
    assert dataset.train.images.shape == (20, 3, 32, 32)
    assert dataset.source == "cifar10 from a folder of .png files"
    assert sorted(dataset.train.labels.tolist()) == sorted(list(range(10)) * 2)
    assert dataset.test.labels.tolist() != sorted(dataset.test.labels.tolist()), "not class by class"
    labels = label_of_pixels(dataset.test)
    for label, name in enumerate(data.CIFAR10_CLASSES):
        assert labels[pixels_of(root / "cifar10" / "test" / name / "0001.png")] == label


def test_grey_images_are_read_as_colour(tmp_path):
    dataset = data.load("cifar10", make_image_folder(tmp_path, per_class=1, mode="L"))
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
    with pytest.raises(ValueError, match=r"dog/0000\.png is 32x31 pixels in colour, not 32x32 pixels in colour"):
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


def test_cifar100_from_a_folder_of_images(tmp_path):
    dataset = data.load("cifar100", make_image_folder(tmp_path, "cifar100", data.CIFAR100_CLASSES, per_class=1))
    assert dataset.train.images.shape == (100, 3, 32, 32)
    assert dataset.classes == data.CIFAR100_CLASSES
    path = tmp_path / "cifar100" / "train" / "willow_tree" / "0000.png"
    assert label_of_pixels(dataset.train)[pixels_of(path)] == data.CIFAR100_CLASSES.index("willow_tree")


PUBLISHED = {
    "cifar10": ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], "test_batch", "batches.meta"),
    "cifar100": ("cifar-100-python", ["train"], "test", "meta"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_read_with_their_fine_labels(tmp_path, monkeypatch, name):
    folder, train, test, meta = PUBLISHED[name]
    (tmp_path / folder).mkdir()

    def publish(file, content):
        pickled = pickle.dumps(content)
        (tmp_path / folder / file).write_bytes(pickled)
        return [file, hashlib.md5(pickled).hexdigest()]

    random, key = np.random.RandomState(0), "labels" if name == "cifar10" else "fine_labels"
    content = {f: {"data": random.randint(0, 256, (2, 3072), np.uint8), key: [i, 9]} for i, f in enumerate(train)}
    reader = getattr(torchvision.datasets, name.upper())
    monkeypatch.setattr(reader, "train_list", [publish(file, content[file]) for file in train])
    monkeypatch.setattr(reader, "test_list", [publish(test, content[train[0]])])
    _, digest = publish(meta, {reader.meta["key"]: []})
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": digest})

    dataset = data.load(name, tmp_path)
    assert dataset.train.labels.tolist() == [label for i, _ in enumerate(train) for label in (i, 9)]
    assert torch.equal(dataset.test.images[0].flatten(), torch.from_numpy(content[train[0]]["data"][0]))
    assert dataset.classes == data.source_of(name).classes
    assert "as published" in dataset.source


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_with_a_wrong_checksum_are_not_unpickled(tmp_path, name):
    folder, train, test, meta = PUBLISHED[name]
    (tmp_path / folder).mkdir()
    mark = tmp_path / "executed"
    bomb = f"cbuiltins\nopen\n(V{mark}\nVw\ntR.".encode()
    for file in [*train, test, meta]:
        (tmp_path / folder / file).write_bytes(bomb)
    with pytest.raises(ValueError, match=f"{folder} is missing or does not match its published checksum"):
        data.load(name, tmp_path)
    assert not mark.exists()


WNIDS = ("n03", "n01", "n02")  # not sorted: the order of wnids.txt is that of the labels


@pytest.fixture
def tiny_imagenet(tmp_path, monkeypatch):
    """Tiny ImageNet with three classes of two training images and one validation image."""
    folder = tmp_path / "tiny-imagenet-200"
    for wnid in WNIDS:
        for i in range(2):
            save_image(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (64, 64), "L" if i else "RGB")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("not read")
    for i in range(3):
        save_image(folder / "val" / "images" / f"val_{i}.JPEG", (64, 64))
    lines = [f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, wnid in enumerate(sorted(WNIDS))]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    monkeypatch.setattr(data, "TINY_IMAGENET_SIZES", (6, 3))
    return folder


def test_tiny_imagenet_from_its_published_folder(tiny_imagenet):
    dataset = data.load("tiny_imagenet", tiny_imagenet.parent)
    assert dataset.train.images.shape == (6, 3, 64, 64)
    assert dataset.classes == WNIDS
    train, test = label_of_pixels(dataset.train), label_of_pixels(dataset.test)
    for label, wnid in enumerate(WNIDS):
        assert train[pixels_of(tiny_imagenet / "train" / wnid / "images" / f"{wnid}_0.JPEG")] == label
        grey = pixels_of(tiny_imagenet / "train" / wnid / "images" / f"{wnid}_1.JPEG")
        assert train[grey] == label
        assert grey[: 64 * 64] == grey[64 * 64 : 2 * 64 * 64]
    for i, wnid in enumerate(sorted(WNIDS)):
        assert test[pixels_of(tiny_imagenet / "val" / "images" / f"val_{i}.JPEG")] == WNIDS.index(wnid)


def test_a_part_of_tiny_imagenet_is_refused(tiny_imagenet, monkeypatch):
    (tiny_imagenet / "val" / "images" / "val_1.JPEG").write_bytes(b"")
    with pytest.raises(ValueError, match=r"val_1\.JPEG cannot be read"):
        data.load("tiny_imagenet", tiny_imagenet.parent)
    (tiny_imagenet / "train" / "n02" / "images" / "n02_0.JPEG").unlink()
    with pytest.raises(ValueError, match=r"train has 5 images, not 6\. Unpack the zip again"):
        data.load("tiny_imagenet", tiny_imagenet.parent)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="not 100,000"):
        data.load("tiny_imagenet", tiny_imagenet.parent)


@pytest.mark.parametrize("line", ["val_0.JPEG", "val_0.JPEG\tn09\t0\t0\t1\t1", "", "\xff"])
def test_a_damaged_line_of_tiny_imagenets_annotations_is_named(tiny_imagenet, line):
    table = tiny_imagenet / "val" / "val_annotations.txt"
    table.write_bytes(table.read_bytes() + f"{line}\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"Line 4 of .*val_annotations\.txt names no image and class"):
        data.load("tiny_imagenet", tiny_imagenet.parent)


def test_some_classes_are_relabelled_as_listed(digits):
    some = data.load("digits:7,0,3")
    assert some.classes == ("7", "0", "3")
    assert some.name == "digits:7,0,3"
    assert some.source.endswith("; only its classes 7, 0, 3")
    for part, whole in ((some.train, digits.train), (some.test, digits.test)):
        kept = [(int(y), image) for y, image in zip(whole.labels, whole.images, strict=True) if y in (7, 0, 3)]
        assert part.labels.tolist() == [[7, 0, 3].index(y) for y, _ in kept]
        assert torch.equal(part.images, torch.stack([image for _, image in kept]))
    assert some.digest not in (digits.digest, data.load("digits:0,7,3").digest)
    assert data.load("digits:7,0,3") is some


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10:airplan,cat", r"Unknown class of cifar10 'airplan'. Did you mean 'airplane'\?"),
        ("cifar10:cat, dog", r"Unknown class of cifar10 ' dog'. Did you mean 'dog'\?"),
        *((f"cifar10:{listed}", "two or more different classes") for listed in ("", "cat", "cat,", "cat,dog,cat")),
        ("tiny_imagenet:n01", "two or more different classes"),
        ("folder:mine:cat", "two or more different classes"),
        *((f"folder{path}", "must name one folder") for path in ("", ":", ":..", ":/etc", ":a/b", ":a\\b", "::a,b")),
        ("cifar:cat,dog", r"Unknown dataset 'cifar'. Did you mean 'cifar10'\?"),
        ("flowers", "Unknown dataset 'flowers'.*folder:NAME"),
    ],
)
def test_a_malformed_name_is_refused_before_anything_is_read(tmp_path, name, message):
    with pytest.raises(UnknownNameError, match=message):
        data.source_of(name)
    with pytest.raises(UnknownNameError, match=message):
        data.load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "eps", "augmentation"),
    [
        ("digits", 0.25, "none"),
        ("digits:1,7", 0.25, "none"),
        ("cifar100:oak_tree,sea", 8 / 255, "crop-flip"),
        ("tiny_imagenet", 8 / 255, "crop-flip"),
        ("folder:mine", 8 / 255, "crop-flip"),
        ("folder:mine:b,a", 8 / 255, "crop-flip"),
    ],
)
def test_what_is_known_of_a_dataset_needs_no_files(name, eps, augmentation):
    source = data.source_of(name)
    assert (source.eps, source.augmentation) == (eps, augmentation)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 3), ("L", 1)])
def test_ones_own_folder_has_the_shape_of_its_images(tmp_path, mode, channels):
    make_image_folder(tmp_path, "mine", ("b", "a", "c"), size=(5, 7), mode=mode)
    (tmp_path / "mine" / "train" / ".ipynb_checkpoints").mkdir()
    dataset = data.load("folder:mine", tmp_path)
    assert dataset.train.images.shape == (6, channels, 5, 7)
    assert (dataset.name, dataset.classes) == ("folder:mine", ("a", "b", "c"))
    assert dataset.source == "folder:mine from a folder of .png files"
    some = data.load("folder:mine:c,a", tmp_path)
    assert some.classes == ("c", "a")
    assert torch.equal(some.test.images[some.test.labels == 0], dataset.test.images[dataset.test.labels == 2])
    with pytest.raises(UnknownNameError, match="Unknown class of folder:mine 'd'"):
        data.load("folder:mine:c,d", tmp_path)


@pytest.mark.parametrize(
    ("part", "size", "mode", "message"),
    [
        ("train", (6, 6), "L", "6x6 pixels in grey, not 6x6 pixels in colour"),
        ("test", (6, 5), "RGB", "6x5 pixels in colour, not 6x6"),
    ],
)
def test_an_image_unlike_the_first_in_ones_own_folder_is_named(tmp_path, part, size, mode, message):
    make_image_folder(tmp_path, "mine", ("a", "b"), size=(6, 6))
    save_image(tmp_path / "mine" / part / "b" / "0001.png", size, mode)
    with pytest.raises(ValueError, match=rf"{part}/b/0001\.png is {message}"):
        data.load("folder:mine", tmp_path)


def test_an_image_of_sixteen_bits_is_not_cut_down_to_eight(tmp_path):
    make_image_folder(tmp_path, "mine", ("a", "b"), mode="L")
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(tmp_path / "mine" / "train" / "a" / "0000.png")
    with pytest.raises(ValueError, match=r"a/0000\.png cannot be read .*more than 8 bits"):
        data.load("folder:mine", tmp_path)


def test_a_class_without_images_is_refused(tmp_path):
    make_image_folder(tmp_path, "mine", ("a", "b"), per_class=1)
    (tmp_path / "mine" / "test" / "b" / "0000.png").rename(tmp_path / "mine" / "test" / "b" / "0000.gif")
    with pytest.raises(data.DataNotFoundError, match=r"test/b holds no \.png or \.jpg or \.jpeg files"):
        data.load("folder:mine", tmp_path)


def test_many_images_are_read_under_a_progress_bar(tmp_path, monkeypatch):
    tracked = []
    monkeypatch.setattr(image_files, "MANY", 4)
    monkeypatch.setattr(image_files, "track", lambda paths, **_: tracked.append(len(paths)) or paths)
    make_image_folder(tmp_path, "mine", ("a", "b"))
    (tmp_path / "mine" / "test" / "b" / "0000.png").unlink()
    data.load("folder:mine", tmp_path)
    assert tracked == [4]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint64, ">i4"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_extra_images_are_read_from_an_archive(tmp_path, save, channels, dtype):
    few = data.Split(torch.zeros(1, channels, 4, 5, dtype=torch.uint8), torch.tensor([0]))
    dataset = data.Dataset("mine", few, few, tuple("abcd"), "made up")
    image = np.random.RandomState(0).randint(0, 256, (5, 4, 5, channels), np.uint8)
    save(tmp_path / "extra.npz", image=image, label=np.array([2, 0, 3, 3, 1], dtype), more=np.zeros(1))
    extra = data.load_extra("extra.npz", dataset, tmp_path)
    assert extra.labels.tolist() == [2, 0, 3, 3, 1]
    assert extra.labels.dtype == torch.int64
    assert np.array_equal(extra.images.numpy(), image.transpose(0, 3, 1, 2))


IMAGE, LABEL = np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGE, "label": LABEL}, "must hold the arrays 'image' and 'label', but holds images, label"),
        ({}, "but holds none"),
        ({"image": IMAGE.astype(np.float32), "label": LABEL}, r"uint8 of shape \(N, 8, 8, 1\), not float32"),
        ({"image": IMAGE.transpose(0, 3, 1, 2), "label": LABEL}, r"not uint8 of \(3, 1, 8, 8\)"),
        ({"image": IMAGE[:0], "label": LABEL[:0]}, r"not uint8 of \(0, 8, 8, 1\)"),
        ({"image": np.uint8(3), "label": LABEL}, r"not uint8 of \(\)"),
        ({"image": IMAGE, "label": LABEL.astype(float)}, "'label' must be of whole numbers, not float64"),
        ({"image": IMAGE, "label": LABEL + 10}, r"'label' must lie in 0..9, but their values go from 10 to 10"),
        ({"image": IMAGE, "label": LABEL - 1}, r"must lie in 0..9"),
        ({"image": IMAGE, "label": np.full(3, 2**64 - 1, np.uint64)}, r"must lie in 0..9"),
        ({"image": IMAGE, "label": LABEL[:2]}, r"'label' must be int64 of shape \(3,\), one per image"),
        ({"image": IMAGE, "label": np.array(["a", "b", "c"], object)}, r"cannot be read .*Object arrays"),
    ],
)
def test_unfit_extra_images_are_refused_by_name(tmp_path, digits, arrays, message):
    np.savez(tmp_path / "extra.npz", **arrays)
    with pytest.raises(ValueError, match=rf"extra\.npz.*{message}"):
        data.load_extra("extra.npz", digits, tmp_path)


def test_missing_or_damaged_extra_images_are_named(tmp_path, digits):
    path = tmp_path / "extra.npz"
    with pytest.raises(data.DataNotFoundError, match=r"extra\.npz is not there.*'image' and 'label'"):
        data.load_extra("extra.npz", digits, tmp_path)
    np.savez(path, image=IMAGE, label=LABEL)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"extra\.npz is not an \.npz archive, or is damaged"):
        data.load_extra("extra.npz", digits, tmp_path)
    at = whole.index(bytes(100))
    path.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"extra\.npz cannot be read .*CRC"):
        data.load_extra("extra.npz", digits, tmp_path)


def test_a_pickle_named_as_an_archive_is_not_unpickled(tmp_path, digits):
    mark = tmp_path / "executed"
    (tmp_path / "extra.npz").write_bytes(f"cbuiltins\nopen\n(V{mark}\nVw\ntR.".encode())
    with pytest.raises(ValueError, match=r"extra\.npz is not an \.npz archive"):
        data.load_extra("extra.npz", digits, tmp_path)
    assert not mark.exists()


def npy(header, content=b""):
    """A file of numpy's format 1.0 with any header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8, 8, 1), }"


class Executed:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("image.npy", b"no array", "'image' must be saved as arrays"),
        ("image", b"no array", "'image' must be saved as arrays"),
        ("image.npy", b"", "'image' must be saved as arrays"),
        ("image.txt", b"no array", "must hold the arrays 'image' and 'label', but holds label, image.txt"),
        ("image.npy", npy(HEADER, bytes(100)), "cannot be read"),
        ("image.npy", npy(HEADER)[:30], "cannot be read"),
        ("image.npy", npy(HEADER.replace(b"(3, 8, 8, 1)", b"(10**30, 8)")), "cannot be read"),
        ("image.npy", npy(HEADER.replace(b"(3, 8, 8, 1)", b"(" + b"9" * 30 + b",)")), "cannot be read"),
        ("image.npy", npy(HEADER.replace(b"(3, 8, 8, 1)", b"(-3, 8, 8, 1)")), "cannot be read"),
        ("image.npy", npy(b"{'descr': '|u1', 1: 2}"), "cannot be read"),
        ("image.npy", npy(b"[" * 5000), "cannot be read"),
        ("image.npy", npy(b"'''"), "cannot be read"),
        ("image.npy", npy(HEADER.replace(b"'|u1'", b"()")), "cannot be read"),
        ("label.npy", npy(HEADER.replace(b"'|u1'", b"'<m8[s]'").replace(b"(3, 8, 8, 1)", b"(3,)"), bytes(24)), "whole"),
    ],
)
def test_an_archive_of_other_things_than_arrays_is_refused(tmp_path, digits, member, content, message):
    arrays = {"image.npy": IMAGE, "label.npy": LABEL}
    arrays.pop("image.npy" if member.startswith("image") else member)
    np.savez(tmp_path / "extra.npz", **{name.removesuffix(".npy"): array for name, array in arrays.items()})
    with zipfile.ZipFile(tmp_path / "extra.npz", "a") as archive:
        archive.writestr(member, content)
    with pytest.raises(ValueError, match=rf"(?s)extra\.npz.*{message}"):
        data.load_extra("extra.npz", digits, tmp_path)


@pytest.mark.parametrize("member", ["image", "label"])
def test_a_pickle_in_an_archive_is_not_unpickled(tmp_path, digits, member):
    trace = tmp_path / "executed"
    objects = np.array([Executed(trace)] * 3, object)
    np.savez(tmp_path / "extra.npz", **{"image": IMAGE, "label": LABEL, member: objects})
    with pytest.raises(ValueError, match=r"extra\.npz cannot be read .*Object arrays"):
        data.load_extra("extra.npz", digits, tmp_path)
    pickled = pickle.dumps(objects)
    with zipfile.ZipFile(tmp_path / "extra.npz", "w") as archive:
        archive.writestr("image.npy", pickled)
        archive.writestr("label.npy", pickled)
    with pytest.raises(ValueError, match=r"extra\.npz: 'image' and 'label' must be saved as arrays"):
        data.load_extra("extra.npz", digits, tmp_path)
    assert not trace.exists()


def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path, digits):
    (tmp_path / "folder.npz").mkdir()
    with fifo(tmp_path / "fifo.npz"):
        for name in ("fifo.npz", "folder.npz"):
            with pytest.raises(ValueError, match=rf"{name} is not a file, but a folder, a FIFO or a device"):
                data.load_extra(name, digits, tmp_path)
    with pytest.raises(ValueError, match="extra must be a file in the data folder"):
        data.load_extra("x" * 5000 + ".npz", digits, tmp_path)


def test_an_image_that_is_a_fifo_is_refused_and_not_waited_for(tmp_path):
    root = make_image_folder(tmp_path, "mine", ("a", "b"))
    (root / "mine" / "train" / "b" / "0001.png").unlink()
    refused = pytest.raises(ValueError, match=r"b/0001\.png cannot be read \(it is not a file\)")
    with fifo(root / "mine" / "train" / "b" / "0001.png"), refused:
        data.load("folder:mine", root)
