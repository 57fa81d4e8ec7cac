"""Formulas of the notebooks as HTML, so that no page needs a library that sets them.

Only what the notebooks use is known: letters, indices, fractions, sums, Greek letters and upright words.
"""

import re
from collections import deque
from html import escape

SIGNS = {
    **{"alpha": "α", "beta": "β", "tau": "τ", "varepsilon": "ε", "nabla": "∇", "infty": "∞", "sum": "∑"},
    **{"cdot": "·", "|": "‖", "ln": "ln\u2009", ",": "\u2009", "Big": "", "lambda": "λ", "gamma": "γ", "leq": "≤"},
}
"""What the known commands without an argument become."""
_ESCAPED = {"*": "∗", "-": "−", "[": "&#91;", "]": "&#93;", "_": "&#95;", "`": "&#96;"}
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[^\\]", re.DOTALL)
_DISPLAY, _INLINE = re.compile(r"\$\$(.+?)\$\$", re.DOTALL), re.compile(r"(?<![\\$])\$([^$\n]+?)\$")


def without_formulas(markdown: str) -> str:
    """Return a text in Markdown whose formulas, between dollar signs, are HTML; code is left as it is."""
    parts = re.split(r"(```.*?```|`[^`\n]+`)", markdown, flags=re.DOTALL)
    for place in range(0, len(parts), 2):
        shown = _DISPLAY.sub(lambda found: f'<span class="formula display">{html(found[1])}</span>', parts[place])
        parts[place] = _INLINE.sub(lambda found: f'<span class="formula">{html(found[1])}</span>', shown)
    return "".join(parts)


def html(tex: str) -> str:
    """Return a formula as HTML; single letters are italic, words upright. Of an unknown command, its name is shown."""
    return _row(deque(_TOKEN.findall(tex)), "", upright=False)


def _row(tokens: deque[str], end: str, *, upright: bool) -> str:
    """Return what stands before the token `end`, which is taken, too."""
    parts = list[str]()
    while tokens:
        token = tokens.popleft()
        if token == end:
            break
        if token in ("^", "_"):
            tag = "sup" if token == "^" else "sub"
            parts.append(f"<{tag}>{_argument(tokens, upright=upright)}</{tag}>")
        else:
            parts.append(_one(token, tokens, upright=upright))
    return "".join(parts)


def _argument(tokens: deque[str], *, upright: bool) -> str:
    while tokens[0].isspace():
        tokens.popleft()
    return _one(tokens.popleft(), tokens, upright=upright)


def _one(token: str, tokens: deque[str], *, upright: bool) -> str:
    if token == "{":
        return _row(tokens, "}", upright=upright)
    name = token[1:]
    if not token.startswith("\\"):
        return f"<i>{token}</i>" if token.isalpha() and not upright else _ESCAPED.get(token, escape(token))
    if name in ("frac", "tfrac"):
        above, below = (_argument(tokens, upright=upright) for _ in range(2))
        return f"{_kept_together(above)}/{_kept_together(below)}"
    if name in ("mathrm", "mathbb"):
        return _argument(tokens, upright=True)
    if name == "tilde":
        return f"{_argument(tokens, upright=upright)}\u0303"
    return SIGNS.get(name, name)


def _kept_together(part: str) -> str:
    return f"({part})" if len(re.sub(r"<[^>]+>|\s", "", part)) > 1 else part
