"""The explorer of the store: what it computes is what evaluations compute, its widgets show it, and it only reads."""

import asyncio
import base64
import io
import itertools
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import papermill
import pytest
import torch
from conftest import ROOT, run_python, tiny_spec
from PIL import Image
from typer.testing import CliRunner

from rkdkit import attacks, cli, data, evaluation, executors, explore, methods, runs
from rkdkit.checks import UnknownNameError
from rkdkit.determinism import generator
from rkdkit.drawing import kernel_place
from rkdkit.explore import answers as asking
from rkdkit.explore import column, drawing
from rkdkit.methods import own
from rkdkit.references import Snapshot
from rkdkit.spec import AVERAGED, Teacher
from rkdkit.store import Store, StoreError
from rkdkit.tasks import Context

TEACHER = tiny_spec("TRADES", epochs=2)
PEERED = tiny_spec("PeerAiD", epochs=3, swa_start=1)
TAUGHT = tiny_spec("RSLAD", teachers=(Teacher(run=TEACHER, epoch=1),))
POINTS = tiny_spec(
    "PGD-AT", dataset="moons", student="mlp-5/16", n_train=16, n_val=8, batch_size=8, eps=0.04, step_size=0.02, epochs=1
)
STEPS, EPS = 4, 0.25
ATTACK = attacks.PGD(EPS, EPS / 4, STEPS)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A store of four trained runs, which no test may change."""
    folder = tmp_path_factory.mktemp("explored") / "store"
    with executors.using(executors.Here(Store(folder), CPU)):
        for spec in (PEERED, TAUGHT, POINTS):
            runs.ensure(spec)
    return folder


@pytest.fixture
def copied(full, tmp_path):
    """A copy of that store, to damage."""
    return Path(shutil.copytree(full, tmp_path / "copied"))


def explorer_of(folder, run=PEERED.id, beside=None, n_images=12):
    return explore.explorer(explore.look_through(folder), run, beside, n_images=n_images, steps=STEPS)


@pytest.fixture
def explorer(full):
    return explorer_of(full)


def folder_of(store, spec):
    return Store(store).run_folder(spec).path


def network(store, spec, role="student", epoch=0):
    return Snapshot(spec, role, epoch).read(Context(store=Store(store), device=CPU))


def found_run(store, spec):
    return explore.look_through(store).named(spec.id)


def member(run, name, epoch, answers):
    return next(each for each in answers.members(run, epoch) if each.name == name)


def iterates(store, spec, index, name="student", epoch=None, eps=EPS):
    run, answers = found_run(store, spec), explore.Answers(store, STEPS)
    return answers.iterates(run, member(run, name, epoch or spec.epochs, answers), index, eps)


def content(folder):
    """What is in a folder: every file's bytes and time."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def parsed(widget):
    """The HTML of a widget; ill-formed HTML raises."""
    return ElementTree.fromstring(f"<div>{widget.value}</div>")


def pictures_in(html):
    """The pictures of some HTML, as arrays."""
    sources = [image.get("src").partition("base64,")[2] for image in html.iter("img")]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(drawing.png(image))))


def text_of(widget):
    return " ".join(parsed(widget).itertext())


# what is computed


def test_the_last_image_of_the_attack_is_that_of_an_evaluation(full, digits):
    ((expected, _),) = evaluation.perturbed(
        network(full, PEERED), digits.test.images[:1], digits.test.labels[:1], ATTACK
    )
    found = iterates(full, PEERED, 0)
    assert found.shape == (STEPS + 1, 1, 8, 8)
    assert torch.equal(found[-1], expected[0])
    image = data.to_float(digits.test.images[0])
    for before, after in itertools.pairwise(found):
        assert 0 < (after - before).abs().max() <= EPS / 4 + 1e-6
    assert (found - image).abs().max() <= EPS + 1e-6
    batch = torch.cat([x for x, _ in evaluation.perturbed(network(full, PEERED), *_first(digits, 8), ATTACK)])
    # in a batch, rounding may turn the sign of a gradient that is almost 0
    assert (iterates(full, PEERED, 7)[-1] - batch[7]).abs().mean() < 0.01


def _first(dataset, n):
    return dataset.test.images[:n], dataset.test.labels[:n]


