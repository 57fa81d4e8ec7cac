"""Points of the plane, and which class a network gives to their surroundings."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import tiny_spec
from given import Given
from matplotlib.colors import to_hex
from questions import each_makes_another_question, has_the_form_of, the_store_answers
from scipy import stats
from torch import nn

from rkdkit import attacks, claims, data, executors, exhibits, figures, models, runs
from rkdkit.analysis import decisions
from rkdkit.analysis.decisions import ChangingBoxes, Regions
from rkdkit.exhibits import fig7_decision_boundaries as fig7
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images
from rkdkit.splits import Split
from rkdkit.store import Store

PIXEL = 1 / 255


class Strip(nn.Module):
    """Class 1 where the first coordinate is between two numbers, class 0 elsewhere."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = nn.Parameter(torch.tensor(low)), nn.Parameter(torch.tensor(high))

    def forward(self, x):
        first = x[:, 0, 0, 0]
        inside = torch.minimum(first - self.low, self.high - first)
        return torch.stack([-inside, inside], 1)


def plane_spec(method="Natural", **changes):
    sizes = {"n_train": None, "n_val": 0, "batch_size": 16, "lr": 0.01, "eps": 0.04, "step_size": 0.01}
    return tiny_spec(method, **{"dataset": "moons", "student": "mlp-5/16", **sizes, **changes})


@pytest.mark.parametrize(
    ("name", "digest"),
    [("scattered", "4359f64577c1df55"), ("moons", "2bdd0740a7046aee"), ("circles", "e502086f22b5e216")],
)
def test_points_are_the_same_everywhere_and_their_boxes_do_not_meet(name, digest):
    points, eps = data.load(name), data.source_of(name).eps
    assert (len(points.train), len(points.test)) == (32, 320)
    assert points.train.images.shape[1:] == points.test.images.shape[1:] == (2, 1, 1)
    assert points.digest == digest
    assert torch.bincount(points.train.labels).tolist() == [16, 16]
    places = decisions.points_of(points.train)
    assert (places >= eps).all()
    assert (places <= 1 - eps).all()
    first, second = (places[points.train.labels == label] for label in (0, 1))
    assert (first[:, None] - second).abs().amax(-1).min() > 2 * eps


def test_scattered_points_are_apart_and_have_the_labels_of_what_is_near():
    points = data.load("scattered")
    places, near = decisions.points_of(points.train), decisions.points_of(points.test)
    between = (places[:, None] - places).abs().amax(-1) + torch.eye(32)
    assert between.min() >= data.APART * PIXEL - 1e-6
    away, nearest = (near[:, None] - places).abs().amax(-1).min(1)
    assert away.max() <= 0.04
    assert torch.equal(points.test.labels, points.train.labels[nearest])


