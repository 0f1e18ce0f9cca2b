# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Features: extracted once, keyed by what decides them, the same for any batch size and number of processes."""

import csv
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage
from pyarrow import parquet
from safetensors import safe_open

from helpers import evaluate_on_ranks, fork_server, suite_on_ranks
from modeling_visreg import VISRegViTModel
from visreg_training.backbones import open_backbone, wrap_backbone
from visreg_training.data import BadDataError, NoSuchSplit, open_stream
from visreg_training.evaluation.cache import FeatureCache, cached_features, feature_key, save_features
from visreg_training.evaluation.features import digest, extract_features, label_tensor, same_columns
from visreg_training.evaluation.options import FeatureOptions
from visreg_training.evaluation.preprocessing import transform_for
from visreg_training.evaluation.protocols.fewshot import FewshotOptions
from visreg_training.evaluation.protocols.knn import KnnOptions
from visreg_training.evaluation.protocols.linear import LinearOptions, linear
from visreg_training.evaluation.protocols.retrieval import RetrievalOptions
from visreg_training.evaluation.reports.compare import summary
from visreg_training.evaluation.run import evaluate
from visreg_training.evaluation.splits import label_map, make_task, open_sources


@pytest.fixture(scope="module")
def model(checkpoint):
    return open_backbone(checkpoint)


def test_a_second_call_reads_the_cache(model, tmp_path):
    source, cache = open_stream("digits", split="test"), FeatureCache(tmp_path)
    first = cached_features(model, source, FeatureOptions(limit=50), cache)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    second = cached_features(model, source, FeatureOptions(limit=50), cache)
    assert path.stat().st_mtime_ns == stamp and [path] == list(tmp_path.iterdir())
    assert torch.equal(first.features, second.features) and first.ids == second.ids
    assert first.features.shape == (50, 128) and first.labels.shape == (50,)


def test_the_key_changes_with_all_that_decides_the_values(model, checkpoint):
    def key(settings=None, split="test", bias=0.0, **columns):
        other = open_backbone(checkpoint)
        other.module.layernorm.bias.add_(bias)
        settings = settings or FeatureOptions()
        source = open_stream("digits", split=split, **columns)
        return json.dumps(feature_key(other, source, settings, transform_for(other, settings.image_size)))

    settings = [FeatureOptions(layers=1), FeatureOptions(pooling="mean"), FeatureOptions(image_size=32)]
    settings += [FeatureOptions(limit=10), FeatureOptions(limit=10, seed=1), FeatureOptions(precision="bfloat16")]
    keys = [key(), *map(key, settings), key(split="train"), key(bias=1e-3)]
    assert len(set(keys)) == len(keys) and key() == keys[0]


def test_features_of_images_in_memory_are_those_of_the_cache(checkpoint, shared_cache):
    """What the end of a run measures of its model in memory is what `visreg evaluate` measures of its checkpoint."""
    source, options = open_stream("digits", split="test"), FeatureOptions(layers=2)
    module = VISRegViTModel.from_pretrained(checkpoint).train()
    found = extract_features(wrap_backbone(module), source.examples(), options)
    assert module.training
    expected = cached_features(open_backbone(checkpoint), source, options, shared_cache)
    assert found.ids == expected.ids and torch.equal(found.labels, expected.labels)
    assert torch.equal(found.features, expected.features)
    with pytest.raises(ValueError, match="no image"):
        extract_features(wrap_backbone(module), [])


@pytest.mark.parametrize("batch_size", [1, 7, 360, 1000])
def test_batch_sizes_that_do_not_divide_the_set(model, tmp_path, shared_cache, batch_size):
    source, settings = open_stream("digits", split="test"), FeatureOptions(limit=61)
    expected = cached_features(model, source, settings, shared_cache, batch_size=61)
    found = cached_features(model, source, settings, FeatureCache(tmp_path), batch_size)
    torch.testing.assert_close(found.features, expected.features, rtol=0, atol=1e-5)
    assert found.ids == expected.ids and torch.equal(found.labels, expected.labels)


def test_a_stream_gives_what_random_access_gives(model, tmp_path):
    settings = FeatureOptions()
    found = [
        cached_features(
            model, open_stream("digits", split="test", streaming=streaming), settings, FeatureCache(folder)
        )
        for streaming, folder in ((False, tmp_path / "map"), (True, tmp_path / "stream"))
    ]
    assert torch.equal(found[0].features, found[1].features) and torch.equal(found[0].labels, found[1].labels)


