"""The project's Markdown as pages of the site: links lead to the site's pages, or are no links; anchors are kept."""

import posixpath
import re
from collections.abc import Collection, Mapping
from html import escape
from pathlib import PurePosixPath

METHODS = "docs/methods.md"
"""The page of methods, whose headings have anchors of their own."""

WITHOUT_CONTENTS = "---\nhtml_theme.sidebar_secondary.remove: true\n---\n"
"""The beginning of a page without a list of its sections beside it."""

_FENCE = re.compile(r"(^ *```.*?^ *```[ \t]*$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_ANCHORED = re.compile(r'^<a id="([\w-]+)"></a>\n(?=#)', re.MULTILINE)
_RAW = "``````"


def page(text: str, source: str, pages: Mapping[str, str], depth: int = 0) -> str:
    """Return a text of the project as a page of the site.

    Parameters
    ----------
    text : Markdown.
    source : the file that it is from, below the project's folder: "docs/design.md".
    pages : the site's pages by the files and folders that they show: {"rkdkit/spec.py": "api/rkdkit.spec.rst"}.
    depth : in how many folders the page lies.

    Returns
    -------
    The text with links to the site's pages. What is linked and has no page becomes a name in code font; a
    picture without a page is left out; links to other sites stay.
    """
    folder = posixpath.dirname(source)

    def linked(found: re.Match[str]) -> str:
        picture, shown, target = found.groups()
        path, _, anchor = target.partition("#")
        if picture:
            return _picture(shown, posixpath.normpath(posixpath.join(folder, path)), pages, depth)
        if "://" in target or target.startswith("mailto:") or not path:
            return found[0]
        named = posixpath.normpath(posixpath.join(folder, path))
        if named not in pages:
            return shown if shown.startswith("`") else f"`{named}`" if shown == named else f"{shown} (`{named}`)"
        place = "../" * depth + pages[named]
        if not anchor or not named.startswith("docs/"):  # other pages are made of parts of what is linked
            return f"[{shown}]({place})"
        if named == METHODS:  # its anchors are not those of its headings
            return f'<a href="{PurePosixPath(place).with_suffix(".html")}#{anchor}">{shown}</a>'
        return f"[{shown}]({place}#{anchor})"

    parts = _FENCE.split(_ANCHORED.sub(r"(\1)=\n", text))
    parts[::2] = [_LINK.sub(linked, part) for part in parts[::2]]
    return "".join(parts)


def _picture(shown: str, named: str, pages: Mapping[str, str], depth: int) -> str:
    if named not in pages:
        return ""
    return f'<img class="dark-light sheet" src="{"../" * depth}{pages[named]}" alt="{escape(shown)}">'


def with_anchors(text: str, anchors: Collection[str]) -> str:
    """Return Markdown in which a link within the page is kept only if it leads to one of some anchors."""
    return _LINK.sub(lambda at: at[2] if at[3].startswith("#") and at[3][1:] not in anchors else at[0], text)


def sections(text: str) -> dict[str, str]:
    """Return the sections of a text by their headings of the second level, without these; "": what comes first.

    The heading of the first level is left out.
    """
    found, heading = dict[str, list[str]](), ""
    for part in _FENCE.split(text):
        lines = part.splitlines(keepends=True) if not part.lstrip().startswith("```") else [part]
        for line in lines:
            if line.startswith("## "):
                heading = line[3:].strip()
            elif not line.startswith("# "):
                found.setdefault(heading, []).append(line)
    return {heading: "".join(lines).strip() for heading, lines in found.items()}


def raw(html: str) -> str:
    """Return HTML as a block of Markdown that is taken over as it is."""
    return f"{_RAW}{{raw}} html\n{html}\n{_RAW}\n"


def code(command: str, language: str = "console") -> str:
    """Return a block of code."""
    return f"```{language}\n{command}\n```\n"


def module_of(path: str) -> str:
    """Return the module that a file or folder of the package is: "rkdkit.methods" for "rkdkit/methods/__init__.py"."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")
