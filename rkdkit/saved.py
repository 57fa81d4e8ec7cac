"""The three files of an exhibit: they are written together, and read only if they belong together.

The JSON holds the SHA-256 of picture and numbers. So a set of which only a part was replaced, by a process that was
killed or by somebody's hand, is noticed by whoever reads it.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rkdkit import files, paths


class ExhibitFilesError(RuntimeError):
    """An exhibit's files are missing, damaged or do not belong together; the message names one and says what to do."""


def write_exhibit(file: Path, summary: Mapping[str, Any], *, picture: bytes, numbers: bytes) -> list[Path]:
    """Write an exhibit's picture, numbers and summary, and return the three files: PNG, CSV, JSON.

    All are first written beside their places, then renamed, the JSON last.

    Parameters
    ----------
    file : the JSON; the others have its name, with ``.png`` and ``.csv``.
    summary : plain JSON values; the digests are added as "files".
    picture, numbers : the content of PNG and CSV.

    Raises
    ------
    ValueError
        If the summary holds a number that JSON cannot hold; nothing is written.
    OSError
        If a file cannot be written. If that is a full disk, no file of an earlier set was touched.
    """
    others = dict(zip(_others(file), (picture, numbers), strict=True))
    digests = {path.name: _sha256(content) for path, content in others.items()}
    text = json.dumps({**summary, "files": digests}, indent=1, allow_nan=False) + "\n"
    contents = {**others, file: text.encode()}
    files.clear_leftovers(file.parent, f".{file.stem}.*.tmp")
    files.write_together(contents)
    return list(contents)


def read_exhibit(file: Path) -> dict[str, Any]:
    """Return an exhibit's summary, after checking that picture and numbers beside it are those it was written with.

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
    if not isinstance(made, dict) or not isinstance(made.get("files"), dict):
        found = made if isinstance(made, dict) else {}
        raise ExhibitFilesError(f"{file} does not say which picture and numbers belong to it. {_remedy(file, found)}")
    for path in _others(file):
        if _sha256(_read(path, made)) != made["files"].get(path.name):
            raise ExhibitFilesError(f"{path} and {file.name} do not belong together. {_remedy(file, made)}")
    return made


def _others(file: Path) -> tuple[Path, Path]:
    return file.with_suffix(".png"), file.with_suffix(".csv")


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
