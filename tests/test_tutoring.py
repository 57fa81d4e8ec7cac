"""Guides and their students: features with known cosines, and the paper's claims on made-up answers."""

import itertools
import math

import pytest
import torch
from conftest import tiny_spec
from extents import saved_extents
from questions import Pretending, each_makes_another_question, has_the_form_of, name_of, the_store_answers

from rkdkit import attacks, claims, data, evaluation, executors, figures, models, runs, runtime
from rkdkit.analysis import features
from rkdkit.analysis.curves import BY_PEER, BY_TEACHER, Curve
from rkdkit.exhibits import fig3_peer_tutoring as fig3
from rkdkit.exhibits import tab2_peer_robustness as tab2
from rkdkit.measurements import CorrectPredictions, Pass
from rkdkit.references import Images, Snapshot


class Plane(models.Classifier):
    """A network on images of two pixels whose penultimate features are the pixels, turned by an angle."""

    def __init__(self, angle=0.0):
        super().__init__(2, 2, [0.0], [1.0])
        self.turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(2))
            self.head.bias.zero_()

    def trunk(self, x):
        return x.flatten(1) @ self.turn.T


class Fixed(attacks.Attack):
    """Makes of every image the one that belongs to the network attacked."""

    def __init__(self, images):
        object.__setattr__(self, "made", images)

    def examples(self, network, images, _labels, _generator):
        return self.made[network].view(1, 1, 1, 2).expand_as(images)


def test_cosines_are_those_of_the_features_at_x_and_at_both_kinds_of_adversarial_examples():
    guide, student = Plane(angle=0.7), Plane()
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).view(3, 1, 1, 2)
    attack = Fixed({student: torch.tensor([1.0, 0.0]), guide: torch.tensor([0.0, 0.5])})
    found = features.similarities(guide, student, x, torch.tensor([0, 1, 1]), attack)
    half = math.sqrt(0.5)
    expected = torch.tensor([[1.0, half, 0.0], [0.0, 0.0, 0.0], [0.0, half, 1.0]])
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_natural_images_are_taken_in_the_attacks_batches():
    """An attack with restarts has a size of batch of its own."""
    guide, student = Plane(angle=0.7), Plane()
    x = torch.rand(80, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(80, dtype=torch.int64)
    attack = attacks.PGD(0.1, 0.05, 2, restarts=2)
    usual = features.similarities(guide, student, x, labels, attack)
    with runtime.using(runtime.Settings(evaluation_batch_size=64)):
        assert torch.equal(features.similarities(guide, student, x, labels, attack), usual)


def test_cosines_of_many_images_are_in_one_row_each_and_never_above_one():
    guide, student = Plane(angle=0.7), Plane()
    x = torch.rand(700, 1, 1, 2, generator=torch.Generator().manual_seed(0))  # three batches
    labels = torch.zeros(700, dtype=torch.int64)
    towards = Fixed({student: torch.tensor([1.0, 0.0]), guide: torch.tensor([0.0, 0.5])})
    found = features.similarities(guide, student, x, labels, towards)
    assert found.shape == (3, 700)
    flat = x.flatten(1)
    expected = torch.stack([flat[:, 0] / flat.norm(dim=1), torch.zeros(700), flat[:, 1] / flat.norm(dim=1)])
    assert torch.allclose(found, expected, atol=1e-6)
    alike = features.similarities(guide, student, x, labels, attacks.FGSM(0.0))
    rounded = torch.nn.functional.cosine_similarity(guide.features(x), guide.features(x))
    assert rounded.max() > 1, "as it is computed, some are above 1 by rounding"
    assert alike.max() == 1
    assert alike.min() > 0.999


def test_a_network_that_shows_no_features_is_refused():
    x, y = torch.zeros(1, 1, 1, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="Sequential shows no penultimate features"):
        features.similarities(torch.nn.Sequential(), Plane(), x, y, attacks.FGSM(0.1))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        features.similarities(Plane(), Plane(), x + 2, y, attacks.FGSM(0.1))


def test_a_mean_cosine_has_students_interval_and_stays_within_its_bounds():
    values = torch.tensor([0.5, 0.7, 0.6, 0.8])
    mean = features.mean_similarity([values])
    margin = 3.182446 * math.sqrt((0.0225 + 0.0025 + 0.0025 + 0.0225) / 3) / 2
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.65, 0.65 - margin, 0.65 + margin), abs=1e-6)
    assert str(mean) == "0.650 [0.445, 0.855]"
    assert features.mean_similarity([torch.tensor([0.9, 1.0])]).high == 1.0
    two = features.mean_similarity([values, values - 0.2])
    assert (two.value, two.seeds) == (pytest.approx(0.55), 2)
    assert two.high - two.low > mean.high - mean.low


