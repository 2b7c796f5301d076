"""How many calls may be asked for, on a clock that is moved by hand."""

import pytest

from web_callback.limits import Limit, Limits, TooMany, network


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_every_window_holds(clock):
    limit = Limit((1, 10), (3, 100), clock=clock)
    waits = []
    for _ in range(5):
        waits.append(limit.wait("key"))
        clock.now += waits[-1]
        limit.take("key")
    assert waits == [0, 10, 10, 80, 10]
    assert limit.wait("another") == 0


def test_what_is_given_back_counts_no_longer(clock):
    limit = Limit((2, 10), clock=clock)
    limit.take("key")
    clock.now += 4
    limit.take("key")
    assert limit.wait("key") == 6
    limit.give_back("key")
    assert limit.wait("key") == 0
    limit.give_back("key")
    limit.give_back("key")
    assert not limit._taken


def test_what_has_passed_takes_no_memory(clock):
    limit = Limit((1, 10), clock=clock)
    for number in range(100):
        limit.take(str(number))
        clock.now += 1
    assert len(limit._taken) == 10


def limits(clock, address=(9, 60), number=(9, 60), total=(9, 60)):
    return Limits(*(Limit(window, clock=clock) for window in (address, number, total)))


@pytest.mark.parametrize("what", ["address", "number", "total"])
def test_whichever_is_used_up_refuses_and_counts_nothing(clock, what):
    taken = limits(clock, **{what: (1, 60)})
    taken.take("203.0.113.7", "+49221123456")
    clock.now += 0.5
    for _ in range(20):
        with pytest.raises(TooMany) as refused:
            taken.take("203.0.113.7", "+49221123456")
        assert (refused.value.what, refused.value.retry_after) == (what, 60)
    clock.now += 59.5
    taken.take("203.0.113.7", "+49221123456")


def test_another_address_and_another_number(clock):
    taken = limits(clock, address=(1, 60), number=(1, 60))
    taken.take("203.0.113.7", "+49221123456")
    with pytest.raises(TooMany, match="by number"):
        taken.take("203.0.113.8", "+49221123456")
    with pytest.raises(TooMany, match="by address"):
        taken.take("203.0.113.7", "+49221123457")
    taken.take("203.0.113.8", "+49221123457")


def test_given_back_it_still_counts_for_the_address(clock):
    taken = limits(clock, address=(2, 60), number=(1, 60), total=(1, 60))
    for _ in range(2):
        taken.take("203.0.113.7", "+49221123456")
        taken.give_back("+49221123456")
    with pytest.raises(TooMany, match="by address"):
        taken.take("203.0.113.7", "+49221123456")


def test_the_defaults_let_people_try_again():
    taken = Limits()
    taken.take("203.0.113.7", "+49221123456")
    with pytest.raises(TooMany) as refused:
        taken.take("203.0.113.7", "+49221123456")
    assert refused.value.what == "number"
    assert refused.value.retry_after == pytest.approx(120, abs=2)


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_whose_address_it_is(address, whose):
    assert network(address) == whose
