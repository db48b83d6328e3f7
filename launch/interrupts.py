"""Ctrl-C ends a command at once with one line, from its first imports on.

Trainings catch the signal to save their state first; a second one ends them, too.
Raising `KeyboardInterrupt` would not do: modules that load, and callbacks, swallow it,
and compiling threads crash when Python ends.
"""

import contextlib
import os
import signal
import sys
from typing import Any, NoReturn

STATUS = 130
MESSAGE = "interrupted; the same command continues from what has been saved"


def leave(message: str = MESSAGE) -> NoReturn:
    """Print one line and end the process."""
    with contextlib.suppress(OSError, RuntimeError):  # it may be printing just now
        sys.stdout.flush()
    # A progress line that stays in place hides the cursor.
    cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    try:
        print(f"{cursor}{message}", file=sys.stderr, flush=True)
    except RuntimeError:
        os.write(2, f"{cursor}{message}\n".encode(errors="replace"))
    os._exit(STATUS)


def _receive(number: int, frame: Any) -> None:
    del number, frame
    leave()


def catch() -> None:
    """Let SIGINT end this process."""
    signal.signal(signal.SIGINT, _receive)


# Where a command is the main program, its imports are part of it.
_main = getattr(sys.modules["__main__"], "__file__", None) or ""
if os.path.dirname(os.path.abspath(_main)) == os.path.dirname(__file__):
    catch()