@pytest.mark.parametrize("index", [0, 1, 40, 300])
def test_each_image_is_attacked_from_its_start_in_an_evaluation_of_all_images(full, digits, index):
    unmoved = replace(ATTACK, steps=0)
    starts = torch.cat([x for x, _ in evaluation.perturbed(network(full, PEERED), *_first(digits, None), unmoved)])
    assert torch.equal(iterates(full, PEERED, index)[0], starts[index])


def test_the_noise_of_many_images_is_skipped_in_parts():
    whole = generator(0, 0, "evaluation")
    torch.empty(1203, 1, 2, 2).uniform_(generator=whole)
    assert torch.equal(torch.rand(3, generator=asking.noise_of(1203, (1, 2, 2))), torch.rand(3, generator=whole))


def test_answers_are_the_softmax_of_each_network_in_eval_mode(full, digits):
    run, answers = found_run(full, PEERED), explore.Answers(full, STEPS)
    members = answers.members(run, 2)
    assert [each.name for each in members] == ["student", "peer", "averaged student"]
    seen = answers.see(run, members[0], members, 5, EPS)
    assert (seen.label, seen.eps) == (int(digits.test.labels[5]), EPS)
    assert torch.equal(seen.image, data.to_float(digits.test.images[5]))
    shown = torch.cat([seen.image[None], seen.iterates])
    for name, role in {"student": "student", "peer": "peer", "averaged student": AVERAGED}.items():
        with torch.no_grad():
            expected = torch.softmax(network(full, PEERED, role, 2).eval()(shown), 1)
        for step, row in zip((None, *range(STEPS + 1)), expected, strict=True):
            assert torch.allclose(seen.probabilities(name, step), row, atol=1e-5)
        assert seen.curve(name, "probability") == pytest.approx(expected[1:, seen.label].tolist(), abs=1e-5)
        assert seen.curve(name, "loss") == pytest.approx((-expected[1:, seen.label].log()).tolist(), rel=1e-3)


def test_a_fixed_teacher_is_asked_and_attacked_with_the_weights_that_taught(full, digits):
    run, answers = found_run(full, TAUGHT), explore.Answers(full, STEPS)
    student, teacher = answers.members(run, 1)
    assert (teacher.name, teacher.kind) == ("teacher TRADES resnet18/16 at epoch 1", "teacher")
    seen = answers.see(run, student, [teacher], 0, EPS)
    with torch.no_grad():
        expected = torch.softmax(network(full, TEACHER, epoch=1)(seen.iterates), 1)[-1]
    assert torch.allclose(seen.probabilities(teacher.name, STEPS), expected, atol=1e-5)
    attacked = answers.iterates(run, teacher, 0, EPS)
    ((made, _),) = evaluation.perturbed(network(full, TEACHER, epoch=1), *_first(digits, 1), ATTACK)
    assert torch.equal(attacked[-1], made[0])


def test_the_curve_over_the_epochs_is_that_of_evaluations(full, digits):
    trajectory = explore.Trajectory(explore.Answers(full, STEPS), found_run(full, PEERED), "peer", 0, EPS)
    assert trajectory.missing == [1, 2, 3]
    while trajectory.missing:
        trajectory.go_on()
    epochs, natural, attacked = trajectory.curves("loss")
    assert epochs == [1, 2, 3]
    for attack, found in ((None, natural), (ATTACK, attacked)):
        expected = [
            float(
                evaluation.per_image("cross entropy", network(full, PEERED, "peer", epoch), *_first(digits, 1), attack)
            )
            for epoch in epochs
        ]
        assert found == pytest.approx(expected, rel=1e-3)
    assert trajectory.curves("probability")[1] == pytest.approx([np.exp(-loss) for loss in natural], rel=1e-3)


def test_averaged_weights_have_a_curve_from_the_epoch_on_from_which_they_are_averaged(full):
    assert explore.Trajectory(explore.Answers(full), found_run(full, PEERED), "averaged student", 0, EPS).epochs == (
        2,
        3,
    )


def test_which_images_a_network_mistakes_are_those_of_an_evaluation(full, digits):
    run, answers = found_run(full, PEERED), explore.Answers(full, STEPS)
    expected = evaluation.correct_predictions([network(full, PEERED)], *_first(digits, 60))[0]
    found = answers.correct(run, member(run, "student", 3, answers), range(20, 60))
    assert torch.equal(found, expected[20:])
    assert 0 < found.sum() < 40, "or marks of all or none would pass"


