"""`tenios doctor`: what would be used, without ringing anybody."""

from __future__ import annotations

import os
import platform
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.table import Table

from tenios_async.cli.calls import ask, read_callback
from tenios_async.cli.outcome import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenios_async import TeniosClient
    from tenios_async.cli.outcome import Output

_PACKAGES = ("tenios_async", "httpx", "httpcore", "anyio", "attrs", "certifi")


async def examine(
    client: Callable[[], TeniosClient],
    output: Output,
    *,
    base_url: str | None,
    config_id: str | None,
    callback: str | None,
) -> Exit:
    """Prints what was resolved; asks once for `callback` where one is given."""
    facts: dict[str, str] = {}
    tenios: TeniosClient | None = None
    problem: Exception | None = None
    try:
        tenios = client()
    except (ValueError, OSError) as error:
        problem = error
    if tenios is not None:
        facts["base URL"] = tenios.base_url + ("" if base_url else " (default)")
        facts["transport"] = tenios.transport
    facts["access key"] = "set" if tenios is not None else "see below"
    facts["config id"] = "set" if config_id else "not set (TENIOS_CALLBACK_CONFIG_ID)"
    facts["proxy"] = "unknown" if tenios is None else _proxy(tenios.base_url)
    facts["trust store"] = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or "certifi"
    facts["python"] = f"{platform.python_version()} on {platform.system()}"
    facts |= {package: _version(package) for package in _PACKAGES}
    _print(output, facts)
    if problem is not None:
        raise problem
    if tenios is None or callback is None:
        return Exit.OK
    await ask(tenios, read_callback(callback), output, timeout=None)
    return Exit.OK


def _print(output: Output, facts: dict[str, str]) -> None:
    output.emit("doctor", **{name.replace(" ", "_").lower(): value for name, value in facts.items()})
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(name, value.replace("[", r"\["), style=None if value != "see below" else "red")
    if not output.as_json:
        output.console.print(table)


def _proxy(base_url: str) -> str:
    """The proxy the environment names for this URL, without its user information."""
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found:
        return "none"
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return "none (NO_PROXY)"
    proxy = urlsplit(found)
    return f"{proxy.scheme}://{proxy.hostname}" + (f":{proxy.port}" if proxy.port else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
