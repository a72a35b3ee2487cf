"""What surrounds every request: an identifier, safe headers, one log line, metrics."""

import time
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import VERBS, InternalError, respond
from service.domain.ids import new_id
from service.telemetry import HTTP_BODY_BYTES, HTTP_REQUESTS, HTTP_SECONDS, Log

UNMATCHED: Final = "unmatched"
LEFT: Final = 499
"""Told of requests whose caller left before the answer; it is never sent."""

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline';"
    " frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Sent with every answer: nothing may be kept, sniffed, framed or run."""


class Envelope:
    """Wraps the application; the outermost part of it that is ours.

    Parameters
    ----------
    app
        What is wrapped.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = Log()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or hand on what is no request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = LEFT
        except Exception as error:  # noqa: BLE001 - the last place that can answer
            self._log.bug(error, request=exchange.id, route=exchange.route)
            await exchange.fail()
        finally:
            self._tell(exchange)

    def _tell(self, exchange: "_Exchange") -> None:
        """Log and count the exchange by the route's template, never by its path."""
        seconds = time.perf_counter() - exchange.began
        verb, route = exchange.verb, exchange.route
        HTTP_REQUESTS.labels(verb, route, str(exchange.status)).inc()
        HTTP_SECONDS.labels(verb, route).observe(seconds)
        if exchange.received:
            HTTP_BODY_BYTES.labels(verb, route).observe(exchange.received)
        self._log.info(
            "http_request",
            request=exchange.id,
            verb=verb,
            route=route,
            status=exchange.status,
            seconds=round(seconds, 4),
            bytes=exchange.received,
        )


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = new_id("rq")
        self.began = time.perf_counter()
        self.status = LEFT
        self.received = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self._whole = False
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def verb(self) -> str:
        """The verb, if it is one of HTTP's."""
        verb: str = self._scope["method"]
        return verb if verb in VERBS else "other"

    @property
    def route(self) -> str:
        """The template of the route that served it."""
        path: str = getattr(self._scope.get("route"), "path", UNMATCHED)
        return path

    async def receive(self) -> Message:
        """Hand on what comes, counted."""
        message = await self._receive()
        self.received += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Hand on what goes, with our headers."""
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if not self._whole and self._announces_body():
                headers["Connection"] = "close"  # what is left of the body is not read
        await self._send(message)

    def _announces_body(self) -> bool:
        names = {name for name, _ in self._scope["headers"]}
        return bool(names & {b"content-length", b"transfer-encoding"})

    async def fail(self) -> None:
        """Answer a bug: a fixed text, or a broken connection when an answer had begun."""
        if self._started:
            return
        error = InternalError("A fault of the service; tell the operator the request's id.")
        await respond(error, self.id)(self._scope, self.receive, self.send)
