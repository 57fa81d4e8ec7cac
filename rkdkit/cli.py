"""The command line: `rkdkit list`, `plan`, `train`, `figures`; other modules have the other commands.

Each command imports what it needs. `rkdkit figures` of a single exhibit imports neither torch nor Dask: its notebook
does, in a process of its own.
"""

import ast
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rkdkit import checks, cli_methods, cli_push, cli_runs, cli_tables, cli_version, endings, paths, saved
from rkdkit.papers.places import check_places, places

if TYPE_CHECKING:
    from rkdkit import cluster, drawing, making
    from rkdkit.workforce import Workforce

# jsonschema, which papermill imports, would take a second to build a parser of internationalised addresses if it found
# this optional package; notebooks have no such addresses
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.callback()(cli_version.main)
app.add_typer(cli_runs.app, name="runs")
app.add_typer(cli_tables.app)
app.command()(cli_push.push)
app.command("methods")(cli_methods.page)


PROFILES = ("smoke", "quick", "small", "paper")
"""The names of `profiles.PROFILES`, which need torch."""

COMMITTED = "committed"
"""The value of `n_seeds` that stands for the number with which each exhibit is committed in figures/quick."""

SPEED = ("RKDKIT_COMPILE", "RKDKIT_EVALUATION_BATCH", "RKDKIT_GRAPHS", "RKDKIT_DATA_ON", "RKDKIT_MICRO_BATCH")
"""The variables that `runtime.current` reads and checks, which needs torch."""


def _notebooks() -> dict[str, Path]:
    return {path.stem: path for path in sorted(paths.exhibit_notebooks(), key=lambda path: paths.in_order(path.stem))}


