# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images and files that cannot be read: the loader counts, lists and replaces them, and stops at too many."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from helpers import forked
from visreg_training.data import BadDataError, MultiCrop, PretrainingLoader, open_stream
from visreg_training.data.skips import SkipLog, skip_record


@pytest.fixture
def folder(tmp_path, photo, encode_image):
    """200 good images, two that cannot be read."""
    for number in range(200):
        (tmp_path / f"{number:03d}.jpg").write_bytes(encode_image(photo[:40, number : number + 40]))
    (tmp_path / "200.jpg").write_bytes(encode_image(photo)[:2000])
    (tmp_path / "201.png").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("streaming", [None, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_counted_and_listed(folder, tmp_path, streaming, workers):
    source = open_stream(folder, streaming=streaming)
    log = tmp_path / "skipped.jsonl"
    loader = PretrainingLoader(
        source, MultiCrop(1, 0, 8), batch_size=20, num_workers=workers, max_bad_share=0.02, skipped_path=log
    )
    for _ in range(25):  # more than two epochs
        batch = next(loader)
        assert len(batch.ids) == 20 and batch.views[0].shape == (1, 20, 3, 8, 8)
    assert set(loader.skipped) == {"truncated", "empty"} and loader.skipped["empty"] >= 2
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((record["kind"], record["path"].rsplit("/", 1)[1]) for record in records) == [
        ("empty", "201.png"),
        ("truncated", "200.jpg"),
    ]
    assert loader.position()["skipped"]["counts"] == dict(loader.skipped)
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_stops_when_too_much_is_bad(folder, workers):
    for number in range(0, 200, 10):
        (folder / f"{number:03d}.jpg").write_bytes(b"nothing")
    loader = PretrainingLoader(open_stream(folder), MultiCrop(1, 0, 8), batch_size=20, num_workers=workers)
    with pytest.raises(
        BadDataError, match=r"\d+ of \d+ images cannot be read .*not_image.*share 0.01 \(--max_bad_share allows more\)"
    ) as caught:
        for _ in range(30):
            next(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [None, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_of_nothing_but_bad_images_ends(tmp_path, streaming, workers):
    for number in range(150):
        (tmp_path / f"{number}.jpg").write_bytes(b"nothing")
    loader = PretrainingLoader(
        open_stream(tmp_path, streaming=streaming), MultiCrop(1, 0, 8), batch_size=4, num_workers=workers
    )
    with pytest.raises(BadDataError, match="cannot be read") as caught:
        next(loader)
    assert "\n" not in str(caught.value)


def test_plain_order_leaves_bad_images_out_and_stops_when_too_many(folder):
    names = [identity for _, _, identity in open_stream(folder).examples(max_bad_share=0.02)]
    assert names == [str(number) for number in range(200)]
    with pytest.raises(BadDataError, match="2 of 202 images"):
        list(open_stream(folder).examples(max_bad_share=0))


def bad(number):
    return {"kind": "truncated", "id": str(number), "path": f"{number}.jpg", "detail": "cut off"}


@pytest.mark.parametrize(
    "share, images, allowed",
    [(0.01, 40, 5), (0.01, 12, 3), (0.01, 3, 0), (0.01, 900, 9), (0.1, 40, 5), (0.2, 40, 8), (0, 40, 0)],
)
def test_a_few_bad_photos_stop_no_run(share, images, allowed):
    log = SkipLog(share, enough=images, total=images, flag="--max_bad_share")
    log.add(images - allowed, [])
    log.add(allowed, [bad(number) for number in range(allowed)])
    with pytest.raises(BadDataError, match=rf"^{allowed + 1} of {images} images .*\(--max_bad_share allows more\)"):
        log.add(1, [bad(allowed)])


@pytest.mark.parametrize("bad", [range(8), range(52, 60)])
def test_of_images_that_are_read_once_the_share_does_not_depend_on_their_order(bad):
    """8 of 60 are too many, first or last; 5 are few; more than the share of all there are end it at once."""

    def read(bad, total=60):
        log = SkipLog(total=total, at_end=True)
        for number in range(60):
            log.add(1, [skip_record("corrupt", str(number), f"{number}.jpg", "cut")] if number in bad else [])
        log.finish()
        return log

    with pytest.raises(BadDataError, match=r"of 60 images cannot be read .* \d+\.jpg"):
        read(bad)
    with pytest.raises(BadDataError, match="8 of 60"):
        read(bad, total=None)
    assert read(list(bad)[:5]).counts["corrupt"] == 5


def test_the_error_names_the_first_of_the_files():
    log = SkipLog(0.1, total=40, at_end=True)
    log.add(27, [])
    log.add(3, [bad(number) for number in range(3)])
    log.load(json.loads(json.dumps(log.state())))
    with pytest.raises(BadDataError) as caught:
        log.add(0, [bad(number) for number in range(3, 13)])
    assert str(caught.value).endswith(": " + ", ".join(f"{number}.jpg" for number in range(10)) + " and 3 more.")
    few = SkipLog(0, total=4, at_end=True)
    with pytest.raises(BadDataError, match=r"1 of 4 images .*: 7\.jpg\.$"):
        few.add(1, [bad(7)])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_largest_number_of_pixels_reaches_whoever_decodes(tmp_path, photo, encode_image, streaming, workers):
    """Of 8 PNG files 3 have 40 x 60 pixels; a worker that is spawned or forked knows what was asked for."""
    for number in range(8):
        width = 60 if number < 3 else 40
        (tmp_path / f"{number}.png").write_bytes(encode_image(photo[:40, :width], "png"))
    for max_pixels, left_out in ((40 * 60, 0), (40 * 60 - 1, 3), (None, 0)):
        source = open_stream(tmp_path, streaming=streaming, max_pixels=max_pixels)
        assert len(list(source.examples(max_bad_share=1))) == 8 - left_out
        loader = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=5, num_workers=workers, max_bad_share=1)
        for _ in range(2):
            next(loader)
        assert bool(loader.skipped["too_large"]) == bool(left_out)
        loader.close()
    with pytest.raises(BadDataError, match=r"60 x 40 pixels, allowed are 2399 \(--max_pixels allows more\)"):
        list(open_stream(tmp_path, streaming=streaming, max_pixels=2399).examples(max_bad_share=0))
    with pytest.raises(ValueError, match="max_pixels must be above 0"):
        open_stream(tmp_path, max_pixels=0)


def test_an_image_that_is_skipped_in_every_epoch_counts_once():
    """One of 40, read 50 times: it was "50 of 2000", and "30 of 600" with other numbers, of 40 files."""
    log = SkipLog(0.01, enough=40, total=40)
    for _epoch in range(50):
        log.add(40, [bad(7)])
    assert log.counts == {"truncated": 50}
    again = SkipLog(0.01, enough=40, total=40)
    again.load(json.loads(json.dumps(log.state())))
    again.add(40, [bad(7), bad(8), bad(9), bad(10), bad(11)])
    with pytest.raises(BadDataError, match=r"^6 of 40 images"):
        again.add(40, [bad(12)])


def test_a_truncated_parquet_file_stops_before_start(five_shards, tmp_path):
    for path in five_shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = sorted(tmp_path.iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:3000])
    with pytest.raises(
        ValueError, match=rf"1 of 5 parquet files cannot be read .*{broken.name}.*max_bad_share"
    ) as caught:
        open_stream(tmp_path)
    assert "\n" not in str(caught.value)
    for streaming in (None, True):
        source = open_stream(tmp_path, streaming=streaming, max_bad_share=0.5)
        assert len(list(source.raw_examples())) == 103
        assert source.description()["unreadable_files"] == [str(broken)]
        loader = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=8, skipped_path=tmp_path / "skipped.jsonl")
        next(loader)
        assert loader.skipped["unreadable_file"] == 1


def test_flipped_bytes_in_a_stream_lose_the_row_group_only(five_shards, tmp_path):
    """The footer is whole, so the file opens; pages in the middle are not."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in five_shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    broken = sorted(folder.iterdir())[3]
    content = bytearray(broken.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page header
    broken.write_bytes(content)
    source = open_stream(folder, streaming=True)
    loader = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=8, max_bad_share=0.3)
    names = {name for _ in range(28) for name in next(loader).ids}
    assert len(names) == 112 and not any(name.startswith("3-0-") for name in names)
    assert loader.skipped["unreadable_file"] >= 1
    strict = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=8)
    with pytest.raises(BadDataError, match=r"1 row group\(s\) of the 5 shards, 4.0% of the data, cannot be read"):
        for _ in range(28):
            next(strict)


def test_one_bad_row_group_of_many_does_not_stop_a_run(tmp_path, write_image_dataset):
    """One shard of 125 row groups: 0.8 % is lost, less than the allowed 1 %; a second lost one is too much, also where
    a resume lies between them. What was listed before a resume is not listed again.
    """
    folder = write_image_dataset(tmp_path / "data", [1000], side=(8, 8))
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page header
    path.write_bytes(content)
    source, listing = open_stream(folder, streaming=True), tmp_path / "skipped.jsonl"
    options = {"batch_size": 31, "skipped_path": listing}
    first = PretrainingLoader(source, MultiCrop(1, 0, 8), **options)
    for _ in range(32):
        next(first)
    position = json.loads(json.dumps(first.position()))
    assert position["skipped"]["lost"] == {"0-0": 1 / 125}
    resumed = PretrainingLoader(source, MultiCrop(1, 0, 8), **options, position=position)
    for _ in range(64):  # two more epochs
        next(resumed)
    assert resumed.skipped["unreadable_file"] > 1
    assert [json.loads(line)["id"] for line in listing.read_text().splitlines()] == ["0-0"]
    log = SkipLog()
    log.load(json.loads(json.dumps(resumed.position()["skipped"])))
    again = {"kind": "unreadable_file", "id": "0-7", "path": None, "detail": "broken", "share_of_shard": 1 / 125}
    with pytest.raises(BadDataError, match=r"2 row group\(s\) of the 1 shards, 1.6% of the data"):
        log.add(0, [again])


def test_files_that_are_empty_count_as_files(tmp_path, caplog):
    """By their bytes the lost share would be 0 %."""
    forked.write_shards(tmp_path / "data", shards=10, images=8)
    for number in range(5):
        (tmp_path / "data" / f"train-{number:05d}-of-00010.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"5 of 10 parquet files cannot be read .* 50\.0% of them"):
        open_stream(tmp_path / "data", max_bad_share=0.49)
    source = open_stream(tmp_path / "data", max_bad_share=0.5)
    assert source.num_examples == 40
    assert "5 of 10 parquet files cannot be read and are left out: train-00000" in caplog.text


def labeled(labels: list[int], photo, encode_image) -> Dataset:
    """Images with labels of two declared classes, whatever they are: what a file of anybody's may hold."""
    image = {"bytes": encode_image(photo[:40, :40]), "path": None}
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=["a", "b"])})
    plain = Dataset.from_dict({"image": [image] * len(labels), "label": labels}).data.table
    metadata = {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
    return Dataset(plain.replace_schema_metadata(metadata))


def test_labels_that_their_column_does_not_declare_are_named(tmp_path, photo, encode_image):
    labeled([0, 1] * 19 + [-1, 7], photo, encode_image).save_to_disk(tmp_path / "data")
    with pytest.raises(ValueError, match="'label' holds 7, and its 2 classes are numbered from 0 to 1"):
        open_stream(tmp_path / "data")
    source = open_stream(tmp_path / "data", streaming=True)
    with pytest.raises(BadDataError, match="has the label 7, and its 2 classes"):
        list(source.examples())
    loader = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=40, num_workers=1)
    with pytest.raises(BadDataError, match="has the label 7, and its 2 classes"):
        next(loader)
    labeled([0, 1] * 19 + [-1, 1], photo, encode_image).save_to_disk(tmp_path / "good")
    assert open_stream(tmp_path / "good").num_examples == 40
