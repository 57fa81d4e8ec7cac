"""What exhibits need before anything is trained: their runs, the work, the memory, and the time on this machine.

A notebook alone knows what its exhibit needs. So its cells are run (`ask`), up to where the exhibit is drawn, while a
planner notes the tasks that they gather. What was noted is counted (`count`, by `cost`) and told (`report`). Nothing is
written.
"""

from rkdkit.plan.ask import DrawingError, NeedsNetworkError, Planner, ask
from rkdkit.plan.count import count
from rkdkit.plan.memory import device_memory
from rkdkit.plan.report import Plan, Rates

__all__ = ["DrawingError", "NeedsNetworkError", "Plan", "Planner", "Rates", "ask", "count", "device_memory"]
