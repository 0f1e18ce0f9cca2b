# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Subsets: a share, images of each class, a long tail, a list of files."""

import numpy as np
import pytest

from visreg_training.data import Subset, open_stream
from visreg_training.data.subsets import file_key


def labels_of(source) -> np.ndarray:
    return np.array([source.example(index).label for index in range(source.num_examples)])


def test_a_fraction_is_seeded():
    rows = [open_stream("digits", subset=Subset(fraction=0.1, seed=seed)).rows.tolist() for seed in (0, 0, 1)]
    assert len(rows[0]) == 144 and rows[0] == rows[1] != rows[2]


def test_a_fraction_of_a_stream_expects_its_share(five_shards):
    source = open_stream(five_shards, streaming=True, subset=Subset(fraction=0.5))
    assert source.num_examples == 60 and 45 < len(list(source.examples())) < 75


def test_images_per_class():
    source = open_stream("digits", subset=Subset(images_per_class=5))
    assert np.bincount(labels_of(source)).tolist() == [5] * 10


def test_an_exponential_long_tail():
    whole = np.bincount(labels_of(open_stream("digits")))
    counts = np.bincount(labels_of(open_stream("digits", subset=Subset(imbalance_factor=20))))
    assert counts.tolist() == [min(whole[c], int(whole.max() * 20 ** (-c / 9))) for c in range(10)]


@pytest.mark.parametrize("streaming", [None, True])
def test_a_file_list(five_shards, tmp_path, streaming):
    names = tmp_path / "list.txt"
    names.write_text("train/cat/3.JPEG 0\ntrain/dog/77.jpg 1\n119.jpg\nmissing.jpg 1\n")
    source = open_stream(five_shards, streaming=streaming, subset=Subset(file_list=str(names)))
    paths = [raw.path for raw in source.raw_examples()]
    assert paths == ["3.jpg", "77.jpg", "119.jpg"]


def test_imagenets_names_on_the_hub_match_its_lists():
    assert (
        file_key("n01440764_190_n01440764.JPEG") == file_key("train/n01440764/n01440764_190.JPEG") == "n01440764_190"
    )


@pytest.mark.parametrize(
    "options,message",
    [
        ({"fraction": 0.0}, "fraction"),
        ({"images_per_class": 0}, "images_per_class"),
        ({"imbalance_factor": 0.5}, "imbalance_factor"),
        ({"imbalance_factor": 2, "images_per_class": 2}, "not both"),
        ({"file_list": "nowhere.txt"}, "no file list"),
    ],
)
def test_subsets_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Subset(**options)


def test_a_subset_that_leaves_nothing(five_shards, tmp_path):
    (tmp_path / "list.txt").write_text("other.jpg\n")
    with pytest.raises(ValueError, match="nothing is left of 120 images"):
        open_stream(five_shards, subset=Subset(file_list=str(tmp_path / "list.txt")))
