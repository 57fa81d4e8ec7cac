"""ARD, section 6: parameters and multiply-adds of every network, and the measured time of an inference."""

import statistics
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd
import torch

from rkdkit import checks, executors, models
from rkdkit.claims import Claim, Quantity
from rkdkit.determinism import exact_arithmetic
from rkdkit.modes import eval_without_gradients
from rkdkit.provenance import processor
from rkdkit.setup import FIELDS, Exhibit, Setup
from rkdkit.statistics import Measure

EXHIBIT = Exhibit(
    paper="ARD, section 6",
    unused=tuple(field for field in FIELDS if field != "student"),
    trains=(),
    times=True,
    own={"batches": None, "batch_size": 1},
)

PHOTOGRAPH, POINT = (3, 32, 32), (2, 1, 1)
"""The shapes (C, H, W) of the images: CIFAR's, as in the paper, and the points of the plane that MLPs are made for."""

NUM_CLASSES = 10

QUANTITIES = {
    "parameters": "parameters",
    "multiply-adds": "multiply_adds",
    "multiplications and additions": "operations",
}
"""What is counted, and the field of `models.Cost` that holds it."""

PRINTED = {
    "wrn-34-10": {"parameters": (46.2e6, 0.1e6), "multiply-adds": (13.3e9, 0.1e9)},
    "resnet18": {"parameters": (11.2e6, 0.1e6), "multiply-adds": (1.1e9, 0.1e9)},
    "mobilenetv2": {"parameters": (2.3e6, 0.1e6), "multiply-adds": (187e6, 1e6)},
}
"""The numbers of ARD's section 6, each with the unit of its last digit. The paper calls them approximate."""

SHARES = {"parameters": (0.05, 0.01), "multiply-adds": (0.014, 0.001)}
"""MobileNetV2's share of WRN-34-10's cost in ARD's section 6, each with the unit of its last digit."""

TIMES = {"parameters": (20, 10), "multiply-adds": (70, 10)}
"""How many times MobileNetV2's cost WRN-34-10 has in ARD's section 5.1, each with the unit of its last digit."""

BATCHES = {"smoke": 3}
"""How many batches of a network are timed, by profile; 15 for the others."""

OF_OTHERS_COST = ("preact-resnet18-kuangliu", "preact-resnet18-wong")
"""The networks that are not shown, because their costs are those of "preact-resnet18" without its last norm."""


def networks(setup: Setup) -> list[str]:
    """Return all networks but `OF_OTHERS_COST` in full width, and with the width divisor of the profile's student."""
    divisor = models.parse(setup.profile.student)[1]
    shown = [name for name in models.ARCHITECTURES if name not in OF_OTHERS_COST]
    return [*shown, *(f"{name}/{divisor}" for name in shown if divisor > 1)]


def shape_of(network: str) -> tuple[int, int, int]:
    """Return the shape of the images that a network is counted for."""
    return POINT if network.startswith("mlp-") else PHOTOGRAPH


def counts(names: Sequence[str]) -> pd.DataFrame:
    """Count the costs of networks, without weights in memory.

    Parameters
    ----------
    names : as `models.build` takes them.

    Returns
    -------
    One row per network and quantity: network, image (its shape), quantity, value, and paper (NaN: not in the paper).
    What the paper prints as multiply-adds is also beside the multiplications and additions, which it seems to be.
    """
    return pd.DataFrame(
        {"network": name, "image": _written(shape_of(name)), "quantity": quantity, "value": value, "paper": paper}
        for name in names
        for quantity, value, paper in _counted(name)
    )


def check_timing(*, batches: int, batch_size: int) -> None:
    """Refuse parameters of :func:`inference_times` before any work.

    Raises
    ------
    ValueError
        If a number is too small or not whole.
    """
    for name, number, least in (("batches", batches, 3), ("batch_size", batch_size, 1)):
        checks.whole(name, number, least, checks.MOST_STEPS)


