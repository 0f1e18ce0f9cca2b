# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg evaluate`, its suites and comparisons, and `visreg features`, as a user calls them."""

import itertools
import json
import shutil

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from visreg_training.backbones import open_backbone
from visreg_training.commands import evaluate, features, visualize
from visreg_training.data import Subset, open_stream
from visreg_training.errors import RunStopped, UserError
from visreg_training.evaluation.options import FeatureOptions
from visreg_training.evaluation.protocols.knn import knn_accuracy
from visreg_training.evaluation.reports.compare import compare, published_figures
from visreg_training.evaluation.reports.published import PUBLISHED
from visreg_training.evaluation.reports.results import file_name, read_result
from visreg_training.evaluation.splits import Sources, load_task
from visreg_training.evaluation.suite_datasets import ENTRIES, SUITES


@pytest.fixture
def common(checkpoint, shared_cache) -> list[str]:
    return ["--model", checkpoint, "--cache_dir", str(shared_cache.folder), "--limit", "300"]


RESULT = {
    "protocol": "knn", "dataset": "digits", "split": "test", "metric": "accuracy", "value": 0.5,
    "interval": [0.4, 0.6], "metrics": {}, "model": {"name": "m", "weights": "ab"}, "selection": {"on": "validation"},
    "features": {"layers": 1, "transform": {"size": [32, 32]}}, "settings": {}, "data": {"train": {}, "test": {}},
}  # fmt: skip


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"selection": 0.5}, "selection is a number, not an object"),
        ({"value": "high"}, "value is text, not a number"),
        ({"interval": [0.1]}, "interval is not two numbers"),
        ({"metric": None}, "metric is missing"),
        ({"model": []}, "model is a list, not an object"),
        ({"features": {"transform": {"size": [32]}}}, "features.transform.size is not two numbers"),
        ({"notes": [{}]}, "notes is an object, not text"),
    ],
)
def test_an_edited_result_is_one_line_that_names_the_field(tmp_path, changes, words):
    path = tmp_path / "knn.json"
    path.write_text(json.dumps(RESULT))
    assert "50.0 (40.0 to 60.0)" in compare([read_result(path)])
    path.write_text(json.dumps(RESULT | changes))
    with pytest.raises(ValueError, match=words):
        read_result(path)


@pytest.mark.parametrize("protocol", ["knn", "linear", "fewshot", "retrieval"])
def test_one_command_writes_one_result(common, tmp_path, capsys, protocol):
    evaluate.main([protocol, *common, "--dataset", "digits", "--output", str(tmp_path)])
    (path,) = tmp_path.glob("*.json")
    result = read_result(path)
    assert result["protocol"] == protocol and result["dataset"] == "digits" and result["split"] == "test"
    low, high = result["interval"]
    assert 0 <= low <= result["value"] <= high <= 1
    assert len(result["model"]["weights"]) == 16 and len(result["fingerprint"]) == 16
    assert result["versions"]["torch"] == torch.__version__.split("+")[0] and result["seconds"]["total"] > 0
    assert result["features"]["layers"] == (1 if protocol == "knn" else 4) and result["features"]["transform"][
        "size"
    ] == [16, 16]
    assert f"{100 * result['value']:.1f}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def partly_bad(tmp_path_factory):
    """20 + 20 images of two classes; of those to train on 8 cannot be read."""
    folder = tmp_path_factory.mktemp("partly_bad")
    for split, number in itertools.product(("train", "test"), range(20)):
        path = folder / split / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (12 * number, 99, 0)).save(path)
        if split == "train" and number < 8:
            path.write_bytes(b"no image")
    return folder


def test_more_unreadable_images_are_allowed_where_it_is_said(checkpoint, partly_bad, tmp_path):
    """By `features`, a protocol and a suite; the error names the files; what a lax share let pass is not reused."""
    data = ["--model", checkpoint, "--dataset", str(partly_bad), "--cache_dir", str(tmp_path / "cache")]
    written, lax = tmp_path / "features.safetensors", ["--max_bad_share", "0.4"]
    features.main([*data, "--output", str(written), *lax])
    assert load_file(written)["features"].shape[0] == 12
    evaluate.main(["knn", *data, "--k", "1", "--output", str(tmp_path), *lax])
    (path,) = tmp_path.glob("*.json")
    assert read_result(path)["data"]["train_images"] == 12
    words = r"6 of 20 images cannot be read .* 0\.01 \(--max_bad_share allows more\): .*a/00\.png, .*a/02\.png, "
    for command in (lambda: features.main([*data, "--output", str(written)]), lambda: evaluate.main(["knn", *data])):
        with pytest.raises(RunStopped, match=words) as stopped:  # as pretrain and pack end
            command()
        assert stopped.value.code == 3
    with pytest.raises(UserError, match=r"max_bad_share must lie in \[0, 1\], not 2"):
        features.main([*data, "--output", str(written), "--max_bad_share", "2"])
    suite = ["suite", "--model", checkpoint, "--suite", "dtd", "--source", f"dtd={partly_bad}", "--protocol", "knn"]
    suite += ["--output", str(tmp_path / "suite"), "--cache_dir", str(tmp_path / "cache"), "--k", "1"]
    evaluate.main([*suite, *lax])
    with pytest.raises(RunStopped):
        evaluate.main(suite)


