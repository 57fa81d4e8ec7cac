"""Tables as LaTeX (booktabs), Markdown and plain text: what `rkdkit export` and `rkdkit compare` write.

A cell is a plain text, which may hold any character. Nothing is computed here, and no library is imported.
"""

import math
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

FORMATS = {"latex": ".tex", "markdown": ".md", "csv": ".csv"}
"""The formats of exported tables, and how the names of their files end."""

PACKAGES = ("array", "booktabs", "graphicx", "longtable")
"""The LaTeX packages that the tables need."""

BESIDE = "paper"
"""The name of a column that belongs to the one before it: a table is not divided between the two."""

_WIDEST = 132
"""The characters of a line of a float, at most: more columns go into a further table, with the same first columns."""

_LONGEST = 40
"""The lines of a float, at most: a longer table goes over several pages."""

_SIZES = {"footnotesize": 78, "scriptsize": 84, "tiny": 98}
"""How many characters a line of a page holds, in LaTeX's `article` on A4, by the size of the letters."""

_BETWEEN = 2
"""The characters that the space between two columns takes."""

_WIDTH = 110
"""The characters of a line of notes in plain text."""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    heading : the names of the columns.
    rows : of as many cells as the heading; "": nothing is known.
    title : what it shows, in a few words without a full stop.
    notes : sentences for the caption, after the title.
    label : letters, digits, "_" and "-", by which a text refers to it.
    head : how many of the first columns say what a line is about: they are repeated where a table must be divided.
    wrap : the longest text that stands in one line, in characters; longer ones are broken.

    Raises
    ------
    ValueError
        If a row has another number of cells than the heading.
    """

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str
    notes: tuple[str, ...] = ()
    label: str = "table"
    head: int = 1
    wrap: int = 42

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.heading):
                raise ValueError(f"{self.title}: a row has {len(row)} cells and not {len(self.heading)}: {row}.")

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The columns, each with its name first."""
        return list(zip(self.heading, *self.rows, strict=True))

    @property
    def widths(self) -> list[int]:
        """How many characters each column has: its longest cell's, but at most `wrap` or its longest word's."""
        longest = [max(map(len, column)) for column in self.columns]
        words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in self.columns]
        return [min(cell, max(self.wrap, word)) for cell, word in zip(longest, words, strict=True)]

    @property
    def lines(self) -> int:
        """About how many lines the rows take, those of broken cells included."""
        widths = self.widths
        return sum(max(map(_lines_of, row, widths), default=1) for row in self.rows)


def latex(tables: Sequence[Table]) -> str:
    r"""Return tables as LaTeX, for ``\input`` in a text that loads the `PACKAGES`.

    A table that fits on a page is a float (``table*``, which spans both columns of a two-column text), made smaller if
    it is wider than the text. A longer one is a ``longtable``. What is too wide even so is divided into several.

    Parameters
    ----------
    tables : their labels differ.
    """
    parts = [part for table in tables for part in _divided(table)]
    return "\n".join([f"% needs \\usepackage{{{','.join(PACKAGES)}}}", *map(_latex, parts)])


def markdown(tables: Sequence[Table]) -> str:
    """Return tables as Markdown (GitHub's), each below its caption."""
    return "\n".join(map(_markdown, tables))


def text(tables: Sequence[Table]) -> str:
    """Return tables as plain text: aligned columns below the title, the notes below them."""
    return "\n".join(map(_text, tables))


def metric_in_words(metric: str) -> str:
    """Return a metric as tables name it: "PGD-20 from resnet34" for "pgd-20 from resnet34"."""
    names = {"autoattack": "AutoAttack", "deepfool": "DeepFool"}
    attack = r"\b(autoattack|deepfool|(mi-)?fgsm|pgd)\b"
    return re.sub(attack, lambda found: names.get(found.group(), found.group().upper()), metric)


