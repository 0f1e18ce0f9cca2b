# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The processes that evaluate together, started by accelerate or torchrun, on GPUs or not."""

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Rank, number and device of this process.

    Without an accelerator Accelerate has to be told so: it would otherwise take torchrun's processes for single ones,
    and each would do all the work.
    """
    return PartialState(cpu=not torch.accelerator.is_available())
