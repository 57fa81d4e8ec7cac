"""The site in a real browser: every page opens, links, filters, sorts, turns and finds, on a desk and on a phone."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag

import browsers
import pytest
from committed import QUICK
from conftest import ROOT

READY = """() => {
    const drawn = document.querySelectorAll(".js-plotly-plot:has(.main-svg)").length;
    return drawn >= document.querySelectorAll("script[data-rkdkit-picture]").length
        && (!document.querySelector("table.sortable") || document.documentElement.dataset.tables === "ready");
}"""
"""Whether the pictures of a page are drawn and its tables can be sorted."""

SHOWN = """() => ({
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    images: [...document.images].map(image => image.src).filter(Boolean),
    broken: [...document.images].filter(i => i.src && i.complete && !i.naturalWidth).map(i => `broken: ${i.src}`),
    names: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
    title: document.title,
    language: document.documentElement.lang,
})"""
"""What a page holds."""

TOO_WIDE = """() => {
    const scrolls = e => {
        for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
            if (getComputedStyle(p).overflowX !== "visible" && !p.querySelector("article")) return true;
        return false;
    };
    const sticksOut = e => {
        const box = e.getBoundingClientRect();
        return box.width && box.height && box.left < innerWidth && box.right > innerWidth + 1
            && getComputedStyle(e).visibility !== "hidden" && !scrolls(e);
    };
    const over = document.scrollingElement.scrollWidth - innerWidth;
    const wide = [...document.body.querySelectorAll("*")].filter(sticksOut).slice(0, 5);
    return [...(over > 0 ? [`the page scrolls by ${over} pixels`] : []), ...wide.map(e => e.cloneNode().outerHTML)];
}"""
"""What of a page is wider than the window and does not lie in a box that scrolls, other than the text as a whole."""


CUT = """() => [...document.querySelectorAll("table.stacks")]
    .filter(table => {
        const box = table.closest(".dt-layout-row") || table.closest(".table-box");
        return box.scrollWidth > box.clientWidth + 1;
    })
    .map(table => `the table ${table.id} is wider than its place`)"""
"""Which tables have to be scrolled to see their verdicts, though they should fit a desk and a phone."""


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(browser, tmp_path_factory):
    """The site, built as `make site` does it; $RKDKIT_SITE may name one that is built already."""
    del browser  # without one, nothing is built
    if "RKDKIT_SITE" in os.environ:
        return Path(os.environ["RKDKIT_SITE"]).resolve()
    built = tmp_path_factory.mktemp("browsed") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "rkdkit.site", "--out", str(built)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return built


@pytest.fixture(scope="module")
def origin(folder):
    with browsers.served(folder) as address:
        yield address


@pytest.fixture
def visit(browser, origin):
    """A visitor at a desk; nothing must have gone wrong in the end."""
    with browsers.visiting(browser, origin) as visitor:
        yield visitor
        assert visitor.faults == []


def opened(visit, page):
    """Open a page, and wait until its pictures are drawn and its tables can be sorted."""
    visit.page.goto(f"{visit.origin}/{page}")
    visit.page.wait_for_function(READY)
    return visit.page


@dataclass
class Seen:
    """What a page holds, what went wrong when it was opened, and what is too wide for a phone or for a desk."""

    faults: list[str]
    wide: list[str]
    cut: list[str]
    links: list[str]
    images: list[str]
    broken: list[str]
    names: list[str]
    title: str
    language: str


def too_wide(page):
    """Return what is too wide for a phone, also two seconds after the page became narrow."""
    page.set_viewport_size(browsers.PHONE)
    for _ in range(20):
        wide = page.evaluate(TOO_WIDE) + page.evaluate(CUT)
        if not wide:
            break
        page.wait_for_timeout(100)
    page.set_viewport_size(browsers.DESK)
    return wide


LISTINGS = 3
"""How many pages with the source code of a module are opened, the longest ones: they are all made alike."""


def places(folder):
    """Return the paths of the pages that are opened."""
    every = [file for file in sorted(folder.rglob("*.html")) if "_static" not in file.parts]
    listings = [file for file in every if "_modules" in file.parts]
    left_out = sorted(listings, key=lambda file: file.stat().st_size)[:-LISTINGS]
    return [file.relative_to(folder).as_posix() for file in every if file not in left_out]


@pytest.fixture(scope="module")
def pages(browser, folder, origin):
    """The pages by their paths, each opened once."""
    seen = {}
    with browsers.visiting(browser, origin) as visitor:
        for name in places(folder):
            page = opened(visitor, name)
            shown, cut, wide = page.evaluate(SHOWN), page.evaluate(CUT), too_wide(page)
            seen[name] = Seen(cut=cut, wide=wide, faults=visitor.take_faults(), **shown)
    return seen


def report(found):
    """Fail with a line for each page at which something was found."""
    assert not any(found.values()), "\n" + "\n".join(f"{page}: {each}" for page, each in found.items() if each)


PAGES = (
    *("index", "gallery", "ledger", "numbers", "methods", "glossary", "design", "performance", "statistics"),
    *("scaling", "search", "changelog", "api/index"),
)


def test_every_page_opens_without_errors_and_asks_nobody_elsewhere(pages):
    report({name: page.faults + page.broken for name, page in pages.items()})
    report({name: [] if page.title else ["it has no title"] for name, page in pages.items()})
    assert {page.language for page in pages.values()} == {"en"}
    exhibits = {f"exhibits/{path.stem}" for path in QUICK.glob("*.json")}
    assert {f"{name}.html" for name in {*PAGES, *exhibits}} <= set(pages)


def test_every_link_to_the_site_leads_somewhere(pages, origin):
    answers, direct = {}, urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answer(address):
        if address not in answers:
            try:
                with direct.open(urllib.request.Request(address, method="HEAD")) as response:
                    answers[address] = response.status
            except urllib.error.HTTPError as error:
                answers[address] = error.code
        return answers[address]

    dead = {name: [] for name in pages}
    for name, page in pages.items():
        for link in sorted({*page.links, *page.images}):
            address, place = urldefrag(link)
            if not address.startswith(f"{origin}/"):
                continue
            target = unquote(address.removeprefix(f"{origin}/").partition("?")[0]) or "index.html"
            if answer(address) != 200:
                dead[name].append(f"{link} ({answer(address)})")
            elif place and target in pages and unquote(place) not in pages[target].names:
                dead[name].append(f"{link} (no such place)")
    report(dead)
    assert len(answers) > 100


def test_no_page_is_wider_than_a_phone_and_verdicts_are_seen_without_scrolling(pages):
    report({name: page.wide for name, page in pages.items()})
    report({name: page.cut for name, page in pages.items()})


def column(page, heading):
    """Return the head of a column of the ledger, and what its cells on the page say."""
    heads = page.locator("#ledger thead th")
    (at,) = [i for i, text in enumerate(heads.all_inner_texts()) if text.strip() == heading]
    return heads.nth(at), page.locator(f"#ledger tbody td:nth-child({at + 1})").all_inner_texts()


def total(page):
    """Return how many rows the ledger has as it is filtered now: "1 to 25 of 120 (filtered from 260 ...)"."""
    return int(re.search(r"of ([\d,]+)", page.locator(".dt-info").inner_text()).group(1).replace(",", ""))


def first_number(text):
    return float(re.search(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text.replace("\N{MINUS SIGN}", "-")).group())


def test_the_ledger_is_sorted_and_filtered(visit, tmp_path):
    page = opened(visit, "ledger.html")
    everything = total(page)
    for order, ascending in (("ascending", True), ("descending", False)):
        column(page, "Difference")[0].click()

        def is_sorted(order=order, ascending=ascending):
            head, texts = column(page, "Difference")
            values = [first_number(text) for text in texts]
            in_order = sorted(values, reverse=not ascending)
            return head.get_attribute("aria-sort") == order and values == in_order and (values[0] < 0) == ascending

        browsers.eventually(page, is_sorted)

    page.locator(".dt-length select").select_option("-1")
    browsers.eventually(page, lambda: len(column(page, "Unit")[1]) == everything)
    units, values = column(page, "Unit")[1], [first_number(text) for text in column(page, "Difference")[1]]
    groups = {unit: [v for u, v in zip(units, values, strict=True) if u == unit] for unit in units}
    assert units == [unit for unit, members in groups.items() for _ in members], "a unit's rows stand together"
    assert len(groups) > 2
    assert next(iter(groups)) == "points", "in both directions"
    assert all(members == sorted(members, reverse=True) for members in groups.values())

    verdict = page.locator(".filters").get_by_label("Verdict")
    found = {}
    for wanted in verdict.locator("option").all_inner_texts()[1:]:
        verdict.select_option(wanted)
        browsers.eventually(page, lambda wanted=wanted: {wanted} == {t[2:] for t in column(page, "Verdict")[1]})
        found[wanted] = total(page)
    assert set(found) == {"holds", "does not hold", "too close to tell here"}
    assert sum(found.values()) == everything
    verdict.select_option("")
    page.locator(".dt-search input").fill("fig1_peer")
    browsers.eventually(page, lambda: 0 < total(page) < everything)
    assert all("fig1_peer" in row for row in page.locator("#ledger tbody tr").all_inner_texts())
    browsers.picture(page, "site-ledger-filtered", tmp_path)


EYES = (
    "() => [...document.querySelectorAll('.js-plotly-plot')].map(p => p._fullLayout.scene?.camera.eye).filter(Boolean)"
)
"""From where one looks at each surface of a page."""


def test_loss_surfaces_turn_together(visit, tmp_path):
    page = opened(visit, "exhibits/fig4_loss_landscape.html")
    scene = page.locator(".js-plotly-plot .gl-container canvas").first
    scene.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    before, looked = page.evaluate(EYES), scene.screenshot()
    assert len(before) > 1
    box = scene.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def turned():
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 100, y + 20, steps=8)
        page.mouse.up()
        page.wait_for_timeout(500)
        return page.evaluate(EYES) != before

    browsers.eventually(page, turned)  # a surface that is still being drawn takes no drag

    def all_turned():
        pairs = zip(before, page.evaluate(EYES), strict=True)
        return all(sum(abs(new[axis] - old[axis]) for axis in "xyz") > 0.1 for old, new in pairs)

    browsers.eventually(page, all_turned)
    browsers.eventually(page, lambda: scene.screenshot() != looked)
    browsers.picture(page, "site-surface-turned", tmp_path)


def test_a_point_shows_its_image_to_the_pointer_and_to_the_keyboard(visit, tmp_path):
    page = opened(visit, "exhibits/fig5_tsne.html")
    plot = page.locator(".js-plotly-plot").first
    thumbnail = plot.locator(".rkdkit-thumbnail")
    plot.scroll_into_view_if_needed()
    assert not thumbnail.is_visible()
    plot.focus()
    shown = []
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        thumbnail.wait_for()
        assert thumbnail.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        shown.append((thumbnail.get_attribute("alt"), thumbnail.get_attribute("src")))
    assert all(map(all, shown))
    assert shown[0] != shown[1]
    page.keyboard.press("Escape")
    thumbnail.wait_for(state="hidden")
    point = plot.locator(".scatterlayer .point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2, steps=3)
    thumbnail.wait_for()
    browsers.picture(page, "site-point", tmp_path)


def test_trajectories_have_a_slider_of_epochs(visit, tmp_path):
    page = opened(visit, "exhibits/fig12_trajectories.html")
    plot = page.locator(".js-plotly-plot:has(.slider-container)").first
    plot.scroll_into_view_if_needed()
    points = "plot => [...plot.querySelectorAll('.scatterlayer .point')].map(e => e.getAttribute('transform'))"
    before = plot.evaluate(points)
    plot.focus()
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    browsers.eventually(  # points travel
        page, lambda: sum(old != new for old, new in zip(before, plot.evaluate(points), strict=True)) > 10
    )
    browsers.picture(page, "site-trajectories", tmp_path)


def test_the_search_finds_peeraid(visit, tmp_path):
    page = opened(visit, "index.html")
    page.keyboard.press("Control+k")
    page.locator("input[type=search]:visible").first.fill("PeerAiD")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=PeerAiD*")
    results = page.locator("#search-results li a")
    browsers.eventually(page, lambda: results.count() >= 10)  # they are shown one by one
    assert any("peeraid" in text.lower() for text in page.locator("#search-results li").all_inner_texts())
    places = "() => [...document.querySelectorAll('#search-results li > a:first-child')].map(link => link.pathname)"
    browsers.eventually(page, lambda: bool(re.search("/exhibits/|/methods", page.evaluate(places)[0])))
    browsers.picture(page, "site-search", tmp_path)


def test_it_is_light_or_dark_as_the_system_says_or_the_button(visit):
    ground = "() => getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        found[scheme] = opened(visit, "index.html").evaluate(ground)
    assert found["light"] != found["dark"]
    page = visit.page
    page.get_by_role("button", name="Color mode").and_(page.locator(":visible")).click()
    page.locator('.theme-change-button[data-mode="light"]:visible').click()
    page.wait_for_function(f"light => ({ground})() === light", arg=found["light"])
    assert opened(visit, "gallery.html").evaluate(ground) == found["light"], "what was chosen is not kept"


def test_it_works_from_its_files_without_a_server(browser, folder):
    with browsers.visiting(browser, folder.as_uri()) as visitor:
        opened(visitor, "ledger.html")
        opened(visitor, "exhibits/fig4_loss_landscape.html")
        assert visitor.faults == []


KINDS = (
    *("index.html", "gallery.html", "ledger.html", "numbers.html", "methods.html", "glossary.html", "design.html"),
    *("search.html?q=PeerAiD", "exhibits/fig1_peer_vs_teacher.html", "exhibits/fig4_loss_landscape.html"),
    *("api/index.html", "api/rkdkit.attacks.html", "api/rkdkit.spec.html", "notebooks/fig1_peer_vs_teacher.html"),
)
"""A page of each kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_rules_of_accessibility_pass(kind, visit, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    rules = {
        "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]},
        "resultTypes": ["violations"],
        "preload": False,
    }
    broken = []
    page = opened(visit, kind)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        page.wait_for_timeout(200)  # pictures are given the other colours
        for violation in axe.run(page, options=rules).response["violations"]:
            for node in violation["nodes"]:
                selector = " ".join(map(str, node["target"]))
                broken.append(f"{scheme}: {violation['id']}: {selector}: {node['failureSummary']}")
        if "RKDKIT_SCREENSHOTS" in os.environ:  # to look at: two of each page, wide and narrow
            name = f"site-{re.sub(r'[^a-z0-9]+', '-', kind.partition('.html')[0])}-{scheme}"
            browsers.picture(page, name, tmp_path, full_page=True)
            page.set_viewport_size(browsers.PHONE)
            page.wait_for_timeout(300)
            browsers.picture(page, f"{name}-phone", tmp_path)
            page.set_viewport_size(browsers.DESK)
    assert not broken, "\n" + "\n".join(broken[:20])
