# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""DeviceAugment: each operation equals torchvision's, the whole matches it in distribution, chunks and devices change
nothing.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as F

from visreg_training.data import DeviceAugment, MultiCrop, TorchvisionReference
from visreg_training.data.color import AugmentParameters
from visreg_training.data.options import IMAGENET_MEAN, IMAGENET_STD


COUNT, SIDE = 6, 24


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Noise, gray, black, white and two smooth images: (6, 3, 24, 24)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    ramp = torch.linspace(0, 255, SIDE).expand(SIDE, SIDE)
    smooth = torch.stack([ramp, ramp.T, 255 - ramp]).to(torch.uint8)
    gray = torch.full((3, SIDE, SIDE), 90, dtype=torch.uint8)
    return torch.stack([*noise, smooth, gray, torch.zeros_like(gray), torch.full_like(gray, 255)])


def parameters(**changes) -> AugmentParameters:
    """Parameters that change nothing, but for `changes`: floats, or (COUNT,) tensors."""
    no = torch.zeros(COUNT, dtype=torch.bool)
    one = torch.ones(COUNT)
    order = torch.arange(4).repeat(COUNT, 1)
    base = AugmentParameters(no, order, one, one, one, one * 0, no, no, one, no)
    full = {key: torch.as_tensor(value).expand(COUNT).contiguous() for key, value in changes.items()}
    return base._replace(**full)


def plain(**options) -> DeviceAugment:
    """Without normalization, so that values are those of the operation."""
    return DeviceAugment(mean=(0, 0, 0), std=(1, 1, 1), **options)


