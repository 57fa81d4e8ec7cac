"""Build the site: write its pages, copy what they show, let Sphinx make them, and put the result in its place.

Nothing is fetched: scripts and styles come from the installed packages and are served from the site itself.
"""

import ast
import base64
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from PIL import Image
from sphinx.cmd.build import build_main

import rkdkit
from rkdkit import paths
from rkdkit.site import markdown, pages, pictures
from rkdkit.site.docstrings import plain
from rkdkit.site.found import Found, all_found
from rkdkit.site.ledger import ledger
from rkdkit.site.numbers import numbers
from rkdkit.site.tex import without_formulas

SMALL = (640, 480)
"""The largest width and height of a small picture in the gallery, in pixels."""

READING = (
    *("glossary", "python", "data", "mirrors", "scaling"),
    *("statistics", "performance", "design", "testing", "results", "changelog"),
)
"""The texts in the order in which they are listed; those that are not there are left out, others of docs/ follow."""

_MARK = ".buildinfo"
_COMMANDS = "rkdkit.cli"


class SiteError(RuntimeError):
    """The site cannot be built; the message says why."""


def build(out: Path, quick: Path | None = None, larger: Path | None = None) -> None:
    """Build the site; an earlier one in its place is replaced.

    Parameters
    ----------
    out : the folder of the site.
    quick : the folder of the exhibits at `quick`; None: the project's.
    larger : the folder with a folder for each exhibit at a larger scale; None: the project's `results/`.

    Raises
    ------
    SiteError
        If `out` holds something else than a site, or Sphinx warns or fails; an earlier site is left as it was.
    OSError
        If something cannot be read or written.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / _MARK).is_file())):
        raise SiteError(f"{out} is there and holds no site. Name another folder, or move it away.")
    root = paths.project_root()
    found = all_found(quick or root / "figures" / "quick", larger or root / "results")
    with tempfile.TemporaryDirectory(prefix="rkdkit-site-") as folder:
        source, made = Path(folder, "source"), Path(folder, "site")
        write(source, found)
        warnings = Path(folder, "warnings")
        options = [
            "-b",
            "html",
            "-W",
            "--keep-going",
            "-q",
            "-j",
            "auto",
            "-d",
            str(Path(folder, "doctrees")),
            "-w",
            str(warnings),
        ]
        if build_main([*options, str(source), str(made)]):
            raise SiteError(f"Sphinx has something to say about the site:\n{warnings.read_text(encoding='utf-8')}")
        (made / "_static" / "webpack-macros.html").unlink(missing_ok=True)  # a template of the theme, no page
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        earlier = beside / "earlier"
        try:
            shutil.copytree(made, beside / "site")
            if out.exists():
                out.rename(earlier)
            (beside / "site").rename(out)
        finally:
            if earlier.exists() and not out.exists():
                earlier.rename(out)
            shutil.rmtree(beside, ignore_errors=True)


def write(source: Path, found: Iterable[Found]) -> None:
    """Write all that Sphinx reads.

    Parameters
    ----------
    source : the folder to write to, which is made.
    found : the exhibits at all scales, as `found.all_found`.
    """
    root, found = paths.project_root(), list(found)
    at_quick = [exhibit for exhibit in found if exhibit.place == found[0].place]
    larger = [exhibit for exhibit in found if exhibit not in at_quick]
    texts = {file: f"{file.stem.lower()}.md" for file in sorted((root / "docs").glob("*.md"))}
    texts |= {root / "CHANGELOG.md": "changelog.md", root / "results" / "README.md": "results.md"}
    shown = _pages(root, texts)
    lines, papers = ledger(found), numbers(found)
    written = {
        place: markdown.page(_read(file), _below(root, file), shown) for file, place in texts.items() if file.is_file()
    }
    written["index.md"] = _with_contents(
        pages.first_page(markdown.page(_read(root / "README.md"), "README.md", shown), found, lines, papers),
        ["gallery", "ledger", "numbers", "methods", "reading", "api/index"],
    )
    written["reading.md"] = _reading(written)
    written["gallery.md"] = pages.gallery(at_quick)
    written["ledger.md"], written["numbers.md"] = pages.ledger_page(lines), pages.numbers_page(papers)
    for exhibit in at_quick:
        others = [other for other in larger if other.name == exhibit.name]
        written[f"exhibits/{exhibit.name}.md"] = pages.exhibit_page(exhibit, others, shown)
    drawn = {f"figures/quick/{each.name}.png": pages.file_of(each, "png") for each in at_quick if not each.problem}
    written |= _notebooks(root, {**shown, **drawn}) | _modules(Path(rkdkit.__file__).parent)
    for name, text in written.items():
        _write(source / name, text)
    shutil.copy(root / "docs" / "conf.py", source / "conf.py")
    _copy_scripts(root / "docs" / "_static", source / "_static")
    _copy_files(root, [*at_quick, *larger], source / "extra")


def _pages(root: Path, texts: Mapping[Path, str]) -> dict[str, str]:
    """Return the site's pages by the files and folders of the project that they show."""
    found = {_below(root, file): place for file, place in texts.items() if file.is_file()}
    found |= {"README.md": "index.md", "notebooks/README.md": "gallery.md"}
    found |= {f"notebooks/{file.name}": f"notebooks/{file.name}" for file in (root / "notebooks").glob("*.ipynb")}
    for module in _sources(Path(rkdkit.__file__).parent):
        page = f"api/{markdown.module_of(module)}.rst"
        found[module] = page
        if module.endswith("/__init__.py"):
            found[module.removesuffix("/__init__.py")] = page
    for file in (root / "results").glob("*/*.png"):
        found[_below(root, file)] = f"{pages.FILES}/{file.parent.name}/{file.name}"
    return found