def test_the_largest_number_of_pixels_is_an_option_and_part_of_what_is_cached(checkpoint, tmp_path):
    for number in range(6):
        Image.new("RGB", (16 + 4 * (number == 5), 16), (40 * number, 9, 9)).save(tmp_path / f"{number}.png")
    written = tmp_path / "out" / "features.safetensors"
    data = ["--model", checkpoint, "--dataset", str(tmp_path), "--cache_dir", str(tmp_path / "out" / "cache")]
    for flags, rows in (([], 6), (["--max_pixels", "256"], 5), (["--max_pixels", "320"], 6)):
        features.main([*data, "--output", str(written), *flags])
        assert load_file(written)["features"].shape[0] == rows
    with pytest.raises(RunStopped, match=r"20 x 16 pixels, allowed are 319 \(--max_pixels allows more\)"):
        features.main([*data, "--output", str(written), "--max_pixels", "319", "--max_bad_share", "0"])


def test_an_image_size_of_two_numbers_is_height_and_width(common, tmp_path):
    """A square given by two is the one given by one, in the cache and in the result, as before."""
    assert FeatureOptions(image_size=(32, 32)) == FeatureOptions(image_size=[32]) == FeatureOptions(image_size=32)
    assert FeatureOptions(image_size=(32, 32)).image_size == 32
    data = [*common, "--limit", "20", "--dataset", "digits"]
    written = []
    for sides in (["16", "32"], ["32", "16"]):
        features.main([*data, "--image_size", *sides, "--output", str(tmp_path / "f.safetensors")])
        written.append(load_file(tmp_path / "f.safetensors")["features"])
    assert written[0].shape == written[1].shape and not torch.allclose(*written, atol=1e-3)
    evaluate.main(["knn", *data, "--k", "1", "--image_size", "16", "32", "--output", str(tmp_path)])
    result = read_result(tmp_path / "knn-digits-test-16x32px.json")
    assert result["features"]["image_size"] == [16, 32] == result["features"]["transform"]["size"]
    assert "16 x 32 px" in compare([result])


def test_choosing_on_test_is_marked_in_file_name_and_table(common, tmp_path, capsys):
    arguments = ["knn", *common, "--dataset", "digits", "--k", "5", "20", "--output", str(tmp_path)]
    evaluate.main(arguments)
    evaluate.main([*arguments, "--selection", "test"])
    names = sorted(path.name for path in tmp_path.glob("*.json"))
    assert names == ["knn-digits-test-chosen-on-test.json", "knn-digits-test.json"]
    capsys.readouterr()
    evaluate.main(["compare", *(str(tmp_path / name) for name in names)])
    shown = capsys.readouterr().out
    assert "chosen on test" in shown and "chosen on validation" in shown


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nearest"], "there is no protocol 'nearest'"),
        (["knn", "--dataset", "digits"], "--model"),
        (["knn", "--model", "MODEL", "--dataset", "digits", "--k", "0"], "k must be at least 1"),
        (["knn", "--model", "MODEL", "--dataset", "digits", "--layers", "9"], "has 4 blocks, not 9"),
        (["knn", "--model", "MODEL", "--dataset", "digits", "--layers", "0"], "layers must be at least 1"),
        (["knn", "--model", "MODEL", "--dataset", "digits", "--image_size", "18"], "16 or 20"),
        (["knn", "--model", "MODEL", "--dataset", "digits", "--image_size", "1", "2", "3"], "height width"),
        (["knn", "--model", "MODEL", "--dataset", "digits", "--image_size", "16", "0"], "of at least 1"),
        (["finetune", "--model", "MODEL", "--dataset", "digits", "--image_size", "16", "32"], "arguments: 32"),
        (["knn", "--model", "MODEL", "--dataset", "digits", "--test_split", "train"], "different splits"),
        (["knn", "--model", "MODEL", "--dataset", "./nowhere"], "no folder or file"),
        (["linear", "--model", "MODEL", "--dataset", "digits", "--streaming", "maybe"], "streaming"),
        (["linear", "--model", "MODEL", "--dataset", "digits", "--solver", "lbfgs", "--images", "augmented"], "sgd"),
        (["suite", "--model", "MODEL", "--output", "OUT", "--suite", "all"], "there is no suite"),
        (["suite", "--model", "MODEL", "--output", "OUT", "--source", "dtd"], "KEY=DATASET"),
        (["suite", "--model", "MODEL", "--output", "OUT", "--source", "aid=x"], "not in the suite"),
        (["compare", "nowhere.json"], "no file"),
    ],
)
def test_mistakes_end_in_one_line(checkpoint, tmp_path, argv, words):
    names = {"MODEL": checkpoint, "OUT": str(tmp_path)}
    cache = ["--cache_dir", str(tmp_path)] if "--model" in argv else []
    with pytest.raises(UserError, match=words):
        evaluate.main([*(names.get(word, word) for word in argv), *cache])


