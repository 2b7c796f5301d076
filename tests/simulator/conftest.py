"""A clock that is moved by hand, and virtual time on both loops."""

import json

import pytest
import trio.testing

from ..virtual_time import virtual_loop

NUMBER = "+491234567890"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": virtual_loop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


class Asked:
    """An answer as a client sees it."""

    def __init__(self, answer):
        self.answer = answer
        self.status_code = answer.status_code
        self.json = json.loads(answer.body)
        self.headers = dict(answer.headers)


@pytest.fixture
def init():
    """Asks a service for a callback; a field that is ... is left out."""

    def ask(service, **changed):
        fields = {"access_key": "key", "callback_config_id": "config", "callback_number": NUMBER, "delay": 0, **changed}
        body = json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()
        return Asked(service.handle("POST", "/callback/init", body))

    return ask


@pytest.fixture
def status():
    def ask(service, callback_id, **changed):
        fields = {"access_key": "key", "id": callback_id, **changed}
        body = json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()
        return Asked(service.handle("POST", "/callback/status", body))

    return ask