@app.command("list")
def list_exhibits(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Exhibits to say more of, as 'RKD Table 9', fig1 or transfer; none: a line for each."),
    ] = None,
) -> None:
    """List the exhibits: name, what the paper calls it, what it asks. Of NAMES: files, and the paper's own numbers."""
    from rich.console import Console
    from rich.table import Table

    notebooks = _notebooks()
    if names:
        _look_up(names, notebooks)
        return
    table = Table("exhibit", "in the paper", "what it asks", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[0].no_wrap = True
    papers = _papers(notebooks)
    for name, path in notebooks.items():
        table.add_row(name, papers.get(name, ""), _heading(path))
    Console(width=120, highlight=False, markup=False).print(table)


def _look_up(names: Sequence[str], notebooks: Mapping[str, Path]) -> None:
    """Print what is known of the exhibits that a command line names; leave with a message if there are no such."""
    from rkdkit import lookup

    try:
        asked = dict(zip(names, exhibits_named(names), strict=True))
    except ValueError as error:
        sys.exit(str(error))
    papers = _papers(asked.values())
    for place, (words, name) in enumerate(asked.items()):
        about = lookup.lines_about(name, _heading(notebooks[name]), papers.get(name, ""), words)
        typer.echo("\n" * (place > 0) + "\n".join(about))


def _heading(notebook: Path) -> str:
    """Return the question that a notebook asks: its first line."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).partition("\n")[0].lstrip("# ")


_Names = Annotated[
    list[str] | None,
    typer.Argument(help="Exhibits, as fig1, teacher_arch or 'PeerAiD Figure 1'; none: all of them."),
]
_Profile = Annotated[str, typer.Option(help=f"{', '.join(PROFILES[:-1])} or {PROFILES[-1]}.")]
_Parameter = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        "-p",
        help="NAME=VALUE: of the notebook, or any field of a profile; repeatable. n_seeds=committed: as many seeds as "
        "each exhibit has in figures/quick.",
    ),
]


def _papers(names: Iterable[str]) -> dict[str, str]:
    """Return what the papers call those exhibits that have a module."""
    from rkdkit import exhibits

    return {name: exhibits.get(name).paper for name in names if name in exhibits.NAMES}


def in_full(name: str, papers: Mapping[str, str]) -> str:
    """Return the exhibit that a name is short for, if there is just one; else the name itself.

    Parameters
    ----------
    name : "fig1" for the exhibit that begins with "fig1_"; what a paper calls it: "PeerAiD Figure 1", "rkd fig. 5";
        or a part of its name: "transfer".
    papers : what the papers call each exhibit, "PeerAiD, Tables 4 and 5", by its full name.
    """
    short = [full for full in papers if full.partition("_")[0] == name]
    wanted = places(name)
    if not short and wanted:
        short = [full for full, paper in papers.items() if wanted <= places(paper)]
    if not short and name:
        short = [full for full, paper in papers.items() if any(_words(name) in _words(text) for text in (full, paper))]
    return short[0] if len(short) == 1 else name


def exhibits_named(names: Iterable[str], others: Iterable[str] = ()) -> list[str]:
    """Return the exhibits that a command line names, in full.

    Parameters
    ----------
    names : as :func:`in_full`.
    others : exhibits that have no notebook here.

    Raises
    ------
    UnknownNameError
        If a name is none of an exhibit.
    """
    notebooks, names = _notebooks(), list(names)
    papers = dict.fromkeys([*notebooks, *others], "")
    if any(in_full(name, papers) not in papers for name in names):
        papers |= _papers(papers)
    try:
        return [checks.one_of("exhibit", in_full(name, papers), papers) for name in names]
    except checks.UnknownNameError as error:
        every = {place for paper in papers.values() for place in places(paper)}
        for name in names:
            if in_full(name, papers) not in papers:
                check_places(name, every)
        hint = "A figure or table is named with its paper, as in 'RKD Table 9'."
        raise checks.UnknownNameError(f"{error} {hint}") from None


def _words(text: str) -> str:
    return " ".join(re.findall("[a-z0-9]+", text.lower()))


def _value(text: str) -> object:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # whatever is no literal is a text
        return text
    return list(value) if isinstance(value, tuple) else value  # papermill writes no tuples


def parameters_for(notebook: Path, given: Mapping[str, object]) -> dict[str, object]:
    """Return parameters as a notebook takes them: fields of a profile that it does not name go into its `more`.

    Parameters
    ----------
    notebook : its parameters cell says which it names.
    given : by name.

    Raises
    ------
    UnknownNameError
        If one is neither the notebook's nor a field of a profile.
    """
    from papermill import inspect_notebook

    own, fields = list(inspect_notebook(notebook)), list[str]()
    if not set(own).issuperset(given):
        from rkdkit import setup

        fields = [name for name in setup.FIELDS if name not in own] if "more" in own else []
        for name in given:
            checks.one_of("parameter", name, [*own, *fields], setup.SYNONYMS)
    parameters = {name: value for name, value in given.items() if name in own}
    more = {name: value for name, value in given.items() if name in fields}
    said = parameters.get("more", {})
    if not isinstance(said, dict):
        raise ValueError(f"more takes fields of a profile, as in more={{'lr': 0.05}}, not {checks.shown(said)}.")
    if more:
        parameters["more"] = {**said, **more}
    return parameters


def _with_seeds(name: str, given: Mapping[str, object]) -> Mapping[str, object]:
    """Return parameters with an exhibit's own number of seeds in place of "committed"; without it if it takes none."""
    if given.get("n_seeds") != COMMITTED:
        return given
    from rkdkit import exhibits

    others = {each: value for each, value in given.items() if each != "n_seeds"}
    number = exhibits.committed_seeds(name)
    return others if number is None else {**others, "n_seeds": number}


def _asked(
    names: list[str] | None, profile: str, pairs: list[str] | None, *, draws: bool = False, called: str = ""
) -> tuple[dict[str, Path], dict[str, dict[str, object]]]:
    """Return notebooks and their parameters as a command line names them; leave with a message if there are no such.

    Parameters
    ----------
    names, profile, pairs : what the user gave.
    draws : whether exhibits are to be drawn, and so must be saved.
    called : what messages call an exhibit that the user did not name; "": its name.
    """
    known = _notebooks()
    given: dict[str, object] = {"profile": profile}
    try:
        if not known:
            raise ValueError(f"There are no exhibits in {paths.project_root() / 'notebooks'}: use a checkout.")
        for pair in pairs or ():
            name, equals, value = pair.partition("=")
            if not equals or not name.isidentifier():
                raise ValueError(f"--parameter takes NAME=VALUE, not {checks.shown(pair)}.")
            given[name] = _value(value)
        saved.take_formats(given)
        asked = exhibits_named(names) if names else list(known)
        profile = checks.one_of("profile", given["profile"], PROFILES)
        folder = paths.output_folder(profile, given.get("output_dir"))
        checks.folder("output_dir", folder, writable=draws)
        if given.get("output_dir"):  # a notebook is run in another working folder
            given["output_dir"] = str(folder)
        for variable, folder in paths.folders_of_environment().items():
            checks.folder(variable, folder)
            if os.environ.get(variable):  # likewise
                os.environ[variable] = str(folder.absolute())
        if any(name in os.environ for name in SPEED):
            from rkdkit import runtime

            runtime.current()  # refuses what the environment says wrongly
    except ValueError as error:
        sys.exit(str(error))
    parameters = {}
    for name in asked:
        try:
            parameters[name] = parameters_for(known[name], _with_seeds(name, given))
        except ValueError as error:
            sys.exit(f"{called or name}: {error}")
    return {name: known[name] for name in asked}, parameters


@app.command()
@endings.one_line_at_the_end("Nothing was written.")
def plan(
    names: _Names = None,
    profile: _Profile = "quick",
    parameter: _Parameter = None,
    calibration: Annotated[bool, typer.Option(help="Time a step of each kind on this machine.")] = True,
    tflops: Annotated[float | None, typer.Option(help="A GPU's sustained rate in bfloat16, in TFLOP/s.")] = None,
    tflops_float32: Annotated[float | None, typer.Option(help="Its sustained rate in float32, without TF32.")] = None,
    memory: Annotated[float | None, typer.Option(help="A device's, in GiB: say at which batch it ends.")] = None,
    _methods: cli_methods.File = "",
) -> None:
    """Say what exhibits need before anything is trained: runs, work, memory, time. Nothing is written."""
    from rich.console import Console

    from rkdkit import plan
    from rkdkit.plan.report import WIDTH

    wanted, parameters = _asked(names, profile, parameter)
    try:
        if tflops is None and tflops_float32 is not None:
            raise ValueError("--tflops-float32 goes with --tflops, the rate in bfloat16.")
        rates = None if tflops is None else plan.Rates(tflops, tflops_float32)
        size = plan.device_memory(memory)
    except ValueError as error:
        sys.exit(str(error))
    planner, notes = plan.Planner(), list[str]()
    for name, notebook in wanted.items():
        typer.echo(f"{name} ({parameters[name]['profile']})", err=True)
        try:
            notes += plan.ask(planner, notebook, parameters[name])
        except Exception as error:  # whatever the notebook raises, as when it is made
            sys.exit(f"\n{name}: {endings.in_words(type(error).__name__, str(error))}")
    try:
        counted = plan.count(planner, notes, calibrated=calibration, device_memory=size)
    except ValueError as error:  # an attack of which nobody said what it costs
        sys.exit(f"\n{error}")
    Console(width=WIDTH, highlight=False).print(counted.report(rates))


_Workers = Annotated[
    str, typer.Option(help="Worker processes of one thread each; 1: none; auto: what this machine and the work allow.")
]
_Scheduler = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler: its workers do the work (docs/scaling.md).")
]
_SchedulerFile = Annotated[str, typer.Option(metavar="FILE", help="In which a Dask scheduler wrote its address.")]


