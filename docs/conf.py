"""How Sphinx makes the site; `rkdkit.site.build` puts this file beside the pages that it writes."""

import sys
from pathlib import Path
from types import GenericAlias

from sphinx.application import Sphinx

from rkdkit import __version__
from rkdkit.site.docstrings import prepared

project = "rkdkit"
author = "the authors of rkdkit"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
default_role = "py:obj"
nitpicky = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # the glossary has entries and no chapters
nb_execution_mode = "off"  # notebooks train networks

autodoc_default_options = {"members": True, "ignore-module-all": True, "no-value": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False
numpydoc_validation_checks: set[str] = set()

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_title = "rkdkit"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_extra_path = ["extra"]
html_css_files = ["tables.css", "site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_show_sourcelink = html_copy_source = html_show_sphinx = html_show_copyright = False
html_search_scorer = str(Path(__file__).parent / "_static" / "scorer.js")
html_sidebars = {page: [] for page in ("index", "gallery", "ledger", "numbers", "methods", "search", "genindex")}
html_theme_options = {
    "logo": {"text": "rkdkit"},
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "show_nav_level": 1,
    "navigation_depth": 3,
    "collapse_navigation": True,
    "show_toc_level": 2,
    "search_bar_text": "Search methods, modules, exhibits",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "back_to_top_button": True,
}


def setup(app: Sphinx) -> None:
    """Let docstrings be prepared before numpydoc reads them."""
    app.connect("autodoc-process-docstring", _prepare, priority=100)
    app.connect("autodoc-skip-member", _skip)
    app.connect("viewcode-follow-imported", _listed_in)


def _prepare(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    del app, name, options
    lines[:] = prepared(lines, obj if what in ("function", "method") else None)


def _skip(app: Sphinx, what: str, name: str, obj: object, skipped: bool, options: object) -> bool | None:
    """Leave out names of types such as ``tuple[int, int]``: numpydoc cannot tell what their docstring is."""
    del app, what, name, skipped, options
    return True if isinstance(obj, GenericAlias) else None


def _listed_in(app: Sphinx, module: str, name: str) -> str | None:
    """Return the module that defines a value whose class is another project's: there is no code of it there."""
    del app
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    of = str(getattr(found, "__module__", None) or "")
    return None if of.partition(".")[0] == "rkdkit" else module
