"""The application: its pages, and what lives as long as it does."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TypedDict
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from tenios_async import (
    CallbackOutcomeUnknown,
    CallbackRequest,
    ConnectionFailed,
    InvalidRequest,
    Rate,
    TeniosClient,
    TeniosError,
)
from tenios_async.batch import Ledger, LedgerError, NotSent, SQLiteLedger
from web_callback.calls import Calls, is_handle, new_handle
from web_callback.events import CallEvents
from web_callback.guard import MOST_BYTES, Guard
from web_callback.limits import Limits, TooMany
from web_callback.numbers import Numbers
from web_callback.words import STEPS, State, view_of

_log = logging.getLogger("web_callback")

_HERE = Path(__file__).parent
_PAGES = Jinja2Templates(_HERE / "templates")


class _Shared(TypedDict):
    """What lives as long as the application."""

    calls: Calls


def from_environment() -> Starlette:
    """The application as the environment says; README.md lists the variables."""
    path = os.environ["CALLBACK_LEDGER"]
    return create_app(
        os.environ["TENIOS_CALLBACK_CONFIG_ID"],
        ledger=lambda: SQLiteLedger(path),
        numbers=Numbers(os.environ.get("CALLBACK_REGIONS", "DE").split(",")),
    )


def create_app(
    config_id: str,
    *,
    ledger: Callable[[], Ledger],
    numbers: Numbers,
    limits: Limits | None = None,
    tenios: Callable[[], TeniosClient] = lambda: TeniosClient(rate_limit=Rate(20)),
) -> Starlette:
    """The application.

    Args:
        config_id: the callback configuration, which names the agents.
        ledger: makes the ledger.
        numbers: which may be called.
        limits: how often.
        tenios: makes the client.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[_Shared, None]:
        async with (
            ledger() as opened,
            tenios() as client,
            Calls(client, opened, limits or Limits()) as calls,
        ):
            yield {"calls": calls}

    pages = Pages(config_id, numbers)
    return Starlette(
        routes=[
            Route("/", pages.form),
            Route("/calls", pages.place, methods=["POST"]),
            Route("/calls/{handle}", pages.call),
            Route("/calls/{handle}/events", pages.events),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={404: pages.not_found},
        lifespan=lifespan,
    )


class Pages:
    """The form, and the page of a call."""

    def __init__(self, config_id: str, numbers: Numbers) -> None:
        self._config_id = config_id
        self._numbers = numbers

    async def form(self, request: Request) -> Response:
        """An empty form, with a handle of its own."""
        return self._form(request)

    async def place(self, request: Request) -> Response:
        """Places the call of a form; sent again, it leads to the same call."""
        calls: Calls = request.state.calls
        fields = await _read(request)
        handle, typed = fields.get("handle", ""), fields.get("number", "")
        if not is_handle(handle):
            return self._form(request, typed, "This form is not complete. Please send it once more.", 400)
        try:
            number = self._numbers.read(typed)
        except ValueError as problem:
            return self._form(request, typed, str(problem), 422, is_about_number=True)
        address = request.client.host if request.client else ""
        try:
            await calls.place(handle, CallbackRequest(self._config_id, number), address)
        except TooMany as refusal:
            return self._form(request, typed, _about_limit(refusal), 429, retry_after=refusal.retry_after)
        except (ValueError, TeniosError, NotSent, LedgerError) as error:
            return self._form(request, typed, *_about_failure(error))
        return RedirectResponse(request.url_for("call", handle=handle).path, status_code=303)

    async def call(self, request: Request) -> Response:
        """How a call goes."""
        calls: Calls = request.state.calls
        state = await calls.state(request.path_params["handle"])
        if state is None:
            raise HTTPException(404)
        context = {"view": view_of(state), "steps": STEPS, "events": f"{request.url.path}/events"}
        return _PAGES.TemplateResponse(request, "call.html", context, headers={"Cache-Control": "no-store"})

    async def events(self, request: Request) -> Response:
        """The same, as it happens."""
        return CallEvents(
            request.state.calls, request.path_params["handle"], request.headers.get("Last-Event-ID"), _parts
        )

    async def not_found(self, request: Request, _: Exception) -> Response:
        """Also for a call that we do not know."""
        return self._form(request, alert="This page does not exist. Would you like a call?", status_code=404)

    def _form(
        self,
        request: Request,
        typed: str = "",
        alert: str | None = None,
        status_code: int = 200,
        *,
        is_about_number: bool = False,
        retry_after: int | None = None,
    ) -> Response:
        context = {
            "handle": new_handle(),
            "typed": typed,
            "alert": alert,
            "is_about_number": is_about_number,
            "examples": self._numbers.examples,
        }
        headers = {"Cache-Control": "no-store"}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return _PAGES.TemplateResponse(request, "form.html", context, status_code, headers)


async def _read(request: Request) -> dict[str, str]:
    """The fields of a small form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise HTTPException(413, "This is more than the form can hold.")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=10, errors="strict")
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _parts(state: str) -> Mapping[str, object]:
    """What of the page changes with the state."""
    view = view_of(state)
    parts = {name: _PAGES.get_template(f"{name}.html").render(view=view, steps=STEPS) for name in ("news", "steps")}
    return {**parts, "title": view.title, "is_over": view.is_over}


def _about_limit(refusal: TooMany) -> str:
    minutes = max(1, round(refusal.retry_after / 60))
    when = f"in {minutes} minutes" if minutes > 1 else "in a minute"
    texts = {
        "number": f"We were asked to call this number a moment ago. Should it not ring, ask again {when}.",
        "address": f"You have asked for many calls. You can ask again {when}.",
        "total": f"More people want a call than we can answer. Please ask again {when}.",
    }
    return texts[refusal.what]


def _about_failure(error: Exception) -> tuple[str, int]:
    """What to say, and the status."""
    if isinstance(error, ValueError):
        return "This form was sent before, for another number. To be called on this one, send it once more.", 409
    _log.error("a call could not be placed: %s: %s", type(error).__name__, error)
    if isinstance(error, CallbackOutcomeUnknown):
        view = view_of(State.UNKNOWN)
        return f"{view.title}. {view.text}", 503
    if isinstance(error, InvalidRequest):
        return "This number cannot be called. Please check it.", 422
    if isinstance(error, (ConnectionFailed, NotSent)):
        return "We could not connect. Nothing was sent, and your phone will not ring. Please try again.", 503
    return "We cannot place calls at the moment. Your phone will not ring. Please try again later.", 503
