"""The command line: `rkdkit list`, `rkdkit methods`, `rkdkit plan` and `rkdkit figures`."""

import ast
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from traitlets.config import Config

from rkdkit import checks, paths

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Robust knowledge distillation, reproduced.")


# local sockets rather than TCP ports, where there are such: nobody else on the machine can listen in
_KERNEL = Config({"KernelManager": {"transport": "ipc"}} if os.name == "posix" else {})


def _notebooks() -> dict[str, Path]:
    found = {path.stem: path for path in (paths.project_root() / "notebooks").glob("*.ipynb")}
    # figures before tables, and 2 before 11
    return dict(sorted(found.items(), key=lambda item: [int(p) if p.isdigit() else p for p in _PARTS.split(item[0])]))


_PARTS = re.compile(r"(\d+)")


def _value(text: str) -> object:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value  # papermill writes no tuples


@app.command("list")
def list_exhibits() -> None:
    """List the exhibits, one notebook each, and what they ask."""
    for name, path in _notebooks().items():
        heading = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).partition("\n")[0]
        typer.echo(f"{name:<28}{heading.lstrip('# ')}")


@app.command("methods")
def methods_page() -> None:
    """Print the table of methods, as docs/methods.md has it."""
    from rkdkit.documentation import methods_page

    typer.echo(methods_page(), nl=False)


_Names = Annotated[
    list[str] | None, typer.Argument(help="Exhibits, as fig1_peer_vs_teacher or fig1; none: all of them.")
]
_Profile = Annotated[str, typer.Option(help="smoke, quick, small or paper.")]
_Parameter = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE, as in the notebook; repeatable.")
]


def _in_full(name: str, known: Iterable[str]) -> str:
    """Return the exhibit whose name begins with "fig1_" for "fig1", if there is just one; else the name itself."""
    alike = [full for full in known if full.partition("_")[0] == name]
    return alike[0] if len(alike) == 1 else name


def _asked(names: list[str] | None, profile: str, pairs: list[str] | None) -> tuple[dict[str, Path], dict[str, object]]:
    """Return the notebooks and parameters that a command line names; leave with a message if there are no such."""
    from rkdkit import profiles, runtime

    known = _notebooks()
    parameters: dict[str, object] = {"profile": profile}
    try:
        asked = [checks.one_of("exhibit", _in_full(name, known), known) for name in names or known]
        for pair in pairs or ():
            name, equals, value = pair.partition("=")
            if not equals or not name.isidentifier():
                raise ValueError(f"--parameter takes NAME=VALUE, not {pair!r}.")
            parameters[name] = _value(value)
        checks.one_of("profile", parameters["profile"], profiles.PROFILES)
        runtime.current()  # refuses what the environment says wrongly
    except ValueError as error:
        sys.exit(str(error))
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
    from rkdkit import planning

    wanted, parameters = _asked(names, profile, parameter)
    try:
        if tflops is None and tflops_float32 is not None:
            raise ValueError("--tflops-float32 goes with --tflops, the rate in bfloat16.")
        rates = None if tflops is None else planning.Rates(tflops, tflops_float32)
    except ValueError as error:
        sys.exit(str(error))
    with planning.planning() as asked:
        notes = []
        for name, notebook in wanted.items():
            typer.echo(f"{name} ({parameters['profile']})", err=True)
            try:
                notes += planning.ask(notebook, parameters)
            except Exception as error:  # whatever the notebook raises, as when it is made
                sys.exit(f"\n{name}: {type(error).__name__}: {error}")
        typer.echo(planning.plan(asked, list(dict.fromkeys(notes)), calibrated=calibration).report(rates))


@app.command()
def figures(names: _Names = None, profile: _Profile = "quick", parameter: _Parameter = None) -> None:
    """Make figures by running their notebooks; the executed notebooks are kept under executed/."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from rkdkit import profiles, progress

    wanted, parameters = _asked(names, profile, parameter)
    profile = str(parameters["profile"])
    os.environ[progress.TEXT_ONLY] = "1"
    began = time.time()
    for name, notebook in wanted.items():
        typer.echo(f"{name} ({profile})", err=True)
        output = paths.project_root() / "executed" / profile / f"{name}.ipynb"
        output.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        try:
            papermill.execute_notebook(
                notebook,
                output,
                parameters,
                cwd=paths.project_root(),
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                config=_KERNEL,
            )
        except KeyboardInterrupt:
            typer.echo(
                "\nStopped. What is trained is kept: the same command goes on after the last finished epoch.", err=True
            )
            sys.exit(130)
        except PapermillExecutionError as error:
            sys.exit(f"\n{name}: {error.ename}: {error.evalue}\n(the notebook as far as it ran: {output})")
        typer.echo(f"{name}: done in {time.perf_counter() - started:.0f} s", err=True)
    folder = profiles.output_folder(profile, parameters.get("output_dir"))
    typer.echo(_summary([folder / f"{name}.json" for name in wanted], began), err=True)


def _summary(files: Sequence[Path], began: float) -> str:
    """Say what a run of several exhibits came to; `began` is its `time.time()`."""
    from rkdkit import claims
    from rkdkit.store import Store

    exhibits = [json.loads(file.read_text()) for file in files]
    asked = [run["id"] for exhibit in exhibits for run in exhibit["provenance"]["runs"]]
    different, trained = set(asked), Store().trained_since(began)
    found = Counter(claim["verdict"] for exhibit in exhibits for claim in exhibit["claims"])
    return (
        f"Exhibits: {len(exhibits)}, in {(time.time() - began) / 60:.1f} minutes. Trained networks asked for: "
        f"{len(asked)}; different ones: {len(different)}; trained now: {len(different & trained)}. Claims: "
        + "; ".join(f"{verdict}: {found[verdict]}" for verdict in (claims.HOLDS, claims.FAILS, claims.OPEN))
        + "."
    )
