# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""open_stream: every kind of local data, and mistakes in one line."""

import contextlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError

from visreg_training.data import NoSuchSplit, Subset, open_stream


def all_of(source) -> list:
    return list(source.examples())


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_embedded_digits():
    train, test = open_stream("digits"), open_stream("digits", split="test")
    assert (train.num_examples, test.num_examples) == (1437, 360)
    assert train.label_names == [str(digit) for digit in range(10)] and train.is_map_style
    image, label, _ = next(train.examples())
    assert image.size == (16, 16) and image.mode == "RGB" and 0 <= label < 10
    counts = np.bincount([test.example(index).label for index in range(360)])
    assert counts.min() >= 34 and counts.max() <= 38
    assert not {train.example(index).path for index in range(1437)} & {
        test.example(index).path for index in range(360)
    }
    assert len(all_of(open_stream("digits", split="test", streaming=True))) == 360


def test_a_folder_with_class_folders(image_folder):
    root = image_folder()
    source = open_stream(root)
    assert source.num_examples == 10 and source.label_names == ["ant", "bee", "cat"]
    assert [label for _, label, _ in all_of(source)] == [0] * 2 + [1] * 3 + [2] * 5
    assert len(all_of(open_stream(root, streaming=True))) == 10


def test_a_folder_with_splits(image_folder):
    root = image_folder("train", "val")
    assert open_stream(root).num_examples == 10
    assert open_stream(root, split="validation").label_names == ["ant", "bee", "cat"]
    with pytest.raises(
        NoSuchSplit, match=r"no folder for the split 'test'; the folders for splits are val, train"
    ) as caught:
        open_stream(root, split="test")
    one_line(caught)


def test_a_folder_without_classes(tmp_path, photo, encode_image):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encode_image(photo))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    source = open_stream(tmp_path)
    assert source.num_examples == 3 and source.label_column is None
    assert [label for _, label, _ in all_of(source)] == [None] * 3


@pytest.mark.parametrize("streaming", [None, True])
def test_parquet_folder_file_and_glob(five_shards, streaming):
    folder = all_of(open_stream(five_shards, streaming=streaming))
    assert len(folder) == 120
    some = open_stream(f"{five_shards}/train-0000[12]*.parquet", streaming=streaming)
    assert len(all_of(some)) == 47 == some.num_examples
    assert len(all_of(open_stream(sorted(five_shards.iterdir())[0], streaming=streaming))) == 11
    assert some.num_shards == (2 if streaming else 1) and some.label_names == ["cat", "dog"]


@pytest.mark.parametrize("streaming", [None, True])
def test_what_save_to_disk_wrote(five_shards, tmp_path, streaming):
    data = Dataset.from_parquet([str(path) for path in sorted(five_shards.iterdir())])
    data.save_to_disk(tmp_path / "one")
    DatasetDict({"train": data, "test": data.select(range(5))}).save_to_disk(tmp_path / "both")
    one = open_stream(tmp_path / "one", streaming=streaming)
    assert len(all_of(one)) == 120 == one.num_examples
    assert len(all_of(open_stream(tmp_path / "both", split="test", streaming=streaming))) == 5
    with pytest.raises(NoSuchSplit, match="no split 'dev'; the splits are train, test") as caught:
        open_stream(tmp_path / "both", split="dev")
    one_line(caught)


@pytest.mark.parametrize("streaming", [None, True])
def test_arrow_files(five_shards, tmp_path, streaming):
    Dataset.from_parquet(str(sorted(five_shards.iterdir())[0])).save_to_disk(tmp_path / "saved")
    assert len(all_of(open_stream(f"{tmp_path}/saved/*.arrow", streaming=streaming))) == 11


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("streaming", [None, True])
@pytest.mark.parametrize("suffix", ["pth", "npy", "pkl", "pyd", "pickle"])
def test_members_of_a_tar_run_no_code(tmp_path, photo, encode_image, suffix, streaming):
    """Beside an image of the same sample; the tar is refused, or the member is left alone."""
    if suffix == "pth":
        content = io.BytesIO()
        torch.save(Evil(tmp_path / "ran"), content)
    elif suffix == "npy":
        content = io.BytesIO()
        np.save(content, np.array([Evil(tmp_path / "ran")], dtype=object), allow_pickle=True)
    else:
        content = io.BytesIO(pickle.dumps(Evil(tmp_path / "ran")))
    with tarfile.open(tmp_path / "000.tar", "w") as tar:
        for name, data in (("1.jpg", encode_image(photo[:20, :20])), (f"1.{suffix}", content.getvalue())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with contextlib.suppress(ValueError, OSError, pickle.UnpicklingError, DatasetGenerationError):
        all_of(open_stream(tmp_path, streaming=streaming))
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "ran"))).close()
    assert (tmp_path / "ran").exists()  # it would have


@pytest.mark.parametrize("streaming", [None, True])
def test_webdataset_tars(tmp_path, photo, encode_image, streaming):
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:03d}.tar", "w") as tar:
            for number in range(4):
                for suffix, content in (("jpg", encode_image(photo[:20, :20])), ("cls", str(number).encode())):
                    info = tarfile.TarInfo(f"{shard}_{number}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    for path in (tmp_path, tmp_path / "*.tar"):
        source = open_stream(path, streaming=streaming)
        examples = all_of(source)
        assert [label for _, label, _ in examples] == [0, 1, 2, 3] * 2
        assert source.image_column == "jpg" and examples[0][0].size == (20, 20)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"image_column": "photo"}, r"no column 'photo'; the columns are image \(Image\), label \(ClassLabel\)"),
        ({"label_column": "kind"}, r"no column 'kind'; the columns are image"),
        ({"image_column": "label"}, "'label' holds ClassLabel, not images"),
        ({"label_column": "image"}, "'image' holds Image, not classes"),
        ({"split": "dev"}, "no split 'dev'; the splits are train"),
        ({"revision": "main"}, "revision: local data has none"),
        ({"streaming": True, "subset": Subset(images_per_class=3)}, "set streaming to false"),
    ],
)
def test_mistakes_are_one_line(five_shards, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_stream(five_shards, **options)
    one_line(caught)


def test_missing_and_empty_places(tmp_path):
    for path, message in (
        (tmp_path / "nowhere", "no folder or file"),
        (f"{tmp_path}/*.parquet", "no file matches"),
        (tmp_path, "holds no images and no parquet"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            open_stream(path)
        one_line(caught)
    (tmp_path / "notes.csv").write_text("a,b")
    with pytest.raises(ValueError, match=r"is none of \.parquet, \.arrow, \.tar"):
        open_stream(tmp_path / "notes.csv")
    with pytest.raises(NoSuchSplit, match="splits train and test, not 'dev'"):
        open_stream("digits", split="dev")
