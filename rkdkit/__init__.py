"""rkdkit: a reproducibility kit for robust knowledge distillation.

Import the module you need (``from rkdkit import data, runs``); importing the package itself does no work.
"""

__version__ = "0.1.0"
