"""What can go wrong, as one tree.

```
TeniosError                     the base of all of them
├── ApiError                    TENIOS answered, and the answer is no
│   ├── BadCredentials          400 BAD_CREDENTIALS: the access key or the callback configuration id is wrong
│   ├── PermissionDenied        401, 403
│   ├── NotFound                404
│   ├── RateLimited             429
│   ├── ServerError             5xx
│   └── InvalidRequest          any other 4xx with an error of the API
├── ConnectionFailed            there was no connection: nothing was sent
├── RequestTimeout              a read was sent and not answered in time
├── ProtocolError               what answered is not the API
├── CallbackOutcomeUnknown      init only: sent, and no answer proves what became of it
├── ClientMisuse                also a RuntimeError: closed, another event loop, forked
└── WatchInterrupted            a watch ended before the call did
    └── WatchTimeout            because its time was up
```

A call that fails (`CALL_A_FAILED`, `CALL_B_FAILED`) is a transition, not an error. Bad arguments raise `ValueError`
before anything is sent. Errors hold no request and no access key, and survive pickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenios_async._models import Callback, Transition


class TeniosError(Exception):
    """The base of every error this library raises on purpose."""

    may_have_dialled: bool = False
    """Whether the operation that raised this may have made a phone ring. Always false for reads."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, vars(self))


def _rebuild(cls: type[TeniosError], args: tuple[Any, ...], attributes: dict[str, Any]) -> TeniosError:
    error = cls.__new__(cls, *args)
    vars(error).update(attributes)
    return error


class ApiError(TeniosError):
    """TENIOS answered, and the answer is no.

    Attributes:
        status_code: the HTTP status.
        error_code: the vendor's code, for instance `BAD_CREDENTIALS`, or None.
        error_message: the vendor's text, with phone numbers masked, or None.
        fields: the request fields the vendor complains about.
        retry_after: seconds the server asks to wait, or None.
    """

    meaning = "TENIOS refused the request"

    def __init__(
        self,
        status_code: int,
        error_code: str | None = None,
        error_message: str | None = None,
        fields: tuple[str, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        self.status_code = status_code
        self.error_code = error_code
        self.error_message = error_message
        self.fields = fields
        self.retry_after = retry_after
        text = f"{self.meaning} (HTTP {status_code}"
        text += f", {error_code})" if error_code else ")"
        if error_message:
            text += f": {error_message}"
        if fields:
            text += f" [fields: {', '.join(fields)}]"
        super().__init__(text)


class BadCredentials(ApiError):
    """400 with `BAD_CREDENTIALS`: TENIOS answers it for a wrong access key and for a wrong configuration id."""

    meaning = (
        "TENIOS did not accept the access key or, since it answers the same for both, the callback configuration id;"
        " compare both with the customer portal"
    )


class PermissionDenied(ApiError):
    """403 (or 401): the access key may not do this."""

    meaning = "TENIOS denied access to this access key"


class NotFound(ApiError):
    """404: TENIOS does not know the callback, or not the method (is the base URL right?)."""

    meaning = "TENIOS does not know this callback or this URL"


class RateLimited(ApiError):
    """429: too many requests; `retry_after` says how many seconds to wait, if the server said so."""

    meaning = "TENIOS asks for fewer requests"


class ServerError(ApiError):
    """5xx on a read. On init a 5xx is a `CallbackOutcomeUnknown`: it can follow a call that was accepted."""

    meaning = "TENIOS failed to answer"


class InvalidRequest(ApiError):
    """Any other 4xx with an `error_code`: TENIOS refuses the request; `fields` names what it complains about."""

    meaning = "TENIOS does not accept the request"


class ConnectionFailed(TeniosError):
    """No connection could be had within the time: nothing was sent and no phone rang. Trying again is safe."""


class RequestTimeout(TeniosError):
    """A read was not answered in time. Asking again is safe."""


class ProtocolError(TeniosError):
    """An answer that is not the API's: a redirect, a proxy's page or refusal, broken JSON, more than 64 KiB.

    Attributes:
        status_code: the HTTP status, or None if there was none.
    """

    def __init__(self, message: str, status_code: int | None = None) -> None:
        self.status_code = status_code
        super().__init__(message)


class CallbackOutcomeUnknown(TeniosError):
    """The init request may have arrived, and no answer proves what became of it. The phone may ring.

    TENIOS offers no way to look it up: do not send it again before somebody has checked the customer portal or asked
    the person. The reason is in `__cause__`.

    Attributes:
        reason: what happened.
        status_code: the HTTP status of the answer, or None if there was none.
    """

    may_have_dialled = True

    def __init__(self, reason: str, status_code: int | None = None) -> None:
        self.reason = reason
        self.status_code = status_code
        super().__init__(
            f"the callback may have been placed and a phone may ring: {reason}."
            " Do not send it again before checking the TENIOS customer portal"
        )


class ClientMisuse(TeniosError, RuntimeError):
    """The client was used after `aclose()`, on another event loop, or in a forked child; or one watch twice at once."""


class WatchInterrupted(TeniosError):
    """A watch ended before the call did. `callback` resumes it, here or in another process.

    Attributes:
        last: the last transition that was seen, or None.
        callback: the resume token.
        cause: what ended the watch, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        callback: Callback,
        last: Transition | None = None,
        cause: TeniosError | None = None,
    ) -> None:
        self.callback = callback
        self.last = last
        self.cause = cause
        super().__init__(message)


class WatchTimeout(WatchInterrupted):
    """The time given to a watch was up before the call ended."""
