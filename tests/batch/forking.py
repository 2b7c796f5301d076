"""A program that lives once for each line it reads, so that the next life is there in a millisecond."""

import os
import sys
from collections.abc import Callable


def live_for_each_line(live: Callable[[str, int], int]) -> None:
    """Forks for each line on standard input, and answers with how the child ended and the number it has reported.

    Args:
        live: the child: told the line and where to write its number, it gives its exit code.
    """
    for line in sys.stdin:
        reading, report = os.pipe()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = live(line, report)
            except BaseException as error:
                print(f"{error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        os.close(report)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        number = os.read(reading, 100) or b"0"
        os.close(reading)
        print(code, int(number), flush=True)
