# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The loop that a user would write on lightly's parts, for comparison: its transforms, its VISRegLoss, a timm ViT.

It is given what our loop has where that is a choice of the user and not of the library: one forward a resolution,
SDPA (timm's default), fused AdamW, workers that stay alive, and our schedule and parameter groups. `SETTINGS` holds
both sides' options, under the names of our recipes.

Shapes: V views, B images, D dimension; a view is (B, 3, h, w), global views first.
"""

from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from datasets import load_dataset
from lightly.loss import VISRegLoss
from lightly.transforms.dino_transform import DINOViewTransform
from lightly.transforms.multi_view_transform import MultiViewTransform
from torch import nn
from torch.utils.data import DataLoader

from visreg_training.loop.optimizer import parameter_groups


_BOTH = {
    "model": "vit_tiny",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "drop_path_rate": 0.0,
    "projection_size": 64,
    "projector_hidden_size": 512,
    "regularization_weight": 0.6,  # lambda of small data sets (paper)
    "num_slices": 4096,
    "global_scale": [0.3, 1.0],
    "local_scale": [0.05, 0.3],
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "clip_norm": 1.0,
    "num_workers": 2,
    "mixed_precision": "no",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": _BOTH
    | {
        "patch_size": 4,
        "num_global": 2,
        "num_local": 4,
        "global_size": 32,
        "local_size": 16,
        "global_batch_size": 256,
    },
    "photos": _BOTH
    | {
        "patch_size": 32,
        "num_global": 4,
        "num_local": 6,
        "global_size": 224,
        "local_size": 96,
        "global_batch_size": 64,
    },
}

Mark = Callable[[str], None]


def unmarked(_phase: str) -> None:
    """Where nobody measures."""


def make_transform(options: dict[str, Any]) -> MultiViewTransform:
    """Our recipe's views by lightly's transforms (their color jitter at its default strength is the recipe's)."""

    def view(size: int, scale: list[float]) -> DINOViewTransform:
        return DINOViewTransform(
            crop_size=size, crop_scale=tuple(scale), gaussian_blur=0.5, solarization_prob=0.2, random_gray_scale=0.2
        )

    global_view = view(options["global_size"], options["global_scale"])
    local_view = view(options["local_size"], options["local_scale"])
    return MultiViewTransform([global_view] * options["num_global"] + [local_view] * options["num_local"])


class Images(torch.utils.data.Dataset):
    """The views of each image of some parquet files."""

    def __init__(self, files: str, options: dict[str, Any]):
        self.rows = load_dataset("parquet", data_files=files, split="train")
        self.column = next(name for name, kind in self.rows.features.items() if type(kind).__name__ == "Image")
        self.rows = self.rows.select_columns([self.column])
        self.transform = make_transform(options)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(self.rows[index][self.column].convert("RGB"))


def make_backbone(options: dict[str, Any]) -> nn.Module:
    """timm's ViT with the sizes of the setting."""
    return timm.models.VisionTransformer(
        img_size=options["global_size"],
        patch_size=options["patch_size"],
        embed_dim=options["hidden_size"],
        depth=options["num_hidden_layers"],
        num_heads=options["num_attention_heads"],
        drop_path_rate=options["drop_path_rate"],
        num_classes=0,
        dynamic_img_size=True,
    )


def make_projector(options: dict[str, Any]) -> nn.Module:
    """The projector of the paper."""
    width, hidden = options["hidden_size"], options["projector_hidden_size"]
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.GELU(),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.GELU(),
        nn.Linear(hidden, options["projection_size"]),
    )


class LightlyLoop:
    """Model, data, loss and optimizer; `step` makes one update.

    Args:
        files: glob of parquet files.
        options: one of `SETTINGS`.
        seed: of everything.
        device: of the model; on CUDA in bf16 autocast, the objective in float32.
    """

    def __init__(self, files: str, options: dict[str, Any], seed: int = 0, device: str = "cpu"):
        torch.manual_seed(seed)
        self.options, self.device = options, device
        self.backbone, self.projector = make_backbone(options).to(device), make_projector(options).to(device)
        self.loss = VISRegLoss(lambda_param=options["regularization_weight"], num_slices=options["num_slices"])
        self.module = nn.ModuleList([self.backbone, self.projector])
        groups = parameter_groups(self.module, options["weight_decay"])
        self.optimizer = torch.optim.AdamW(groups, lr=options["learning_rate"], fused=True)
        workers = options["num_workers"]
        self.loader = DataLoader(
            Images(files, options),
            batch_size=options["global_batch_size"],
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device != "cpu",
        )
        self.batches = self.endless()

    def endless(self) -> Iterator[list[torch.Tensor]]:
        while True:
            yield from self.loader

    def step(self, learning_rate: float, mark: Mark = unmarked) -> torch.Tensor:
        """One update; returns the loss. `mark(phase)` is called when a phase ends."""
        count = self.options["num_global"]
        views = next(self.batches)
        mark("data")
        views = [view.to(self.device, non_blocking=True) for view in views]
        groups = [torch.cat(views[:count]), torch.cat(views[count:])]
        mark("views")
        autocast = torch.autocast("cuda", torch.bfloat16, enabled=self.device == "cuda")
        with autocast:
            features = [self.backbone(group) for group in groups]
        mark("backbone")
        for rows in features:  # in backward the projector is done with both before the backbone begins
            rows.register_hook(lambda _gradient: mark("objective"))
        with autocast:
            projections = [self.projector(rows).unflatten(0, (-1, len(views[0]))).float() for rows in features]
        loss = self.loss(global_proj=projections[0], local_proj=projections[1])
        loss.backward()
        mark("backbone")
        nn.utils.clip_grad_norm_(self.module.parameters(), self.options["clip_norm"])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        mark("optimizer")
        return loss.detach()
