"""Whatever comes from outside, in whatever shape: only the library's own errors come out. Hypothesis draws it.

It draws the same each time, or what `--hypothesis-seed` says, as in a soak. A failure prints the smallest example.
"""

import asyncio
import json

import hypothesis.strategies as st
from hypothesis import core, example, given, settings

from tenios_async import Callback, CallbackOutcomeUnknown, CallbackRequest, CallbackStatus, TeniosClient, TeniosError
from tenios_async._wire import AccessKey, Reply, init_body, parse_init, parse_status, status_body
from tenios_async.batch import LedgerFailed, LedgerRefused
from tenios_async.batch.contacts import BadRow, Contact, SourceError, read_contacts
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.numbers import Numbers

from ..rooms.network import Network, in_pieces
from ..virtual_time import virtual_loop
from .disks import Left
from .experiment import folder

KEY = AccessKey("CANARY-KEY-0123456789")
NUMBER = "+4915799900042"
EXAMPLES = 100
"""Of each; `make soak` draws as many again and again, with other seeds."""
FUZZ = settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=core.global_force_seed is None)
PLACING, ASKING = init_body(KEY, CallbackRequest("config", NUMBER)), status_body(KEY, Callback(10))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["id", "status", "error_code", "error_message", "fields", "v", "placed_at", "delay", ""])
OBJECTS = st.dictionaries(NAMES | st.text(max_size=10), VALUES, max_size=6)
BODIES = st.binary(max_size=200) | (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode())
CODES = st.integers(0, 1000) | st.sampled_from([200, 400, 403, 404, 429, 500, 503])
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "date", "content-type"]), st.text(max_size=40), max_size=3)


@given(CODES, HEADERS, BODIES)
@FUZZ
def test_an_answer_that_was_read(code, headers, body):
    """An id, a state, or an error that pickles and says whether a phone may ring."""
    reply = Reply(code, headers, body)
    for parse, asked, kind in ((parse_init, PLACING, (int, str)), (parse_status, ASKING, CallbackStatus)):
        try:
            assert isinstance(parse(reply, asked), kind)
        except TeniosError as error:
            assert error.may_have_dialled == isinstance(error, CallbackOutcomeUnknown)
            assert NUMBER not in str(error)
            if not 400 <= code < 500 and parse is parse_init:
                assert error.may_have_dialled


HEAD = st.sampled_from(
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 400 No\r\n", b"HTTP/1.0 200\r\n", b"HTTP/1.1 100 Go\r\n\r\n"]
)
LINE = st.sampled_from(
    [
        b"Content-Length: 12\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"\r\n",
        b"c\r\n",
        b"0\r\n\r\n",
    ]
)


@given(st.lists(HEAD | LINE | BODIES, max_size=12), st.booleans())
@FUZZ
def test_an_answer_on_the_wire(pieces, closes):
    """Through the pool, in any pieces: a call ends, and is not tried again once it left."""

    async def main():
        async with Network([in_pieces(*filter(None, pieces), close=closes)]) as network:
            async with TeniosClient("CANARY-KEY-0123456789", base_url="http://127.0.0.1:1") as tenios:
                for ask in (tenios.init_callback("config", NUMBER), tenios.callback_status(10)):
                    try:
                        await ask
                    except TeniosError as error:
                        assert NUMBER not in str(error)
            assert network.inits == 1

    with asyncio.Runner(loop_factory=virtual_loop) as runner:
        runner.run(main())


@given(
    st.text(max_size=300)
    | st.binary(max_size=300)
    | OBJECTS.map(json.dumps)
    | OBJECTS.map(lambda x: json.dumps({**x, "v": 1}))
)
@example('{"v": 1, "id": ' + "9" * 5000 + "}")
@example('{"v": 1, "id": 10, "placed_at": "0001-01-01T00:00:00+23:59"}')
@example('{"v": 1, "id": 10, "placed_at": 5}')
@example('{"v": 1, "id": 10, "status": NaN}')
@example('{"v": 1, "id": 10, "delay": 30, "placed_at": "2026-11-23T12:00:00+01:00", "status": "CONNECTED"}')
@example("[" * 100_000)
@FUZZ
def test_a_resume_token(token):
    """A callback that makes the same token again, or a ValueError."""
    try:
        callback = Callback.from_json(token)
    except ValueError:
        return
    assert Callback.from_json(callback.to_json()) == callback


