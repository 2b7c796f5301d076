"""A ledger as plain synchronous programs use it, whatever it is written on: to look, to add to it, to settle doubts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from tenios_async import Callback
    from tenios_async.batch.row import NewRow, Resolution, Row
    from tenios_async.batch.standing import RowState


class Access(Protocol):
    """An open ledger. Use it as `with ... as ledger`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was laid down when it was made, and counts of what was rejected."""
        ...

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def where(self) -> str:
        """Where it is, as it may be shown."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All of it or nothing, durable when it is left."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """What is read within it is as of one moment."""
        ...

    def put_facts(self, facts: Mapping[str, Any]) -> None:
        """Changes facts, within a transaction."""
        ...

    def put_all(self, rows: Sequence[NewRow]) -> list[bool]:
        """Writes rows, QUEUED, within a transaction; false where its key is there already."""
        ...

    def resolve(self, row: Row, at: datetime, *, who: str, was_called: bool, callback: Callback | None = None) -> None:
        """Writes down what a person says became of a row in doubt, within a transaction. Raises `IllegalMove`."""
        ...

    def queued(self, limit: int, after: int = 0) -> list[Row]:
        """The next rows to dial, by their number."""
        ...

    def last(self) -> int:
        """The number of its last row, 0 where there is none."""
        ...

    def resolutions(self) -> dict[int, Resolution]:
        """What was said last of each row, by its number."""
        ...

    def rows(self, *states: RowState) -> Iterator[Row]:
        """All rows, or those in some states."""
        ...

    def extras(self) -> list[str]:
        """The names of all further columns that its contacts have."""
        ...

    def counts(self) -> dict[RowState, int]:
        """How many rows are in each state."""
        ...

    def query(self, sql: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Reads; for figures. `?` stands for a value."""
        ...

    def whole(self, sql: str) -> str:
        """The whole part of a number of 0 or more, in SQL."""
        ...
