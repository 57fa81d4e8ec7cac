"""Images that are more than memory: kept as rows, memory-mapped, gathered batch by batch, with others' very bits."""

import hashlib
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import run_python, tiny_spec
from test_data import save_image

from rkdkit import checks, data, files, image_cache, image_files, runtime, splits
from rkdkit.training import Training

CPU = torch.device("cpu")


@pytest.fixture
def all_are_large(monkeypatch):
    monkeypatch.setattr(splits, "LEAST_AS_ROWS", 0)
    monkeypatch.setattr(splits, "CHUNK", 1000)
    monkeypatch.setattr(image_cache, "LEAST_MAPPED", 0)
    monkeypatch.setattr(image_cache, "FEWEST", 1)


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RKDKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def numbered(n):
    pixels = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return data.Split(pixels, torch.arange(n) % 10)


def as_rows(split):
    """The same images, picked from among others."""
    others = torch.full((3, *split.shape), 7, dtype=torch.uint8)
    return data.Split(torch.cat([others, split.images]), split.labels, 3 + torch.arange(len(split)))


def same(one, other):
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


@pytest.mark.usefixtures("all_are_large")
def test_images_that_are_kept_as_rows_are_the_same_images():
    plain, rows = numbered(60), as_rows(numbered(60))
    assert (rows.digest, rows.shape, rows.nbytes, len(rows)) == (plain.digest, plain.shape, plain.nbytes, 60)
    assert same(rows, plain)
    assert same(rows.to(CPU), plain)
    assert rows.to(CPU).rows is None
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    for index in (order, slice(5, 20), order[:7], plain.labels == 3):
        chosen = plain.images[index]
        for split in (plain, rows):
            taken = split.take(index)
            assert torch.equal(taken.images, chosen)
            assert torch.equal(taken.labels, plain.labels[index])
            twice = taken.take(torch.tensor([2, 0]))
            assert torch.equal(twice.images, chosen[[2, 0]])
    assert rows.take(slice(None)) is rows


def test_few_images_are_copied_and_many_stay_rows(monkeypatch):
    split, order = numbered(60), torch.randperm(60)
    assert split.take(order).rows is None
    monkeypatch.setattr(splits, "LEAST_AS_ROWS", 10 * 64)
    kept = split.take(order)
    assert kept.pixels is split.pixels
    assert kept.take(slice(11)).pixels is split.pixels
    assert kept.take(slice(10)).rows is None


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("classes", ["", ":b,a"])
def test_a_dataset_from_mapped_files_is_the_one_from_memory(tmp_path, cache_folder, monkeypatch, classes):
    for part, n in (("train", 12), ("test", 4)):
        for name in "abc":
            for i in range(n):
                save_image(tmp_path / "mine" / part / name / f"{i}.png", (8, 8))
    mapped = data._load(f"folder:mine{classes}", tmp_path)
    assert list(cache_folder.glob("*.safetensors"))
    with monkeypatch.context() as patch:
        for module, name in ((splits, "LEAST_AS_ROWS"), (image_cache, "LEAST_MAPPED"), (image_cache, "FEWEST")):
            patch.setattr(module, name, sys.maxsize)
        data._load.cache_clear()
        plain = data._load(f"folder:mine{classes}", tmp_path)
        expected = plain.images("train", n_val=5), plain.images("val", n_val=5), plain.images("test", 3)
    data._load.cache_clear()
    assert (mapped.digest, mapped.channel_statistics) == (plain.digest, plain.channel_statistics)
    found = mapped.images("train", n_val=5), mapped.images("val", n_val=5), mapped.images("test", 3)
    assert found[0].rows is not None
    assert [split.digest for split in found] == [split.digest for split in expected]
    assert all(map(same, found, expected))


def trained(digits, method="PeerAiD", **changes):
    settings = {"n_train": 50, "batch_size": 16, "n_val": 20, "augmentation": "crop-flip-cutout", "epochs": 2}
    mixed = {"extra": "some.npz", "extra_fraction": 0.25}
    extra = digits.test.take(torch.arange(6))  # in an epoch of three batches it starts again
    training = Training(tiny_spec(method, **{**settings, **mixed, **changes}), digits, CPU, extra=extra)
    for _ in range(2):
        training.run_epoch()
    return training


@pytest.mark.usefixtures("one_block")
def test_a_training_from_rows_ends_with_the_same_bits(digits, monkeypatch):
    ended = [trained(digits)]
    monkeypatch.setattr(splits, "LEAST_AS_ROWS", 0)
    for data_on in ("host", "device"):
        with runtime.using(runtime.Settings(data_on=data_on)):
            ended.append(trained(replace(digits)))
    assert [training._train.rows is None for training in ended] == [True, False, True]
    first, *others = (training.state() for training in ended)
    for state in others:
        assert state.keys() == first.keys()
        assert all(torch.equal(state[name], value) for name, value in first.items())


