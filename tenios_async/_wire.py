"""Both endpoints, as bytes out and bytes in. Nothing here has seen a socket.

The vendor's page: every request is an HTTP POST of a JSON object with the `access_key` inside; every answer is JSON.
There is no header that authorises: the body is the secret, so it travels as a `Body` that shows nothing of itself.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

import attrs

from tenios_async._errors import (
    ApiError,
    BadCredentials,
    CallbackOutcomeUnknown,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
)
from tenios_async._lifecycle import CallbackStatus
from tenios_async._models import check_id, mask_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Address, IPv6Address

    from tenios_async._models import Callback, CallbackRequest

_T = TypeVar("_T")

DEFAULT_BASE_URL = "https://api.tenios.com"
INIT_PATH = "/callback/init"
STATUS_PATH = "/callback/status"

MAX_BODY = 64 * 1024
"""Bytes. The documented answers are under 200; nginx and h11 bound a whole header block at 32 and 16 KiB."""

MAX_RETRY_AFTER = 300.0
"""Seconds. RFC 9110 10.2.3 sets no bound; urllib3 obeys any value, which a typo turns into a day's sleep."""


class AccessKey:
    """The API access key. Shows nothing of itself in repr, str or format, and refuses to be pickled."""

    __slots__ = ("_reveal", "_reveal_json")

    def __init__(self, text: str) -> None:
        quoted = json.dumps(text, ensure_ascii=False) if isinstance(text, str) else ""
        self._reveal: Callable[[], str] = lambda: text
        self._reveal_json: Callable[[], str] = lambda: quoted

    def check(self) -> None:
        """Raises `ValueError` where this cannot be a key; apart from `__init__`, so that no frame holds the text."""
        if not isinstance(self._reveal(), str) or not self._reveal().strip():
            raise ValueError(
                "an access key is needed: pass access_key= or set TENIOS_ACCESS_KEY"
                " (customer portal, General Settings, API)"
            )
        if self._reveal() != self._reveal().strip() or not self._reveal().isprintable():
            raise ValueError("the access key has white space or control characters in or around it")

    def reveal(self) -> str:
        """The key itself, to look for it in what is shown."""
        return self._reveal()

    def remove_from(self, text: str) -> str:
        """The text with stars where the key stood, also as JSON or a `repr` of bytes writes it."""
        key = self._reveal()
        if len(key) > _TOO_SHORT_TO_BE_A_SECRET:
            for spelling in (key, json.dumps(key)[1:-1], self._reveal_json()[1:-1], repr(key.encode())[2:-1]):
                text = text.replace(spelling, "***")
        return text

    def reveal_json(self) -> str:
        """The key as JSON, for the moment it meets the wire."""
        return self._reveal_json()

    def __repr__(self) -> str:
        return "<AccessKey>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an access key is not pickled; read it from the environment where it is needed")


class Body:
    """The body of one request, opaque: it meets the key in `encode()` and shows nothing of itself before or after.

    Args:
        key: the access key.
        fields: the rest of the JSON object, without braces.
        dials: whether whoever receives this makes a phone ring.
    """

    __slots__ = ("_fields", "_key", "dials")

    def __init__(self, key: AccessKey, fields: str, *, dials: bool) -> None:
        self._key = key
        self._fields = fields
        self.dials = dials
        """Whether whoever receives this makes a phone ring: it may leave once and never again."""

    def encode(self) -> bytes:
        """The bytes for the wire."""
        return f'{{"access_key": {self._key.reveal_json()}, {self._fields}}}'.encode()

    def redact(self, text: str) -> str:
        """The text without the key, and with whatever looks like a phone number masked."""
        return mask_numbers(self._key.remove_from(text))

    def __repr__(self) -> str:
        return "<Body>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a request body is not pickled: it holds the access key")


_TOO_SHORT_TO_BE_A_SECRET = 3
_LIKE_A_NUMBER = re.compile(r"\+[0-9](?:[ ()/.-]{0,2}[0-9]){3,}|[0-9]{7,}")


def mask_numbers(text: str) -> str:
    """The text with whatever looks like a phone number masked."""
    return _LIKE_A_NUMBER.sub(lambda found: mask_number(found[0]), text)


