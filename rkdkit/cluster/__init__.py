"""Workers that do tasks side by side, on this machine or on many: Dask's `distributed` starts, feeds and watches them.

A worker's result is what it puts into the store. Who did a task, its answer lies there under its key.
"""

from rkdkit.cluster.connection import NoClusterError
from rkdkit.cluster.failures import SchedulerLostError, TasksFailedError
from rkdkit.cluster.job import WrongWorkerError
from rkdkit.cluster.workers import Workers

__all__ = [
    "NoClusterError",
    "SchedulerLostError",
    "TasksFailedError",
    "Workers",
    "WrongWorkerError",
]
