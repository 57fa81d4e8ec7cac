"""A real browser for tests: Debian's Chromium driven by playwright, what it is shown, and what went wrong meanwhile."""

import functools
import http.server
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from conftest import ROOT

from rkdkit.drawing import kernel_place
from rkdkit.progress import TEXT_ONLY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Response, WebError

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
"""Sizes of the window, in CSS pixels."""

FLAGS = (
    "--no-sandbox",  # in containers, where tests often run as root
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # surfaces are drawn by WebGL, here without a GPU
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # what asks elsewhere gets no answer
)


def executable() -> str:
    """Return the path of Chromium: $RKDKIT_CHROMIUM, or the one on the path.

    Without one, the test is skipped, as it is if $RKDKIT_CHROMIUM is empty.
    """
    named = os.environ.get("RKDKIT_CHROMIUM")
    if named == "":
        pytest.skip("RKDKIT_CHROMIUM is empty: no test in a browser")
    if named:
        assert Path(named).is_file(), f"RKDKIT_CHROMIUM names {named}, which is not a file"
        return named
    found = shutil.which("chromium")
    if found is None:
        pytest.skip(
            "no browser: install Chromium (Debian: apt-get install chromium) or set RKDKIT_CHROMIUM to its path"
        )
    return found


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Start Chromium."""
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without lists of what a folder holds, and without a log."""

    protocol_version = "HTTP/1.1"

    def list_directory(self, path: object) -> None:  # noqa: ARG002
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # a page asks for many files at once


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback; yield its address, which ends without a slash."""
    handler = functools.partial(_Files, directory=os.fspath(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Visit:
    """A visitor of a local server, with cookies and a storage of its own.

    Attributes
    ----------
    page : the open page.
    faults : what went wrong: errors in the console, uncaught exceptions, answers of 400 and above, requests elsewhere.
    """

    def __init__(self, browser: "Browser", origin: str, **settings: Any) -> None:
        self.origin = origin
        self.faults: list[str] = []
        # without animations, colours do not change while they are compared
        self.context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **settings})
        self.context.set_default_timeout(60_000)
        self.context.on("console", self._said)
        self.context.on("weberror", self._raised)
        self.context.on("request", self._asked)
        self.context.on("response", self._answered)
        self.page: Page = self.context.new_page()

    def take_faults(self) -> list[str]:
        """Return the faults, and forget them."""
        found, self.faults = self.faults, []
        return found

    def _said(self, message: "ConsoleMessage") -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _raised(self, error: "WebError") -> None:
        self.faults.append(f"exception: {error.error}")

    def _asked(self, request: "Request") -> None:
        if not request.url.startswith((f"{self.origin}/", "data:", "blob:")):
            self.faults.append(f"request to elsewhere: {request.url}")

    def _answered(self, response: "Response") -> None:
        if response.status >= 400:
            self.faults.append(f"answer {response.status}: {response.url}")


@contextmanager
def visiting(browser: "Browser", origin: str, **settings: Any) -> Iterator[Visit]:
    """Visit a local server; `settings` are playwright's of a context."""
    visit = Visit(browser, origin, **settings)
    try:
        yield visit
    finally:
        visit.context.close()


def eventually(page: "Page", check: Callable[[], bool]) -> None:
    """Wait up to 20 seconds until something is so."""
    for _ in range(200):
        if check():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it is not so, after 20 seconds")


def picture(page: "Page", name: str, folder: Path, **settings: Any) -> Path:
    """Keep a screenshot, in $RKDKIT_SCREENSHOTS or in `folder`, and return its path."""
    kept = Path(os.environ.get("RKDKIT_SCREENSHOTS") or folder, f"{name}.png")
    kept.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=kept, **settings)
    return kept


SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page, also those out of sight
}
"""Settings of JupyterLab that differ from its own."""


class Lab:
    """A running JupyterLab.

    Attributes
    ----------
    folder : the copy of the project.
    origin : its address, without a slash at the end.
    """

    def __init__(self, folder: Path, origin: str, token: str) -> None:
        self.folder, self.origin, self._token = folder, origin, token

    @contextmanager
    def opened(self, browser: "Browser", name: str, **parameters: object) -> Iterator["Notebook"]:
        """Open a notebook, in whose first code cell parameters are set before, and wait for its kernel."""
        cells = set_parameters(self.folder / "notebooks" / name, parameters)
        with visiting(browser, self.origin) as visit:
            workspace = f"{self.origin}/lab/workspaces/{secrets.token_hex(4)}"
            visit.page.goto(f"{workspace}/tree/notebooks/{name}?token={self._token}")
            notebook = Notebook(visit)
            notebook.wait_for_kernel(cells)
            yield notebook


