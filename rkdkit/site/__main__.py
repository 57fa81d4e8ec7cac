"""`python -m rkdkit.site`: build the site from what is in `figures/`, `results/` and `docs/`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rkdkit import paths


def main(
    out: Annotated[
        Path | None, typer.Option(help="The folder of the site; none: site/ in the project's folder.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="The exhibits at quick; none: figures/quick.")] = None,
    results: Annotated[Path | None, typer.Option(help="Those at larger scales; none: results.")] = None,
) -> None:
    """Build the site: static pages, which need no server and nothing from elsewhere."""
    try:
        from rkdkit.site.build import SiteError, build
    except ModuleNotFoundError as error:
        sys.exit(f"The site needs {error.name}, which is not installed: `make setup` installs it.")
    place = out or paths.project_root() / "site"
    try:
        build(place, figures, results)
    except (SiteError, OSError) as error:
        sys.exit(str(error))
    typer.echo(f"The site is in {paths.below_project(place)}: open {paths.below_project(place) / 'index.html'}.")


if __name__ == "__main__":
    typer.run(main)
