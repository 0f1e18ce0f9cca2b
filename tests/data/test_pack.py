# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg pack`: what is written is what was read, smaller; a kill costs a file at most."""

import io
import json
from dataclasses import fields

import numpy as np
import pyarrow.parquet as parquet
import pytest
from datasets import load_dataset
from PIL import Image

from visreg_training.cli import main as visreg
from visreg_training.data import MapSource, PretrainingLoader, StreamSource, open_stream
from visreg_training.data.crops import MultiCrop
from visreg_training.data.decode import RawExample
from visreg_training.data.options import PackOptions
from visreg_training.data.pack import pack
from visreg_training.data.pack_image import pack_image


def run(*words: object) -> int:
    """The exit code of `visreg pack` with these words, in this process."""
    try:
        visreg(["pack", *map(str, words)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def size_of(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


@pytest.fixture(scope="module")
def photos(tmp_path_factory, photo, encode_image):
    """cat: a photo, one that lies on its side, one of four inks. dog: a small PNG, a small bitmap, a broken file."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("cat", "dog"):
        (root / name).mkdir()
    image, turned = Image.fromarray(photo), Image.Exif()
    turned[0x0112] = 6
    image.save(root / "cat" / "1.jpg")
    image.save(root / "cat" / "2.jpg", exif=turned)
    image.convert("CMYK").save(root / "cat" / "3.jpg")
    (root / "dog" / "4.png").write_bytes(encode_image(photo[:40, :50], "png"))
    (root / "dog" / "5.bmp").write_bytes(encode_image(photo[:40, :50], "bmp"))
    (root / "dog" / "6.jpg").write_bytes((root / "cat" / "1.jpg").read_bytes()[:9000])
    return root


def test_what_is_read_back_is_what_was_packed(photos, tmp_path, capsys):
    assert run("--dataset", photos, "--output", tmp_path, "--size", 64, "--num_workers", 0) == 0
    said = capsys.readouterr().err
    assert "5 images in 1 parquet files" in said
    assert "1 copied as they were" in said and "1 left out (truncated 1)" in said

    packed, raw = open_stream(tmp_path), list(open_stream(tmp_path).raw_examples())
    assert packed.label_names == ["cat", "dog"]
    assert [one.label for one in raw] == [0, 0, 0, 1, 1]
    assert [one.path for one in raw] == ["cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/4.png", "dog/5.bmp"]
    assert [size_of(one.data) for one in raw] == [(85, 64), (64, 85), (85, 64), (50, 40), (50, 40)]
    assert raw[3].data == (photos / "dog" / "4.png").read_bytes()
    plain = load_dataset("parquet", data_files=str(tmp_path / "data" / "*.parquet"), split="train")
    assert plain[0]["image"].size == (85, 64)  # what other users of `datasets` see
    listed = [json.loads(line) for line in (tmp_path / "skipped-train.jsonl").read_text().splitlines()]
    assert [(one["kind"], one["path"]) for one in listed] == [("truncated", "dog/6.jpg")]

    before = np.asarray(Image.open(photos / "cat" / "1.jpg").resize((85, 64), Image.Resampling.BICUBIC), dtype=float)
    after = np.asarray(Image.open(io.BytesIO(raw[0].data)), dtype=float)
    assert np.abs(before - after).mean() < 4  # of 255: the JPEG's losses
    views, labels, _ids = next(PretrainingLoader(packed, MultiCrop(global_size=32, num_local=0), batch_size=4))
    assert views[0].shape == (4, 4, 3, 32, 32) and set(labels.tolist()) <= {0, 1}


def test_image_that_no_format_holds_and_image_that_is_not_copied(photo, encode_image):
    strip = RawExample(encode_image(np.zeros((300, 20_000, 3), np.uint8), "png"), None, None, "0", (0,))
    webp = pack_image(strip, PackOptions(size=256, image_format="webp", quality=50))
    assert size_of(webp.data) == (16_383, 246)
    small = RawExample(encode_image(photo[:40, :50], "png"), None, None, "1", (1,))
    anew = pack_image(small, PackOptions(copy_fitting=False))
    assert not anew.copied and Image.open(io.BytesIO(anew.data)).format == "JPEG"
    assert size_of(anew.data) == (50, 40)


@pytest.fixture(scope="module")
def noisy_shards(tmp_path_factory, write_image_dataset):
    """Two shards of 60 images, 3 KB each."""
    return write_image_dataset(tmp_path_factory.mktemp("noisy") / "data", [35, 25], side=(96, 80))


class Killed(BaseException):
    """A kill, as far as files are concerned: nothing is tidied up after it."""


def ending_after(source, count):
    """The same source, whose reader is killed after so many images."""

    class Ending(type(source)):
        def raw_examples_after(self, key, on_lost):
            for number, raw in enumerate(super().raw_examples_after(key, on_lost)):
                if number == count:
                    raise Killed
                yield raw

    return Ending(**{spec.name: getattr(source, spec.name) for spec in fields(source)})


@pytest.fixture
def small_files(monkeypatch):
    """Files of 60 KB, some 20 images; four are packed at once."""
    monkeypatch.setattr("visreg_training.data.pack._CHUNK", 4)
    monkeypatch.setattr("visreg_training.data.pack.MEGABYTE", 60_000)


@pytest.mark.parametrize("streaming, kind", [(False, MapSource), (True, StreamSource)])
def test_kill_costs_no_image(noisy_shards, tmp_path, small_files, streaming, kind):
    source, options = open_stream(noisy_shards, streaming=streaming), PackOptions(size=90, shard_mb=1)
    assert isinstance(source, kind)
    whole = pack(source, tmp_path / "whole", options)
    assert whole.images == 60 and whole.files >= 3
    for count in (30, 2, 25):  # that are read before a kill; the second time it comes before a file is whole
        with pytest.raises(Killed):
            pack(ending_after(source, count), tmp_path / "killed", options)
        assert not (tmp_path / "killed" / "data").exists()
    assert pack(source, tmp_path / "killed", options) == whole

    def files(folder):
        return {path.name: path.read_bytes() for path in (tmp_path / folder / "data").iterdir()}

    assert files("killed") == files("whole")
    before, after = (list(one.raw_examples()) for one in (source, open_stream(tmp_path / "killed")))
    assert [(one.path, one.label) for one in after] == [(one.path, one.label) for one in before]


def test_kill_between_the_last_image_and_the_last_name(noisy_shards, tmp_path, small_files, monkeypatch):
    source, options, moved = open_stream(noisy_shards), PackOptions(shard_mb=1), []

    def replace(part, path):
        if path.suffix == ".parquet" and path.parent.name == "data":
            moved.append(path)
            if len(moved) == 2:
                raise Killed
        return path.write_bytes(part.read_bytes()) and part.unlink()

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("visreg_training.data.pack.os.replace", replace)
        pack(source, tmp_path, options)
    report = pack(ending_after(source, 0), tmp_path, options)  # which reads no image
    assert report.images == 60 and len(list((tmp_path / "data").iterdir())) == report.files
    assert pack(ending_after(source, 0), tmp_path, options) == report  # nor does a call that finds all of it


def test_processes_change_nothing(noisy_shards, tmp_path):
    for workers in (0, 2):
        output = tmp_path / str(workers)
        assert run("--dataset", noisy_shards, "--output", output, "--size", 48, "--num_workers", workers) == 0
    (alone,), (several,) = (list((tmp_path / name / "data").iterdir()) for name in ("0", "2"))
    assert alone.read_bytes() == several.read_bytes()


def test_row_group_that_cannot_be_read_is_left_out_and_named(noisy_shards, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in noisy_shards.iterdir():
        content = bytearray(path.read_bytes())
        if path.name.startswith("train-00001"):
            column = parquet.read_metadata(path).row_group(1).column(0)
            start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
            content[start : start + 40] = bytes([255]) * 40
        (broken / path.name).write_bytes(content)
    source = open_stream(broken, streaming=True)
    report = pack(source, tmp_path / "packed", PackOptions(), max_bad_share=0.5)
    assert [record["kind"] for record in report.skipped] == ["unreadable_file"]
    assert report.images == 60 - 8 and report.skipped[0]["id"].startswith("1-")


@pytest.mark.parametrize(
    "more, code, message",
    [
        (["--size", "96"], 2, "was made with size 64, not 96"),
        (["--size", "64", "--split", "test"], 2, "has no folder for the split 'test'"),
        (["--size", "0"], 2, "size must be above 0, not 0"),
        (["--num_workers", "-1"], 2, "num_workers must be 0 or above, not -1"),
        (["--num_workers", "100000"], 2, "num_workers must be at most"),
        (["--max_bad_share", "2"], 2, "max_bad_share must lie in [0, 1], not 2.0"),
        (["--output", "elsewhere", "--max_bad_share", "0"], 3, "1 of 6 images cannot be read (truncated"),
    ],
)
def test_mistakes_and_too_many_unreadable_images_end_in_one_line(
    photos, tmp_path, capsys, monkeypatch, more, code, message
):
    monkeypatch.chdir(tmp_path)
    always = ["--dataset", photos, "--output", "packed", "--num_workers", 0]
    run(*always, "--size", 64)
    capsys.readouterr()
    assert run(*always, *more) == code
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    if code == 3:
        assert (tmp_path / "elsewhere" / "skipped-train.jsonl").read_text().count("\n") == 1
