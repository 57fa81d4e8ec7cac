"""Write files so that they appear whole or not at all."""

import os
import uuid
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, even if the process is killed.

    A process that is killed meanwhile leaves a temporary file ``.<name of the file>.<32 hex digits>.tmp`` beside it.

    Raises
    ------
    OSError
        If it cannot be written (a full disk, an unwritable folder); an earlier version of the file is intact.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # if the folder itself cannot be reached, the first error says so
            temporary.unlink(missing_ok=True)
        raise
