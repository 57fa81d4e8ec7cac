"""A FIFO in place of a file: whoever opens it waits for a writer."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fifo(path: Path, seconds: int = 5) -> Iterator[Path]:
    """Make a FIFO; whoever still waits for it after some seconds finds it empty, so that a test fails and ends."""
    os.mkfifo(path)
    # a process of its own, because a reader in compiled code may not let other threads run
    writer = subprocess.Popen(["sh", "-c", f'sleep {seconds}; : > "$0"', path])
    try:
        yield path
    finally:
        writer.kill()
        writer.wait()
