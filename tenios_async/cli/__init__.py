"""The `tenios` command: the public face of the library, in a shell."""

from tenios_async.cli.app import run

__all__ = ["run"]
