"""The options that say how to reach TENIOS, shared by the commands that do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Group, Parameter

from tenios_async import Polling, TeniosClient

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenios_async import Observer

_GROUP = Group("Connection", sort_key=9)
_LARGEST_KEY_FILE = 64 * 1024
_POLLING = Polling()


@Parameter(name="*", group=_GROUP)
@attrs.frozen
class Connection:
    """How to reach TENIOS.

    Attributes:
        base_url: Where the API is; the default is https://api.tenios.com.
        access_key_file: A file with the access key, instead of TENIOS_ACCESS_KEY.
        allow_insecure_http: Let the base URL be plain http:// beyond this machine.
    """

    base_url: Annotated[str | None, Parameter(env_var="TENIOS_BASE_URL")] = None
    access_key_file: Path | None = None
    allow_insecure_http: Annotated[bool, Parameter(negative=(), show_default=False)] = False

    def access_key(self) -> str:
        """The key from the file or the environment. Raises `ValueError` or `OSError` where there is none."""
        if self.access_key_file is None:
            key = os.environ.get("TENIOS_ACCESS_KEY", "")
        else:
            with self.access_key_file.open(encoding="utf-8") as file:
                key = file.read(_LARGEST_KEY_FILE).strip()
        if not key.strip():
            where = "TENIOS_ACCESS_KEY" if self.access_key_file is None else str(self.access_key_file)
            raise ValueError(
                f"there is no access key in {where}; set TENIOS_ACCESS_KEY or give --access-key-file"
                " (the key is in the customer portal, General Settings, API)"
            )
        return key

    def url(self) -> str | None:
        """The base URL that was given. An empty one is none: `--base-url "$UNSET"` must not ring real phones."""
        if self.base_url is not None and not self.base_url.strip():
            raise ValueError(
                "the base URL is empty; leave --base-url and TENIOS_BASE_URL out for https://api.tenios.com"
            )
        return self.base_url

    def client(
        self, *, observers: Iterable[Observer] = (), polling: Polling = _POLLING, access_key: str | None = None
    ) -> TeniosClient:
        """A client, not opened yet. Raises `ValueError` or `OSError`."""
        return TeniosClient(
            self.access_key() if access_key is None else access_key,
            base_url=self.url(),
            allow_insecure_http=self.allow_insecure_http,
            observers=observers,
            polling=polling,
        )
