"""What the application answers, without a server and in virtual time."""

import asyncio
import logging
import re

import pytest

from tenios_async import ConnectionFailed
from tenios_async.simulator import Fault, Manner, Script
from web_callback.calls import new_handle
from web_callback.limits import Limit, Limits

from .world import NUMBER, TYPED, World, alert, handle_in, heading, unlimited

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]
TALK = ["REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "DISCONNECTED"]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def world(tenios_simulator):
    return World(tenios_simulator)


async def test_a_call_from_the_form_to_its_end(world, tenios_simulator):
    async with world.running() as visitor:
        page = await visitor.get(path := await visitor.call())
        assert (page.status_code, heading(page)) == (200, "We have your request")
        async with visitor.stream(path) as stream:
            assert await stream.states() == TALK
        page = await visitor.get(path)
        assert heading(page) == "Thank you for the call"
        assert "data-events" not in page.text, "nothing is left to follow"
    assert tenios_simulator.times_called(NUMBER) == 1


@pytest.mark.parametrize(
    ("script", "end", "may_retry"),
    [
        (Script.talk(), "Thank you for the call", False),
        (Script.agent_silent(), "Nobody was free to talk", True),
        (Script.customer_silent(), "We did not reach you", True),
        (Script((("WONDERED_AT", 1), ("DISCONNECTED", 1))), "Thank you for the call", False),
    ],
)
async def test_every_ending_has_its_text(world, tenios_simulator, script, end, may_retry):
    tenios_simulator.script(NUMBER, script)
    async with world.running() as visitor:
        path = await visitor.call()
        async with visitor.stream(path) as stream:
            await stream.states()
        page = await visitor.get(path)
        assert heading(page) == end
        assert ("Ask for another call" in page.text) is may_retry


async def test_a_state_that_nobody_has_heard_of(world, tenios_simulator):
    tenios_simulator.script(NUMBER, Script((("WONDERED_AT", 0.1), ("DISCONNECTED", 60))))
    async with world.running() as visitor:
        path = await visitor.call()
        await asyncio.sleep(1)
        assert heading(await visitor.get(path)) == "Your call is under way"


async def test_a_form_sent_again_leads_to_the_same_call(world, tenios_simulator):
    async with world.running() as visitor:
        handle = await visitor.handle()
        answers = await asyncio.gather(*(visitor.send(handle=handle) for _ in range(5)))
        answers.append(await visitor.send("+49 221 123456", handle=handle))
        assert {(answer.status_code, answer.headers["location"]) for answer in answers} == {(303, f"/calls/{handle}")}
    assert tenios_simulator.times_called(NUMBER) == 1


async def test_a_form_that_was_sent_for_another_number(world, tenios_simulator):
    async with world.running() as visitor:
        await visitor.send(handle=(handle := await visitor.handle()))
        answer = await visitor.send("0221 123457", handle=handle)
        assert (answer.status_code, handle_in(answer) != handle) == (409, True)
        assert 'value="0221 123457"' in answer.text
        assert tenios_simulator.service.inits.total() == 1
        assert (await visitor.send("0221 123457", handle=handle_in(answer))).status_code == 303


async def test_each_form_has_a_handle_of_its_own_and_no_page_is_kept(world):
    async with world.running() as visitor:
        pages = [await visitor.get("/") for _ in range(50)]
        handles = {handle_in(page) for page in pages}
        assert (len(handles), {len(handle) for handle in handles}) == (50, {22})
        assert {page.headers["cache-control"] for page in pages} == {"no-store"}


async def test_pages_and_events_hold_neither_number_nor_id_nor_token(world, tenios_simulator):
    async with world.running() as visitor:
        path = await visitor.call()
        async with visitor.stream(path) as stream:
            await stream.states()
            sent = (await visitor.get(path)).text
        assert tenios_simulator.service.callbacks.keys() == {10}
        for secret in ("123456", "placed_at", "config", "simulated-access-key", "10"):
            assert secret not in sent.replace(path, "")


async def test_neither_number_nor_key_is_logged(world, tenios_simulator, caplog):
    caplog.set_level(logging.DEBUG)
    tenios_simulator.fail_init(Fault.lost(), Fault(400), Fault(403), Fault.busy())
    async with world.running() as visitor:
        for _ in range(5):
            await visitor.send()
    assert len(caplog.records) > 5
    text = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    for secret in ("123456", "simulated-access-key"):
        assert secret not in text


@pytest.mark.parametrize(
    ("fault", "status_code", "says"),
    [
        (Fault(400), 422, "This number cannot be called"),
        (Fault(403), 503, "We cannot place calls at the moment. Your phone will not ring."),
        (Fault.busy(), 503, "We cannot place calls at the moment. Your phone will not ring."),
    ],
)
async def test_what_tenios_refuses_may_be_asked_for_again(world, tenios_simulator, fault, status_code, says):
    world.limits.number = Limit((1, 60))
    tenios_simulator.fail_init(fault)
    async with world.running() as visitor:
        answer = await visitor.send()
        assert answer.status_code == status_code
        assert alert(answer).startswith(says)
        assert f'value="{TYPED}"' in answer.text
        assert (await visitor.send(handle=handle_in(answer))).status_code == 303


async def test_wrong_credentials_are_ours_to_mend(world, tenios_simulator, caplog):
    tenios_simulator.service._config_ids = ["another"]
    async with world.running() as visitor:
        answer = await visitor.send()
        assert (answer.status_code, "Your phone will not ring" in alert(answer)) == (503, True)
    assert "BAD_CREDENTIALS" in caplog.text


async def test_no_connection_means_that_nothing_was_sent(world, tenios_simulator, monkeypatch):
    async def no_connection(*_, **__):
        raise ConnectionFailed("no connection")

    world.limits.number = Limit((1, 60))
    async with world.running() as visitor:
        handle = await visitor.handle()
        with monkeypatch.context() as patch:
            patch.setattr("tenios_async.TeniosClient.init_callback", no_connection)
            answer = await visitor.send(handle=handle)
        assert (answer.status_code, alert(answer)[:45]) == (503, "We could not connect. Nothing was sent, and y")
        assert heading(await visitor.get(f"/calls/{handle}")) == "We did not call you"
        assert (await visitor.send(handle=handle)).status_code == 303, "the same form may be sent again"


@pytest.mark.parametrize("fault", [Fault.lost(), Fault.lost(Manner.STALL), Fault.error(500), Fault.garbage()])
async def test_a_doubt_is_shown_as_one_and_never_sent_again(world, tenios_simulator, fault):
    tenios_simulator.fail_init(fault)
    async with world.running() as visitor:
        path = await visitor.call()
        page = await visitor.get(path)
        assert heading(page) == "We may be calling you already"
        assert "Ask for another call" not in page.text
        async with visitor.stream(path) as stream:
            assert await stream.states() == ["UNKNOWN"]
        await visitor.send(handle=path.removeprefix("/calls/"))
    assert tenios_simulator.service.inits.total() == 1


async def test_a_ledger_that_fails_may_leave_a_doubt_that_is_told(world):
    async with world.running() as visitor:
        world.ledger.full = True
        answer = await visitor.send()
        assert (answer.status_code, alert(answer)[:29]) == (503, "We may be calling you already")


@pytest.mark.parametrize(
    ("typed", "says"), [("12", "There is no such phone number"), ("", "Please enter"), ("<b>&", "This is not a phone")]
)
async def test_a_number_that_is_none_is_explained_at_the_field(world, tenios_simulator, typed, says):
    async with world.running() as visitor:
        answer = await visitor.send(typed)
        assert (answer.status_code, alert(answer).startswith(says)) == (422, True)
        field = re.search(r"<input id=.*?>", answer.text, re.DOTALL)[0]
        assert 'aria-invalid="true"' in field
        assert 'aria-describedby="alert hint"' in field
        assert "<b>" not in answer.text
    assert not tenios_simulator.service.inits


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("number", "We were asked to call this number a moment ago"),
        ("address", "You have asked for many calls"),
        ("total", "More people want a call"),
    ],
)
async def test_too_many_calls(tenios_simulator, what, says):
    limits = unlimited()
    setattr(limits, what, Limit((1, 240)))
    async with World(tenios_simulator, limits=limits).running() as visitor:
        await visitor.call()
        answer = await visitor.send()
        assert (answer.status_code, alert(answer).startswith(says)) == (429, True)
        assert 230 < int(answer.headers["retry-after"]) <= 240
        assert "in 4 minutes" in alert(answer)
        other = await visitor.at("203.0.113.99").send("0221 123457")
        assert other.status_code == (429 if what == "total" else 303)
    assert tenios_simulator.times_called(NUMBER) == 1


