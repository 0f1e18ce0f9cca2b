# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Colour on the device: jitter, grayscale, blur, solarize and normalise of a whole batch, with parameters a crop.

Each operation alone equals torchvision's for the same parameter. Together they differ in one thing: brightness, contrast and saturation
that follow one another (and grayscale, and the normalisation) are composed into one 3 x 4 transform a crop, so values are clamped to
[0, 1] once per run of them instead of after each, and the mean that contrast turns about is that of the unclamped image.

All random numbers come from the CPU: the same generator gives the same views on every device, and nothing waits for the device.

Legend: N crops, C = 3; images (N, C, H, W).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# ITU-R 601-2 luma, as torchvision takes it.
_LUMA = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
# On a CPU, crops are worked on so many pixels at a time, which keeps them in the cache of a core.
_CPU_CHUNK_PIXELS = 1 << 17


class AugmentParameters(NamedTuple):
    """What is done to each of N crops; all tensors on the CPU, (N,) unless said.

    Attributes:
        jitter: bool, whether the four factors apply.
        order: (N, 4) the order of brightness 0, contrast 1, saturation 2, hue 3.
        brightness, contrast, saturation: factors, 1 changes nothing.
        hue: shift in turns, -0.5 to 0.5.
        grayscale, blur, solarize: bool.
        sigma: of the blur, in pixels.
    """

    jitter: torch.Tensor
    order: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor
    hue: torch.Tensor
    grayscale: torch.Tensor
    blur: torch.Tensor
    sigma: torch.Tensor
    solarize: torch.Tensor

    def take(self, crops: torch.Tensor) -> "AugmentParameters":
        return AugmentParameters(*(value[crops] for value in self))


