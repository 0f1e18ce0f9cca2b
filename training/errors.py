# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How a command ends when it cannot go on: one line on stderr and a documented exit code, never a traceback.

| code | meaning |
|---|---|
| 0 | the run is complete |
| 2 | a mistake in the command, the recipe or the data, found before work started |
| 3 | a guard stopped the run (not finite, collapse, unreadable images, disk full); the last checkpoint is whole |
| 130 | interrupted while nothing was being trained |
| 75 | a signal stopped the run after a checkpoint (EX_TEMPFAIL): start it again with `--resume auto` |
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


EXIT_MISTAKE = 2
EXIT_GUARD = 3
EXIT_INTERRUPTED = 75


class UserError(ValueError):
    """A mistake of the user: the message is one line that says what is wrong and what would be right."""


class RunStopped(RuntimeError):
    """The run cannot go on; `code` is the exit code of the process."""

    def __init__(self, message: str, code: int = EXIT_GUARD):
        super().__init__(message)
        self.code = code


def one_line(error: BaseException, limit: int | None = None) -> str:
    """The message of an error without line breaks, cut at `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if limit is None or len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def setting_up() -> Iterator[None]:
    """Whatever value is refused before work starts is the user's mistake.

    Raises:
        UserError: for a ValueError, OSError or ImportError inside the block.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise UserError(one_line(error)) from error


@contextmanager
def exit_codes(program: str) -> Iterator[None]:
    """Turn UserError and RunStopped into one line on stderr and the exit code of the table above."""
    try:
        yield
    except UserError as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)
    except KeyboardInterrupt:
        sys.exit(130)
    except RunStopped as error:
        print(f"{program}: {one_line(error)}", file=sys.stderr)
        sys.exit(error.code)
