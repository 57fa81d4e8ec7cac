"""Image folders are decoded once: the same pixels with and without the cache; changes and damage are noticed."""

import importlib.metadata
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_python
from fifos import fifo
from filelock import FileLock, SoftFileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data import make_image_folder, save_image

from rkdkit import data, image_cache, image_files, paths

SHAPE = (3, 6, 5)


@pytest.fixture
def folder(tmp_path):
    """A dataset of two classes: eight training and four test images, as JPEG files of one size and time."""
    root = tmp_path / "data"
    for part, per_class in (("train", 4), ("test", 2)):
        for name in "ab":
            for i in range(per_class):
                path = root / "mine" / part / name / f"{i}.jpg"
                save_image(path, SHAPE[1:])
                path.write_bytes(path.read_bytes().ljust(2000, b"\0"))
                set_age(path, 3600)
    return root / "mine"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """An empty cache of the test's own, which takes folders of any size."""
    monkeypatch.setenv("RKDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_cache, "FEWEST", 1)
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of files that were decoded, one for each time."""
    numbers, read = [], image_files.read
    monkeypatch.setattr(image_files, "read", lambda paths, *how: numbers.append(len(paths)) or read(paths, *how))
    return numbers


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(image_cache.progress, "say", lines.append)
    return lines


def set_age(path, seconds):
    os.utime(path, ns=(10**18, 10**18 - seconds * 10**9))


def load(folder):
    """Load the dataset as a new process does."""
    return data.source_of(f"folder:{folder.name}").read(folder.parent)


def files_of(folder, part="train"):
    return sorted((folder / part).glob("*/*"))


def cached(cache_folder):
    return sorted(path.name for path in cache_folder.glob("*") if path.suffix != ".lock")


def without_cache(folder):
    files = files_of(folder)
    return image_files.read(files, SHAPE, False)


def through_cache(folder):
    return image_cache.read(folder / "train", files_of(folder), SHAPE, False)


def digest_without_cache(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_cache, "FEWEST", 99)
        return load(folder).digest


def spoil(path):
    """Make a file unreadable as an image, but keep its size and its times."""
    status = path.stat()
    path.write_bytes(random.Random(0).randbytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_the_second_load_decodes_nothing_and_has_the_same_digest(folder, cache_folder, decoded, monkeypatch):
    monkeypatch.setattr(image_cache, "FEWEST", 9)
    plain = load(folder)
    assert cached(cache_folder) == [], "eight files are fewer than nine"
    monkeypatch.setattr(image_cache, "FEWEST", 4)
    first = load(folder)
    assert decoded == [8, 4] * 2
    assert len(cached(cache_folder)) == 2
    for path in files_of(folder)[1:] + files_of(folder, "test"):  # the first says the shape
        spoil(path)
    second = load(folder)
    assert decoded == [8, 4] * 2
    for part in ("train", "test"):
        splits = [getattr(dataset, part) for dataset in (plain, first, second)]
        assert all(torch.equal(split.images, splits[0].images) for split in splits)
        assert all(torch.equal(split.labels, splits[0].labels) for split in splits)
        assert splits[2].images.dtype == torch.uint8
        assert splits[2].images.is_contiguous()
    assert plain.digest == first.digest == second.digest
    assert first.source == second.source


def test_published_layouts_are_cached_too(tmp_path, decoded, monkeypatch):
    tiny = tmp_path / "tiny-imagenet-200"
    for i, name in enumerate(("n1", "n2")):
        save_image(tiny / "train" / name / "images" / "0.JPEG", (64, 64))
        save_image(tiny / "val" / "images" / f"{i}.JPEG", (64, 64))
    (tiny / "wnids.txt").write_text("n1\nn2\n")
    (tiny / "val" / "val_annotations.txt").write_text("0.JPEG\tn1\n1.JPEG\tn2\n")
    monkeypatch.setattr(data, "TINY_IMAGENET_SIZES", (2, 2))
    make_image_folder(tmp_path, "cifar10", per_class=1)
    for name in ("tiny_imagenet", "cifar10"):
        first, second = (data.source_of(name).read(tmp_path) for _ in range(2))
        assert first.digest == second.digest
    assert decoded == [2, 2, 10, 10]


def rewritten(path):
    save_image(path.with_name("other.jpg"), SHAPE[1:])
    path.with_name("other.jpg").replace(path)


def longer(path):
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "another time": lambda path: set_age(path, 3599),
    "another time, by a nanosecond": lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)),
    "an earlier time": lambda path: set_age(path, 7200),
    "another size": longer,
    "another image": rewritten,
    "added": lambda path: shutil.copy2(path, path.with_name("9.jpg")),
    "removed": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("9.jpg")),
    "moved to another class": lambda path: path.rename(path.parent.parent / "b" / "9.jpg"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_decoded_again_and_its_older_pixels_are_deleted(folder, cache_folder, decoded, change):
    through_cache(folder)
    before = cached(cache_folder)
    CHANGES[change](folder / "train" / "a" / "0.jpg")
    expected = without_cache(folder)
    decoded.clear()
    for _ in range(2):
        assert torch.equal(through_cache(folder), expected)
    assert decoded == [len(expected)], "once"
    after = cached(cache_folder)
    assert len(before) == len(after) == 1
    assert before != after


def test_a_damaged_image_is_named_as_soon_as_it_is_noticed(folder, cache_folder):
    through_cache(folder)
    broken = folder / "train" / "b" / "2.jpg"
    spoil(broken)
    through_cache(folder)
    set_age(broken, 10)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"train/b/2\.jpg cannot be read"):
            through_cache(folder)
    broken.unlink()
    assert len(through_cache(folder)) == 7
    assert len(cached(cache_folder)) == 1


def test_a_missing_image_is_named_as_without_a_cache(folder):
    files = [*files_of(folder), folder / "train" / "b" / "not there.jpg"]
    with pytest.raises(ValueError, match=r"not there\.jpg cannot be read .*No such file"):
        image_cache.read(folder / "train", files, SHAPE, False)


def test_another_pillow_decodes_anew(folder, cache_folder, decoded, monkeypatch):
    through_cache(folder)
    monkeypatch.setattr(importlib.metadata, "version", {"pillow": "99.0"}.__getitem__)
    for _ in range(2):
        through_cache(folder)
    assert decoded == [8, 8]
    assert len(cached(cache_folder)) == 1


def test_what_is_read_in_another_way_is_not_taken_from_the_cache(folder, decoded):
    files = files_of(folder)
    save_image(files[0], SHAPE[1:], "L")
    assert len(image_cache.read(folder, files, SHAPE, True)) == 8
    with pytest.raises(ValueError, match="in grey, not 6x5 pixels in colour"):
        image_cache.read(folder, files, SHAPE, False)
    with pytest.raises(ValueError, match="not 5x6 pixels"):
        image_cache.read(folder, files, (3, 5, 6), True)
    assert decoded == [8] * 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_files_in_any_order_are_the_same_with_and_without_the_cache(folder, drawn):
    chosen = drawn.draw(st.lists(st.sampled_from(files_of(folder)), min_size=1, max_size=9))
    for files in (chosen, chosen, drawn.draw(st.permutations(chosen))):
        expected = image_files.read(files, SHAPE, False)
        assert torch.equal(image_cache.read(folder, files, SHAPE, False), expected)


def test_folders_with_the_same_names_sizes_and_times_are_not_mixed_up(folder, cache_folder, decoded, monkeypatch):
    other = folder.parent / "other" / "mine"
    shutil.copytree(folder, other)
    shutil.copy2(other / "train" / "a" / "1.jpg", other / "train" / "a" / "0.jpg")
    for each in (folder, other, folder, other):
        monkeypatch.chdir(each.parent)
        expected = without_cache(each)
        decoded.clear()
        assert torch.equal(through_cache(Path("mine")), expected)
    assert decoded == []
    assert len(cached(cache_folder)) == 2


DAMAGE = {
    "empty": lambda content: content[:0],
    "truncated in the header": lambda content: content[:30],
    "truncated in the pixels": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "a bit of the pixels": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "another safetensors file": lambda content: content.replace(b"images", b"pixels"),
    "no safetensors file": lambda content: b"x" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_file_is_noticed_and_replaced(folder, cache_folder, decoded, said, damage):
    expected = through_cache(folder)
    (name,) = cached(cache_folder)
    content = (cache_folder / name).read_bytes()
    (cache_folder / name).write_bytes(DAMAGE[damage](content))
    for _ in range(2):
        assert torch.equal(through_cache(folder), expected)
    assert decoded == [8, 8], "again, but once"
    assert said == [
        f"{cache_folder / name} is damaged: it does not match its digest. {folder / 'train'} is decoded again."
    ]
    assert cached(cache_folder) == [name]
    assert (cache_folder / name).read_bytes() == content


def test_a_fifo_in_place_of_a_cache_file_is_not_waited_for(folder, cache_folder, decoded, said):
    expected = through_cache(folder)
    (name,) = cached(cache_folder)
    content = (cache_folder / name).read_bytes()
    (cache_folder / name).unlink()
    with fifo(cache_folder / name):
        assert torch.equal(through_cache(folder), expected)
    assert decoded == [8, 8]
    assert (cache_folder / name).read_bytes() == content
    assert said == [], "it was not read"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_reaches_the_pixels(folder, cache_folder, at, bit):
    expected = through_cache(folder)
    path = cache_folder / cached(cache_folder)[0]
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1 << bit
    path.write_bytes(content)
    assert torch.equal(through_cache(folder), expected)


def test_a_cache_that_cannot_be_made_is_said_and_does_without(folder, cache_folder, decoded, said):
    cache_folder.write_text("not a folder")
    expected = without_cache(folder)
    for _ in range(2):
        assert torch.equal(through_cache(folder), expected)
    assert len(decoded) == 3
    assert len(said) == 2
    assert str(cache_folder) in said[0]
    assert "File exists" in said[0]
    assert f"{folder / 'train'} is decoded without it; RKDKIT_CACHE names another" in said[0]


def test_a_file_system_without_locks_does_without_a_cache(folder, cache_folder, said, monkeypatch):
    def refused(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", refused)
    assert torch.equal(through_cache(folder), without_cache(folder))
    assert "does not appear to support flock" in said[0]
    assert cached(cache_folder) == []


def test_a_cache_that_may_only_be_read_is_read(folder, cache_folder, decoded, said, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    through_cache(folder)
    before = cached(cache_folder)
    monkeypatch.setattr(FileLock, "acquire", refused)
    monkeypatch.setattr(image_cache.files, "write_atomically", refused)
    through_cache(folder)
    assert (decoded, said) == ([8], [])
    set_age(folder / "train" / "a" / "0.jpg", 1)
    through_cache(folder)
    assert decoded == [8, 8]
    assert "Permission denied" in said[0]
    assert cached(cache_folder) == before


LOADING = """
import sys, time
from pathlib import Path
from rkdkit import data, image_cache, image_files
root, pause = Path(sys.argv[1]), float(sys.argv[2])
image_cache.FEWEST = 1
read = image_files.read
def slowly(paths, *how):
    with (root / "decoded").open("a") as file:
        print(len(paths), file=file)
    time.sleep(pause)
    return read(paths, *how)
image_files.read = slowly
print("ready", flush=True)
sys.stdin.readline()
print(data.load("folder:mine", root).digest)
"""


def start(folder, pause, before=""):
    """Start a process that loads the dataset when it gets a line, and notes what it decodes in the file "decoded"."""
    code = f"import sys; sys.argv[1:] = [{str(folder.parent)!r}, {pause}]\n{before}\n{LOADING}"
    process = run_python(code, folder.parent / "store", stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def go(*processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def digest_of(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


def decoded_in(folder):
    path = folder.parent / "decoded"
    return path.read_text().split() if path.exists() else []


def wait_until(condition):
    deadline = time.time() + 60
    while not condition():
        assert time.time() < deadline
        time.sleep(0.01)


def test_of_several_processes_one_decodes(folder, cache_folder):
    processes = [start(folder, 0.5) for _ in range(3)]
    go(*processes)
    assert {digest_of(process) for process in processes} == {digest_without_cache(folder)}
    assert decoded_in(folder) == ["8", "4"]
    assert len(cached(cache_folder)) == 2


def test_when_the_decoding_process_is_killed_the_waiting_one_decodes(folder, said):
    killed, waiting = start(folder, 100), start(folder, 0)
    go(killed)
    wait_until(lambda: decoded_in(folder) == ["8"])
    go(waiting)
    time.sleep(0.5)
    assert waiting.poll() is None, "it waits"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert digest_of(waiting) == digest_without_cache(folder)
    assert decoded_in(folder) == ["8", "8", "4"]
    assert said == []


def test_a_process_waits_as_long_as_another_decodes_and_says_so(folder, cache_folder, said, monkeypatch):
    monkeypatch.setattr(image_cache, "WAIT", 0.1)
    other = start(folder, 100)
    go(other)
    wait_until(lambda: decoded_in(folder) == ["8"])
    found = []
    waiting = threading.Thread(target=lambda: found.append(through_cache(folder)), daemon=True)
    waiting.start()
    try:
        wait_until(lambda: said)
        time.sleep(0.3)
        assert waiting.is_alive()
        assert len(said) == 1
        assert f"Another process decodes {folder / 'train'}; this one waits for it (" in said[0]
    finally:
        other.kill()
        other.communicate()
    waiting.join()
    assert torch.equal(found[0], without_cache(folder))
    assert len(cached(cache_folder)) == 1


def test_a_lock_that_may_outlive_its_process_is_not_waited_for_forever(folder, cache_folder, said, monkeypatch):
    """That of a file system without flock."""
    monkeypatch.setattr(image_cache, "WAIT", 0.1)
    monkeypatch.setattr(image_cache, "FileLock", SoftFileLock)
    with image_cache._Pixels(folder / "train", "0" * 16).lock():
        assert torch.equal(through_cache(folder), without_cache(folder))
    assert len(said) == 1
    assert "could not be acquired" in said[0]
    assert cached(cache_folder) == []


KILLED_IN_WRITING = """
import os, signal
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
"""
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))  # the operating system refuses to write more into a file
"""


def test_what_a_process_leaves_that_was_killed_while_it_wrote_is_deleted(folder, cache_folder):
    killed = start(folder, 0, KILLED_IN_WRITING)
    go(killed)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    (left,) = cached(cache_folder)
    assert left.endswith(".tmp")
    through_cache(folder)
    (whole,) = cached(cache_folder)
    assert whole.endswith(".safetensors")


def test_a_full_disk_is_said_and_the_images_are_there(folder, cache_folder):
    process = start(folder, 0, FULL_DISK)
    out, err = process.communicate("\n", timeout=300)
    assert process.returncode == 0, err
    assert out.strip() == digest_without_cache(folder)
    assert f"The cache of images in {cache_folder} cannot be used (File too large)." in err
    assert cached(cache_folder) == [], "no temporary file either"


def test_the_cache_lies_where_the_environment_says_or_in_the_projects_root(tmp_path, monkeypatch):
    assert paths.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("RKDKIT_CACHE")
    monkeypatch.chdir(ROOT / "notebooks")
    assert paths.cache_folder() == ROOT / "cache"
