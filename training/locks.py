# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Locks on files and folders, which end with the process that holds them, however it ends.

    lock = Lock(folder / ".lock")
    if not lock.take(): ...                      # somebody else holds it
    lock.release()

A lock tells what a living process still writes from what a dead one left behind. Where the system or the disk knows
none (Windows, some network disks), every lock is free.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Lock:
    """One lock, of this process and of those that it forks.

    Args:
        path: a file, which is made if it is not there, or a folder that is there.

    Attributes:
        certain: whether the disk knows locks, so that a lock that was taken was held by nobody else.
    """

    def __init__(self, path: Path):
        self.path = path
        self.handle: int | None = None
        self.certain = False

    def take(self, seconds: float = 0.0) -> bool:
        """Whether this process holds it now; waits for at most so many seconds.

        Raises:
            OSError: the file can be neither opened nor made, or is a link.
        """
        if fcntl is None:
            return True
        flags = os.O_RDONLY if self.path.is_dir() else os.O_RDWR | os.O_CREAT
        handle = os.open(self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.certain = True
                break
            except OSError as error:
                if error.errno in _UNSUPPORTED:
                    break
                if time.monotonic() >= end:
                    os.close(handle)
                    return False
                time.sleep(0.05)
        self.handle = handle
        return True

    def __enter__(self) -> "Lock":
        """For a block at whose end a lock that was taken is given up."""
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it up, also in the processes that were forked since."""
        if self.handle is None:
            return
        if fcntl is not None:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_UN)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
        os.close(self.handle)
        self.handle = None


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Delete folders that a process held a lock on until it was killed; those of living processes stay."""
    if fcntl is None:
        return
    for folder in folders:
        lock = Lock(folder)
        try:
            if folder.is_dir() and not folder.is_symlink() and lock.take() and lock.certain:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # it went meanwhile, or is somebody else's
        finally:
            lock.release()
