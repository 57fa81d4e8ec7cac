"""The commands of `rkdkit runs`: look into the store, verify it, and free what nothing rests on. None needs torch."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rkdkit import endings
from rkdkit.origin import origin_of

if TYPE_CHECKING:
    from rkdkit.inventory.made import Made
    from rkdkit.inventory.prune import Prunable
    from rkdkit.inventory.stored import File, Inventory, StoredRun

app = typer.Typer(no_args_is_help=True, help="Look into the store of runs and answers, verify it, and free disk space.")

BLOCKS = "▁▂▃▄▅▆▇█"
"""What plots in text are made of, the lowest first."""

PLOT_WIDTH = 60
"""Characters of a plot at most; of more values, the means of neighbours are shown."""

SHOWN = 20
"""Lines of a listing that may be long; the rest is counted."""

LARGEST = 10
"""How many runs `du` names."""

_Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Runs, by the beginning of their ids.")]


@app.command("list")
def list_runs(
    exhibits: Annotated[
        list[str] | None, typer.Argument(help="Only the runs that these exhibits rest on, as in `rkdkit figures`.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Whose figures/<profile>/ is meant, with exhibits [quick].")] = "",
) -> None:
    """List runs: id, epochs trained, size on disk, time of the last epoch, device, and what they are."""
    from rkdkit.inventory import stored

    with _one_line_errors():
        if profile and not exhibits:
            raise ValueError("--profile says whose exhibits are meant: name some, as in `rkdkit runs list fig1`.")
        inventory = stored.take(answers=False)
        wanted = None if not exhibits else _runs_of(exhibits, profile or "quick")
    here: dict[str, list[StoredRun]] = {}
    for run in inventory.runs:
        here.setdefault(run.id, []).append(run)
    if wanted is None:
        runs = sorted(inventory.runs, key=lambda run: (run.title, run.time))
    else:
        runs = [run for run_id in wanted for run in here.get(run_id, [])]
    rows = [_row(run, inventory) for run in runs]
    missing = {} if wanted is None else {run_id: name for run_id, name in wanted.items() if run_id not in here}
    rows += [(run_id, "not in the store", "", "", "", name) for run_id, name in missing.items()]
    if rows:
        typer.echo(_table(("id", "epochs", "size", "last epoch", "trained by", "run"), rows))
    size = stored.as_size(sum(run.size for run in runs))
    damaged = sum(run.record is None for run in runs)
    unfinished = sum(not run.finished for run in runs) - damaged
    of_them = f"{unfinished} of them not finished" + (f", {damaged} without a usable record" if damaged else "")
    number = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    typer.echo(f"{number} in {inventory.root}, {of_them}: {size}. `rkdkit runs verify` checks the files.", err=True)


@app.command()
def show(run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id, or its beginning.")]) -> None:
    """Show a run: its specification, its loss over the epochs, its teachers, its snapshots, and who rests on it."""
    from rkdkit.inventory import made, stored

    with _one_line_errors():
        inventory = stored.take(answers=False)
        run = _found(run_id, inventory)
        exhibits, unreadable = made.made_exhibits()
    typer.echo(run.title)
    for name, value in _about(run, inventory):
        typer.echo(f"  {name:<14}{value}")
    if run.record is not None:
        typer.echo("specification")
        for name, value in run.record["spec"].items():
            if name != "teachers":
                typer.echo(f"  {name:<18}{value}".rstrip())
        for heading, lines in (("taught by", _guides(run, inventory)), ("trained with", _environments(run))):
            typer.echo("\n  ".join([heading, *(lines or ["nothing"])]))
    typer.echo("exhibits that rest on it")
    resting = [each for each in exhibits if run.id in each.runs]
    for each in resting:
        other = " (made with other weights than these)" if each.differs_from(run) else ""
        typer.echo(f"  {each.place}{other}")
    if not resting:
        typer.echo("  none")
    _say_unreadable(unreadable)


@app.command("verify")
@endings.one_line_at_the_end("Nothing was changed.")
def verify_runs(run_ids: _Ids = None) -> None:
    """Compare every file of the store with its digest; say what is damaged and what restores it."""
    from rkdkit import progress
    from rkdkit.inventory import made, stored, verify

    os.environ[progress.TEXT_ONLY] = "1"
    with _one_line_errors():
        inventory = stored.take()
        runs = None if not run_ids else [_found(each, inventory) for each in run_ids]
        exhibits, unreadable = made.made_exhibits()
        total = verify.bytes_to_read(inventory, runs)
        with progress.track(total=total, desc="Verifying", unit="B", unit_scale=True) as bar:
            found = verify.verify(inventory, exhibits, runs, bar.update)
    for damage in found.damage:
        typer.echo(f"{damage.path} {damage.what}. {damage.remedy}")
    for run, number in found.absent:
        origin = origin_of(run.folder)
        if origin:
            how = f"The run was fetched from {origin}, and these are fetched when they are needed (RKDKIT_MIRROR)."
        else:
            how = "If they are needed, delete the folder: the run is then trained again."
        typer.echo(f"{run.folder}: {number} snapshots{'' if origin else ' that no exhibit shows'} are not here. {how}")
    for file in found.foreign:
        typer.echo(f"{file.path} is not the store's, or is no regular file; it was not looked at.")
    _say_unreadable(unreadable)
    typer.echo(f"{found.files} files verified in {inventory.root}: {len(found.damage)} damaged or in a wrong place.")
    if found.damage:
        raise typer.Exit(1)


@app.command("prune")
@endings.one_line_at_the_end("What was freed is gone; the same command frees the rest.")
def prune_runs(
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Also snapshots of epochs that no exhibit shows, of runs that stay.")
    ] = False,
    keep_epochs: Annotated[
        str, typer.Option(metavar="EPOCHS", help="With --snapshots: also keep these epochs, as in 10,20,50.")
    ] = "",
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Exhibits in this folder count, too, besides figures/ and results/."),
    ] = None,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="Runs that were trained within so many days stay.")
    ] = 7.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is only said what would be freed.")] = False,
) -> None:
    """Free what no exhibit in figures/ and results/ rests on: runs, their answers, and what killed processes left.

    A run stays if an exhibit's JSON names it, if it taught such a run, if it is being trained now, or if it was
    trained within the last days. An older run whose exhibit is not made yet, or was saved elsewhere, does not stay.
    Whatever stays in figures/ and results/ can be made again without training; choosing epochs by another attack or on
    other images needs all snapshots.
    """
    from rkdkit.inventory import made, prune, stored

    folders = [*made.exhibit_folders(), *(also or ())]
    with _one_line_errors():
        epochs = _epochs(keep_epochs)
        if epochs and not snapshots:
            raise ValueError("--keep-epochs goes with --snapshots.")
        for folder in also or ():
            if not folder.is_dir():
                raise ValueError(f"--also: {folder} is not a folder.")
        exhibits, unreadable = made.made_exhibits(folders)
        where = " and ".join(map(str, folders))
        if unreadable:
            names = ", ".join(map(str, unreadable))
            raise ValueError(
                f"Nothing was freed, because it is not known what these rest on: {names}. Mend them first."
            )
        if not exhibits:
            raise ValueError(f"Nothing was freed: there is no exhibit in {where}, so every run would go.")
        inventory = stored.take()
        seconds = older_than * 24 * 3600
        found = prune.prunable(inventory, exhibits, snapshots=snapshots, keep_epochs=epochs, older_than=seconds)
        for line in _would_free(found, len(exhibits)):
            typer.echo(line)
        if not found.size and not found.runs and not found.all_leftovers:
            return
        if not yes:
            typer.echo("Nothing was deleted yet: --yes deletes it.")
            return
        freed, changed = prune.prune(inventory, found)
    for run in changed:
        typer.echo(f"Not touched, because it was trained or changed meanwhile, or cannot be locked: {run.folder}")
    typer.echo(f"Freed {stored.as_size(freed)}.")


@app.command()
def du() -> None:
    """Say how much disk space the store takes, by kind of file, and which runs are the largest."""
    from rkdkit.inventory import stored

    with _one_line_errors():
        inventory = stored.take()
    sizes, numbers = Counter[str](), Counter[str]()
    for file in inventory.files:
        sizes[file.kind] += file.size
        numbers[file.kind] += 1
    rows = [(kind, f"{numbers[kind]:,}", stored.as_size(sizes[kind])) for kind in stored.KINDS if numbers[kind]]
    rows += [("all", f"{numbers.total():,}", stored.as_size(sizes.total()))]
    typer.echo(f"{inventory.root}\n{_table(('kind', 'files', 'size'), rows, right=(1, 2))}")
    largest = sorted(inventory.runs, key=lambda run: run.size, reverse=True)[:LARGEST]
    if largest:
        typer.echo("\nThe largest runs:")
        typer.echo(_table(("size", "id", "run"), [(stored.as_size(run.size), run.id, run.title) for run in largest]))


def plot(values: Sequence[float], width: int = PLOT_WIDTH) -> str:
    """Return values as a line of block characters, the lowest value as the lowest block.

    Parameters
    ----------
    values : finite numbers.
    width : characters at most; of more values, the means of neighbours are shown.
    """
    n = min(width, len(values))
    parts = [values[len(values) * i // n : len(values) * (i + 1) // n] for i in range(n)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def _row(run: "StoredRun", inventory: "Inventory") -> tuple[str, ...]:
    from rkdkit.inventory.stored import as_size

    busy = ", at work" if not run.finished and inventory.is_trained_now(run) else ""
    return (run.id, run.progress + busy, as_size(run.size), _moment(run.time), " and ".join(run.devices), run.title)


def _about(run: "StoredRun", inventory: "Inventory") -> Iterator[tuple[str, str]]:
    """Yield what is to be said of a run in a line each: a name, and what it is."""
    from rkdkit.inventory.stored import FOREIGN, SNAPSHOT, as_size

    yield "id", run.id
    yield "folder", str(run.folder)
    yield "size", as_size(run.size)
    if foreign := [file.name for file in run.files if file.kind == FOREIGN]:
        yield "not the store's", ", ".join(foreign)
    if run.record is None:
        yield "cannot be used", f"  run.json {run.problem}. `rkdkit runs verify {run.id}` says what restores the run."
        return
    history = run.record["history"]
    seconds = sum(epoch["seconds"] for epoch in history)
    busy = ", being trained now" if inventory.is_trained_now(run) else ""
    yield "trained", f"{run.progress}{busy}, {seconds:,.0f} s, the last epoch at {_moment(run.time)}"
    if history:
        losses = [float(epoch["loss"]) for epoch in history]
        yield "loss", f"{losses[0]:.4g} {plot(losses)} {losses[-1]:.4g} (epochs 1 to {len(losses)})"
    present = {file.name for file in run.files if file.kind == SNAPSHOT}
    by_role: dict[str, list[int]] = {}
    for role, epoch, _ in run.snapshots:
        by_role.setdefault(role, []).append(epoch)
    for role, epochs in by_role.items():
        gone = [epoch for epoch in epochs if run.snapshot_file(role, epoch) not in present]
        away = f"; not here: {_ranges(gone)}" if gone else ""
        yield "snapshots", f"{role} at epochs {_ranges(epochs)}{away}"


def _guides(run: "StoredRun", inventory: "Inventory") -> list[str]:
    """Return a line for each fixed teacher: what it is, its run's id, its digest."""
    from rkdkit.inventory.stored import teacher_title

    assert run.record is not None
    lines = []
    guides = inventory.guides_of(run.record["spec"])
    taught_by = [*run.record["guided_by"], *[""] * len(guides)]
    for (teacher, runs), digest in zip(guides, taught_by, strict=False):
        ids = " or ".join(each.id for each in runs) or ("not in the store" if teacher["run"] else "a foreign module")
        lines.append(f"{teacher_title(teacher)} ({teacher['role']}; {ids}), weights {digest[:16] or 'not said'}")
    return lines


