"""The pool's connections: which one is used, how many there are, how long they live, and what a cancellation leaves."""

import asyncio
import contextlib
import errno
import gc
import math

import anyio
import pytest

from tenios_async import (
    AttemptOutcome,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    ClientMisuse,
    ConnectionFailed,
    Connections,
    Polling,
    ProtocolError,
    RequestTimeout,
    TeniosClient,
    TeniosError,
    WatchTimeout,
)

from ..sockets.stepping import Counted, Steps, counting, every_k
from .network import answering, silent, vendor, with_length

pytestmark = pytest.mark.anyio
URL = "http://127.0.0.1:8080"
NUMBER = "+491234567890"


def client(**options):
    return TeniosClient("key", base_url=URL, **options)


async def gather(count, function, *args):
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(function, *args)


# Which connection


async def test_the_last_used_connection_goes_first(network):
    """So that a burst's spare connections grow old and go."""
    async with network(answering(with_length(), after=0.1)) as net, client() as tenios:
        await gather(3, tenios.callback_status, 10)
        assert len(net.peers) == 3
        for _ in range(5):
            await tenios.callback_status(10)
        assert sorted(len(peer.requests) for peer in net.peers) == [1, 1, 6]


async def test_where_no_file_can_be_opened_an_idle_connection_gives_its_descriptor(network):
    """The oldest; and where none is idle there is no connection."""
    full = OSError(errno.EMFILE, "Too many open files")
    async with network(vendor()) as net, client() as tenios:
        await gather(2, tenios.callback_status, 10)
        oldest, last = net.peers
        await anyio.sleep(2)  # too long ago for a call
        net.refusals = iter([full])
        began = anyio.current_time()
        assert (await tenios.init_callback("config", NUMBER)).id == 10
        assert anyio.current_time() == began
        assert (oldest.is_open, last.is_open) == (False, True)
        net.refusals = iter([full] * 20)
        await anyio.sleep(2)
        with pytest.raises(ConnectionFailed, match="Too many open files"):
            await tenios.init_callback("config", NUMBER, timeout=0.3)
        assert not net.open
    assert net.inits == 1


async def test_whoever_is_cancelled_where_no_file_can_be_opened_keeps_no_place(network):
    """At each await."""
    full = OSError(errno.EMFILE, "Too many open files")
    async with network(vendor()) as net, client() as tenios:
        for k in every_k():
            await tenios.callback_status(10)
            await anyio.sleep(2)  # too long ago for a call
            net.refusals = iter([full])
            steps = Steps(k)
            with anyio.CancelScope() as scope, counting(steps):
                steps.act = scope.cancel
                await Counted(tenios.init_callback("config", NUMBER), steps)
            assert tenios.connections.in_use == 0
            if not steps.reached:
                break
    assert k > 3


async def test_no_more_connections_than_allowed_and_first_come_first_served(network):
    order = []

    async def poll(number):
        await tenios.callback_status(number)
        order.append(number)

    async with network(answering(with_length(), after=0.1)) as net, client(max_connections=2) as tenios:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(poll, number)
        assert net.most_open == len(net.peers) == 2
    assert order == list(range(20))
    assert anyio.current_time() == pytest.approx(1.0)


async def test_an_idle_connection_lives_120_seconds(network):
    async with network(vendor()) as net, client(max_connections=1) as tenios:
        for _ in range(3):
            await tenios.callback_status(10)
            await anyio.sleep(119.9)
        for connections in (1, 2):
            await tenios.callback_status(10)
            assert len(net.peers) == connections
            await anyio.sleep(119.9)
            assert net.open
            await anyio.sleep(0.2)
            assert not net.open


async def test_connections_grow_old_one_by_one(network):
    async with network(answering(with_length(), after=0.1)) as net, client() as tenios:
        await gather(3, tenios.callback_status, 10)
        await anyio.sleep(60)
        await gather(2, tenios.callback_status, 10)
        assert len(net.peers) == 3
        await anyio.sleep(60)
        assert len(net.open) == 2
        await anyio.sleep(60.1)
        assert not net.open