def test_a_suite_names_what_it_cannot_reach_writes_the_rest_and_resumes(common, tmp_path, capsys):
    arguments = ["suite", *common, "--suite", "dtd,cifar10,aircraft", "--protocol", "knn", "--output", str(tmp_path)]
    with pytest.raises(RunStopped, match=r"2 data sets were not reached, as said above: cifar10, aircraft$") as info:
        evaluate.main([*arguments, "--source", "dtd=digits", "--source", "cifar10=./nowhere"])
    assert info.value.code == 3
    first = tmp_path / "knn-dtd.json"
    assert read_result(first)["entry"] == "dtd" and "DTD" in (tmp_path / "table.md").read_text()
    stamp = first.stat().st_mtime_ns
    capsys.readouterr()
    evaluate.main([*arguments, "--source", "dtd=digits", "--source", "cifar10=digits", "--source", "aircraft=digits"])
    said = capsys.readouterr().err
    assert first.stat().st_mtime_ns == stamp and "dtd: taken from knn-dtd.json" in said
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["knn-aircraft", "knn-cifar10", "knn-dtd"]
    evaluate.main([*arguments, "--k", "5", *(f"--source={key}=digits" for key in ("dtd", "cifar10", "aircraft"))])
    assert read_result(first)["settings"]["k"] == 5  # another request is measured anew


def test_a_result_that_was_cut_off_is_measured_anew(common, tmp_path):
    (tmp_path / "knn-dtd.json").write_text('{"protocol": "knn", "val')
    arguments = ["suite", *common, "--suite", "dtd", "--protocol", "knn", "--output", str(tmp_path)]
    evaluate.main([*arguments, "--source", "dtd=digits"])
    assert 0 < read_result(tmp_path / "knn-dtd.json")["value"] < 1


def test_a_data_set_with_one_split_is_shared_out(common, tmp_path):
    data = ["--dataset", "digits", "--train_split", "train", "--test_split", "train", "--train_share", "0.1"]
    evaluate.main(["knn", *common, *data, "--output", str(tmp_path)])
    (path,) = tmp_path.glob("*.json")
    assert read_result(path)["data"]["train_share"] == 0.1


def test_published_figures_stand_beside_results_of_the_same_protocol(common, tmp_path):
    arguments = ["suite", *common, "--suite", "cifar10", "--output", str(tmp_path), "--source", "cifar10=digits"]
    evaluate.main([*arguments, "--epochs", "2"])
    result = read_result(tmp_path / "linear-cifar10.json")
    table = compare([result])
    assert "| I-JEPA H/14, 300 epochs | published; learning rate chosen on test | 97.2 |" in table
    assert "stable-pretraining" not in table and "I-JEPA" not in compare([result], "none")
    every = compare([result], "all")
    assert "24.9*" in every and "another metric than ours" in every
    assert "I-JEPA" not in compare([result | {"protocol": "knn"}])
    chests = result | {"entry": "chestxray", "metric": "exact_match"}
    assert "| VISReg B/16 | published; learning rate chosen on test | 24.9 |" in compare([chests])
    assert (24.88 in {figure for _row, figure in published_figures(chests)}) and not published_figures(
        chests | {"metric": "macro_auroc"}
    )


def test_tables_name_data_sets_and_suites_that_exist():
    assert {key for keys in SUITES.values() for key in keys} <= ENTRIES.keys()
    assert {key for row in PUBLISHED for key in row.figures} <= ENTRIES.keys()
    averages = {row.method: sum(list(row.figures.values())[:8]) / 8 for row in PUBLISHED if row.suite == "in_domain"}
    assert averages["VISReg B/16, 400 epochs"] == pytest.approx(79.1, abs=0.1)
    assert averages["I-JEPA H/14, 300 epochs"] == pytest.approx(78.7, abs=0.1)


