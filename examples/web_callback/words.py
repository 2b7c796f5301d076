"""What the page says in every state of a call."""

from __future__ import annotations

import enum

import attrs

STEPS = ("We have your request", "One of us picks up", "Your phone rings", "We talk")


class State(enum.StrEnum):
    """What is known of a call beside the states of TENIOS."""

    NOT_SENT = "NOT_SENT"
    """Nothing was sent, or TENIOS refused: no phone rings."""
    UNKNOWN = "UNKNOWN"
    """It was sent and never answered: a phone may ring."""
    LOST = "LOST"
    """It was placed, and TENIOS cannot be asked how it goes."""


@attrs.frozen
class View:
    """What the page shows.

    Attributes:
        title: the news, in a few words.
        text: what that means for whoever is waiting.
        step: of `STEPS`, from 1; one more once all are done; 0 shows none.
        tone: `busy`, `ringing`, `talking`, `good` or `bad`.
        is_over: nothing follows.
        may_retry: asking once more is sensible.
    """

    title: str
    text: str
    step: int
    tone: str = "busy"
    is_over: bool = False
    may_retry: bool = False


_TAKEN = View("We have your request", "Keep your phone at hand. We are setting up the call.", 1)

_VIEWS = {
    "REQUESTED": _TAKEN,
    "ACCEPTED": _TAKEN,
    "CALLING_A": View(
        "We are getting somebody for you", "Your phone rings as soon as one of us has picked up.", 2, "ringing"
    ),
    "CALLING_B": View("Your phone is ringing", "Please pick up: it is us.", 3, "ringing"),
    "CONNECTED": View("You are connected", "You can close this page; the call goes on.", 4, "talking"),
    "DISCONNECTED": View("Thank you for the call", "It has ended.", 5, "good", is_over=True),
    "CALL_A_FAILED": View(
        "Nobody was free to talk",
        "We are sorry. Your phone did not ring. Please ask again in a few minutes.",
        2,
        "bad",
        is_over=True,
        may_retry=True,
    ),
    "CALL_B_FAILED": View(
        "We did not reach you",
        "We rang your number, and the call was not taken. Is it the right one, and is your phone on?",
        3,
        "bad",
        is_over=True,
        may_retry=True,
    ),
    State.NOT_SENT: View(
        "We did not call you",
        "Your request was not passed on, and your phone will not ring. Please ask again.",
        0,
        "bad",
        is_over=True,
        may_retry=True,
    ),
    State.UNKNOWN: View(
        "We may be calling you already",
        "Your request was passed on, but nobody confirmed it. Keep your phone at hand."
        " We do not send it again, so that your phone does not ring twice.",
        0,
        "bad",
        is_over=True,
    ),
    State.LOST: View(
        "We cannot see your call any more",
        "It goes on without this page. Reload the page to look again.",
        0,
        "bad",
        is_over=True,
    ),
}
_UNDER_WAY = View("Your call is under way", "Keep your phone at hand.", 0)


def view_of(state: str) -> View:
    """What to show; also for a state that TENIOS will invent one day."""
    return _VIEWS.get(state, _UNDER_WAY)