async def test_a_watch_keeps_its_connection(network):
    """The slowest poll of the schedule comes before the connection is too old."""
    async with network(answering(with_length())) as net, client(polling=Polling(jitter=0)) as tenios:
        watch = tenios.watch_callback(10, timeout=1800)
        with pytest.raises(WatchTimeout):
            async for _ in watch:
                pass
    assert len(net.requests) > 10
    assert len(net.peers) == 1


@pytest.mark.parametrize("polling", [Polling.fixed(300), Polling(min_interval=300, max_interval=300)])
async def test_a_watch_on_a_slow_schedule_of_its_own_keeps_its_connection(network, polling):
    """Also where the pool was opened before anybody knew of it."""
    async with network(answering(with_length())) as net, client() as tenios:
        await tenios.callback_status(10)
        with pytest.raises(WatchTimeout):
            async for _ in tenios.watch_callback(10, polling=polling, timeout=7000):
                pass
        assert net.open
        await anyio.sleep(600)
        assert not net.open
    assert len(net.requests) > 20
    assert len(net.peers) == 1


@pytest.mark.parametrize("ending", ["finish", "reset"])
async def test_an_idle_connection_that_the_server_closes_is_never_used(network, ending):
    async with network(vendor()) as net, client(max_connections=1) as tenios:
        await tenios.callback_status(10)
        peer = net.peers[0]
        peer.finish() if ending == "finish" else peer.reset(ConnectionResetError())
        await anyio.sleep(0.1)
        assert not net.open
        await tenios.callback_status(10)
        callback = await tenios.init_callback("config", NUMBER)
        assert callback.id == 10
        assert [len(peer.requests) for peer in net.peers] == [1, 2]


async def test_how_much_of_the_pool_is_in_use_can_be_read_at_any_time(network):
    async with network(answering(with_length(), after=0.1)) as net, client(max_connections=2) as tenios:
        assert tenios.connections == Connections(limit=2, in_use=0, idle=0, waiting=0)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(tenios.callback_status, 10)
            await anyio.sleep(0.05)
            assert tenios.connections == Connections(limit=2, in_use=2, idle=0, waiting=3)
            await anyio.sleep(0.2)
            assert tenios.connections == Connections(limit=2, in_use=1, idle=1, waiting=0)
        assert tenios.connections == Connections(limit=2, in_use=0, idle=2, waiting=0)
        await anyio.sleep(121)
        assert not net.open
        assert tenios.connections == Connections(limit=2, in_use=0, idle=0, waiting=0)
    assert tenios.connections is None
    assert client().connections is None


# A connection that closes when it is used


async def stale(peer):
    """Answers once, and closes when it is asked again."""
    await peer.request()
    peer.send(with_length())
    await peer.request()
    peer.reset(ConnectionResetError())


async def test_a_poll_that_meets_a_closing_connection_goes_once_more(network):
    async with network(stale, vendor()) as net, client() as tenios:
        await tenios.callback_status(10)
        assert await tenios.callback_status(10) == "CONNECTED"
        assert [len(peer.requests) for peer in net.peers] == [2, 1]


async def test_and_on_a_new_connection(network):
    """Where a server restarts, the other idle connections are as dead."""
    async with network(stale, stale, vendor()) as net, client() as tenios:
        await gather(2, tenios.callback_status, 10)
        assert await tenios.callback_status(10) == "CONNECTED"
        assert sorted(len(peer.requests) for peer in net.peers) == [1, 1, 2]


async def test_and_only_once(network):
    async def close(peer):
        await peer.request()
        peer.finish()

    async with network(stale, close, vendor()) as net, client() as tenios:
        await tenios.callback_status(10)
        with pytest.raises(ProtocolError):
            await tenios.callback_status(10)
        assert len(net.requests) == 3


