"""The files of an exhibit: picture, numbers and JSON are written together, and read only if they belong together.

The JSON holds the SHA-256 of picture and numbers. So a set of which only a part was replaced, by a process that was
killed or by somebody's hand, is noticed by whoever reads it. The picture may be there in further formats.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rkdkit import checks, files, paths

FORMATS = ("png", "pdf", "svg")
"""The formats of pictures. There is always a PNG."""

FORMATS_VARIABLE = "RKDKIT_FORMATS"
"""The variable that names the formats in which pictures are saved: "png,pdf"; by default png alone."""

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("claims", "seeds"), list),
    **dict.fromkeys(("overrides", "own", "provenance", "files"), dict),
    "eps": (int, float),
}
"""What the entries of the JSON that others rely on must be, where they are there; no digest covers the JSON itself."""


class ExhibitFilesError(RuntimeError):
    """An exhibit's files are missing, damaged or do not belong together; the message names one and says what to do."""


def formats(given: object = None) -> tuple[str, ...]:
    """Return the formats in which a picture is to be saved, PNG first.

    Parameters
    ----------
    given : "png,pdf,svg", or a list of such names; None: as the environment says (`FORMATS_VARIABLE`).

    Raises
    ------
    UnknownNameError
        If one is none of `FORMATS`.
    ValueError
        If they are neither a text nor a list.
    """
    said = given if given is not None else os.environ.get(FORMATS_VARIABLE, "")
    names = said.replace(",", " ").split() if isinstance(said, str) else checks.listed("formats", said, "png,pdf")
    kind = "format of pictures" if given is not None else f"format of pictures in {FORMATS_VARIABLE}"
    wanted = [checks.one_of(kind, name.lower() if isinstance(name, str) else name, FORMATS) for name in names]
    return tuple(name for name in FORMATS if name == "png" or name in wanted)


def take_formats(parameters: dict[str, object]) -> None:
    """Take `formats` out of the parameters of a command: not a notebook, but the environment says them to kernels.

    Raises
    ------
    UnknownNameError, ValueError
        As :func:`formats`.
    """
    if "formats" in parameters:
        os.environ[FORMATS_VARIABLE] = ",".join(formats(parameters.pop("formats")))


