"""How many of N small mistakes, made one at a time, do the tests notice? `make mutants N=200 SEED=0`.

The mistakes are those of mutmut's operators: an argument left out or None, a number one higher, `+` for `-`, `<=` for
`<`, `and` for `or`, an assigned value None, a branch always taken. They are put anywhere in the modules, also where
mutmut itself does not go: in tables, defaults of dataclasses and decorated functions. Left out are annotations,
imports, decorators, `__all__` and what a text says: strings, and whatever stands in a `raise`. The sample is plain:
every mutant of every module is as likely as any other, and a larger N with the same SEED begins with the same mutants.

Measured is the commit that is checked out, in clones below `.mutants`, never the checkout itself. First all tests run
once under coverage, which tells who runs which line. Each mutant is then tried on the tests that run its statement,
the cheapest first, until one fails; a statement that runs while its module is imported is tried on all tests that run
anything of that module. Of these, no more than BUDGET seconds of processor time are chosen, and none of more than SLOW
(killed and resumed processes, whole notebooks): a mutant that only such a test would notice counts as not noticed, one
that makes the tests take three times as long and a minute more as noticed. The first time that a test notices a mutant,
it is run once more without it, after the same tests; if it fails there too, it is left out from then on.

A stopped measurement goes on where it was. Results are a JSON line each in `.mutants/COMMIT/sample-SEED.jsonl`;
`--report` prints what stands there and every mutant that was not noticed: with how many tests it was tried, and how
many run its statement.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from sampling import Mutant, sample
from selecting import Tests, stop

ROOT = Path(__file__).resolve().parents[2]
MODULES = "losses methods attacks evaluation statistics claims spec analysis figures exhibits"


def report(results: list[dict[str, Any]]) -> None:
    """Print the mutants that were not noticed, and the counts by module."""
    for result in results:
        if result["outcome"] in ("not noticed", "not run"):
            print(f"\n{result['outcome']} by {result['tests']} of {result['of']} tests that run it\n{result['diff']}")
    good = Counter(result["file"] for result in results if result["outcome"] in ("noticed", "time-out"))
    print()
    for file, count in sorted(Counter(result["file"] for result in results).items()):
        print(f"{file:45} {good[file]:4} of {count:4} noticed")
    print(f"{'all':45} {good.total():4} of {len(results):4}; {dict(Counter(r['outcome'] for r in results))}")


def main(
    n: Annotated[int, typer.Option(help="how many mutants")] = 200,
    seed: Annotated[int, typer.Option(help="which mutants")] = 0,
    root: Annotated[Path, typer.Option(help="the checkout whose commit is measured")] = ROOT,
    modules: Annotated[str, typer.Option(help="of rkdkit, packages too; it need not have all")] = MODULES,
    processes: Annotated[int, typer.Option(help="mutants that are tried side by side")] = 2,
    slow: Annotated[float, typer.Option(help="processor seconds from which on a test is left out")] = 20,
    budget: Annotated[float, typer.Option(help="processor seconds of tests for a mutant")] = 60,
    only_report: Annotated[bool, typer.Option("--report", help="print what was found so far")] = False,
) -> None:
    """Try the mutants that were not tried yet, then print what the tests noticed."""
    root = root.resolve()
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True).strip()
    folder = root / ".mutants" / commit[:12]
    copies = [folder / f"copy{i}" for i in range(processes)]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"sample-{seed}.jsonl"
    file.touch()
    done = [json.loads(line) for line in file.read_text().splitlines()]
    if only_report:
        return report(done)
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for copy in copies:
        if not copy.exists():
            subprocess.run(["git", "clone", "-q", str(root), str(copy)], check=True)
        subprocess.run(["git", "checkout", "-q", "--force", commit], cwd=copy, check=True)
        # by the source's hash: by size and second, two mutants could be taken for each other
        compiling = ["compileall", "-q", "--invalidation-mode", "checked-hash", "rkdkit"]
        subprocess.run([sys.executable, "-m", *compiling], cwd=copy, check=True)
    tests, trusted = Tests(folder, copies[0], processes, slow, budget), {result.get("by", "") for result in done}
    known, free = {result["diff"] for result in done}, queue.SimpleQueue[Path]()
    for copy in copies:
        free.put(copy)

    def try_one(mutant: Mutant) -> None:
        copy, start = free.get(), time.monotonic()
        chosen, able = tests.of(mutant.file, mutant.lines)
        found = tests.noticed(mutant, copy, chosen, trusted) if chosen else {"outcome": "not run"}
        free.put(copy)
        about = {"seconds": round(time.monotonic() - start, 1), "tests": len(chosen), "of": able}
        line = {"file": mutant.file, "diff": mutant.diff, **found, **about}
        done.append(line)
        with file.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(f"{len(done)}/{n} {found['outcome']:11} {about} {mutant.file}:{mutant.lines.start}", flush=True)

    mutants = sample(copies[0], modules, seed)
    todo = [mutant for mutant, _ in zip(mutants, range(n), strict=False) if mutant.diff not in known]
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(try_one, todo))
    return report(done)


if __name__ == "__main__":
    typer.run(main)