async def test_and_waits_its_turn_where_all_connections_are_in_use(network):
    """What it is then given was used, so that a new one takes its place."""
    async with network(stale, answering(with_length(), after=1.0)) as net, client(max_connections=1) as tenios:
        await tenios.callback_status(10)
        await gather(3, tenios.callback_status, 10)
        assert net.most_open == 1
        assert len(net.peers) == 3


async def test_a_poll_on_a_new_connection_that_closes_is_not_repeated(network):
    async def close(peer):
        await peer.request()
        peer.finish()

    async with network(close) as net, client() as tenios:
        with pytest.raises(ProtocolError):
            await tenios.callback_status(10)
        assert len(net.requests) == 1


async def test_a_poll_that_was_answered_in_part_is_not_repeated(network):
    async def partly(peer):
        await peer.request()
        peer.send(with_length())
        await peer.request()
        peer.send(b"HTTP/1.1 2")
        peer.finish()

    async with network(partly, vendor()) as net, client() as tenios:
        await tenios.callback_status(10)
        with pytest.raises(ProtocolError):
            await tenios.callback_status(10)
        assert len(net.requests) == 2


async def test_a_call_that_meets_a_closing_connection_is_unknown(network):
    async with network(stale, vendor()) as net, client() as tenios:
        await tenios.callback_status(10)
        with pytest.raises(CallbackOutcomeUnknown):
            await tenios.init_callback("config", NUMBER)
        assert net.inits == 1


# A call wants a fresh connection


@pytest.mark.parametrize(("idle", "connections"), [(0.0, 1), (1.0, 1), (1.01, 2)])
async def test_a_call_takes_a_connection_in_use_within_the_last_second(network, idle, connections):
    async with network(vendor()) as net, client() as tenios:
        await tenios.callback_status(10)
        await anyio.sleep(idle)
        await tenios.init_callback("config", NUMBER)
        assert len(net.peers) == connections


async def test_a_call_makes_room_for_a_fresh_connection(network):
    async with network(answering(with_length(), after=0.1), vendor()) as net, client(max_connections=2) as tenios:
        await gather(2, tenios.callback_status, 10)
        await anyio.sleep(10)
        await tenios.init_callback("config", NUMBER)
        assert len(net.peers) == 3
        await gather(5, tenios.callback_status, 10)
        assert net.most_open == 2


@pytest.mark.parametrize("takes", [0.5, 1.5])
async def test_a_slow_before_send_does_not_make_a_connection_too_old(network, takes):
    """The call goes by another then; before_send has had its say."""
    asked = []

    async def before_send():
        asked.append(net.inits)
        await anyio.sleep(takes)

    async with network(vendor()) as net, client() as tenios:
        await tenios.init_callback("config", NUMBER, attempt=CallbackAttempt(before_send))
        assert len(net.peers) == (1 if takes < 1 else 2)
        assert net.inits == 1
    assert asked == [0]


async def test_a_connection_that_closes_during_before_send_is_replaced(network):
    asked = []

    async def before_send():
        asked.append(len(net.peers))
        net.peers[-1].finish()
        await anyio.sleep(0.1)

    attempt = CallbackAttempt(before_send)
    async with network(vendor()) as net, client() as tenios:
        callback = await tenios.init_callback("config", NUMBER, attempt=attempt)
        assert callback.id == 10
        assert [len(peer.requests) for peer in net.peers] == [0, 1]
    assert asked == [1]


async def test_cancelled_while_it_looks_for_another_connection_after_before_send(network):
    """Nothing has left, whatever before_send may have written down."""

    async def before_send():
        net.peers[-1].finish()
        await anyio.sleep(0.1)

    attempt = CallbackAttempt(before_send)
    async with network(vendor()) as net, client() as tenios:
        with anyio.move_on_after(0.2) as scope:
            await tenios.init_callback("config", NUMBER, attempt=attempt)
        assert anyio.current_time() == pytest.approx(0.2)
    assert scope.cancelled_caught
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert net.inits == 0


