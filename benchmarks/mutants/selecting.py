"""Which tests can notice a change of a line, measured by coverage, and what comes out when they are run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage
from sampling import Mutant

HERE = Path(__file__).resolve().parent
COVERAGE = """[run]
core = ctrace
parallel = true
context = ${{MUTANTS_CONTEXT-}}
source = {copy}/rkdkit
data_file = {folder}/coverage/data
"""
_running: set[subprocess.Popen] = set()


def run(copy: Path, limit: float, *arguments: str, **environment: str) -> tuple[int | None, str]:
    """Run pytest in a clone, one thread; return its exit status (None: killed at `limit` seconds) and output."""
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)  # what another mutant made fail
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "mutants_plugin", "--hypothesis-seed=0"]
    ours = {"PYTHONPATH": f"{copy}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [*command, "-o", "tmp_path_retention_policy=none", *arguments],
        cwd=copy, env={**os.environ, **ours, **environment}, start_new_session=True, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    _running.add(process)
    try:
        said = process.communicate(timeout=limit)[0]
        return process.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]
    finally:
        _running.discard(process)


def stop(*_: object) -> None:
    """End with all tests that are under way; their mutants are tried anew next time."""
    for process in list(_running):
        os.killpg(process.pid, signal.SIGKILL)
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
            _, said = run(
                copy, 7200, "-n", str(processes),
                MUTANTS_MEASURED=f"{folder}/tests.json", COVERAGE_PROCESS_START=f"{folder}/coveragerc",
            )  # fmt: skip
            print(said)
            combined = coverage.Coverage(config_file=str(folder / "coveragerc"))
            combined.combine([str(folder / "coverage")])
            data = combined.get_data()
            lines = {str(Path(name).relative_to(copy)): data.contexts_by_lineno(name) for name in data.measured_files()}
            tests = json.loads((folder / "tests.json").read_text())
            file.write_text(json.dumps({"tests": tests, "lines": lines}))
        measured = json.loads(file.read_text())
        self.all, self.lines = measured["tests"], measured["lines"]
        failed = sorted(name for name, test in self.all.items() if test["failed"])
        self.usable = {n for n, t in self.all.items() if t["passed"] and not t["failed"] and t["seconds"] <= slow}
        slower = sorted(name for name, test in self.all.items() if test["passed"] and test["seconds"] > slow)
        print(f"{len(self.all)} tests. Left out: failing {failed}; of more than {slow:g} s {slower}")

    def named(self, contexts: set[str]) -> set[str]:
        """Return the usable tests that coverage's contexts stand for."""
        shared = [re.fullmatch(r"fixture (.+?) of (.*)", context) for context in contexts]
        pairs = {match.groups() for match in shared if match}
        users = {n for name, base in pairs for n, t in self.all.items() if name in t["fixtures"] and n.startswith(base)}
        return (contexts | users) & self.usable

    def of(self, file: str, lines: range) -> list[str]:
        """Return the tests that can notice a change of these lines, the likely and cheap ones first."""
        contexts = {context for line in lines for context in self.lines.get(file, {}).get(str(line), [])}
        tests = self.named(contexts)
        if "" in contexts:  # it runs on import
            tests |= self.named({context for line in self.lines[file].values() for context in line}) or self.usable
        name = Path(file).stem
        seconds = {test: self.all[test]["seconds"] for test in tests}
        chosen, spent = [], 0.0
        for test in sorted(tests, key=lambda t: (seconds[t] > 3, name not in t.split("::")[0], seconds[t], t)):
            if spent + seconds[test] <= self.budget:
                chosen, spent = [*chosen, test], spent + seconds[test]
        return chosen

    def noticed(self, mutant: Mutant, copy: Path, chosen: list[str], trusted: set[str]) -> dict[str, Any]:
        """Try one mutant on the chosen tests; return what came out and who noticed it."""
        (copy / mutant.file).write_text(mutant.text)
        list_of_tests = copy.parent / f"{copy.name}-chosen.txt"
        list_of_tests.write_text("\n".join(chosen))
        limit = 60 + 3 * sum(self.all[test]["seconds"] for test in chosen)
        arguments = ["-x", *dict.fromkeys(test.split("::")[0] for test in chosen)]
        status, said = run(copy, limit, *arguments, MUTANTS_CHOSEN=str(list_of_tests))
        subprocess.run(["git", "checkout", "-q", "--", "."], cwd=copy, check=True)
        failures = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
        test = failures[-1] if failures else ""
        if status in (0, 5):  # 5: the mutant left no test to run
            return {"outcome": "not noticed"}
        if test in chosen and test not in trusted:
            list_of_tests.write_text("\n".join(chosen[: chosen.index(test) + 1]))
            if run(copy, limit, *arguments, MUTANTS_CHOSEN=str(list_of_tests))[0] != 0:
                self.usable.discard(test)
                return self.noticed(mutant, copy, [other for other in chosen if other != test], trusted)
            trusted.add(test)
        return {"outcome": "time-out" if status is None else "noticed", "by": test or said[-300:]}
