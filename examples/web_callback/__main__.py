"""`python -m web_callback`: the application as the environment says; README.md lists the variables."""

from __future__ import annotations

import argparse

from web_callback.app import from_environment
from web_callback.server import Server


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="web_callback", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--forwarded-allow-ips", default="127.0.0.1", help="proxies whose X-Forwarded-For is believed")
    options = vars(parser.parse_args())
    server = Server(from_environment(), **options)
    server.run()
    if not server.started:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
