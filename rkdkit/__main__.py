"""`python -m rkdkit`, which is the command `rkdkit`: `torchrun -m` starts modules."""

from rkdkit.cli import app

if __name__ == "__main__":
    app(prog_name="rkdkit")
