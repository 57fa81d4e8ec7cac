"""The command line: `rkdkit list`, `rkdkit methods`, `rkdkit plan`, `rkdkit train`, `rkdkit figures` and `rkdkit push`.

Each command imports what it needs. `rkdkit figures` of a single exhibit imports neither torch nor Dask: its notebook
does, in a process of its own.
"""

import ast
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rkdkit import checks, cli_push, paths
from rkdkit.origin import origin_of
from rkdkit.papers.places import places

if TYPE_CHECKING:
    from rkdkit import drawing, making
    from rkdkit.workforce import Workforce

# jsonschema, which papermill imports, would take a second to build a parser of internationalised addresses if it found
# this optional package; notebooks have no such addresses
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Robust knowledge distillation, reproduced.")
app.command()(cli_push.push)


_PARTS = re.compile(r"(\d+)")

PROFILES = ("smoke", "quick", "small", "paper")
"""The names of `profiles.PROFILES`, which need torch."""

SPEED = ("RKDKIT_COMPILE", "RKDKIT_EVALUATION_BATCH")
"""The variables that `runtime.current` reads and checks, which needs torch."""


def _notebooks() -> dict[str, Path]:
    found = {path.stem: path for path in (paths.project_root() / "notebooks").glob("*.ipynb")}
    # figures before tables, and 2 before 11
    return dict(sorted(found.items(), key=lambda item: [int(p) if p.isdigit() else p for p in _PARTS.split(item[0])]))


@app.command("list")
def list_exhibits() -> None:
    """List the exhibits, one notebook each: name, what the paper calls it, and what it asks."""
    from rich.console import Console
    from rich.table import Table

    table = Table("exhibit", "in the paper", "what it asks", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[0].no_wrap = True
    papers = _papers(_notebooks())
    for name, path in _notebooks().items():
        heading = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).partition("\n")[0]
        table.add_row(name, papers.get(name, ""), heading.lstrip("# "))
    Console(width=120, highlight=False, markup=False).print(table)


@app.command("methods")
def methods_page() -> None:
    """Print the table of methods, as docs/methods.md has it."""
    from rkdkit.documentation import methods_page

    typer.echo(methods_page(), nl=False)


_Names = Annotated[
    list[str] | None,
    typer.Argument(help="Exhibits, as fig1, teacher_arch or 'PeerAiD Figure 1'; none: all of them."),
]
_Profile = Annotated[str, typer.Option(help=f"{', '.join(PROFILES[:-1])} or {PROFILES[-1]}.")]
_Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="NAME=VALUE: of the notebook, or any field of a profile; repeatable."),
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


def _words(text: str) -> str:
    return " ".join(re.findall("[a-z0-9]+", text.lower()))


def _value(text: str) -> object:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
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
            checks.one_of("parameter", name, [*own, *fields])
    parameters = {name: value for name, value in given.items() if name in own}
    more = {name: value for name, value in given.items() if name in fields}
    said = parameters.get("more", {})
    if not isinstance(said, dict):
        raise ValueError(f"more takes fields of a profile, as in more={{'lr': 0.05}}, not {said!r}.")
    if more:
        parameters["more"] = {**said, **more}
    return parameters


def _asked(
    names: list[str] | None, profile: str, pairs: list[str] | None
) -> tuple[dict[str, Path], dict[str, dict[str, object]]]:
    """Return notebooks and their parameters as a command line names them; leave with a message if there are no such."""
    known = _notebooks()
    given: dict[str, object] = {"profile": profile}
    try:
        papers = dict.fromkeys(known, "")
        if any(in_full(name, papers) not in known for name in names or ()):
            papers |= _papers(known)
        asked = [checks.one_of("exhibit", in_full(name, papers), known) for name in names or known]
        for pair in pairs or ():
            name, equals, value = pair.partition("=")
            if not equals or not name.isidentifier():
                raise ValueError(f"--parameter takes NAME=VALUE, not {pair!r}.")
            given[name] = _value(value)
        checks.one_of("profile", given["profile"], PROFILES)
        if any(name in os.environ for name in SPEED):
            from rkdkit import runtime

            runtime.current()  # refuses what the environment says wrongly
    except ValueError as error:
        sys.exit(str(error))
    parameters = {}
    for name in asked:
        try:
            parameters[name] = parameters_for(known[name], given)
        except ValueError as error:
            sys.exit(f"{name}: {error}")
    return {name: known[name] for name in asked}, parameters


