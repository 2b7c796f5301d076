"""Contacts files, CSV and JSON lines: read line by line, whatever their size. Pure but for the file itself."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import attrs

from tenios_async import CallbackRequest
from tenios_async.batch.cells import line_of, unguarded
from tenios_async.batch.checks import is_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path

    from tenios_async.batch.numbers import Numbers

LONGEST_LINE = 1024 * 1024
"""Bytes."""
OURS = "tenios_"
"""What the names of columns begin with that this library writes; they are not read back."""
_FIELDS = (
    "callback_number",
    "callback_config_id",
    "delay",
    "agent_announcement",
    "dtmf_key_to_trigger_customer_call",
)
_ALIASES = frozenset(
    {"number", "phone", "phone_number", "phonenumber", "mobile", "telefon", "telefonnummer", "rufnummer", "tel"}
)
_DELIMITERS = ",;\t|"
_LIKE_A_NUMBER = re.compile(r"\d[\d ()/.-]{4,}\d")


class SourceError(ValueError):
    """The file cannot be read from here on.

    Attributes:
        line: where.
    """

    def __init__(self, path: Path, line: int, what: str) -> None:
        super().__init__(path, line, what)  # what copies and pickles are made of
        self.line = line

    def __str__(self) -> str:
        path, line, what = self.args
        return f"{path}, line {line}: {what}"


@attrs.frozen
class BadRow:
    """A line that is not taken.

    Attributes:
        line: its first line in the file.
        reason: why.
        fields: what stood there.
    """

    line: int
    reason: str
    fields: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen
class Contact:
    """Somebody to call.

    Attributes:
        line: its first line in the file.
        request: whom to call.
        extra: the columns that are not the API's.
        fields: what stood there.
    """

    line: int
    request: CallbackRequest
    extra: Mapping[str, Any] = attrs.field(repr=False)
    fields: Mapping[str, Any] = attrs.field(repr=False)

    def rejected(self, reason: str) -> BadRow:
        """The line as one that is not taken after all."""
        return BadRow(self.line, reason, self.fields)


class Digest(Protocol):
    """As `hashlib` makes them."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""


Found: TypeAlias = Contact | BadRow


def is_json(path: Path) -> bool:
    """Whether a file of this name holds JSON lines; else it holds CSV."""
    return path.suffix.lower() in (".jsonl", ".ndjson")


def read_contacts(
    path: Path,
    *,
    callback_config_id: str,
    numbers: Numbers,
    columns: Mapping[str, str] | None = None,
    digest: Digest | None = None,
) -> Iterator[Found]:
    """Everybody in a file, in order.

    Args:
        path: CSV in UTF-8 with a header (delimited by comma, semicolon, tab or bar), or, if it ends in .jsonl or
            .ndjson, one JSON object a line.
        callback_config_id: for those that name none.
        numbers: how numbers are written, and which may be called.
        columns: the API's names of fields, and the file's of its columns, where they are not the same.
        digest: is given every byte.

    Raises `SourceError`, with the line, where the file cannot be read on, and `OSError`.
    """
    columns = dict(columns or {})
    if unknown := sorted(columns.keys() - set(_FIELDS)):
        raise ValueError(f"there is no field {unknown[0]!r}; fields are {', '.join(_FIELDS)}")
    is_empty = True
    if is_json(path):
        for record in _json_records(_lines(path, digest)):
            is_empty = False
            yield _found(record, _mapping(record[1], columns), callback_config_id, numbers)
    else:
        header, records = _csv_records(path, _lines(path, digest))
        mapping = _mapping_of_header(path, header, columns)
        for record in records:
            is_empty = False
            yield _found(record, mapping, callback_config_id, numbers)
    if is_empty:
        raise SourceError(path, 1, "there are no contacts in it")


def _found(record: _Record, mapping: Mapping[str, str], config_id: str, numbers: Numbers) -> Found:
    line, fields, problem = record
    if problem is not None:
        return BadRow(line, problem, fields)
    try:
        request = _request(fields, mapping, config_id, numbers)
    except ValueError as error:
        return BadRow(line, str(error), fields)
    used = set(mapping.values())
    extra = {name: value for name, value in fields.items() if name not in used and not name.startswith(OURS)}
    return Contact(line, request, extra, fields)


_Record: TypeAlias = tuple[int, dict[str, Any], str | None]
"""The line where it begins, its cells by the names of their columns, and what is wrong with it."""


def _lines(path: Path, digest: Digest | None) -> Iterator[str]:
    if is_ledger(path):
        raise SourceError(path, 1, "this is a ledger; give the list of contacts")
    with path.open("rb") as file:
        line = 0
        while raw := file.readline(LONGEST_LINE + 1):
            line += 1
            if digest is not None:
                digest.update(raw)
            if line == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise SourceError(path, 1, "this is UTF-16; save it as UTF-8")
            if len(raw) > LONGEST_LINE:
                raise SourceError(path, line, f"it is longer than {LONGEST_LINE} bytes")
            if b"\0" in raw:
                raise SourceError(path, line, "there is a NUL in it; is this a text file?")
            try:
                yield raw.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError:
                raise SourceError(path, line, "it is not UTF-8; save the file as UTF-8") from None


