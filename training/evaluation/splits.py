# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A classification task on frozen features: the splits, who may look at which, and how labels are matched.

n images, d features, C classes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from ..backbones import Backbone
from ..data import NoSuchSplit, Source, Subset, open_stream
from ..data.options import SubsetOptions
from ..run_folder import Json, RunFolder, read_object
from ..seeding import short_seed_of
from .cache import FeatureCache, cached_features
from .features import Features, check_finite, same_columns, sparse_values, subset, widened
from .options import FeatureOptions


TESTED = ("test", "validation")  # splits that are tested on where none is named: the first there is
SELECTIONS = ("validation", "test")
VALIDATION_SHARE = 0.1  # of the training images, where the data set has no validation split


@dataclass
class Sources:
    """The data of a task.

    Attributes:
        validation: None where it is split off `train`.
        train_share: where `train` and `test` are the same split, the share of it that is trained on.
        share_rule: `sample`, or `class` for that share of each class by Python's shuffle.
        masks: the masks of `train` and `test`, where the task is segmentation.
    """

    train: Source
    test: Source
    validation: Source | None = None
    train_share: float | None = None
    masks: tuple[Source, Source] | None = None
    share_rule: str = "sample"

    def descriptions(self) -> Json:
        sources = {"train": self.train, "test": self.test, "validation": self.validation}
        described = {name: source.description() for name, source in sources.items() if source is not None}
        if self.train_share:
            described |= {"train_share": self.train_share, "share_rule": self.share_rule}
        return described


@dataclass
class Task:
    """Features and labels of the splits. Labels are (n,) classes, or (n, C) of 0 and 1."""

    train: Features
    test: Features
    validation: Features | None
    num_classes: int
    label_names: list[str] | None = None

    @property
    def multi_label(self) -> bool:
        return self.train.labels.ndim == 2

    def notes(self) -> list[str]:
        """Sentences without which a result on this task would mislead."""
        notes = overlap_note(self.train.digests, self.test.digests)
        known, asked = (classes_of(part.labels) for part in (self.train, self.test))
        if unseen := len(asked - known):
            notes.append(f"{unseen} of the {len(asked)} classes of the test images have no training image")
        return notes


def classes_of(labels: torch.Tensor) -> set[int]:
    """The classes that some image has, of labels (n,) or (n, C)."""
    return set((labels.unique() if labels.ndim == 1 else labels.any(0).nonzero().flatten()).tolist())


def overlap_note(train: torch.Tensor | None, test: torch.Tensor | None) -> list[str]:
    """Says how many test images stand among the training images too, by their digests; empty where none do."""
    if train is None or test is None:
        return []
    shared = int(torch.isin(test, train).sum())
    return [f"{shared} of {len(test)} test images stand among the training images too"] if shared else []


def open_sources(
    dataset: str,
    train_split: str = "train",
    test_split: str | None = None,
    validation_split: str | None = None,
    train_share: float | None = None,
    *,
    share_rule: str = "sample",
    train_subset: Subset | None = None,
    test_subset: Subset | None = None,
    mask_column: str | None = None,
    mask_folder: str | None = None,
    **options: Any,
) -> Sources:
    """Opens the splits of a data set.

    Args:
        test_split: None takes the first there is of `test` and `validation`; with `train_share`, the one of training.
        validation_split: None takes the split `validation` where there is one (and it is not the one tested on).
        train_share: where a data set has one split only (train and test are named the same): the share of it, class by
            class, that is trained on; the rest is tested on.
        share_rule: `class` takes exactly that share of each class, as the release does.
        train_subset, test_subset: restrictions, such as lists of names; with both, train and test may be one split.
        mask_column, mask_folder: opens the masks of segmentation too, of a column or of files that are named as the
            images; nothing is streamed then, and nothing chosen on validation.
        **options: of `open_stream`.

    Raises:
        ValueError: a split is missing, or two of them are the same.
    """
    names = _tested(train_split, test_split, train_share)
    splits = (train_split, names[0])
    if train_share is not None:
        if train_split != names[0] or validation_split is not None or not 0 < train_share < 1:
            raise ValueError(
                "train_share is between 0 and 1 and shares out one split: name it as train and as test split"
            )
        source = open_stream(dataset, split=train_split, **options)
        return Sources(source, source, None, train_share, share_rule=share_rule)
    listed = bool(train_subset and train_subset.file_list and test_subset and test_subset.file_list)
    if (train_split in names and not listed) or validation_split in splits:
        raise ValueError("train, test and validation have to be different splits: one would leak into another")
    if mask_column is not None or mask_folder is not None:
        if validation_split is not None:
            raise ValueError("validation_split: segmentation chooses nothing, so it takes none")
        return _with_masks(dataset, train_split, names, mask_column, mask_folder, options | {"streaming": False})
    train = open_stream(dataset, split=train_split, subset=train_subset, **options)
    test = open_first(dataset, names, subset=test_subset, **options)
    if validation_split == test.split:
        raise ValueError(f"the split {validation_split} is tested on, so nothing can be chosen on it")
    if validation_split is None and "validation" in (train_split, test.split):
        return Sources(train, test)
    try:
        return Sources(train, test, open_stream(dataset, split=validation_split or "validation", **options))
    except NoSuchSplit:
        if validation_split is not None:
            raise
        return Sources(train, test)