def test_a_grids_rows_are_the_second_coordinate():
    found = decisions.classes_on_grid(Strip(0.2, 0.45), 11)
    expected = torch.tensor([0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.uint8)  # 0, 0.1, ..., 1
    assert torch.equal(found[3], expected) or torch.equal(found[3, 3:], expected[3:]), "0.2 itself is on the edge"
    assert (found == found[0]).all(), "the same in every row"


def test_a_networks_grid_is_what_it_answers_place_by_place():
    network = models.build("mlp-5/16", 3, [0.5, 0.5], [0.1, 0.1], seed=2).eval()
    found = decisions.classes_on_grid(network, 23)
    assert len(found.unique()) > 1
    for row, column in ((0, 0), (0, 22), (22, 0), (5, 17), (11, 3)):
        with torch.no_grad():
            answer = network(torch.tensor([column / 22, row / 22]).view(1, 2, 1, 1)).argmax()
        assert found[row, column] == answer


def by_brute_force(network, points, eps, side=241):
    """For each point alone, compare all places of a fine grid with the point itself."""
    changing = []
    for x, y in points.double().tolist():
        axes = [np.clip(np.linspace(c - eps, c + eps, side), 0, 1) for c in (x, y)]
        places = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
        with torch.no_grad():
            own = network(torch.tensor([[x, y]]).float()[..., None, None]).argmax()
            answers = network(torch.from_numpy(places).float()[..., None, None]).argmax(1)
        changing.append(bool((answers != own).any()))
    return torch.tensor(changing)


@pytest.mark.parametrize("seed", [1, 4, 6])
def test_the_search_finds_what_brute_force_finds(seed):
    network = models.build("mlp-5/8", 3, [0.5, 0.5], [0.03, 0.03], seed=seed).eval()
    points = torch.rand(24, 2, generator=torch.Generator().manual_seed(seed))
    found, expected = decisions.changes_in_box(network, points, 0.04), by_brute_force(network, points, 0.04)
    assert torch.equal(found, expected)
    assert 0.05 < found.float().mean() < 0.95, "some of both, or there is nothing to find"


@pytest.mark.parametrize(
    ("strip", "changes"),
    [
        ((0.53, 0.6), True),
        ((0.5399, 0.6), True),  # the edge of the box
        ((0.5401, 0.6), False),
        ((0.4, 0.4601), True),
        ((0.4, 0.4599), False),
        ((0.5201, 0.52015), True),  # an 80th of a pixel wide: the first grid does not find it
        ((0.4, 0.7), False),  # all of the box, whatever the label
    ],
)
def test_a_box_ends_at_eps_and_narrow_regions_are_found(strip, changes):
    found = decisions.changes_in_box(Strip(*strip), torch.tensor([[0.5, 0.5]]), 0.04)
    assert found.tolist() == [changes]


def test_each_point_has_its_own_answer_in_whichever_round_it_is_found():
    in_the_strip, beside_it, far_from_it = [0.52012, 0.5], [0.5, 0.5], [0.2, 0.5]
    found = decisions.changes_in_box(Strip(0.5201, 0.52015), torch.tensor([in_the_strip, beside_it, far_from_it]), 0.04)
    assert found.tolist() == [True, True, False]


def test_what_is_outside_the_square_is_not_searched():
    assert not decisions.changes_in_box(Strip(-1.0, -0.001), torch.tensor([[0.01, 0.5]]), 0.04).any()


def test_a_box_without_extent_never_changes():
    assert not decisions.changes_in_box(Strip(0.2, 0.5), torch.rand(5, 2), 0.0).any()


@pytest.mark.usefixtures("store")
def test_regions_and_boxes_are_measured_once_and_kept():
    snapshot, images = runs.ensure(plane_spec()).snapshot(), Images("moons", "train")
    tasks = [Regions(images=images, snapshot=snapshot), ChangingBoxes(images=images, snapshot=snapshot, eps=0.04)]
    regions, boxes = runs.gather(tasks)
    network = snapshot.load("cpu")
    assert torch.equal(regions, decisions.classes_on_grid(network))
    assert torch.equal(boxes, decisions.changes_in_box(network, decisions.points_of(images.split()), 0.04))
    for task, answer in zip(tasks, (regions, boxes), strict=True):
        assert torch.equal(the_store_answers(task), answer)
        has_the_form_of(task.placeholder(), answer)


def test_each_field_makes_another_question():
    first, second = (runs.Run(plane_spec(seed=seed), None).snapshot() for seed in (0, 1))
    images = Images("moons", n=20)
    each_makes_another_question(Regions(images=images, snapshot=first), snapshot=second)
    each_makes_another_question(ChangingBoxes(images=images, snapshot=first, eps=0.04), snapshot=second, eps=0.05)


def test_the_plan_counts_every_place():
    snapshot, images = runs.Run(plane_spec(), None).snapshot(), Images("moons", "train")
    (regions,) = Regions(images=images, snapshot=snapshot).passes()
    (boxes,) = ChangingBoxes(images=images, snapshot=snapshot, eps=0.04).passes()
    assert regions.times * len(images) == 256**2
    assert boxes.times == 42**2 + 3 * 8 * 81


def shares(n_seeds=3, **of_network):
    """Made-up decisions: by network, the shares of changing points and of places with the teacher's class."""
    labels = torch.arange(32) % 2
    points = Split(torch.zeros(32, 2, 1, 1, dtype=torch.uint8), labels)
    changing, regions = {}, {}
    for name, (vulnerable, agreeing) in of_network.items():
        changing[name] = [torch.arange(32) < vulnerable + seed for seed in range(n_seeds)]
        regions[name] = [(torch.arange(100) >= agreeing + seed).to(torch.uint8).view(10, 10) for seed in range(n_seeds)]
    regions[fig7.TEACHER] = [torch.zeros(10, 10, dtype=torch.uint8)] * n_seeds
    changing[fig7.TEACHER] = [torch.zeros(32, dtype=torch.bool)] * n_seeds
    right = {name: [torch.ones(32, dtype=torch.bool)] * n_seeds for name in regions}
    return fig7.Decisions(points, 0.04, right, changing, changing, regions)


def test_the_claims_compare_vulnerable_points_and_areas():
    as_printed = fig7.check_claims(shares(Natural=(28, 50), KD=(14, 70), ARD=(1, 95)))
    assert [claim.verdict for claim in as_printed] == [claims.HOLDS] * 5
    assert [(c.higher.name.split(",")[0], c.lower.name.split(",")[0]) for c in as_printed] == [
        ("Natural", "KD"),
        ("Natural", "ARD"),
        ("KD", "ARD"),
        ("ARD", "KD"),
        ("ARD", "Natural"),
    ]
    turned = fig7.check_claims(shares(Natural=(1, 95), KD=(14, 70), ARD=(28, 50)))
    assert [claim.verdict for claim in turned] == [claims.FAILS] * 5
    alike = fig7.check_claims(shares(Natural=(14, 70), KD=(14, 70), ARD=(14, 70)))
    assert [claim.verdict for claim in alike] == [claims.OPEN] * 5


def test_only_several_trainings_tell_how_far_areas_vary():
    measured = shares(Natural=(28, 50), KD=(14, 70), ARD=(1, 95))
    agreement = measured.agreement("ARD")
    values = np.array([0.95, 0.96, 0.97])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (agreement.value, agreement.low, agreement.high) == pytest.approx((0.96, low, min(high, 1)), abs=1e-6)
    one = shares(1, Natural=(28, 50), KD=(14, 70), ARD=(1, 95))
    assert (one.agreement("ARD").low, one.agreement("ARD").high) == (0, 1)
    assert [c.verdict for c in fig7.check_claims(one)] == [claims.HOLDS] * 3 + [claims.OPEN] * 2


def test_the_numbers_are_those_of_every_network_and_measure():
    table = shares(Natural=(28, 50), KD=(14, 70), ARD=(1, 95)).table().set_index(["network", "measure"]).share
    assert len(table) == 16
    assert table["KD", "vulnerable points"] == pytest.approx(15 / 32)
    assert table["KD", "agreement with the teacher"] == pytest.approx(0.71)
    assert table["KD", "training points with their label"] == 1


@pytest.mark.parametrize(("profile", "epochs"), [("smoke", 20), ("quick", 500), ("small", 500), ("paper", 500)])
def test_four_networks_are_asked_for_at_every_scale(tmp_path, profile, epochs):
    executor = Given(Store(tmp_path), lambda task: task.placeholder())
    with executors.using(executor):
        setup = exhibits.setup("fig7_decision_boundaries", profile, n_seeds=2)
        chosen = fig7.train(setup)
        executor.gathered.clear()
        measured = fig7.measure(setup, chosen)
    assert list(chosen) == list(fig7.NETWORKS)
    for seed in (0, 1):
        natural, teacher, kd, ard = (chosen[name][seed].spec for name in fig7.NETWORKS)
        assert [(s.method, s.student) for s in (natural, teacher, kd, ard)] == [
            ("Natural", "mlp-5"),
            ("PGD-AT", "mlp-10"),
            ("KD", "mlp-5"),
            ("ARD", "mlp-5"),
        ]
        assert {s.seed for s in (natural, teacher, kd, ard)} == {seed}
        assert {(s.epochs, s.n_train, s.n_val, s.precision) for s in (natural, kd)} == {(epochs, None, 0, "float32")}
        assert [t.run for s in (kd, ard) for t in s.teachers] == [teacher, teacher]
        assert (teacher.eps, teacher.step_size, teacher.attack_steps) == (0.04, 0.01, 10)
    (gathered,) = executor.gathered
    assert len(gathered) == 4 * 2 * 4
    assert {task.images for task in gathered} == {setup.train_images}
    pgd = {task.attack for task in gathered if isinstance(task, CorrectPredictions)}
    assert pgd == {None, attacks.PGD(0.04, 0.01, 20)}
    assert measured.share("correct", "ARD").value == 0, "the placeholder"
    assert measured.share("fooled", "ARD").value == 1


def test_each_answer_reaches_its_own_network_and_measure(tmp_path):
    def answer(task):
        spec = task.snapshots[0].spec
        number = fig7.NETWORKS.index({"PGD-AT": fig7.TEACHER}.get(spec.method, spec.method)) + 4 * spec.seed
        if isinstance(task, Regions):
            return torch.full((256, 256), number, dtype=torch.uint8)
        shift = 20 if isinstance(task, ChangingBoxes) else 10 * (task.attack is not None)
        row = torch.arange(32) < number + shift
        return row if isinstance(task, ChangingBoxes) else row[None]

    with executors.using(Given(Store(tmp_path), answer)):
        setup = exhibits.setup("fig7_decision_boundaries", "smoke", n_seeds=2, dataset="moons")
        measured = fig7.measure(setup, fig7.train(setup))
    for i, name in enumerate(fig7.NETWORKS):
        for seed in (0, 1):
            number = i + 4 * seed
            assert measured.regions[name][seed].unique().tolist() == [number]
            assert int(measured.correct[name][seed].sum()) == number
            assert int(measured.changing[name][seed].sum()) == number + 20
            assert int(measured.fooled[name][seed].sum()) == 32 - number - 10


def test_other_data_are_refused(tmp_path):
    with executors.using(Given(Store(tmp_path), None)):
        setup = exhibits.setup("fig7_decision_boundaries", "smoke")
        setup = replace(setup, profile=replace(setup.profile, dataset="digits"))
        with pytest.raises(ValueError, match="Unknown set of points of the plane 'digits'"):
            fig7.train(setup)


def test_the_picture_has_the_regions_the_points_and_the_vulnerable_boxes():
    made = shares(1, Natural=(28, 50), KD=(14, 70), ARD=(1, 95))
    images = (torch.arange(64) * 3 + 20).view(32, 2, 1, 1).to(torch.uint8)
    measured = replace(made, points=Split(images, made.points.labels))
    panels = figures.decision_regions(measured, "title").axes
    assert [panel.get_title() for panel in panels[:4]] == [
        f"{name}\n{vulnerable} of 32 points vulnerable"
        for name, vulnerable in (("Natural", 28), ("KD", 14), ("ARD", 1), (fig7.TEACHER, 0))
    ]
    panel = panels[1]
    (region,) = panel.images
    assert np.array_equal(region.get_array(), measured.regions["KD"][0].numpy())
    assert region.origin == "lower", "the second coordinate goes up"
    places = images.flatten(1).numpy() / 255
    first, second = (points.get_offsets() for points in panel.collections)
    assert np.allclose(first, places[::2])
    assert np.allclose(second, places[1::2])
    boxes = [box for box in panel.patches if box.get_width() == pytest.approx(0.08)]
    assert np.allclose([box.get_xy() for box in boxes], places - 0.04)
    red = [to_hex(box.get_edgecolor()) == "#c00000" for box in boxes]
    assert red == measured.changing["KD"][0].tolist()
    vulnerable, agreeing = (panel.get_lines() for panel in panels[4:])
    assert [line.get_xdata()[0] for line in vulnerable] == pytest.approx([100 * n / 32 for n in (28, 14, 1, 0)])
    assert [line.get_xdata()[0] for line in agreeing] == pytest.approx([50, 70, 95]), "not the teacher with itself"
    plt.close("all")
