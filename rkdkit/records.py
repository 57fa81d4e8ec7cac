"""What a run's record must look like: a file may match its own digest and still hold something else."""

import re
from collections.abc import Mapping
from typing import Any

_FILE = re.compile(r"[a-z_]+-\d{4,9}\.safetensors", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{16,64}", re.ASCII)


def of_today(content: Any) -> Any:
    """Return a record in today's form: the states of the last two epochs by epoch, where there once was one state."""
    if not isinstance(content, dict) or "state" not in content:
        return content
    record = {name: value for name, value in content.items() if name != "state"}
    return {**record, "states": {str(record.get("finished")): content["state"]} if content["state"] else {}}


def is_record(content: Any) -> bool:
    """Return whether a JSON value has all that the kit reads from a run's record, in the right form.

    It names files of its own folder alone, and no epoch that it has not finished.
    """
    return _is(content, _RECORD) and _is_consistent(content)


def names_what_it_keeps(record: Mapping[str, Any]) -> bool:
    """Return whether a record names just the snapshots that its specification keeps up to its last finished epoch.

    Parameters
    ----------
    record : as :func:`is_record`, with the JSON of a `RunSpec`.
    """
    spec = record["spec"]
    first = {"student": 1} | ({"peer": 1} if spec["peer"] else {})  # the epoch from which each network is kept
    if spec["ema_decay"] is not None or spec["swa_start"] is not None:
        first["student_averaged"] = (spec["swa_start"] or 0) + 1
    epochs = [
        epoch
        for epoch in range(1, record["finished"] + 1)
        if epoch % spec["snapshot_every"] == 0 or epoch == spec["epochs"]
    ]
    kept = {(role, epoch) for role, since in first.items() for epoch in epochs if epoch >= since}
    return kept == {(role, int(epoch)) for role, by_epoch in record["snapshots"].items() for epoch in by_epoch}


def _is_consistent(record: Mapping[str, Any]) -> bool:
    finished = record["finished"]
    epochs = [int(epoch) for kept in (*record["snapshots"].values(), record["states"]) for epoch in kept]
    return finished == len(record["history"]) and all(1 <= epoch <= finished for epoch in epochs)


def _is(value: Any, form: Any) -> bool:
    """Return whether a JSON value has a form: a type, a text's pattern, a tuple of forms, a list's or a dict's."""
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    if isinstance(form, tuple):
        return any(_is(value, each) for each in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(_is(each, form[0]) for each in value)
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return False
        if "" in form:  # any keys that have a form of their own
            return all(_is(key, form[""]) and _is(each, form["values"]) for key, each in value.items())
        return all(name in value and _is(value[name], each) for name, each in form.items())
    return isinstance(value, form) and not (isinstance(value, bool) and form is not bool)


_EPOCH = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_ROLE = re.compile(r"[a-z_]+", re.ASCII)
_RECORD = {
    "spec": dict,
    "id": str,
    "data": {"digest": str, "source": str, "extra": (str, type(None))},
    "guided_by": [str],
    "environments": [{"device": str}],
    "finished": int,
    "states": {"": _EPOCH, "values": {"name": _FILE, "digest": _DIGEST}},
    "snapshots": {"": _ROLE, "values": {"": _EPOCH, "values": _DIGEST}},
    "history": [{"loss": (float, int), "seconds": (float, int)}],
}
