# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What both kinds of source do: descriptions, fingerprints, reading in order and by a seed."""

import os
import shutil

import pytest

from visreg_training.data import Subset, open_stream


def test_description_is_what_a_run_records(five_shards):
    description = open_stream(five_shards).description()
    assert (
        description["num_examples"] == 120
        and description["image_column"] == "image"
        and description["num_classes"] == 2
    )
    again = open_stream(five_shards).description()
    assert again == description
    assert (
        open_stream(five_shards, subset=Subset(fraction=0.5)).description()["fingerprint"]
        != description["fingerprint"]
    )


@pytest.mark.parametrize("kind", ["folder", "parquet", "saved"])
def test_an_edited_file_changes_the_content_fingerprint_only(image_folder, five_shards, tmp_path, kind):
    """At the same size. A run resumes on a copy, whose files are newer; what is cached of the images is not reused."""
    if kind == "folder":
        path = image_folder()
    else:
        path = tmp_path / "copy"
        shutil.copytree(five_shards, path)
        if kind == "saved":
            open_stream(path).dataset.save_to_disk(path := tmp_path / "saved")
    before = open_stream(path)
    assert open_stream(path).content_fingerprint == before.content_fingerprint
    file = next(file for file in sorted(path.rglob("*")) if file.suffix in (".png", ".parquet", ".arrow"))
    os.utime(file, ns=(0, 1))
    after = open_stream(path)
    assert after.fingerprint == before.fingerprint
    assert after.content_fingerprint != before.content_fingerprint


@pytest.mark.parametrize("streaming", [False, True])
def test_a_seed_samples_all_classes_and_no_seed_keeps_the_order(streaming):
    source = open_stream("digits", streaming=streaming)
    plain = [name for _, _, name in source.examples()]
    shuffled = [name for _, _, name in source.examples(seed=3)]
    assert plain != shuffled and sorted(plain) == sorted(shuffled) and len(plain) == 1437
    assert shuffled == [name for _, _, name in source.examples(seed=3)]
    assert shuffled != [name for _, _, name in source.examples(seed=4)]
    assert len({label for _, label, _ in source.examples(limit=100, seed=3)}) == 10


def test_a_seeded_sample_of_a_stream_comes_from_many_shards(five_shards):
    source = open_stream(five_shards, streaming=True)
    names = [name for _, _, name in source.examples(limit=60, seed=1)]
    assert len({name.split("-")[0] for name in names}) == 5
    whole = [name for _, _, name in source.examples(seed=1)]
    assert whole[:60] == names and len(set(whole)) == len(whole) == 120
    assert [name for _, _, name in source.examples()] == sorted(whole, key=lambda n: [int(p) for p in n.split("-")])
