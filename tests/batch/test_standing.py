"""Where a row stands: each move from each state, and whatever order owners, crashes and people come in."""

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenios_async import Callback, CallbackStatus
from tenios_async.batch.standing import (
    SEND_WITHIN,
    IllegalMove,
    RowState,
    Standing,
    called,
    crash,
    doubt,
    exclude,
    intend,
    lose,
    not_called,
    place,
    refuse,
    see,
    withdraw,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
OURS, ANOTHER, PAST = "ours", "another", "past"
CALLBACK = Callback(10, "config", 0, NOW)

ROWS = {
    "QUEUED": Standing(),
    "QUEUED again": Standing(past=(PAST,), reason="not called, says A"),
    "SENDING": Standing(RowState.SENDING, OURS, intended_at=NOW),
    "SENDING again": Standing(RowState.SENDING, OURS, (PAST,), intended_at=NOW),
    "PLACED": Standing(RowState.PLACED, OURS, intended_at=NOW, callback_id=10, placed_at=NOW),
    "REFUSED": Standing(RowState.REFUSED, OURS, intended_at=NOW, reason="X", ended_at=NOW),
    "UNKNOWN": Standing(RowState.UNKNOWN, OURS, intended_at=NOW, reason="X"),
    "REFUSED, left out": Standing(RowState.REFUSED, reason="opted out", ended_at=NOW),
    "UNKNOWN, by a stray": Standing(RowState.UNKNOWN, past=(PAST,), reason="X", stray_id=10),
    "PLACED, by a stray": Standing(RowState.PLACED, past=(PAST,), callback_id=10, placed_at=NOW, stray_id=10),
    "FINISHED": Standing(RowState.FINISHED, OURS, callback_id=10, status=CallbackStatus.DISCONNECTED, ended_at=NOW),
    "FINISHED unobserved": Standing(RowState.FINISHED, OURS, reason="called, says A", ended_at=NOW),
}
MOVES = {
    "intend": (intend("new", NOW), {"QUEUED": "SENDING", "QUEUED again": "SENDING"}),
    "exclude": (exclude("opted out", NOW), {"QUEUED": "REFUSED", "QUEUED again": "REFUSED"}),
    "withdraw": (withdraw(OURS), {"QUEUED": "QUEUED", "QUEUED again": "QUEUED", "SENDING": "QUEUED", "SENDING again": "QUEUED"}),
    "withdraw, of another": (withdraw(ANOTHER), {"QUEUED": "QUEUED", "QUEUED again": "QUEUED"}),
    "place": (
        place(OURS, CALLBACK),
        {"SENDING": "PLACED", "SENDING again": "PLACED", "UNKNOWN": "PLACED", "PLACED": "PLACED", "FINISHED": "FINISHED",
         "FINISHED unobserved": "PLACED"},
    ),
    "place, of another": (place(ANOTHER, CALLBACK), {}),
    "place, of a past one": (place(PAST, CALLBACK), {"QUEUED again": "UNKNOWN", "SENDING again": "SENDING", "UNKNOWN, by a stray": "UNKNOWN", "PLACED, by a stray": "PLACED"}),
    "refuse": (refuse(OURS, "BAD", NOW), {"SENDING": "REFUSED", "SENDING again": "REFUSED", "UNKNOWN": "REFUSED"}),
    "refuse, of another": (refuse(ANOTHER, "BAD", NOW), {}),
    "doubt": (doubt(OURS, "lost"), {"SENDING": "UNKNOWN", "SENDING again": "UNKNOWN", "UNKNOWN": "UNKNOWN"}),
    "doubt, of another": (doubt(ANOTHER, "lost"), {}),
    "crash": (crash(), {"SENDING": "UNKNOWN", "SENDING again": "UNKNOWN"}),
    "see it ring": (see(OURS, CallbackStatus.CALLING_A, NOW, 1), {"PLACED": "PLACED", "FINISHED": "FINISHED", "FINISHED unobserved": "FINISHED"}),
    "see it end": (see(OURS, CallbackStatus.DISCONNECTED, NOW, 1), {"PLACED": "FINISHED", "FINISHED": "FINISHED", "FINISHED unobserved": "FINISHED"}),
    "see, of another": (see(ANOTHER, CallbackStatus.DISCONNECTED, NOW, 1), {}),
    "see it end, of a stray": (see(None, CallbackStatus.DISCONNECTED, NOW, 1), {"PLACED, by a stray": "FINISHED"}),
    "lose, of a stray": (lose(None, "gone", NOW), {"PLACED, by a stray": "FINISHED"}),
    "lose": (lose(OURS, "gone", NOW), {"PLACED": "FINISHED", "FINISHED": "FINISHED", "FINISHED unobserved": "FINISHED"}),
    "called": (called("A", NOW, None), {"UNKNOWN": "FINISHED", "UNKNOWN, by a stray": "FINISHED"}),
    "called, with its id": (called("A", NOW, CALLBACK), {"UNKNOWN": "PLACED", "UNKNOWN, by a stray": "PLACED"}),
    "not called": (not_called("A", LATER), {"UNKNOWN": "QUEUED"}),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", MOVES)
def test_every_move_from_every_state(name, row):
    move, goes = MOVES[name]
    if row not in goes:
        with pytest.raises(IllegalMove):
            move(ROWS[row])
    else:
        assert move(ROWS[row]).state == goes[row]


def test_what_has_ended_stays_as_it_is():
    for move in (place(OURS, CALLBACK), see(OURS, CallbackStatus.CALLING_A, LATER, 9), lose(OURS, "gone", LATER)):
        assert move(ROWS["FINISHED"]) == ROWS["FINISHED"]


def test_a_row_that_was_given_back_is_nobodys():
    assert withdraw(OURS)(ROWS["SENDING"]) == Standing()
    assert withdraw(OURS)(ROWS["SENDING again"]) == Standing(past=(PAST,))


def test_a_state_is_as_old_as_its_first_sight_and_polls_are_counted():
    assert ROWS["PLACED"].polls == 0
    first = see(OURS, CallbackStatus.CALLING_A, NOW, 1)(ROWS["PLACED"])
    again = see(OURS, CallbackStatus.CALLING_A, LATER, 2)(first)
    assert (first.since, again.since, again.polls) == (NOW, NOW, 2)
    end = see(OURS, CallbackStatus.DISCONNECTED, LATER, 3)(again)
    assert (end.since, end.ended_at, end.polls) == (LATER, LATER, 3)


def test_not_called_is_refused_while_it_may_still_leave():
    row = ROWS["UNKNOWN"]
    with pytest.raises(IllegalMove, match="on its way"):
        not_called("A", NOW + timedelta(seconds=10))(row)
    with pytest.raises(IllegalMove, match="on its way"):
        not_called("A", NOW - timedelta(hours=1))(row)  # a clock that was set back
    back = not_called("A", NOW + timedelta(seconds=10, milliseconds=1))(row)
    assert (back.attempt, back.past, back.intended_at) == (None, (OURS,), None)


def test_an_id_of_a_past_attempt_freezes_the_row():
    """Whatever becomes of the attempt that is under way, there is no third."""
    frozen = place(PAST, CALLBACK)(ROWS["SENDING again"])
    assert (frozen.state, frozen.stray_id) == (RowState.SENDING, 10)
    back = withdraw(OURS)(frozen)
    assert back.state is RowState.UNKNOWN
    assert "10" in back.reason
    assert (back.attempt, back.intended_at) == (None, None)
    with pytest.raises(IllegalMove, match="10"):
        not_called("A", LATER)(back)
    assert called("A", LATER, None)(back).state is RowState.FINISHED


@attrs.define
class Owner:
    """A program's attempt at the row: what it knows, and whether it is dead or asleep."""

    attempt: str
    intended_at: float | None = None
    sent: bool = False
    callback: Callback | None = None


class Reality(RuleBasedStateMachine):
    """One row, any number of owners of which only one holds the lock, people who tell the truth, and a phone."""

    owners = Bundle("owners")

    @initialize()
    def begin(self):
        self.row = Standing()
        self.now = 0.0
        self.holder = None
        self.rings = 0
        self.ids = set()
        self.count = self.programs = 0

    def at(self):
        return NOW + timedelta(seconds=self.now)

    def do(self, move):
        try:
            self.row = move(self.row)
        except IllegalMove:
            return False
        return True

    @rule(seconds=st.sampled_from([0.1, 11.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.programs < 3)
    @rule(target=owners)
    def a_program_starts(self):
        """Whoever held the lock is dead, or has lost it; what it was placing is in doubt."""
        self.do(crash())
        self.programs += 1
        self.count += 1
        self.holder = Owner(f"attempt-{self.count}")
        return self.holder

    @rule(owner=owners)
    def it_intends(self, owner):
        if owner is self.holder and owner.intended_at is None and self.do(intend(owner.attempt, self.at())):
            owner.intended_at = self.now

    @rule(owner=owners)
    def it_sends(self, owner):
        """Also one that was suspended meanwhile: the clock it looks at went on."""
        if owner.intended_at is not None and not owner.sent and self.now - owner.intended_at <= SEND_WITHIN:
            owner.sent = True
            self.rings += 1
            owner.callback = Callback(self.rings, "config", 0, self.at())

    @rule(owner=owners)
    def it_has_proof_that_nothing_left(self, owner):
        is_live = owner.intended_at is not None and not owner.sent and owner is self.holder
        if is_live and self.do(withdraw(owner.attempt)):
            owner.intended_at, owner.sent = None, False
            self.count += 1
            owner.attempt = f"attempt-{self.count}"

    @rule(owner=owners)
    def the_id_arrives(self, owner):
        if owner.callback is not None and self.do(place(owner.attempt, owner.callback)):
            self.ids.add(owner.callback.id)

    @rule(owner=owners)
    def the_answer_is_lost(self, owner):
        if owner.sent:
            self.do(doubt(owner.attempt, "lost"))

    @rule(owner=owners, status=st.sampled_from([CallbackStatus.CALLING_A, CallbackStatus.DISCONNECTED]))
    def a_poll(self, owner, status):
        if owner.callback is not None:
            self.do(see(owner.attempt, status, self.at(), 1))

    @precondition(lambda self: self.row.state is RowState.UNKNOWN)
    @rule(with_id=st.booleans())
    def a_person_finds_out(self, with_id):
        callback = Callback(self.rings, "config", 0, self.at()) if with_id else None
        self.do(called("A", self.at(), callback) if self.rings else not_called("A", self.at()))

    @invariant()
    def nobody_is_rung_twice(self):
        assert self.rings <= 1

    @invariant()
    def what_is_placed_can_be_followed_to_its_end(self):
        if self.row.state is RowState.PLACED:
            ended = see(self.row.attempt, CallbackStatus.DISCONNECTED, self.at(), 1)(self.row)
            assert ended.state is RowState.FINISHED

    @invariant()
    def every_id_is_written_down(self):
        assert self.ids <= {self.row.callback_id, self.row.stray_id}


Reality.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestReality = Reality.TestCase
