"""How a web server is asked for files."""

from typing import Any
from urllib.parse import urlsplit

SECONDS_TO_CONNECT, SECONDS_OF_SILENCE, SECONDS_IN_ALL = 15.0, 30.0, 3600.0
"""How long a web server may take to be connected, to send the next bytes, and to send a file."""


class NotEncryptedError(Exception):
    """An encrypted address leads to one that is not."""


def options() -> dict[str, Any]:
    """Return how a web server is asked: for how long, by which proxy, and no redirection from https to http."""
    import aiohttp  # takes a moment

    timeout = aiohttp.ClientTimeout(SECONDS_IN_ALL, sock_connect=SECONDS_TO_CONNECT, sock_read=SECONDS_OF_SILENCE)
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_stay_encrypted)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True, "trace_configs": [trace]}}


async def _stay_encrypted(_session: Any, _context: Any, redirected: Any) -> None:
    location = redirected.response.headers.get("Location", "")
    if redirected.url.scheme == "https" and urlsplit(location).scheme == "http":
        raise NotEncryptedError(f"{redirected.url} redirects to {location}, which is not encrypted")
