"""What `rkdkit` itself takes, before any command: `--version`."""

import os
import sys
from typing import Annotated

import typer

TOGETHER = ("train",)
"""The commands that several processes of a launcher may do together."""


def _say_versions(asked: bool) -> None:
    if asked:
        from rkdkit import provenance

        typer.echo(provenance.versions())
        raise typer.Exit


def _refuse_processes(command: str) -> None:
    """Leave with a message if a launcher such as torchrun started a command as several processes for nothing."""
    size = os.environ.get("WORLD_SIZE", "")
    if command in TOGETHER or "RANK" not in os.environ or not size.isdecimal() or int(size) < 2:
        return
    sys.exit(
        f"`rkdkit {command}` is for one process, and {size} were started. Let `rkdkit {' or '.join(TOGETHER)}` do the "
        "work by several, and repeat this command without the launcher."
        if os.environ["RANK"] == "0"
        else 1
    )


def main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_versions, is_eager=True, help="Print the versions of kit and torch."),
    ] = False,
) -> None:
    """Robust knowledge distillation, reproduced."""
    del version  # its callback prints and ends
    _refuse_processes(context.invoked_subcommand or "")
