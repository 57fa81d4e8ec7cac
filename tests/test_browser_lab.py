"""The notebooks in JupyterLab, in a real browser: run by the menu, moved by the sliders, interrupted."""

import json
import re
import shutil

import browsers
import pytest
from conftest import ROOT

from rkdkit import claims, exhibits, runs

FIGURE_1 = "fig1_peer_vs_teacher"
EPOCHS = 300
"""More than can be trained before the test interrupts it."""


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(browser, folder):
    """JupyterLab on a copy of the project, with a store of its own, as `make lab` starts it."""
    del browser  # without one, nothing is started
    project = folder / "project"
    for name in ("notebooks", "figures"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(ROOT / "pyproject.toml", project)
    (folder / "home").mkdir()
    with browsers.jupyterlab(project, folder / "home", {"RKDKIT_STORE": str(folder / "store")}) as started:
        yield started


def epochs_in(store):
    """Return how many epochs of each training a store holds."""
    records = store.glob("runs/*/run.json")
    return {file.parent.name: json.loads(file.read_text())["content"]["finished"] for file in records}


def test_figure_1_is_run_by_the_menu_until_its_picture_and_verdicts_are_there(browser, lab, tmp_path):
    out = lab.folder / "out"
    with lab.opened(browser, f"{FIGURE_1}.ipynb", profile="smoke", output_dir=str(out)) as notebook:
        notebook.run_all()
        notebook.wait(90)
        page = notebook.page
        assert notebook.red() == []
        assert all(re.fullmatch(r"\[\d+\]:", prompt) for prompt in notebook.prompts())
        verdicts = rf"^(?:{claims.HOLDS}|{claims.FAILS}|{claims.OPEN}) "
        assert len(re.findall(verdicts, notebook.text(), re.MULTILINE)) >= 3, notebook.text()
        assert page.locator(".jp-OutputArea-output progress").count() == 0, "a bar is left behind"
        drawn = page.locator(".jp-OutputArea-output img").first
        assert drawn.evaluate("image => image.decode().then(() => image.naturalWidth)") > 400
        for place in range(len(notebook.prompts())):
            page.locator(".jp-CodeCell").nth(place).scroll_into_view_if_needed()
            browsers.picture(page, f"lab-figure-1-cell-{place + 1}", tmp_path)
        assert notebook.visit.faults == []
    assert sorted(path.name for path in out.iterdir()) == [f"{FIGURE_1}.{kind}" for kind in ("csv", "json", "png")]


def test_an_interrupt_says_in_one_line_where_it_stopped_and_running_again_goes_on(browser, lab, folder, tmp_path):
    name, store = "interrupted.ipynb", folder / "store"
    shutil.copy(ROOT / "notebooks" / f"{FIGURE_1}.ipynb", lab.folder / "notebooks" / name)
    before = epochs_in(store)

    def trained():
        return max((n for run, n in epochs_in(store).items() if run not in before), default=0)

    def wait_for_more_than(epochs):
        for _ in range(600):
            if trained() > epochs:
                return
            notebook.page.wait_for_timeout(100)
        raise AssertionError(f"after a minute, {trained()} epochs are trained: {notebook.text()}")

    settings = {"profile": "smoke", "seed": 7, "epochs": EPOCHS, "output_dir": str(lab.folder / "never")}
    with lab.opened(browser, name, **settings) as notebook:
        notebook.run_all()
        wait_for_more_than(1)
        # at once: the bars are other elements after each step
        widths = notebook.page.wait_for_function(
            "() => { const bars = [...document.querySelectorAll('.jp-OutputArea-output progress')];"
            " bars.at(-1)?.scrollIntoView({ block: 'center' });"
            " return bars.length && bars.map(bar => bar.getBoundingClientRect().width) }"
        )
        assert min(widths.json_value()) >= 100, "a bar is too narrow to be read"
        browsers.picture(notebook.page, "lab-training", tmp_path)
        notebook.interrupt()
        notebook.wait(30)
        browsers.picture(notebook.page, "lab-interrupted", tmp_path)
        (line,) = notebook.red()  # a cell that did not end is red: without it, the cells below would be run
        assert line.count("\n") == 0, line
        kept = trained()
        assert f"after epoch {kept} of {EPOCHS}" in line
        assert "again" in line
        assert "Traceback" not in notebook.text()
        notebook.run_all()
        wait_for_more_than(kept)
        notebook.interrupt()
        notebook.wait(30)
        assert notebook.visit.faults == []
    assert kept < trained() < EPOCHS
    assert not (lab.folder / "never").exists()


@pytest.fixture
def trained(lab, folder, monkeypatch):
    """What `explore.ipynb` looks at: Figure 1's runs at smoke, trained unless its notebook was run before."""
    monkeypatch.setenv("RKDKIT_STORE", str(folder / "store"))
    setup = exhibits.setup(FIGURE_1, "smoke", output_dir=str(lab.folder / "out"))
    return runs.ensure_all(setup.teacher_specs(), setup.specs("PeerAiD"))


def test_the_explorers_sliders_and_images_change_its_pictures(browser, trained, lab, tmp_path):
    del trained
    with lab.opened(browser, "explore.ipynb") as notebook:
        notebook.run_all()
        notebook.wait(60)
        page = notebook.page
        drawn = page.locator(".rkdkit-shown img")
        drawn.first.wait_for()
        assert notebook.red() == []

        def changed_by(move):
            before = page.locator(".rkdkit-shown").first.inner_html()
            move()
            page.wait_for_function("before => document.querySelector('.rkdkit-shown').innerHTML !== before", arg=before)

        def moved(slider):
            at_the_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
            slider.focus()
            page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")

        sliders = page.locator('.rkdkit-explorer [role="slider"]:visible')
        sliders.nth(3).wait_for()
        sliders = sliders.all()
        assert len(sliders) == 4, "the page of images, eps, the attack's step and the epoch"
        for slider in sliders:
            pictures = drawn.evaluate_all("images => images.map(image => image.src)")
            changed_by(lambda slider=slider: moved(slider))
            assert drawn.evaluate_all("images => images.map(image => image.src)") != pictures
        changed_by(page.locator(".rkdkit-button:visible").nth(3).click)
        other = page.locator(".rkdkit-explorer select:visible").last
        other.select_option(label="PGD-AT")
        page.wait_for_function("() => document.querySelectorAll('.rkdkit-shown img').length >= 6")
        page.locator(".rkdkit-explorer").scroll_into_view_if_needed()
        browsers.picture(page, "lab-explorer", tmp_path)
        assert notebook.visit.faults == []