_SPECIAL = {
    **{character: f"\\{character}" for character in "{}$&#%_"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"$\grave{}$",
    '"': "{''}",
}
"""The characters of ASCII that LaTeX would not print, or would print as others."""

_TYPOGRAPHIC = {
    **{"\N{EN DASH}": "--", "\N{EM DASH}": "---", "\N{HORIZONTAL ELLIPSIS}": r"\dots{}", "§": r"\S{}"},
    **{"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT SINGLE QUOTATION MARK}": "`"},
    **{"\N{LEFT DOUBLE QUOTATION MARK}": "``", "\N{RIGHT DOUBLE QUOTATION MARK}": "''"},
}

_GREEK = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon varphi chi "
    "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
"""What LaTeX calls the letters of the next lines, in the same order."""

_MATHEMATICAL = {
    **{"\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": r"\times", "\N{PLUS-MINUS SIGN}": r"\pm"},
    **{"≤": r"\leq", "≥": r"\geq", "≈": r"\approx", "≠": r"\neq", "·": r"\cdot", "∞": r"\infty", "∈": r"\in"},
    **{"→": r"\rightarrow", "←": r"\leftarrow", "∂": r"\partial", "∇": r"\nabla", "∑": r"\sum", "‖": r"\|"},
    **{"¹": "^{1}", "²": "^{2}", "³": "^{3}", "°": r"^{\circ}", "µ": r"\mu", "′": "'", "ϵ": r"\epsilon", "ϕ": r"\phi"},
    **{
        letter: f"\\{name}"
        for letter, name in zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", _GREEK.split(" "), strict=True)
    },
}

_NOT_IN_ALL_FONTS = "ÐðÞþ"

_LIGATURES = ("--", "''")
"""Two characters that LaTeX prints as one."""


def latex_text(words: str) -> str:
    """Return a text as LaTeX prints it, whatever characters it has: in one line, with single spaces.

    A character that LaTeX's standard fonts do not have is replaced by its nearest letters, or else by its number, as in
    "(U+4E2D)".
    """
    line = re.sub(r"(?<![\w.)\]-])-(?=[\d.])", "\N{MINUS SIGN}", " ".join(words.split()))
    found = "".join(
        f"{character}{{}}" if line[i : i + 2] in _LIGATURES else _latex_character(character)
        for i, character in enumerate(line)
    )
    # after \\ a star or a bracket would be taken for an option
    return "{}" + found if found.startswith(("*", "[")) else found


def markdown_text(words: str) -> str:
    """Return a text as Markdown shows it in a cell of a table, whatever characters it has."""
    line = " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|~$\[\]])", r"\\\1", line)


def _latex_character(character: str) -> str:
    kind = unicodedata.category(character)
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character in _TYPOGRAPHIC:
        return _TYPOGRAPHIC[character]
    if character in _MATHEMATICAL:
        return f"${_MATHEMATICAL[character]}$"
    if _is_ascii(character) or ("À" <= character <= "ÿ" and kind[0] == "L" and character not in _NOT_IN_ALL_FONTS):
        return character
    if kind == "Cc":
        return ""
    near = "".join(filter(_is_ascii, unicodedata.normalize("NFKD", character)))
    return "".join(_SPECIAL.get(each, each) for each in near) or f"(U+{ord(character):04X})"


def _is_ascii(character: str) -> bool:
    return " " <= character <= "~"


