"""Contacts files: what is read, what is rejected with which reason, and what ends the reading."""

import copy
import csv
import io
import json
import pickle
import re
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async.batch.cells import line_of, unguarded
from tenios_async.batch.contacts import BadRow, Contact, SourceError, is_json, read_contacts, writing_rejects
from tenios_async.batch.numbers import Numbers

NUMBERS = Numbers(prefixes=["+49"])
N1, N2 = "+49221123456", "+49221123457"


@pytest.fixture
def read(tmp_path):
    def read(content, *, name="contacts.csv", columns=None):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(read_contacts(path, callback_config_id="config", numbers=NUMBERS, columns=columns))

    return read


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_way_a_csv_file_is_written(read, delimiter, mark, end):
    rows = [["name", "callback_number", "delay"], ["M\xfcller, A; B", N1, "30"], ["", N2, ""]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    first, second = read(mark + text.getvalue())
    assert (first.line, first.request.callback_number, first.request.delay) == (2, N1, 30)
    assert first.extra == {"name": "M\xfcller, A; B"}
    assert (second.line, second.request.delay, second.extra) == (3, 0, {"name": ""})


def test_all_fields_of_the_api(read):
    (contact,) = read(
        "callback_number,callback_config_id,delay,agent_announcement,dtmf_key_to_trigger_customer_call\n"
        f'{N1},other,5,"Peter, please",#\n'
    )
    request = contact.request
    assert (request.callback_config_id, request.delay) == ("other", 5)
    assert (request.agent_announcement, request.dtmf_key_to_trigger_customer_call) == ("Peter, please", "#")
    assert contact.extra == {}


def test_a_quoted_line_break_keeps_the_lines_counted(read):
    first, second = read(f'callback_number,note\n{N1},"two\nlines"\n{N2},x\n')
    assert (first.line, first.extra["note"]) == (2, "two\nlines")
    assert second.line == 4


@pytest.mark.parametrize("name", ["Telefon", "number", "PHONE", "Rufnummer"])
def test_a_column_that_can_only_be_the_number(read, name):
    assert read(f"{name},x\n{N1},y\n")[0].request.callback_number == N1


def test_columns_by_name(read):
    (contact,) = read(f"phone,mobile,wait\n+1,{N1},9\n", columns={"callback_number": "mobile", "delay": "wait"})
    assert (contact.request.callback_number, contact.request.delay) == (N1, 9)
    assert contact.extra == {"phone": "+1"}


@pytest.mark.parametrize(
    ("content", "columns", "line", "says"),
    [
        ("", None, 1, "empty"), ('"callback_number', None, 1, "header"), ("callback_number\n", None, 1, "no contacts"), ("name\nA\n", None, 1, "--column"),
        (f"phone,mobile\n{N1},{N2}\n", None, 1, "--column"), ("a,a,callback_number\n", None, 1, "name of its own"),
        ("a,,callback_number\n", None, 1, "name of its own"),
        (f"callback_number\n{N1}\n", {"delay": "Wartezeit"}, 1, "'Wartezeit'; there are callback_number"),
        ("\ufeffcallback_number\n".encode("utf-16-le"), None, 1, "UTF-16"), (b"callback_number\n\xff\n", None, 2, "UTF-8"),
        (f'callback_number,x\n{N1},ok\n{N1},"never closed\n{N1},y\n', None, 3, "never closed"), ("callback_number\n\0\n", None, 2, "NUL"),
        (b"callback_number\n" + b"x" * 1_100_000, None, 2, "longer than"),
        (f"{N1};Eva\n{N2};Bob\n", None, 1, "needs a header"), ("030 12 34-56,Eva\n", {"delay": "Wartezeit"}, 1, "needs a header"),
    ],
)  # fmt: skip
def test_what_ends_the_reading(read, content, columns, line, says):
    with pytest.raises(SourceError, match=says) as caught:
        read(content, columns=columns)
    assert caught.value.line == line
    assert f"line {line}" in str(caught.value)
    assert not {N1, N2, "030"} & set(re.split("[ ,]", str(caught.value)))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_what_ends_the_reading_survives_copying_and_pickling(read, again):
    with pytest.raises(SourceError) as caught:
        read("")
    error = again(caught.value)
    assert (type(error), str(error), error.line) == (SourceError, str(caught.value), 1)
    assert str(error).endswith("contacts.csv, line 1: the file is empty")


def test_a_field_that_there_is_not(read):
    with pytest.raises(ValueError, match="no field 'name'"):
        read(f"callback_number\n{N1}\n", columns={"name": "x"})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("+4912345", "cells"), ("+4912345,x,y,z", "cells"), (",,", "callback_number"), ("12345,1,x", "E.164"),
        ("+431123456,1,x", "country"), (f"{N1},1.5,x", "delay"), (f"{N1},-1,x", "delay"), (f"{N1},soon,x", "delay"),
        ("+4990012345,1,x", "premium"), (f'{N1},1,"a"b', "CSV"),
    ],
)  # fmt: skip
def test_a_bad_row_is_told_and_the_rest_is_read(read, row, says):
    rows = read(f"callback_number,delay,x\n{row}\n{N2},0,last\n")
    if row == ",,":
        assert len(rows) == 1  # nothing stands there
        return
    bad, good = rows
    assert isinstance(bad, BadRow)
    assert (bad.line, says in bad.reason) == (2, True)
    assert good.request.callback_number == N2


