"""What `rkdkit` itself takes, before any command: `--version`."""

from typing import Annotated

import typer


def _say_versions(asked: bool) -> None:
    if asked:
        from rkdkit import provenance

        typer.echo(provenance.versions())
        raise typer.Exit


def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_versions, is_eager=True, help="Print the versions of kit and torch."),
    ] = False,
) -> None:
    """Robust knowledge distillation, reproduced."""
    del version  # its callback prints and ends
