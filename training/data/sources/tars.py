# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""WebDataset tars as people make them: any suffix of an image in any case, names with dots, samples without an image.

The builder of `datasets` fixes every sample's fields by the first one, and ends a name at its first dot.
"""

import os
from collections.abc import Iterator
from typing import Any

from datasets import DatasetBuilder, Features, Image, SplitGenerator, Value
from datasets.builder import Key
from datasets.packaged_modules.webdataset.webdataset import WebDataset

from ..decode import has_image_suffix
from ..formats import is_image_start, other_suffixes, shown
from .opened import SplitRequest


_FORMAT = "visreg-1"  # of what is prepared; another one is prepared anew
_NUMBERS = ("cls", "cls2", "label", "index", "inx", "id")
_TEXTS = ("txt", "text", "transcript", "caption", "class", "category")
_LOOKED_AT = 32  # files of a tar, and as many more as it takes to find an image
_FIRST_BYTES = 32


class Tars(WebDataset):
    """The builder; `image_fields` and `dotted` follow from the first files of the first tar.

    Attributes:
        image_fields: names of the image columns: the first sample's, for any field of an image; of several where a
            sample holds several.
        dotted: whether a dot belongs to a name: only what follows the last one is the field.
    """

    def _split_generators(self, dl_manager) -> list[SplitGenerator]:
        splits, files = [], dl_manager.download(self.config.data_files)
        for split, paths in files.items():
            tars = [dl_manager.iter_archive(path) for path in paths]
            splits.append(SplitGenerator(name=split, gen_kwargs={"tar_paths": paths, "tar_iterators": tars}))
        first = next(iter(splits)).gen_kwargs
        self._find_fields(first["tar_paths"], first["tar_iterators"])
        return splits

    def _find_fields(self, paths: list[str], tars: list) -> None:
        """Sets the fields and their types.

        Raises:
            ValueError: there is no image.
        """
        for tar in tars:
            members = _first_members(tar)
            if any(is_image for _, _, is_image in members):
                break
        else:
            raise ValueError(f"there is no image in {paths[0]}, nor in any other of {len(paths)} tar files")
        self.dotted = _dots_belong_to_names([name for name, _, _ in members])
        samples: dict[str, list[str]] = {}
        fields: dict[str, list[bytes]] = {}
        for name, data, is_image in members:
            key, field = split_name(name, self.dotted)
            if is_image:
                samples.setdefault(key, []).append(field)
            elif field.lower() in _NUMBERS + _TEXTS:
                fields.setdefault(field.lower(), []).append(data)
        several = [names for names in samples.values() if len(names) > 1]
        self.image_fields = sorted(set(several[0])) if several else [next(iter(samples.values()))[0] or "image"]
        typed = {
            field: Value("int64" if _are_numbers(field, values) else "string") for field, values in fields.items()
        }
        images = {field: Image() for field in self.image_fields}
        self.info.features = Features({**images, **typed, "__key__": Value("string"), "__url__": Value("string")})

    def _get_pipeline_from_tar(self, tar_path: str, tar_iterator: Any) -> Iterator[dict]:
        """Samples of a tar: consecutive files of one name."""
        sample: dict[str, Any] = {}
        for name, file in tar_iterator:
            key, field = split_name(name, self.dotted)
            if sample and sample["__key__"] != key:
                yield self._finished(sample)
                sample = {}
            sample = sample or {"__key__": key, "__url__": tar_path, "images": {}, "others": []}
            self._add(sample, field, file.read())
        if sample:
            yield self._finished(sample)

    def _add(self, sample: dict, field: str, data: bytes) -> None:
        lower = field.lower()
        if is_image_field(field, data[:_FIRST_BYTES]):
            sample["images"][field] = data
            return
        sample["others"].append(field)
        if (kind := self.info.features.get(lower)) is None or isinstance(kind, Image):
            return
        text = data.decode("utf-8", "replace").strip()
        try:
            sample[lower] = int(text) if kind.dtype == "int64" else text
        except ValueError as error:
            where = f"{sample['__url__']}: sample {shown(sample['__key__'])}"
            raise ValueError(f"{where}: {lower} holds {text[:40]!r}, and a number in the first samples") from error

    def _finished(self, sample: dict) -> dict:
        """With its images under the names of the columns.

        A sample of which no image can be taken gets an empty one, which is left out and counted as what cannot be
        read, under a name that says why.
        """
        images, others, key = sample.pop("images"), sample.pop("others"), shown(sample["__key__"])
        sample["__key__"] = key
        single = len(self.image_fields) == 1
        for column in self.image_fields:
            fields = [field for field in images if single or field == column]
            if len(fields) == 1:
                path = f"{key}.{shown(fields[0])}" if fields[0] else key
                sample[column] = {"path": path, "bytes": images[fields[0]]}
            else:
                what = f"several images, {', '.join(images)}" if images else f"no image, only {', '.join(others)}"
                sample[column] = {"path": f"{key} ({shown(what)})", "bytes": b""}
        return sample

    def _generate_examples(self, tar_paths: list[str], tar_iterators: list) -> Iterator[tuple]:
        names = list(self.info.features)
        for number, (path, tar) in enumerate(zip(tar_paths, tar_iterators, strict=True)):
            for index, sample in enumerate(self._get_pipeline_from_tar(path, tar)):
                yield Key(number, index), {name: sample.get(name) for name in names}


def as_tars(builder: DatasetBuilder) -> DatasetBuilder:
    """The same files by `Tars`, if they are WebDataset tars; any other builder as it is."""
    if not isinstance(builder, WebDataset) or isinstance(builder, Tars):
        return builder
    info = builder.info.copy()
    info.features = None
    return Tars(
        dataset_name=builder.dataset_name, config_name=builder.config.name, hash=_FORMAT, base_path=builder.base_path,
        info=info, token=builder.token, repo_id=builder.repo_id, data_files=builder.config.data_files,
    )  # fmt: skip


def refuse_several(builder: DatasetBuilder, name: str, request: SplitRequest) -> None:
    """Raises ValueError where samples of tars hold several images and none is named."""
    if not isinstance(builder, Tars) or request.image_column is not None:
        return
    images = [field for field, feature in (builder.info.features or {}).items() if isinstance(feature, Image)]
    if len(images) > 1:
        raise ValueError(
            f"image_column: a sample of {name} holds several images: {', '.join(images)}. Name one with image_column."
        )


def split_name(name: str, dotted: bool) -> tuple[str, str]:
    """(key, field) of a file in a tar; the field is empty without a suffix."""
    folder, base = os.path.split(name)
    key, _, field = base.rpartition(".") if dotted else base.partition(".")
    return (os.path.join(folder, key), field) if key else (name, "")


def is_image_field(field: str, first: bytes) -> bool:
    """Whether a file of a sample is an image, by its suffix, or by its first bytes where that says nothing."""
    suffix = f".{field.rpartition('.')[2].lower()}"
    if has_image_suffix(f"x{suffix}"):
        return True
    return suffix not in other_suffixes() and is_image_start(first)


def _first_members(tar: Any) -> list[tuple[str, bytes, bool]]:
    """(name, content if it may be a label, whether it is an image) of the first files of a tar."""
    members: list[tuple[str, bytes, bool]] = []
    for name, file in tar:
        first = file.read(_FIRST_BYTES)
        is_image = is_image_field(os.path.basename(name).rpartition(".")[2] if "." in name else "", first)
        members.append((name, b"" if is_image else first + file.read(1000), is_image))
        if len(members) >= _LOOKED_AT and any(image for _, _, image in members):
            break
    return members


def _dots_belong_to_names(names: list[str]) -> bool:
    """Whether what follows a name's first dot differs from file to file, so that it is no field (`image.png`)."""
    keys: dict[str, set[str]] = {}
    for name in names:
        key, field = split_name(name, dotted=False)
        if "." in field:
            keys.setdefault(field, set()).add(key)
    return bool(keys) and all(len(found) == 1 for found in keys.values())


def _are_numbers(field: str, values: list[bytes]) -> bool:
    return field in _NUMBERS and all(value.strip().lstrip(b"-").isdigit() for value in values)
