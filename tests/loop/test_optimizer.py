# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What decays and what does not."""

import torch

from visreg_training.loop.optimizer import build_optimizer, parameter_groups


def test_vectors_do_not_decay_and_nothing_is_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    decayed, spared = parameter_groups(model, 0.05)
    assert [p.ndim for p in decayed["params"]] == [2] and decayed["weight_decay"] == 0.05
    assert [p.ndim for p in spared["params"]] == [1, 1, 1] and spared["weight_decay"] == 0.0
    assert isinstance(build_optimizer(model, 1e-3, 0.05), torch.optim.AdamW)
