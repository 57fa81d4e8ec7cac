"""Answers three questions in half an hour on a GPU: is the kit right, is it fast, and does a training come out true.

Each part is a process with a time of its own, so that one that takes too long takes nothing from the others. What is
done is not done again by a second call; the training of the last part goes on from its last epoch. The folder gets a
few small files, at each part's end and now and then within the last one. Everything else (data, store, cache) is in the
folder beside it whose name ends in .work.

`gpu.sh` sets the paths for it.
"""

import contextlib
import csv
import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

NEEDED = (
    *("torch", "torchvision", "numpy", "safetensors", "filelock", "PIL", "sklearn", "scipy", "pandas", "tqdm"),
    "psutil",
)
"""Modules without which nothing runs."""

MISSED = {
    "pytest": "the tests",
    "hypothesis": "the tests",
    "xdist": "several tests at once",
    "foolbox": "evaluations beside other packages",
    "pyautoattack": "AutoAttack, and evaluations beside other packages",
    "triton": "compiled steps on a GPU",
    "matplotlib": "the picture of the training",
}
"""What falls away without a module."""

STOPPED = "stopped at its time"
"""How a part ended that took too long."""

PUBLISHED_EVERY = 20.0
"""Seconds between two times that the folder's files are written, while a part runs."""

ON_A_GPU = (
    "tests/test_training.py::test_a_gpu_trains_what_the_cpu_trains",
    "tests/test_graphs.py::test_a_gpus_graphs_train_to_the_same_bits",
)
"""The tests that are skipped without a GPU; all others pass or fail anywhere."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A process.

    Attributes
    ----------
    name, question : what it is called, and which of the three questions it belongs to.
    command : its arguments after Python's.
    seconds : how long it may take; 0: as long as is left.
    modules : what it needs.
    settings : environment variables.
    """

    name: str
    question: str
    command: Sequence[str]
    seconds: float
    modules: Sequence[str] = ()
    settings: Sequence[tuple[str, str]] = ()