def _environments(run: "StoredRun") -> list[str]:
    assert run.record is not None
    return [", ".join(f"{name} {value}" for name, value in each.items()) for each in run.record["environments"]]


def _would_free(found: "Prunable", exhibits: int) -> Iterator[str]:
    """Yield what would be freed, a line each."""
    from rkdkit.inventory.stored import as_size

    stay = f"{len(found.kept)} runs stay, because one of {exhibits} exhibits rests on them"
    yield f"{stay}, because they are being trained now ({len(found.busy)}), or because they are young (--older-than)."
    yield f"To be freed: {as_size(found.size)}"
    yield _freed(sum(run.size for run in found.runs), len(found.runs), "runs that no exhibit rests on")
    for run in found.runs[:SHOWN]:
        yield f"    {run.id}  {run.progress}, {as_size(run.size)}, {_moment(run.time) or 'no time'}: {run.title}"
    if len(found.runs) > SHOWN:
        yield f"    and {len(found.runs) - SHOWN} others"
    yield _freed_files(found.answers, "answers about their networks, or about networks that are gone")
    yield _freed_files(found.snapshots, "snapshots of runs that stay, of epochs that no exhibit shows")
    leftovers = Counter(file.kind for file in found.all_leftovers)
    named = ": " + ", ".join(f"{number} {kind}" for kind, number in leftovers.items()) if leftovers else ""
    yield _freed_files(found.all_leftovers, f"files that were left behind{named}")


