# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The fused kernels in Triton's interpreter, beside torch's operations: prints the largest difference of each case.

A program of its own, because Triton reads TRITON_INTERPRET when it is imported. Crops are few and small: the
interpreter takes some milliseconds for each program of a kernel.
"""

import itertools
import json

import torch

from visreg_training.data import DeviceAugment
from visreg_training.data.color import AugmentParameters
from visreg_training.data.color.fused import color_fused, runs_fused


def unchanged(count: int, **changes) -> AugmentParameters:
    """Parameters that change nothing, but for `changes`."""
    no, one = torch.zeros(count, dtype=torch.bool), torch.ones(count)
    base = AugmentParameters(no, torch.arange(4).repeat(count, 1), one, one, one, one * 0, no, no, one, no)
    return base._replace(
        **{name: torch.as_tensor(value).expand(base._asdict()[name].shape) for name, value in changes.items()}
    )


def crops(count: int, height: int = 7, width: int = 10) -> torch.Tensor:
    """Noise, the last crop gray, the one before white."""
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
    images[-2:] = torch.tensor([255, 90], dtype=torch.uint8)[:, None, None, None]
    return images


def difference(groups: list[torch.Tensor], parameters: list[AugmentParameters], **options) -> float:
    """Largest difference between the two ways, of normalized values."""
    augment = DeviceAugment(**options)
    assert runs_fused(groups, augment.options)
    fused, right = ([torch.full(group.shape, torch.nan) for group in groups] for _ in range(2))
    color_fused(groups, parameters, augment.options, fused)
    for images, drawn, output in zip(groups, parameters, right, strict=True):
        augment.color_in_groups(images, drawn, output)
    return max((ours - theirs).abs().max().item() for ours, theirs in zip(fused, right, strict=True))


def main() -> None:
    torch.manual_seed(0)
    four = crops(4)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    jitter = {"jitter": True, "brightness": 1.5, "contrast": 0.6, "saturation": 1.7, "hue": -0.17}
    changes = {
        "nothing": {},
        "brightness": {"jitter": True, "brightness": 1.4},
        "contrast": {"jitter": True, "contrast": 0.3},
        "saturation": {"jitter": True, "saturation": 1.8},
        "hue": {"jitter": True, "hue": torch.tensor([-0.5, 0.08, 0.5, 0.2])},
        "grayscale": {"grayscale": True},
        "solarize": {"solarize": True},
        "blur": {"blur": True, "sigma": torch.tensor([0.1, 0.4, 1.1, 2.0])},
        "hue without jitter": {"hue": 0.3},
    }
    found = {name: difference([four], [unchanged(4, **change)]) for name, change in changes.items()}
    found["every order"] = difference([crops(24)], [unchanged(24, order=orders, **jitter)])
    # A generator draws for one resolution after the other; 38 x 33 are several tiles, the last of each not full.
    groups, augment = [crops(3, 38, 33), crops(4, 5, 20)], DeviceAugment()
    drawn = [augment.sample(len(group), torch.Generator().manual_seed(4)) for group in groups]
    drawn[0] = drawn[0]._replace(blur=torch.tensor([True, False, False]))
    found["two resolutions"] = difference(groups, drawn)
    found["other options"] = difference(
        [four], [unchanged(4, blur=True, solarize=True)], blur_kernel=5, solarize_threshold=0.25
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
