"""The agenda: as if all that is in it were sorted, whatever comes and goes."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async._agenda import PIECES, Agenda

INSTANTS = st.one_of(
    st.floats(min_value=0, max_value=3),
    st.floats(min_value=0),
    st.integers(min_value=0, max_value=3 * PIECES).map(lambda piece: piece / PIECES),
)
"""Many in one piece of time, some as far ahead as never, and those between two pieces."""


def all_of(agenda):
    """What is taken out of it, one after the other."""
    taken = []
    while (entry := agenda.first()) is not None:
        agenda.pop()
        taken.append(entry)
    return taken


def in_time(entries):
    """Sorted by when they are due alone."""
    return sorted(entries, key=lambda entry: entry[0])


@given(st.lists(INSTANTS))
def test_what_was_added_comes_out_in_the_order_of_time(instants):
    agenda, entries = Agenda(), [[at, number] for number, at in enumerate(instants)]
    for entry in entries:
        agenda.add(entry, entry[0])
    assert in_time(agenda) == in_time(entries), "it gives all of them"
    seconds = [at // 1 for at, _ in agenda if at < 1e300]
    assert seconds == sorted(seconds), "those of one second before those of the next"
    assert all_of(agenda) == in_time(entries)
    assert list(agenda) == []


@given(st.lists(st.one_of(INSTANTS, st.sampled_from(["look", "take"]))))
def test_what_is_added_in_between_comes_out_in_its_place(steps):
    agenda, inside = Agenda(), []
    for number, step in enumerate(steps):
        if isinstance(step, float):
            agenda.add([step, number], step)
            inside = in_time([*inside, [step, number]])
        else:
            assert agenda.first() == (inside[0] if inside else None)
            if step == "take" and inside:
                agenda.pop()
                del inside[0]
    assert in_time(agenda) == inside, "also of those due at one instant that which was added first comes first"
    assert all_of(agenda) == inside


def test_of_those_due_at_one_instant_that_which_was_added_first_comes_first():
    agenda = Agenda()
    for name in ("first", "second"):
        agenda.add([0.0, name], 5.0)
    assert agenda.first() == [5.0, "first"]
    agenda.add([0.0, "third"], 5.0)
    assert [name for _, name in agenda] == ["first", "second", "third"]
    assert [name for _, name in all_of(agenda)] == ["first", "second", "third"]


@pytest.mark.parametrize("ahead", [0.0, 0.5 / PIECES, 1.0, 3600.0])
def test_an_entry_can_be_used_again_for_as_long_as_one_likes(ahead):
    agenda, entry = Agenda(), [0.0]
    for number in range(100):
        agenda.add(entry, number * ahead)
        assert agenda.first() is entry
        assert entry == [number * ahead]
        agenda.pop()
    assert agenda.first() is None
    assert list(agenda) == []


def test_what_is_over_takes_no_memory():
    agenda, entry = Agenda(), [0.0]
    tracemalloc.start()
    try:
        for second in range(10_000):
            agenda.add(entry, float(second))
            agenda.first()
            agenda.pop()
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
