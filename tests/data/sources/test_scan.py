# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Folders and tars as people have them: what is read, by which labels, and what is said about the rest."""

import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from visreg_training.data import NoSuchSplit, open_stream
from visreg_training.data.decode import FORMATS
from visreg_training.data.formats import is_image_start
from visreg_training.data.sources import check_output, scan


def picture(form: str = "jpeg", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 9), (200, 30, 90)).convert(mode).save(buffer, form)
    return buffer.getvalue()


JPEG = picture()


def put(root: Path, *names: str, data: bytes = JPEG) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def names_of(source) -> list[str]:
    return [source.file_name(raw) for raw in source.raw_examples()]


def labels_of(source) -> list:
    return [raw.label for raw in source.raw_examples()]


def test_images_are_found_by_suffix_or_first_bytes_and_the_rest_is_counted(tmp_path, caplog):
    put(tmp_path, "a.jfif", "b.jpe", "c.JPG", "d", "e.jpg_large", ".hidden.jpg")
    put(tmp_path, "f.pgm", data=picture("ppm", "L"))
    put(tmp_path, "g.HEIC", "h.heic", data=b"\0\0\0\x18ftypXXXX" + bytes(20))
    put(tmp_path, "i.txt", "j.tga", "k.zip", "noimage", data=b"P5 is no image")
    source = open_stream(tmp_path)
    assert names_of(source) == ["a.jfif", "b.jpe", "c.JPG", "d", "e.jpg_large", "f.pgm"]
    assert len(list(source.examples(max_bad_share=0))) == 6
    (note,) = source.description()["left_out"]
    assert note.startswith("6 other files left out: 2 .heic, ") and "1 .tga" in note and "1 without suffix" in note
    assert "pip install pillow-heif" in note and "unpacked" in note
    assert [record.message for record in caplog.records] == [f"{tmp_path.name}, train: {note}"]