async def test_connecting_again_is_bounded_and_before_send_is_not_asked_again(network):
    asked = []

    async def before_send():
        asked.append(1)
        net.peers[-1].finish()
        await anyio.sleep(0.1)

    attempt = CallbackAttempt(before_send)
    async with network(vendor()) as net, client() as tenios:
        net.refusals = iter([None, *[ConnectionRefusedError("no")] * 20])
        with pytest.raises(ConnectionFailed):
            await tenios.init_callback("config", NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert asked == [1]
    assert net.inits == 0


@pytest.mark.parametrize("ending", ["an objection", "the deadline", "a cancellation"])
async def test_a_before_send_that_does_not_let_go_gives_the_connection_back(network, ending):
    async def before_send():
        if ending == "an objection":
            raise ZeroDivisionError
        await anyio.sleep_forever()

    async with network(vendor()) as net, client(max_connections=1) as tenios:
        for _ in range(3):
            with anyio.move_on_after(1 if ending == "a cancellation" else math.inf):
                with pytest.raises((ZeroDivisionError, ConnectionFailed)):
                    await tenios.init_callback("config", NUMBER, timeout=2, attempt=CallbackAttempt(before_send))
        assert await tenios.callback_status(10, timeout=1) == "CONNECTED"
        assert (net.most_open, net.inits) == (1, 0)


async def test_no_more_calls_are_written_down_than_there_are_connections(network):
    """Until whoever asked for one has been told of its end; also while a connection that was lost is made anew."""
    written_down, most = set(), []

    async def place(number):
        async def before_send():
            written_down.add(number)
            most.append(len(written_down))
            if number == 1:
                net.peers[-1].finish()
            await anyio.sleep(0.1)

        await tenios.init_callback("config", NUMBER, attempt=CallbackAttempt(before_send))
        written_down.remove(number)

    async with network(vendor()) as net, client(max_connections=2) as tenios:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(place, number)
    assert (max(most), len(most), net.inits) == (2, 8, 8)


ENDINGS = {"the deadline": ConnectionFailed, "a cancellation": type(None), "the client's end": ClientMisuse}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_who_waits_because_others_were_written_down(network, ending):
    first, second = CallbackAttempt(anyio.lowlevel.checkpoint), CallbackAttempt(anyio.lowlevel.checkpoint)

    async def place(attempt, timeout):
        with contextlib.suppress(TeniosError):
            await tenios.init_callback("config", NUMBER, timeout=timeout, attempt=attempt)

    async with network(silent) as net, client(max_connections=1, cancel_grace=0) as tenios:
        async with anyio.create_task_group() as group:
            group.start_soon(place, first, 30)
            await anyio.sleep(0.1)
            group.start_soon(place, second, 1 if ending == "the deadline" else 30)
            await anyio.sleep(2)
            if ending == "the client's end":
                await tenios.aclose()
            group.cancel_scope.cancel()
        assert (first.outcome, second.outcome) == (AttemptOutcome.UNKNOWN, AttemptOutcome.NOT_SENT)
        assert type(second.error) is ENDINGS[ending]
        assert net.inits == 1


# Deadlines


async def test_one_deadline_over_connecting_and_waiting_for_the_answer(network):
    async with network(silent, latency=6.0) as net, client() as tenios:
        with pytest.raises(RequestTimeout):
            await tenios.callback_status(10)
        assert anyio.current_time() == 10
        assert not net.open


async def test_a_connect_that_takes_too_long(network):
    async with network(vendor(), latency=math.inf) as net, client() as tenios:
        with pytest.raises(ConnectionFailed):
            await tenios.callback_status(10, timeout=3)
        assert anyio.current_time() == 3
        assert not net.peers


async def test_the_wait_for_a_connection_counts(network):
    async with network(silent) as net, client(max_connections=1) as tenios:
        async with anyio.create_task_group() as group:

            async def hold():
                with pytest.raises(RequestTimeout):
                    await tenios.callback_status(10, timeout=100)

            group.start_soon(hold)
            await anyio.sleep(1)
            with pytest.raises(ConnectionFailed):
                await tenios.callback_status(10, timeout=2)
            assert anyio.current_time() == 3
        assert anyio.current_time() == 100
        assert len(net.requests) == 1


async def test_no_deadline(network):
    async with network(answering(with_length(), after=1e6)) as net, client() as tenios:
        assert await tenios.callback_status(10, timeout=math.inf) == "CONNECTED"
        assert len(net.peers) == 1


async def test_a_deadline_that_has_passed_does_not_end_the_next_request(network):
    """What one request left of its timer is not the next one's."""
    async with network(answering(with_length(), after=1.0)), client() as tenios:
        await tenios.callback_status(10, timeout=1.5)
        await tenios.callback_status(10, timeout=5)
        await tenios.callback_status(10, timeout=1.5)
        await tenios.callback_status(10, timeout=math.inf)
    assert anyio.current_time() == 4


async def test_no_call_after_its_deadline_on_a_connection_at_hand(network):
    async with network(vendor()) as net, client() as tenios:
        await tenios.init_callback("config", NUMBER)
        await anyio.sleep(0.5)
        attempt = CallbackAttempt()
        with pytest.raises(ConnectionFailed):
            await tenios.init_callback("config", NUMBER, timeout=1e-20, attempt=attempt)
        assert attempt.outcome is AttemptOutcome.NOT_SENT
        await tenios.callback_status(10)
        assert len(net.peers) == 1


# Cancellation


async def cancelled_natively(after, function, *args):
    task = asyncio.ensure_future(function(*args))
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.wait([task])


async def cancelled_by_anyio(after, function, *args):
    with anyio.move_on_after(after):
        await function(*args)


@pytest.mark.parametrize("cancel", [cancelled_natively, cancelled_by_anyio])
@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.2, 1.5, 2.0])
async def test_cancelled_at_any_moment(network, cancel, after):
    """While it connects, waits for a slot, is handed one, waits for the answer: the slot is free, the connection gone."""
    async with network(answering(with_length(), after=0.5), latency=1.0) as net, client(max_connections=1) as tenios:
        await gather(3, cancel, after, tenios.callback_status, 10)
        began = anyio.current_time()
        assert await tenios.callback_status(10) == "CONNECTED"
        assert anyio.current_time() - began < 1.6
        assert len(net.open) == 1
        assert net.most_open == 1