def test_networks_and_answers_are_computed_once(full, monkeypatch):
    run, answers = found_run(full, PEERED), explore.Answers(full, STEPS)
    members = answers.members(run, 3)
    first = answers.see(run, members[0], members, 0, EPS)
    monkeypatch.setattr(Snapshot, "read", None)
    monkeypatch.setattr(attacks.PGD, "perturb", None)
    again = answers.see(run, members[0], members, 0, EPS)
    assert torch.equal(again.iterates, first.iterates)


def test_what_was_not_asked_for_longest_is_forgotten_first():
    kept = asking._Kept(3 * 8)
    for key in "abc":
        kept.tensor(key, lambda: torch.zeros(1, dtype=torch.float64))
    kept.tensor("a", lambda: 1 / 0)
    kept.tensor("d", lambda: torch.zeros(1, dtype=torch.float64))
    assert [key in kept for key in "abcd"] == [True, False, True, True]
    assert kept.tensor("large", lambda: torch.ones(9)).sum() == 9
    assert [key in kept for key in ("a", "large")] == [False, True]


# what is drawn


def test_a_picture_has_the_images_own_pixels(digits):
    image = digits.test.images[3]
    assert (pixels(data.to_float(image)) == image.permute(1, 2, 0).numpy()).all()
    colours = torch.rand(3, 4, 5)
    assert (pixels(colours) == (colours * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).all()
    point = pixels(torch.tensor([0.25, 1.0]).view(2, 1, 1))
    assert {(int(row), int(place)) for row, place, _ in np.argwhere(point == 0)} == {
        (row, place) for row in (0, 1) for place in (9, 10, 11)
    }, "upwards is more"


def test_differences_go_from_black_to_white_over_the_ball():
    image = torch.full((1, 1, 3), 0.5)
    moved = image + torch.tensor([-0.125, 0.0, 0.125])
    assert drawing.difference(image, moved, 0.125).flatten().tolist() == [0, 0.5, 1]
    assert drawing.difference(image, image, 0).flatten().tolist() == [0.5] * 3


def test_of_many_classes_those_with_high_probabilities_and_the_true_one_have_bars():
    first, second = torch.linspace(0, 0.3, 20), torch.zeros(20)
    second[4] = 0.9
    assert drawing.classes_with_bars([first, second], 2, most=4) == [2, 4, 18, 19]
    assert drawing.classes_with_bars([first[:3]], 1) == [0, 1, 2]


def test_names_are_text_and_never_markup():
    drawn = drawing.bars("<i>&\"'", "#000000", {"<b>": (0.5, 0.25)}, "<b>")
    assert [each.text for each in ElementTree.fromstring(drawn).iter() if each.text][:2] == ["<i>&\"'", "<b>"]
    assert ElementTree.fromstring(drawing.problem("<script>")).text == "<script>"
    line = drawing.Line("<u>", "#000000", [1, 2], [0.5, 0.75])
    ElementTree.fromstring(f"<p>{drawing.curves('<h1>', [line], 1, (1, 2), share=True)}</p>")


def test_a_curve_is_drawn_where_its_values_are():
    line = drawing.Line("student", "#029e73", [0, 4], [1.0, 0.0])
    drawn = ElementTree.fromstring(f"<p>{drawing.curves('p', [line], 4, (0, 4), share=True)}</p>")
    (svg,) = drawn.iter("svg")
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in next(svg.iter("polyline")).get("points").split())
    assert x0 < x1
    assert y0 < y1, "1 is at the top"
    assert svg.get("aria-label") == "p. student: from 1 to 0"


# the widgets


def test_the_first_run_shown_is_one_with_a_peer_and_none_is_beside_it(full):
    explorer = explore.explorer(explore.look_through(full), n_images=12, steps=STEPS)
    first, second = explorer.columns
    assert (explorer.dataset.value, first.method.value, first.epoch.value) == ("digits", "PeerAiD", 3)
    assert (first.who.value, second.method.value, second.chosen) == ("student", column.NONE, None)
    assert (explorer.eps.value, explorer.step.value, explorer.index) == (EPS, STEPS, 0)
    assert second.shown.value == second.curves.value == ""


def test_the_pictures_are_the_image_the_attacked_image_and_their_difference(explorer, full):
    shown = explorer.columns[0]
    for step in (STEPS, 0, 2):
        explorer.step.value = step
        image, now = shown.seen.image, iterates(full, PEERED, 0)[step]
        expected = [image, now, 0.5 + (now - image) / (2 * EPS)]
        for found, wanted in zip(pictures_in(parsed(shown.shown)), expected, strict=True):
            assert np.abs(found[..., 0].astype(int) - 255 * wanted[0].numpy()).max() <= 1
    assert f"2 times as strong: black -{EPS}, white +{EPS}" in text_of(shown.shown)
    assert "after step 2 of 4" in text_of(shown.shown)