def _with_contents(page: str, entries: Iterable[str]) -> str:
    """Return a page with a table of contents that only the navigation shows."""
    listed = "\n".join(entries)
    return f"{page}\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def _reading(written: Mapping[str, str]) -> str:
    """Return the page that lists the texts."""
    texts = {name.removesuffix(".md"): text for name, text in written.items() if "/" not in name}
    order = [*READING, *sorted(texts.keys() - {*READING, "index", "methods"})]
    entries = "\n".join(name for name in [*order, "notebooks/index"] if name in texts or "/" in name)
    return (
        f"# Reading\n\nHow the kit is built, measured and tested.\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
    )


def _notebooks(root: Path, shown: Mapping[str, str]) -> dict[str, str]:
    """Return the notebooks as pages, not executed, and the page that lists them."""
    written = {}
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = json.loads(_read(file))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                text = without_formulas("".join(cell["source"]))
                cell["source"] = markdown.page(text, f"notebooks/{file.name}", shown, depth=1)
        written[f"notebooks/{file.name}"] = json.dumps(notebook)
    entries = "\n".join(Path(name).stem for name in written)
    text = "As they are committed, without outputs: an exhibit's page shows what came out."
    written["notebooks/index.md"] = f"# The notebooks\n\n{text}\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
    return written


def _sources(package: Path) -> list[str]:
    """Return the modules of the package as files below the project's folder, without private ones."""
    found = (file.relative_to(package.parent) for file in package.rglob("*.py"))
    return sorted(file.as_posix() for file in found if not file.stem.startswith("_") or file.stem == "__init__")


def _modules(package: Path) -> dict[str, str]:
    """Return a page for each module, and the page that lists them."""
    written, below = {}, dict[str, list[str]]()
    sources = {markdown.module_of(file): package.parent / file for file in _sources(package)}
    first = {module: _summary(file) for module, file in sources.items()}
    for module in sources:
        below.setdefault(module.rpartition(".")[0], []).append(module)
    for module in sources.keys() - {package.name}:
        hidden = "\n   :no-members:" if module.startswith(_COMMANDS) else ""
        title = f"{module}\n{'=' * len(module)}\n\n"
        written[f"api/{module}.rst"] = f"{title}.. automodule:: {module}{hidden}\n" + _listed(
            {each: first[each] for each in below.get(module, [])}
        )
    text = "Every public module with its functions and classes, from their docstrings. The search knows all of them."
    listed = _listed({module: first[module] for module in below[package.name]})
    written["api/index.rst"] = f"Modules\n=======\n\n{text}\n{listed}"
    return written


def _listed(summaries: Mapping[str, str]) -> str:
    """Return a list of modules with what each is for, in reStructuredText; "": there are none."""
    if not summaries:
        return ""
    rows = "".join(f"   * - :doc:`{module}`\n     - {plain(text)}\n" for module, text in summaries.items())
    entries = "".join(f"   {module}\n" for module in summaries)
    return f"\n.. list-table::\n   :widths: 30 70\n\n{rows}\n.. toctree::\n   :hidden:\n\n{entries}"


def _summary(file: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(_read(file))) or "").partition("\n")[0]


def _copy_scripts(own: Path, static: Path) -> None:
    """Copy the site's own scripts and styles, those of pictures, and DataTables as itables packages it."""
    shutil.copytree(own, static)
    for script in pictures.scripts():
        shutil.copy(script, static / script.name)
    bundle = files("itables") / "html" / "dt_bundle.js"
    # a module cannot be loaded from a file, but from such an address: the site is often opened without a server
    address = f"data:text/javascript;base64,{base64.b64encode(bundle.read_bytes()).decode()}"
    _write(static / "tables.js", f'window.rkdkitTables = "{address}";\n')
    shutil.copy(str(files("itables") / "html" / "dt_bundle.css"), static / "tables.css")


def _copy_files(root: Path, found: Iterable[Found], extra: Path) -> None:
    """Copy what is offered for download, and make the gallery's small pictures."""
    shutil.copytree(
        root / "notebooks", extra / "notebooks", ignore=lambda _, names: [n for n in names if not n.endswith(".ipynb")]
    )
    for exhibit in found:
        if exhibit.problem:
            continue
        for suffix in ("png", "csv", "json"):
            place = extra / pages.file_of(exhibit, suffix)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(exhibit.folder / f"{exhibit.name}.{suffix}", place)
        with Image.open(exhibit.folder / f"{exhibit.name}.png") as picture:
            small = picture.convert("RGB")
        small.thumbnail(SMALL)
        small.save(extra / pages.file_of(exhibit, "small.webp"), quality=82)


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
