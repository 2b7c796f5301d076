"""The commands and their options."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from tenios_async import CallbackRequest, Polling, __version__, mask_number
from tenios_async.batch.postgres_url import without_passwords
from tenios_async.cli import calls, demo, doctor, simulate, teaching
from tenios_async.cli import completion as completing
from tenios_async.cli.batch import batch
from tenios_async.cli.connection import Connection
from tenios_async.cli.options import ConfigId, Flag, Json, Whole
from tenios_async.cli.outcome import Exit
from tenios_async.cli.output import HelpConsole, Output
from tenios_async.cli.running import nobody_reads, run_command, run_plainly

if TYPE_CHECKING:
    from collections.abc import Sequence

logging.getLogger("tenios_async").addHandler(logging.NullHandler())  # the command says itself what there is to say

app: App = App(
    name="tenios",
    help="Place telephone callbacks through the TENIOS Callback API and follow each to its end.\n\n"
    "The access key comes from TENIOS_ACCESS_KEY or a file, never from an option: those show in the list of processes.",
    help_format="plaintext",
    help_epilogue=teaching.FIRST_STEPS,
    version=__version__,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)


app.command(batch)
_Hyphen = Annotated[str, Parameter(allow_leading_hyphen=True)]
_DEFAULT = Connection()


@app.command(help_epilogue=teaching.INIT)
def init(
    number: str,
    /,
    *,
    config_id: ConfigId = None,
    delay: Whole = 0,
    announcement: str | None = None,
    dtmf_key: str | None = None,
    watch: Flag = False,
    speed: float = 1.0,
    timeout: float | None = None,
    json: Json = False,
    connection: Connection = _DEFAULT,
) -> int:
    """Place a callback: the agent's phone rings first, then the customer's.

    Prints its id and the token that `tenios watch` follows it by.

    Args:
        number: The customer's number in E.164 form, for instance +491234567890.
        config_id: The callback configuration id from the customer portal; it names the agent.
        delay: Seconds before calling.
        announcement: A text that is read aloud to the agent.
        dtmf_key: The key (0-9 * #) the agent presses to start the call.
        watch: Follow the call to its end.
        speed: Look so many times faster: what `tenios simulate --speed` was told.
        timeout: Seconds it may take in all; the default is 30 for the request and two hours beyond the delay to watch.
        json: One JSON object a line.
    """
    if not config_id:
        raise ValueError("a callback configuration id is needed: --config-id, or TENIOS_CALLBACK_CONFIG_ID")
    request = CallbackRequest(config_id, number, delay, announcement, dtmf_key)
    output, polling = Output(as_json=json), Polling(speed=speed)
    observers = [calls.telling_failures(output)]
    return run_command(
        output,
        lambda: calls.place(
            connection.client(observers=observers, polling=polling), request, output, watch=watch, timeout=timeout
        ),
    )


@app.command(help_epilogue=teaching.STATUS)
def status(
    callback: _Hyphen, /, *, timeout: float | None = None, json: Json = False, connection: Connection = _DEFAULT
) -> int:
    """Ask once for the state of a callback. No phone rings.

    Args:
        callback: Its id, or a resume token, or @FILE or - (standard input) with one.
        timeout: Seconds the request may take; the default is 10.
        json: One JSON object a line.
    """
    target, output = calls.read_callback(callback), Output(as_json=json)
    return run_command(output, lambda: calls.ask(connection.client(), target, output, timeout=timeout))


@app.command(help_epilogue=teaching.WATCH)
def watch(
    callback: _Hyphen,
    /,
    *,
    every: float | None = None,
    speed: float = 1.0,
    timeout: float | None = None,
    json: Json = False,
    connection: Connection = _DEFAULT,
) -> int:
    """Follow a callback to its end. Ctrl-C prints the token that resumes it.

    Args:
        callback: Its id, or a resume token, or @FILE or - (standard input) with one.
        every: Ask every so many seconds, instead of by the schedule.
        speed: Look so many times faster: what `tenios simulate --speed` was told.
        timeout: Seconds to watch; the default is two hours beyond the delay.
        json: One JSON object a line.
    """
    target, output = calls.read_callback(callback), Output(as_json=json)
    if every is not None and speed != 1:
        raise ValueError("--every and --speed exclude each other")
    polling = Polling(speed=speed) if every is None else Polling.fixed(every)
    observers = [calls.telling_failures(output)]
    return run_command(
        output,
        lambda: calls.follow(connection.client(observers=observers, polling=polling), target, output, timeout=timeout),
    )


@app.command(name="simulate", help_epilogue=teaching.SIMULATE)
def simulate_(
    *,
    port: Whole = 8080,
    host: str = "127.0.0.1",
    speed: float = 1.0,
    seed: int = 0,
    allow_remote: Flag = False,
    json: Json = False,
) -> int:
    """Answer as TENIOS does, on this machine, without ringing anybody. Ctrl-C ends it.

    Args:
        port: Where to listen; 0 takes a free port.
        host: On which address; loopback only, unless --allow-remote.
        speed: How many times faster than in life calls go.
        seed: The same seed gives the same calls.
        allow_remote: Let others reach it.
        json: One JSON object a line.
    """
    if port > 65535:  # noqa: PLR2004  # RFC 9293 3.1
        raise ValueError("--port must be from 0 to 65535")
    if not 0 < speed < math.inf:
        raise ValueError("--speed must be above 0")
    output = Output(as_json=json)
    return run_command(
        output,
        lambda: simulate.serve(output, host=host, port=port, speed=speed, seed=seed, allow_remote=allow_remote),
    )


@app.command(name="demo", help_epilogue=teaching.DEMO)
def demo_(*, speed: float = 10.0, json: Json = False) -> int:
    """Place calls against a simulator on this machine and show each to its end. No phone rings.

    Args:
        speed: How many times faster than in life calls go, from 0.1 to 100.
        json: One JSON object a line.
    """
    if not 0.1 <= speed <= 100:  # noqa: PLR2004  # as the help says
        raise ValueError("--speed must be from 0.1 to 100")
    output = Output(as_json=json)
    return run_command(output, lambda: demo.play(output, speed=speed))


@app.command(name="doctor", help_epilogue=teaching.DOCTOR)
def doctor_(
    *,
    callback: Annotated[str | None, Parameter(name="--id", allow_leading_hyphen=True)] = None,
    config_id: ConfigId = None,
    json: Json = False,
    connection: Connection = _DEFAULT,
) -> int:
    """Show what the command would use, and with --id ask once for that callback's state. No phone rings.

    Args:
        callback: A callback to ask for: an id, or whatever else `tenios status` takes.
        config_id: The callback configuration id, to see whether it is set.
        json: One JSON object a line.
    """
    target, output = None if callback is None else calls.read_callback(callback), Output(as_json=json)
    return run_command(output, lambda: doctor.examine(connection, output, config_id=config_id, callback=target))


@app.command(help_epilogue=teaching.COMPLETION)
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print what makes a shell complete commands, options and files by the tab key.

    Args:
        shell: bash, zsh or fish.
    """
    output = Output()
    return run_plainly(output, lambda: output.raw(completing.script(app, shell)))


_ONE_LINE = 10_000
_LIKE_A_NUMBER = re.compile(r"\+[0-9](?:[ ()/.-]{0,2}[0-9]){3,}|[0-9](?:[ ()/.-]{0,2}[0-9]){6,}")


def run(arguments: Sequence[str]) -> int:
    """Parses and runs; the exit code."""
    if Output().is_screen:
        app.help_formatter, app.console = None, HelpConsole(highlight=False)
    else:  # boxes are for the eye, and a pipe gets each thing in one line
        app.help_formatter, app.console = "plain", HelpConsole(width=_ONE_LINE, highlight=False)
    try:
        code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:
        return nobody_reads()
    except (CycloptsError, ValueError, OSError) as error:
        known: Exception = error
        if isinstance(error, CycloptsError):  # which quotes what it was given
            text = without_passwords(str(error))
            known = ValueError(_LIKE_A_NUMBER.sub(lambda found: mask_number(found[0]), text))
        Output(as_json="--json" in arguments).error(known, code=Exit.USAGE)
        return Exit.USAGE
    except (KeyboardInterrupt, asyncio.CancelledError):
        return Exit.INTERRUPTED
    return int(code) if isinstance(code, int) else Exit.OK