class Answers:
    """What was found so far, and where it is kept: `work` goes on after an interruption, `folder` is handed on."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.work, self.path, self.store = folder, work, work / "answers.json", work / "store"
        for each in (folder, work):
            each.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {"parts": {}}
        self._log = (work / "log.txt").open("a", encoding="utf-8")

    def say(self, text: str) -> None:
        """Print and log a line."""
        print(text, flush=True)
        self._log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self._log.flush()

    def publish(self) -> None:
        """Write what is handed on: eight files at most."""
        lines = [line for file in sorted(self.work.glob("*.jsonl")) for line in file.read_text().splitlines()]
        if lines:
            self.found["correct"] = [json.loads(line) for line in lines if line.endswith("}")]
        true = self.work / "true.json"
        if true.exists():
            with contextlib.suppress(ValueError):
                self.found["true"] = json.loads(true.read_text())
        waiting = self.path.with_suffix(".new")
        waiting.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        waiting.replace(self.path)
        for file in sorted(self.work.iterdir()):
            if file.suffix in (".csv", ".txt", ".png") or file.name in (self.path.name, "true_PeerAiD_record.json"):
                shutil.copyfile(file, self.folder / file.name)

    def run(self, part: Part, until: float) -> None:
        """Run a part, unless it was run before; print what it prints.

        What was left out, or was stopped because the call ended before the part's own time, is run by the next call.
        """
        before = self.found["parts"].get(part.name, {}).get("ended")
        left_out = before is None or before.startswith("left out")
        if before == "done" or (not left_out and part.question != "true"):
            self.say(f"== {part.question}: {part.name}: done before ({before})")
            return
        lacking = [name for name in part.modules if importlib.util.find_spec(name) is None]
        left = until - time.time()
        allowed = min(part.seconds or left, left)
        if lacking or allowed < 5:
            why = f"without {' and '.join(lacking)}" if lacking else f"no time is left ({left:.0f} s)"
            self.say(f"== {part.question}: {part.name}: left out, {why}")
            ended = f"left out, {why}" if lacking else None  # with more time it is done
            self.found["parts"][part.name] = {"question": part.question, "ended": ended}
            return
        self.say(f"== {part.question}: {part.name} ({allowed:.0f} s at most): {' '.join(part.command)}")
        quiet = {"TQDM_DISABLE": "1", "RKDKIT_TEXT_PROGRESS": "1"}
        # unbuffered: one that has to be killed leaves its last lines, too
        settings = {**os.environ, **quiet, "PYTHONUNBUFFERED": "1", **dict(part.settings)}
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, *part.command],
            cwd=ROOT,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        (self.work / "running").write_text(str(process.pid))
        reading = threading.Thread(target=self._read, args=(process,), daemon=True)
        reading.start()
        try:
            ended = self._wait(process, began + allowed)
        except BaseException:
            _end(process)
            raise
        (self.work / "running").unlink()
        reading.join(10)
        took = round(time.time() - began, 1)
        cut = ended == STOPPED and allowed < part.seconds
        self.found["parts"][part.name] = {
            "question": part.question,
            "ended": None if cut else ended,
            "seconds": took,
            "command": list(part.command),
            "settings": dict(part.settings),
        }
        self.say(f"== {part.name}: {'stopped with the call, to be run again,' if cut else ended} after {took} s")
        self.publish()

    def end_leftover(self) -> None:
        """End the part that an earlier call left running, when it was killed without a word."""
        noted = self.work / "running"
        with contextlib.suppress(OSError, ValueError):
            pid = int(noted.read_text())
            noted.unlink()
            # a number may be another process's by now; not every part has the folder in its command
            process = Path(f"/proc/{pid}")
            ours = str(self.work).encode() in (process / "cmdline").read_bytes()
            if ours or f"RKDKIT_STORE={self.store}".encode() in (process / "environ").read_bytes().split(b"\0"):
                self.say(f"== ending process {pid}, which an earlier call left running")
                os.killpg(pid, signal.SIGKILL)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.say(f"   {line.rstrip()}")

    def _wait(self, process: "subprocess.Popen[str]", until: float) -> str:
        while True:
            try:
                code = process.wait(max(0.1, min(PUBLISHED_EVERY, until - time.time())))
            except subprocess.TimeoutExpired:
                self.publish()
                if time.time() >= until:
                    _end(process)
                    return STOPPED
                continue
            return {0: "done", 2: "unfinished"}.get(code, f"failed with {code}")


def _end(process: "subprocess.Popen[str]") -> None:
    """End a part with the processes that it started."""
    for how, patience in ((signal.SIGINT, 8), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def parts(tiny: bool, device: str, work: Path) -> list[Part]:
    """Return the parts of the first two questions, in their order."""
    gpu, csv_of = device == "cuda", lambda name: ("--csv", str(work / f"{name}.csv"))
    step = ["benchmarks/training_step.py", "--methods", "PeerAiD"]
    small = ["--batch-size", "8", "--repetitions", "1"]
    graphs = ["--graphs", "off", "--graphs", "on"]
    bits = ["--precisions", "bfloat16"]
    compiling = ["--compile", "on", "--compile", "reduce-overhead", "--graphs", "off"]
    right = ["benchmarks/gpu/correct.py", "--device", device, "--kept"]
    correct, steps = [*right, str(work / "correct.jsonl")], [*right, str(work / "steps.jsonl"), "--steps"]
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(work / "tests")]
    epoch = ["benchmarks/epoch.py", "--method", "PeerAiD", "--precision", "bfloat16", "--no-beside"]
    judged = ["benchmarks/evaluation.py", "--repetitions", "1", "--profile"]
    packages = ("foolbox", "pyautoattack")
    if tiny:
        return [
            Part("checks", "right", [*correct, "--tiny"], 120),
            Part(
                *("tests", "right", [*tests, "tests/test_graphs.py", "-k", "stays_what_it_was"], 60),
                ("pytest", "hypothesis"),
            ),
            Part("step", "fast", [*step, "--networks", "resnet18/16", *small, *graphs, *csv_of("step")], 60),
            Part("epoch", "fast", [*epoch, "--network", "resnet18/16", "--n", "64", *small, *csv_of("epoch")], 40),
            Part("evaluation", "fast", [*judged, "smoke", "--n", "16", "--n-autoattack", "4"], 90, packages),
        ]
    tests += [*(["-n", "4"] if importlib.util.find_spec("xdist") else []), *ON_A_GPU]
    large = ["--network", "resnet18", "--n", "50000", "--repetitions", "1"]
    return [
        Part("checks", "right", correct, 240 if gpu else 900),
        Part("tests", "right", tests, 80 if gpu else 300, ("pytest", "hypothesis"), (("RKDKIT_TEST_GPU", "1"),)),
        Part("checks of whole steps", "right", steps, 150),
        Part("step", "fast", [*step, "--networks", "resnet18", "--repetitions", "5", *graphs, *csv_of("step")], 100),
        Part("epoch", "fast", [*epoch, *large, *csv_of("epoch")], 60),
        Part("epoch by graphs", "fast", [*epoch, *large, "--graphs", "on", *csv_of("epoch")], 60),
        Part(
            *("step, compiled", "fast"),
            [*step, "--networks", "resnet18", *bits, "--repetitions", "5", *compiling, *csv_of("step")],
            *(100, ("triton",)),
        ),
        Part(
            *("wide step", "fast"),
            [*step, "--networks", "wrn-34-10", *bits, "--repetitions", "2", *graphs, *csv_of("step")],
            90,
        ),
        Part("evaluation", "fast", [*judged, "small", "--epochs", "2", "--n", "1000"], 80, packages),
    ]


def fastest(work: Path, found: dict[str, Any]) -> dict[str, str]:
    """Return the settings of the fastest step with ResNet-18 in bfloat16 that was seen to be right.

    Steps with graphs, or compiled ones, are right if all checks of them passed that were made, the last one of
    `correct.py --steps` among them. Compiling must gain a tenth, as it takes minutes.
    """
    table, times = work / "step.csv", {}
    with contextlib.suppress(OSError), table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["network"], row["step"], row["precision"]) == ("resnet18", "kit", "bfloat16"):
                with contextlib.suppress(ValueError):
                    times[row["how"]] = float(row["s"])

    def right(how: str, last: str) -> bool:
        lines = [line for line in found.get("correct", []) if how in f"{line['check']}{line['of']}"]
        made = any("found" in line for line in lines if line["check"].startswith(last) and "bfloat16" in line["of"])
        return made and all(line["passed"] for line in lines)

    usual = times.get("", float("inf"))
    settings = {"RKDKIT_GRAPHS": "off", "RKDKIT_COMPILE": "off"}
    if right("graphs", "a step with graphs") and times.get("graphs", float("inf")) < usual:
        settings["RKDKIT_GRAPHS"], usual = "on", times["graphs"]
    if right("compiled", "a compiled step has float32's weights") and times.get("compiled", float("inf")) < 0.9 * usual:
        settings = {"RKDKIT_GRAPHS": "off", "RKDKIT_COMPILE": "on"}
    return settings


def data_folder(given: Path, work: Path, say: Any) -> Path:
    """Return a folder in which the kit finds CIFAR-10; an archive of it is unpacked."""
    if (given / "cifar10" / "train").is_dir() or (given / "cifar-10-batches-py").is_dir():
        return given
    unpacked = work / "data"
    archives = sorted(file for file in given.glob("cifar*10*.tar*") if "100" not in file.name) if given.is_dir() else []
    if not archives:
        return unpacked if unpacked.is_dir() else given
    if not (unpacked / "whole").exists():
        say(f"== unpacking {archives[0]}")
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(archives[0]) as archive:
            first = archive.next()
            published = first is not None and first.name.startswith(("cifar-10-batches-py", "cifar10"))
            archive.extractall(unpacked if published else unpacked / "cifar10", filter="data")
        (unpacked / "whole").touch()
    return unpacked


def provenance(device: str, commit: str) -> dict[str, Any]:
    """Return versions, the machine and the commit."""
    import torch

    def installed(name: str) -> str | None:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
        return None

    git = ["git", "-C", str(ROOT)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if not commit:
            commit = subprocess.run(
                [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
            ).stdout.strip()
            changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
            commit += "-dirty" if changed.strip() else ""
    found: dict[str, Any] = {
        "commit": commit or "unknown: there is no git here, and --commit was not given",
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {
            name: installed(name) for name in ("torch", "torchvision", "numpy", "triton", "pyautoattack", "foolbox")
        },
    }
    if device == "cuda":
        at = torch.cuda.get_device_properties(0)
        found |= {"device": at.name, "memory GiB": round(at.total_memory / 2**30, 1), "CUDA": torch.version.cuda}
        found |= {"cuDNN": torch.backends.cudnn.version(), "multiprocessors": at.multi_processor_count}
        with contextlib.suppress(OSError):
            asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
            found["driver, clock, power"] = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    else:
        found["device"] = f"CPU, {torch.get_num_threads()} threads"
    return found


def draw(work: Path) -> None:
    """Draw the losses of the trainings, if there is something to draw with."""
    found = sorted(work.glob("true_*.csv"))
    if not found or importlib.util.find_spec("matplotlib") is None:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    for path in found:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        axes.plot([int(row["epoch"]) for row in rows], [float(row["loss"]) for row in rows], label=path.stem[5:])
    axes.set(xlabel="epoch", ylabel="mean loss of an epoch")
    axes.legend()
    figure.savefig(work / "true.png", dpi=120)
    plt.close(figure)


def main(
    folder: Annotated[Path, typer.Argument(help="For the answers: a few small files.")],
    tiny: Annotated[bool, typer.Option(help="A rehearsal with tiny networks and few images.")] = False,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    minutes: Annotated[float, typer.Option(help="How long this call may take.")] = 29,
    only: Annotated[list[str], typer.Option(help="right, fast or true; repeatable; none: all.")] = [],  # noqa: B006
    data: Annotated[
        Path | None, typer.Option(help="Where CIFAR-10 is, an archive too; else $RKDKIT_DATA or data/.")
    ] = None,
    commit: Annotated[str, typer.Option(help="The commit, where there is no git.")] = "",
    again: Annotated[bool, typer.Option(help="Do the first two questions' parts again.")] = False,
) -> None:
    """Answer the three questions, or go on with them."""
    for lost in (signal.SIGHUP, signal.SIGTERM):  # the part that runs is ended, too
        if signal.getsignal(lost) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(lost, lambda *_: sys.exit("ended from outside"))
    began = time.time()
    until = began + 60 * minutes
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise SystemExit(f"Without {', '.join(lacking)} nothing of the kit runs: install them.")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here. For a rehearsal on the CPU: --tiny --device cpu.")
    folder = folder.resolve()
    answers = Answers(folder, folder.with_name(folder.name + ".work"))
    answers.end_leftover()
    answers.found.setdefault("calls", []).append(provenance(device, commit) | {"tiny": tiny, "minutes": minutes})
    answers.say(f"== {json.dumps(answers.found['calls'][-1])}")
    for name, what in MISSED.items():
        if importlib.util.find_spec(name) is None:
            answers.say(f"== {name} is not there: {what} fall away")
    work = answers.work
    given = (data or Path(os.environ.get("RKDKIT_DATA") or ROOT / "data")).resolve()
    os.environ["RKDKIT_DATA"] = str(data_folder(given, work, answers.say))
    os.environ |= {"RKDKIT_STORE": str(answers.store), "RKDKIT_CACHE": str(work / "cache")}
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if again:
        answers.found["parts"] = {}
        for name in ("step.csv", "epoch.csv"):
            (work / name).unlink(missing_ok=True)
    for part in parts(tiny, device, work):
        if not only or part.question in only:
            answers.run(part, until)
    if not only or "true" in only:
        settings = tuple(fastest(work, answers.found).items())
        command = ["benchmarks/gpu/true.py", "--folder", str(work), "--device", device, *(["--tiny"] * tiny)]
        # it ends by itself a little before it would be ended
        answers.run(Part("training", "true", [*command, "--until", str(until - 15)], 0, (), settings), until)
        draw(work)
    answers.found["calls"][-1]["seconds"] = round(time.time() - began, 1)
    answers.publish()
    answers.say(f"== {time.time() - began:.0f} s; what was found is in {folder}")
    answers.publish()


if __name__ == "__main__":
    typer.run(main)
