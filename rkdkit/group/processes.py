"""The processes that `torchrun` starts: how they find each other, what they send, and how they end together."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from rkdkit.group.shares import Shares

PATIENCE = timedelta(minutes=10)
"""How long the processes wait for each other to come, and for each other within an epoch."""

LOOKS = 0.01
"""Seconds between two looks whether others have sent something."""

KEPT = "What is trained and measured is kept: the same command, with any number of processes, goes on from there."


class GroupError(RuntimeError):
    """The processes cannot work together; the message says why and what to do."""


class GroupLostError(GroupError):
    """Another process ended before the work was done."""


def started_together(environment: "os._Environ[str] | dict[str, str]" = os.environ) -> bool:
    """Return whether a launcher such as `torchrun` started this process as one of several."""
    size = environment.get("WORLD_SIZE", "")
    return "RANK" in environment and size.isdecimal() and int(size) > 1


class Processes(Shares):
    """The processes of torch's default group, by whose backend tensors go: "nccl" for GPUs, "gloo" for CPUs.

    Parameters
    ----------
    device : the device of this process.
    control : a gloo group of the same processes, for what is not tensors of a training; one may wait in it for hours.
    board : a store that all processes reach; torchrun keeps it as long as it lives.

    Attributes
    ----------
    apart : whether the processes may have come out of step, so that nothing can be sent any more.
    """

    def __init__(self, device: torch.device, control: dist.ProcessGroup, board: Store) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device, self.apart = device, False
        self._control, self._board = control, board

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """As :meth:`Shares.gather`."""
        everybody = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._there():
            dist.all_gather(everybody, tensor)
        return everybody

    def add(self, tensor: Tensor) -> Tensor:
        """As :meth:`Shares.add`."""
        with self._there():
            dist.all_reduce(tensor)
        return tensor

    def send_first(self, tensor: Tensor) -> Tensor:
        """As :meth:`Shares.send_first`."""
        with self._there():
            dist.broadcast(tensor, 0)
        return tensor

    def tell(self, what: Any, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send plain JSON values and tensors from the first process to all others, which :meth:`hear` them."""
        text, weights = json.dumps(what).encode(), save(dict(tensors or {}))
        with self._there():
            dist.broadcast(torch.tensor([len(text), len(weights)]), 0, group=self._control)
            dist.broadcast(_as_tensor(text + weights), 0, group=self._control)

    def hear(self) -> tuple[Any, dict[str, Tensor]]:
        """Wait for what the first process tells, and return it; meanwhile, signals are heeded."""
        lengths = torch.zeros(2, dtype=torch.int64)
        with self._there():
            work = dist.broadcast(lengths, 0, group=self._control, async_op=True)
            _awaited(work)
            text, weights = lengths.tolist()
            sent = torch.empty(text + weights, dtype=torch.uint8)
            dist.broadcast(sent, 0, group=self._control)
        whole = sent.numpy().tobytes()
        return json.loads(whole[:text]), load(whole[text:])

    def everybody(self, what: Any) -> list[Any]:
        """Return what each process gave, plain JSON values, in their order; while it waits, signals are heeded."""
        text = json.dumps(what).encode()
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._there():
            _awaited(dist.all_gather(lengths, torch.tensor([len(text)]), group=self._control, async_op=True))
            longest = max(int(length) for length in lengths)
            answers = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(answers, _as_tensor(text.ljust(longest)), group=self._control)
        return [json.loads(answer.numpy().tobytes()) for answer in answers]

    def is_first_to_say(self) -> bool:
        """Return whether no process has said yet why the work ended; from now on, one has.

        From here, this process heeds SIGTERM no more: a launcher sends it to all soon after one was lost, and what is
        to be said would not be.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # the board may have gone with the first process
            return self.rank < 2
        try:
            return bool(self._board.add("said", 1) == 1)
        except RuntimeError:
            return self.rank < 2

    @contextmanager
    def _there(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self.apart = True
            raise GroupLostError(_lost(self.size)) from error

    @property
    def name(self) -> str:
        """What a message calls this process."""
        return f"process {self.rank} (of 0 to {self.size - 1}, on {socket.gethostname()})"


def _awaited(work: dist.Work | None) -> None:
    """Wait for others as long as it takes; a call of torch's that waits would keep signals from being handled."""
    assert work is not None
    while not work.is_completed():
        time.sleep(LOOKS)
    work.wait()


def _as_tensor(sent: bytes) -> Tensor:
    return torch.frombuffer(bytearray(sent), dtype=torch.uint8)


def _lost(size: int) -> str:
    return f"One of the {size} processes ended before the others, or the command that started them did. {KEPT}"


@contextmanager
def joined(device: torch.device | None = None) -> Iterator[Processes]:
    """Find the other processes, and leave them at the end of the ``with`` block.

    Meanwhile an interruption reaches the first process alone, and a process that is told to end says why, if no other
    has done so.

    Parameters
    ----------
    device : of this process; None: its own GPU if the machine has some, else the CPU.

    Raises
    ------
    GroupError
        If the processes do not find each other, were started by different commands, run different code, or are more
        than this machine's GPUs.
    """
    device = _device() if device is None else device
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:  # other machines need not reach this one
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        store = PrefixStore(f"rkdkit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(
            backend, store=PrefixStore("tensors", store), rank=rank, world_size=size, timeout=PATIENCE
        )
        control = dist.new_group(backend="gloo", timeout=timedelta(days=365))
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GroupError(f"The processes did not find each other: {first}") from error
    assert isinstance(control, dist.ProcessGroup)
    processes = Processes(device, control, PrefixStore("board", store))

    def ended(_: int, __: FrameType | None) -> None:
        if processes.is_first_to_say():
            print(f"\n{_lost(processes.size)}", file=sys.stderr, flush=True)
        os._exit(143)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, ended)
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _compare(processes)
        yield processes
    finally:
        for number, handler in before.items():
            if not (processes.apart and number == signal.SIGTERM):  # it is still to be said why
                signal.signal(number, handler)
        if not processes.apart:  # else one would wait for processes that are gone
            dist.destroy_process_group()


def _loopback() -> str:
    """Return the name of the interface that only this machine reaches; "": none is found, and gloo chooses one."""
    import psutil  # late: one process does without, and a bare machine may

    interfaces = psutil.net_if_addrs().items()
    return next((name for name, found in interfaces if any(each.address == "127.0.0.1" for each in found)), "")


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    here, there = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if here > there:
        raise GroupError(
            f"{here} processes were started on a machine of {there} GPU{'s' if there > 1 else ''}: start one for each "
            "(torchrun --nproc-per-node)."
        )
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def _compare(processes: Processes) -> None:
    """Refuse processes that do not do the same."""
    from rkdkit.cluster.job import CODE

    here = {
        "the same code of rkdkit": CODE,
        "the same version of torch": str(torch.__version__),
        "the same kind of device": processes.device.type,
        "the same command line": " ".join(sys.argv[1:]),
    }
    first, *others = processes.everybody((processes.name, here))
    for name, there in others:
        for what, value in first[1].items():
            if there[what] != value:
                if processes.rank:  # one message is enough
                    sys.exit(1)
                raise GroupError(
                    f"All processes need {what}. That of {name} is {there[what]!r}, and that of {first[0]} is "
                    f"{value!r}. Nothing was trained."
                )