@app.command()
@endings.one_line_at_the_end(endings.KEPT)
def figures(
    names: _Names = None,
    profile: _Profile = "quick",
    parameter: _Parameter = None,
    workers: _Workers = "",
    scheduler: _Scheduler = "",
    scheduler_file: _SchedulerFile = "",
    _methods: cli_methods.File = "",
) -> None:
    """Make figures by running their notebooks; the executed notebooks are kept under executed/."""
    from rkdkit import drawing, outcome
    from rkdkit.workforce import Workforce, set_in_environment

    notebooks = notebooks_of(names, profile, parameter, draws=True)
    workforce = _workforce(workers, scheduler, scheduler_file)
    began, before, drawn = time.time(), outcome.saved(notebooks), list[drawing.Drawn]()
    done: making.Done | None = None
    if len(notebooks) > 1:
        typer.echo(f"{len(notebooks)} exhibits. Ctrl-C stops, nothing is lost.", err=True)
    if len(notebooks) > 1 and not workforce.alone:
        done = _do(notebooks, workforce, alone=False)
    # those that miss nothing are only drawn; the others do what they need, one after the other
    ready, rest = list[drawing.Notebook](), notebooks
    if done is not None:
        ready = [each for each in notebooks if each.name not in (*done.unfinished, *done.impossible)]
        rest = [each for each in notebooks if each.name in done.unfinished]
    together, apart = _apart(ready)
    only_draw = {**Workforce().variables, "OMP_NUM_THREADS": "1"}
    at_once = min(drawing.most_side_by_side(), len(together)) if len(together) > 1 else 1
    groups = ((together, at_once, only_draw), (apart, 1, only_draw), (rest, 1, workforce.variables))
    for group, number, variables in groups:
        with set_in_environment(variables):
            for each in drawing.draw_all(group, number):
                drawn.append(each)
                if not (each.error and len(notebooks) == 1):
                    typer.echo(each.error or f"{each.notebook.name}: done in {each.seconds:.0f} s", err=True)
    made = [each.notebook for each in drawn if not each.error]
    for line in outcome.told(made, before, began):
        typer.echo(line, err=True)
    failed = [each.name for each in notebooks if each not in made or outcome.is_broken(each, before)]
    if failed and len(notebooks) == 1:
        sys.exit(f"\n{drawn[0].error}")
    if failed:
        why = f"{done.failure}\n" if done is not None and done.failure else ""
        sys.exit(f"\n{why}Not made: {', '.join(failed)}.")