def test_the_training_images_of_a_run_are_known(checkpoint, shared_cache, tmp_path):
    """`--train_images run` takes the subset that the run learned from, by its seed; results say which."""
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / "model")
    recipe = {"dataset": "digits", "split": "train", "fraction": 0.1, "seed": 5}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["knn", "--dataset", "digits", "--cache_dir", str(shared_cache.folder), "--output", str(tmp_path)]
    evaluate.main([*arguments, "--model", str(run), "--train_images", "run"])
    result = read_result(tmp_path / "knn-digits-test-subset.json")
    expected = open_stream("digits", subset=Subset(fraction=0.1, seed=5))
    assert result["data"]["train"]["fingerprint"] == expected.fingerprint
    assert result["data"]["train_images"] == expected.num_examples == round(0.1 * 1437)
    task = load_task(
        open_backbone(checkpoint), Sources(expected, open_stream("digits", split="test")),
        FeatureOptions(layers=1), shared_cache,
    )  # fmt: skip
    assert result["value"] == pytest.approx(knn_accuracy(*task.train[:2], *task.test[:2]))
    evaluate.main([*arguments, "--model", str(run / "model")])
    whole = read_result(tmp_path / "knn-digits-test.json")
    rows = [
        line for line in compare([whole, result | {"model": whole["model"]}]).splitlines() if "nothing chosen" in line
    ]
    assert len(rows) == 2 and "1,437 train" in rows[0] and "144 train" in rows[1]
    for more, words in (
        (["--model", checkpoint], "no run folder"),
        (["--model", str(run), "--dataset", "org/other"], "learned from digits"),
        (["--model", str(run), "--train_list", str(run / "recipe.yaml")], "no --train_list"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate.main([*arguments, "--train_images", "run", *more])


def test_results_stand_in_one_row_only_where_they_were_measured_alike():
    """Solver, layers, resolution, training images and weights: each makes a row of its own."""
    result = {
        "protocol": "linear", "dataset": "org/a", "split": "test", "metric": "accuracy", "value": 0.5,
        "model": {"name": "m", "weights": "1" * 16}, "selection": {"on": "validation"},
        "settings": {"solver": "sgd"}, "features": {"layers": 4, "transform": {"size": [224, 224]}},
        "data": {"train": {"fingerprint": "x"}, "test": {"fingerprint": "y"}, "train_images": 9469, "test_images": 9},
    }  # fmt: skip
    other = result | {"dataset": "org/b", "data": {"train": {"fingerprint": "z"}, "train_images": 70}}
    changes = [
        {"settings": {"solver": "lbfgs"}},
        {"features": {"layers": 1, "transform": {"size": [224, 224]}}},
        {"features": {"layers": 4, "transform": {"size": [160, 160]}}},
        {"data": result["data"] | {"train": {"fingerprint": "w"}, "train_images": 1500}},
        {"model": {"name": "m", "weights": "2" * 16}},
        {"selection": {"on": "test"}},
    ]

    def rows(*results) -> list[str]:
        return [line for line in compare(results, "none").splitlines() if line.startswith("| m")][1:]

    assert (
        rows(result, other, result | {"value": 0.6})[0].endswith("| 60.0 | 50.0 |") and len(rows(result, other)) == 1
    )
    for change in changes:
        shown = rows(result, other, result | change | {"value": 0.6})
        first_column = [cell for line in shown if (cell := line.split("|")[3].strip())]
        assert sorted(first_column) == ["50.0", "60.0"], change
    names = [
        file_name(result | change) for change in ({}, *changes[:2], {"features": {"layers": 4, "image_size": 160}})
    ]
    assert names == ["linear-a-test", "linear-a-test-lbfgs", "linear-a-test-1-blocks", "linear-a-test-160px"]


def test_features_command(common, tmp_path):
    out = tmp_path / "features.safetensors"
    features.main([*common, "--dataset", "digits", "--split", "test", "--output", str(out)])
    from safetensors import safe_open

    with safe_open(out, "pt") as file:
        assert file.get_tensor("features").shape == (300, 128)
        assert json.loads(file.metadata()["record"])["data"]["dataset"] == "digits"
    with pytest.raises(UserError, match=r"\.safetensors or \.parquet or \.csv or \.npz, not"):
        features.main([*common, "--dataset", "digits", "--output", "x.txt"])


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (features, ["--dataset", "digits", "--output", "OUT/f.safetensors"]),
        (evaluate, ["knn", "--dataset", "digits"]),
        (visualize, ["map", "--dataset", "digits", "--output", "OUT/map.png"]),
    ],
)
def test_a_model_that_lacks_weights_gives_no_numbers(checkpoint, tmp_path, command, argv):
    """They would be those of random weights."""
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.2.mlp.fc1.weight"]
    save_file(weights, folder / "model.safetensors")
    where = ["--model", str(folder), "--cache_dir", str(tmp_path / "cache")]
    with pytest.raises(UserError, match=r"missing encoder\.layer\.2\.mlp\.fc1\.weight") as caught:
        command.main([*(word.replace("OUT", str(tmp_path)) for word in argv), *where])
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
