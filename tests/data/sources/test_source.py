# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What both kinds of source do: descriptions, fingerprints, reading in order and by a seed."""

import os
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Image as ImageFeature
from datasets import load_dataset
from pyarrow import parquet

from visreg_training.data import BadDataError, Subset, open_stream


NAMED = pa.struct({"bytes": pa.binary(), "path": pa.string()})


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


def table_naming(folder, images: list[str | None], **columns) -> Path:
    """A parquet file in `folder` whose images are no bytes but paths, as pandas writes them."""
    table = pa.table({"image": pa.array([{"bytes": None, "path": path} for path in images], NAMED), **columns})
    parquet.write_table(table, folder / "train.parquet", row_group_size=40)
    return folder / "train.parquet"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_local_table_names_files_below_its_folder_only(tmp_path, photo, encode_image, streaming):
    """Relative to the folder or absolute, wherever the command runs; a way out ends it, also one late in a stream."""
    folder, private = tmp_path / "data", tmp_path / "private.png"
    (folder / "images").mkdir(parents=True)
    for number in range(3):
        (folder / "images" / f"{number}.png").write_bytes(encode_image(photo[: 10 + number, :20], "png"))
    private.write_bytes(encode_image(photo, "png"))
    (folder / "images" / "link.png").symlink_to(private)
    os.mkfifo(folder / "pipe.png")
    inside = ["images/0.png", str(folder / "images" / "1.png"), "images/../images/2.png"]
    file, sizes = table_naming(folder, inside), [(20, 10), (20, 11), (20, 12)]
    for named in (file, folder / "*.parquet"):
        source = open_stream(named, streaming=streaming)
        assert [image.size for image, _label, _name in source.examples(max_bad_share=0)] == sizes
        names = [source.file_name(raw) for raw in source.raw_examples()]
        assert list(map(os.path.normpath, names)) == [f"images/{number}.png" for number in range(3)]
    for way_out in (str(private), "../private.png", "images/../../private.png", "/dev/zero"):
        words = rf"names the image {re.escape(way_out)}, which is not below that folder: "
        with pytest.raises(ValueError, match=words):
            open_stream(table_naming(folder, [way_out, *inside]), streaming=streaming)
    late = open_stream(table_naming(folder, [*inside * 20, "images/link.png"]), streaming=streaming)
    with pytest.raises(BadDataError, match=r"names the image images/link\.png, which is not below") as caught:
        list(late.examples())
    assert "\n" not in str(caught.value)
    with pytest.raises(BadDataError, match=r"pipe\.png: it is no regular file"):
        list(open_stream(table_naming(folder, [*inside, "pipe.png"]), streaming=streaming).examples(max_bad_share=0))


def test_the_way_that_the_refusal_of_a_path_names(tmp_path, photo, encode_image):
    """`datasets` takes the files into the table; what it saved names none."""
    (tmp_path / "photo.png").write_bytes(encode_image(photo[:10, :20], "png"))
    (tmp_path / "data").mkdir()
    file = table_naming(tmp_path / "data", [str(tmp_path / "photo.png")] * 2)
    with pytest.raises(ValueError, match=re.escape('cast_column("image", Image()).save_to_disk(FOLDER)')):
        open_stream(tmp_path / "data")
    loaded = load_dataset("parquet", data_files=str(file), cache_dir=str(tmp_path / "cache"))
    loaded.cast_column("image", ImageFeature()).save_to_disk(tmp_path / "saved")
    (tmp_path / "photo.png").unlink()
    assert [image.size for image, _label, _name in open_stream(tmp_path / "saved").examples()] == [(20, 10)] * 2