def test_bars_and_verdicts_say_what_the_networks_answer(explorer, full):
    explorer.step.value = 3
    shown, x = explorer.columns[0], data.to_float(data.load("digits").test.images[:1])
    labels = [each.get("aria-label") for each in parsed(shown.shown).iter("svg")]
    with torch.no_grad():
        natural = torch.softmax(network(full, PEERED, "peer")(x), 1)[0]
        attacked = torch.softmax(network(full, PEERED, "peer")(iterates(full, PEERED, 0)[3:4]), 1)[0]
    (bars,) = (label for label in labels if label.startswith("peer, "))
    found = [[int(n) for n in pair] for pair in re.findall(r"\d: (\d+) and (\d+) %", bars)]
    assert np.abs(np.array(found) - 100 * torch.stack([natural, attacked], 1).numpy()).max() <= 0.51
    label = int(data.load("digits").test.labels[0])
    (row,) = (row for row in parsed(shown.shown).iter("tr") if row[0].text == "peer")
    for cell, answer in zip(row[1:], (natural, attacked), strict=True):
        assert cell.text.startswith(f"{int(answer.argmax())} (")
        assert cell.text.endswith("right" if int(answer.argmax()) == label else "wrong")


def test_a_click_on_an_image_shows_it(explorer, digits):
    explorer.buttons[7].click()
    assert explorer.index == 7
    assert torch.equal(explorer.columns[0].seen.image, data.to_float(digits.test.images[7]))
    assert f".{explorer._token}-7.jupyter-button {{ outline" in explorer._marks_style.value
    explorer.page.value = 2
    assert explorer.index == 12
    explorer.buttons[7].click()
    assert torch.equal(explorer.columns[0].seen.image, data.to_float(digits.test.images[19]))


def test_each_button_shows_its_image_and_says_which_it_is(explorer, digits):
    explorer.page.value = 3
    rules = dict(
        re.findall(
            r"-(\d+)\.jupyter-button \{ background-image: url\(data:image/png;base64,([^)]*)\)", _rules(explorer)
        )
    )
    assert len(rules) == 12
    for place, button in enumerate(explorer.buttons):
        index = 24 + place
        assert button.tooltip == f"test image {index}: {digits.classes[digits.test.labels[index]]}"
        assert f"{explorer._token}-{place}" in button._dom_classes
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(rules[str(place)]))))
        assert (drawn == digits.test.images[index].permute(1, 2, 0).numpy()).all()


def _rules(explorer):
    return explorer._images_style.value


def test_two_explorers_in_one_notebook_do_not_share_their_images(full):
    assert explorer_of(full)._token != explorer_of(full)._token


def test_the_last_page_may_have_fewer_images(explorer):
    assert explorer.page.max == 42
    explorer.page.value = 42
    displayed = [button for button in explorer.buttons if button.layout.display != "none"]
    assert len(displayed) == 497 - 41 * 12
    explorer.page.value = 1
    assert all(button.layout.display != "none" for button in explorer.buttons)


def test_images_that_the_attacked_network_mistakes_are_marked(explorer, full, digits):
    for role, name in (("student", "student"), ("peer", "peer")):
        explorer.columns[0].who.value = name
        right = evaluation.correct_predictions([network(full, PEERED, role)], *_first(digits, 12))[0]
        marked = {int(n) for n in re.findall(r"-(\d+)\.jupyter-button \{ border", explorer._marks_style.value)}
        assert marked == set((~right).nonzero().flatten().tolist())
        assert f"({len(marked)} of 12)" in text_of(explorer._said)


def test_moving_eps_attacks_anew(explorer, full):
    for eps in (0.0, 0.1):
        explorer.eps.value = eps
        assert torch.equal(explorer.columns[0].seen.iterates, iterates(full, PEERED, 0, eps=eps))
    explorer.eps.value = 0
    seen = explorer.columns[0].seen
    assert (seen.iterates == seen.image).all()
    assert "none, as eps is 0" in text_of(explorer.columns[0].shown)


