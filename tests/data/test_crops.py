# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""MultiCrop: torchvision's crops in uint8, reproducible, and never decoded larger than they need."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from visreg_training.data import MultiCrop
from visreg_training.data.decode import open_image


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_are_uint8_global_first(photo):
    views = MultiCrop()(Image.fromarray(photo), generator())
    assert [tuple(view.shape) for view in views] == [(3, 224, 224)] * 4 + [(3, 96, 96)] * 6
    assert all(view.dtype == torch.uint8 and view.is_contiguous() for view in views)


def test_the_generator_decides(photo):
    crops, image = MultiCrop(2, 2, 32, 16), Image.fromarray(photo)
    first, second, other = (crops(image, generator(seed)) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, second))
    assert not any(map(torch.equal, first, other))


def test_a_view_is_torchvisions_resized_crop_of_its_box(photo):
    """To one level in uint8; in float, which does not round between the two passes, to half a level on average."""
    multi_crop, image = MultiCrop(), Image.fromarray(photo)
    plan = multi_crop.plan(*image.size, generator(3))
    for view, crop in zip(multi_crop(image, generator(3)), plan, strict=True):
        pixels, box = F.pil_to_tensor(image), (crop.top, crop.left, crop.height, crop.width)
        options = {"size": [crop.size, crop.size], "interpolation": InterpolationMode.BICUBIC, "antialias": True}
        if crop.flip:
            view = view.flip(-1)
        expected = F.resized_crop(pixels, *box, **options)
        assert (view.int() - expected.int()).abs().max() <= 1
        exact = F.resized_crop(pixels.float(), *box, **options).clamp(0, 255)
        difference = (view.float() - exact).abs()
        assert difference.mean() < 0.5 and difference.max() <= 4


def test_boxes_are_distributed_as_torchvisions():
    """Area, ratio and position of 4,000 boxes against RandomResizedCrop.get_params."""
    width, height, count = 500, 375, 4000
    multi_crop, draws = MultiCrop(num_global=count // 4, num_local=0, global_scale=(0.05, 1.0)), generator()
    crops = [crop for _ in range(4) for crop in multi_crop.plan(width, height, draws)]
    ours = torch.tensor([(c.width * c.height, c.width / c.height, c.left, c.top) for c in crops])
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(8, (0.05, 1.0))
    image = torch.zeros(3, height, width)
    params = [transform.make_params([image]) for _ in range(count)]
    theirs = torch.tensor([(p["width"] * p["height"], p["width"] / p["height"], p["left"], p["top"]) for p in params])
    for column in range(4):
        a, b = ours[:, column].double().sort().values, theirs[:, column].double().sort().values
        grid = torch.cat([a, b])
        distance = (
            torch.searchsorted(a, grid, right=True) - torch.searchsorted(b, grid, right=True)
        ).abs().max() / count
        assert distance < 1.95 * (2 / count) ** 0.5  # Kolmogorov-Smirnov at 0.001


def test_boxes_stay_inside_and_keep_their_scale():
    multi_crop = MultiCrop()
    for width, height in ((500, 375), (37, 400), (400, 37), (1, 1), (2, 900)):
        for crop in multi_crop.plan(width, height, generator()):
            assert crop.left >= 0 and crop.top >= 0 and crop.width >= 1 and crop.height >= 1
            assert crop.left + crop.width <= width and crop.top + crop.height <= height
    shares = [c.width * c.height / (500 * 375) for s in range(50) for c in multi_crop.plan(500, 375, generator(s))]
    globals_, locals_ = np.array(shares).reshape(50, 10)[:, :4], np.array(shares).reshape(50, 10)[:, 4:]
    assert globals_.min() > 0.29 and globals_.max() <= 1.0
    assert locals_.min() > 0.049 and locals_.max() < 0.31


def test_flips_have_their_probability(photo):
    flips = [crop.flip for seed in range(100) for crop in MultiCrop().plan(500, 375, generator(seed))]
    assert 0.45 < np.mean(flips) < 0.55
    assert not any(
        crop.flip for seed in range(20) for crop in MultiCrop(flip_probability=0).plan(500, 375, generator(seed))
    )


def test_rotation_turns_the_image_before_the_crop():
    """A full-size crop of a turned image is the turned image."""
    image = Image.new("RGB", (32, 32))
    image.paste((255, 255, 255), (14, 0, 18, 32))
    multi_crop = MultiCrop(1, 0, 32, global_scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_probability=0, rotation=15.0)
    angles = [multi_crop.plan(32, 32, generator(seed))[0].angle for seed in range(200)]
    assert -15 <= min(angles) < -13 and 13 < max(angles) <= 15
    expected = np.asarray(image.rotate(angles[3], Image.Resampling.BICUBIC)).astype(int)
    view = multi_crop(image, generator(3))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(view - expected).max() <= 1


@pytest.mark.parametrize("size,sides", [((4000, 3000), (224, 96)), ((2400, 1800), (64, 32))])
def test_scaled_decoding_touches_nothing(photo, size, sides):
    """A photo decoded at 1/2 to 1/8 in the DCT gives the views that the whole photo gives: on average within 1/255,
    nowhere visibly off.
    """
    large = Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=92)
    multi_crop = MultiCrop(2, 2, *sides, local_scale=(0.15, 0.3))
    opened = open_image(buffer.getvalue())
    plan = multi_crop.plan(*opened.size, generator(1))
    assert multi_crop.reduction(plan) >= 2
    views = multi_crop.from_opened(opened, generator(1))
    whole = multi_crop(Image.open(io.BytesIO(buffer.getvalue())), generator(1))
    for view, expected in zip(views, whole, strict=True):
        difference = (view.float() - expected.float()).abs()
        assert difference.mean() < 1.0
        assert difference.quantile(0.999) <= 12


def test_an_imagenet_photo_is_decoded_whole(photo):
    """Local crops of an image of 500 x 375 leave nothing to spare."""
    multi_crop = MultiCrop()
    assert all(multi_crop.reduction(multi_crop.plan(500, 375, generator(seed))) == 1 for seed in range(20))


def test_any_mode_is_taken():
    for mode in ("L", "P", "RGBA", "CMYK", "I;16", "1"):
        views = MultiCrop(1, 1, 8, 4)(Image.new(mode, (20, 10)), generator())
        assert [tuple(view.shape) for view in views] == [(3, 8, 8), (3, 4, 4)]


@pytest.mark.parametrize(
    "options",
    [
        {"num_global": 0},
        {"global_scale": (0.5, 1.2)},
        {"local_scale": (0.0, 0.3)},
        {"ratio": (2.0, 1.0)},
        {"flip_probability": 1.5},
        {"rotation": -3.0},
    ],
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MultiCrop(**options)


def test_views_beyond_all_measure_are_refused_with_what_fits():
    with pytest.raises(ValueError, match=r"384,100,352 pixels, more than .* local_size 3136 fits"):
        MultiCrop(2, 6, 224, 8000)
    assert MultiCrop(2, 6, 224, 3136).local_size == 3136
    with pytest.raises(ValueError, match="num_global 166 fits"):
        MultiCrop(1024, 6, 600, 96)
    assert MultiCrop(166, 6, 600, 96).num_global == 166
    with pytest.raises(ValueError, match="smaller ones fit"):
        MultiCrop(1, 1, 2**16, 2**16)
