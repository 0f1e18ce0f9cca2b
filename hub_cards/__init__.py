# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Cards for trained checkpoints, and the way to the Hub. Reads run folders and models; knows nothing of the loop."""

from .background import BackgroundPush
from .card import check_card, write_card, write_converted_card
from .push import PushResult, push_run, try_push
from .results import Reference


__all__ = [
    "BackgroundPush",
    "PushResult",
    "Reference",
    "check_card",
    "push_run",
    "try_push",
    "write_card",
    "write_converted_card",
]
