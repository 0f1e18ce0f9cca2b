# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the ranks tell each other outside the step."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object


def everybody(accelerator: Accelerator, value: Any) -> list[Any]:
    """The value of every rank, on every rank, in order of rank."""
    return gather_object([value]) if accelerator.num_processes > 1 else [value]


def lost_another(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone; gloo says it with a plain RuntimeError."""
    return isinstance(error, torch.distributed.DistError) or (type(error) is RuntimeError and "by peer" in str(error))


def from_main(accelerator: Accelerator, value: Any) -> Any:
    """The main process's value, on every rank."""
    return broadcast_object_list([value])[0] if accelerator.num_processes > 1 else value
