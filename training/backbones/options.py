# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Which model: the options of whatever opens one. Imports no torch."""

from dataclasses import dataclass

from ..option import NOT_NEGATIVE, POSITIVE, Range, option


_LARGEST_RANK = 65_536  # the width of the widest network that is built
POOLINGS = ("cls", "mean", "both")


@dataclass(frozen=True)
class BackboneOptions:
    """Which model."""

    model: str | None = option(
        None, "directory or Hub id that AutoModel opens, timm/NAME, timm:NAME[:FILE], or a run folder"
    )
    trust_remote_code: bool = option(False, "run the code that a Hub repository brings")


@dataclass(frozen=True)
class AdaptOptions:
    """How much of a network that starts from weights is trained on."""

    layer_decay: float = option(
        1.0,
        "block i of L has layer_decay ** (L + 1 - i) of the learning rate, the projector all of it (BEiT, MAE: 0.65 "
        "to 0.75); 1: all the same",
        Range(lambda value: 0 < value <= 1, "be in (0, 1]"),
    )
    freeze_blocks: int = option(0, "embedding and so many of the first blocks learn nothing; 0: none", NOT_NEGATIVE)
    lora_rank: int | None = option(
        None,
        "learn adapters of this rank beside the linear layers of the blocks, not the network (PEFT)",
        POSITIVE.up_to(_LARGEST_RANK),
    )