def test_what_decides_where_images_are(monkeypatch):
    split, gpu = SimpleNamespace(nbytes=2**30, to=lambda device: f"copied to {device}"), torch.device("cuda")
    assert runtime.placed(split, CPU) is split
    assert runtime.placed(split, gpu) == "copied to cuda", "of a GPU that cannot be asked nothing is known"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for total, there in ((2**32, True), (2**32 - 8, False)):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda _, total=total: SimpleNamespace(total_memory=total)
        )
        assert (runtime.placed(split, gpu) is not split) == there
    split.nbytes = 2**28
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**28))
    assert runtime.placed(split, gpu) is not split, "so few are on every GPU"
    for data_on, there in (("host", False), ("device", True)):
        monkeypatch.setenv("RKDKIT_DATA_ON", data_on)
        assert [runtime.placed(split, device) is not split for device in (CPU, gpu)] == [there, there]
    monkeypatch.setenv("RKDKIT_DATA_ON", "disk")
    with pytest.raises(checks.UnknownNameError, match="RKDKIT_DATA_ON"):
        runtime.placed(split, CPU)


def test_a_cache_file_written_image_by_image_is_safetensors_own(cache_folder, tmp_path):
    pixels = image_cache._Pixels(tmp_path / "some", "key")
    for n in (1, 7, 12345):
        images = torch.randint(0, 256, (n, 3, 2, 1), dtype=torch.uint8)
        mapped = pixels.write_mapped(iter(images.numpy()), tuple(images.shape))
        assert torch.equal(mapped, images)
        (file,) = cache_folder.glob("*.safetensors")
        assert file.read_bytes() == safetensors.torch.save({"images": images})
        assert torch.equal(pixels.read(), images)


def test_the_key_of_a_folder_is_what_it_always_was(tmp_path):
    files = [tmp_path / name for name in ('a"b', "ü")]
    for n in range(3):
        how = [1, "12.0", (3, 64, 64), True]
        for file in files[:n]:
            file.write_bytes(b"x" * n)
        whole = json.dumps([*how, [image_cache._identity(file) for file in files[:n]]])
        assert image_cache._key(how, files[:n]) == hashlib.sha256(whole.encode()).hexdigest()


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("The image file x cannot be read"), OSError("full")])
def test_an_interrupted_decoding_leaves_nothing(tmp_path, cache_folder, monkeypatch, error):
    save_image(tmp_path / "a.png", (4, 4))
    read_each = image_files.read_each

    def interrupted(*how):
        yield next(read_each(*how))
        assert [path.name[0] for path in cache_folder.glob("*.tmp")] == ["."], "it is being written"
        raise error

    monkeypatch.setattr(image_files, "read_each", interrupted)
    said, images = [], torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    monkeypatch.setattr(image_cache.progress, "say", said.append)
    monkeypatch.setattr(image_files, "read", lambda *_: images)
    write = files.write_atomically
    monkeypatch.setattr(files, "write_atomically", lambda *how: said.append("") or write(*how))
    asked = (tmp_path, [tmp_path / "a.png"] * 3, (3, 4, 4), True)
    if isinstance(error, OSError):
        assert image_cache.read(*asked) is images
        assert len(said) == 1, "nothing is written once more"
    else:
        with pytest.raises(error if isinstance(error, type) else type(error)):
            image_cache.read(*asked)
    assert [path.suffix for path in cache_folder.iterdir() if path.is_file()] in ([], [".lock"])


USED = """
import sys, threading, time
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from rkdkit import data, image_cache, runtime, splits

image_cache.LEAST_MAPPED = splits.LEAST_AS_ROWS = 2**22
image = Path(sys.argv[1]) / "a.png"

def anonymous():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

def used(n):
    images = image_cache.read(image.parent / str(n), [image] * n, (3, 64, 64), False)
    labels = torch.arange(n) % 10
    few = data.Split(images[:100], labels[:100])
    dataset = data.Dataset("made up", data.Split(images, labels), few, tuple("0123456789"), "made up")
    train = runtime.placed(dataset.images("train", n_val=n // 10), torch.device("cpu"))
    assert len(train.digest) == len(dataset.digest) == 16 and dataset.channel_statistics
    total = 0.0
    for batch in data.batches(train, 128, "crop-flip", torch.Generator(), device=torch.device("cpu")):
        total += float(batch.images.sum())
        peak.append(anonymous())
    assert total > 0

def watched():
    while not done:
        peak.append(anonymous())
        time.sleep(0.002)

torch.set_num_threads(1)
peak, done = [], False
used(1000)  # torch's own first allocations
before = anonymous()
peak.clear()
watch = threading.Thread(target=watched)
watch.start()
used(int(sys.argv[2]))
done = True
watch.join()
print(max(peak) - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells anonymous memory from mapped files")
def test_memory_does_not_grow_with_the_data(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    from PIL import Image

    Image.fromarray(noise).save(tmp_path / "a.png", compress_level=0)
    grown = []
    for n in (3_256, 32_560):  # 40 and 400 MB
        code = USED.replace("sys.argv[1]", repr(str(tmp_path))).replace("sys.argv[2]", repr(n))
        process = run_python(code, tmp_path / "store")
        said, wrong = process.communicate(timeout=300)
        assert process.returncode == 0, wrong
        grown.append(int(said))
    assert grown[0] < 60e6
    assert grown[1] - grown[0] < 30e6, grown