def _tested(train_split: str, test_split: str | None, train_share: float | None) -> list[str]:
    """Names of the splits to be tested on; the first that there is counts."""
    if test_split is not None or train_share is not None:
        return [test_split or train_split]
    return list(TESTED[:1] if train_split in TESTED else TESTED)


def open_first(dataset: str, splits: Sequence[str], **options: Any) -> Source:
    """The first of some splits that there is.

    Raises:
        NoSuchSplit: there is none of them; the message is that of the first.
    """
    first: NoSuchSplit | None = None
    for split in splits:
        try:
            return open_stream(dataset, split=split, **options)
        except NoSuchSplit as error:
            first = first or error
    raise first or NoSuchSplit(f"split: {dataset}: none was named")


def _with_masks(
    dataset: str, train_split: str, tested: list[str], column: str | None, folder: str | None, options: Json
) -> Sources:
    images = [open_stream(dataset, split=train_split, **options), open_first(dataset, tested, **options)]
    splits = [train_split, images[1].split]
    if folder is not None:
        reading = {name: options[name] for name in ("max_bad_share", "max_pixels") if name in options}
        masks = [open_stream(folder, split=split, streaming=False, **reading) for split in splits]
        for pair in zip(images, masks, strict=True):
            check_names(*pair)
        return Sources(*images, masks=tuple(masks))
    columns = options | {"image_column": column, "label_column": None}
    try:
        train, test = (open_stream(dataset, split=split, **columns) for split in splits)
    except ValueError as error:
        raise ValueError(str(error).replace("image_column", "mask_column")) from error
    return Sources(*images, masks=(train, test))


def check_names(images: Source, masks: Source) -> None:
    """Whether the files of masks are named as those of the images, but for their suffix, in the same order.

    Raises:
        ValueError: with the first name that one of them lacks.
    """
    names = [
        [Path(str(source.example(number).path)).stem for number in range(source.num_examples)]
        for source in (images, masks)
    ]
    if names[0] != names[1]:
        differing = sorted(set(names[0]) ^ set(names[1])) or ["the order of folders"]
        raise ValueError(
            f"mask_folder: images and masks of the split {images.split} do not match: {len(names[0])} and "
            f"{len(names[1])} files, first differing: {differing[0]}"
        )


def run_subset(model: str, dataset: str | None, split: str) -> Subset:
    """The images that a run learned from.

    Args:
        model: the folder of the run, or of its model.

    Raises:
        ValueError: it is no run, or one that learned from other data.
    """
    recipes = [RunFolder(path).recipe for path in (Path(model), Path(model).parent)]
    found = next((path for path in recipes if path.is_file()), None)
    if found is None:
        raise ValueError(f"train_images: {model} is no run folder, so it is not known what it learned from")
    recipe = read_object(found)
    learned, of_split = str(recipe.get("dataset")), recipe.get("split")
    same = learned == dataset or Path(learned).resolve() == Path(dataset).resolve()
    if not same or of_split != split:
        raise ValueError(f"train_images: the run learned from {learned}, {of_split}, not from {dataset}, {split}")
    values = {spec.name: recipe.get(spec.name) for spec in fields(SubsetOptions)}
    return Subset(**values, seed=recipe.get("seed") or 0)


def load_task(
    backbone: Backbone,
    sources: Sources,
    options: FeatureOptions | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 256,
) -> Task:
    """Features of every split.

    Raises:
        ValueError: a split has no labels.
    """

    def read(source):
        features = labeled(cached_features(backbone, source, options, cache, batch_size), source)
        return renumbered(features, label_map(sources.train.label_names, source.label_names))

    if sources.train_share is not None:
        both = read(sources.train)
        if sources.share_rule == "class":
            train, test = share_of_each_class(both.labels, sources.train_share)
        else:
            test, train = hold_out(both.labels, portion=sources.train_share)
        return make_task(subset(both, train), subset(both, test), None, sources.train.label_names)
    held = None if sources.validation is None else read(sources.validation)
    return make_task(read(sources.train), read(sources.test), held, sources.train.label_names)


def make_task(train: Features, test: Features, validation: Features | None = None, label_names=None) -> Task:
    """A task from features in memory.

    Labels (n, C) of splits that saw different classes get the same columns.

    Raises:
        ValueError: the splits disagree on the kind of labels, a feature is not finite, or all training images are of
            one class.
    """
    splits = {"training": train, "test": test} | ({} if validation is None else {"validation": validation})
    parts = list(splits.values())
    if len({part.labels.ndim for part in parts}) > 1:
        raise ValueError("one split has one class an image, another has several")
    for name, part in splits.items():
        check_finite(part.features, part.ids, f"{name} image")
    named = len(label_names or [])
    if train.labels.ndim == 2:
        parts = same_columns(parts)
        width = max(named, parts[0].labels.shape[1])
        train, test, *held = (widened(part, width) for part in parts)
        names = label_names or (train.classes and list(map(str, train.classes)))
        return Task(train, test, held[0] if held else None, width, names)
    if len(train.labels.unique()) < 2:
        raise ValueError("all training images are of one class: there is nothing to tell apart")
    if not named:
        parts, label_names = numbered(parts)
        train, test, *held = parts
        validation = held[0] if held else None
    classes = max(named, *(int(part.labels.max()) + 1 for part in parts))
    return Task(train, test, validation, classes, label_names)