def test_nothing_active_only_scales_and_normalizes(images):
    expected = F.normalize(images.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(DeviceAugment().apply_parameters(images, parameters()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 1.8])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_equal_torchvision(images, name, factor):
    expected = getattr(F, f"adjust_{name}")(images.float() / 255, factor)
    ours = plain().apply_parameters(images, parameters(jitter=True, **{name: factor}))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shift", [-0.5, -0.3, -0.1, 0.0, 0.07, 0.1, 0.5])
def test_hue_equals_torchvision(images, shift):
    expected = F.adjust_hue(images.float() / 255, shift)
    ours = plain().apply_parameters(images, parameters(jitter=True, hue=shift))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_grayscale_equals_torchvision(images):
    expected = F.rgb_to_grayscale(images.float() / 255, num_output_channels=3)
    torch.testing.assert_close(
        plain().apply_parameters(images, parameters(grayscale=True)), expected, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_equals_torchvision(images, sigma):
    expected = F.gaussian_blur(images.float() / 255, [9, 9], [sigma, sigma])
    ours = plain().apply_parameters(images, parameters(blur=True, sigma=sigma))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_blur_takes_the_sigma_of_each_crop(images):
    sigmas = torch.tensor([0.1, 2.0, 0.7, 1.0, 1.5, 0.3])
    ours = plain().apply_parameters(images, parameters(blur=True, sigma=sigmas))
    for crop, sigma in enumerate(sigmas.tolist()):
        expected = F.gaussian_blur(images[crop].float() / 255, [9, 9], [sigma, sigma])
        torch.testing.assert_close(ours[crop], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_solarize_equals_torchvision(images, threshold):
    # 0.5 lies between 127 / 255 and 128 / 255, so rounding decides nothing.
    expected = F.solarize(images.float() / 255, threshold)
    ours = plain(solarize_threshold=threshold).apply_parameters(images, parameters(solarize=True))
    different = (ours - expected).abs() > 1e-5
    on_threshold = (images.float() / 255 - threshold).abs() < 1e-6
    assert not (different & ~on_threshold).any()


def test_everything_in_sequence_equals_torchvision_where_nothing_clamps():
    """The folded transform is exact, in each of the 24 orders, as long as no value leaves [0, 1] on the way."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(90, 140, (1, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    orders = torch.cartesian_prod(*[torch.arange(4)] * 4)
    orders = orders[[len(set(order.tolist())) == 4 for order in orders]]
    count = len(orders)
    assert count == 24
    one, yes = torch.ones(count), torch.ones(count, dtype=torch.bool)
    chosen = AugmentParameters(yes, orders, one * 1.2, one * 0.8, one * 1.15, one * 0.08, ~yes, yes, one, yes)
    ours = DeviceAugment().apply_parameters(image.expand(count, -1, -1, -1), chosen)
    operations = [
        lambda x: F.adjust_brightness(x, 1.2),
        lambda x: F.adjust_contrast(x, 0.8),
        lambda x: F.adjust_saturation(x, 1.15),
        lambda x: F.adjust_hue(x, 0.08),
    ]
    for order, result in zip(orders.tolist(), ours, strict=True):
        expected = image[0].float() / 255
        for number in order:
            expected = operations[number](expected)
        expected = F.solarize(F.gaussian_blur(expected, [9, 9], [1.0, 1.0]), 0.5)
        expected = F.normalize(expected, IMAGENET_MEAN, IMAGENET_STD)
        close = (result - expected).abs() < 2 / 255 / 0.22
        assert close.float().mean() > 0.999  # a value on the threshold may fall on either side


def test_values_stay_in_range(images):
    augment = plain(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    out = augment(images.repeat(20, 1, 1, 1), torch.Generator().manual_seed(0))
    assert out.min() >= -1e-6 and out.max() <= 1 + 1e-6
    assert out.isfinite().all()


def test_probabilities_and_ranges():
    augment = DeviceAugment()
    drawn = augment.sample(20_000, torch.Generator().manual_seed(0))
    for name, expected in {"jitter": 0.8, "grayscale": 0.2, "blur": 0.5, "solarize": 0.2}.items():
        assert getattr(drawn, name).float().mean().item() == pytest.approx(expected, abs=0.015)
    for name, (low, high) in {
        "brightness": (0.6, 1.4),
        "contrast": (0.6, 1.4),
        "saturation": (0.8, 1.2),
        "hue": (-0.1, 0.1),
        "sigma": (0.1, 2.0),
    }.items():
        values = getattr(drawn, name)
        assert low <= values.min() < low + 0.01 * (high - low) + 1e-6
        assert high - 0.01 * (high - low) - 1e-6 < values.max() <= high
    codes = (drawn.order * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = codes.unique(return_counts=True)[1]
    assert len(counts) == 24 and counts.min() > 20_000 / 24 * 0.8


def test_the_same_generator_gives_the_same_views_in_any_chunks(images, monkeypatch):
    many = images.repeat(30, 1, 1, 1)
    whole = DeviceAugment()(many, torch.Generator().manual_seed(3))
    monkeypatch.setattr("visreg_training.data.color.device._CPU_CHUNK_PIXELS", 7 * SIDE * SIDE)
    parts = DeviceAugment()(many, torch.Generator().manual_seed(3))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    other = DeviceAugment()(many, torch.Generator().manual_seed(4))
    assert not torch.equal(other, whole)


class Transfers(TorchDispatchMode):
    """Counts operations that take a tensor from the CPU and give one on another device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = [value for value in args if isinstance(value, torch.Tensor)]
        away = isinstance(result, torch.Tensor) and result.device.type != "cpu"
        self.count += away and any(value.device.type == "cpu" for value in given)
        return result


def test_a_batch_takes_one_transfer_and_reads_nothing_back():
    """On a device without values, where reading one back is an error."""
    images = torch.empty((200, 3, SIDE, SIDE), dtype=torch.uint8, device="meta")
    with Transfers() as transfers:
        views = DeviceAugment()(images, torch.Generator().manual_seed(0))
    assert views.device.type == "meta" and views.shape == images.shape and views.dtype == torch.float32
    assert transfers.count == 1


def test_memory_may_be_given(images):
    fresh = DeviceAugment()(images, torch.Generator().manual_seed(0))
    given = torch.full_like(fresh, torch.nan)
    assert DeviceAugment()(images, torch.Generator().manual_seed(0), given) is given and torch.equal(given, fresh)


def test_input_is_left_alone(images):
    before = images.clone()
    DeviceAugment()(images, torch.Generator().manual_seed(0))
    assert torch.equal(images, before)


def test_the_whole_matches_the_reference_in_distribution(photo):
    """Means and spreads of channel statistics over 1,000 crops of a photo."""
    torch.manual_seed(0)
    multi_crop = MultiCrop(num_global=25, num_local=0, global_size=32)
    reference = TorchvisionReference(multi_crop)
    image = Image.fromarray(photo).resize((160, 120))
    theirs = torch.stack([view for _ in range(40) for view in reference(image)])
    generator = torch.Generator().manual_seed(0)
    views = torch.stack([view for _ in range(40) for view in multi_crop(image, generator)])
    ours = DeviceAugment()(views, generator)
    for statistic in (
        lambda x: x.mean((2, 3)),
        lambda x: x.std((2, 3)),
        lambda x: (x[..., 1:] - x[..., :-1]).abs().mean((2, 3)),
    ):
        a, b = statistic(ours), statistic(theirs)
        error = b.std(0) * (2 / len(b)) ** 0.5
        assert ((a.mean(0) - b.mean(0)).abs() < 4 * error + 0.02 * b.std(0)).all(), (a.mean(0), b.mean(0), error)
        assert ((a.std(0) / b.std(0)).log().abs() < 0.12).all(), (a.std(0), b.std(0))


@pytest.mark.parametrize(
    "options",
    [
        {"blur_kernel": 8},
        {"blur_sigma": (2.0, 0.1)},
        {"hue": 0.6},
        {"brightness": -0.1},
        {"jitter_probability": 1.5},
        {"std": (0.2, 0.2, 0.0)},
    ],
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DeviceAugment(**options)


def test_other_input_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        DeviceAugment()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="uint8"):
        DeviceAugment()(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_numpy_is_not_needed_for_parameters():
    """Parameters are drawn by torch: numpy's global state changes nothing."""
    np.random.seed(0)
    first = DeviceAugment().sample(4, torch.Generator().manual_seed(0))
    np.random.seed(1)
    second = DeviceAugment().sample(4, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
