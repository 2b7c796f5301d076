"""What makes a shell complete: cyclopts' script, and for zsh an end that works however the file came in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cyclopts import App

_ZSH_END = """
if [[ $zsh_eval_context[-1] == *func ]]; then
  {function} "$@"
else
  compdef {function} {command}
fi
"""


def script(app: App, shell: Literal["bash", "zsh", "fish"]) -> str:
    """The script for one shell.

    cyclopts' zsh script defines a function that compinit calls only if the file has that function's name. This one may
    have any name in $fpath, and may be sourced too.
    """
    text = app.generate_completion(shell=shell)
    if shell == "zsh" and (found := re.search(r"^(\w+)\(\) *\{", text, re.MULTILINE)):
        text += _ZSH_END.format(function=found[1], command=app.name[0])
    return text