def init_body(key: AccessKey, request: CallbackRequest) -> Body:
    """What `callback/init` is sent. An optional that is not set is left out, never null or empty (vendor's page)."""
    fields: dict[str, Any] = {
        "callback_config_id": request.callback_config_id,
        "callback_number": request.callback_number,
    }
    if request.agent_announcement is not None:
        fields["agent_announcement"] = request.agent_announcement
    if request.dtmf_key_to_trigger_customer_call is not None:
        fields["dtmf_key_to_trigger_customer_call"] = request.dtmf_key_to_trigger_customer_call
    fields["delay"] = request.delay
    return Body(key, json.dumps(fields, ensure_ascii=False)[1:-1], dials=True)


def status_body(key: AccessKey, callback: Callback) -> Body:
    """What `callback/status` is sent: the id as it was received (the example shows a number, the table says String)."""
    number = callback.id
    return Body(key, f'"id": {format(number, "d") if isinstance(number, int) else json.dumps(number)}', dials=False)


@attrs.frozen
class Reply:
    """A whole answer. Header names are lower case; the body has at most `MAX_BODY` bytes and may echo ours.

    A room may leave out the headers of a success (2xx).
    """

    status_code: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


def parse_init(reply: Reply, body: Body) -> int | str:
    """The id of the callback that was placed.

    Raises the API's refusal where the answer proves one (a 4xx with a TENIOS error body), else
    `CallbackOutcomeUnknown`: a 5xx can follow an accepted call, a 4xx without the vendor's body can be anybody's.
    """
    code = reply.status_code
    try:
        if _is_success(code):
            return _callback_id(reply)
        error = _api_error(reply, body)
    except ProtocolError as cause:
        reason = f"HTTP {code} came with an answer that proves nothing ({cause})"
        raise CallbackOutcomeUnknown(reason, code) from cause
    if isinstance(error, ServerError) or error.error_code is None:
        raise CallbackOutcomeUnknown(f"HTTP {code} does not prove that the call was refused", code) from error
    raise error


def _callback_id(reply: Reply) -> int | str:
    callback_id = _or_none(check_id, _json_object(reply).get("id"))
    if callback_id is None:
        raise ProtocolError("the answer names no id", reply.status_code)
    return callback_id


def parse_status(reply: Reply, body: Body) -> CallbackStatus:
    """The state the callback is in. Raises an `ApiError`, or `ProtocolError` for what is not the API's answer."""
    if not _is_success(reply.status_code):
        error = _api_error(reply, body)
        if isinstance(error, InvalidRequest) and error.error_code is None:  # a proxy's: it says nothing of the callback
            raise ProtocolError(f"HTTP {reply.status_code} came without the error of this API", reply.status_code)
        raise error
    status = _known_answer(reply.body) if len(reply.body) <= _SHORT else None
    status = status or _or_none(CallbackStatus, _json_object(reply).get("status"))
    if status is None:
        raise ProtocolError("the answer names no status: a text of 1 to 64 printable characters", reply.status_code)
    return status


_SHORT = 64
"""Bytes: the documented answers have up to 27."""


@functools.lru_cache(maxsize=64)
def _known_answer(body: bytes) -> CallbackStatus | None:
    """The state in an answer: nearly all are one of eight texts, and parsing costs ten times as much as a look."""
    fields = _or_none(_loads, body)
    return _or_none(CallbackStatus, cast("dict[str, Any]", fields).get("status")) if isinstance(fields, dict) else None


def _or_none(make: Callable[[Any], _T], value: Any) -> _T | None:
    """What is made of a value, or None where it raises `ValueError`: kept as a context, that would show the answer."""
    try:
        return make(value)
    except ValueError:
        return None


def _is_success(code: int) -> bool:
    return 200 <= code < 300  # noqa: PLR2004  # RFC 9110 15.3


def _api_error(reply: Reply, body: Body) -> ApiError:
    """The error an answer outside 2xx stands for; `error_code` is None where the body is not the vendor's."""
    code = reply.status_code
    if not 400 <= code < 600:  # noqa: PLR2004  # RFC 9110 15.5, 15.6
        kind = "a redirect, which is not followed" if 300 <= code < 400 else "not an answer of this API"  # noqa: PLR2004
        raise ProtocolError(f"HTTP {code} is {kind}", code)
    is_server_error = code >= 500  # noqa: PLR2004
    try:
        fields = _json_object(reply) if reply.body else {}
    except ProtocolError:
        if not is_server_error and code != 429:  # noqa: PLR2004
            raise
        fields = {}
    error_code = _short_text(fields.get("error_code"), body)
    wait = retry_after(reply.headers)
    if is_server_error:
        cls: type[ApiError] = ServerError
    elif error_code == "BAD_CREDENTIALS":
        cls = BadCredentials
    else:
        cls = {401: PermissionDenied, 403: PermissionDenied, 404: NotFound, 429: RateLimited}.get(code, InvalidRequest)
    return cls(
        code,
        error_code,
        _short_text(fields.get("error_message"), body),
        _field_names(fields.get("fields"), body),
        wait,
    )


