"""Ledgers for tests in virtual time, where no thread may be waited for: in memory, and the file without its thread."""

from collections import Counter

import anyio

from tenios_async.batch import IllegalMove, Ledger, LedgerFailed, NewRow, Row, RowState, Standing
from tenios_async.batch.ledger_file import LedgerFile


class MemoryLedger(Ledger):
    def __init__(self, requests=(), *, latency=0.01):
        super().__init__()
        self.all = [
            Row(number, request.callback_number, request, Standing()) for number, request in enumerate(requests, 1)
        ]
        self.latency = latency
        self.full = False
        self.commits = 0

    async def put(self, new):
        row = await self.by_key(new.key)
        if row is None:
            row = Row(len(self.all) + 1, new.key, new.request, Standing())
            self.all.append(row)
        return row

    async def by_key(self, key):
        return next((row for row in self.all if row.key == key), None)

    async def queued(self, limit, after=0):
        return [row for row in self.all if row.standing.state is RowState.QUEUED and row.id > after][:limit]

    async def followed(self):
        return [row for row in self.all if row.standing.state is RowState.PLACED]

    async def counts(self):
        return dict.fromkeys(RowState, 0) | Counter(row.standing.state for row in self.all)

    async def tally(self):
        return Counter((row.standing.state, row.standing.status) for row in self.all)

    async def change_all(self, changes):
        if self.full:
            raise LedgerFailed("the disk is full")
        self.commits += 1
        results = []
        for number, move in changes:
            row = self.all[number - 1]
            try:
                standing = move(row.standing)
            except IllegalMove as refusal:
                results.append(refusal)
            else:
                self.all[number - 1] = row.at(standing)
                results.append(standing)
        await anyio.sleep(self.latency)
        return results

    async def _close(self):
        """Nothing is open."""

    def close(self):
        """Nothing is open."""

    def states(self):
        return Counter(str(row.standing.state) for row in self.all)


class FileLedger(Ledger):
    """The ledger's own file; what is asked for is done at once."""

    def __init__(self, path, requests=()):
        super().__init__()
        self.path = path
        self.file = None
        path.parent.mkdir(exist_ok=True)

        def fill(ledger):
            with ledger.transaction():
                for request in requests:
                    ledger.put(NewRow(request.callback_number, request))

        LedgerFile.create(path, {"kind": "campaign"}, fill)

    @property
    def all(self):
        return list(self.file.rows())

    put = by_key = counts = None  # for which nobody asks who works off a campaign

    async def queued(self, limit, after=0):
        return self.file.queued(limit, after)

    async def followed(self):
        return list(self.file.rows(RowState.PLACED))

    async def tally(self):
        return self.file.tally()

    async def change_all(self, changes):
        results = []
        with self.file.transaction():
            for row_id, move in changes:
                try:
                    results.append(self.file.change(row_id, move))
                except IllegalMove as refusal:
                    results.append(refusal)
        return results

    async def _close(self):
        """`close` does."""

    def close(self):
        self.file.close()