@pytest.fixture(scope="module")
def pupils(tmp_path_factory):
    """A PeerAiD run, a run with a fixed teacher in the peer's place, and that teacher."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        longer = {"n_train": 512, "epochs": 4, "eps": 0.1, "step_size": 0.05}
        teacher = runs.ensure(tiny_spec("TRADES", **longer)).snapshot()
        by_teacher = runs.ensure(tiny_spec("PeerAiD-fixed", teachers=(teacher.as_teacher(),), **longer))
        yield runs.ensure(tiny_spec("PeerAiD", **longer)), by_teacher, teacher


def right(judge, split, attack=None, attacked=None):
    """Which images of a split a snapshot gets right, found out without the store."""
    victim = None if attacked is None else attacked.load("cpu")
    network = victim if judge == attacked else judge.load("cpu")
    return evaluation.correct_predictions([network], split.images, split.labels, attack, victim)[0]


def all_differ(answers):
    """Make sure that a test would notice one answer in another's place."""
    for (one, first), (another, second) in itertools.combinations(answers.items(), 2):
        assert not torch.equal(first, second), (one, another)


def given_to_the_head(network, images):
    """What a network's last layer is given, as a hook sees it."""
    seen = []
    hook = network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(images)
    hook.remove()
    return seen[0]


def test_guides_of_snapshots_are_measured_on_the_images_they_are_judged_on(pupils, digits):
    run = pupils[0]
    peer, student = run.snapshot("peer"), run.snapshot()
    attack, images = attacks.PGD(0.1, 0.05, 2), Images("digits", n=60)
    measured = tab2.measure({"peer": [peer]}, {"peer": [student]}, images, attack)
    split = digits.test.take(slice(0, 60))
    expected = {
        "f(x)": right(peer, split),
        "f(x*_f)": right(peer, split, attack, peer),
        "f(x*_S)": right(peer, split, attack, student),
        "S(x*_S)": right(student, split, attack, student),
    }
    all_differ(expected)
    for quantity, correct in expected.items():
        assert torch.equal(measured.measured["peer"][quantity][0], correct), quantity
        assert measured["peer", quantity].value == pytest.approx(int(correct.sum()) / 60)
    guide = peer.load("cpu")
    x = {"x": data.to_float(split.images)}
    for name, attacked in {"x*_f": guide, "x*_S": student.load("cpu")}.items():
        x[name] = torch.cat([batch for batch, _ in evaluation.perturbed(attacked, split.images, split.labels, attack)])
    seen = {name: given_to_the_head(guide, each) for name, each in x.items()}
    unit = {name: each / each.norm(dim=1, keepdim=True) for name, each in seen.items()}
    cosines = {
        "cos(f(x), f(x*_S))": (unit["x"] * unit["x*_S"]).sum(1),
        "cos(f(x*_S), f(x*_f))": (unit["x*_S"] * unit["x*_f"]).sum(1),
        "cos(f(x), f(x*_f))": (unit["x"] * unit["x*_f"]).sum(1),
    }
    all_differ(cosines)
    for name, values in cosines.items():
        assert torch.allclose(measured.measured["peer"][name][0], values, atol=1e-5), name
    assert list(measured.table().quantity) == [*expected, *cosines]
    with pytest.raises(ValueError, match="One student per guide is needed"):
        tab2.measure({"peer": [peer]}, {"peer": []}, images, attack)
    with pytest.raises(ValueError, match="test images must be at least 2"):
        tab2.measure({"peer": [peer]}, {"peer": [student]}, images.first(1), attack)


def test_similarities_are_kept_by_all_that_they_depend_on(pupils, digits):
    run, by_teacher, teacher = pupils
    attack = attacks.FGSM(0.1)
    task = features.Similarities(
        images=Images("digits", n=20), guide=run.snapshot("peer"), student=run.snapshot(), attack=attack
    )
    # what the kit has always asked: answers of older stores are found by it
    assert task.question(name_of, digits.test.take(slice(0, 20))) == {
        "engine": 1,
        "question": "cosine similarities of penultimate features",
        "guide": "peer 4 of PeerAiD 0",
        "student": "student 4 of PeerAiD 0",
        "attack": attack.identity(),
        "data": digits.test.take(slice(0, 20)).digest,
        "n": 20,
    }
    each_makes_another_question(task, guide=teacher, student=by_teacher.snapshot(), attack=attacks.FGSM(0.2))
    (answer,) = runs.gather([task])
    assert torch.equal(the_store_answers(task), answer)
    has_the_form_of(task.placeholder(), answer)
    assert task.passes() == [
        Pass(task.guide, None, task.guide),
        Pass(task.guide, attack, task.student),
        Pass(task.guide, attack, task.guide),
    ]