def inference_times(names: Sequence[str], *, batches: int, batch_size: int = 1) -> pd.DataFrame:
    """Measure the time of inference: eval mode without gradients, float32, random weights, on the executor's device.

    The networks take turns, so that whatever else the machine does affects all of them alike. One batch of each is not
    timed. Nothing is kept in the store, because a time belongs to a machine; while planning, nothing is timed.

    Parameters
    ----------
    names : as `models.build` takes them.
    batches : how many batches of each network are timed, a whole number of at least 3.
    batch_size : images per batch, at least 1.

    Returns
    -------
    One row per network: network, image, quantity ("inference"), value (the median time per image in ms), fastest and
    slowest (of the batches; they are no interval).

    Raises
    ------
    ValueError
        As :func:`check_timing`.
    """
    check_timing(batches=batches, batch_size=batch_size)
    executors.current().before_drawing()
    device = executors.current().context.device
    built = {name: _built(name).on(device).eval() for name in names}
    images = {name: torch.rand(int(batch_size), *shape_of(name), device=device) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with exact_arithmetic():
        for _ in range(int(batches) + 1):
            for name, network in built.items():
                with eval_without_gradients(network):
                    began = _now(device)
                    network(images[name])
                    seconds[name].append(_now(device) - began)
    rows: list[dict[str, Any]] = []
    for name, all_batches in seconds.items():
        each = [1000 * batch / batch_size for batch in all_batches[1:]]
        row = {"value": statistics.median(each), "fastest": min(each), "slowest": max(each)}
        rows.append({"network": name, "image": _written(shape_of(name)), "quantity": "inference", **row})
    return pd.DataFrame(rows)


def where_timed(*, batches: int, batch_size: int = 1) -> str:
    """Describe how :func:`inference_times` measures, and on which processor, for a caption."""
    device = executors.current().context.device
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        machine = f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"
    size = "one image" if batch_size == 1 else f"{batch_size:g} images"
    return f"Time per image: median of {batches:g} batches of {size}, from the fastest to the slowest, on {machine}."


def shown(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return counts and times as a table to read: one row per network, counts in millions, times in ms per image.

    Parameters
    ----------
    numbers : :func:`counts` and :func:`inference_times`, one below the other.
    """
    wide = numbers.pivot(index="network", columns="quantity", values="value").loc[numbers.network.unique()]
    columns = {f"{quantity} (M)": (wide[quantity] / 1e6).map("{:,.3f}".format) for quantity in QUANTITIES}
    return pd.DataFrame({**columns, "inference (ms)": wide.inference.map("{:,.2f}".format)})


def check_claims(table: pd.DataFrame) -> list[Claim]:
    """Check whether the counts, rounded as the paper rounds, are the numbers of ARD's sections 5.1 and 6.

    Parameters
    ----------
    table : as :func:`counts`, with the paper's networks in full width.
    """
    counted = table.set_index(["network", "quantity"]).value.to_dict()
    claims = [
        _printed(f"{name} has about {_short(value)} {quantity}.", "6", counted[name, quantity], value, unit)
        for name, both in PRINTED.items()
        for quantity, (value, unit) in both.items()
    ]
    small, large = "mobilenetv2", "wrn-34-10"
    for quantity in SHARES:
        share = counted[small, quantity] / counted[large, quantity]
        (value, unit), (times, unit_of_times) = SHARES[quantity], TIMES[quantity]
        text = f"{small} has about {100 * value:g} % of the {quantity} of {large}."
        claims.append(_printed(text, "6", share, value, unit))
        text = f"{large} has {times} times the {quantity} of {small}."
        claims.append(_printed(text, "5.1", 1 / share, times, unit_of_times))
    return claims


def _printed(text: str, section: str, count: float, printed: float, unit: float) -> Claim:
    """Return the claim that a count is within half a unit of a printed number's last digit, counted in such units."""
    away = abs(count - printed) / unit
    half, distance, difference = (Measure(v, v, v, 1, unit="last digits") for v in (0.5, away, 0.5 - away))
    return Claim(
        text,
        f"ARD, section {section}",
        Quantity("what rounding allows", half),
        Quantity(f"distance of the count, {_short(count)}, from the printed {_short(printed)}", distance),
        difference,
    )


@cache
def _counted(name: str) -> tuple[tuple[str, int, float], ...]:
    with torch.device("meta"):
        cost = models.cost(_built(name), shape_of(name))
    printed: Mapping[str, tuple[float, float]] = PRINTED.get(name, {})
    beside = {**printed, "multiplications and additions": printed.get("multiply-adds", (float("nan"), 0))}
    return tuple((q, getattr(cost, field), beside.get(q, (float("nan"), 0))[0]) for q, field in QUANTITIES.items())


def _built(name: str) -> models.Classifier:
    channels = shape_of(name)[0]
    num_classes = 2 if shape_of(name) == POINT else NUM_CLASSES
    return models.build(name, num_classes, [0.5] * channels, [0.25] * channels)


def _now(device: torch.device) -> float:
    """Return the time in seconds, after a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _written(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _short(number: float) -> str:
    """Return a number with four digits: "46.16 M", "13.3 G", "0.04976"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.4g}"
