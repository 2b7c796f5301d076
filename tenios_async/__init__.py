"""Place telephone callbacks through the TENIOS Callback API, never twice by mistake, and follow each to its end."""

from tenios_async._client import CallbackWatch, TeniosClient
from tenios_async._errors import (
    ApiError,
    BadCredentials,
    CallbackOutcomeUnknown,
    ClientMisuse,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    RequestTimeout,
    ServerError,
    TeniosError,
    WatchInterrupted,
    WatchTimeout,
)
from tenios_async._events import Ended, Event, Observer, Placed, Polled, Transitioned
from tenios_async._lifecycle import CallbackStatus
from tenios_async._limits import Rate
from tenios_async._models import (
    AttemptOutcome,
    Callback,
    CallbackAttempt,
    CallbackRequest,
    CallbackResult,
    Connections,
    Transition,
    mask_number,
)
from tenios_async._monitor import CallbackMonitor
from tenios_async._polling import Polling

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "AttemptOutcome",
    "BadCredentials",
    "Callback",
    "CallbackAttempt",
    "CallbackMonitor",
    "CallbackOutcomeUnknown",
    "CallbackRequest",
    "CallbackResult",
    "CallbackStatus",
    "CallbackWatch",
    "ClientMisuse",
    "ConnectionFailed",
    "Connections",
    "Ended",
    "Event",
    "InvalidRequest",
    "NotFound",
    "Observer",
    "PermissionDenied",
    "Placed",
    "Polled",
    "Polling",
    "ProtocolError",
    "Rate",
    "RateLimited",
    "RequestTimeout",
    "ServerError",
    "TeniosClient",
    "TeniosError",
    "Transition",
    "Transitioned",
    "WatchInterrupted",
    "WatchTimeout",
    "__version__",
    "mask_number",
]