def write_exhibit(
    file: Path,
    summary: Mapping[str, Any],
    *,
    picture: bytes,
    numbers: bytes,
    further: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write an exhibit's picture, numbers and summary, and return the files: PNG, CSV, further pictures, JSON.

    All are first written beside their places, then renamed, the JSON last. Pictures in further formats that belonged to
    the exhibit before, and are not written now, are deleted: they would show something else than the PNG.

    Parameters
    ----------
    file : the JSON; the others have its name, with ``.png`` and ``.csv``.
    summary : plain JSON values; the digests are added as "files".
    picture, numbers : the content of PNG and CSV.
    further : the picture in other formats (of `FORMATS`).

    Raises
    ------
    ValueError
        If the summary holds a number that JSON cannot hold; nothing is written.
    OSError
        If a file cannot be written. If that is a full disk, no file of an earlier set was touched.
    """
    others = dict(zip(_others(file), (picture, numbers), strict=True))
    others |= {file.with_suffix(f".{name}"): content for name, content in (further or {}).items()}
    digests = {path.name: _sha256(content) for path, content in others.items()}
    text = json.dumps({**summary, "files": digests}, indent=1, allow_nan=False) + "\n"
    contents = {**others, file: text.encode()}
    files.clear_leftovers(file.parent, f".{file.stem}.*.tmp")
    outdated = [path for path in _further(file) if path not in contents]
    files.write_together(contents)
    for path in outdated:
        path.unlink(missing_ok=True)
    return list(contents)


def read_exhibit(file: Path) -> dict[str, Any]:
    """Return an exhibit's summary, after checking that picture and numbers beside it are those it was written with.

    Pictures in further formats need not be there, but those that are must belong to it, too.

    Parameters
    ----------
    file : the JSON.

    Raises
    ------
    ExhibitFilesError
        If one of the three files is missing, cannot be read, or does not belong to the others, or if the JSON is
        damaged or holds no digests.
    """
    try:
        made = json.loads(_read(file, {}))
    except (ValueError, RecursionError):  # RecursionError: it nests too deeply
        raise ExhibitFilesError(f"{file} is damaged. {_remedy(file, {})}") from None
    found: dict[str, Any] = made if isinstance(made, dict) else {}
    wrong = [name for name, kind in _KINDS.items() if name in found and not isinstance(found[name], kind)]
    wrong += ["seeds"] if found.get("seeds") == [] else []
    if wrong:
        raise ExhibitFilesError(f"{file} is damaged: {', '.join(wrong)} cannot be read. {_remedy(file, found)}")
    if not isinstance(found.get("files"), dict):
        raise ExhibitFilesError(f"{file} does not say which picture and numbers belong to it. {_remedy(file, found)}")
    further = (file.with_suffix(f".{name}") for name in FORMATS[1:])
    for path in (*_others(file), *(path for path in further if path.name in found["files"] and path.is_file())):
        if _sha256(_read(path, found)) != found["files"].get(path.name):
            raise ExhibitFilesError(f"{path} and {file.name} do not belong together. {_remedy(file, found)}")
    return found


def _others(file: Path) -> tuple[Path, Path]:
    return file.with_suffix(".png"), file.with_suffix(".csv")


def _further(file: Path) -> list[Path]:
    """Return the pictures in further formats that were written with the JSON that is there; []: it cannot be read."""
    found = []
    for path in (file.with_suffix(f".{name}") for name in FORMATS[1:]):
        with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            if path.is_file() and json.loads(files.read(file))["files"][path.name] == _sha256(files.read(path)):
                found.append(path)
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path, made: Mapping[str, Any]) -> bytes:
    """Return the content of one of the files; `made` is the summary, as far as it is known."""
    try:
        return files.read(path)
    except (FileNotFoundError, NotADirectoryError):
        problem = "is not there"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    raise ExhibitFilesError(f"{path} {problem}. {_remedy(path.with_suffix('.json'), made)}")


def _remedy(file: Path, made: Mapping[str, Any]) -> str:
    return f"Make the three files again: {command_of(file, made)}"


def command_of(file: Path, made: Mapping[str, Any]) -> str:
    """Return the command that makes an exhibit's files again.

    Parameters
    ----------
    file : the JSON, which need not be there.
    made : the summary, as far as it is known; the parameters that it names are in the command.
    """
    named, seeds = made.get("profile"), made.get("seeds")
    profile = named if isinstance(named, str) and named.isidentifier() else file.parent.name
    given = {name: value for kind in ("overrides", "own") for name, value in _by_name(made.get(kind)).items()}
    if isinstance(seeds, list) and seeds:
        given |= {"seed": seeds[0]} if seeds[0] != 0 else {}
    changed = {name: value for name, value in given.items() if name not in ("n_seeds", "output_dir")}
    in_its_place = file.parent.resolve() == paths.output_folder(profile, changed=changed).resolve()
    words = ["rkdkit", "figures", file.stem]
    if in_its_place or profile == named:
        words += ["--profile", profile]
    if isinstance(seeds, list) and len(seeds) > 1:
        given["n_seeds"] = len(seeds)
    if not in_its_place:
        given["output_dir"] = str(paths.from_here(file.parent))
    if file_of_methods := _methods_file(made):
        words += ["--methods", file_of_methods]
    for name, value in given.items():
        written = "none" if value is None else value if isinstance(value, str) else repr(value)
        words += ["-p", f"{name}={written}"]
    return shlex.join(words)


def _methods_file(made: Mapping[str, Any]) -> str:
    """Return the name of the file with the user's own methods that an exhibit rests on, as far as it is known."""
    provenance = made.get("provenance")
    own = provenance.get("own_methods") if isinstance(provenance, dict) else None
    rows = own.values() if isinstance(own, dict) else ()
    names = [row["file"] for row in rows if isinstance(row, dict) and isinstance(row.get("file"), str)]
    return str(names[0]) if names else ""


def _by_name(values: object) -> dict[str, Any]:
    return values if isinstance(values, dict) else {}