async def test_cancelled_in_the_turn_in_which_the_answer_turns_out_bad(network):
    """Nobody is told of a future whose error nobody fetched."""
    tasks, told = [], []

    async def bad(peer):
        await peer.request()
        peer.send(b"garbage\r\n\r\n")
        loop.call_soon(tasks[0].cancel)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    async with network(bad), client() as tenios:
        tasks.append(asyncio.ensure_future(tenios.callback_status(10)))
        await asyncio.wait(tasks)
        assert tasks.pop().cancelled()
        gc.collect()
    assert not told


@pytest.mark.parametrize("what", ["garbage", "the end"])
async def test_a_connection_that_ends_in_the_turn_in_which_a_poll_wants_it(network, what):
    """The protocol was told; the socket is closed one turn later."""
    async with network(vendor()) as net, client(max_connections=1) as tenios:
        await tenios.callback_status(10)
        net.peers[0].send(b"garbage") if what == "garbage" else net.peers[0].finish()
        await asyncio.sleep(0)
        assert await tenios.callback_status(10) == "CONNECTED"
        assert [len(peer.requests) for peer in net.peers] == [1, 1]


async def test_cancelled_in_the_turn_in_which_a_connection_is_handed_over(network):
    """The connection goes to the next in line."""
    tasks = []

    def cancel_the_second(event):
        if event.callback.id == 1:
            tasks[1].cancel()

    async with network(answering(with_length(), after=0.5)) as net:
        async with client(max_connections=1, observers=[cancel_the_second]) as tenios:
            for number in (1, 2, 3):
                tasks.append(asyncio.ensure_future(tenios.callback_status(number)))
                await asyncio.sleep(0.1)
            await asyncio.wait(tasks)
        assert tasks[1].cancelled()
        assert (tasks[0].result(), tasks[2].result()) == ("CONNECTED", "CONNECTED")
        assert [request.fields["id"] for request in net.requests] == [1, 3]
        assert len(net.peers) == 1