@contextmanager
def jupyterlab(folder: Path, home: Path, environment: Mapping[str, str]) -> Iterator[Lab]:
    """Start JupyterLab on a copy of the project, with nothing of the user's settings; end it and its kernels.

    Parameters
    ----------
    folder : the copy, with a folder of notebooks.
    home : an empty folder for what it keeps.
    environment : what the kernels find in theirs, besides that of this process.
    """
    for name, settings in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    token = secrets.token_hex(16)
    own = {
        "JUPYTER_TOKEN": token,
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        **{f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")},
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(ROOT),
    }
    inherited = {name: value for name, value in os.environ.items() if name not in ("TQDM_DISABLE", TEXT_ONLY)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    with kernel_place() as place:  # of free ports that Jupyter chooses, another test may take one
        kernels = [f"--KernelManager.{name}={value}" for name, value in place.get("KernelManager", {}).items()]
        with (home / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", *kernels],
                env={**inherited, **own, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield Lab(folder, _address(process, home), token)
        finally:
            everything = [*psutil.Process(process.pid).children(recursive=True), process]
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            for each in everything:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], home: Path) -> str:
    """Wait until JupyterLab says where it listens."""
    for _ in range(600):
        assert process.poll() is None, (home / "log.txt").read_text()[-3000:]
        for file in (home / "runtime").glob("jpserver-*.json"):
            text = file.read_text()
            if text.endswith("}"):  # it is written in place
                return f"http://127.0.0.1:{json.loads(text)['port']}"
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start: {(home / 'log.txt').read_text()[-3000:]}")


def set_parameters(path: Path, parameters: Mapping[str, object]) -> int:
    """Write values into the cell of a notebook that is tagged as its parameters; return the number of code cells."""
    notebook = json.loads(path.read_text())
    for name, value in parameters.items():
        (cell,) = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
        line = re.compile(rf"^{name} = .*$", re.MULTILINE)
        source, found = line.subn(lambda _, text=f"{name} = {value!r}": text, "".join(cell["source"]))
        assert found == 1, f"{path.name} has no parameter {name}"
        cell["source"] = source
    path.write_text(json.dumps(notebook))
    return sum(cell["cell_type"] == "code" for cell in notebook["cells"])


class Notebook:
    """A notebook that is open in JupyterLab.

    Attributes
    ----------
    page : the page.
    """

    def __init__(self, visit: Visit) -> None:
        self.visit, self.page = visit, visit.page

    def wait_for_kernel(self, cells: int) -> None:
        """Wait until all cells are shown and the kernel is idle: before, JupyterLab drops what it is told."""
        ready = self.page.locator("#jp-main-statusbar", has_text="(ipykernel) | Idle")
        for _ in range(600):
            asked = self.page.locator(".jp-Dialog .jp-mod-accept")
            if asked.count():  # on a slow machine it asks which kernel to take, with the right one chosen
                asked.click()
            if ready.count() and len(self.prompts()) == cells:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the kernel was not there within a minute: {self.prompts()}")

    def choose(self, menu: str, command: str) -> None:
        """Click on an item of a menu."""
        dialog = self.page.locator(".jp-Dialog")
        assert dialog.count() == 0, dialog.all_inner_texts()
        self.page.locator(".lm-MenuBar-item").filter(has_text=re.compile(f"^{menu}$")).click()
        self.page.locator(f'.lm-Menu-item[data-command="{command}"]').click()

    def run_all(self) -> None:
        """Click on Run, Run All Cells; return when the first cell was run."""
        before = self.prompts()[0]
        self.choose("Run", "runmenu:run-all")
        self.page.wait_for_function(
            r"before => { const now = document.querySelector('.jp-CodeCell .jp-InputPrompt').textContent.trim();"
            r" return /\d/.test(now) && now !== before }",
            arg=before,
            timeout=60_000,
        )

    def interrupt(self) -> None:
        """Click on Kernel, Interrupt Kernel."""
        self.choose("Kernel", "kernelmenu:interrupt")

    def wait(self, seconds: float) -> None:
        """Wait until no cell is running or queued."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
            ".every(prompt => !prompt.textContent.includes('*'))",
            timeout=1000 * seconds,
        )

    def prompts(self) -> list[str]:
        """Return what stands beside the code cells: "[3]:", "[*]:", "[ ]:"."""
        return [each.strip() for each in self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()]

    def outputs(self) -> "Locator":
        """Return the outputs of all cells."""
        return self.page.locator(".jp-CodeCell .jp-OutputArea-output")

    def text(self) -> str:
        """Return what all outputs say."""
        return "\n".join(self.outputs().all_inner_texts())

    def red(self) -> list[str]:
        """Return what stands in red boxes: standard error, and errors."""
        kinds = [f'[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("stderr", "error")]
        return self.page.locator(", ".join(f".jp-OutputArea-output{kind}" for kind in kinds)).all_inner_texts()
