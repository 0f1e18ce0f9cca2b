# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Parameter groups, AdamW, and one update that never needs the host.

Sources: AdamW, weight decay 0.05, clipping 1.0 (method: recipes table).
"""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import nn


def parameter_groups(
    model: nn.Module, weight_decay: float, rates: Mapping[nn.Parameter, float] | None = None
) -> list[dict]:
    """Two groups for each share of the rate: matrices decay; biases, norms and every one-dimensional parameter do not.

    The position embedding and the CLS token do decay, as in the released recipe; timm's own list spares them.

    Args:
        model: parameters of it that ask for no gradient are in no group.
        weight_decay: of matrices.
        rates: share of the learning rate of a parameter, its group's "rate"; those that are not in it have all of it.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shares = {parameter: (rates or {}).get(parameter, 1.0) for parameter in learning}
    groups = []
    for share in sorted({1.0, *shares.values()}, reverse=True):
        own = [parameter for parameter in learning if shares[parameter] == share]
        decayed, spared = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        groups.append({"params": decayed, "weight_decay": weight_decay, "rate": share})
        groups.append({"params": spared, "weight_decay": 0.0, "rate": share})
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float, rates: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.AdamW:
    """Fused AdamW, the one kernel that can skip a bad update on the device; arguments as for the groups."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay, rates), lr=learning_rate, fused=True)


class Updater:
    """Backward, clip, finite check, optimizer step; the check stays on the device.

    An update whose loss or gradient norm is not finite is left out by the fused kernel itself (`found_inf`), and the
    buffers (the projector's batch norm statistics, which forward has moved already) go back to what they were: the
    weights and the moments are never spoiled and the host learns of it when it reads the meters, not a step earlier.

    A GPU launches as little as that takes: the fused kernel clips too (`grad_scale`), which saves reading and writing
    every gradient once more, and the buffers of a type are compared as one tensor.
    """

    def __init__(self, accelerator: Accelerator, optimizer, step_module: nn.Module, clip_norm: float):
        self.accelerator = accelerator
        self.optimizer = getattr(optimizer, "optimizer", optimizer)  # AdamW itself reads found_inf, not its wrapper
        self.parameters = list(step_module.parameters())
        self.clip_norm = clip_norm
        self.clips_in_kernel = self.parameters[0].device.type == "cuda"  # a CPU's bits stay as they were published
        saved = step_module.state_dict().keys()  # what is not saved is constant
        buffers = [buffer for name, buffer in step_module.named_buffers() if name in saved]
        kinds = dict.fromkeys(buffer.dtype for buffer in buffers)
        self.buffers = [[buffer for buffer in buffers if buffer.dtype == kind] for kind in kinds]
        self.remember_buffers()

    def remember_buffers(self) -> None:
        """Their values are those before the next step: to be called when a checkpoint was loaded."""
        self.before = [torch.cat([buffer.flatten() for buffer in group]) for group in self.buffers]

    def __call__(self, loss: torch.Tensor, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the gradient norm before clipping and a 0/1 flag of a skipped update, both on the device."""
        self.accelerator.backward(loss)
        norm = self.clip()
        both = norm + loss.detach()
        skipped = (both - both).nan_to_num_(nan=1.0)  # 0 where it is finite, else NaN
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("rate", 1.0)  # a checkpoint of before has none
        self.optimizer.found_inf = skipped
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.restore_buffers(skipped > 0)
        return norm, skipped

    def clip(self) -> torch.Tensor:
        """The norm of the gradients, which are clipped now or by the kernel."""
        if not self.clips_in_kernel:
            return whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm, foreach=True).detach())
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients, foreach=True))
        self.optimizer.grad_scale = (norm / self.clip_norm).clamp_(min=1)  # gradients are divided by it
        return norm

    @torch.no_grad()
    def restore_buffers(self, skipped: torch.Tensor) -> None:
        """To their values before the step if it was skipped; else these are the values before the next one."""
        for number, buffers in enumerate(self.buffers):
            now = torch.cat([buffer.flatten() for buffer in buffers])
            self.before[number] = kept = torch.where(skipped, self.before[number], now)
            parts = kept.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)])


def whole(norm: torch.Tensor) -> torch.Tensor:
    """FSDP's norm over all ranks; any other as it is."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
