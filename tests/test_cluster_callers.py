"""Callers of workers: the commands and the variables, what they refuse, Ctrl-C, who may connect, and what is left."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest
from clusters import alive, environment, family, files_of, outside, records_of, wait_until
from conftest import ROOT, tiny_spec
from typer.testing import CliRunner

from rkdkit import cli, cluster, making, runs
from rkdkit.cluster import NoClusterError, Workers, Workforce
from rkdkit.cluster.connection import remote_client
from rkdkit.store import Store

BEGIN = "profile = 'quick'"
ASK = "from conftest import tiny_spec\nfrom rkdkit import runs\n"


@pytest.fixture
def project(tmp_path):
    """A checkout with notebooks of its own: `long` trains for long, `short` does not, `diverges` fails."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "rkdkit"\n')
    (tmp_path / "notebooks").mkdir()
    for name, asked in {
        "long": "runs.ensure_all([tiny_spec(seed=i, n_train=1024, epochs=100) for i in range(3)])",
        "short": "runs.ensure_all([tiny_spec(seed=i) for i in range(2)])",
        "diverges": "runs.ensure_all([tiny_spec('Natural', n_train=256, lr=1e18), tiny_spec(seed=5, epochs=1)])",
    }.items():
        cells = [nbformat.v4.new_markdown_cell(f"# {name}"), nbformat.v4.new_code_cell(BEGIN), nbformat.v4.new_code_cell(ASK + asked)]
        cells[1].metadata.tags = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


@contextmanager
def started(project, *arguments, code="from rkdkit.cli import app; app()", **variables):
    """Start the kit's command as a terminal does, in a process group of its own; nothing of it is left afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=project,
        env=environment(project / "store", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    everybody = []
    try:
        yield process
    finally:
        everybody = family(process.pid) if process.poll() is None else []
        for each in alive(everybody):
            each.kill()
        process.wait()


def two_train(project, process):
    """Wait until each of two workers has trained an epoch; return the caller and all that it started."""

    def trained():
        assert process.poll() is None, process.communicate()
        return len([record for record in records_of(project / "store") if record["finished"]]) == 2

    wait_until(trained, "two workers train")
    return family(process.pid)


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "caller alone"])
def test_ctrl_c_ends_every_process_and_loses_nothing(project, whole_group):
    with started(project, "train", "long", "--workers", "2") as process:
        everybody = two_train(project, process)
        assert len(everybody) >= 3
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGINT) if whole_group else process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        print(said, time.monotonic() - asked)
        assert process.returncode == 130
        wait_until(lambda: not alive(everybody), "all have ended")
        assert time.monotonic() - asked < 15
    words = "Stopped. What is trained is kept: the same command goes on after the last finished epoch."
    assert [line for line in said.splitlines() if line] == [said.splitlines()[0], words]
    assert said.startswith("2 workers; what they do: http://127.0.0.1:")
    assert not list((project / "store" / "marks").iterdir())


ENSURE = """
import sys
from conftest import tiny_spec
from rkdkit import executors, methods, runs
asked = executors.current().listen()
epochs = int(sys.argv[1])
(found,) = runs.ensure_all([tiny_spec(seed=i, epochs=epochs, n_train=256) for i in range(2)])
print([run.record["environments"][0]["device"] for run in found], [str(task) for task in asked.tasks])
"""


def test_the_environment_can_say_so_and_a_killed_caller_leaves_nobody(project, tmp_path):
    """As in JupyterLab: `runs.ensure_all` hands out what is missing, and what was asked for is still listed."""
    with started(project, "100", code=ENSURE, RKDKIT_WORKERS="2") as process:
        everybody = two_train(project, process)
        listening = {
            each.laddr.ip
            for process in everybody
            for each in process.net_connections()
            if each.status == psutil.CONN_LISTEN
        }
        ports = [c.laddr.port for c in everybody[0].net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening == {"127.0.0.1"}
        for port in ports:
            with pytest.raises(NoClusterError, match="No Dask scheduler answers at"), remote_client(Workforce(scheduler=f"tls://127.0.0.1:{port}")):
                pass
        process.kill()
        wait_until(lambda: not alive(everybody), "all have ended")
    with started(project, "2", code=ENSURE, RKDKIT_WORKERS="2") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    print(said)
    assert 0
