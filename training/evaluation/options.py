# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The options that evaluations share, each said once. Imports no torch: what computes is imported when called."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..backbones.options import POOLINGS, BackboneOptions
from ..data.options import MAX_PIXELS_HELP
from ..option import EPOCHS, POSITIVE, SEED, SHARE, SIDE, Range, check_options, option
from ..run_folder import Json


if TYPE_CHECKING:
    import torch

    from ..data import Source
    from .cache import FeatureCache
    from .splits import Sources


AT_LEAST_ONE = Range(lambda value: value >= 1, "be at least 1")
SIDES = Range(
    lambda value: len(value) == 2 and min(value) >= 1 if isinstance(value, tuple) else value >= 1,
    "be one number, or two (height width), of at least 1",
    SIDE,
)
SIDES_HELP = "pixels of a side, or height and width; default: the model's native size"
PASSES, PIXELS = AT_LEAST_ONE.up_to(EPOCHS), AT_LEAST_ONE.up_to(SIDE)
SAVED_AS = (".safetensors", ".parquet", ".csv", ".npz")  # suffixes of files of features
QUERIES = 6  # of a set that is searched, where none is given


def side_or_sides(given: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    """A square as its side, so that it is the same however it was given; (height, width) else."""
    if given is None or isinstance(given, int):
        return given
    return given[0] if 1 <= len(given) <= 2 and len(set(given)) == 1 else tuple(given)


@dataclass(frozen=True)
class CacheOptions:
    """How features are computed and where they are kept; no value depends on it.

    Raises:
        ValueError: a value is out of range.
    """

    batch_size: int = option(256, "images embedded at once", AT_LEAST_ONE)
    cache_dir: Path | None = option(None, "of features; default: visreg/features in the user's cache")

    def __post_init__(self):
        check_options(self)

    @property
    def cache(self) -> "FeatureCache":
        from .cache import FeatureCache

        return FeatureCache(self.cache_dir)


@dataclass(frozen=True)
class FeatureOptions:
    """What is taken of a model. Without a limit nothing is drawn, and `seed` is None.

    Raises:
        ValueError: a value is out of range.
    """

    layers: int = option(4, "blocks from the end, concatenated (paper: 4); knn: 1 (DINO)", AT_LEAST_ONE)
    pooling: str | None = option(None, "default: cls where there is one, else the mean of the patches", POOLINGS)
    image_size: int | tuple[int, ...] | None = option(None, SIDES_HELP, SIDES)
    limit: int | None = option(
        None, "at most so many images of a split: a sample drawn by --seed, the first ones of a stream", AT_LEAST_ONE
    )
    precision: str = option("float32", "bfloat16: autocast; features are stored in float32", ("float32", "bfloat16"))
    seed: int | None = option(0, "of all that is drawn", SEED)

    def __post_init__(self):
        object.__setattr__(self, "image_size", side_or_sides(self.image_size))
        check_options(self)
        if self.limit is None:
            object.__setattr__(self, "seed", None)

    def autocast(self, device: "torch.device") -> AbstractContextManager:
        """For the forward pass of a model."""
        import torch

        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()


@dataclass(frozen=True)
class ReadOptions:
    """How images are read, whatever the data set."""

    max_bad_share: float = option(
        0.01, "share of unreadable images above which nothing is measured; up to 5 always pass, unless it is 0", SHARE
    )

    max_pixels: int | None = option(None, MAX_PIXELS_HELP, POSITIVE)

    def reading(self) -> Json:
        """Keywords of `open_stream`.

        Raises:
            ValueError: a value is out of range.
        """
        check_options(self)
        return {spec.name: getattr(self, spec.name) for spec in fields(ReadOptions)}


@dataclass(frozen=True)
class DataOptions(ReadOptions):
    """Labeled images."""

    dataset: str | None = option(None, "digits, a Hub id, a folder, or a glob of files")
    dataset_config: str | None = option(None, "configuration of a Hub data set")
    revision: str | None = option(None, "commit, branch or tag of a Hub data set")
    image_column: str | None = option(None, "default: found by its type")
    label_column: str | None = option(None, "default: found by its type")
    streaming: bool | None = option(None, "read shards in sequence; default: for Hub ids")

    def columns(self) -> Json:
        """Keywords of `open_stream`, but for the split.

        Raises:
            ValueError: a value is out of range.
        """
        check_options(self)
        return {spec.name: getattr(self, spec.name) for spec in fields(DataOptions) if spec.name != "dataset"}


@dataclass(frozen=True)
class SplitOptions(DataOptions):
    """One split of a data set."""

    split: str = option("train", "split that is read")

    def open(self, split: str | None = None) -> "Source":
        """The source of the split, or of another one of the same data set."""
        from ..data import open_stream

        return open_stream(self.dataset, split=split or self.split, **self.columns())


@dataclass(frozen=True)
class TaskOptions(DataOptions):
    """The splits of a data set."""

    train_split: str = option("train", "split that classifiers learn from")
    test_split: str | None = option(None, "split that is tested on; default: test where there is one, else validation")
    validation_split: str | None = option(None, "default: `validation` where there is one, else part of train")
    train_share: float | None = option(None, "share to train on of a data set with one split")
    share_rule: str = option(
        "sample", "class: of each class, by Python's shuffle with seed 42 (release, AID)", ("sample", "class")
    )
    train_list: str | None = option(None, "file with the names of the training images, one a line")
    test_list: str | None = option(None, "the same of the test images; both may then be of one split")
    train_images: str = option("all", "run: those that the run learned from, whose model it is", ("all", "run"))

    def open(self, model: str | None = None, **masks: str | None) -> "Sources":
        """What `open_sources` makes of them.

        Args:
            model: as it was named; with `train_images` run, the run or its model.
            **masks: `mask_column`, `mask_folder`.

        Raises:
            ValueError: an option does not fit the others, or the run.
        """
        from ..data import Subset
        from .splits import open_sources, run_subset

        check_options(self)
        train, test = Subset(file_list=self.train_list), Subset(file_list=self.test_list)
        if self.train_images == "run":
            if train:
                raise ValueError("train_images: the run says which images it learned from, so give no --train_list")
            train = run_subset(str(model), str(self.dataset), self.train_split)
        if (train or test) and self.train_share is not None:
            raise ValueError("train_share: shares out all of a split, so it goes with no list and no run")
        splits = (self.train_split, self.test_split, self.validation_split, self.train_share)
        more = {"share_rule": self.share_rule, "train_subset": train, "test_subset": test, **self.columns()}
        return open_sources(self.dataset, *splits, **more, **masks)


@dataclass(frozen=True)
class SearchOptions(CacheOptions, SplitOptions, BackboneOptions):
    """What is searched, by which model, for what."""

    query: tuple[Path, ...] | None = option(None, f"photos to look for; default: {QUERIES} of the data set")
    k: int = option(7, "nearest images of each, itself aside", POSITIVE)
    layers: int = option(1, "blocks from the end whose features are compared", POSITIVE)
    output: Path = option(Path("neighbors.png"), "sheet to write: a row a query, the nearest first")

    def __post_init__(self):
        check_options(self)
