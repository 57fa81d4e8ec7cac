"""The kit's docstrings as numpydoc reads them.

The kit writes ``name : what it is``, because types stand in the signature; numpydoc expects a type there. The kit
describes what a function returns in a text; numpydoc expects a list. And some signs in the kit's texts (``x*_S``) are
markup in reStructuredText.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

_LISTS = ("Parameters", "Attributes")
_TEXTS = ("Returns", "Yields")
_ITEM = re.compile(r"(\*{0,2}\w[\w.]*(?:, \*{0,2}\w[\w.]*)*) : (.*)")
_CODE = re.compile(r"(``.+?``|:\w+(?::\w+)?:`[^`]+`|`[^`]+`)", re.DOTALL)


def prepared(lines: Sequence[str], thing: object = None) -> list[str]:
    """Return a docstring's lines as numpydoc expects them.

    Parameters
    ----------
    lines : the docstring's.
    thing : what it describes, for the type of what it returns; None: nothing that returns.
    """
    found = list[str]()
    for heading, text in _sections(lines):
        safe = _escaped(list(_items(text)) if heading in _LISTS else text)
        if heading in _TEXTS:
            safe = [_returned(thing), *(f"    {line}" if line else "" for line in safe)]
        found += [*([heading, "-" * len(heading)] if heading else []), *safe]
    return found


def plain(text: str) -> str:
    """Return a text whose signs are no markup in reStructuredText; code between backticks is left as it is."""
    parts = _CODE.split(text)
    parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _sections(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield heading and text of each section; what comes before the first has no heading."""
    starts = [i for i, (line, below) in enumerate(pairwise(lines)) if line.strip() and re.fullmatch("-{3,}", below)]
    for begin, end in pairwise([-2, *starts, len(lines)]):
        yield (lines[begin] if begin >= 0 else ""), list(lines[begin + 2 : end])


def _escaped(lines: Sequence[str]) -> list[str]:
    """Return the text of a section as :func:`plain`, but for its literal blocks: what is deeper below a "::"."""
    found, text, depth = list[str](), list[str](), -1
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if depth >= 0 and line.strip() and indent <= depth:
            depth = -1
        if depth < 0:
            text.append(line)
            depth = indent if line.rstrip().endswith("::") else -1
        else:
            found += [*_lines(text), line]
            text = []
    return [*found, *_lines(text)]


def _lines(text: Sequence[str]) -> list[str]:
    return plain("\n".join(text)).split("\n") if text else []


def _items(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a list, what an item is below its name."""
    for line in lines:
        item = _ITEM.fullmatch(line)
        yield from [line] if item is None else [item[1], f"    {item[2]}"]


def _returned(thing: object) -> str:
    """Return the type that a function returns, or words in its place."""
    try:
        found: Any = inspect.signature(thing).return_annotation if callable(thing) else inspect.Signature.empty
    except (ValueError, TypeError):
        found = inspect.Signature.empty
    if found is inspect.Signature.empty or found is None:
        return "what it is"
    told = found if isinstance(found, str) else inspect.formatannotation(found)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", told.strip("\"'"))