def test_guides_and_panels_are_asked_for_all_at_once_and_pretended_answers_are_tables():
    teacher = Snapshot(tiny_spec("TRADES"), epoch=1)  # an early-stopped teacher is as good as any
    by_teacher = tiny_spec("PeerAiD-fixed", teachers=(teacher.as_teacher(),))
    peeraid, images, attack = tiny_spec("PeerAiD"), Images("digits", n=20), attacks.FGSM(0.1)
    with executors.using(Pretending()) as pretending:
        guides = {"peer": [Snapshot(peeraid, "peer")], "teacher": [teacher]}
        students = {"peer": [Snapshot(peeraid)], "teacher": [Snapshot(by_teacher)]}
        assert len(tab2.measure(guides, students, images, attack).table()) == 2 * 7
        assert pretending.gathers == [2 * 4]
        trained = [runs.Run(spec, None) for spec in (peeraid, by_teacher)]
        curves = fig3.measure(trained[:1], trained[1:], [teacher], {"test": images, "train": images}, attack)
        assert len(curves.table()) == 2 * 4 * 2
    assert pretending.gathers == [2 * 4, 2 * 2]  # both panels ask the same here
    assert all(isinstance(task, (CorrectPredictions, features.Similarities)) for task in pretending.noted)


def made_up(peer, teacher, natural, n=400):
    """Guides that are right on the first so many images, and whose cosines scatter a little about a mean."""
    noise = torch.linspace(-0.02, 0.02, n)

    def quantities(accuracies, cosines):
        right = zip(tab2.ACCURACIES, accuracies, strict=True)
        close = zip(features.COSINES, cosines, strict=True)
        return {
            **{name: [torch.arange(n) < share * n] for name, share in right},
            **{name: [value + noise] for name, value in close},
        }

    guides = {"peer": peer, "teacher": teacher, "natural": natural}
    return tab2.Guidance({name: quantities(*values) for name, values in guides.items()}, 10)


PAPERS = made_up(
    ((0.76, 0.0, 0.69, 0.30), (0.95, 0.37, 0.35)),
    ((0.57, 0.24, 0.39, 0.24), (0.96, 0.97, 0.96)),
    ((0.75, 0.0, 0.43, 0.14), (0.80, 0.47, 0.41)),
)


def test_table_2s_claims_on_guides_with_a_known_answer():
    def verdicts(measured):
        return [claim.verdict for claim in tab2.check_claims(measured)]

    assert verdicts(PAPERS) == [claims.HOLDS] * 6 + [claims.OPEN] + [claims.HOLDS] * 2, (
        "a point above the natural teacher"
    )
    swapped = made_up(
        ((0.5, 0.5, 0.3, 0.2), (0.5, 0.6, 0.7)),
        ((0.7, 0.2, 0.5, 0.4), (0.9, 0.9, 0.9)),
        ((0.9, 0.0, 0.4, 0.3), (0.8, 0.4, 0.4)),
    )
    assert verdicts(swapped) == [claims.FAILS] * 9
    same = ((0.5, 0.1, 0.5, 0.5), (0.8, 0.8, 0.8))
    assert verdicts(made_up(same, same, same)) == [claims.OPEN] * 9


def test_the_papers_table_2_stands_beside_ours_number_by_number():
    table = tab2.beside_paper(PAPERS.table())
    assert len(table) == 21
    assert table.paper.notna().all()
    gap = (table.value - table.paper).abs()
    assert gap.max() < 0.011, "made up from the paper's own numbers"
    of_peer = table[table.guide == "peer"].set_index("quantity").paper
    assert of_peer["S(x*_S)"] == pytest.approx(0.2969)
    assert of_peer["cos(f(x*_S), f(x*_f))"] == 0.37


def test_the_guides_legend_lies_between_the_panels_and_the_caption():
    table = tab2.beside_paper(PAPERS.table())
    figure = figures.guides_compared(table, tab2.GUIDES, "paper: CIFAR-100, ResNet-18")
    below = figure.subfigs[0].legends[0]
    label, legend, caption = saved_extents(figure, figure.axes[1], below)
    assert 0 <= label.y0 - legend.y1 < 50, "below the panels, without a gap"
    assert legend.y0 >= caption.y1
    assert [text.get_text() for text in below.get_texts()][:3] == list(tab2.GUIDES.values())


