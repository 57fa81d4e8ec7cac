"""The site in a real browser: every page opens, links, filters, sorts, turns and finds, on a desk and on a phone."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag

import browsers
import pytest
from conftest import ROOT

SITE_SECONDS, SITE_MEGABYTES = 120, 60

SHOWN = """() => ({
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    images: [...document.images].map(image => image.src),
    broken: [...document.images].filter(i => i.complete && !i.naturalWidth && i.src).map(i => i.src),
    names: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
    title: document.title,
    language: document.documentElement.lang,
})"""
"""What a page holds, read in the page."""

TOO_WIDE = """() => {
    const held = e => {
        for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
            if (getComputedStyle(p).overflowX !== 'visible') return true;
        return false;
    };
    const wide = [...document.body.querySelectorAll('*')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width && box.height && box.right > innerWidth + 1 && box.left < innerWidth
            && getComputedStyle(e).visibility !== 'hidden' && !held(e);
    });
    const over = document.scrollingElement.scrollWidth - innerWidth;
    return [...(over > 0 ? [`the page scrolls by ${over} pixels`] : []),
        ...wide.slice(0, 5).map(e => `<${e.tagName.toLowerCase()} class="${e.className}" id="${e.id}">`)];
}"""
"""What of a page is wider than the window and does not scroll in a box of its own, read in the page."""


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def built(browser, tmp_path_factory):
    """The site, and the seconds that it took; $RKDKIT_SITE may name one that is built already."""
    del browser  # without one, nothing is built
    if "RKDKIT_SITE" in os.environ:
        return Path(os.environ["RKDKIT_SITE"]).resolve(), 0.0
    folder = tmp_path_factory.mktemp("browsed") / "site"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "rkdkit.site", str(folder)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, time.perf_counter() - started


@pytest.fixture(scope="module")
def folder(built):
    return built[0]


@pytest.fixture(scope="module")
def origin(folder):
    with browsers.served(folder) as address:
        yield address


@pytest.fixture
def visit(browser, origin):
    """A visitor who is at a desk; nothing must have gone wrong in the end."""
    with browsers.visiting(browser, origin) as visitor:
        yield visitor
        assert visitor.faults == []


@dataclass
class Seen:
    """What a page holds and what went wrong when it was opened."""

    faults: list[str]
    wide: list[str]
    links: list[str]
    images: list[str]
    broken: list[str]
    names: list[str]
    title: str
    language: str


def in_order(page):
    """Wait until the page is laid out again, and return what is still too wide after two seconds."""
    for _ in range(20):
        wide = page.evaluate(TOO_WIDE)
        if not wide:
            break
        page.wait_for_timeout(100)
    return wide


@pytest.fixture(scope="module")
def pages(browser, folder, origin):
    """Every page by its path, opened once at a desk and then made as narrow as a phone."""
    seen = {}
    with browsers.visiting(browser, origin) as visitor:
        page = visitor.page
        for file in sorted(folder.rglob("*.html")):
            name = file.relative_to(folder).as_posix()
            if name.startswith("_static/"):
                continue
            page.set_viewport_size(browsers.DESK)
            page.goto(f"{origin}/{name}")
            if page.locator(".js-plotly-plot").count():
                page.wait_for_load_state("networkidle")
            shown = page.evaluate(SHOWN)
            page.set_viewport_size(browsers.PHONE)
            seen[name] = Seen(wide=in_order(page), faults=visitor.faults_since(), **shown)
    return seen


def report(found):
    """Fail with a line for each page at which something was found."""
    assert not any(found.values()), "\n" + "\n".join(f"{page}: {each}" for page, each in found.items() if each)


def test_the_site_is_complete_quick_and_small(built, pages):
    folder, seconds = built
    assert seconds < SITE_SECONDS
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < SITE_MEGABYTES * 1_000_000
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("fig*.ipynb")}
    notebooks |= {path.stem for path in (ROOT / "notebooks").glob("tab*.ipynb")}
    assert {f"exhibits/{name}.html" for name in notebooks} <= set(pages)
    assert {f"{name}.html" for name in TOP} <= set(pages)
    assert sum(name.startswith("api/") for name in pages) > 10


TOP = (
    *("index", "gallery", "ledger", "numbers", "methods", "glossary", "design", "performance", "statistics"),
    *("scaling", "search", "changelog"),
)


def test_every_page_opens_without_errors_and_asks_nobody_elsewhere(pages):
    report({name: page.faults + page.broken for name, page in pages.items()})
    titles = [page.title for page in pages.values()]
    assert all(titles)
    assert len(set(titles)) > 0.9 * len(titles), "pages are told apart by their titles"
    assert {page.language[:2] for page in pages.values()} == {"en"}


def test_every_link_to_the_site_leads_somewhere(pages, origin):
    answers = {}

    def answer(address):
        if address not in answers:
            try:
                with urllib.request.urlopen(urllib.request.Request(address, method="HEAD")) as response:
                    answers[address] = response.status
            except urllib.error.HTTPError as error:
                answers[address] = error.code
        return answers[address]

    dead = {}
    for name, page in pages.items():
        dead[name] = []
        for link in {*page.links, *page.images}:
            address, place = urldefrag(link)
            if not address.startswith(f"{origin}/"):
                continue
            target = unquote(address.removeprefix(f"{origin}/").partition("?")[0]) or "index.html"
            if answer(address) != 200:
                dead[name].append(f"{link} ({answer(address)})")
            elif place and target in pages and unquote(place) not in pages[target].names:
                dead[name].append(f"{link} (no such place)")
    report(dead)
    assert len(answers) > 50


def test_no_page_is_wider_than_a_phone(pages):
    report({name: page.wide for name, page in pages.items()})


def column(page, name):
    """The texts of a column of the table on the page, and the cell of its head."""
    heads = page.locator("table.dataTable thead tr").first.locator("th")
    texts = [text.strip().lower() for text in heads.all_inner_texts()]
    at = next(i for i, text in enumerate(texts) if text.startswith(name))
    return heads.nth(at), page.locator(f"table.dataTable tbody tr td:nth-child({at + 1})")


def numbers(cells):
    """Return the first number of each cell; a true minus is one."""
    found = [re.search(r"[-+]?\d+(?:\.\d+)?", text.replace("\N{MINUS SIGN}", "-")) for text in cells.all_inner_texts()]
    return [float(each.group()) for each in found if each]


def test_the_ledger_is_sorted_and_filtered(visit, origin, tmp_path):
    page = visit.page
    page.goto(f"{origin}/ledger.html")
    page.locator("table.dataTable tbody tr").first.wait_for()
    head, cells = column(page, "difference")
    orders = []
    for _ in range(3):  # a third click may bring the first order back
        head.click()
        page.wait_for_timeout(100)
        values = numbers(cells)
        assert len(values) > 5
        orders.append("up" if values == sorted(values) else "down" if values == sorted(values, reverse=True) else "")
    assert {"up", "down"} <= set(orders), orders
    _, verdicts = column(page, "verdict")
    before = page.locator("table.dataTable tbody tr").count()
    page.locator("input[type=search]").last.fill("tab16")
    page.wait_for_timeout(300)
    rows = page.locator("table.dataTable tbody tr").all_inner_texts()
    assert 0 < len(rows) <= before
    assert all("tab16" in row for row in rows), rows
    assert verdicts.count() == len(rows)
    browsers.picture(page, "site-ledger", tmp_path)


def test_a_loss_surface_turns(visit, origin, tmp_path):
    page = visit.page
    page.goto(f"{origin}/exhibits/fig4_loss_landscape.html")
    scene = page.locator(".js-plotly-plot .gl-container").first
    scene.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    eye = """() => { const plot = [...document.querySelectorAll('.js-plotly-plot')].find(p => p._fullLayout?.scene);
        return plot._fullLayout.scene._scene.getCamera().eye }"""
    before, looked = page.evaluate(eye), scene.screenshot()
    box = scene.bounding_box()
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y + 20, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    after = page.evaluate(eye)
    assert sum(abs(after[axis] - before[axis]) for axis in "xyz") > 0.1
    assert scene.screenshot() != looked
    browsers.picture(page, "site-surface", tmp_path)


def test_the_search_finds_peeraid(visit, origin, tmp_path):
    page = visit.page
    page.goto(f"{origin}/index.html")
    page.keyboard.press("Control+k")
    page.locator("input[type=search]:visible").first.fill("PeerAiD")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=PeerAiD*")
    results = page.locator("#search-results li a")
    results.first.wait_for()
    assert results.count() >= 3
    browsers.picture(page, "site-search", tmp_path)


def test_light_and_dark_by_the_system_and_by_the_button(visit, origin):
    page = visit.page
    ground = "() => getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{origin}/index.html")
        found[scheme] = page.evaluate(ground)
    assert found["light"] != found["dark"]
    grounds = set()
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        grounds.add(page.evaluate(ground))
    assert grounds == set(found.values())


KINDS = (
    *("index.html", "gallery.html", "ledger.html", "numbers.html", "methods.html", "glossary.html", "design.html"),
    *("changelog.html", "search.html?q=PeerAiD", "exhibits/fig4_loss_landscape.html", "exhibits/fig5_tsne.html"),
    *("exhibits/fig1_peer_vs_teacher.html", "exhibits/tab1_white_box.html"),
)
"""A page of each kind."""

NOT_OURS: dict[str, tuple[str, str]] = {}
"""Elements of other projects that break a rule, by a CSS selector: the rule, and why it stays."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_rules_of_accessibility_pass(kind, visit, origin, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    page = visit.page
    axe = Axe()
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}, "resultTypes": ["violations"]}
    broken = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{origin}/{kind}", wait_until="networkidle")
        for violation in axe.run(page, options=rules).response["violations"]:
            for node in violation["nodes"]:
                target = " ".join(map(str, node["target"]))
                if not any(selector in target and rule == violation["id"] for selector, (rule, _) in NOT_OURS.items()):
                    broken.append(f"{scheme}: {violation['id']}: {target}: {node['failureSummary']}")
        name = re.sub(r"\W+", "-", kind.partition(".html")[0])
        browsers.picture(page, f"site-{name}-{scheme}", tmp_path, full_page=True)
        page.set_viewport_size(browsers.PHONE)
        browsers.picture(page, f"site-{name}-{scheme}-phone", tmp_path)
        page.set_viewport_size(browsers.DESK)
    assert not broken, "\n" + "\n".join(broken[:20])
