# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Which failures of a server pass by themselves, and how long they are waited for.

huggingface_hub and datasets retry on their own, but not everywhere: a single 5xx while a revision is resolved, six in
a row while a stream is read, or one while a commit is made ends them. This is the round that goes outside of theirs.
They also wait without end for a server that accepts and never answers: `bound_waits` limits each wait.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from .compat import bound_hub_client
from .errors import one_line


logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds without success after which a failure is no longer called transient.
OPEN_PATIENCE = 120.0
STREAM_PATIENCE = 600.0
PUSH_PATIENCE = 25.0

TRANSIENT_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
SILENCE = 60.0  # seconds without a byte after which a request to the Hub has failed
_LONGEST_PAUSE = 30.0
_LONGEST_ASKED_PAUSE = 60.0  # of a Retry-After header


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def http_status(error: BaseException) -> int | None:
    """The HTTP status somewhere in the chain of causes, or None."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if response is not None and getattr(response, "status_code", None):
            return int(response.status_code)
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: overload, connection trouble, a server that is away."""
    status = http_status(error)
    if status is not None:
        return status in TRANSIENT_STATUS
    for link in _chain(error):
        # By name: huggingface_hub has changed its HTTP client before (requests, httpx, httpx2).
        names = {kind.__name__ for kind in type(link).__mro__}
        if isinstance(link, ConnectionError | TimeoutError) or "TransportError" in names:
            return True
        if isinstance(link, HfHubHTTPError | OSError) and "Server Disconnected" in str(link):
            return True
    return False


def is_unreachable(error: BaseException) -> bool:
    """Whether nobody was there to ask: no such host, connection refused, HF_HUB_OFFLINE."""
    kinds = OfflineModeIsEnabled | ConnectionRefusedError | socket.gaierror
    return any(isinstance(link, kinds) for link in _chain(error))


def retry_after(error: BaseException) -> float:
    """Seconds that the server asked to wait, a minute at most; 0 if it did not."""
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None) or {}
        asked = str(headers.get("Retry-After", ""))
        if asked.isdigit():
            return min(float(asked), _LONGEST_ASKED_PAUSE)
    return 0.0


def bound_waits() -> None:
    """Every request that huggingface_hub makes in this process ends, whatever the server does; once is enough."""
    bound_hub_client(SILENCE, _LONGEST_ASKED_PAUSE)


class Patience:
    """Waits between attempts (1, 2, 4, ... 30 s, or what the server asks for) until `limit` seconds have passed since
    the first failure after the last success."""

    def __init__(self, limit: float):
        self.limit = limit
        self.reset()

    def reset(self) -> None:
        """To be called after a success."""
        self.failures = 0
        self.since: float | None = None

    def wait(self, error: BaseException, what: str) -> bool:
        """Sleeps and returns True, or returns False if the patience is used up."""
        now = time.monotonic()
        self.since = self.since if self.since is not None else now
        if now - self.since > self.limit:
            return False
        pause = max(min(_LONGEST_PAUSE, 2.0**self.failures), retry_after(error))
        pause = min(pause, max(1.0, self.limit - (now - self.since)))
        self.failures += 1
        logger.warning("%s failed (%s); trying again in %.0f s", what, one_line(error, 300), pause)
        time.sleep(pause)
        return True


def with_retries(
    action: Callable[[], T], what: str, patience: float = OPEN_PATIENCE, *, wait_for_network: bool = True
) -> T:
    """Runs `action` until it succeeds, fails for good, or `patience` seconds are over; raises its exception.

    Without `wait_for_network`, a server that cannot be reached at all is a failure for good.
    """
    bound_waits()
    waiting = Patience(patience)
    while True:
        try:
            return action()
        except Exception as error:
            if not wait_for_network and is_unreachable(error):
                raise
            if not is_transient(error) or not waiting.wait(error, what):
                raise