async def test_what_is_refused_before_it_is_sent_counts_for_nobody(tenios_simulator):
    async with World(tenios_simulator, limits=Limits(*(Limit((1, 60)) for _ in range(3)))).running() as visitor:
        for typed in ("", "12", "0900 1234567"):
            assert (await visitor.send(typed)).status_code == 422
        assert (await visitor.send()).status_code == 303


@pytest.mark.parametrize(
    ("headers", "status_code"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"}, 403),
        ({"Origin": "http://testserver"}, 303),
        ({"Origin": "https://TESTSERVER"}, 303),
        ({"Origin": "https://testserver.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example", "Host": "testserver"}, 403),
    ],
)
async def test_the_form_of_another_site(world, tenios_simulator, headers, status_code):
    async with world.running() as visitor:
        assert (await visitor.send(headers=headers)).status_code == status_code
    assert tenios_simulator.service.inits.total() == (status_code == 303)


@pytest.mark.parametrize(
    ("content", "status_code"),
    [
        (b"", 400),
        (b"number=0221+123456", 400),
        (b"handle=&number=0221+123456", 400),
        (b"handle=1&number=0221+123456", 400),
        (b"handle=../../../../etc/passwd&number=0221+123456", 400),
        (b"\xff\x00" * 100, 400),
        (b"&".join([b"a=1"] * 11), 400),
        (b"handle=AAAAAAAAAAAAAAAAAAAAAA&number=%ff%fe", 400),
        (b"handle=AAAAAAAAAAAAAAAAAAAAAA&number=" + b"1" * 4100, 413),
    ],
)
async def test_a_body_that_is_no_form_of_ours(world, tenios_simulator, content, status_code):
    async with world.running() as visitor:
        answer = await visitor.post("/calls", content=content, headers={"Content-Type": FORM})
        assert answer.status_code == status_code
    assert not tenios_simulator.service.inits