def test_moving_the_epoch_and_the_attacked_network_attacks_others(explorer, full):
    shown = explorer.columns[0]
    shown.epoch.value = 1
    assert shown.who.options == ("student", "peer"), "averaging begins later"
    assert torch.equal(shown.seen.iterates, iterates(full, PEERED, 0, epoch=1))
    shown.who.value = "peer"
    assert torch.equal(shown.seen.iterates, iterates(full, PEERED, 0, "peer", epoch=1))
    shown.epoch.value = 2
    assert shown.who.value == "peer", "what is attacked stays"
    assert torch.equal(shown.seen.iterates, iterates(full, PEERED, 0, "peer", epoch=2))


def test_a_run_beside_is_attacked_itself_and_asked_about_the_others_image(explorer, full):
    first, second = explorer.columns
    second.method.value = "RSLAD"
    assert second.chosen.id == TAUGHT.id
    assert torch.equal(second.seen.iterates, iterates(full, TAUGHT, 0))
    name = "beside: student of RSLAD, epoch 2"
    with torch.no_grad():
        expected = torch.softmax(network(full, TAUGHT)(first.seen.iterates), 1)[-1]
    assert torch.allclose(first.seen.probabilities(name, STEPS), expected, atol=1e-5)
    assert "beside: student of PeerAiD, epoch 3" in second.seen.logits
    second.method.value = column.NONE
    assert second.shown.value == ""
    assert name not in first.seen.logits


def test_curves_over_the_epochs_are_completed_by_finish_and_show_loss_or_probability(explorer):
    shown = explorer.columns[0]
    assert "(2 epochs to come)" in text_of(shown.curves), "without an event loop, only the chosen epoch is known"
    explorer.finish()
    assert "to come" not in text_of(shown.curves)
    epochs, natural, attacked = shown.trajectory.curves("probability")
    (svg,) = parsed(shown.curves).iter("svg")
    for values in (natural, attacked):
        assert f"from {values[0]:.3g} to {values[-1]:.3g}" in svg.get("aria-label")
    assert len([*svg.iter("circle")]) == 2 * len(epochs) == 6
    explorer.quantity.value = "loss"
    (svg,) = parsed(shown.curves).iter("svg")
    losses = shown.trajectory.curves("loss")[2]
    assert f"from {losses[0]:.3g} to {losses[-1]:.3g}" in svg.get("aria-label")
    explorer.step.value = 1
    assert not explorer.unfinished, "what was computed stays"


def test_curves_are_completed_while_nothing_is_moved_where_there_is_an_event_loop(full):
    async def watched():
        explorer = explorer_of(full)
        explorer.buttons[3].click()
        assert explorer.unfinished
        for _ in range(400):
            if not explorer.unfinished:
                break
            await asyncio.sleep(0.05)
        return explorer

    explorer = asyncio.run(watched())
    assert not explorer.unfinished
    assert "to come" not in text_of(explorer.columns[0].curves)
    assert explorer.columns[0].trajectory.missing == []


def test_the_curve_over_the_epochs_is_of_the_image_eps_and_network_that_are_chosen(explorer, full):
    shown, chosen = explorer.columns[0], {"index": 0, "eps": EPS, "name": "student"}
    explorer.finish()
    for widget, value, what in ((None, 3, "index"), (explorer.eps, 0.1, "eps"), (shown.who, "peer", "name")):
        if widget is None:
            explorer.buttons[value].click()
        else:
            widget.value = value
        chosen[what] = value
        explorer.finish()
        expected = explore.Trajectory(explore.Answers(full, STEPS), found_run(full, PEERED), **chosen)
        while expected.missing:
            expected.go_on()
        assert shown.trajectory.curves("loss") == expected.curves("loss")


def test_another_dataset_brings_its_own_runs_images_and_eps(explorer):
    explorer.dataset.value = "moons"
    first = explorer.columns[0]
    assert (first.chosen.id, explorer.eps.value, explorer.eps.max) == (POINTS.id, 0.04, 0.08)
    explorer.finish()
    assert len(pictures_in(parsed(first.shown))) == 3
    assert "first" in text_of(first.shown)
    explorer.dataset.value = "digits"
    assert (first.chosen.id, explorer.eps.value) == (PEERED.id, EPS)