def _freed_files(files: Sequence["File"], what: str) -> str:
    return _freed(sum(file.size for file in files), len(files), what)


def _freed(size: int, number: int, what: str) -> str:
    from rkdkit.inventory.stored import as_size

    return f"  {as_size(size):>8}  {number:,} {what}"


def _runs_of(names: Sequence[str], profile: str) -> dict[str, str]:
    """Return what the runs are called that exhibits of a profile rest on, by id.

    Raises
    ------
    ValueError
        If there is no such exhibit, or it was not made yet.
    """
    from rkdkit import checks, cli, paths
    from rkdkit.inventory import made

    checks.one_of("profile", profile, cli.PROFILES)
    folder = paths.output_folder(profile)
    there: dict[str, Made] = {each.name: each for each in made.made_exhibits([folder])[0] if each.path.parent == folder}
    found: dict[str, str] = {}
    for name in cli.exhibits_named(names, there):
        if name not in there:
            how = f"make it with `rkdkit figures {name} --profile {profile}`"
            raise ValueError(f"{folder / name}.json is not there, or cannot be read: {how}.")
        found |= there[name].runs
    return found


def _found(beginning: str, inventory: "Inventory") -> "StoredRun":
    """Return the run whose id begins so; its folder's name is as good.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    runs = [run for run in inventory.runs if beginning == run.folder.name]
    runs = runs or [run for run in inventory.runs if beginning and run.id.startswith(beginning)]
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise ValueError(
            f"No run in {inventory.root} has an id that begins with {beginning[:40]!r}; `rkdkit runs list` lists them."
        )
    lines = [f"  {run.id}  {run.folder.name}" for run in runs[:SHOWN]]
    lines += [f"  and {len(runs) - SHOWN} others"] if len(runs) > SHOWN else []
    raise ValueError("\n".join([f"{len(runs)} runs have an id that begins with {beginning!r}:", *lines]))


def _epochs(text: str) -> set[int]:
    """Return the epochs of "10,20,50"."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 and int(part) for part in parts):
        raise ValueError(f"--keep-epochs takes epochs, counted from 1, as in 10,20,50, not {text!r}.")
    return {int(part) for part in parts}


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers in words: "1 to 3, 7"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in spans)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows as aligned columns; the last column is not cut. By `rich`, 2,000 rows would take seconds."""
    lines = [heading, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _say_unreadable(files: Sequence[Any]) -> None:
    for file in files:
        typer.echo(f"{file} cannot be read as the JSON of an exhibit, so it is not known what it rests on.", err=True)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Leave with a message where a name is not known or a file cannot be read."""
    try:
        yield
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename or 'The store'}: {error.strerror or error}.")
