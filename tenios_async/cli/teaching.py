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
    ("", "tenios init +491234567890 --config-id any --watch --speed 10"),
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
_CREATE = "tenios batch create contacts.csv campaign.db --prefix +49 --config-id ID"
BATCH = examples(
    (
        "make a campaign of a list; nobody is called yet",
        "tenios batch create contacts.csv campaign.db --prefix +49 --config-id ID",
    ),
    ("what would happen", "tenios batch run campaign.db --dry-run"),
    ("call everybody; after Ctrl-C or a crash the same line goes on", "tenios batch run campaign.db --rate 5/s"),
    ("how far it is, from another shell", "tenios batch status campaign.db"),
    ("which calls are in doubt", "tenios batch resolve campaign.db"),
    ("everybody, and what became of each call", "tenios batch export campaign.db results.csv"),
)
BATCH_CREATE = examples(
    (
        "a CSV file with a column callback_number",
        "tenios batch create contacts.csv campaign.db --prefix +49 --config-id ID",
    ),
    (
        "another name of the column, and numbers as they are written in Germany",
        "tenios batch create contacts.csv campaign.db \\\n      --column callback_number=Telefon --region DE",
    ),
    (
        "who must not be called, and a file for what was not taken",
        "tenios batch create contacts.csv campaign.db --region DE \\\n      --opt-out opt-out.txt --rejects bad.csv",
    ),
)
BATCH_ADD = examples(
    ("what has come in since", "tenios batch add campaign.db more.csv"),
    ("lines that were rejected, once they are mended", "tenios batch add campaign.db rejects.csv"),
)
BATCH_RUN = examples(
    ("what would happen; nobody is called", "tenios batch run campaign.db --dry-run"),
    ("begin with ten calls, and look at them", "tenios batch run campaign.db --limit 10"),
    ("five calls a second, a hundred under way", "tenios batch run campaign.db --rate 5/s --concurrency 100"),
    (
        "by day only, with a report at the end",
        "tenios batch run campaign.db --hours 'Mon-Fri 9-18' --tz Europe/Berlin \\\n      --report report.html",
    ),
)
BATCH_WORKER = examples(
    (
        "on as many machines as wanted",
        "tenios batch worker postgresql://tenios@db.example.com/calls",
    ),
    (
        "two hundred of its calls under way",
        "tenios batch worker postgresql://tenios@db.example.com/calls \\\n      --concurrency 200",
    ),
)
BATCH_CONTROL = examples(
    ("what holds for all workers", "tenios batch control postgresql://tenios@db.example.com/calls"),
    (
        "ten calls a second, by all together",
        "tenios batch control postgresql://tenios@db.example.com/calls --rate 10/s",
    ),
    ("nothing for the moment", "tenios batch control postgresql://tenios@db.example.com/calls --pause"),
)
BATCH_MIGRATE = examples(
    (
        "from a file to where several machines can work it",
        "tenios batch migrate campaign.db postgresql://tenios@db.example.com/calls",
    ),
)
BATCH_STATUS = examples(("for a script", "tenios batch status campaign.db --json"))
BATCH_REPORT = examples(
    ("in the time zone of this machine", "tenios batch report campaign.db report.html"),
    ("in another", "tenios batch report campaign.db report.html --tz Europe/Berlin"),
)
BATCH_RESOLVE = examples(
    ("which are in doubt, and on which lines of the contacts file", "tenios batch resolve campaign.db"),
    ("it did ring: the portal knows it as 4711", "tenios batch resolve campaign.db --line 17 --called 4711"),
    ("it did not: it is queued again", "tenios batch resolve campaign.db --line 18 --not-called"),
)
BATCH_EXPORT = examples(
    ("for a spreadsheet", "tenios batch export campaign.db results.csv"),
    ("for a program", "tenios batch export campaign.db results.jsonl"),
)
