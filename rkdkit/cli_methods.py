"""The option `--methods` of several commands, and the command `rkdkit methods`."""

import sys
from typing import Annotated

import typer

VARIABLE = "RKDKIT_METHODS"
"""The name of `methods.own.VARIABLE`, whose module needs torch."""


def take(path: str) -> str:
    """Add the methods of a file and name it to all processes to come; leave with a message if it is refused.

    So what is wrong with it is said before any notebook is run.

    Parameters
    ----------
    path : what the option or the variable says; "": no file is named.
    """
    if path:
        from rkdkit.methods import own

        try:
            own.hand_on(path)
        except ValueError as error:
            sys.exit(str(error))
    return path


File = Annotated[
    str,
    typer.Option(
        "--methods",
        metavar="FILE",
        envvar=VARIABLE,
        callback=take,
        help='A Python file of your own, in which METHODS["mine"] = Method(...) adds methods (docs/methods.md).',
    ),
]
"""The option; its callback does the work, so a command only needs a parameter for it."""


def page(_methods: File = "") -> None:
    """Print the table of methods, as docs/methods.md has it, with those of FILE."""
    from rkdkit.documentation import methods_page

    typer.echo(methods_page(), nl=False)