class DeviceAugment(nn.Module):
    """The colour part of the augmentation; defaults are the paper's (method, section 4).

    Args:
        brightness, contrast, saturation: factors are uniform in [max(0, 1 - x), 1 + x].
        hue: shifts are uniform in [-hue, hue] turns.
        jitter_probability: of the four together, in random order.
        grayscale_probability: of grayscale.
        blur_probability: of a Gaussian blur.
        blur_kernel: its side in pixels, odd.
        blur_sigma: range of its standard deviation in pixels.
        solarize_probability: of inverting what is brighter than `solarize_threshold`.
        solarize_threshold: in [0, 1].
        mean, std: of the normalisation, a channel.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        jitter_probability: float = 0.8,
        grayscale_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_kernel: int = 9,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        solarize_probability: float = 0.2,
        solarize_threshold: float = 0.5,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ):
        super().__init__()
        chances = (
            jitter_probability,
            grayscale_probability,
            blur_probability,
            solarize_probability,
            solarize_threshold,
        )
        if not all(0 <= value <= 1 for value in chances):
            raise ValueError(f"probabilities and solarize_threshold must be in [0, 1], got {chances}")
        if min(brightness, contrast, saturation) < 0 or not 0 <= hue <= 0.5:
            raise ValueError("brightness, contrast and saturation must not be negative, and hue must be in [0, 0.5]")
        if blur_kernel < 1 or blur_kernel % 2 == 0 or not 0 < blur_sigma[0] <= blur_sigma[1]:
            raise ValueError(
                f"blur_kernel must be odd and blur_sigma 0 < low <= high, got {blur_kernel} and {blur_sigma}"
            )
        if min(std) <= 0:
            raise ValueError(f"std must be positive, got {std}")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.jitter_probability, self.grayscale_probability = jitter_probability, grayscale_probability
        self.blur_probability, self.blur_kernel, self.blur_sigma = blur_probability, blur_kernel, tuple(blur_sigma)
        self.solarize_probability, self.solarize_threshold = solarize_probability, solarize_threshold
        self.mean, self.std = tuple(mean), tuple(std)

    def sample(self, count: int, generator: torch.Generator | None = None) -> AugmentParameters:
        """Draws the parameters of `count` crops from a CPU generator."""
        draws = torch.rand((9, count), generator=generator)
        order = torch.rand((count, 4), generator=generator).argsort(dim=1)
        low, high = self.blur_sigma

        def factor(draw: torch.Tensor, strength: float) -> torch.Tensor:
            smallest = max(0.0, 1 - strength)
            return smallest + draw * (1 + strength - smallest)

        return AugmentParameters(
            jitter=draws[0] < self.jitter_probability,
            order=order,
            brightness=factor(draws[1], self.brightness),
            contrast=factor(draws[2], self.contrast),
            saturation=factor(draws[3], self.saturation),
            hue=(2 * draws[4] - 1) * self.hue,
            grayscale=draws[5] < self.grayscale_probability,
            blur=draws[6] < self.blur_probability,
            sigma=low + draws[7] * (high - low),
            solarize=draws[8] < self.solarize_probability,
        )

    @torch.no_grad()
    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """uint8 (N, 3, H, W) on any device -> float32 (N, 3, H, W), augmented and normalised.

        Raises:
            ValueError: images of another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"DeviceAugment takes uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        return self.apply_parameters(images, self.sample(len(images), generator))

    def apply_parameters(self, images: torch.Tensor, parameters: AugmentParameters) -> torch.Tensor:
        """As `forward`, with given parameters."""
        output = torch.empty(images.shape, dtype=torch.float32, device=images.device)
        chunk = len(images)
        if images.device.type == "cpu":
            chunk = max(1, _CPU_CHUNK_PIXELS // (images.shape[-1] * images.shape[-2]))
        for start in range(0, len(images), max(1, chunk)):
            part = slice(start, start + chunk)
            self._augment(images[part], parameters.take(part), output[part])
        return output

    def _augment(self, images: torch.Tensor, parameters: AugmentParameters, output: torch.Tensor) -> None:
        """Writes the augmented crops to `output`. Only the crops that an operation changes are touched by it."""
        finish = _Finish.of(self.mean, self.std, images.device)
        plain, jittered = _where(~parameters.jitter), _where(parameters.jitter)
        for crops in (plain, jittered):
            if len(crops) == 0:
                continue
            chosen, index = parameters.take(crops), crops.to(images.device)
            part = images[index].flatten(2).float()
            if crops is jittered:
                part = _jitter(part, chosen, finish)
            else:
                part = finish.apply(part, chosen.grayscale, scale=1 / 255)
            output[index] = part.view(-1, *output.shape[1:])
        blurred = _where(parameters.blur)
        if len(blurred):
            index = blurred.to(images.device)
            output[index] = gaussian_blur(output[index], parameters.sigma[blurred], self.blur_kernel)
        solarized = _where(parameters.solarize)
        if len(solarized):
            index = solarized.to(images.device)
            output[index] = finish.solarize(output[index], self.solarize_threshold)


def _where(mask: torch.Tensor) -> torch.Tensor:
    return mask.nonzero().flatten()


@dataclass
class _Finish:
    """Normalisation, kept apart so that it can be folded into the colour transform: everything after it works on normalised values."""

    mean: torch.Tensor  # (3,)
    std: torch.Tensor  # (3,)

    @classmethod
    def of(cls, mean, std, device) -> "_Finish":
        return cls(torch.tensor(mean, device=device), torch.tensor(std, device=device))

    def apply(self, pixels, grayscale, scale=1.0, matrix=None, offset=None) -> torch.Tensor:
        """Normalised `gray?(matrix @ pixels * scale + offset)`, clamped to what [0, 1] becomes; pixels (n, 3, P)."""
        device = pixels.device
        last = torch.where(grayscale[:, None, None], _luma_matrix(), torch.eye(3)).to(device)
        matrix = last * scale if matrix is None else last @ matrix * scale
        offset = torch.zeros_like(matrix[:, :, :1]) if offset is None else last @ offset
        matrix, offset = matrix / self.std[:, None], (offset - self.mean[:, None]) / self.std[:, None]
        low, high = -self.mean / self.std, (1 - self.mean) / self.std
        return affine(pixels, matrix, offset).clamp_(low[:, None], high[:, None])

    def solarize(self, images: torch.Tensor, threshold: float) -> torch.Tensor:
        """1 - x where x >= threshold, on normalised (n, 3, H, W)."""
        mean, std = self.mean[:, None, None], self.std[:, None, None]
        return torch.where(images >= (threshold - mean) / std, (1 - 2 * mean) / std - images, images)


def _luma_matrix() -> torch.Tensor:
    return torch.tensor(_LUMA).expand(3, 3)


def affine(pixels: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """matrix (n, 3, 3) @ pixels (n, 3, P) + offset (n, 3, 1)."""
    return torch.baddbmm(offset, matrix, pixels)


def _jitter(pixels: torch.Tensor, parameters: AugmentParameters, finish: _Finish) -> torch.Tensor:
    """Brightness, contrast, saturation and hue in each crop's own order, grayscale, normalise. pixels (n, 3, P), 0 to 255."""
    device = pixels.device
    place = parameters.order.argsort(dim=1)
    before = place < place[:, _HUE:]
    first = [step for step in _steps(parameters, before)]
    matrix, offset = _compose(first, pixels.mean(dim=2, keepdim=True) / 255, device)
    pixels = affine(pixels, matrix / 255, offset).clamp_(0, 1)
    pixels = shift_hue(pixels, parameters.hue.to(device))
    second = [step for step in _steps(parameters, ~before)]
    matrix, offset = _compose(second, pixels.mean(dim=2, keepdim=True), device)
    return finish.apply(pixels, parameters.grayscale, 1.0, matrix, offset)


def _steps(parameters: AugmentParameters, active: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each of the four places in the order: the matrix (n, 3, 3) applied there, and the share (n, 1, 1) of the mean luma that
    contrast adds. Operations that are not `active` (n, 4), and hue, change nothing."""
    eye, luma = torch.eye(3), _luma_matrix()
    one = torch.ones_like(parameters.hue)
    steps = []
    for place in range(4):
        operation = parameters.order[:, place]
        acts = active.gather(1, operation[:, None])[:, 0]

        def factor(number: int, values: torch.Tensor, operation=operation, acts=acts) -> torch.Tensor:
            return torch.where((operation == number) & acts, values, one)[:, None, None]

        contrast = factor(_CONTRAST, parameters.contrast)
        saturation = factor(_SATURATION, parameters.saturation)
        scale = factor(_BRIGHTNESS, parameters.brightness) * contrast
        steps.append((scale * saturation * eye + (1 - saturation) * luma, 1 - contrast))
    return steps


def _compose(steps, mean: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The steps as one transform (matrix (n, 3, 3), offset (n, 3, 1)) of an image with this mean (n, 3, 1)."""
    luma = torch.tensor(_LUMA, device=device)
    matrix = torch.eye(3, device=device).expand(len(mean), 3, 3)
    offset = torch.zeros_like(mean)
    for step, share in steps:
        step, share = step.to(device), share.to(device)
        gray = luma @ (matrix @ mean + offset)
        matrix, offset = step @ matrix, step @ offset + share * gray[:, None]
    return matrix, offset


def shift_hue(pixels: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turns the hue of RGB (n, 3, P) in [0, 1] by `shift` (n,) turns; value and saturation stay (torchvision's adjust_hue).

    With V = max, c = max - min and the hue h in sixths of a turn, a channel of offset n = 5, 3, 1 becomes
    V - c clamp(2 - |(n + h) mod 6 - 2|, 0, 1).
    """
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(dim=1)
    chroma = value - pixels.amin(dim=1)
    sector = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sector = torch.where(value == red, green - blue, sector)
    hue = sector / torch.where(chroma == 0, 1.0, chroma) + 6 * shift[:, None]
    output = torch.empty_like(pixels)
    for channel, start in enumerate((5.0, 3.0, 1.0)):
        turned = (hue + start) / 6
        distance = (turned - turned.floor()).mul_(6).sub_(2).abs_()
        torch.sub(value, chroma * (2 - distance).clamp_(0, 1), out=output[:, channel])
    return output


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor, kernel: int) -> torch.Tensor:
    """Blurs (n, C, H, W), each with its own sigma (n,): two one-dimensional passes, borders mirrored (torchvision's gaussian_blur)."""
    n, channels, height, width = images.shape
    half = kernel // 2
    distance = torch.linspace(-half, half, kernel)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(images.device)
    weights = weights.repeat_interleave(channels, dim=0)[:, None, None, :]
    groups = n * channels
    padded = nn.functional.pad(images, (half, half, half, half), mode="reflect").reshape(
        1, groups, height + 2 * half, width + 2 * half
    )
    rows = nn.functional.conv2d(padded, weights, groups=groups)
    return nn.functional.conv2d(rows, weights.transpose(2, 3), groups=groups).reshape(images.shape)