def test_everything_shown_has_a_text_for_those_who_do_not_see_it(explorer):
    explorer.columns[1].method.value = "RSLAD"
    explorer.finish()
    for each in explorer.columns:
        for html in (parsed(each.shown), parsed(each.curves)):
            assert all(image.get("alt") for image in html.iter("img"))
            assert all((svg.get("role"), bool(svg.get("aria-label"))) == ("img", True) for svg in html.iter("svg"))
    assert all(button.tooltip for button in explorer.buttons)
    moved = [explorer.dataset, explorer.page, explorer.eps, explorer.step, explorer.quantity]
    moved += [getattr(each, name) for each in explorer.columns for name in ("method", "run", "epoch", "who")]
    assert all(widget.description for widget in moved)


def test_the_numbers_are_those_that_are_shown(explorer):
    explorer.columns[1].method.value = "RSLAD"
    explorer.step.value = 2
    numbers = explorer.numbers().set_index(["run", "network", "image"])
    first = explorer.columns[0]
    assert len(numbers) == 2 * sum(len(each.seen.logits) for each in explorer.columns)
    row = numbers.loc[(first.chosen.name, "peer", "after step 2")]
    assert row.tolist() == pytest.approx(first.seen.probabilities("peer", 2).tolist())
    assert list(numbers.columns) == list("0123456789")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run": "PeerAID"}, "has the method or the id 'PeerAID'. Methods there: .*PeerAiD"),
        ({"run": "RSLAD", "beside": POINTS.id}, "No run on digits in .* has the method or the id"),
        ({"n_images": 0}, "n_images must be between 1 and 200"),
        ({"steps": 0}, "steps must be between 1 and 200"),
        ({"steps": 2.5}, "steps must be a whole number"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(full, given, message):
    with pytest.raises(ValueError, match=message):
        explore.explorer(explore.look_through(full), **given)


# what is missing or damaged


def test_an_empty_store_says_what_to_run(tmp_path):
    found = explore.look_through(tmp_path / "nowhere")
    assert "make fig1" in str(found)
    assert "rkdkit figures fig1_peer_vs_teacher --profile quick" in str(found)
    explorer = explore.explorer(found)
    assert "make fig1" in explorer.widget.value
    assert explorer.numbers().empty
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"store leads to .*file, which is a file"):
        explore.look_through(tmp_path / "file")


def test_runs_of_one_name_are_told_apart_by_what_differs(copied):
    other = replace(TAUGHT, lr=0.01)
    record = add_copy(copied, TAUGHT, other)
    assert record["id"] == other.id
    names = {run.id: run.name for run in explore.look_through(copied).runs}
    assert len(set(names.values())) == len(names) == 5
    assert sum("; lr 0.0" in name for name in names.values()) == 1
    assert all(name.endswith(f"({run_id[:6]})") for run_id, name in names.items())


def add_copy(store, of, spec):
    """Add a run to a store that has another run's networks."""
    pattern, folder = Store(store).run_folder(of), Store(store).run_folder(spec)
    shutil.copytree(pattern.path, folder.path)
    record = {**pattern.read_record(), "spec": spec.to_json(), "id": spec.id}
    folder.write_record(record)
    return record


def test_a_damaged_record_is_one_line_and_other_runs_are_shown(copied):
    folder = folder_of(copied, TAUGHT)
    (folder / "run.json").write_text('{"digest": "0", "content": {}}')
    found = explore.look_through(copied)
    (line,) = found.problems
    assert line.startswith(f"{folder.name}: damaged, its run.json does not match its own digest")
    assert f"rkdkit runs verify {TAUGHT.id}" in line
    assert line in str(found)
    assert {run.id for run in found.runs} == {TEACHER.id, PEERED.id, POINTS.id}


def test_many_unusable_runs_are_counted(copied):
    for number in range(20):
        (copied / "runs" / f"mine-{number:016x}").mkdir()
    found = explore.look_through(copied)
    assert len(found.problems) == 20
    assert str(found).endswith("... and 8 more that cannot be shown.")


def test_a_run_of_ones_own_method_is_there_if_the_methods_file_is_named(full, tmp_path, monkeypatch):
    file, before = tmp_path / "my_methods.py", dict(methods.METHODS)
    file.write_text(
        "from dataclasses import replace\nfrom rkdkit.methods import METHODS\n"
        "METHODS['mine'] = replace(METHODS['PGD-AT'], title='Mine')\n"
    )
    monkeypatch.setattr(own, "_LOADED", {})
    store = tmp_path / "store"
    try:
        own.load(file)
        spec = tiny_spec("mine", epochs=1)
        with executors.using(executors.Here(Store(store), CPU)):
            runs.ensure(spec)
        for table in (own._LOADED, methods.METHODS):  # as in another process
            table.clear()
        methods.METHODS.update(before)
        monkeypatch.delenv(own.VARIABLE, raising=False)
        (line,) = explore.look_through(store).problems
        assert "Unknown method 'mine'" in line
        assert "set RKDKIT_METHODS to its path" in line
        monkeypatch.setenv(own.VARIABLE, str(file))
        found = explore.look_through(store)
        assert (found.problems, found.named("mine").spec) == ((), spec)
        file.write_text("1 / 0")
        own._LOADED.clear()
        (line,) = explore.look_through(full).problems
        assert line == f"{file}, line 1: ZeroDivisionError: division by zero"
    finally:
        methods.METHODS.clear()
        methods.METHODS.update(before)