async def test_a_large_body_is_not_read_to_its_end(world):
    read = 0

    async def endless():
        nonlocal read
        while True:
            read += 1000
            yield b"a" * 1000

    async with world.running() as visitor:
        async with asyncio.timeout(10):
            sending = visitor.asgi
            chunks = endless()

            async def receive():
                return {"type": "http.request", "body": await anext(chunks), "more_body": True}

            started = []

            async def send(message):
                started.append(message)

            scope = {"type": "http", "method": "POST", "path": "/calls", "headers": [], "query_string": b""}
            await sending(scope, receive, send)
    assert started[0]["status"] == 413
    assert read <= 6000


@pytest.mark.parametrize("path", ["/", "/calls/AAAAAAAAAAAAAAAAAAAAAA", "/static/style.css", "/nowhere", "/calls"])
async def test_every_answer_keeps_the_page_to_itself(world, path):
    async with world.running() as visitor:
        headers = (await visitor.get(path)).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/calls/AAAAAAAAAAAAAAAAAAAAAA", "/calls/10", "/calls/a/b", "/nowhere", "/static/x"])
async def test_what_does_not_exist_offers_the_form(world, path):
    async with world.running() as visitor:
        answer = await visitor.get(path)
        assert (answer.status_code, heading(answer)) == (404, "Shall we call you?")


