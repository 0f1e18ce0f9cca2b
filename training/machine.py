# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What this process may use of its machine."""

import os

from .errors import UserError


WORKERS_EACH = 4  # processes for each CPU: while one waits for a disk, another decodes
WORKERS_ANYWAY = 32  # a recipe that is made for a large machine is tried on a small one


def usable_cpus() -> int:
    """CPUs that this process may run on: those of a job, where a scheduler or a container assigns some."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def check_workers(count: int, name: str = "num_workers") -> None:
    """Refuses processes that could only take memory from each other.

    Raises:
        UserError: there are more than 4 for each CPU, and more than 32.
    """
    cpus = usable_cpus()
    most = max(WORKERS_ANYWAY, WORKERS_EACH * cpus)
    if count > most:
        raise UserError(
            f"{name} must be at most {most} here, where this process may use {cpus} of the CPUs, not {count}"
        )