def test_a_run_of_an_unknown_method_is_one_line(copied):
    folder = Store(copied).run_folder(TAUGHT)
    record = folder.read_record()
    folder.write_record({**record, "spec": {**record["spec"], "method": "mine"}})
    (line,) = explore.look_through(copied).problems
    assert "Unknown method 'mine'" in line


def test_a_run_whose_method_is_defined_otherwise_today_is_one_line(copied):
    folder = folder_of(copied, TAUGHT)
    folder.rename(folder.with_name(folder.name[:-16] + "0" * 16))
    (line,) = explore.look_through(copied).problems
    assert f"has the id {TAUGHT.id} today" in line


def test_a_damaged_network_is_said_and_other_epochs_are_shown(copied):
    file = folder_of(copied, PEERED) / "student-0002.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    explorer = explorer_of(copied)
    shown = explorer.columns[0]
    explorer.finish()
    assert "Epoch 2: " in text_of(shown.curves)
    assert "is damaged" in text_of(shown.curves)
    assert shown.trajectory.curves("loss")[0] == [1, 3]
    shown.epoch.value = 2
    assert "is damaged" in text_of(shown.shown)
    assert shown.seen is None
    shown.who.value = "peer"
    assert set(shown.seen.logits) == {"peer", "averaged student"}, "the others answer"
    assert "student: " in text_of(shown.shown)
    shown.epoch.value = 3
    assert shown.seen is not None


def test_pruned_networks_are_said_with_what_restores_them(copied):
    folder = folder_of(copied, PEERED)
    for file in (*folder.glob("*-0001.safetensors"), folder / "peer-0002.safetensors"):
        file.unlink()
    shown = explorer_of(copied).columns[0]
    assert shown.epoch.options == (2, 3)
    assert "5 of this run's 8 networks are here" in text_of(shown.shown)
    assert f"delete the folder {folder}" in text_of(shown.shown)
    shown.epoch.value = 2
    assert shown.who.options == ("student", "averaged student")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (line,) = explore.look_through(copied).problems
    assert "its networks were pruned" in line


def test_a_teacher_that_is_not_here_is_said_and_the_student_is_shown(copied):
    shutil.rmtree(folder_of(copied, TEACHER))
    shown = explorer_of(copied, TAUGHT.id).columns[0]
    assert shown.who.options == ("student",)
    assert set(shown.seen.logits) == {"student"}
    assert "teacher TRADES resnet18/16 at epoch 1: " in text_of(shown.shown)
    assert "is not in the store" in text_of(shown.shown)


def test_a_teacher_from_elsewhere_is_said(copied):
    spec = replace(TAUGHT, teachers=(Teacher(module="robust", digest="0" * 16),))
    add_copy(copied, TAUGHT, spec)
    shown = explorer_of(copied, spec.id).columns[0]
    assert "teacher robust: It is a module from elsewhere" in text_of(shown.shown)


def test_several_teachers_of_one_name_are_numbered(copied):
    half = Teacher(run=TEACHER, epoch=1, weight=0.5)
    spec = replace(TAUGHT, teachers=(half, half))
    add_copy(copied, TAUGHT, spec)
    seen = explorer_of(copied, spec.id).columns[0].seen
    name = "teacher TRADES resnet18/16 at epoch 1, weight 0.5"
    assert list(seen.logits) == ["student", f"{name} (1)", f"{name} (2)"]
    assert "from 2 times TRADES resnet18/16 at epoch 1, seed 0" in found_run(copied, spec).name


