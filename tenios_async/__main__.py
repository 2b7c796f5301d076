"""`python -m tenios_async`, and the `tenios` command."""

import sys


def main() -> None:
    """Runs the command; without its extra, says so in one line."""
    try:
        from tenios_async.cli import run  # noqa: PLC0415  # the core goes without the extra
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in ("cyclopts", "rich"):
            raise
        print(  # noqa: T201
            f'tenios: the command needs an extra ({error.name} is missing): pip install "tenios_async[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