def test_a_limit_draws_from_all_of_a_split_that_is_sorted_by_class(model, tmp_path):
    images = {f"train/{name}/{number}.png": None for name in "abcd" for number in range(20)}
    source, cache = open_stream(folder_of(tmp_path / "data", images)), FeatureCache(tmp_path / "cache")
    found = [cached_features(model, source, FeatureOptions(limit=16, seed=seed), cache) for seed in (0, 0, 1)]
    assert len(found[0].ids) == len(set(found[0].ids)) == 16 and set(found[0].labels.tolist()) == {0, 1, 2, 3}
    assert found[0].ids == found[1].ids != found[2].ids
    every = cached_features(model, source, FeatureOptions(), cache)
    places = [every.ids.index(name) for name in found[2].ids]
    assert torch.equal(found[2].labels, every.labels[places]) and places == sorted(places)
    torch.testing.assert_close(found[2].features, every.features[places], rtol=0, atol=1e-5)
    assert FeatureOptions(seed=3) == FeatureOptions()  # without a limit nothing is drawn


def folder_of(root: Path, images: dict[str, bytes | None]) -> Path:
    for name, content in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            PILImage.new("RGB", (20, 18), zlib.crc32(name.encode()) % 255).save(path)
        else:
            path.write_bytes(content)
    return root


def test_a_model_that_gives_no_numbers_is_refused_by_every_protocol(checkpoint, tmp_path):
    """The one line names an image; nothing is left in the cache."""
    broken, cache = open_backbone(checkpoint), FeatureCache(tmp_path)
    broken.module.layernorm.bias.fill_(float("nan"))
    for options in (KnnOptions(), LinearOptions(), FewshotOptions(), RetrievalOptions()):
        with pytest.raises(ValueError, match="the features of image '0' are not finite"):
            evaluate(broken, open_sources("digits"), options, cache=cache)
    assert not list(tmp_path.glob("*.safetensors"))


def test_test_images_that_are_training_images_are_said_whatever_their_names(model, tmp_path):
    """By content: as another file, in another format; the digest is kept with the features."""
    images = {f"train/{name}/{number}.png": None for name in "ab" for number in range(20)}
    folder = folder_of(
        tmp_path / "data", images | {f"test/{name}/{number}.png": None for name in "ab" for number in (7, 8)}
    )
    with PILImage.open(folder / "train" / "a" / "3.png") as image:
        image.save(folder / "test" / "a" / "new.bmp")
    for _cached in range(2):
        result = evaluate(model, open_sources(str(folder)), KnnOptions(), cache=FeatureCache(tmp_path / "cache"))
        assert result["notes"] == ["1 of 5 test images stand among the training images too"]
        assert result["data"]["train_images"] == 40 and result["data"]["test_images"] == 5
    assert ": 1 of 5 test images stand among the training images too" in summary(result)


def test_a_digest_is_equal_for_equal_pixels_only():
    pixels = torch.randint(0, 256, (3, 15, 15), dtype=torch.uint8)
    changed = [pixels.clone() for _ in range(3)]
    changed[0][2, 14, 14] ^= 1
    changed[1][0, 0, 0] ^= 128
    changed[2] = pixels.flip(2)
    found = [digest(image).item() for image in (pixels, pixels.clone(), *changed)]
    assert found[0] == found[1] and len(set(found)) == 4


def test_unreadable_images_are_left_out_and_counted(model, tmp_path):
    images = {f"train/a/{number:03d}.png": None for number in range(150)}
    folder = folder_of(tmp_path / "data", images | {"train/a/007.png": b"no image"})
    found = cached_features(model, open_stream(folder), FeatureOptions(), FeatureCache(tmp_path / "cache"))
    assert len(found.features) == 149 and "7" not in found.ids


