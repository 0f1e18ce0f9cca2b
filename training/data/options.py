# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The options of the data path: defaults, ranges and sources, declared once.

"paper" is arXiv 2606.02572, "released recipe" the one published with it. `MultiCrop`, `Subset`, `DeviceAugment` and
the command line take them from here. The groups of a run are inherited into one flat set of options, so they do not
check themselves: the parts that use them do.
"""

from dataclasses import dataclass

from ..option import NOT_NEGATIVE, POSITIVE, SHARE, SHARES, SIDE, Range, check_options, option


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_PIXELS_HELP = (
    "pixels of an image at most: a larger JPEG is decoded reduced, others are left out; "
    "default: VISREG_MAX_PIXELS, else 60 million"
)

_FRACTION = Range(lambda value: 0 < value <= 1, "lie in (0, 1]")
_FACTOR = Range(lambda value: value >= 1, "be 1 or above")
_DEGREES = Range(lambda value: 0 <= value <= 180, "lie in [0, 180]")
_QUALITY = Range(lambda value: 1 <= value <= 100, "lie in [1, 100]")
_SHARD_SIZE = Range(lambda value: 1 <= value <= 1024, "lie in [1, 1024]")
_MOST_VIEWS = 1_024
_HUE = Range(lambda value: 0 <= value <= 0.5, "lie in [0, 0.5]")


@dataclass(frozen=True)
class SourceOptions:
    """Where images come from."""

    dataset: str | None = option(
        None, "Hub id, image folder, parquet, arrow or tar glob, save_to_disk folder, or 'digits'"
    )
    dataset_config: str | None = option(None, "configuration name of a Hub data set")
    split: str = option("train", "split to train on")
    streaming: bool | None = option(None, "stream instead of downloading; default: true for a Hub id")
    revision: str | None = option(None, "branch, tag or commit of a Hub data set; the commit is recorded")
    image_column: str | None = option(None, "column of the images; default: found by its type")
    label_column: str | None = option(None, "column of the labels, if any; default: found by its type")
    max_pixels: int | None = option(None, MAX_PIXELS_HELP, POSITIVE)


@dataclass(frozen=True)
class SubsetOptions:
    """Which images of the source are used."""

    fraction: float | None = option(None, "share of the data set to keep, (0, 1]", _FRACTION)
    images_per_class: int | None = option(None, "images of each class to keep", POSITIVE)
    imbalance_factor: float | None = option(
        None, "largest over smallest class of an exponential long tail, >= 1", _FACTOR
    )
    file_list: str | None = option(None, "text file with the names of the images to keep, one per line")


@dataclass(frozen=True)
class CropOptions:
    """The views of an image, cut in the workers. Scales are shares of the image's area, sizes pixels."""

    num_global: int = option(4, "global views of an image (paper: 4 x 224)", POSITIVE.up_to(_MOST_VIEWS))
    num_local: int = option(6, "local views of an image (paper: 6 x 96)", NOT_NEGATIVE.up_to(_MOST_VIEWS))
    global_size: int = option(224, "pixels of a global view's side", POSITIVE.up_to(SIDE))
    local_size: int = option(96, "pixels of a local view's side", POSITIVE.up_to(SIDE))
    global_scale: tuple[float, float] = option(
        (0.3, 1.0), "area of a global crop, share of the image (paper: 0.3-1)", SHARES
    )
    local_scale: tuple[float, float] = option(
        (0.05, 0.3), "area of a local crop, share of the image (paper: 0.05-0.3)", SHARES
    )
    flip_probability: float = option(0.5, "horizontal flip (released recipe: 0.5)", SHARE)
    rotation: float = option(0.0, "largest rotation of a crop, degrees (released recipe: none)", _DEGREES)


@dataclass(frozen=True)
class ColorOptions:
    """The colors of a view. Fields that are no options of a run are those that no recipe has to change.

    Attributes:
        blur_kernel: side of the blur's kernel in pixels, odd (released recipe: 9).
        blur_sigma: range of its standard deviation in pixels (released recipe: 0.1-2).
        solarize_threshold: solarize inverts values from here on, of [0, 1] (released recipe: half range).
        mean, std: of the normalization, per channel (ImageNet's).
    """

    jitter_probability: float = option(0.8, "color jitter (released recipe: 0.8)", SHARE)
    brightness: float = option(0.4, "strength of the jitter (released recipe: 0.4; Imagenette 0.8)", NOT_NEGATIVE)
    contrast: float = option(0.4, "strength of the jitter (released recipe: 0.4; Imagenette 0.8)", NOT_NEGATIVE)
    saturation: float = option(0.2, "strength of the jitter (released recipe: 0.2; Imagenette 0.8)", NOT_NEGATIVE)
    hue: float = option(
        0.1, "strength of the jitter, share of the circle (released recipe: 0.1; Imagenette 0.2)", _HUE
    )
    grayscale_probability: float = option(0.2, "grayscale (released recipe: 0.2)", SHARE)
    blur_probability: float = option(0.5, "Gaussian blur, kernel 9, sigma 0.1-2 (released recipe: 0.5)", SHARE)
    solarize_probability: float = option(0.2, "solarize at half range (released recipe: 0.2)", SHARE)
    blur_kernel: int = 9
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_threshold: float = 0.5
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class LoaderOptions:
    """How images are loaded."""

    augment_backend: str = option(
        "device", "color in batches on the device, or the torchvision reference in workers", ("device", "torchvision")
    )
    num_workers: int = option(
        8, "processes that decode and crop, for each rank", NOT_NEGATIVE, free_on_resume=True, on_card=False
    )
    max_bad_share: float = option(
        0.01,
        "share of unreadable images above which the run stops; up to 5 never stop it, unless it is 0",
        SHARE,
        free_on_resume=True,
    )


@dataclass(frozen=True)
class PackOptions:
    """How `visreg pack` writes images.

    Raises:
        ValueError: a value is out of range.
    """

    size: int = option(256, "pixels of an image's shorter side; smaller images keep their size", POSITIVE.up_to(SIDE))
    image_format: str = option("jpeg", "format of images that are encoded anew", ("jpeg", "webp"))
    quality: int = option(90, "of the encoder, 1 to 100", _QUALITY)
    copy_fitting: bool = option(True, "keep the bytes of JPEG, PNG and WebP files that are small enough already")
    shard_mb: int = option(128, "megabytes of images in a parquet file", _SHARD_SIZE)

    def __post_init__(self):
        check_options(self)
