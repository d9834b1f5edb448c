"""What the commands have in common: how they begin, end, say that they are up, and refuse arguments."""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from ocr_serving import logs


def set_up() -> None:
    """Log to stderr, and end on SIGTERM as on Ctrl-C."""
    logs.configure("text")
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def end_at_once(number: int, _: FrameType | None = None) -> None:
    """End without waiting for anything; as a signal handler, with the status that a shell gives to that signal."""
    announce("")  # and what a user's own script has printed
    os._exit(128 + number if number else 0)


def announce(text: str) -> None:
    """Write to stdout, if it takes anything: a service needs nobody to read it, nor room on the disk it goes to."""
    if sys.stdout is None:  # closed before this process began
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        drop_output()


def drop_output() -> None:
    """Send what goes to stdout nowhere, once writing failed: the interpreter would try again at its end, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_known_args(  # type: ignore[override]  # it has overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """See argparse.ArgumentParser; which would take the value after an unknown flag for another argument."""
        given = sys.argv[1:] if args is None else list(args)
        for flag in (word.partition("=")[0] for word in given):
            if flag.startswith("--") and not any(known.startswith(flag) for known in self._option_string_actions):
                close = difflib.get_close_matches(flag, self._option_string_actions, n=1)
                self.error(f"unrecognized arguments: {flag}" + (f"; did you mean {close[0]}?" if close else ""))
        return super().parse_known_args(given, namespace)
