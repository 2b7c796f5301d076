"""Where a ledger in PostgreSQL is: a URL that may hold a password, and shows none. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import attrs

SCHEMA = "tenios"
"""Where the tables are unless the URL says otherwise."""
_SCHEMES = ("postgresql://", "postgres://")
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_USER_AND_PASSWORD = re.compile(r"(postgres(?:ql)?://)[^\s'\"]*@", re.IGNORECASE)
_PASSWORD = re.compile(r"([?&](?:ssl)?password=)[^&\s]*")


def is_postgres_url(text: str) -> bool:
    """Whether this names a database and not a file."""
    return text.lower().startswith(_SCHEMES)


def without_passwords(text: str) -> str:
    """A text that may quote such URLs, without users and passwords in them."""
    return _PASSWORD.sub(r"\1***", _USER_AND_PASSWORD.sub(r"\1***@", text))


@attrs.frozen(repr=False, str=False)
class PostgresURL:
    """A ledger in PostgreSQL: `postgresql://user@host/database?schema=may`. Made by `parse`.

    Attributes:
        conninfo: what libpq connects by; it may hold a password.
        schema: the PostgreSQL schema that holds this ledger: one database may hold several.
    """

    conninfo: str
    schema: str

    @classmethod
    def parse(cls, text: str) -> PostgresURL:
        """Reads it; all but `schema` is libpq's own. Raises `ValueError`, which quotes nothing of it."""
        if not is_postgres_url(text):
            raise ValueError("a ledger in PostgreSQL is named as postgresql://user@host/database")
        try:
            parts = urlsplit(text)
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ValueError("this postgresql:// URL cannot be read; its password must be percent-encoded") from None
        if any(map(str.isspace, text)):
            raise ValueError("this postgresql:// URL holds a space; in a password it is written %20")
        if parts.fragment:
            raise ValueError("this postgresql:// URL holds a #; in a password it is written %23")
        schema, *others = [value for name, value in query if name == "schema"] or [SCHEMA]
        if others or not _SCHEMA_NAME.fullmatch(schema) or schema.startswith("pg_"):
            raise ValueError("schema must be one name of small letters, digits and _, and not begin with pg_")
        rest = urlencode(
            [(name, value) for name, value in query if name != "schema"], safe="/", quote_via=quote
        )  # to libpq + is no space
        base = f"postgresql://{parts.netloc}{parts.path}"
        return cls(f"{base}?{rest}" if rest else base, schema)

    @property
    def name(self) -> str:
        """What people call it: the schema, or for the usual one the database."""
        return self.schema if self.schema != SCHEMA else unquote(urlsplit(self.conninfo).path.strip("/")) or SCHEMA

    def __str__(self) -> str:
        parts = urlsplit(self.conninfo)
        host = parts.netloc.rpartition("@")[2] or dict(parse_qsl(parts.query)).get("host", "")
        return f"postgresql://{host}{parts.path}" + ("" if self.schema == SCHEMA else f"?schema={self.schema}")

    def __repr__(self) -> str:
        return f"<PostgresURL {self}>"