async def test_a_cancelled_poll_leaves_no_timer(network):
    """A storm of them must not fill the loop's heap until their deadlines."""
    async with network(silent), client() as tenios:
        for _ in range(1000):
            await cancelled_by_anyio(0.001, tenios.callback_status, 10)
        timers = [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()]
        assert len(timers) < 10


# The end


async def test_closing_ends_what_is_under_way(network):
    results = []

    async def poll():
        try:
            await tenios.callback_status(10)
        except Exception as error:
            results.append(error)

    async with network(silent) as net:
        tenios = client(max_connections=1)
        async with anyio.create_task_group() as group:
            group.start_soon(poll)
            group.start_soon(poll)
            await anyio.sleep(1)
            await tenios.aclose()
            assert not net.open
        assert [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()] == []
    assert [type(error) for error in results] == [ClientMisuse, ClientMisuse]


async def test_closing_in_the_middle_of_an_answer_does_not_end_the_answer(network):
    """One without a length would look whole."""

    async def partly(peer):
        await peer.request()
        peer.send(b'HTTP/1.1 200 OK\r\n\r\n{"status": "CONNECTED"}')

    async with network(partly):
        tenios = client()
        async with anyio.create_task_group() as group:

            async def poll():
                with pytest.raises(ClientMisuse):
                    await tenios.callback_status(10)

            group.start_soon(poll)
            await anyio.sleep(1)
            await tenios.aclose()


async def test_closing_that_is_cancelled_closes_all_the_same(network):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with network(vendor()) as net:
        tenios = client()
        await tenios.callback_status(10)
        closing = asyncio.ensure_future(tenios.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await anyio.sleep(0.1)
        assert closing.cancelled()
        assert not net.open
    assert not told


async def test_closing_while_a_request_connects(network):
    """Nothing is sent after `aclose`."""
    async with network(vendor(), latency=1.0) as net:
        tenios = client()
        async with anyio.create_task_group() as group:

            async def poll():
                with pytest.raises(ClientMisuse):
                    await tenios.callback_status(10)

            group.start_soon(poll)
            await anyio.sleep(0.5)
            await tenios.aclose()
        assert not net.open
        assert not net.requests


async def test_a_server_that_chooses_http_2(network):
    """It was not offered; nothing is sent."""
    attempt = CallbackAttempt()
    async with network(vendor(), alpn="h2") as net:
        async with TeniosClient("key", base_url="https://api.tenios.com") as tenios:
            with pytest.raises(ConnectionFailed, match="h2"):
                await tenios.init_callback("config", NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert not net.requests
    assert not net.open


async def test_a_client_that_was_never_closed_says_so(network):
    """Its connections stay open for as long as the loop does."""
    async with network(vendor()) as net:
        tenios = client()
        await tenios.callback_status(10)
        left = [tenios]
        del tenios
        with pytest.warns(ResourceWarning, match="never closed: use `async with` or aclose"):
            left.clear()
        assert len(net.open) == 1


async def test_one_that_was_never_used_may_be_closed():
    unused = client()
    await unused.aclose()
    with pytest.raises(ClientMisuse, match="closed"):
        await unused.callback_status(10)
