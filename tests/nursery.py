"""A process that imports everything once and forks Dask workers that start at once; `clusters.Nursery` speaks to it.

A line of standard input says how a worker is to be; a line of standard output, which process it is.
"""

import asyncio
import json
import os
import sys
import time  # noqa: F401 - for what a worker runs first

from distributed import Worker

from rkdkit import autoattack, data  # noqa: F401 - what tasks need
from rkdkit.cluster import job  # noqa: F401


async def work(scheduler_file: str, name: str, nthreads: int, folder: str) -> None:
    """Be a worker until the scheduler ends it."""
    given = {"scheduler_file": scheduler_file, "name": name, "nthreads": nthreads, "local_directory": folder}
    async with Worker(**given, host="127.0.0.1", memory_limit=0, dashboard=False, death_timeout=20) as worker:
        await worker.finished()


data.load("digits")
for line in sys.stdin:
    given = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ.update(given.pop("variables"))
        with open(given.pop("log"), "w") as log:  # noqa: PTH123 - as short as it gets
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.setsid()
        exec(given.pop("before"))
        try:
            asyncio.run(work(**given))
        finally:
            os._exit(0)
    print(pid, flush=True)
