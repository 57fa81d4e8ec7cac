"""The notebooks in JupyterLab, in a real browser: run by the menus, moved by the sliders, interrupted."""

import json
import re
import shutil

import browsers
import pytest
from conftest import ROOT

from rkdkit import claims, exhibits, runs

FIGURE_1 = "fig1_peer_vs_teacher"
BAR = '[role="progressbar"], progress, .widget-hprogress .progress'


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(browser, folder):
    """JupyterLab on a copy of the notebooks, with a store of its own."""
    del browser  # without one, nothing is started
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (folder / "home").mkdir()
    environment = {"RKDKIT_STORE": str(folder / "store")}
    with browsers.jupyterlab(folder / "notebooks", folder / "home", environment) as started:
        yield started


def finished(store):
    """How many epochs of its trainings a store holds."""
    return {file.parent.name: json.loads(file.read_text())["finished"] for file in store.glob("runs/*/run.json")}


def test_figure_1_is_run_by_the_menu_until_its_picture_and_verdicts_are_there(browser, lab, folder, tmp_path):
    out = folder / "out"
    with lab.opened(browser, f"{FIGURE_1}.ipynb", profile="smoke", output_dir=str(out)) as notebook:
        notebook.run_all()
        notebook.wait(90)
        assert notebook.red() == []
        said = notebook.text()
        assert len(re.findall(f"^(?:{claims.HOLDS}|{claims.FAILS}|{claims.OPEN}) ", said, re.MULTILINE)) >= 3, said
        drawn = notebook.page.locator(".jp-OutputArea-output img").first
        drawn.scroll_into_view_if_needed()
        assert drawn.evaluate("image => image.complete && image.naturalWidth") > 400
        browsers.picture(notebook.page, "lab-figure-1", tmp_path)
        assert notebook.visit.faults == []
    assert sorted(path.name for path in out.iterdir()) == [f"{FIGURE_1}.{kind}" for kind in ("csv", "json", "png")]


def test_an_interrupt_says_in_one_line_where_it_stopped_and_running_again_goes_on(browser, lab, folder, tmp_path):
    # the same notebook under another name, because it trains something else
    name = "interrupted.ipynb"
    shutil.copy(ROOT / "notebooks" / f"{FIGURE_1}.ipynb", lab.folder / name)
    own = {"profile": "smoke", "seed": 7, "epochs": 300, "output_dir": str(folder / "never")}
    store = folder / "store"
    before = finished(store)
    with lab.opened(browser, name, **own) as notebook:
        notebook.run_all()
        new = {}
        for _ in range(600):
            new = {run: epochs for run, epochs in finished(store).items() if run not in before}
            if max(new.values(), default=0) >= 2:
                break
            notebook.page.wait_for_timeout(100)
        assert max(new.values(), default=0) >= 2, "nothing was trained within a minute"
        assert notebook.page.locator(BAR).first.bounding_box()["width"] >= 100, "no progress bar is to be seen"
        notebook.page.locator(BAR).first.scroll_into_view_if_needed()
        browsers.picture(notebook.page, "lab-training", tmp_path)
        notebook.interrupt()
        notebook.wait(30)
        browsers.picture(notebook.page, "lab-interrupted", tmp_path)
        said = notebook.text()
        assert "Traceback" not in said, said
        (line,) = [line for line in said.splitlines() if re.search(r"\b(stopped|interrupted)\b", line, re.IGNORECASE)]
        (kept,) = [n for run, n in finished(store).items() if run not in before]
        assert f"epoch {kept}" in line, line
        assert "again" in line, line
        assert kept < 300
        notebook.run_all()
        for _ in range(300):
            if max(n for run, n in finished(store).items() if run not in before) > kept:
                break
            notebook.page.wait_for_timeout(100)
        (more,) = [n for run, n in finished(store).items() if run not in before]
        assert kept < more
        notebook.interrupt()
        notebook.wait(30)
        assert notebook.visit.faults == []


@pytest.fixture
def explored(folder, monkeypatch):
    """What `explore.ipynb` looks at: Figure 1's runs at smoke, trained unless the notebook of Figure 1 was run."""
    monkeypatch.setenv("RKDKIT_STORE", str(folder / "store"))
    setup = exhibits.setup(FIGURE_1, "smoke", output_dir=str(folder / "out"))
    return runs.ensure_all(setup.teacher_specs(), setup.specs("PeerAiD"))


def test_the_explorers_sliders_change_its_picture(browser, explored, lab, tmp_path):
    del explored
    with lab.opened(browser, "explore.ipynb") as notebook:
        notebook.run_all()
        notebook.wait(60)
        page = notebook.page
        drawn = page.locator(".jp-OutputArea-output img")
        drawn.first.wait_for()
        assert notebook.red() == []
        for slider in page.locator('.jp-OutputArea-output [role="slider"]').all():
            shown = drawn.evaluate_all("images => images.map(image => image.src)")
            key = "ArrowLeft" if slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax") else None
            slider.focus()
            page.keyboard.press(key or "ArrowRight")
            page.wait_for_function(
                "shown => [...document.querySelectorAll('.jp-OutputArea-output img')]"
                ".map(image => image.src).join() !== shown.join()",
                arg=shown,
            )
        browsers.picture(page, "lab-explorer", tmp_path)
        assert notebook.visit.faults == []