def numbered(parts: list[Features]) -> tuple[list[Features], list[str] | None]:
    """Labels that are sparse numbers (5, 1001, 20231107) numbered by what occurs in any split, and their names.

    Classes that are numbered without large gaps stay as they are: a split may lack one.
    """
    values = sparse_values(torch.cat([part.labels for part in parts]))
    if values is None:
        return parts, None
    parts = [part._replace(labels=torch.searchsorted(values, part.labels)) for part in parts]
    return parts, [str(value) for value in values.tolist()]


def labeled(features: Features, source: Source) -> Features:
    """Without the images that have no label.

    Raises:
        ValueError: none has one.
    """
    if features.labels.ndim == 2:
        return features
    known = (features.labels >= 0).nonzero().flatten()
    if len(known) == 0:
        raise ValueError(f"{source.name}, split {source.split}: no labels; name their column with --label_column")
    return features if len(known) == len(features.labels) else subset(features, known)


def label_map(names: list[str] | None, theirs: list[str] | None) -> dict[int, int] | None:
    """Number in `names` of each class of another split; None where both number alike.

    Folders and text labels are numbered split by split: a class that one of them lacks shifts all that follow.

    Raises:
        ValueError: the other split has classes that the training split does not know.
    """
    if not names or not theirs or names == theirs:
        return None
    if unknown := sorted(set(theirs) - set(names)):
        raise ValueError(
            f"classes {', '.join(unknown[:5])} are in a split that is tested, but not in the training split"
        )
    return {number: names.index(name) for number, name in enumerate(theirs)}


def renumbered(features: Features, mapping: dict[int, int] | None) -> Features:
    """With the numbers of the training split's classes."""
    if mapping is None:
        return features
    if features.labels.ndim == 2:
        raise ValueError("the splits have different classes")
    numbers = torch.tensor([mapping[number] for number in range(len(mapping))])
    return features._replace(labels=numbers[features.labels])


def share_of_each_class(labels: torch.Tensor, share: float, seed: int = 42) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the images to train on, the first `share` of each class after Python's shuffle, and of the others.

    Raises:
        ValueError: images have several labels, or a class has too few for the share.
    """
    if labels.ndim > 1:
        raise ValueError("share_rule class takes one class an image")
    shuffle, train = random.Random(seed).shuffle, []
    for number in sorted(classes_of(labels)):
        rows = (labels == number).nonzero().flatten().tolist()
        shuffle(rows)
        train += rows[: int(share * len(rows))]
        if int(share * len(rows)) == 0:
            raise ValueError(f"train_share: {share} of the {len(rows)} images of class {number} is none")
    others = torch.ones(len(labels), dtype=torch.bool)
    others[train] = False
    return torch.tensor(sorted(train)), others.nonzero().flatten()


class Choice(NamedTuple):
    """What candidates are trained on and compared on: rows of `train` and of `held`, None for all.

    Rows and not copies: the features of a large set are most of the memory.
    """

    train: Features
    fit: torch.Tensor | None
    held: Features
    rows: torch.Tensor | None

    def copies(self) -> tuple[Features, Features]:
        """Both parts by themselves, for solvers that take whole arrays."""
        fit = self.train if self.fit is None else subset(self.train, self.fit)
        return fit, self.held if self.rows is None else subset(self.held, self.rows)


def fit_and_choose(task: Task, seed: int = 0, selection: str = "validation") -> Choice:
    """What candidates are trained on and what they are compared on.

    Args:
        selection: `validation`: never the test images; `test`: those, as in papers that report the best of several.
    """
    if selection == "test":
        return Choice(task.train, None, task.test, None)
    if task.validation is not None:
        return Choice(task.train, None, task.validation, None)
    fit, held = hold_out(task.train.labels, seed)
    return Choice(task.train, fit, task.train, held)


def hold_out(
    labels: torch.Tensor, seed: int = 0, portion: float = VALIDATION_SHARE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the images to train on and of those to choose on, by class where each class has enough.

    Raises:
        ValueError: fewer than two images.
    """
    if len(labels) < 2:
        raise ValueError("one training image cannot be split: give a validation split")
    strata = None
    if labels.ndim == 1:
        counts = labels.bincount()
        held = max(1, round(portion * len(labels)))
        fits = counts[counts > 0].min() >= 2 and min(held, len(labels) - held) >= (counts > 0).sum()
        strata = labels.numpy() if fits else None
    fit, held_out = train_test_split(
        np.arange(len(labels)), test_size=portion, random_state=short_seed_of("hold_out", seed), stratify=strata
    )
    return torch.from_numpy(np.sort(fit)), torch.from_numpy(np.sort(held_out))