async def test_events_of_a_call_that_does_not_exist_tell_the_browser_not_to_come_back(world):
    async with world.running() as visitor, visitor.stream(f"/calls/{new_handle()}") as stream:
        assert await stream.next() is None
        assert stream.start["status"] == 204


async def test_an_event_stream_beats_and_comes_back_where_it_was(world, tenios_simulator):
    tenios_simulator.script(
        NUMBER, Script((("ACCEPTED", 0), ("CALLING_A", 0), ("CALLING_B", 1), ("DISCONNECTED", 100)))
    )
    loop = asyncio.get_running_loop()
    async with world.running() as visitor:
        path = await visitor.call()
        async with visitor.stream(path) as stream:
            assert await stream.next() == {"retry": "1000"}
            headers = dict(stream.start["headers"])
            assert headers[b"content-type"].startswith(b"text/event-stream")
            assert headers[b"cache-control"] == b"no-store"
            while await stream.state() != "CALLING_B":
                pass
            told = loop.time()
            assert await stream.next() == {"event": "beat", "data": "."}
            assert loop.time() - told == pytest.approx(15)
        async with visitor.stream(path, "CALLING_B") as stream:
            assert await stream.states() == ["DISCONNECTED"]
        async with visitor.stream(path, "DISCONNECTED") as stream:
            assert await stream.next() is None
            assert stream.start["status"] == 204
        async with visitor.stream(path) as stream:
            assert await stream.states() == ["DISCONNECTED"]


async def test_closing_the_last_page_stops_the_polling(world, tenios_simulator):
    tenios_simulator.script(NUMBER, Script.talk(seconds=3600))
    polls = tenios_simulator.service.polls
    async with world.running() as visitor:
        path = await visitor.call()
        async with visitor.stream(path) as one:
            async with visitor.stream(path) as two:
                while await two.state() != "CALLING_A":
                    pass
            while await one.state() != "CONNECTED":
                pass
        asked = polls[10]
        await asyncio.sleep(1000)
        assert polls[10] == asked
        async with visitor.stream(path, "CONNECTED") as again:
            assert await again.states() == ["DISCONNECTED"]
        assert polls[10] > asked


async def test_more_pages_than_anybody_has(world):
    async with world.running() as visitor:
        path = await visitor.call()
        async with asyncio.TaskGroup() as group:
            closing, opened = asyncio.Event(), asyncio.Barrier(21)

            async def look():
                async with visitor.stream(path) as stream:
                    await stream.next()
                    await opened.wait()
                    await closing.wait()

            for _ in range(20):
                group.create_task(look())
            await opened.wait()
            async with visitor.stream(path) as stream:
                assert await stream.next() is None
                assert stream.start["status"] == 503
            closing.set()


async def test_a_restart_loses_nothing_and_rings_nobody_twice(world, tenios_simulator):
    async with world.running() as visitor:
        path = await visitor.call()
        async with visitor.stream(path) as stream:
            while await stream.state() != "CALLING_A":
                pass
    again = World(tenios_simulator, world.ledger)
    async with again.running() as visitor:
        assert heading(await visitor.get(path)) == "We are getting somebody for you"
        assert (await visitor.send(handle=path.removeprefix("/calls/"))).headers["location"] == path
        async with visitor.stream(path, "CALLING_A") as stream:
            assert await stream.states() == ["CALLING_B", "CONNECTED", "DISCONNECTED"]
    tenios_simulator.assert_nobody_called_twice()


async def test_without_javascript_a_reload_shows_how_it_goes(world):
    async with world.running() as visitor:
        path = await visitor.call()
        seen = []
        for _ in range(9):
            page = await visitor.get(path)
            seen.append(heading(page))
            assert ("<noscript>" in page.text) is (seen[-1] != "Thank you for the call")
            await asyncio.sleep(6)
    assert list(dict.fromkeys(seen)) == [
        "We have your request",
        "We are getting somebody for you",
        "Your phone is ringing",
        "You are connected",
        "Thank you for the call",
    ]