def test_data_that_are_not_here_or_are_others_are_said(copied, monkeypatch):
    folder = Store(copied).run_folder(PEERED)
    record = folder.read_record()
    folder.write_record({**record, "data": {**record["data"], "digest": "0" * 16}})
    explorer = explorer_of(copied)
    assert "trained on other data than digits is now" in text_of(explorer.columns[0].shown)
    assert all(button.layout.display == "none" for button in explorer.buttons)

    def missing(_):
        raise data.DataNotFoundError("The data were looked for in nowhere.")

    monkeypatch.setattr(data, "load", missing)
    assert "The data were looked for in nowhere." in text_of(explorer_of(copied, TAUGHT.id).columns[0].shown)


def test_an_unfinished_run_is_shown_and_said_to_be_unfinished(copied):
    folder = Store(copied).run_folder(TAUGHT)
    record = folder.read_record()
    early = {"student": {"1": record["snapshots"]["student"]["1"]}}
    folder.write_record({**record, "finished": 1, "history": record["history"][:1], "snapshots": early})
    shown = explorer_of(copied, TAUGHT.id).columns[0]
    assert "not finished: 1 of 2 epochs" in text_of(shown.shown)
    assert shown.epoch.options == (1,)


# the store is only read


def test_nothing_is_fetched_from_a_mirror(full, copied, monkeypatch):
    file = folder_of(copied, PEERED) / "student-0002.safetensors"
    run, answers = found_run(copied, PEERED), explore.Answers(copied, STEPS)
    file.unlink()
    monkeypatch.setenv("RKDKIT_MIRROR", full.as_uri())
    with pytest.raises(StoreError, match="is not in the store"):
        answers.network(answers.trained(run, 2)[0])
    assert not file.exists()


def test_exploring_changes_nothing_in_the_store(full):
    before = content(full)
    explorer = explorer_of(full, beside="RSLAD")
    for each in explorer.columns:
        for epoch in each.epoch.options:
            each.epoch.value = epoch
    explorer.eps.value = 0.1
    explorer.dataset.value = "moons"
    explorer.finish()
    assert content(full) == before


def test_what_is_computed_needs_no_widgets(full):
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from rkdkit import explore\n"
        "found = explore.look_through()\n"
        "answers, run = explore.Answers(found.root, 1), found.named('PeerAiD')\n"
        "members = answers.members(run, 1)\n"
        "print(sorted(answers.see(run, members[0], members, 0, 0.1).logits))\n"
    )
    said, errors = run_python(code, full).communicate(timeout=300)
    assert said == "['peer', 'student']\n", errors


# the notebook


def executed(tmp_path, **parameters):
    """Run the notebook in a folder without a checkout; return its outputs, cell by cell."""
    with kernel_place() as place:
        papermill.execute_notebook(
            str(ROOT / "notebooks" / "explore.ipynb"),
            str(tmp_path / "out.ipynb"),
            parameters,
            progress_bar=False,
            cwd=str(tmp_path),
            config=place,
        )
    cells = json.loads((tmp_path / "out.ipynb").read_text(encoding="utf-8"))["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_shows_the_store_and_changes_nothing(full, tmp_path):
    before = content(full)
    *_, found, shown, numbers = executed(tmp_path, store=str(full), run="PeerAiD", beside="RSLAD", n_images=6, steps=2)
    assert "3 on digits, 1 on moons" in "".join(found[0]["text"])
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown)
    assert "beside: student of RSLAD" in "".join(numbers[-1]["data"]["text/plain"])
    assert not any(output.get("name") == "stderr" for output in (*found, *shown, *numbers))
    assert content(full) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out.ipynb"}


def test_the_notebook_says_what_to_run_where_there_is_nothing(tmp_path):
    *_, found, shown, _ = executed(tmp_path, store=str(tmp_path / "none"))
    assert "make fig1" in "".join(found[0]["text"])
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown)
    assert not (tmp_path / "none").exists()


def test_the_notebook_is_no_exhibit():
    assert (ROOT / "notebooks" / "explore.ipynb").is_file()
    assert "explore" not in cli._notebooks()
    assert "explore" not in CliRunner().invoke(cli.app, ["list"]).output
    done = CliRunner().invoke(cli.app, ["figures", "explore"])
    assert (done.exit_code, "Unknown exhibit 'explore'" in str(done.exception)) == (1, True)


def test_several_ids_that_begin_alike_are_refused(full):
    found = explore.look_through(full)
    alike = replace(found, runs=tuple(replace(run, id=f"0{run.id}") for run in found.runs))
    with pytest.raises(UnknownNameError, match=r"Several runs' ids begin with 0: .*Write more"):
        alike.named("0")
