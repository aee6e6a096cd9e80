"""The standard streams of a command: there whatever it was started with, and full or not.

A stream that is closed at the start is a trap: the next file that is opened gets its number, and
what is meant for a terminal ends up in it. What a command has to say on a standard output that is
closed is not said, and so it fails, as it does where the disk is full.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import SupportsWrite

_INPUT, _OUTPUT, _ERRORS = 0, 1, 2


def run_command(name: str, run: Callable[[], int], *, quiet: int, unwritable: int) -> int:
    """Run a command and return its exit code.

    A reader that has had enough (``| head -1``) ends it without a word.

    Args:
        name: what the command is called in what it says.
        run: does its work.
        quiet: the exit code if a reader of its output has had enough.
        unwritable: the exit code if what it has to say cannot be written.
    """
    _open_missing()
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        errors = sys.stderr
        sys.stderr = _Forgiving(
            errors.buffer, errors.encoding, "backslashreplace", line_buffering=True
        )
    try:
        try:
            code = run()
        except SystemExit as end:  # argparse has said why
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(_OUTPUT)
        return quiet
    except OSError as error:
        if error.filename is not None:  # that is no stream
            raise
        _discard(_OUTPUT)
        sys.stderr.write(f"{name}: standard output cannot be written: {_why_unwritten(error)}\n")
        code = unwritable
    with suppress(OSError):
        sys.stderr.flush()
    return code


def _why_unwritten(error: OSError) -> str:
    """Return why standard output does not take what is written to it."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)


class _Forgiving(io.TextIOWrapper):
    """Standard error: if it takes nothing, there is nobody left to be told."""

    def write(self, text: str) -> int:
        """Write, or do not."""
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do not."""
        with suppress(OSError):
            super().flush()


class Parser(argparse.ArgumentParser):
    """A parser that does not pass over what standard output does not take."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message:
            (file or sys.stderr).write(message)


def _open_missing() -> None:
    """Open those that are closed: nothing comes from them, and what goes to errors is discarded.

    Standard output is there, too, so that no file gets its number; but open for reading alone.
    """
    for number, mode in ((_INPUT, os.O_RDONLY), (_OUTPUT, os.O_RDONLY), (_ERRORS, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = os.fdopen(_INPUT, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_OUTPUT, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(_ERRORS, "w", closefd=False)


def _discard(number: int) -> None:
    """Let what is still to be written there go nowhere, also at the end of the process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
