"""pytest's side of `benchmarks/mutants`: note which test runs which line, or run chosen tests in a given order.

`MUTANTS_MEASURED` names the file to write each test's seconds, outcome and shared fixtures to; lines are coverage's
matter. `MUTANTS_CHOSEN` names a file with one test a line: only these are run, in this order.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEMORY = 8 << 30  # bytes a process may hold: a mutant that asks for everything must not take the machine with it
_measured: dict[str, dict] = {}
_clock = {"start": 0.0, "shared": 0.0}


def run_pytest(copy: Path, arguments: list[str], environment: dict[str, str], output: Path) -> None:
    """Run pytest in a clone and end this process, which is a new one that has the big libraries already."""
    os.setsid()
    os.chdir(copy)
    os.environ.update(environment)
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        status = pytest.main(arguments)
        sys.stdout.flush()
        os._exit(status)


def pytest_configure() -> None:
    """Limit the memory of this process and of those that it starts."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def _note(context: str) -> None:
    import coverage

    os.environ["MUTANTS_CONTEXT"] = context  # for processes that are started meanwhile
    if running := coverage.Coverage.current():
        if sys.gettrace() is None:  # a test, or what it called, took the tracer away for good
            running.stop()
            running.start()
        running.switch_context(context)


@contextmanager
def _noted_as(context: str) -> Iterator[None]:
    """Let coverage note lines under this name."""
    before = os.environ.get("MUTANTS_CONTEXT", "")
    _note(context)
    try:
        yield
    finally:
        _note(before)


def _seconds() -> float:
    """Processor time, of ended children too: unlike the clock's, it does not depend on what else the machine does."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note lines under the name of the test."""
    if "MUTANTS_MEASURED" not in os.environ:
        return (yield)
    _clock.update(start=_seconds(), shared=0.0)
    with _noted_as(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Iterator[None]:
    """Note the lines of a fixture that tests share under its own name, and its time: any of these tests needs it."""
    if "MUTANTS_MEASURED" not in os.environ or fixturedef.scope == "function":
        return (yield)
    start, others, name = _seconds(), _clock["shared"], f"fixture {fixturedef.argname} of {fixturedef.baseid}"
    try:
        with _noted_as(name):
            return (yield)
    finally:
        own = _seconds() - start - (_clock["shared"] - others)
        _clock["shared"] += own
        request._pyfuncitem.user_properties.append(("shared", [name, own]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Hand over what the test itself took and which fixtures it needs."""
    item.user_properties.append(("seconds", _seconds() - _clock["start"] - _clock["shared"]))
    item.user_properties.append(("fixtures", list(getattr(item, "fixturenames", []))))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather what is known of each test."""
    unknown = {"clock": 0.0, "seconds": 0.0, "shared": [], "fixtures": [], "passed": False, "failed": False}
    test = _measured.setdefault(report.nodeid, unknown)
    test["clock"] += report.duration
    test["passed"] |= report.when == "call" and report.passed
    test["failed"] |= report.failed
    if report.when == "teardown":
        test["shared"] = [value for name, value in report.user_properties if name == "shared"]
        test.update({name: value for name, value in report.user_properties if name in ("seconds", "fixtures")})


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the chosen tests only, in their order."""
    if "MUTANTS_CHOSEN" in os.environ:
        order = {test: i for i, test in enumerate(Path(os.environ["MUTANTS_CHOSEN"]).read_text().splitlines())}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in order])
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was measured; of several workers, the process that hears of all tests does."""
    if "MUTANTS_MEASURED" in os.environ:
        if not hasattr(session.config, "workerinput"):
            Path(os.environ["MUTANTS_MEASURED"]).write_text(json.dumps(_measured))
        import coverage

        if running := coverage.Coverage.current():
            running.save()
