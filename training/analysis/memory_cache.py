# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a process holds in memory from one training to the next."""

from collections.abc import Callable
from typing import Any

from ..run_folder import Json


class MemoryCache:
    """The newest values by key.

    Args:
        count: values held.
        room: bytes that a value may take; who makes it asks `has_room_for`.
    """

    def __init__(self, count: int = 1, room: int = 1 << 29):
        self.count, self.room = count, room
        self.values: Json = {}

    def has_room_for(self, size: int) -> bool:
        return size <= self.room

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of `key`, made if it is not held; the oldest goes when there are too many."""
        if key not in self.values:
            while len(self.values) >= self.count:
                self.values.pop(next(iter(self.values)))
            self.values[key] = make()
        return self.values[key]
