"""The commands `rkdkit compare`, which compares methods over several seeds, and `rkdkit export`: tables for papers."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rkdkit import cli_methods, endings

if TYPE_CHECKING:
    from rkdkit.workforce import Workforce

app = typer.Typer()

SHARED_WITH = "tab1_white_box"
"""The exhibit whose parameters `compare` takes, and with which it shares runs and answers."""

_Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="NAME=VALUE: a field of a profile, or seed, the first seed; repeatable."),
]
_Workers = Annotated[
    str, typer.Option(help="Worker processes of one thread each; 1: none; auto: what this machine and the work allow.")
]
_Scheduler = Annotated[str, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler: its workers do the work.")]
_SchedulerFile = Annotated[str, typer.Option(metavar="FILE", help="In which a Dask scheduler wrote its address.")]


@app.command()
@endings.one_line_at_the_end(endings.KEPT)
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD METHOD...", help="As `rkdkit methods` names them; the first is the reference."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each method.")] = 3,
    profile: Annotated[str, typer.Option(help="smoke, quick, small or paper.")] = "quick",
    _methods: cli_methods.File = "",
    parameter: _Parameter = None,
    workers: _Workers = "",
    scheduler: _Scheduler = "",
    scheduler_file: _SchedulerFile = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the tables: .csv, .md or .tex (LaTeX)."),
    ] = None,
) -> None:
    """Train methods with several seeds, and compare each with the first: differences, intervals, verdicts.

    All are measured on the same images, naturally and under FGSM, PGD-20 and AutoAttack, as in PeerAiD's Table 1, with
    which runs and answers are shared.
    """
    from rkdkit import cluster, comparing, executors, training
    from rkdkit.image_files import DataNotFoundError
    from rkdkit.store import StoreError

    refused = (ValueError, DataNotFoundError, StoreError)
    of_work = (cluster.NoClusterError, cluster.WrongWorkerError, cluster.TasksFailedError, training.DivergedError)
    try:
        form = "" if output is None else _format_of(output)
        comparing.check(names or [])
        given = _parameters(profile, parameter)
        executor = cluster.Workers(_workforce(workers, scheduler, scheduler_file))
        planner = comparing.planned(names or [], **given, seeds=seeds)
    except refused as error:
        sys.exit(str(error))
    typer.echo(comparing.still_to_do(planner), err=True)
    try:
        with executors.using(executor):
            found = comparing.compare(names or [], **given, seeds=seeds)
    except refused + of_work as error:
        sys.exit(f"\n{error}")
    finally:
        executor.close()
    typer.echo(str(found), nl=False)
    if output is not None:
        _write({output: found.written(form)})


@app.command()
@endings.one_line_at_the_end("Files that were named are whole.")
def export(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Exhibits, as fig1 or 'PeerAiD Table 1'; none: all that are made at this profile."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="latex, markdown or csv [as the file ends, else markdown].")
    ] = "",
    profile: Annotated[str, typer.Option(help="The profile that they were made at.")] = "quick",
    origin: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Where they were saved [figures/<profile>].")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="A folder, or a file that ends in .tex, .md or .csv."),
    ] = None,
) -> None:
    """Write exhibits' tables for a paper or a page: values with intervals, the paper's numbers, the verdicts.

    They are read from the files of exhibits that are made; nothing is trained or measured. LaTeX needs the packages
    array, booktabs, graphicx and longtable.
    """
    from rkdkit import checks, cli, exporting, paths
    from rkdkit.saved import ExhibitFilesError

    try:
        chosen, into_file = _target(output, form)
        folder = origin or paths.output_folder(checks.one_of("profile", profile, cli.PROFILES))
        wanted = _made(names, folder, profile)
        if chosen == "csv" and output is not None:
            _check_csv(output, into_file, wanted)
        tables = [exporting.exported(file, chosen) for file in wanted]
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror or error}.")
    except (ValueError, ExhibitFilesError) as error:
        sys.exit(str(error))
    whole = "\n".join(text for of_one in tables for text in of_one.values())
    if output is None:
        typer.echo(whole, nl=False)
    elif not into_file:
        _write({output / name: text for of_one in tables for name, text in of_one.items()})
    elif chosen == "csv":
        numbers, *judged = tables[0].values()
        _write({output: numbers, **{output.with_name(f"{output.stem}_claims.csv"): text for text in judged}})
    else:
        _write({output: whole})


def _target(output: Path | None, form: str) -> tuple[str, bool]:
    """Return the format to write, and whether it goes into one file.

    Raises
    ------
    ValueError
        If there is no such format, it is not the file's, or file or folder cannot be written.
    """
    from rkdkit import checks
    from rkdkit.typeset import FORMATS

    if output is None or output.is_dir() or not output.suffix:
        if output is not None:
            checks.folder("--output", output, writable=True)
        return checks.one_of("format", form or "markdown", FORMATS), False
    ending = _format_of(output)
    chosen = checks.one_of("format", form or ending, FORMATS)
    if chosen != ending:
        raise ValueError(f"--output: {output} ends as a file of the format {ending}, not {chosen}. Name another.")
    return chosen, True


def _check_csv(output: Path, into_file: bool, wanted: Sequence[Path]) -> None:
    """Refuse to write CSVs where several would be one, or where exhibits have theirs."""
    if into_file and len(wanted) > 1:
        raise ValueError(f"The tables of {len(wanted)} exhibits do not go into one CSV: name a folder.")
    if not into_file and any((output / file.name).exists() for file in wanted):
        raise ValueError(
            f"--output: exhibits are saved in {output}, and have CSVs of these names. Name another folder."
        )


def _made(names: Sequence[str] | None, folder: Path, profile: str) -> list[Path]:
    """Return the JSON files of the exhibits that a command line names; of all that are made, if it names none.

    Raises
    ------
    ValueError
        If there is no such exhibit, one is not made, or none is; the message says which command makes it.
    """
    from rkdkit import cli, paths, saved
    from rkdkit.inventory.made import made_exhibits

    made, unreadable = made_exhibits([folder]) if folder.is_dir() else ([], [])
    there = [file for file in (*(each.path for each in made), *unreadable) if file.parent == folder]
    if not names:
        if not there:
            raise ValueError(f"No exhibit is made in {folder}: `rkdkit figures NAMES --profile {profile}` makes them.")
        return sorted(there, key=lambda file: paths.in_order(file.stem))
    asked = dict.fromkeys(cli.exhibits_named(names, [file.stem for file in there]))
    files = [folder / f"{name}.json" for name in asked]
    if missing := [file for file in files if not file.is_file()]:
        lines = [f"{file.stem} is not made in {folder}: `{saved.command_of(file, {})}` makes it." for file in missing]
        raise ValueError("\n".join(lines))
    return files


def _format_of(file: Path) -> str:
    """Return the format that a file's ending names; refuse what cannot be written.

    Raises
    ------
    ValueError
        If the ending is none of a table, its folder is not there or cannot be written to, the file is a folder, or
        it belongs to an exhibit.
    """
    from rkdkit import typeset

    of_ending = {ending: name for name, ending in typeset.FORMATS.items()}
    if file.suffix not in of_ending:
        raise ValueError(f"--output must end in {', '.join(of_ending)}, not be {str(file)[-60:]!r}.")
    if not file.parent.is_dir():
        raise ValueError(f"--output: there is no folder {file.parent}. Make it, or name another.")
    if file.is_dir():
        raise ValueError(f"--output: {file} is a folder.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"--output: {file} cannot be written.")
    if file.suffix == ".csv" and file.with_suffix(".json").exists():
        raise ValueError(f"--output: {file} belongs to an exhibit. Name another.")
    return of_ending[file.suffix]


def _parameters(profile: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """Return the parameters of `-p` by name, with the profile, as the exhibit of the same runs takes them.

    Raises
    ------
    ValueError
        If one makes no sense here; leaves with a message if one is not known.
    """
    from rkdkit import cli

    if any(pair.partition("=")[0].strip() == "formats" for pair in pairs or ()):
        raise ValueError("A comparison has no picture, so it takes no formats: give -o a file with another ending.")
    (notebook,) = cli.notebooks_of([SHARED_WITH], profile, list(pairs or ()), draws=False, called="compare")
    given = dict(notebook.parameters)
    more = given.pop("more", None)
    given |= dict(more) if isinstance(more, dict) else {}
    for name, instead in (("n_seeds", "--seeds"), ("output_dir", "-o"), ("methods", "the methods' names")):
        if name in given:
            raise ValueError(f"-p {name} is an exhibit's: here, give {instead}.")
    return given


def _workforce(workers: str, scheduler: str, scheduler_file: str) -> "Workforce":
    """Return who does the work; errors as `Workforce`."""
    from rkdkit.workforce import AUTO, Workforce, workforce_of_environment

    if workers or scheduler or scheduler_file:
        return Workforce(workers, scheduler, scheduler_file)
    return workforce_of_environment(AUTO)


def _write(contents: dict[Path, str]) -> None:
    """Write files, and say which; leave with a message if one cannot be written."""
    from rkdkit import files

    try:
        files.write_together({path: text.encode() for path, text in contents.items()})
    except OSError as error:
        sys.exit(f"Could not write {', '.join(map(str, contents))}: {error.strerror or error}.")
    for path in contents:
        typer.echo(f"Written: {path}", err=True)
