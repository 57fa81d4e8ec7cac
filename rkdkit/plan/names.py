"""Short names for runs that stand beside one another."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rkdkit.spec import RunSpec, Teacher


def named(specs: Sequence[RunSpec]) -> dict[RunSpec, str]:
    """Return a short name for each of several runs, which no other has beside it: teachers go by their numbers.

    Parameters
    ----------
    specs : the runs, numbered from 1; data and seed are not part of their names.
    """
    numbers = {spec: i for i, spec in enumerate(specs, 1)}
    alike: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in specs:
        peer = f" with {spec.peer}" if spec.peer not in ("", spec.student) else ""
        guides = f" taught by {' and '.join(_guide(t, numbers) for t in spec.teachers)}" if spec.teachers else ""
        alike.setdefault((heading(spec), f"{spec.label} {spec.student}{peer}{guides}"), []).append(spec)
    width = len(str(len(specs)))
    return {
        spec: f"{numbers[spec]:>{width}} {', '.join([name, *_told_apart(spec, of_name)])}"
        for (_, name), of_name in alike.items()
        for spec in of_name
    }


def heading(spec: RunSpec) -> str:
    """Return what a run stands under: its data and seed."""
    return f"Training on {spec.dataset}, seed {spec.seed}"


def _guide(teacher: Teacher, numbers: Mapping[RunSpec, int]) -> str:
    if teacher.run is None or teacher.run not in numbers:
        return str(teacher)
    role = "" if teacher.role == "student" else f" ({teacher.role})"
    epoch = "" if teacher.epoch == teacher.run.epochs else f" at epoch {teacher.epoch}"
    return f"{numbers[teacher.run]}{role}{epoch}"


def _told_apart(spec: RunSpec, alike: Sequence[RunSpec]) -> Iterator[str]:
    """Yield the fields in which a run differs from others that are called the same."""
    every = [_fields(each) for each in alike]
    for name, value in _fields(spec).items():
        if any(fields.get(name) != value for fields in every):
            yield f"{name} {value}"


def _fields(spec: RunSpec) -> dict[str, Any]:
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return {**dict(fields.pop("settings")), **{name: fields[name] for name in fields if name != "teachers"}}