def _apart(notebooks: "list[drawing.Notebook]") -> "tuple[list[drawing.Notebook], list[drawing.Notebook]]":
    """Return the notebooks that may be run side by side, and those that measure times and must have the machine."""
    if len(notebooks) < 2:
        return notebooks, []
    from rkdkit import exhibits

    timing = {name for name in exhibits.NAMES if exhibits.get(name).times}
    together = [each for each in notebooks if each.name not in timing]
    return together, [each for each in notebooks if each.name in timing]


@app.command()
@endings.one_line_at_the_end(endings.KEPT)
def train(
    names: _Names = None,
    profile: _Profile = "quick",
    parameter: _Parameter = None,
    workers: _Workers = "",
    scheduler: _Scheduler = "",
    scheduler_file: _SchedulerFile = "",
    _methods: cli_methods.File = "",
) -> None:
    """Train and measure all that exhibits need, without drawing them.

    Started by torchrun, its processes share each training and each long measurement (docs/scaling.md).
    """
    from rkdkit.group.executor import among_processes

    with among_processes(workers, scheduler, scheduler_file) as together:
        notebooks = notebooks_of(names, profile, parameter, draws=False)
        done = _do(notebooks, together or _workforce(workers, scheduler, scheduler_file), alone=True)
        if done.failure:
            sys.exit(f"{done.failure}\nNot all is done for: {', '.join(done.impossible)}.")
        left = f" Left for the notebooks to do: {', '.join(done.unfinished)}." if done.unfinished else ""
        typer.echo(f"Done: {done.missing} tasks were not in the store.{left}", err=True)


def notebooks_of(
    names: list[str] | None, profile: str, pairs: list[str] | None, *, draws: bool, called: str = ""
) -> "list[drawing.Notebook]":
    """Return the exhibits that a command line names, with their parameters, all as :func:`_asked`."""
    from rkdkit import drawing, progress

    wanted, parameters = _asked(names, profile, pairs, draws=draws, called=called)
    os.environ[progress.TEXT_ONLY] = "1"
    return [drawing.Notebook(path, parameters[name]) for name, path in wanted.items()]


def _workforce(workers: str, scheduler: str, scheduler_file: str) -> "Workforce":
    """Return who does the work; leave with a message if the options cannot be, or if nobody answers."""
    from rkdkit.workforce import AUTO, Workforce, workforce_of_environment

    try:
        if workers or scheduler or scheduler_file:
            found = Workforce(workers, scheduler, scheduler_file)
        else:
            found = workforce_of_environment(AUTO)
    except ValueError as error:
        sys.exit(str(error))
    if found.remote:
        from rkdkit.cluster.connection import NoClusterError, remote_client

        try:
            with remote_client(found):
                pass
        except NoClusterError as error:
            sys.exit(str(error))
    return found


def _do(notebooks: "Sequence[drawing.Notebook]", who: "Workforce | cluster.Workers", *, alone: bool) -> "making.Done":
    """Do what exhibits need; leave with a message if that cannot be done at all."""
    from rkdkit import cluster, making
    from rkdkit.store import StoreError

    executor = who if isinstance(who, cluster.Workers) else cluster.Workers(who)
    try:
        return making.do_all(notebooks, executor, alone=alone)
    except (making.NotebookError, cluster.NoClusterError, cluster.WrongWorkerError, StoreError) as error:
        sys.exit(f"\n{error}")
    finally:
        executor.close()
