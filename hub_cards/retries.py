# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Asking the Hub again when it is away. huggingface_hub does so for uploads, not for creations and commits."""

import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError


T = TypeVar("T")

WAITS = (1, 2, 4, 8, 8)  # seconds, as huggingface_hub waits between its own attempts
LONGEST_WAIT = 60
# Of HTTP, of an upload (with the fault as its cause), of hf_xet.
FAULTS = (HTTPError, RuntimeError, ConnectionError)
PASSING = frozenset((408, 429, 500, 502, 503, 504))


def persistently(call: Callable[[], T], waits: tuple[float, ...] = WAITS) -> T:
    """The result of `call`, which is called again after each of `waits` (seconds) while the Hub is away.

    A `Retry-After` of the Hub counts, up to a minute. What is not a passing fault is raised at once.
    """
    for wait in waits:
        try:
            return call()
        except FAULTS as error:
            fault = passing_fault(error)
            if fault is None:
                raise
            time.sleep(max(wait, asked_wait(fault)))
    return call()


def passing_fault(error: BaseException | None) -> BaseException | None:
    """The network fault behind an error, if it may be gone in a while; None if it is of another kind."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return error if error.response.status_code in PASSING else None
        if isinstance(error, HTTPError | ConnectionError):
            return error
        error = error.__cause__
    return None


def asked_wait(fault: BaseException) -> float:
    """Seconds that the Hub asked to wait; 0 if it did not."""
    response = fault.response if isinstance(fault, HfHubHTTPError) else None
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(asked), LONGEST_WAIT) if asked.isdigit() else 0.0
