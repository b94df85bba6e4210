"""The command line: ``./sluice COMMAND``."""

import gc
import os
import sys


def open_standard_streams() -> None:
    """Put the null device where descriptors 0, 1 and 2 are closed (``>&-``).

    Otherwise the next file or socket gets the number, and what is printed goes into it.
    """
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given (POSIX `open`), and those below are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  for as long as the process
            setattr(sys, ("stdin", "stdout", "stderr")[number], stream)


if __name__ == "__main__":
    # Before anything else is imported, which may open files.
    open_standard_streams()

    # What is imported stays: to look through all of it for garbage, once and again, would take a fifth of the start.
    thresholds = gc.get_threshold()
    gc.set_threshold(*thresholds[:2], 1_000_000_000)

    from gateway.cli import main

    gc.set_threshold(*thresholds)
    sys.exit(main(sys.argv[1:]))
