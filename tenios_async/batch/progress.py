"""How far a campaign is, in counts."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, assert_never

import attrs

from tenios_async import CallbackStatus, TeniosError
from tenios_async.batch.standing import RowState

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.define
class Progress:
    """How far a campaign is. Counts of rows; live while it runs.

    Attributes:
        queued: to be dialled yet.
        placing: being placed.
        following: placed, by the last state seen; None before the first look.
        finished: ended, by the state they ended in; None where nobody saw it.
        refused: refused by TENIOS.
        unknown: in doubt.
        left: how many this run may place yet; infinite without a limit.
        placed_now: placed since the run began.
        polls: status polls since the run began.
        seconds: since the run began.
        waiting_for: why nothing is being placed at the moment, or None.
        stopped: why nothing is placed any more, or None.
        cause: the refusal that stopped it, or None.
    """

    queued: int = 0
    placing: int = 0
    following: Counter[CallbackStatus | None] = attrs.field(factory=Counter[CallbackStatus | None])
    finished: Counter[CallbackStatus | None] = attrs.field(factory=Counter[CallbackStatus | None])
    refused: int = 0
    unknown: int = 0
    left: float = math.inf
    placed_now: int = 0
    polls: int = 0
    seconds: float = 0.0
    waiting_for: str | None = None
    stopped: str | None = None
    cause: TeniosError | None = None

    def count(self, tally: Mapping[tuple[RowState, CallbackStatus | None], int]) -> None:
        """Takes the counts of rows anew, as a ledger has them."""
        self.following.clear()
        self.finished.clear()
        self.queued = self.placing = self.refused = self.unknown = 0
        for (state, status), count in tally.items():
            match state:
                case RowState.QUEUED:
                    self.queued += count
                case RowState.SENDING:
                    self.placing += count
                case RowState.PLACED:
                    self.following[status] += count
                case RowState.FINISHED:
                    self.finished[status] += count
                case RowState.REFUSED:
                    self.refused += count
                case RowState.UNKNOWN:
                    self.unknown += count
                case _:
                    assert_never(state)

    @property
    def total(self) -> int:
        """All rows."""
        settled = self.refused + self.unknown + self.finished.total()
        return self.queued + self.placing + self.following.total() + settled

    @property
    def seconds_left(self) -> float | None:
        """Until all are placed that this run may place, at the pace so far; None before there is one."""
        if not self.placed_now or not self.seconds:
            return None
        return min(self.queued, self.left) * self.seconds / self.placed_now