def _markdown(table: Table) -> str:
    aligned = ["---:" if _is_of_numbers(column) else "---" for column in table.columns]
    lines = [list(map(markdown_text, table.heading)), aligned, *(list(map(markdown_text, row)) for row in table.rows)]
    caption = " ".join([f"**{markdown_text(table.title)}.**", *map(markdown_text, table.notes)])
    return "\n".join([f"{caption}\n", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _text(table: Table) -> str:
    widths = [max(map(len, column)) for column in table.columns]
    right = [_is_of_numbers(column) for column in table.columns]
    lines = [
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in (table.heading, *table.rows)
    ]
    return "\n".join([f"{table.title}:", *lines, *(textwrap.fill(note, _WIDTH) for note in table.notes), ""])


def _is_of_numbers(column: Sequence[str]) -> bool:
    """Return whether all that is known in a column, below its name, begins as a number does."""
    known = [cell for cell in column[1:] if cell]
    return bool(known) and all(re.match(r"[-−+]?\.?\d", cell) for cell in known)


def _lines_of(cell: str, width: int) -> int:
    """Return about how many lines a cell takes in a column of this many characters: lines are broken at words."""
    return 1 if len(cell) <= width else math.ceil(1.15 * len(cell) / width)


def _divided(table: Table) -> Iterator[Table]:
    """Yield a table in parts that are not too wide, each with the first columns; itself if it is not too wide."""
    widths, limit = table.widths, _WIDEST if table.lines <= _LONGEST else _SIZES["tiny"]
    first = sum(widths[: table.head]) + _BETWEEN * table.head
    groups, taken = list[list[int]]([[]]), first
    for i in range(table.head, len(widths)):
        with_next = widths[i] + (_BETWEEN + widths[i + 1] if table.heading[i + 1 : i + 2] == (BESIDE,) else 0)
        if groups[-1] and table.heading[i] != BESIDE and taken + with_next > limit:
            groups.append([])
            taken = first
        groups[-1].append(i)
        taken += widths[i] + _BETWEEN
    for number, group in enumerate(groups, 1):
        places = [*range(table.head), *group]
        rows = tuple(tuple(row[i] for i in places) for row in table.rows)
        part = replace(table, heading=tuple(table.heading[i] for i in places), rows=rows)
        if len(groups) > 1:
            part = replace(part, title=f"{table.title} ({number} of {len(groups)})", label=f"{table.label}-{number}")
        yield part


def _latex(table: Table) -> str:
    """Return one table that is not too wide as a float, or as a longtable if it is too long for a page."""
    widths = table.widths
    kinds = "@{}" + "".join(map(_latex_column, table.columns, widths)) + "@{}"
    heading = f"    \\toprule\n{_latex_row(table.heading)}\n    \\midrule"
    rows = "\n".join(map(_latex_row, table.rows))
    caption = " ".join([f"{table.title}.", *table.notes])
    named = f"\\caption[{{{latex_text(table.title)}}}]{{{latex_text(caption)}}}"
    named += "\\label{tab:" + re.sub("[^A-Za-z0-9]+", "-", table.label) + "}"
    if table.lines <= _LONGEST:
        return (
            "\\begin{table*}[tp]\n  \\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
            f"  {named}\n"
            "  \\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%\n"
            f"  \\begin{{tabular}}{{{kinds}}}\n{heading}\n{rows}\n    \\bottomrule\n  \\end{{tabular}}}}\n"
            "\\end{table*}\n"
        )
    needed = sum(widths) + _BETWEEN * (len(widths) - 1)
    size = next((name for name, characters in _SIZES.items() if needed <= characters), "tiny")
    return (
        f"{{\\{size}\\setlength{{\\tabcolsep}}{{3pt}}\\setlength{{\\LTcapwidth}}{{\\textwidth}}\n"
        f"\\begin{{longtable}}{{{kinds}}}\n  {named} \\\\\n{heading}\n  \\endfirsthead\n{heading}\n  \\endhead\n"
        f"    \\bottomrule\n  \\endfoot\n{rows}\n\\end{{longtable}}}}\n"
    )


def _latex_column(column: Sequence[str], width: int) -> str:
    """Return how a column is set; half an em is about a digit's width."""
    if width < max(map(len, column)):
        return f">{{\\raggedright\\arraybackslash}}p{{{width / 2:g}em}}"
    return "r" if _is_of_numbers(column) else "l"


def _latex_row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(map(latex_text, cells))} \\\\"