def test_each_network_is_followed_on_its_own_students_examples(pupils, digits):
    by_peer, by_teacher, teacher = pupils
    attack = attacks.PGD(0.1, 0.05, 2)
    images = {"test": Images("digits", n=60), "train": Images("digits", "train", n=60, n_train=512, n_val=32)}
    curves = fig3.measure([by_peer], [by_teacher], [teacher], images, attack)
    splits = {"test": digits.test, "train": digits.split_validation(512, 32)[0]}
    assert list(curves.panels) == ["test", "train"]
    expected = {}
    for images, panel in curves.panels.items():
        split = splits[images].take(slice(0, 60))
        for epoch in (3, 4):
            taught, alone = by_peer.snapshot("student", epoch), by_teacher.snapshot("student", epoch)
            peer = by_peer.snapshot("peer", epoch)
            judged = {
                ("student", BY_PEER): (taught, taught),
                ("peer", BY_PEER): (peer, taught),
                ("student", BY_TEACHER): (alone, alone),
                ("teacher", BY_TEACHER): (teacher, alone),
            }
            for part, (judge, attacked) in judged.items():
                expected[images, epoch, part] = correct = right(judge, split, attack, attacked)
                assert torch.equal(panel[part].correct[0][epoch], correct), (images, epoch, part)
    all_differ(expected)
    table = curves.table()
    assert len(table) == 2 * 4 * 4
    assert set(table.images) == {"test", "train"}


def test_pupils_and_guides_that_do_not_belong_together_are_refused(pupils):
    by_peer, by_teacher, teacher = pupils
    images, attack = {"test": Images("digits")}, attacks.FGSM(0.1)
    with pytest.raises(ValueError, match=r"per seed are needed, not seeds \[0\] and \[\]"):
        fig3.measure([by_peer], [], [], images, attack)
    with pytest.raises(ValueError, match=r"per seed are needed, not seeds \[\] and \[\]"):
        fig3.measure([], [], [], images, attack)
    earlier = Snapshot(teacher.spec, teacher.role, 1)
    for students, teachers in [
        ([by_teacher], [by_peer.snapshot()]),
        ([by_teacher], [earlier]),
        ([by_teacher], []),
        ([by_peer], [teacher]),
    ]:
        with pytest.raises(ValueError, match="must come with the one fixed teacher that taught it"):
            fig3.measure([by_peer], students, teachers, images, attack)


def four_curves(*by_epoch, n=200):
    return {
        part: Curve(*part, {0: {e: torch.arange(n) < share * n for e, share in enumerate(shares, 1)}})
        for part, shares in zip(fig3.LEGEND, by_epoch, strict=True)
    }


def test_figure_3s_claims_on_curves_with_a_known_answer():
    def verdicts(test, train, drops=()):
        curves = fig3.PeerTutoring({"test": four_curves(*test), "train": four_curves(*train)})
        return [claim.verdict for claim in fig3.check_claims(curves, drops)]

    up, down, flat = [0.1, 0.2, 0.3, 0.5, 0.7], [0.6, 0.5, 0.4, 0.3, 0.2], [0.4] * 5
    assert verdicts((up, up, flat, down), (up, up, flat, down)) == [claims.HOLDS] * 8
    assert verdicts((up, up, flat, down), (up, up, flat, down), [3]) == [claims.HOLDS] * 9, "one more where it drops"
    assert verdicts((down, down, flat, up), (down, down, flat, up), [3]) == [claims.FAILS] * 9
    assert verdicts([flat] * 4, [flat] * 4) == [claims.OPEN] * 8
    assert len(verdicts([flat[:1]] * 4, [flat[:1]] * 4)) == 2, "of one epoch there is no course"


def test_figure_3_has_a_panel_each_for_test_and_training_images():
    flat = [0.4] * 3
    curves = fig3.PeerTutoring({"test": four_curves(*[flat] * 4), "train": four_curves(*[flat] * 4)})
    labels = {part: f"line {i}" for i, part in enumerate(fig3.LEGEND)}
    table = curves.table()
    assert set(zip(table.images, table.figure, strict=True)) == {("test", "3a"), ("train", "3b")}
    figure = figures.peer_tutoring(table, labels)
    assert [axes.get_ylabel()[:5] for axes in figure.axes] == ["Test ", "Train"]
    (legend,) = figure.subfigs[0].legends
    assert [text.get_text() for text in legend.get_texts()] == list(labels.values())
    dashed = {line.get_label(): line.get_linestyle() for line in figure.axes[0].lines}
    assert [dashed[label] for label in labels.values()] == ["-", "-", "--", "--"]
