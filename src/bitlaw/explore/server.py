"""The server: at 127.0.0.1 and nowhere else, with bounds on what a connection may take."""

from __future__ import annotations

import asyncio
import secrets
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import ConfigError

HOST = "127.0.0.1"  # there is no way to change it: a tunnel is safer than a listening port
CONNECTIONS = 64
HEADER_BYTES = 64_000
ASK_SECONDS = 10.0  # for a request to arrive
ANSWER_SECONDS = 60.0  # for an answer to be taken
TICK_SECONDS = 1.0


class Bounded(H11Protocol):
    """HTTP in which neither a slow question nor a slow reader holds a connection for long."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch a connection."""
        super().connection_made(transport)
        self._since, self._busy = self.loop.time(), False
        self._answered: object = None
        self.loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        if self.transport.is_closing():
            return
        busy, now = self.cycle is not None and not self.cycle.response_complete, self.loop.time()
        if busy != self._busy or self.cycle is not self._answered:  # each request has a cycle of its own
            self._since, self._busy, self._answered = now, busy, self.cycle
        if now - self._since > (ANSWER_SECONDS if busy else ASK_SECONDS):
            self.transport.abort()
        else:
            self.loop.call_later(TICK_SECONDS, self._tick)


def listen(port: int = 0) -> socket.socket:
    """A socket at 127.0.0.1; port 0 is any that is free.

    Raises:
        ConfigError: the port is taken, or not ours to take.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {HOST}:{port}: {error}; leave --port out for a free one"
        ) from error
    return listening


def new_token() -> str:
    """What nobody can guess."""
    return secrets.token_urlsafe(24)


def server(app: ASGIApp) -> uvicorn.Server:
    """A server of an application, not started yet; it says nothing."""
    config = uvicorn.Config(
        app,
        http=Bounded,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
