"""The command `rkdkit push`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rkdkit import cli_methods, endings

if TYPE_CHECKING:
    from rkdkit.drawing import Notebook


@endings.one_line_at_the_end("What was sent stays there: the same command sends the rest.")
def push(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Exhibits, as for `rkdkit figures`; none: all that are made at this profile."),
    ] = None,
    to: Annotated[
        str,
        typer.Option(metavar="URL", help="The mirror: file:///folder, s3://bucket/folder, hf://datasets/user/name."),
    ] = "",
    profile: Annotated[str, typer.Option(help="The profile that they were made at.")] = "quick",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="NAME=VALUE: as they were made; repeatable."),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all-snapshots", help="All networks of their runs, not only those that the exhibits name."),
    ] = False,
    no_networks: Annotated[
        bool,
        typer.Option(
            "--no-networks", help="Records and answers alone: enough to make the exhibits again without training."
        ),
    ] = False,
    _methods: cli_methods.File = "",
) -> None:
    """Put what exhibits rest on into a mirror, from which RKDKIT_MIRROR=URL fetches it: runs, networks and answers."""
    from rkdkit import cli, pushing
    from rkdkit.mirror import Mirror
    from rkdkit.store import StoreError
    from rkdkit.tasks import Context

    if not to:
        sys.exit(
            "Say where to: rkdkit push NAMES --to file:///folder (or s3://bucket/folder, hf://datasets/user/name)."
        )
    if everything and no_networks:
        sys.exit("--all-snapshots and --no-networks exclude each other: give one of them.")
    contents, chosen = pushing.Contents(), 0
    try:
        mirror = Mirror(to)
        mirror.check_writable()
    except (ValueError, StoreError) as error:
        sys.exit(str(error))
    for notebook in cli.notebooks_of(names, profile, parameter, draws=False):
        given = notebook.parameters
        try:
            file = _folder_of(notebook) / f"{notebook.name}.json"
        except ValueError as error:
            sys.exit(f"{notebook.name}: {error}")
        if names or file.is_file():
            typer.echo(f"{notebook.name} ({given['profile']})", err=True)
            chosen += 1
            try:
                pushing.contents_of(notebook, file, contents)
            except (pushing.NotMadeError, StoreError) as error:
                sys.exit(str(error))
            except Exception as error:  # whatever the notebook raises, as when it is made
                sys.exit(f"{notebook.name}: {type(error).__name__}: {error}")
    if not chosen:
        sys.exit(f"No exhibit is made at {profile}: `rkdkit figures NAMES --profile {profile}` makes them.")
    if no_networks:
        contents.networks = {spec: {} for spec in contents.networks}
    try:
        sent = pushing.push(contents, mirror, Context(), everything=everything)
    except StoreError as error:
        sys.exit(str(error))
    typer.echo(f"{mirror.url}: {sent}. Exhibits: {chosen}; runs: {len(contents.networks)}.", err=True)


def _folder_of(notebook: "Notebook") -> Path:
    """Return the folder in which an exhibit with these parameters is saved."""
    from rkdkit import exhibits, paths, setup

    given = {name: value for name, value in {**notebook.parameters, **notebook.more}.items() if name != "more"}
    if notebook.name in exhibits.NAMES:
        return setup.folder_of(exhibits.get(notebook.name), given)
    return paths.output_folder(str(given["profile"]), given.get("output_dir"))
