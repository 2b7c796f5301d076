"""The pictures that are rendered from the programs show what those do today."""

import importlib.util
import re

from .pages import DOCS


def test_what_tenios_watch_shows_is_in_its_picture():
    """All of its text, since another version of rich may draw it otherwise; `make pictures` renders it anew."""
    spec = importlib.util.spec_from_file_location("render_watch", DOCS / "render_watch.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    rendered, kept = program.render(), (DOCS / "watch.svg").read_text(encoding="utf-8")
    assert texts(kept) == texts(rendered)


def texts(svg):
    return re.findall(r">([^<]+)</text>", svg)
