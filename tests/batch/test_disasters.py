"""Several machines and everything that happens to them: nobody is rung twice, and everything ends."""

import os

import pytest

from .disasters import main

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]


@pytest.mark.usefixtures("postgres")
def test_disasters(capsys):
    main(["--seconds", "18", "--seed", "3", "--minutes", "0"])
    assert "nobody was rung twice" in capsys.readouterr().out
