"""Kinds of options that several commands have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import Token


def whole_number(_: Any, tokens: Sequence[Token]) -> int:
    """Cyclopts rounds 1.5 to 2 and reads 0x10; a delay is whole seconds and nothing else."""
    if not re.fullmatch(r"[0-9]{1,10}", tokens[0].value):
        raise ValueError(f"{tokens[0].value!r} is not a whole number of 0 or more")
    return int(tokens[0].value)


ConfigId = Annotated[str | None, Parameter(env_var="TENIOS_CALLBACK_CONFIG_ID", metavar="ID")]
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Whole = Annotated[int, Parameter(converter=whole_number)]
