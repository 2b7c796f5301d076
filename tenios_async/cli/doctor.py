"""`tenios doctor`: what would be used, without ringing anybody."""

from __future__ import annotations

import os
import platform
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tenios_async.cli.calls import ask
from tenios_async.cli.outcome import Exit

if TYPE_CHECKING:
    from tenios_async import Callback, TeniosClient
    from tenios_async.cli.connection import Connection
    from tenios_async.cli.output import Output

_PACKAGES = ("tenios_async", "httptools", "httpx", "httpcore", "h11", "anyio", "attrs", "certifi", "cyclopts", "rich")


async def examine(connection: Connection, output: Output, *, config_id: str | None, callback: Callback | None) -> Exit:
    """Prints what was resolved; asks once for `callback` where one is given."""
    problem: Exception | None = None
    key: str | None = None
    tenios: TeniosClient | None = None
    try:
        key = connection.access_key()
    except (ValueError, OSError) as error:
        problem = error
    try:
        tenios = connection.client(access_key=key or "not-set")
    except ValueError as error:
        problem = problem or error
    base_url = None if tenios is None else tenios.base_url
    _print(
        output,
        {
            "base_url": base_url or "not usable",
            "access_key": "not set" if key is None else "set",
            "config_id": "set" if config_id else "not set",
            "transport": "none" if tenios is None else tenios.transport,
            "proxy": _proxy(base_url),
            "trust_store": _trust_store(base_url),
            "python": f"{platform.python_version()} on {platform.system()}",
            **{package: _version(package) for package in _PACKAGES},
        },
    )
    if problem is not None:
        raise problem
    assert tenios is not None  # noqa: S101  # or that is the problem
    if callback is not None:
        await ask(tenios, callback, output, timeout=None)
    else:
        async with tenios:  # says whether the proxy can be used
            pass
    return Exit.OK


def _print(output: Output, facts: dict[str, str]) -> None:
    output.emit("doctor", **facts)
    output.columns([(name if name in _PACKAGES else name.replace("_", " "), value) for name, value in facts.items()])


def _proxy(base_url: str | None) -> str:
    """The proxy the environment names for this URL, without its user information."""
    parts = urlsplit(base_url or "https://")
    proxies = urllib.request.getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found:
        return "none"
    if urllib.request.proxy_bypass(parts.netloc):
        return "none, by NO_PROXY"
    try:
        proxy = urlsplit(found if "://" in found else f"http://{found}")
        port = f":{proxy.port}" if proxy.port else ""
    except ValueError:
        return "not a URL"
    return f"{proxy.scheme}://{proxy.hostname or ''}{port}"


def _trust_store(base_url: str | None) -> str:
    """What certificates are checked against; httpx reads the same two variables."""
    if base_url is not None and base_url.startswith("http://"):
        return "none, plain http"
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if path := os.environ.get(variable):
            return f"{path} ({variable})" if Path(path).exists() else f"not there: {path} ({variable})"
    return "certifi"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
