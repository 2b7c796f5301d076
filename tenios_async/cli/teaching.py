"""What stands below each help: examples to copy, and the exit codes."""

from __future__ import annotations

import textwrap

from tenios_async.cli.outcome import MEANINGS

_WIDTH = 79


def _exit_codes() -> str:
    lines = (
        textwrap.fill(meaning, _WIDTH, initial_indent=f"{int(code):3}  ", subsequent_indent=" " * 5)
        for code, meaning in MEANINGS.items()
    )
    return "Exit codes:\n\n" + "\n".join(lines) + "\n"


EXIT_CODES = _exit_codes()


def examples(*pairs: tuple[str, str]) -> str:
    """The end of a help: pairs of what a line does and the line, then the exit codes. What is empty goes on."""
    shown = "\n".join(f"\n  # {what}\n  {line}" if what else f"  {line}" for what, line in pairs).lstrip("\n")
    return f"Examples:\n\n{shown}\n\n{EXIT_CODES}"


FIRST_STEPS = examples(
    ("see every way a call can end; no phone rings", "tenios demo"),
    ("what would be used: key, URL, proxy; no phone rings", "tenios doctor"),
    ("place a call and follow it to its end; two phones ring", "tenios init +491234567890 --config-id ID --watch"),
    ("try that against a simulator first; leave it running", "tenios simulate"),
    ("complete commands and options by the tab key; see its help", "tenios completion --help"),
)
INIT = examples(
    ("place a call and follow it to its end", "tenios init +491234567890 --config-id ID --watch"),
    ("in half a minute, with words for the agent", "tenios init +491234567890 --delay 30 --announcement 'A web call'"),
    ("place it in a script, and follow it later", "tenios init +491234567890 --json > call.json"),
    ("", "tenios watch @call.json"),
)
STATUS = examples(
    ("by the id that `tenios init` printed", "tenios status 10"),
    ("by what `tenios init --json` wrote", "tenios status @call.json --json"),
)
WATCH = examples(
    ("by the id that `tenios init` printed", "tenios watch 10"),
    ("go on where a watch was broken off, by its token", """tenios watch '{"v": 1, "id": 10}'"""),
    ("for ten minutes at most, one JSON object for each state", "tenios watch @call.json --timeout 600 --json"),
)
SIMULATE = examples(
    ("leave it running ten times as fast as life", "tenios simulate --port 8080 --speed 10 --seed 1"),
    ("and in another shell, where nobody is called:", "export TENIOS_BASE_URL=http://127.0.0.1:8080"),
    ("any key will do", "export TENIOS_ACCESS_KEY=any"),
    ("", "tenios init +491234567890 --config-id any --watch"),
)
DEMO = examples(
    ("ten times as fast as life", "tenios demo"),
    ("in life's own pace, for scripts", "tenios demo --speed 1 --json"),
)
DOCTOR = examples(
    ("what is set, and what would be used", "tenios doctor"),
    ("whether the key is right: ask for a call that was placed", "tenios doctor --id 10"),
    ("with the key in a file", "tenios doctor --access-key-file key.txt --json"),
)
COMPLETION = examples(
    ("bash", "tenios completion bash > ~/.local/share/bash-completion/completions/tenios"),
    ("zsh; the folder must be in $fpath before compinit runs", "tenios completion zsh > ~/.zfunc/_tenios"),
    ("fish", "tenios completion fish > ~/.config/fish/completions/tenios.fish"),
    ("for this shell alone", "source <(tenios completion bash)"),
)
