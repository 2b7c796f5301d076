"""Every state has its words, and what of the application needs no event loop."""

import pytest
from starlette.applications import Starlette

from web_callback.app import from_environment
from web_callback.words import STEPS, view_of

RUNNING = ["REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "a state of tomorrow"]
ENDINGS = ["DISCONNECTED", "CALL_A_FAILED", "CALL_B_FAILED", "NOT_SENT", "UNKNOWN", "LOST"]


@pytest.mark.parametrize("state", RUNNING + ENDINGS)
def test_every_state_has_its_words(state):
    view = view_of(state)
    assert view.title
    assert view.text.endswith((".", "?"))
    assert 0 <= view.step <= len(STEPS) + 1
    assert view.is_over is (state in ENDINGS)


def test_no_two_endings_look_alike():
    assert len({view_of(state).title for state in ENDINGS}) == len(ENDINGS)


def test_only_what_rang_nobody_any_more_may_be_asked_for_again():
    assert {state for state in RUNNING + ENDINGS if view_of(state).may_retry} == {
        "CALL_A_FAILED",
        "CALL_B_FAILED",
        "NOT_SENT",
    }


def test_the_environment_makes_the_application(monkeypatch, tmp_path):
    monkeypatch.setenv("CALLBACK_LEDGER", str(tmp_path / "calls.db"))
    monkeypatch.setenv("TENIOS_CALLBACK_CONFIG_ID", "config")
    assert isinstance(from_environment(), Starlette)


@pytest.mark.parametrize("missing", ["CALLBACK_LEDGER", "TENIOS_CALLBACK_CONFIG_ID"])
def test_a_variable_that_is_missing_is_named(monkeypatch, missing):
    for name in {"CALLBACK_LEDGER", "TENIOS_CALLBACK_CONFIG_ID"} - {missing}:
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing, raising=False)
    with pytest.raises(KeyError, match=missing):
        from_environment()
