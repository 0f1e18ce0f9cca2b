# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Feature extraction of a ViT-B/16 at 224 px in bf16, beside timm: uint8 images on the host to float32 features there.

Ours is the call that `visreg features` makes for each batch; timm's side does the same by hand.
"""

import argparse
import json

import torch

from ..measuring import add_measure
from .timing import DEVICE, autocast, card, measured


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def measure(batch: int, size: int, small: bool) -> dict:
    """Images a second of both sides."""
    pixels = list(torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8))
    sides = {"ours": our_call(pixels, size, small), "timm": timm_call(pixels, size, small)}
    rows = {}
    for side, call in sides.items():
        timed = measured(call, warm=3, repeats=10)
        rows[side] = timed | {"images_per_second": 1000 * batch / timed["wall"]}
    return {"card": card(), "B": batch, "size": size, "sides": rows}


def sizes(small: bool) -> tuple[int, int, int]:
    """Width, depth, heads."""
    return (32, 2, 2) if small else (768, 12, 12)


def our_call(pixels: list[torch.Tensor], size: int, small: bool):
    from modeling_visreg import VISRegViTConfig, VISRegViTModel
    from visreg_training.backbones import wrap_backbone
    from visreg_training.evaluation.features import embed_batch
    from visreg_training.evaluation.options import FeatureOptions
    from visreg_training.evaluation.preprocessing import transform_for

    width, depth, heads = sizes(small)
    config = VISRegViTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=size,
        patch_size=16,
    )
    backbone = wrap_backbone(VISRegViTModel(config).to(DEVICE).eval())
    options = FeatureOptions(layers=1, precision="bfloat16")
    transform = transform_for(backbone, size)
    return torch.no_grad()(lambda: embed_batch(backbone, transform, pixels, options).cpu())


def timm_call(pixels: list[torch.Tensor], size: int, small: bool):
    import timm

    width, depth, heads = sizes(small)
    model = timm.models.VisionTransformer(
        img_size=size, patch_size=16, embed_dim=width, depth=depth, num_heads=heads, num_classes=0
    )
    model = model.to(DEVICE).eval()
    mean, std = (torch.tensor(values, device=DEVICE).view(3, 1, 1) for values in (MEAN, STD))

    def call() -> torch.Tensor:
        inputs = (torch.stack(pixels).to(DEVICE).float().div_(255) - mean) / std
        with autocast():
            return model(inputs).float().cpu()

    return torch.no_grad()(call)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_measure(parser)
    print(json.dumps(measure(*parser.parse_args().measure)))
