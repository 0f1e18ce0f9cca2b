# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Finds the image and the label column of a data set by the type of its features."""

from dataclasses import dataclass

from datasets import ClassLabel, Features, Image, List, Value


# In order of preference, where several columns would do.
_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo")
LABEL_NAMES = ("label", "labels", "fine_label", "cls", "class", "target", "category")


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Attributes:
        image: name of the image column.
        label: name of the label column, None without labels.
        label_names: class names, None where the data set has none (or its labels are text: see `text_labels`).
        text_labels: whether labels are text that still has to be numbered.
    """

    image: str
    label: str | None
    label_names: list[str] | None
    text_labels: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the columns that are read."""
        return [name for name in (self.image, self.label) if name]


def find_columns(features: Features, image_column: str | None, label_column: str | None) -> Columns:
    """Picks the columns, by name where one is given.

    Raises:
        ValueError: one line that lists the columns there are.
    """
    have = ", ".join(f"{name} ({_type_name(feature)})" for name, feature in features.items())
    for kind, name in (("image_column", image_column), ("label_column", label_column)):
        if name is not None and name not in features:
            raise ValueError(f"{kind}: there is no column {name!r}; the columns are {have}.")
    image = image_column or _find_image(features)
    if image is None:
        raise ValueError(f"No image column found; the columns are {have}. Name one with image_column.")
    if not _may_be_image(features[image]):
        raise ValueError(
            f"image_column: {image!r} holds {_type_name(features[image])}, not images; the columns are {have}."
        )
    label = label_column or _find_label(features, image)
    if label is None:
        return Columns(image, None, None)
    inner = features[label].feature if isinstance(features[label], List) else features[label]
    if label_column is not None and not _may_be_label(inner):
        raise ValueError(f"label_column: {label!r} holds {_type_name(inner)}, not classes; the columns are {have}.")
    names = list(inner.names) if isinstance(inner, ClassLabel) else None
    return Columns(image, label, names, isinstance(inner, Value) and inner.dtype in ("string", "large_string"))


def _type_name(feature) -> str:
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__


def _may_be_image(feature) -> bool:
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in ("binary", "large_binary"))


def _may_be_label(feature) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    return isinstance(feature, Value) and (feature.dtype.startswith(("int", "uint")) or "string" in feature.dtype)


def _preferred(candidates: list[str], names: tuple[str, ...]) -> str | None:
    for name in names:
        if name in candidates:
            return name
    return candidates[0] if candidates else None


def _find_image(features: Features) -> str | None:
    typed = [name for name, feature in features.items() if isinstance(feature, Image)]
    if typed:
        return _preferred(typed, _IMAGE_NAMES)
    # Parquet that was not written by `datasets` has no image type: a struct of bytes and path, or bytes of a known
    # name.
    structs = [name for name, feature in features.items() if isinstance(feature, dict) and _may_be_image(feature)]
    named = [name for name in features if name in _IMAGE_NAMES and _may_be_image(features[name])]
    return _preferred(structs or named, _IMAGE_NAMES)


def _find_label(features: Features, image: str) -> str | None:
    classes = [
        name
        for name, feature in features.items()
        if isinstance(feature, ClassLabel) or (isinstance(feature, List) and isinstance(feature.feature, ClassLabel))
    ]
    if classes:
        return _preferred(classes, LABEL_NAMES)
    named = [name for name in LABEL_NAMES if name in features and name != image and _may_be_label(features[name])]
    return named[0] if named else None
