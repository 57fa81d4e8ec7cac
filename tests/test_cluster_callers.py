"""Callers of workers: the commands and the variables, what they refuse, Ctrl-C, who may connect, and what is left."""

import datetime
import os
import re
import signal
import subprocess
import sys
import time
from ipaddress import ip_address

import dask.config
import nbformat
import psutil
import pytest
from clusters import LONGEST, Noted, alive, environment, outside, records_of, started, wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from rkdkit import cli, drawing, executors, making, runs
from rkdkit.cluster import NoClusterError, Workers, connection
from rkdkit.cluster.connection import remote_client
from rkdkit.store import Store
from rkdkit.workforce import Workforce

BEGIN = "profile = 'quick'"
SAVE = """
from pathlib import Path
from rkdkit import executors, saved
executors.current().before_drawing()
empty = {"provenance": {"runs": []}, "claims": []}
saved.write_exhibit(Path("figures/quick/short.json"), empty, picture=b"", numbers=b"")
"""
DRAW = """
import os, time
from pathlib import Path
from rkdkit import executors
executors.current().before_drawing()
Path(f"drawing-{os.getpid()}").touch()
time.sleep(1000)
"""
ASK = "from conftest import tiny_spec\nfrom rkdkit import runs\n"


@pytest.fixture
def project(tmp_path):
    """A checkout with notebooks of its own: `long` trains for long, `short` does not, `diverges` fails, others draw."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "rkdkit"\n')
    (tmp_path / "notebooks").mkdir()
    for name, asked in {
        "long": "runs.ensure_all([tiny_spec(seed=i, n_train=1024, epochs=100) for i in range(3)])",
        "short": f"runs.ensure_all([tiny_spec(seed=i) for i in range(2)]){SAVE}",
        "diverges": "runs.ensure_all([tiny_spec('Natural', n_train=256, lr=1e18), tiny_spec(seed=5, epochs=1)])",
        "draws": DRAW,
        "draws_too": DRAW,
    }.items():
        cells = [
            nbformat.v4.new_markdown_cell(f"# {name}"),
            nbformat.v4.new_code_cell(BEGIN),
            nbformat.v4.new_code_cell(ASK + asked),
        ]
        cells[1].metadata.tags = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


def two_train(project, process, epochs=100):
    """Wait until each of two workers is at a long training; return the caller and all that it started."""

    def trained():
        assert process.poll() is None, process.communicate()
        begun = [record for record in records_of(project / "store") if record["spec"]["epochs"] == epochs]
        return len([record for record in begun if record["finished"]]) == 2

    wait_until(trained, "two workers train")
    return process.everybody


STOPPED = "Stopped. What is trained is kept: the same command goes on after the last finished epoch."


def interrupted(process, whole_group=True):
    """Press Ctrl-C, in a terminal or for the caller alone; return the lines that it said when all have ended."""
    everybody, asked = process.everybody, time.monotonic()
    os.killpg(process.pid, signal.SIGINT) if whole_group else process.send_signal(signal.SIGINT)
    try:
        said, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it did not end:\n{process.where_all_are()}")
    wait_until(lambda: not alive(everybody), "all have ended")
    assert not process.everybody
    assert time.monotonic() - asked < 30
    assert process.returncode == 130, said
    return [line for line in said.splitlines() if line]


@pytest.mark.parametrize(
    ("arguments", "whole_group", "variables"),
    [
        (["train", "long"], False, {}),
        (["figures", "long", "short"], True, {}),
        (["figures", "long"], True, {}),
        (["figures", "long"], True, {"__DASK_PARENT_PID": "1"}),  # set by who had workers before; Dask sets titles then
    ],
    ids=["caller alone", "terminal", "workers of a notebook", "workers of a notebook with a title"],
)
def test_ctrl_c_ends_every_process_and_loses_nothing(project, arguments, whole_group, variables):
    with started(project, *arguments, "--workers", "2", **variables) as process:
        assert len(two_train(project, process)) >= 3
        said = interrupted(process, whole_group)
    assert any(re.fullmatch(r"2 workers; what they do: http://127.0.0.1:\d+/status", line) for line in said)
    assert said[-1] == STOPPED
    # a kernel may say that it was in the middle of something, in a line
    assert not any("Traceback" in line for line in said), said
    assert not list((project / "store" / "marks").iterdir())


def test_ctrl_c_ends_notebooks_that_draw(project):
    with started(project, "figures", "draws", "draws_too", "--workers", "2") as process:
        both = min(2, drawing.most_side_by_side())
        wait_until(lambda: len(list(project.glob("drawing-*"))) == both, "they draw")
        assert len(process.everybody) > both
        said = interrupted(process)
    assert said == ["2 exhibits. Ctrl-C stops, nothing is lost.", STOPPED]


NOTEBOOK = """
from conftest import tiny_spec
from dataclasses import replace
from rkdkit import executors, methods, runs
asked = executors.current().listen()
for factor in (0.5, 1.0):
    methods.METHODS["mine"] = replace(methods.get("PGD-AT"), eps_factor=factor)
    specs = [replace(tiny_spec(seed=i), method="mine") for i in range(2)]
    (found,) = runs.ensure_all(specs)
