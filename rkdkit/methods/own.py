"""Methods of one's own: a Python file that adds rows to the table, which the user names by `--methods`.

Only processes that set up an exhibit read the file, by the variable `VARIABLE`. Workers need not: a task takes its rows
along (`tasks.Task`).
"""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rkdkit import checks, endings, methods
from rkdkit.methods.grammar import Method
from rkdkit.methods.table import BUILT_IN

VARIABLE = "RKDKIT_METHODS"
"""The environment variable with the path of the file, which notebooks read when they set up their exhibit."""

UNCHANGED = "RKDKIT_METHODS_UNCHANGED"
"""The environment variable by which a command tells its notebooks the digest and the path of the file that it read."""

LONGEST = 60
"""How many characters a name and a title may have: they stand beside a figure's lines."""

_EXAMPLE = 'METHODS["mine"] = Method(...)'
_IMPORT = "from rkdkit.methods import METHODS, Maximised, Method, Term"
_NAME = re.compile(r"\w(?:[\w+. -]*[\w+])?")
_OTHERS_NAMES = ("student", "peer", "teacher", "natural")  # networks of figures
_AVERAGED = " + SWA"  # what PeerAiD's Table 3 adds to a method's name


@dataclass(frozen=True)
class Source:
    """A file that added methods.

    Attributes
    ----------
    file : its path.
    sha256 : the digest of its content.
    names : the methods that it added.
    """

    file: Path
    sha256: str
    names: tuple[str, ...]


_LOADED: dict[Path, Source] = {}


def load(path: str | Path) -> tuple[str, ...]:
    """Execute a Python file that adds methods to the table; return their names.

    The file is executed once per process. If its content has changed since, as in JupyterLab, the methods that it had
    added are removed, and it is executed again. If anything in it is refused, the table stays as it was.

    Parameters
    ----------
    path : a Python file in which ``METHODS["mine"] = Method(...)`` adds methods. It is executed, whatever it holds.

    Raises
    ------
    ValueError
        If there is no such file, it stops with an error, adds no method, changes a method that was there, or a name or
        title that it gives cannot be one, or it is not what the command that started this notebook has read
        (`UNCHANGED`); the message is one line and says what to do.
    """
    file = _full(path)
    content = _read(file)
    digest, known, table = hashlib.sha256(content).hexdigest(), _LOADED.get(file), methods.METHODS
    expected, _, whose = os.environ.get(UNCHANGED, "").partition(" ")
    if whose == str(file) and expected != digest:
        raise ValueError(f"{file} was changed after the command had read it: run the command again.")
    module = f"{__name__}_{digest[:16]}"
    if known is not None and known.sha256 == digest and _is_there(known):
        return known.names
    before = dict(table)
    for name in known.names if known is not None else ():
        table.pop(name, None)
    others = dict(table)
    try:
        _execute(file, content, module)
        names = _added(file, others, table)
    except BaseException:
        sys.modules.pop(module, None)
        table.clear()
        table.update(before)
        raise
    _LOADED[file] = Source(file, digest, names)
    return names


def load_named() -> tuple[str, ...]:
    """Load the file that the environment variable `VARIABLE` names; return the names of its methods, (): it names none.

    A command that runs for hours sets up exhibits again and again. It reads the file once, and the notebooks that it
    starts refuse another content, so that whoever changes the file meanwhile mixes no two methods under one name. A
    notebook in JupyterLab looks whether the file has changed, and reads it again.

    Raises
    ------
    ValueError
        As :func:`load`.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return ()
    known = _LOADED.get(_full(path))
    in_notebook = "ipykernel.kernelapp" in sys.modules
    return load(path) if known is None or in_notebook or not _is_there(known) else known.names


def source_of(name: str) -> Source | None:
    """Return the file that a method is from; None: it is the kit's, or was added without a file."""
    return next((source for source in _LOADED.values() if name in source.names), None)


def hand_on(path: str | Path) -> None:
    """Load a file, and name it with its digest to all processes that this one will start; errors as :func:`load`."""
    load(path)
    file = _full(path)
    os.environ[VARIABLE], os.environ[UNCHANGED] = str(file), f"{_LOADED[file].sha256} {file}"


def _full(path: str | Path) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:  # "~somebody", whom this machine does not know
        return Path(path).absolute()


def _is_there(source: Source) -> bool:
    return set(source.names) <= set(methods.METHODS)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        why = f"There is no file {file}"
    except OSError as error:  # a folder, too
        why = f"{file} cannot be read: {error.strerror}"
    raise ValueError(f"{why}. --methods and {VARIABLE} name a Python file in which {_EXAMPLE} adds methods.")


def _execute(file: Path, content: bytes, name: str) -> None:
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # classes that are defined in the file look for it there
    try:
        exec(compile(content, str(file), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        raise ValueError(_told(file, error)) from None


def _told(file: Path, error: BaseException) -> str:
    """Return in one line where a file stopped, and why."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    message = str(error)
    if isinstance(error, SyntaxError):
        message = error.msg
        lines += [error.lineno] if error.filename == str(file) else []
    where = f", line {lines[-1]}" if lines and lines[-1] else ""
    said = endings.in_words(type(error).__name__, " ".join(message.split()))
    hint = f" The file imports what it uses: {_IMPORT}." if isinstance(error, NameError) else ""
    return f"{file}{where}: {said}{hint}"


def _added(file: Path, before: Mapping[str, object], table: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the methods that a file added to the table; refuse what it must not do."""
    for name, row in before.items():
        if name not in table:
            raise ValueError(f"{file} removes the method {name!r}: a file can only add methods.")
        if table[name] != row:
            whose = "that of a method of the kit" if name in BUILT_IN else "taken"
            raise ValueError(f"{file}: the name {name!r} is {whose}. Choose another one.")
    names = tuple(name for name, row in table.items() if name not in BUILT_IN and before.get(name) is not row)
    if not names:
        raise ValueError(f"{file} adds no method: {_EXAMPLE} in it does; docs/methods.md has a whole file.")
    for name in names:
        try:
            _check(name, table)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return names


def _check(name: object, table: Mapping[str, object]) -> None:
    """Refuse a method whose name or title cannot be one, or is another method's."""
    if not (isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= LONGEST):
        raise ValueError(
            f"a method cannot be called {checks.shown(name)}: its name has letters, digits, spaces and + - . _ only, "
            f"at most {LONGEST}. The kit makes names such as {methods.part_name('ARD', 'loss')!r} itself."
        )
    if name in _OTHERS_NAMES or name.endswith(_AVERAGED):
        raise ValueError(f"a method cannot be called {name!r}: figures have that name for another network.")
    row = table[name]
    if not isinstance(row, Method):
        raise ValueError(f'METHODS["{name}"] must be a Method, not {checks.shown(row)}.')
    title: object = row.title
    if not (isinstance(title, str) and title and title.isprintable() and len(title) <= LONGEST) or (
        title != title.strip() or "$" in title or title.startswith("_")  # matplotlib leaves "_..." out of legends
    ):
        raise ValueError(
            f"the title of {name!r} must be a text of one line, at most {LONGEST} characters, without $, and without _ "
            f"or spaces at its ends, not {checks.shown(title)}."
        )
    others = {other: each.title for other, each in table.items() if other != name and isinstance(each, Method)}
    for other, theirs in others.items():
        if title.casefold() in (other.casefold(), theirs.casefold()):
            raise ValueError(
                f"the title {title!r} of {name!r} is that of the method {other!r}, and figures call methods by their "
                f"title: give it another one, as in replace(METHODS[{other!r}], title={name!r}, ...)."
            )
