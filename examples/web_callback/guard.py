"""What stands before every page: no form of another site, no large body, and headers that keep the page to itself."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 4096
"""Of a form."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # the address of a page is all it takes to see how its call goes
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or passes on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        app: ASGIApp = self._app
        if scope["method"] not in ("GET", "HEAD") and is_from_elsewhere(Headers(scope=scope)):
            app = PlainTextResponse("This form belongs to another site. No call was placed.\n", 403)
        await app(scope, receive, send_with_headers)


def is_from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that another site has sent this (https://www.w3.org/TR/fetch-metadata/).

    Browsers say where a form comes from; what says nothing is no browser, and has no visitor who could be used.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("Origin")  # of older browsers, and on http:// beyond this machine
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("Host", "").lower()
