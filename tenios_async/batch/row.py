"""One call in a ledger: whom, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from tenios_async import Callback, CallbackRequest
from tenios_async.batch.standing import Standing


@attrs.frozen
class Row:
    """One call in a ledger.

    Attributes:
        id: its number in the ledger.
        key: what is never dialled twice: in a campaign the phone number.
        request: whom to call.
        standing: where it stands.
        line: in the contacts file, or None.
        extra: further columns of that line.
    """

    id: int
    key: str = attrs.field(repr=False)
    request: CallbackRequest
    standing: Standing
    line: int | None = None
    extra: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)

    def at(self, standing: Standing) -> Row:
        """The row after a move."""
        return attrs.evolve(self, standing=standing)

    @property
    def callback(self) -> Callback | None:
        """The callback, once it was placed: the token by which it is followed."""
        row = self.standing
        if row.callback_id is None:
            return None
        return Callback(row.callback_id, self.request.callback_config_id, self.request.delay, row.placed_at, row.status)


@attrs.frozen
class Resolution:
    """What a person said became of a call in doubt.

    Attributes:
        verdict: `called` or `not called`.
        who: who said so.
        at: when.
    """

    verdict: str
    who: str
    at: datetime


@attrs.frozen
class NewRow:
    """What is written into a ledger: see `Row`."""

    key: str = attrs.field(repr=False)
    request: CallbackRequest
    line: int | None = None
    extra: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