def test_too_many_unreadable_images_end_it(model, tmp_path):
    images = {f"train/a/{number:03d}.png": b"no image" if number % 2 else None for number in range(20)}
    source = open_stream(folder_of(tmp_path / "data", images))
    with pytest.raises(BadDataError, match="cannot be read"):
        cached_features(model, source, FeatureOptions(), FeatureCache(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_classes_of_folders_are_matched_by_name(tmp_path):
    """A class that the test folder lacks would shift the numbers of all that follow."""
    folder = folder_of(tmp_path, {f"{place}/x.png": None for place in ("train/a", "train/b", "train/c", "test/c")})
    sources = open_sources(str(folder))
    assert label_map(sources.train.label_names, sources.test.label_names) == {0: 2}
    with pytest.raises(ValueError, match="classes d"):
        label_map(["a", "b"], ["a", "d"])


def test_lists_of_classes_become_zeros_and_ones(model, tmp_path):
    features = Features({"image": Image(), "labels": List(ClassLabel(names=["x", "y", "z"]))})
    pictures = [PILImage.new("RGB", (16, 16), color) for color in ("red", "green", "blue")]
    data = Dataset.from_dict({"image": pictures, "labels": [[0, 2], [], [1]]}, features=features)
    data.save_to_disk(tmp_path / "data")
    source = open_stream(tmp_path / "data")
    found = cached_features(model, source, FeatureOptions(), FeatureCache(tmp_path / "cache"))
    assert found.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert label_tensor([None, 3], None)[0].tolist() == [-1, 3]


def test_lists_of_sparse_numbers_are_numbered_by_what_occurs(model, tmp_path):
    """20231107 asks for no twenty million columns: in the cache, of two processes, in a task and in a table."""
    features = Features({"image": Image(), "labels": List(Value("int64"))})
    for split, labels in (("train", [[20231107, 5], [], [7], [1001]]), ("test", [[77, 5], [7], None])):
        pictures = [PILImage.new("RGB", (16, 16), (60 * number, 9, 9)) for number in range(len(labels))]
        data = Dataset.from_dict({"image": pictures, "labels": labels}, features=features)
        data.save_to_disk(tmp_path / split)
    sources = {
        split: open_stream(tmp_path / split, split="train", label_column="labels") for split in ("train", "test")
    }
    cache = FeatureCache(tmp_path / "cache")
    train, test = (cached_features(model, source, FeatureOptions(), cache) for source in sources.values())
    assert train.classes == [5, 7, 1001, 20231107]
    assert train.labels.tolist() == [[1, 0, 0, 1], [0] * 4, [0, 1, 0, 0], [0, 0, 1, 0]]
    again = cached_features(model, sources["train"], FeatureOptions(), cache)
    assert again.classes == train.classes and torch.equal(again.labels, train.labels)
    shares = same_columns([subset_as_read(train, [0, 2]), subset_as_read(train, [1, 3])])
    assert torch.equal(torch.cat([share.labels for share in shares])[[0, 2, 1, 3]], train.labels)
    assert shares[0].classes == train.classes
    task = make_task(train, test)
    assert task.label_names == ["5", "7", "77", "1001", "20231107"] and task.num_classes == 5
    assert task.train.labels[0].tolist() == [1, 0, 0, 0, 1] and task.test.labels.tolist()[0] == [1, 0, 1, 0, 0]
    assert linear(task, LinearOptions(epochs=1, selection="test", learning_rates=(0.1,))).value >= 0
    save_features(tmp_path / "f.csv", train, "{}")
    with (tmp_path / "f.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["5 20231107", "", "7", "1001"]
    dense = [label_tensor([[0, 3]], None), label_tensor([[2], [1]], None)]
    parts = [train._replace(labels=labels, classes=classes) for labels, classes in dense]
    assert [part.labels.tolist() for part in same_columns(parts)] == [[[1, 0, 0, 1]], [[0, 0, 1, 0], [0, 1, 0, 0]]]


def subset_as_read(features, rows: list[int]):
    """What the process that has these images makes of their labels."""
    lists = [[features.classes[c] for c in features.labels[row].nonzero().flatten().tolist()] for row in rows]
    labels, classes = label_tensor(lists, None)
    return features._replace(labels=labels, classes=classes)


def test_saved_features_can_be_read_by_others(model, shared_cache, tmp_path):
    found = cached_features(model, open_stream("digits", split="test"), FeatureOptions(limit=61), shared_cache)
    save_features(tmp_path / "f.safetensors", found, "{}")
    with safe_open(tmp_path / "f.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("features"), found.features)
        assert json.loads(file.metadata()["ids"]) == found.ids
    save_features(tmp_path / "f.parquet", found, "{}")
    table = parquet.read_table(tmp_path / "f.parquet")
    assert found.paths[0].startswith("digit_") and table.column("path").to_pylist() == found.paths
    assert table.column("id").to_pylist() == found.ids and table.column("label").to_pylist() == found.labels.tolist()
    assert torch.equal(torch.tensor(table.column("features").to_pylist()), found.features)
    save_features(tmp_path / "f.npz", found, '{"model": 1}')
    with np.load(tmp_path / "f.npz") as arrays:
        assert np.array_equal(arrays["features"], found.features.numpy()) and arrays["ids"].tolist() == found.ids
        assert arrays["labels"].tolist() == found.labels.tolist() and json.loads(str(arrays["record"])) == {"model": 1}
    save_features(tmp_path / "f.csv", found, "{}")
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == found.paths
    assert [row["id"] for row in rows] == found.ids and [int(row["label"]) for row in rows] == found.labels.tolist()
    numbers = [[float(row[f"f{column}"]) for column in range(found.features.shape[1])] for row in rows]
    assert torch.equal(torch.tensor(numbers), found.features)


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train_split": "test"}, "different splits"),
        ({"validation_split": "train"}, "different splits"),
        ({"validation_split": "val"}, "splits"),
        ({"train_share": 0.5, "test_split": "test"}, "one split"),
    ],
)
def test_splits_that_would_leak_are_refused(splits, words):
    with pytest.raises(ValueError, match=words):
        open_sources("digits", **splits)


def test_what_is_tested_on_needs_no_name_where_there_is_one(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                PILImage.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / split / name / f"{number}.png")
    sources = open_sources(str(tmp_path))
    assert (sources.test.split, sources.validation) == ("validation", None)
    with pytest.raises(ValueError, match="validation is tested on"):
        open_sources(str(tmp_path), validation_split="validation")
    with pytest.raises(NoSuchSplit, match="no folder for the split 'test'"):
        open_sources(str(tmp_path), test_split="test")
    shared = open_sources(str(tmp_path), train_share=0.5)
    assert shared.train is shared.test and shared.train.split == "train"
    assert open_sources("digits").test.split == "test"


def on_two_processes(script: str, *arguments: str) -> str:
    """What two real processes print."""
    finished = fork_server.run(*arguments, script=script, ranks=2)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


@pytest.mark.cpu
def test_a_failure_on_one_of_two_processes_ends_the_data_set_on_both(checkpoint, tmp_path):
    """One training image fails where k is chosen, on the main process; every second image is broken: on the other."""
    names = Features({"image": Image(), "labels": List(ClassLabel(names=["x", "y"]))})
    one = Dataset.from_dict({"image": [PILImage.new("RGB", (16, 16))], "labels": [[0]]}, features=names)
    DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "single")
    images = {f"train/a/{number:04d}.png": b"no image" if number % 2 else None for number in range(2000)}
    folder_of(tmp_path / "broken", images | {"test/a/0.png": None})
    said = on_two_processes(suite_on_ranks.__file__, checkpoint, str(tmp_path)).splitlines()
    assert [line[0] for line in sorted(said)] == ["0", "1"]  # results: the main process has that of the digits
    for line in said:
        assert "'dtd', 'one training image cannot be split" in line
        assert "'cifar10', '11 of 1000 images cannot be read" in line and "cifar100" not in line
    result = json.loads((tmp_path / "out" / "knn-cifar100.json").read_text())
    assert result["processes"] == 2 and 0 < result["value"] < 1


@pytest.mark.cpu
def test_one_and_two_processes_give_the_same_results(checkpoint, tmp_path):
    """Two real processes, batch sizes that divide nothing; cached features, and augmented images."""
    evaluate_on_ranks.run(checkpoint, tmp_path / "one")
    on_two_processes(evaluate_on_ranks.__file__, checkpoint, str(tmp_path / "two"))
    names = sorted(path.name for path in (tmp_path / "one").glob("*.json"))
    assert len(names) == 3 and names == sorted(path.name for path in (tmp_path / "two").glob("*.json"))
    for name in names:
        alone, together = (json.loads((tmp_path / world / name).read_text()) for world in ("one", "two"))
        assert (alone["processes"], together["processes"]) == (1, 2)
        assert (alone["value"], alone["interval"]) == (together["value"], together["interval"]), name
        if alone["selection"]:
            assert alone["selection"]["chosen"] == together["selection"]["chosen"]
