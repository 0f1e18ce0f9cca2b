# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How a command ends when it cannot go on: one line on stderr and a documented exit code, never a traceback.

| code | meaning |
|---|---|
| 0 | the run is complete |
| 2 | a mistake in the command, the recipe or the data, found before work started |
| 3 | a guard or the machine stopped it (not finite, collapse, unreadable images, a full disk or memory, a worker that
      was killed); the last checkpoint is whole |
| 130 | interrupted while nothing was being trained |
| 75 | a signal stopped the run after a checkpoint (EX_TEMPFAIL): start it again with `--resume auto` |
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


EXIT_MISTAKE = 2
EXIT_GUARD = 3
EXIT_INTERRUPTED = 75

# What a disk does, not what was asked of it: no room, a quota, a limit, a fault.
_DISK = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO") if hasattr(errno, name))
# What torch says where shared memory cannot grow.
_SHARED = ("</torch_", "shared memory object", "unable to write to file", "/dev/shm")
_LONGEST = 2000  # characters of a message on the screen: it may hold what a file of anybody's says


class UserError(ValueError):
    """A mistake of the user: the message is one line that says what is wrong and what would be right."""


class BadDataError(ValueError):
    """More of a data set is unreadable than was allowed, which only reading it shows: no mistake in a command."""


class RunStopped(RuntimeError):
    """The run cannot go on; `code` is the exit code of the process."""

    def __init__(self, message: str, code: int = EXIT_GUARD):
        super().__init__(message)
        self.code = code


def one_line(error: BaseException, limit: int | None = None) -> str:
    """The message of an error without line breaks, cut at `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if limit is None or len(text) <= limit else text[: limit - 3] + "..."


def failure_of_machine(error: BaseException) -> str | None:
    """One line on what the machine did (disk, memory, a worker killed), with the remedy; None for any other error."""
    names, text = {kind.__name__ for kind in type(error).__mro__}, one_line(error, 300)
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"the disk refuses to be written: {text}"
    if "OutOfMemoryError" in names:  # of torch, by name: the floor is cheap to import
        return "the device's memory is full: a smaller --micro_batch_size is exact, and needs less"
    if isinstance(error, RuntimeError) and any(words in text for words in _SHARED):
        return (
            f"/dev/shm, through which workers give images, is full ({text}): in a container, --shm-size or --ipc=host "
            "give room; --num_workers 0 needs none"
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in text):
        return f"the memory of this machine is full ({text}): a smaller batch or fewer --num_workers need less"
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return (
            f"a process that reads images was killed ({text}): where memory was short, fewer --num_workers "
            "need less; in a container, --shm-size or --ipc=host give room"
        )
    return None


@contextmanager
def setting_up() -> Iterator[None]:
    """Whatever value is refused before work starts is the user's mistake.

    Raises:
        UserError: for a ValueError, OSError or ImportError inside the block.
        RunStopped: for what the machine did, and for a data set of which too much is unreadable.
    """
    try:
        yield
    except (UserError, RunStopped):
        raise
    except BadDataError as error:
        raise RunStopped(one_line(error)) from error
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if message := failure_of_machine(error):
            raise RunStopped(message) from error
        if isinstance(error, MemoryError | RuntimeError):
            raise
        raise UserError(one_line(error)) from error


@contextmanager
def exit_codes(program: str) -> Iterator[None]:
    """Turn UserError, RunStopped and what the machine did into one line on stderr and the exit code of the table."""
    try:
        yield
    except UserError as error:
        print(f"{program}: {one_line(error, _LONGEST)}", file=sys.stderr)
        sys.exit(EXIT_MISTAKE)
    except KeyboardInterrupt:
        sys.exit(130)
    except RunStopped as error:
        print(f"{program}: {one_line(error, _LONGEST)}", file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        message = failure_of_machine(error) or (one_line(error, _LONGEST) if isinstance(error, OSError) else None)
        if message is None:
            raise
        print(f"{program}: {message}", file=sys.stderr)
        sys.exit(EXIT_GUARD)
