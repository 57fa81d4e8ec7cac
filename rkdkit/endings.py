"""How work ends before it is done, in one line for the user: refused, out of memory, or an error of something else."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

KEPT = "What is trained is kept: the same command goes on after the last finished epoch."

REFUSALS = ("ValueError", "UnknownNameError", "DataNotFoundError", "StoreError", "DamagedFileError")
"""The classes of errors whose messages are sentences and need no name before them."""

_OUT_OF_MEMORY = ("MemoryError", "_ArrayMemoryError", "OutOfMemoryError")
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "Cannot allocate memory")


class Stopped(KeyboardInterrupt):
    """The user's interruption of work that goes on where it was. In a Jupyter kernel, its line is all that is shown.

    Parameters
    ----------
    at : the trainings that were interrupted: what each is, its finished epochs, and all of its epochs.
    """

    def __init__(self, at: Sequence[tuple[str, int, int]] = ()) -> None:
        places = [
            f"{what}, after epoch {finished} of {epochs}" if finished else f"{what}, in its first epoch"
            for what, finished, epochs in at
        ]
        where = f"Stopped: {'; '.join(places)}." if places else "Stopped. What is finished is kept."
        super().__init__(f"{where} Running this again goes on from there.")

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def for_memory(kind: str, message: str) -> bool:
    """Return whether an error, given by the name of its class and its message, says that there was too little memory.

    Python and numpy have classes for it. Of torch's errors, most are a RuntimeError, which only their messages tell
    from others.
    """
    return kind in _OUT_OF_MEMORY or any(words in message for words in _NO_MEMORY)


def in_words(kind: str, message: str) -> str:
    """Return what an error says, for the user.

    Parameters
    ----------
    kind : the name of its class: that is all that is known of an error in another process.
    message : its message.
    """
    message = message.strip()
    if for_memory(kind, message):
        first = message.partition("\n")[0].rstrip(".")
        return (
            f"There was too little memory{f' ({first})' if first else ''}: fewer images, a smaller network, batch_size "
            "or RKDKIT_EVALUATION_BATCH, or fewer workers need less."
        )
    return message if message and kind in (*REFUSALS, Stopped.__name__) else f"{kind}: {message}"


@contextmanager
def one_line_at_the_end(kept: str) -> Iterator[None]:
    """Say in one line that the user, or too little memory, ended a command; `kept` is what is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nStopped. {kept}", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        kind, message = type(error).__name__, str(error)
        if not for_memory(kind, message):
            raise
        sys.exit(f"\n{in_words(kind, message)} {kept}")
