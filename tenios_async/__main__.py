"""`python -m tenios_async`, and the `tenios` command."""

import sys

_EXTRA = ("cyclopts", "rich", "h11")


def main() -> None:
    """Runs the command; without its extra, says so in one line."""
    try:
        from tenios_async.cli import run  # noqa: PLC0415  # the core goes without the extra
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(  # noqa: T201
            f'tenios needs its command-line extra ({missing} is missing): pip install "tenios_async[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