def _field_names(named: Any, body: Body) -> tuple[str, ...]:
    """The vendor shows only an empty list; whatever an item turns out to be is shown as JSON."""
    if not isinstance(named, list):
        return ()
    items = list(cast("Iterable[Any]", named))[:20]
    return tuple(_short_text(item if isinstance(item, str) else json.dumps(item), body) or "" for item in items)


def _short_text(value: object, body: Body) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    text = body.redact(value)[:200]
    return "".join(c if c.isprintable() else " " for c in text)


def _json_object(reply: Reply) -> dict[str, Any]:
    value = _or_none(_loads, reply.body)
    if not isinstance(value, dict):
        raise ProtocolError(
            f"the answer (HTTP {reply.status_code}, {len(reply.body)} bytes) is not a JSON object", reply.status_code
        )
    return cast("dict[str, Any]", value)


def _loads(body: bytes) -> Any:
    text = body.decode().removeprefix("\ufeff").strip(" \t\r\n")  # RFC 8259 sections 8.1 (a BOM may be ignored) and 2
    try:
        value, end = _DECODER.raw_decode(text)
    except RecursionError:
        raise ValueError("too deep") from None
    if end != len(text):
        raise ValueError("more than one value")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # RFC 8259 section 6


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 section 4: what a reader makes of a name that stands twice is unpredictable; two ids are no id."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice")
    return fields


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait, from 0 to 300; None where it does not say or what it says is not readable.

    RFC 9110 10.2.3: whole seconds, or an HTTP date. A date counts from the answer's own `Date`, so that no wall clock
    of this machine is needed; without one it is not readable.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value), MAX_RETRY_AFTER) if len(value) <= 10 else MAX_RETRY_AFTER  # noqa: PLR2004
    until, now = _http_date(value), _http_date(headers.get("date", ""))
    if until is None or now is None:
        return None
    return min(max(0.0, (until - now).total_seconds()), MAX_RETRY_AFTER)


def _http_date(value: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # 4 ms, for an answer that comes seldom

    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def parse_base_url(text: str, *, allow_insecure_http: bool = False) -> str:
    """The base URL without a slash at its end; a path is kept. Raises `ValueError` for what cannot carry the key."""
    if not isinstance(allow_insecure_http, bool):
        raise ValueError("allow_insecure_http must be True or False")  # noqa: TRY004  # bad arguments raise ValueError
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError):
        raise ValueError("base_url is not a URL") from None
    if not isinstance(text, str) or not _URL_TEXT.fullmatch(text):
        raise ValueError(
            "base_url is not a URL: it may hold ASCII letters, digits and -._~:/?#[]@!$&'()*+,;=% only"
            " (write a path percent-encoded, and the name of a host as xn--...)"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("base_url must begin with https:// (or http:// on loopback) and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must not carry user information: TENIOS has no such login, and URLs end up in logs")
    if "?" in text or "#" in text:
        raise ValueError("base_url must not carry a query or a fragment")
    if not (_HOST.fullmatch(host) or (_address(host) is not None and "%" not in host)) or port == 0:
        raise ValueError("base_url names a host or a port that there cannot be")
    if not {".", ".."}.isdisjoint(parts.path.split("/")):
        raise ValueError("base_url must not have . or .. in its path")
    if parts.scheme == "http" and not allow_insecure_http and not is_loopback(host):
        raise ValueError(
            f"base_url is plain http:// to {host}: the access key and the numbers would cross the network unencrypted."
            " Use https://, or allow_insecure_http=True if that network is yours"
        )
    authority = f"[{host}]" if ":" in host else host
    authority += f":{port}" if port is not None else ""
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    return f"{parts.scheme}://{authority}{path}"


# RFC 3986 2: what a URL may hold; white space, control characters and others are read differently by every reader.
_URL_TEXT = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
# RFC 1123 2.1: labels of 1 to 63 letters, digits and hyphens; and the underscores of container networks.
_HOST = re.compile(r"(?=.{1,253}\Z)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}(?<!-)\.?")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by definition (RFC 6761 6.3, RFC 1122 3.2.1.3), without asking DNS."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_address(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    return _address(host) is not None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    from ipaddress import ip_address  # noqa: PLC0415  # 1 ms

    return _or_none(ip_address, host)
