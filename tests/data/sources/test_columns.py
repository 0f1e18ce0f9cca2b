# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The image and the label column: by type, by name, numbered where they are text."""

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature

from visreg_training.data import open_stream


def write(tmp_path, columns: dict, features: Features | None):
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    return tmp_path


def image_columns(encode_image, photo, count: int = 4) -> list[dict]:
    return [{"bytes": encode_image(photo[:12, n : n + 12], "png"), "path": f"{n}.png"} for n in range(count)]


@pytest.mark.parametrize("image,label", [("img", "fine_label"), ("picture", "cls"), ("xyz", "kind")])
def test_columns_are_found_by_type(tmp_path, photo, encode_image, image, label):
    features = Features(
        {
            "id": Value("int64"),
            image: ImageFeature(decode=False),
            label: ClassLabel(names=["a", "b"]),
            "coarse_label": Value("int64"),
        }
    )
    columns = {"id": range(4), image: image_columns(encode_image, photo), label: [0, 1, 0, 1], "coarse_label": [7] * 4}
    source = open_stream(write(tmp_path, columns, features))
    assert (source.image_column, source.label_column, source.label_names) == (image, label, ["a", "b"])


@pytest.mark.parametrize("streaming", [None, True])
def test_parquet_that_datasets_did_not_write(tmp_path, photo, encode_image, streaming):
    """Bytes in a binary column of a known name, or a struct of bytes and path."""
    images = image_columns(encode_image, photo)
    parquet.write_table(
        pa.table({"jpg": [image["bytes"] for image in images], "label": [3, 1, 2, 0]}), tmp_path / "a.parquet"
    )
    assert [label for _, label, _ in open_stream(tmp_path / "a.parquet", streaming=streaming).examples()] == [
        3,
        1,
        2,
        0,
    ]
    parquet.write_table(pa.table({"thing": pa.array(images)}), tmp_path / "b.parquet")
    source = open_stream(tmp_path / "b.parquet", streaming=streaming)
    assert source.image_column == "thing" and len(list(source.examples())) == 4


def test_text_labels_are_numbered(tmp_path, photo, encode_image):
    columns = {"image": image_columns(encode_image, photo), "label": ["dog", "ant", "dog", "cat"]}
    folder = write(tmp_path, columns, Features({"image": ImageFeature(decode=False), "label": Value("string")}))
    source = open_stream(folder)
    assert source.label_names == ["ant", "cat", "dog"]
    assert [label for _, label, _ in source.examples()] == [2, 0, 2, 1]
    assert open_stream(folder, streaming=True).label_column is None
    with pytest.raises(ValueError, match="set streaming to false"):
        open_stream(folder, streaming=True, label_column="label")


def test_several_labels_an_image(tmp_path, photo, encode_image):
    columns = {"image": image_columns(encode_image, photo), "labels": [[0], [0, 1], [], [1]]}
    features = Features({"image": ImageFeature(decode=False), "labels": List(ClassLabel(names=["a", "b"]))})
    source = open_stream(write(tmp_path, columns, features))
    assert [label for _, label, _ in source.examples()] == [[0], [0, 1], [], [1]]


def test_no_image_column(tmp_path):
    parquet.write_table(pa.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"No image column found; the columns are text \(string\), n \(int64\)"):
        open_stream(tmp_path)