@app.command()
def plan(
    names: _Names = None,
    profile: _Profile = "quick",
    parameter: _Parameter = None,
    calibration: Annotated[bool, typer.Option(help="Time a step of each kind on this machine.")] = True,
    tflops: Annotated[float | None, typer.Option(help="A GPU's sustained rate in bfloat16, in TFLOP/s.")] = None,
    tflops_float32: Annotated[float | None, typer.Option(help="Its sustained rate in float32, without TF32.")] = None,
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
    except ValueError as error:
        sys.exit(str(error))
    planner, notes = plan.Planner(), list[str]()
    for name, notebook in wanted.items():
        typer.echo(f"{name} ({parameters[name]['profile']})", err=True)
        try:
            notes += plan.ask(planner, notebook, parameters[name])
        except Exception as error:  # whatever the notebook raises, as when it is made
            sys.exit(f"\n{name}: {type(error).__name__}: {error}")
    try:
        counted = plan.count(planner, notes, calibrated=calibration)
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
def figures(
    names: _Names = None,
    profile: _Profile = "quick",
    parameter: _Parameter = None,
    workers: _Workers = "",
    scheduler: _Scheduler = "",
    scheduler_file: _SchedulerFile = "",
) -> None:
    """Make figures by running their notebooks; the executed notebooks are kept under executed/."""
    from rkdkit import drawing
    from rkdkit.workforce import Workforce

    notebooks = notebooks_of(names, profile, parameter)
    workforce = _workforce(workers, scheduler, scheduler_file)
    began, drawn = time.time(), list[drawing.Drawn]()
    done: making.Done | None = None
    with _interruptible():
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
            with _environment(variables):
                for each in drawing.draw_all(group, number):
                    drawn.append(each)
                    typer.echo(each.error or f"{each.notebook.name}: done in {each.seconds:.0f} s", err=True)
    made = []
    for each in drawn:
        if not each.error:
            given = each.notebook.parameters
            folder = None if given.get("output_dir") is None else str(given["output_dir"])
            made.append(paths.output_folder(str(given["profile"]), folder) / f"{each.notebook.name}.json")
    if made:
        typer.echo(_summary(made, began), err=True)
    failed = [each.name for each in notebooks if each.name not in {file.stem for file in made}]
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
def train(
    names: _Names = None,
    profile: _Profile = "quick",
    parameter: _Parameter = None,
    workers: _Workers = "",
    scheduler: _Scheduler = "",
    scheduler_file: _SchedulerFile = "",
) -> None:
    """Train and measure all that exhibits need, without drawing them."""
    notebooks = notebooks_of(names, profile, parameter)
    with _interruptible():
        done = _do(notebooks, _workforce(workers, scheduler, scheduler_file), alone=True)
    if done.failure:
        sys.exit(f"{done.failure}\nNot all is done for: {', '.join(done.impossible)}.")
    left = f" Left for the notebooks to do: {', '.join(done.unfinished)}." if done.unfinished else ""
    typer.echo(f"Done: {done.missing} tasks were not in the store.{left}", err=True)


def notebooks_of(names: list[str] | None, profile: str, pairs: list[str] | None) -> "list[drawing.Notebook]":
    """Return the exhibits that a command line names, with their parameters."""
    from rkdkit import drawing, progress

    wanted, parameters = _asked(names, profile, pairs)
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


def _do(notebooks: "Sequence[drawing.Notebook]", workforce: "Workforce", *, alone: bool) -> "making.Done":
    """Do what exhibits need; leave with a message if that cannot be done at all."""
    from rkdkit import cluster, making
    from rkdkit.store import StoreError

    executor = cluster.Workers(workforce)
    try:
        return making.do_all(notebooks, executor, alone=alone)
    except (making.NotebookError, cluster.NoClusterError, cluster.WrongWorkerError, StoreError) as error:
        sys.exit(f"\n{error}")
    finally:
        executor.close()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within a ``with`` block, for the processes that it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            "\nStopped. What is trained is kept: the same command goes on after the last finished epoch.", err=True
        )
        sys.exit(130)


def _summary(files: Sequence[Path], began: float) -> str:
    """Say what a run of several exhibits came to; `began` is its `time.time()`."""
    from rkdkit import claims

    exhibits = [json.loads(file.read_text()) for file in files]
    asked = [run["id"] for exhibit in exhibits for run in exhibit["provenance"]["runs"]]
    different, trained = set(asked), _trained_since(began)
    found = Counter(claim["verdict"] for exhibit in exhibits for claim in exhibit["claims"])
    return (
        f"Exhibits: {len(exhibits)}, in {(time.time() - began) / 60:.1f} minutes. Trained networks asked for: "
        f"{len(asked)}; different ones: {len(different)}; trained now: {len(different & trained)}. Claims: "
        + "; ".join(f"{verdict}: {found[verdict]}" for verdict in (claims.HOLDS, claims.FAILS, claims.OPEN))
        + "."
    )


def _trained_since(moment: float) -> set[str]:
    """Return the ids of the runs that were trained here at or after a moment, given as by `time.time()`."""
    records = (paths.store_folder() / "runs").glob("*/run.json")
    new = [record.parent for record in records if record.stat().st_mtime >= moment]
    return {folder.name.rpartition("-")[2] for folder in new if origin_of(folder) is None}