def test_no_reason_shows_a_number(read):
    rows = read("callback_number\n+437654321098\n0221-7654321098\n+4990076543210\n")
    assert len(rows) == 3
    for row in rows:
        assert "76543210" not in row.reason + repr(row)


def test_json_lines(read):
    lines = [
        {"callback_number": N1, "delay": 30, "tags": ["a", 1], "dtmf_key_to_trigger_customer_call": 1},
        {"callback_number": N2, "delay": "7"},
        {"callback_number": 49221123456},
        {"callback_number": N1, "delay": True},
        {"delay": 1},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n[1]\nnot json\n"
    rows = read(text, name="contacts.jsonl")
    assert [type(row) for row in rows] == [Contact, Contact] + [BadRow] * 5
    assert (rows[0].request.delay, rows[0].request.dtmf_key_to_trigger_customer_call) == (30, "1")
    assert rows[0].extra == {"tags": ["a", 1]}
    assert [row.line for row in rows] == [1, 2, 3, 4, 5, 7, 8]


def test_it_is_read_line_by_line(tmp_path):
    """The first contact is there while the file is still being written."""
    path = tmp_path / "contacts.csv"
    with path.open("w") as file:
        file.write(f"callback_number\n{N1}\n" + "x" * 100_000)
        file.flush()
        assert next(read_contacts(path, callback_config_id="c", numbers=NUMBERS)).request.callback_number == N1


@pytest.mark.parametrize("name", ["contacts.csv", "contacts.jsonl"])
def test_rejects_can_be_mended_and_read_again(tmp_path, read, name):
    if is_json(tmp_path / name):
        content = json.dumps({"callback_number": "+43221123456", "note": "=1+1"}) + "\nnot json\n"
    else:
        content = 'callback_number,note\n+43221123456,=1+1\n+43221123450,"a\nb",c\n'
    bad = read(content, name=name)
    path = tmp_path / f"rejects{(tmp_path / name).suffix}"
    with writing_rejects(path, as_json=is_json(path)) as reject:
        for row in bad:
            reject(row)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert "country" in text
    mended = read(text.replace("+43", "+49"), name=name)
    assert mended[0].extra == {"note": "=1+1"}
    assert mended[0].request.callback_number == "+49221123456"


TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text("a=+-@\t\r\n;,|'\"\uff1d", max_size=12)
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d")


@given(st.lists(TEXTS, min_size=2, max_size=3))
def test_cells_come_back_and_start_no_formula_wherever_a_spreadsheet_splits_them(row):
    text = line_of(row)
    assert [unguarded(cell) for cell in next(csv.reader(io.StringIO(text, newline="")))] == row
    for delimiter in ",;\t|":
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            assert not [cell for cell in cells if cell.startswith(FORMULAS)]
    assert not [cell for cell in re.split(r"[;\t|\r\n]", text) if cell.lstrip('"').startswith(FORMULAS)]


@pytest.mark.parametrize("cell", ["'tis", "'", "", "plain", "a=b", "a;'b", "rock,'-'n'-roll"])
def test_what_others_wrote_stays(cell):
    assert unguarded(cell) == cell


@given(st.binary(max_size=300), st.sampled_from(["c.csv", "c.jsonl"]))
def test_whatever_is_in_it_only_our_errors_come_out(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(b"callback_number,x\n" + content if name == "c.csv" else content)
    try:
        for row in read_contacts(path, callback_config_id="c", numbers=NUMBERS):
            assert isinstance(row, (Contact, BadRow))
    except SourceError:
        pass


def test_rejects_keep_every_column_whichever_line_is_bad_first(tmp_path, read):
    """One that is too short, and one that is no CSV at all."""
    for first in ("+43221123456", '"a" b,c,d'):
        bad = read(f"callback_number,name,city\n{first}\n+43221123450,Bob,K\xf6ln\n")
        path = tmp_path / "rejects.csv"
        with writing_rejects(path, as_json=False) as reject:
            for row in bad:
                reject(row)
        mended = read(path.read_text().replace("+43", "+49"))
        assert mended[1].extra == {"name": "Bob", "city": "K\xf6ln"}


def test_half_a_character_is_a_bad_line(read, tmp_path):
    """JSON can write what no file can hold; it must not end in the middle of a campaign or of its export."""
    whole = json.dumps({"callback_number": N1, "name": "\U0001f600 \xfc"})
    broken = [
        '{"callback_number": "+49221123456", "name": "a\\ud800"}', '{"callback_number": "+49221123456", "na\\uDC00": 1}',
        '{"callback_number": "+49221123456", "agent_announcement": "\\ud800"}', '["\\ud800"]',
    ]  # fmt: skip
    first, *rest = read("\n".join([whole, *broken]), name="contacts.jsonl")
    assert first.extra == {"name": "\U0001f600 \xfc"}
    assert [type(row) for row in rest] == [BadRow] * 4
    with writing_rejects(tmp_path / "rejects.jsonl", as_json=True) as reject:
        for row in rest:
            reject(row)
