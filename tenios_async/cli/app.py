"""The commands and their options."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import App, CycloptsError, Group, Parameter

from tenios_async import Callback, CallbackRequest, Polling, TeniosClient, TeniosError, __version__
from tenios_async.cli import calls, demo, doctor, simulate
from tenios_async.cli.outcome import EXIT_CODES, Exit, Output, exit_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

app = App(
    name="tenios",
    help="Place telephone callbacks through the TENIOS Callback API and follow each to its end.\n\n"
    "The access key comes from TENIOS_ACCESS_KEY or a file, never from an option: those show in the list of processes.",
    help_epilogue=EXIT_CODES,
    version=__version__,
    version_flags=["--version"],
)

_CONNECTION = Group("Connection", sort_key=9)


@Parameter(name="*", group=_CONNECTION)
@attrs.frozen
class Connection:
    """How to reach TENIOS.

    Attributes:
        base_url: Where the API is; the default is https://api.tenios.com.
        access_key_file: A file with the access key, instead of TENIOS_ACCESS_KEY.
        allow_insecure_http: Let the base URL be plain http:// beyond this machine.
    """

    base_url: Annotated[str | None, Parameter(env_var="TENIOS_BASE_URL")] = None
    access_key_file: Path | None = None
    allow_insecure_http: Annotated[bool, Parameter(negative=())] = False

    def client(self, **options: Any) -> TeniosClient:
        """A client, not opened yet."""
        key = None if self.access_key_file is None else self.access_key_file.read_text(encoding="utf-8").strip()
        return TeniosClient(key, base_url=self.base_url, allow_insecure_http=self.allow_insecure_http, **options)


_ConfigId = Annotated[str | None, Parameter(env_var="TENIOS_CALLBACK_CONFIG_ID")]
_Json = Annotated[bool, Parameter(name="--json", negative=())]
_Flag = Annotated[bool, Parameter(negative=())]
_DEFAULT = Connection()


@app.command
def init(
    number: str,
    *,
    config_id: _ConfigId = None,
    delay: int = 0,
    announcement: str | None = None,
    dtmf_key: str | None = None,
    watch: _Flag = False,
    timeout: float | None = None,
    json: _Json = False,
    connection: Connection = _DEFAULT,
) -> int:
    """Place a callback: the agent's phone rings first, then the customer's.

    Args:
        number: The customer's number in E.164 form, for instance +491234567890.
        config_id: The callback configuration id from the customer portal; it names the agent.
        delay: Seconds before calling.
        announcement: A text that is read aloud to the agent.
        dtmf_key: The key (0-9 * #) the agent presses to start the call.
        watch: Follow the call to its end.
        timeout: Seconds the request may take; the default is 30.
        json: One JSON object a line.
    """
    if config_id is None:
        raise ValueError("a callback configuration id is needed: --config-id, or TENIOS_CALLBACK_CONFIG_ID")
    request = CallbackRequest(config_id, number, delay, announcement, dtmf_key)
    output = Output(as_json=json)
    return _run(output, lambda: calls.place(connection.client(), request, output, watch=watch, timeout=timeout))


@app.command
def status(
    callback: str, *, timeout: float | None = None, json: _Json = False, connection: Connection = _DEFAULT
) -> int:
    """Ask once for the state of a callback. No phone rings.

    Args:
        callback: Its id, or a resume token, or @FILE or - (standard input) with one.
        timeout: Seconds the request may take; the default is 10.
        json: One JSON object a line.
    """
    target, output = calls.read_callback(callback), Output(as_json=json)
    return _run(output, lambda: calls.ask(connection.client(), target, output, timeout=timeout))


@app.command
def watch(
    callback: str,
    *,
    every: float | None = None,
    timeout: float | None = None,
    json: _Json = False,
    connection: Connection = _DEFAULT,
) -> int:
    """Follow a callback to its end. Ctrl-C prints the token that resumes it.

    Args:
        callback: Its id, or a resume token, or @FILE or - (standard input) with one.
        every: Ask every so many seconds, instead of by the schedule.
        timeout: Seconds to watch; the default is two hours beyond the delay.
        json: One JSON object a line.
    """
    target, output = calls.read_callback(callback), Output(as_json=json)
    polling = None if every is None else Polling.fixed(every)
    return _run(output, lambda: calls.follow(connection.client(), target, output, polling=polling, timeout=timeout))


@app.command(name="simulate")
def simulate_(
    *,
    port: int = 8080,
    host: str = "127.0.0.1",
    speed: float = 1.0,
    seed: int = 0,
    allow_remote: _Flag = False,
) -> int:
    """Answer as TENIOS does, on this machine, without ringing anybody. Ctrl-C ends it.

    Args:
        port: Where to listen; 0 takes a free port.
        host: On which address; loopback only, unless --allow-remote.
        speed: How many times faster than in life calls go.
        seed: The same seed gives the same calls.
        allow_remote: Let others reach it.
    """
    output = Output()
    return _run(
        output,
        lambda: simulate.serve(output, host=host, port=port, speed=speed, seed=seed, allow_remote=allow_remote),
    )


@app.command(name="demo")
def demo_(*, speed: float = 10.0) -> int:
    """Place calls against a simulator on this machine and show each to its end. No phone rings.

    Args:
        speed: How many times faster than in life calls go.
    """
    output = Output()
    return _run(output, lambda: demo.play(output, speed=speed))


@app.command(name="doctor")
def doctor_(
    *,
    callback: Annotated[str | None, Parameter(name="--id")] = None,
    config_id: _ConfigId = None,
    json: _Json = False,
    connection: Connection = _DEFAULT,
) -> int:
    """Show what the command would use, and with --id ask once for that callback's state. No phone rings.

    Args:
        callback: A callback to ask for.
        config_id: The callback configuration id, to see whether it is set.
        json: One JSON object a line.
    """
    output = Output(as_json=json)
    base_url = connection.base_url or os.environ.get("TENIOS_BASE_URL")
    return _run(
        output,
        lambda: doctor.examine(connection.client, output, base_url=base_url, config_id=config_id, callback=callback),
    )


def _run(output: Output, command: Callable[[], Coroutine[Any, Any, Exit]]) -> Exit:
    """Runs a command to its exit code; whatever goes wrong is one line."""

    async def guarded() -> Exit:
        if os.name == "posix":
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101  # asyncio.run made it
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
        return await command()

    try:
        return asyncio.run(guarded())
    except TeniosError as error:
        code = exit_for(error)
        output.error(error, code=code)
        callback: Callback | None = getattr(error, "callback", None)
        if callback is not None:
            output.token(callback.to_json())
        return code
    except (ValueError, OSError) as error:
        output.error(error, code=Exit.USAGE)
        return Exit.USAGE
    except (KeyboardInterrupt, asyncio.CancelledError):
        return Exit.INTERRUPTED


def run(arguments: Sequence[str]) -> int:
    """Parses and runs; the exit code."""
    try:
        code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, ValueError, OSError) as error:
        output = Output(as_json="--json" in arguments)
        output.error(ValueError(" ".join(str(error).split())), code=Exit.USAGE)
        return Exit.USAGE
    return int(code) if isinstance(code, int) else Exit.OK