def _csv_records(path: Path, lines: Iterator[str]) -> tuple[list[str], Iterator[_Record]]:
    """The header, and what follows it."""
    head = next(lines, None)
    if head is None:
        raise SourceError(path, 1, "the file is empty")
    delimiter = max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", head).count)

    def with_head() -> Iterator[str]:
        yield head
        yield from lines

    reader = csv.reader(with_head(), delimiter=delimiter, strict=True)
    try:
        header = [unguarded(name.strip()) for name in next(reader)]
    except (csv.Error, StopIteration) as error:
        raise SourceError(path, 1, f"there is no header that can be read ({error})") from None
    if "" in header or len(set(header)) < len(header):
        raise SourceError(path, 1, "every column needs a name of its own in the header")
    return header, _csv_rows(path, reader, header)


def _csv_rows(path: Path, reader: Any, header: list[str]) -> Iterator[_Record]:
    while True:
        line: int = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "end of data" in str(error) or "field larger" in str(error):
                raise SourceError(path, line, "a quotation mark opens there and is never closed") from None
            yield line, dict.fromkeys(header, ""), f"it cannot be read as CSV: {error}"
            continue
        if cells is None:
            return
        if not any(cells):
            continue
        yield line, *_ragged(header, [unguarded(cell) for cell in cells])


def _ragged(header: list[str], cells: list[str]) -> tuple[dict[str, Any], str | None]:
    fields: dict[str, Any] = dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))
    if len(cells) == len(header):
        return fields, None
    if len(cells) > len(header):
        fields[f"{OURS}rest"] = " | ".join(cells[len(header) :])
    return fields, f"it has {len(cells)} cells, and the header has {len(header)}"


def _json_records(lines: Iterator[str]) -> Iterator[_Record]:
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            fields: Any = json.loads(text)
        except (ValueError, RecursionError):
            yield line, {f"{OURS}text": text.strip()}, "it is not JSON"
            continue
        if _is_broken(text, fields):
            yield line, {f"{OURS}text": text.strip()}, "half a character stands in it, such as \\ud800"
        elif isinstance(fields, dict):
            yield line, cast("dict[str, Any]", fields), None
        else:
            yield line, {f"{OURS}text": text.strip()}, "it is not a JSON object"


def _is_broken(text: str, fields: Any) -> bool:
    """Whether JSON's escapes have made of it what cannot be written down."""
    if "\\ud" not in text.lower():
        return False
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _mapping(fields: Iterable[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The API's names of fields, and those of the columns that they are in, there or not."""
    mapping = {name: columns.get(name, name) for name in _FIELDS}
    if mapping["callback_number"] not in fields:
        guesses = [name for name in fields if name.strip().lower() in _ALIASES]
        if len(guesses) == 1:
            mapping["callback_number"] = guesses[0]
    return mapping


def _mapping_of_header(path: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    mapping = _mapping(header, columns)
    missing = [column for column in columns.values() if column not in header]
    if not missing and mapping["callback_number"] in header:
        return mapping
    if any(_LIKE_A_NUMBER.search(name) for name in header):  # which an error must not show
        raise SourceError(path, 1, "a number stands where the names of the columns should: the file needs a header")
    if missing:
        there = ", ".join(name for name in header if not name.startswith(OURS))
        raise SourceError(path, 1, f"there is no column {missing[0]!r}; there are {there}")
    say = "say which it is: --column callback_number=NAME"
    raise SourceError(path, 1, f"no column is called callback_number; {say}")


def _request(
    fields: Mapping[str, Any], mapping: Mapping[str, str], config_id: str, numbers: Numbers
) -> CallbackRequest:
    """What to send. Raises `ValueError`."""
    given: dict[str, Any] = {name: fields.get(column) for name, column in mapping.items()}
    given = {name: value for name, value in given.items() if value is not None and value != ""}
    number = given.get("callback_number", "")
    if not isinstance(number, str) or not number.strip():
        raise ValueError("there is no callback_number, as a text")  # bad rows are ValueErrors
    dtmf_key = given.get("dtmf_key_to_trigger_customer_call")
    config_id = given.get("callback_config_id", config_id)
    delay, announcement = _whole(given.get("delay", 0)), given.get("agent_announcement")
    return CallbackRequest(config_id, numbers.normalise(number), delay, announcement, _key(dtmf_key))


def _key(value: Any) -> Any:
    """A key that a JSON file holds as a number."""
    return str(value) if type(value) is int else value


def _whole(value: Any) -> Any:
    """A number that a CSV file holds as text; the request objects to anything else."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()) else value


@contextmanager
def writing_rejects(path: Path, *, as_json: bool) -> Generator[Callable[[BadRow], None]]:
    """Writes bad rows to a file that can be mended and read again, readable by its owner only."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  # made with its mode
        yield _json_rejects(file) if as_json else _csv_rejects(file)


def _json_rejects(file: IO[str]) -> Callable[[BadRow], None]:
    def write(bad: BadRow) -> None:
        fields = {**bad.fields, f"{OURS}line": bad.line, f"{OURS}reason": bad.reason}
        file.write(json.dumps(fields, ensure_ascii=False) + "\n")

    return write


def _csv_rejects(file: IO[str]) -> Callable[[BadRow], None]:
    header: list[str] = []

    def write(bad: BadRow) -> None:
        if not header:
            header.extend(name for name in bad.fields if not name.startswith(OURS))
            file.write(line_of([*header, f"{OURS}line", f"{OURS}reason", f"{OURS}rest"]))
        cells = [str(bad.fields.get(name, "")) for name in header]
        file.write(line_of([*cells, str(bad.line), bad.reason, str(bad.fields.get(f"{OURS}rest", ""))]))

    return write
