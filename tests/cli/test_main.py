"""The entry of the `tenios` command, before there is a command."""

import sys

import pytest

from tenios_async.__main__ import main


def test_a_broken_installation_is_not_taken_for_a_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenios_async.cli", None)
    with pytest.raises(ModuleNotFoundError, match=r"tenios_async\.cli"):
        main()


def test_an_interrupt_while_it_is_loaded_is_130_and_shows_nothing(monkeypatch, capsys):
    class Interrupting:
        @staticmethod
        def find_spec(*_):
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "tenios_async.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")
