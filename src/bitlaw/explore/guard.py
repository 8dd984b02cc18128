"""Who may ask the explorer what: every request passes here before anything looks at it.

A page of another site that is open in the same browser can send requests to this machine, under a name of its own
choosing, and other people on the machine can reach its ports. So the Host must be ours, only reading is possible,
and a random token in the address says that whoever asks has seen the line that was printed.
"""

from __future__ import annotations

import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_QUERY = 48_000  # bytes; a selection by names of runs is long
MAX_PATH = 200
METHODS = ("GET", "HEAD")
#: plotly and the page set styles of single elements from script; nothing else is wider than our own origin.
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


class Guard:
    """Lets through what may be asked, with the token taken off its path, and refuses the rest.

    Args:
        app: what answers.
        token: the first part of every path.
        port: that is listened at; a Host names it.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token = app, token.encode()
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":  # of the server, not from anybody
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("nothing but HTTP is spoken here")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        status, reason = self.refusal(scope)
        if status:
            await refuse(guarded, status, reason)
            return
        path = scope["path"].split("/", 2)[2]
        await self.app({**scope, "path": f"/{path}", "raw_path": f"/{path}".encode()}, receive, guarded)

    def refusal(self, scope: Scope) -> tuple[int, str]:
        """The status and the reason with which a request is refused; 0 if it is let through."""
        headers = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421, "this address is for 127.0.0.1 alone"
        if scope["method"] not in METHODS:
            return 405, "the explorer only reads: GET and HEAD"
        body = [v for k, v in headers if k == b"transfer-encoding" or (k == b"content-length" and v != b"0")]
        if body:
            return 413, "nothing may be sent along"
        if len(scope["path"]) > MAX_PATH or len(scope["query_string"]) > MAX_QUERY:
            return 414, "the address is too long; choose runs by conditions rather than one by one"
        parts = scope["path"].split("/", 2)
        known = parts[1].encode("utf-8", "surrogatepass") if len(parts) == 3 else b""
        if not hmac.compare_digest(known, self.token):
            return 404, "not found; open the address that bitlaw explore printed"
        return 0, ""


async def refuse(send: Send, status: int, reason: str) -> None:
    """Answer with an error and end the connection."""
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    headers += [(b"allow", b"GET, HEAD")] if status == 405 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
