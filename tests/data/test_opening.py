# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""open_stream: every kind of local data, columns by type, subsets, and mistakes in one line."""

import io
import os
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from visreg_training.data import DeviceAugment, MultiCrop, NoSuchSplit, Subset, open_stream, preview
from visreg_training.data.decode import FORMATS, has_image_suffix, image_suffixes, open_image


@pytest.fixture
def image_folder(tmp_path, photo, encode_image):
    """Three classes of 2, 3 and 5 images, with splits on request."""

    def make(*parents: str):
        for parent in parents or ("",):
            for name, count in (("ant", 2), ("bee", 3), ("cat", 5)):
                folder = tmp_path / "photos" / parent / name
                folder.mkdir(parents=True)
                for number in range(count):
                    (folder / f"{name}_{number}.png").write_bytes(encode_image(photo[:9, :9], "png"))
        return tmp_path / "photos"

    return make


def all_of(source) -> list:
    return list(source.examples())


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- kinds of data ---


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


def test_a_folder_is_scanned_for_what_the_decoder_reads(tmp_path, photo):
    """One list for every scan: of the files that Pillow writes here, those are found that can be decoded."""
    image = Image.fromarray(photo[:16, :16])
    for suffix, form in Image.registered_extensions().items():
        if form in Image.SAVE:
            path = tmp_path / f"image{suffix}"
            try:
                image.convert("L" if suffix == ".pfm" else "RGB").save(path)
            except (OSError, ValueError):  # Pillow was built without it
                path.unlink(missing_ok=True)
    found = {path.rsplit(".")[-1]: path for path in (raw.path for raw in open_stream(tmp_path).raw_examples())}
    assert {"jpg", "jpeg", "png", "gif", "bmp", "tif", "webp", "ppm", "ico"} <= set(found)
    assert not {"tga", "pdf", "eps"} & set(found) and (tmp_path / "image.tga").exists()
    for path in found.values():
        assert open_image(None, path).load().size == (16, 16)
    assert has_image_suffix("Photo.JPG") and not has_image_suffix("photo.tga")
    assert {Image.registered_extensions()[suffix] for suffix in image_suffixes()} <= set(FORMATS)


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


def test_description_is_what_a_run_records(five_shards):
    facts = open_stream(five_shards).description()
    assert facts["num_examples"] == 120 and facts["image_column"] == "image" and facts["num_classes"] == 2
    again = open_stream(five_shards).description()
    assert again == facts
    assert open_stream(five_shards, subset=Subset(fraction=0.5)).description()["fingerprint"] != facts["fingerprint"]


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


# --- columns ---


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
    assert [label for _, label, _ in all_of(open_stream(tmp_path / "a.parquet", streaming=streaming))] == [3, 1, 2, 0]
    parquet.write_table(pa.table({"thing": pa.array(images)}), tmp_path / "b.parquet")
    source = open_stream(tmp_path / "b.parquet", streaming=streaming)
    assert source.image_column == "thing" and len(all_of(source)) == 4


def test_text_labels_are_numbered(tmp_path, photo, encode_image):
    columns = {"image": image_columns(encode_image, photo), "label": ["dog", "ant", "dog", "cat"]}
    folder = write(tmp_path, columns, Features({"image": ImageFeature(decode=False), "label": Value("string")}))
    source = open_stream(folder)
    assert source.label_names == ["ant", "cat", "dog"]
    assert [label for _, label, _ in all_of(source)] == [2, 0, 2, 1]
    assert open_stream(folder, streaming=True).label_column is None
    with pytest.raises(ValueError, match="set streaming to false"):
        open_stream(folder, streaming=True, label_column="label")


def test_several_labels_an_image(tmp_path, photo, encode_image):
    columns = {"image": image_columns(encode_image, photo), "labels": [[0], [0, 1], [], [1]]}
    features = Features({"image": ImageFeature(decode=False), "labels": List(ClassLabel(names=["a", "b"]))})
    source = open_stream(write(tmp_path, columns, features))
    assert [label for _, label, _ in all_of(source)] == [[0], [0, 1], [], [1]]


# --- mistakes ---


@pytest.mark.parametrize(
    "options,words",
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
def test_mistakes_are_one_line(five_shards, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_stream(five_shards, **options)
    one_line(caught)


def test_missing_and_empty_places(tmp_path):
    for path, words in (
        (tmp_path / "nowhere", "no folder or file"),
        (f"{tmp_path}/*.parquet", "no file matches"),
        (tmp_path, "holds no images and no parquet"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            open_stream(path)
        one_line(caught)
    (tmp_path / "notes.csv").write_text("a,b")
    with pytest.raises(ValueError, match=r"is none of \.parquet, \.arrow, \.tar"):
        open_stream(tmp_path / "notes.csv")
    with pytest.raises(NoSuchSplit, match="splits train and test, not 'dev'"):
        open_stream("digits", split="dev")


def test_no_image_column(tmp_path):
    parquet.write_table(pa.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"No image column found; the columns are text \(string\), n \(int64\)"):
        open_stream(tmp_path)


# --- subsets ---


def labels_of(source) -> np.ndarray:
    return np.array([source.example(index).label for index in range(source.num_examples)])


def test_a_fraction_is_seeded():
    rows = [open_stream("digits", subset=Subset(fraction=0.1, seed=seed)).rows.tolist() for seed in (0, 0, 1)]
    assert len(rows[0]) == 144 and rows[0] == rows[1] != rows[2]


def test_a_fraction_of_a_stream_expects_its_share(five_shards):
    source = open_stream(five_shards, streaming=True, subset=Subset(fraction=0.5))
    assert source.num_examples == 60 and 45 < len(all_of(source)) < 75


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
    kept = [raw.path for raw in source.raw_examples()]
    assert kept == ["3.jpg", "77.jpg", "119.jpg"]


def test_imagenets_names_on_the_hub_match_its_lists():
    from visreg_training.data.subsets import file_key

    assert (
        file_key("n01440764_190_n01440764.JPEG") == file_key("train/n01440764/n01440764_190.JPEG") == "n01440764_190"
    )


@pytest.mark.parametrize(
    "options,words",
    [
        ({"fraction": 0.0}, "fraction"),
        ({"images_per_class": 0}, "images_per_class"),
        ({"imbalance_factor": 0.5}, "imbalance_factor"),
        ({"imbalance_factor": 2, "images_per_class": 2}, "not both"),
        ({"file_list": "nowhere.txt"}, "no file list"),
    ],
)
def test_subsets_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        Subset(**options)


def test_a_subset_that_leaves_nothing(five_shards, tmp_path):
    (tmp_path / "list.txt").write_text("other.jpg\n")
    with pytest.raises(ValueError, match="nothing is left of 120 images"):
        open_stream(five_shards, subset=Subset(file_list=str(tmp_path / "list.txt")))


# --- preview ---


def test_preview_writes_a_sheet_and_says_what_is_there(five_shards, tmp_path):
    facts = preview(
        open_stream(five_shards), MultiCrop(2, 3, 32, 16), DeviceAugment(), tmp_path / "sheet.png", count=4
    )
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (32 + 2 * 36 + 3 * 20, 4 * 36 - 4)
    assert facts["num_examples"] == 120 and facts["views"] == ["2 x 32", "3 x 16"] and facts["images_per_second"] > 0
    assert facts["sizes"] == [(40, 30)] * 3
    assert np.asarray(sheet).std() > 10


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
