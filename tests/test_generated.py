"""Generated images: the same bits again, of the training images alone, like them, and part of a run's identity."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_spec
from sklearn.neighbors import KNeighborsClassifier

from rkdkit import data, executors, generated, runs
from rkdkit.plan import Planner
from rkdkit.store import StoreError
from rkdkit.trainings import Train


def drawn(dataset, number=500, **divided):
    return data.load_extra(f"gaussian-mixture:{number}", dataset, **divided)


def changed(dataset, keep):
    """The dataset with every training image black whose place in `keep` is False, and all test images black."""
    images = dataset.train.images * keep.view(-1, 1, 1, 1)
    train = data.Split(images, dataset.train.labels)
    test = data.Split(torch.zeros_like(dataset.test.images), dataset.test.labels)
    return data.Dataset("changed", train, test, dataset.classes, "made up")


def test_as_many_images_as_asked_for_in_even_shares_of_the_classes(digits):
    extra = drawn(digits, 503)
    assert extra.images.shape == (503, 1, 8, 8)
    assert extra.images.dtype == torch.uint8
    assert torch.bincount(extra.labels).tolist() == [51] * 3 + [50] * 7
    assert len(set(map(bytes, extra.images.flatten(1).numpy()))) > 490, "they differ from each other"


def test_held_out_and_test_images_are_not_fitted_to(digits):
    """If any of them changed, no generated image does; if a training image does, they do."""
    order = torch.as_tensor(data.fixed_permutation(len(digits.train)))
    trained_on = torch.zeros(len(digits.train), dtype=torch.bool)
    trained_on[order[100:1000]] = True
    expected = drawn(digits, n_train=900, n_val=100).digest
    assert drawn(changed(digits, trained_on), n_train=900, n_val=100).digest == expected
    trained_on[order[100]] = False
    assert drawn(changed(digits, trained_on), n_train=900, n_val=100).digest != expected
    assert drawn(digits).digest != expected


@pytest.mark.usefixtures("store")
def test_a_run_draws_from_the_images_it_is_trained_on(digits):
    spec = tiny_spec("Natural", n_train=200, n_val=50, epochs=1, extra="gaussian-mixture:64", extra_fraction=0.5)
    run = runs.ensure(spec)
    assert run.record["data"]["extra"] == drawn(digits, 64, n_train=200, n_val=50).digest
    assert run.record["data"]["extra"] != drawn(digits, 64).digest
    assert runs.ensure(spec).record == run.record


@pytest.mark.usefixtures("store")
def test_a_run_of_other_generated_images_is_refused(monkeypatch):
    spec = tiny_spec("Natural", epochs=1, extra="gaussian-mixture:64", extra_fraction=0.5)
    runs.ensure(spec)
    monkeypatch.setattr(generated, "COMPONENTS", 2)
    generated.gaussian_mixture.cache_clear()
    with pytest.raises(StoreError, match="trained with other extra images than gaussian-mixture:64 holds now"):
        runs.ensure(spec)
    generated.gaussian_mixture.cache_clear()


def test_another_process_with_other_threads_draws_the_same_bits(digits):
    code = "from rkdkit import data; print(data.load_extra('gaussian-mixture:500', data.load('digits')).digest)"
    environment = {
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "PYTHONPATH": str(ROOT),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == drawn(digits).digest


def test_generated_images_are_like_the_images_of_their_class_but_none_of_them(digits):
    def flat(split):
        return split.images.flatten(1).numpy()

    train, val = (digits.images(part, n_train=1000, n_val=300) for part in ("train", "val"))
    extra = drawn(digits, n_train=1000, n_val=300)
    taught = KNeighborsClassifier(1).fit(flat(extra), extra.labels.numpy())
    assert taught.score(flat(val), val.labels.numpy()) > 0.9
    distances, _ = KNeighborsClassifier(1).fit(flat(train), train.labels.numpy()).kneighbors(flat(extra))
    assert np.min(distances) > 0


def test_selected_classes_have_generated_images_of_their_own():
    two = data.load("digits:3,8")
    extra = drawn(two, 100)
    assert torch.bincount(extra.labels).tolist() == [50, 50]
    own = [two.train.images[two.train.labels == label].float().mean(0) for label in (0, 1)]
    for label in (0, 1):
        mean = extra.images[extra.labels == label].float().mean(0)
        assert (mean - own[label]).norm() < (mean - own[1 - label]).norm() / 2


@pytest.mark.parametrize(
    "name", ["gaussian-mixture", "gaussian-mixture:", "gaussian-mixture:0", "gaussian-mixture:1e4"]
)
def test_a_generator_without_a_number_is_refused_with_the_specification(name):
    with pytest.raises(ValueError, match=r"must say how many images are generated, as in 'gaussian-mixture:10000'"):
        tiny_spec("Natural", extra=name, extra_fraction=0.5)


@pytest.mark.parametrize(("number", "n_train", "what"), [(9, None, "has no image for some"), (20, 5, "at least two")])
def test_too_few_images_to_draw_or_to_fit_are_refused_before_a_teacher_is_trained(store, number, n_train, what):
    few = tiny_spec("Natural", n_train=n_train, extra=f"gaussian-mixture:{number}", extra_fraction=0.5)
    with pytest.raises(ValueError, match=what):
        runs.ensure(few)
    assert not any(store.root.glob("runs/*"))


@pytest.mark.usefixtures("store")
def test_a_plan_needs_no_file_of_extra_images_but_a_training_does(monkeypatch, tmp_path):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    task = Train(tiny_spec("ARD", extra="cifar10_ddpm.npz", extra_fraction=0.5))
    planner = Planner()
    with executors.using(planner):
        planner.gather([task])
    assert len(planner.missing) == 2
    with pytest.raises(data.DataNotFoundError, match=r"cifar10_ddpm\.npz is not there"):
        runs.ensure(task.spec)
    assert not planner.context.store.root.exists() or not any((planner.context.store.root / "runs").glob("*/*.json"))