print([run.record["environments"][0]["device"] for run in found], [str(task) for task in asked.tasks])
runs.ensure_all([tiny_spec(seed=i, epochs=100, n_train=1024) for i in range(2)])
"""


def listening(processes):
    """Return the addresses and ports that processes listen on."""
    found = [connection for each in processes for connection in each.net_connections()]
    return [connection.laddr for connection in found if connection.status == psutil.CONN_LISTEN]


def test_the_environment_can_ask_for_workers_and_a_killed_caller_leaves_none(project, monkeypatch):
    """As in JupyterLab, a row redefined between two cells included; only who has the certificate may connect."""
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    with started(project, code=NOTEBOOK, RKDKIT_WORKERS="2") as process:
        everybody = two_train(project, process)
        found = listening(everybody)
        assert len(found) >= 3
        assert {address.ip for address in found} == {"127.0.0.1"}
        for port in {address.port for address in listening(everybody[:1])}:
            for protocol in ("tcp", "tls"):
                address = f"{protocol}://127.0.0.1:{port}"
                with (
                    pytest.raises(NoClusterError, match=f"No Dask scheduler answers at {address}"),
                    remote_client(Workforce(scheduler=address)),
                ):
                    pass
        process.kill()
        said, _ = process.communicate(timeout=LONGEST)
        wait_until(lambda: not alive(everybody), "all have ended")
    (line,) = (line for line in said.splitlines() if line.startswith("["))
    tasks = [f"training of mine resnet18/16 on digits, seed {i}" for i in (0, 1)]
    assert line == f"{['cpu, 1 threads'] * 2} {tasks}"
    assert len([record for record in records_of(project / "store") if record["spec"]["method"] == "mine"]) == 4
    assert len(re.findall("2 workers; what they do", said)) == 2, "the row was another one"


def test_a_script_that_does_not_protect_its_work_is_told_so(project):
    (project / "script.py").write_text(ASK + "runs.ensure_all([tiny_spec(seed=i) for i in range(2)])")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=project,
        env=environment(project / "store", RKDKIT_WORKERS="2"),
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert done.returncode == 1
    assert 'A script must do its work under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@pytest.fixture
def nothing_is_done(monkeypatch, project):
    monkeypatch.chdir(project)
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    monkeypatch.setattr(making, "do_all", lambda *_, **__: pytest.fail("work was begun"))
    monkeypatch.setattr(drawing, "draw_all", lambda *_, **__: pytest.fail("a notebook was run"))


NOT_BOTH = "Give either workers, which are started here, or a scheduler, which has its own: not both."


@pytest.mark.parametrize("command", ["train", "figures"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "0"], "workers must be a whole number of at least 1, or auto, not '0'."),
        (["--workers", "-1"], "workers must be a whole number of at least 1, or auto, not '-1'."),
        (["--workers", "x"], "workers must be a whole number of at least 1, or auto, not 'x'."),
        (["--workers", "2.5"], "workers must be a whole number of at least 1, or auto, not '2.5'."),
        (["--workers", "100000"], r"workers=100000 do not fit in this machine's memory: there is room for \d+."),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], NOT_BOTH),
        (["--workers", "1", "--scheduler-file", "x"], NOT_BOTH),
        (["--scheduler", "tcp://x:1", "--scheduler-file", "x"], "Give the scheduler's address or its file, not both."),
        (["--scheduler", "tcp://127.0.0.1:9"], "No Dask scheduler answers at tcp://127.0.0.1:9: .*`dask scheduler`.*"),
        (["--scheduler", "no address"], "No Dask scheduler answers at no address: .*docs/scaling.md.*"),
        (["--scheduler", "x://y"], "No Dask scheduler answers at x://y: .*docs/scaling.md.*"),
        (
            ["--scheduler-file", "nowhere"],
            "There is no scheduler file nowhere: `dask scheduler --scheduler-file FILE`.*",
        ),
        (["--scheduler-file", "pyproject.toml"], r"No Dask scheduler answers at /.*/pyproject\.toml: .*scaling.md.*"),
        (["--scheduler-file", "empty.json"], r"No Dask scheduler answers at /.*/empty\.json: .*docs/scaling.md.*"),
    ],
)
@pytest.mark.usefixtures("nothing_is_done")
def test_who_cannot_do_the_work_is_refused_in_one_line_before_any(project, command, arguments, words):
    (project / "empty.json").write_text("{}")
    began = time.monotonic()
    done = CliRunner().invoke(cli.app, [command, "short", *arguments])
    assert done.exit_code == 1
    assert re.fullmatch(words, done.output.strip()), done.output
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"RKDKIT_WORKERS": "many"},
            "is set wrongly: workers must be a whole number of at least 1, or auto, not 'many'",
        ),
        ({"RKDKIT_WORKERS": "1", "RKDKIT_SCHEDULER": "tcp://x:1"}, f"is set wrongly: {NOT_BOTH}"),
        ({"RKDKIT_SCHEDULER_FILE": "nowhere"}, "is set wrongly: There is no scheduler file nowhere"),
    ],
)
def test_variables_that_are_set_wrongly_are_named(monkeypatch, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^RKDKIT_WORKERS, RKDKIT_SCHEDULER or RKDKIT_SCHEDULER_FILE {words}"):
        runs.gather([])


def test_a_command_names_what_failed_and_what_could_not_be_made(project, tmp_path):
    """By an outside scheduler with a single worker; what does not rest on the failure is made."""
    with outside(tmp_path / "dask", project / "store", 1) as found:
        given = ("--scheduler-file", str(found.file))
        with started(project, "train", "diverges", "short", *given) as process:
            said, _ = process.communicate(timeout=LONGEST)
        assert process.returncode == 1, said
        assert "The training of Natural resnet18/16 on digits, seed 0 failed: DivergedError: The " in said
        assert said.rstrip().endswith("Everything else is done and kept in the store.\nNot all is done for: diverges.")
        finished = [record["spec"]["seed"] for record in records_of(project / "store") if record["finished"]]
        assert sorted(finished) == [0, 1, 5]
        with started(project, "figures", "diverges", "short", *given) as process:
            said, _ = process.communicate(timeout=LONGEST)
        assert process.returncode == 1, said
        assert said.rstrip().endswith("Everything else is done and kept in the store.\nNot made: diverges.")
        assert (project / "executed" / "quick" / "short.ipynb").exists()
        assert not (project / "executed" / "quick" / "diverges.ipynb").exists()


def certificates(folder, name):
    """Write a certificate authority's certificate, and a certificate for 127.0.0.1 with its key."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in ("ca", "own")}
    names = {who: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {who}")]) for who in keys}
    files = {}
    for who, key in keys.items():
        made = (
            x509.CertificateBuilder(names["ca"], names[who], key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=who == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(keys["ca"], hashes.SHA256())
        )
        files[who] = folder / f"{name}-{who}.pem"
        files[who].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files["key"] = folder / f"{name}-key.pem"
    files["key"].write_bytes(
        keys["own"].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return {who: str(file) for who, file in files.items()}


@pytest.fixture
def configured(monkeypatch):
    """Let Dask read these environment variables."""

    def configure(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        dask.config.refresh()

    yield configure
    monkeypatch.undo()
    dask.config.refresh()


def test_with_tls_only_who_has_a_certificate_may_connect(tmp_path, monkeypatch, configured):
    monkeypatch.setattr(connection, "PATIENCE", 3.0)
    ours, others = (certificates(tmp_path, name) for name in ("ours", "others"))
    store = tmp_path / "store"
    options = ["--tls-ca-file", ours["ca"], "--tls-cert", ours["own"], "--tls-key", ours["key"]]
    tasks = [Noted("first"), Noted("second")]

    def asked():
        executor = Workers(Workforce(scheduler=found.address), Store(store))
        try:
            with executors.using(executor):
                return runs.gather(tasks)
        finally:
            executor.close()

    def configuration(files):
        names = {"CA_FILE": "ca", "CLIENT__CERT": "own", "CLIENT__KEY": "key"}
        return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": files[which] for name, which in names.items()}

    monkeypatch.setenv("RKDKIT_STORE", str(store))
    with outside(tmp_path / "dask", store, 1, ["--protocol", "tls", *options]) as found:
        assert found.address.startswith("tls://127.0.0.1:")
        for given in ({}, configuration(others)):
            configured(**given)
            with pytest.raises(NoClusterError, match=r"No Dask scheduler answers at tls://127.0.0.1:\d+: .*TLS") as no:
                asked()
            assert len(str(no.value).splitlines()) == 1
        configured(**configuration(ours))
        assert all(asked())
