"""When too many calls are in doubt to go on: counted one by one, no campaign."""

import pytest

from tenios_async.batch.breakers import Breaker


def noted(breaker, *doubts):
    """What the breaker says of each call in turn."""
    return [breaker.note(is_unknown=is_unknown) for is_unknown in doubts]


def test_ten_in_a_row_are_too_many():
    *before, tenth = noted(Breaker(1), *[True] * 10)
    assert before == [None] * 9
    assert tenth == "nobody knows what became of the last 10 calls"


def test_one_answer_begins_a_new_row():
    assert noted(Breaker(1), *[True] * 9, False, *[True] * 9) == [None] * 19


def test_one_in_twenty_of_the_last_500_may_be_in_doubt():
    breaker = Breaker()
    *before, last = noted(breaker, *([True] + [False] * 8) * 25, True)
    assert before == [None] * 225
    assert last == "nobody knows what became of 26 of the last 226 calls"


def test_ten_in_a_row_are_counted_from_the_first_doubt_after_an_answer():
    assert noted(Breaker(1), False, *[True] * 10)[-2:] == [None, "nobody knows what became of the last 10 calls"]


def test_what_was_500_calls_ago_is_forgotten():
    breaker = Breaker(2 / 500)
    noted(breaker, True, True, *[False] * 498)
    assert noted(breaker, False, True) == [None, None], "the first two have left the window by then, one by one"
    assert noted(breaker, True, True)[-1] == "nobody knows what became of 3 of the last 500 calls"
    breaker = Breaker(2 / 500)
    noted(breaker, True, True, *[False] * 497)
    assert noted(breaker, True) == ["nobody knows what became of 3 of the last 500 calls"]


def test_an_answer_after_too_many_does_not_stop_it_again():
    breaker = Breaker(0)
    assert noted(breaker, True, False, True) == [
        "nobody knows what became of 1 of the last 1 calls",
        None,
        "nobody knows what became of 2 of the last 3 calls",
    ]


@pytest.mark.parametrize("share", [0, 1])
def test_the_share_may_be_nothing_and_everything(share):
    assert (Breaker(share).note(is_unknown=True) is None) is bool(share)


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(ValueError, match="max_unknown must be a share from 0 to 1"):
        Breaker(share)
