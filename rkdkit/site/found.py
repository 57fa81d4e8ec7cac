"""The exhibits that the site shows, as their files say: what there is at each scale, and what is missing or damaged."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rkdkit import exhibits, files, paths
from rkdkit.claims import Claim
from rkdkit.papers.places import TITLES
from rkdkit.saved import ExhibitFilesError, command_of, read_exhibit

OWN = "the kit's own"
"""What stands in place of a paper where there is none."""

_CAPTION = "*The picture in `figures/quick/`. The cells below draw yours, by the parameters that you set.*"


@dataclass(frozen=True)
class Found:
    """An exhibit at one scale.

    Attributes
    ----------
    name : the exhibit's name.
    folder : where its three files are, or should be.
    made : what its JSON says; empty if a file is missing or damaged.
    claims : the claims in it, with their verdicts.
    problem : what is wrong with its files, in a sentence; "": nothing.
    """

    name: str
    folder: Path
    made: Mapping[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    problem: str = ""

    @property
    def scale(self) -> str:
        """The profile and what differs from it, "small, epochs 30"; of files that cannot be read, the folder's name."""
        changed = {**self.made.get("overrides", {}), **self.made.get("own", {})}
        return ", ".join(
            [str(self.made.get("profile", self.folder.name)), *(f"{name} {value}" for name, value in changed.items())]
        )

    @property
    def has_digests(self) -> bool:
        """Whether the JSON says which picture and numbers belong to it; those of earlier versions do not."""
        return "files" in self.made

    @property
    def place(self) -> str:
        """The folder as it is named from the project's folder."""
        return paths.below_project(self.folder).as_posix()

    @property
    def command(self) -> str:
        """The command that makes the files again."""
        return command_of(self.folder / f"{self.name}.json", self.made)


def names() -> list[str]:
    """Return the names of all exhibits, figures before tables and 2 before 11."""
    return sorted(exhibits.NAMES, key=paths.in_order)


def read(name: str, folder: Path) -> Found:
    """Return an exhibit with what its files in a folder say."""
    file = folder / f"{name}.json"
    try:
        made = _of_an_earlier_version(file) or read_exhibit(file)
        claims = tuple(Claim.from_json(claim) for claim in made["claims"])
    except ExhibitFilesError as error:
        problem = str(error).partition(" Make the three files again")[0]
    except (ValueError, TypeError, KeyError):
        problem = f"{file} holds claims that cannot be read."
    else:
        return Found(name, folder, made, claims)
    return Found(name, folder, problem=problem.replace(f"{folder}/", f"{paths.below_project(folder)}/"))


def _of_an_earlier_version(file: Path) -> dict[str, Any] | None:
    """Return what the JSON of an earlier version says, which has no digests; None: it is another one."""
    try:
        made = json.loads(files.read(file))
    except (OSError, ValueError, RecursionError):
        return None
    whole = all(file.with_suffix(suffix).is_file() for suffix in (".png", ".csv"))
    return made if whole and isinstance(made, dict) and "exhibit" in made and "files" not in made else None


def all_found(quick: Path, larger: Path) -> list[Found]:
    """Return every exhibit at `quick`, and those at larger scales.

    Parameters
    ----------
    quick : the folder of the exhibits at `quick`; what is missing there is listed with its problem.
    larger : the folder whose folders each hold exhibits at another scale; it need not be there.
    """
    return [*(read(name, quick) for name in names()), *_larger(larger)]


def _larger(folder: Path) -> Iterator[Found]:
    for file in sorted(folder.glob("*/*.json")):
        if file.stem in exhibits.NAMES:
            yield read(file.stem, file.parent)


def in_the_papers(name: str) -> str:
    """Return what the papers call an exhibit: "PeerAiD, Figure 1"."""
    return exhibits.get(name).paper


def paper_of(text: str) -> str:
    """Return the paper that a text begins with, as "RKD, Table 9" does; `OWN`: none."""
    return next((title for title in TITLES.values() if text.startswith(f"{title},")), OWN)


def story(name: str) -> tuple[str, str]:
    """Return the question that an exhibit's notebook asks, its heading, and what it tells first, in Markdown.

    What it says about its own cells is left out: they are not on the exhibit's page.
    """
    notebook = paths.project_root() / "notebooks" / f"{name}.ipynb"
    first = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
    heading, _, text = first.partition("\n")
    return heading.lstrip("# "), text.replace(_CAPTION, "").strip()