@pytest.mark.parametrize(
    "form", [form for form in FORMATS if form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
)
def test_first_bytes(form):
    assert is_image_start(picture(form)[:32])
    assert not is_image_start(b"BMW, a car of the text file" + bytes(9)) and not is_image_start(b"")


def test_files_with_a_known_suffix_are_not_opened(tmp_path, monkeypatch):
    put(tmp_path, "a.jpg", "b.json", "c.npy", "d")
    opened = []
    monkeypatch.setattr(scan, "is_image_file", lambda path: opened.append(Path(path).name))
    assert len(scan.scan(str(tmp_path)).images) == 1 and opened == ["d"]


def test_links_to_class_folders_are_followed_but_not_in_circles(tmp_path):
    put(tmp_path / "all", "cat/1.jpg", "cat/2.jpg", "more/3.jpg")
    root = put(tmp_path / "photos", "dog/4.jpg")
    os.symlink(tmp_path / "all" / "cat", root / "cat")
    os.symlink(tmp_path / "all" / "cat", root / "dog" / "twice")
    os.symlink(root, root / "dog" / "circle")
    os.symlink(tmp_path / "all", tmp_path / "all" / "cat" / "around")
    os.symlink("loop", root / "loop")
    os.symlink(tmp_path / "nowhere.jpg", root / "dog" / "gone.jpg")
    os.mkfifo(root / "dog" / "pipe.jpg")
    source = open_stream(root)
    assert names_of(source) == ["cat/1.jpg", "cat/2.jpg", "dog/4.jpg"] and labels_of(source) == [0, 0, 1]
    links, special = source.left_out
    assert links.startswith("3 links to what is read already left out: cat/around, dog/circle, dog/twice")
    assert special.startswith("3 pipes, devices or dangling links left out: loop, dog/gone.jpg, dog/pipe.jpg")


@pytest.mark.parametrize("train,test", [("Training", "Testing"), ("Train", "Test"), ("train2017", "test_images")])
def test_split_folders_in_any_case_and_by_their_synonyms(tmp_path, train, test):
    put(tmp_path, f"{train}/a/1.jpg", f"{test}/a/2.jpg", "extra/3.jpg")
    source = open_stream(tmp_path)
    assert names_of(source) == [f"{train}/a/1.jpg"] and source.left_out == [
        "beside the folders of the splits there are extra/: not read"
    ]
    assert names_of(open_stream(tmp_path, split="test")) == [f"{test}/a/2.jpg"]
    with pytest.raises(NoSuchSplit, match=f"the folders for splits are .*{train}"):
        open_stream(tmp_path, split="validation")


def test_splits_below_the_only_folder_and_two_of_one_split(tmp_path):
    put(tmp_path / "outer", "archive/Train/a/1.jpg", "archive/Val/a/2.jpg")
    assert names_of(open_stream(tmp_path / "outer")) == ["archive/Train/a/1.jpg"]
    put(tmp_path / "two", "Train/a/1.jpg", "TRAINING/a/2.jpg")
    with pytest.raises(NoSuchSplit, match="2 folders for the split 'train': TRAINING, Train"):
        open_stream(tmp_path / "two")


def test_parquet_in_split_folders_of_any_case(tmp_path):
    for name, rows in (("Train", 3), ("Test", 2)):
        (tmp_path / name).mkdir()
        parquet.write_table(pa.table({"image": [JPEG] * rows}), tmp_path / name / "0.parquet")
    assert [open_stream(tmp_path, split=split).num_examples for split in ("train", "test")] == [3, 2]


@pytest.mark.parametrize("streaming", [None, True])
def test_tars_of_any_suffix_and_samples_without_an_image(tmp_path, streaming, caplog):
    members = {"0.jpg": JPEG, "0.cls": b"3", "1.JPG": JPEG, "1.cls": b"4", "2.png": picture("png"), "3.jpeg": JPEG}
    pack(tmp_path / "a.tar.gz", members | {"4.cls": b"1", "5": JPEG, "6.img": JPEG, "._7.jpg": b"x"}, "w:gz")
    source = open_stream(tmp_path, streaming=streaming)
    assert [label for _, label, _ in source.examples(max_bad_share=1)] == [3, 4, None, None, None, None]
    assert names_of(source) == ["0.jpg", "1.JPG", "2.png", "3.jpeg", "4 (no image, only cls)", "5", "6.img"]
    assert source.image_column == "jpg" and "4 (no image, only cls)" in caplog.text


def test_tars_whose_names_hold_dots_or_are_not_text(tmp_path):
    members = {
        f"2024.05.img_{number:03d}.{suffix}": data
        for number in range(30)
        for suffix, data in (("jpg", JPEG), ("cls", b"1"))
    }
    pack(tmp_path / "a.tar", members | {"2024.05.\udcff.jpg": JPEG})
    source = open_stream(tmp_path)
    assert source.num_examples == 31 and labels_of(source) == [1] * 30 + [None]
    assert names_of(source)[-2:] == ["2024.05.img_029.jpg", "2024.05.\\xff.jpg"]


def test_several_images_of_a_sample_are_refused_by_name(tmp_path):
    members = {f"{number}.{field}": JPEG for number in range(3) for field in ("image.jpg", "mask.png")}
    pack(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=r"holds several images: image\.jpg, mask\.png\. Name one with image_column"):
        open_stream(tmp_path, streaming=True)
    assert names_of(open_stream(tmp_path, streaming=True, image_column="mask.png"))[0] == "0.mask.png"


def test_the_kind_with_most_bytes_is_read_and_the_rest_named(tmp_path):
    """img2dataset's folder; a cover beside shards; features beside photos."""
    pack(put(tmp_path, "i2d/0_stats.json", data=b"{}") / "i2d" / "0.tar", {"0.jpg": JPEG, "0.json": b"{}"})
    parquet.write_table(pa.table({"url": ["u"] * 500}), tmp_path / "i2d" / "0.parquet")
    source = open_stream(tmp_path / "i2d", streaming=True)
    assert names_of(source) == ["0.jpg"] and source.left_out == ["2 other files left out: 1 .json, 1 .parquet"]
    put(tmp_path, "shards/cover.jpg")
    parquet.write_table(pa.table({"image": [JPEG, picture("png")] * 4}), tmp_path / "shards" / "0.parquet")
    own = pa.table({"id": ["0"], "features": [[0.5]]}).replace_schema_metadata({"visreg": "{}"})
    parquet.write_table(own, tmp_path / "shards" / "features.parquet")
    source = open_stream(tmp_path / "shards")
    assert source.num_examples == 8 and source.left_out == [
        "1 other file left out: 1 .jpg",
        "1 files of features left out: features.parquet",
    ]
    parquet.write_table(own, put(tmp_path, "photos/1.jpg", "photos/2.jpg") / "photos" / "features.parquet")
    assert names_of(open_stream(tmp_path / "photos")) == ["1.jpg", "2.jpg"]


def test_brackets_in_a_path_are_no_pattern(tmp_path):
    put(tmp_path, "trip [2024]/1.jpg")
    assert names_of(open_stream(tmp_path / "trip [2024]")) == ["1.jpg"]
    table = pa.table({"image": [JPEG] * 2})
    parquet.write_table(table, tmp_path / "a[1].parquet")
    assert open_stream(tmp_path / "a[1].parquet").num_examples == 2
    (tmp_path / "b[1]").mkdir()
    parquet.write_table(table, tmp_path / "b[1]" / "train.parquet")
    assert open_stream(tmp_path / "b[1]").num_examples == 2


def test_names_that_are_not_text_are_left_out_and_shown(tmp_path):
    put(tmp_path, "1.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(JPEG)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    source = open_stream(tmp_path)
    assert names_of(source) == ["1.jpg"] and source.left_out == [r"1 name that is not UTF-8 left out: \xff.jpg"]


def test_stray_images_keep_the_labels_of_class_folders(tmp_path):
    put(tmp_path, "cover.jpg", *(f"{name}/{number}.jpg" for name in "ab" for number in range(5)))
    source = open_stream(tmp_path)
    assert labels_of(source) == [-1] + [0] * 5 + [1] * 5 and source.label_names == ["a", "b"]
    assert source.left_out == ["no label for 1 image beside the class folders: cover.jpg"]
    put(tmp_path, "1.jpg", "2.jpg")
    source = open_stream(tmp_path)
    assert source.label_names is None and source.left_out == [
        "no labels, as there are 3 images beside the class folders: 1.jpg, 2.jpg, cover.jpg"
    ]


@pytest.mark.parametrize("streaming", [None, True])
def test_labels_of_metadata_tables(tmp_path, streaming):
    put(tmp_path, "train/x/1.jpg", "train/x/2.jpg", "train/3.jpg", "test/4.jpg")
    rows = (
        "file_name,caption,label",
        "train/x/1.jpg,one,dog",
        "train/x/2.jpg,two,ant",
        "train/gone.jpg,a,fox",
        "../b.jpg,b,c",
    )
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    (tmp_path / "test" / "metadata.jsonl").write_text('{"file_name": "4.jpg", "category": 7}')
    source = open_stream(tmp_path, streaming=streaming)
    assert names_of(source) == ["train/3.jpg", "train/x/1.jpg", "train/x/2.jpg"]
    assert source.label_names == ["ant", "dog"] and labels_of(source) == [None, 1, 0]
    assert source.left_out[:2] == [
        "1 images have no row in the metadata: 3.jpg",
        "1 rows of the metadata name no image: gone.jpg",
    ]
    assert labels_of(open_stream(tmp_path, split="test", streaming=streaming)) == [7]
    (tmp_path / "test" / "metadata.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"metadata\.jsonl cannot be read"):
        open_stream(tmp_path, split="test")


def test_run_folders_in_a_data_folder_are_no_data(tmp_path):
    put(tmp_path, "1.jpg", "out/curves.png", "out/model/pca.png", "mine/run.json/2.jpg")
    (tmp_path / "out" / "run.json").write_text('{"plan": {}}')
    source = open_stream(tmp_path)
    assert names_of(source) == ["1.jpg", "mine/run.json/2.jpg"] or source.label_names is None
    assert "1 output of visreg left out: out/" in source.left_out
    put(tmp_path, "curves.png")
    (tmp_path / "recipe.yaml").write_text("output_dir: .")
    assert names_of(open_stream(tmp_path)) == ["1.jpg", "mine/run.json/2.jpg"]


def test_pictures_are_not_written_among_the_images(tmp_path):
    put(tmp_path, "1.jpg")
    with pytest.raises(ValueError, match="lies in the data folder"):
        check_output(tmp_path / "sheet.png", str(tmp_path))
    check_output(tmp_path / "features.parquet", str(tmp_path))
    check_output(tmp_path.parent / "sheet.png", str(tmp_path), None, "digits")


def test_an_unreadable_class_folder_is_named(tmp_path, monkeypatch):
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    listed = os.scandir

    def refused(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(scan.os, "scandir", refused)
    source = open_stream(tmp_path)
    assert names_of(source) == ["a/1.jpg"] and source.unreadable[0]["detail"] == "Permission denied"
    assert source.left_out[0].startswith("1 folders cannot be read: ")