CELLS = st.text(max_size=30) | st.sampled_from(
    ["+49221123456", "0221 123456", '"', "''", "=1+1", "\0", "\r", "9" * 400]
)
ROWS = st.lists(st.lists(CELLS, max_size=5), max_size=8)


def as_csv(rows):
    return "\n".join(["callback_number;delay;name", *(";".join(row) for row in rows)]).encode("utf-8", "surrogatepass")


def as_lines(rows):
    return b"\n".join(rows)


@given(st.binary(max_size=400) | ROWS.map(as_csv), st.sampled_from(["contacts.csv", "contacts.jsonl"]))
@example(b"callback_number\n" + b"9" * (1 << 20), "contacts.csv")
@example(b'callback_number\n"' + b"\n" * 200_000, "contacts.csv")
@example(b'{"callback_number": "+49221123456", "delay": ' + b"9" * 5000 + b"}", "contacts.jsonl")
@example(b'{"callback_number": "+49221123456", "delay": NaN}', "contacts.jsonl")
@example(b'{"callback_number": "+49221123456", "dtmf_key_to_trigger_customer_call": {"a": 1}}', "contacts.jsonl")
@example(b"[" * 100_000, "contacts.jsonl")
@FUZZ
def test_a_contacts_file(content, name):
    read(content, name)


@given(
    st.lists(
        OBJECTS.map(lambda value: json.dumps({"callback_number": "+49221123456", **value}).encode()) | BODIES,
        max_size=6,
    ).map(as_lines)
)
@FUZZ
def test_a_contacts_file_of_json_lines(content):
    read(content, "contacts.jsonl")


def read(content, name):
    """Each line is a contact or a bad one, or the file is refused with the line."""
    with folder() as parent:
        (parent / name).write_bytes(content)
        try:
            found = list(read_contacts(parent / name, callback_config_id="config", numbers=Numbers("DE", ["+49"])))
        except SourceError as error:
            assert error.line >= 1
            return
    for each in found:
        assert isinstance(each, (Contact, BadRow))
        if isinstance(each, Contact):
            assert each.request.callback_number.startswith("+49")


@given(st.data())
@FUZZ
def test_a_ledger(data):
    """Bytes changed, put in, taken out anywhere in its files: it says all that was recorded, or is refused."""
    with folder() as parent, folder() as damage:
        left = Left(parent, is_closed=data.draw(st.booleans()))
        name = data.draw(st.sampled_from(sorted(left.files)))
        content = left.files[name]
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content)))
            put = data.draw(st.binary(max_size=30))
            taken = data.draw(
                st.just(len(put)) | st.integers(0, 40)
            )  # mostly so that all that follows stays where it is
            content = content[:at] + put + content[at + taken :]
        for other, bytes_of in {**left.files, name: content}.items():
            (damage / other).write_bytes(bytes_of)
        for opening in (LedgerFile.read, LedgerFile.write):
            try:
                with opening(damage / "calls.db") as ledger:
                    assert list(ledger.rows()) == left.rows
                    for look in (ledger.counts, ledger.tally, ledger.extras, ledger.resolutions, ledger.last):
                        look()
            except (LedgerRefused, LedgerFailed):
                pass


@given(st.binary(max_size=3000), st.booleans())
@FUZZ
def test_a_ledger_that_is_none(content, has_header):
    with folder() as parent:
        head = b"SQLite format 3\0".ljust(68, b"\1") + bytes.fromhex("7e4105cb").rjust(4) if has_header else b""
        (parent / "calls.db").write_bytes(head + content)
        for opening in (LedgerFile.read, LedgerFile.write):
            try:
                opening(parent / "calls.db").close()
            except (LedgerRefused, LedgerFailed):
                continue
            raise AssertionError("it was taken for a ledger")  # where a promise is broken
