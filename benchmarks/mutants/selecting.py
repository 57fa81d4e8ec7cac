"""Which tests can notice a change of a line, measured by coverage, and what comes out when they are run."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import coverage
from mutants_plugin import run_pytest
from sampling import Mutant

HERE = Path(__file__).resolve().parent
COVERAGE = """[run]
core = ctrace
parallel = true
context = ${{MUTANTS_CONTEXT-}}
source = {copy}/rkdkit
data_file = {folder}/coverage/data
"""
PYTEST = ["-pno:cacheprovider", "-pmutants_plugin", "--hypothesis-seed=0"]
# a process that has imported these forks for each mutant: they take longer than most tests
LIBRARIES = "torch torch._dynamo torchvision pandas matplotlib.pyplot seaborn scipy.stats sklearn.manifold hypothesis"
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["mutants_plugin", *LIBRARIES.split()])
_running: set[int] = set()


def environment(copy: Path) -> dict[str, str]:
    """Return what a process needs to import the clone's package, on one thread, in an empty folder for the tests."""
    temporary = Path(tempfile.gettempdir(), f"mutants-{copy.parent.name}-{copy.name}")
    for leftovers in (temporary, copy / ".hypothesis"):  # of other mutants
        shutil.rmtree(leftovers, ignore_errors=True)
    temporary.mkdir(exist_ok=True)
    path = {"PYTHONPATH": f"{copy}{os.pathsep}{HERE}", "PYTEST_DEBUG_TEMPROOT": str(temporary)}
    compiled = {"TORCHINDUCTOR_CACHE_DIR": f"{copy}-compiled"}  # a killed test may leave half a file in it
    without_browser = {"RKDKIT_CHROMIUM": ""}  # these tests take long, and few of the package's lines are theirs alone
    return {**path, **compiled, **without_browser, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(copy: Path, limit: float, *arguments: str, chosen: list[str]) -> tuple[int | None, str]:
    """Run tests in a clone; return pytest's exit status (None: killed after `limit` seconds) and its output."""
    list_of_tests, output = (copy.parent / f"{copy.name}-{name}.txt" for name in ("chosen", "output"))
    list_of_tests.write_text("\n".join(chosen))
    variables = environment(copy) | {"MUTANTS_CHOSEN": str(list_of_tests)}
    process = _processes.Process(target=run_pytest, args=(copy, [*PYTEST, *arguments], variables, output))
    process.start()
    assert process.pid
    _running.add(process.pid)
    process.join(limit)
    status = process.exitcode
    with contextlib.suppress(ProcessLookupError):  # what it started and left, and itself where it takes too long
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    _running.discard(process.pid)
    return status, output.read_text(errors="replace")


def stop(*_: object) -> None:
    """End with all tests that are under way; their mutants are tried anew next time."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    os._exit(1)


class Tests:
    """The tests of a commit: their seconds, and which of them run a line."""

    def __init__(self, folder: Path, copy: Path, processes: int, slow: float, budget: float) -> None:
        """Measure them, or read what was measured."""
        self.budget, file = budget, folder / "measured.json"
        if not file.exists():
            (folder / "coveragerc").write_text(COVERAGE.format(copy=copy, folder=folder))
            shutil.rmtree(folder / "coverage", ignore_errors=True)
            (folder / "coverage").mkdir()
            noting = {"MUTANTS_MEASURED": f"{folder}/tests.json", "COVERAGE_PROCESS_START": f"{folder}/coveragerc"}
            command = [sys.executable, "-m", "pytest", *PYTEST, "-n", str(processes)]
            variables = {**os.environ, **environment(copy), **noting}
            process = subprocess.Popen(command, cwd=copy, env=variables, start_new_session=True)
            _running.add(process.pid)
            process.wait()
            _running.discard(process.pid)
            combined = coverage.Coverage(config_file=str(folder / "coveragerc"))
            combined.combine([str(folder / "coverage")])
            data = combined.get_data()
            lines = {str(Path(name).relative_to(copy)): data.contexts_by_lineno(name) for name in data.measured_files()}
            tests = json.loads((folder / "tests.json").read_text())
            file.write_text(json.dumps({"tests": tests, "lines": lines}))
        measured = json.loads(file.read_text())
        self.all, self.lines = measured["tests"], measured["lines"]
        shared = {name: seconds for test in self.all.values() for name, seconds in test["shared"]}
        self.needed = {test: {f: shared[f] for f in shared if self._needs(test, f)} for test in self.all}
        passed = {name for name, test in self.all.items() if test["passed"] and not test["failed"]}
        slower = {name for name in passed if self.seconds(name) > slow}
        self.usable = passed - slower
        failed = sorted(name for name, test in self.all.items() if test["failed"])
        print(f"{len(self.all)} tests. Left out: failing {failed}; of more than {slow:g} s {sorted(slower)}")

    def _needs(self, test: str, fixture: str) -> bool:
        _, name, _, base = fixture.split(" ", 3)
        return name in self.all[test]["fixtures"] and test.startswith(base)

    def seconds(self, test: str, ready: Collection[str] = ()) -> float:
        """Return a test's processor time with that of the shared fixtures that are not ready."""
        needed = sum(seconds for fixture, seconds in self.needed[test].items() if fixture not in ready)
        return float(self.all[test]["seconds"] + needed)

    def named(self, contexts: set[str]) -> set[str]:
        """Return the usable tests that coverage's contexts, tests and shared fixtures, stand for."""
        return {test for test in self.usable if test in contexts or not contexts.isdisjoint(self.needed[test])}

    def of(self, file: str, lines: range) -> tuple[list[str], int]:
        """Return the tests to try on a change of these lines, likely and cheap ones first, and how many run them."""
        contexts = {context for line in lines for context in self.lines.get(file, {}).get(str(line), [])}
        tests = self.named(contexts)
        if "" in contexts:  # it runs on import: whatever runs anything of its module, or of its package, may notice
            folder = str(Path(file).parent)
            beside = [f for f in self.lines if f == file or (folder != "rkdkit" and str(Path(f).parent) == folder)]
            tests |= self.named({c for f in beside for line in self.lines[f].values() for c in line}) or self.usable
        chosen, ready, spent = [], set[str](), 0.0
        alone = {test: self.seconds(test) for test in tests}
        for test in sorted(tests, key=lambda t: (alone[t] > 3, Path(file).stem not in t.split("::")[0], alone[t], t)):
            if spent + (more := self.seconds(test, ready)) <= self.budget:
                chosen, ready, spent = [*chosen, test], ready | self.needed[test].keys(), spent + more
        return chosen, len(tests)

    def noticed(self, mutant: Mutant, copy: Path, chosen: list[str], trusted: set[str]) -> dict[str, Any]:
        """Try one mutant on the chosen tests; return what came out and who noticed it."""
        (copy / mutant.file).write_text(mutant.text)
        shared = {fixture: seconds for test in chosen for fixture, seconds in self.needed[test].items()}
        limit = 60 + 3 * (sum(self.all[test]["clock"] for test in chosen) + sum(shared.values()))
        arguments = ["-x", *dict.fromkeys(test.split("::")[0] for test in chosen)]
        status, said = run(copy, limit, *arguments, chosen=chosen)
        subprocess.run(["git", "checkout", "-q", "--", "."], cwd=copy, check=True)
        failures = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
        test = failures[-1] if failures else ""
        if status in (0, 5):  # 5: the mutant left no test to run
            return {"outcome": "not noticed"}
        if test in chosen and test not in trusted:
            if run(copy, limit, *arguments, chosen=chosen[: chosen.index(test) + 1])[0] != 0:
                print(f"{test} fails without the mutant, too: left out")
                self.usable.discard(test)
                return self.noticed(mutant, copy, [other for other in chosen if other != test], trusted)
            trusted.add(test)
        return {"outcome": "time-out" if status is None else "noticed", "by": test or said[-300:]}
