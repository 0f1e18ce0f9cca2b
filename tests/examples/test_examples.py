# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The examples run as a user runs them, on real digits and photos, and what they say is true.

tests/test_docs.py runs them as the guides do; objective_in_your_own_loop.py is run by tests/objective/test_example.py.
"""

import ast
import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from threadpoolctl import threadpool_limits
from transformers import AutoImageProcessor, AutoModel

from modeling_visreg import VISRegViTConfig, VISRegViTModel, save_checkpoint
from visreg_training.data import open_stream


EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLIC = ("modeling_visreg", "visreg_training.pretrain")
PUBLIC += tuple(f"visreg_training.{face}" for face in ("backbones", "data", "evaluation", "objective"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(name, *arguments) -> what an example prints, in a folder with a small random model in `model`."""
    torch.manual_seed(0)
    config = VISRegViTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=16, patch_size=4)
    save_checkpoint(VISRegViTModel(config), tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    def call(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with threadpool_limits(1):  # networks this small lose by threads
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return call


def last_number(text: str) -> float:
    return float(re.findall(r"\d+\.\d+", text)[-1])


@pytest.mark.cpu  # a GPU convolves in TF32
def test_features_are_those_of_the_model(run):
    run("extract_features.py", "digits", "--split", "test", "--model", "model", "--batch_size", "100")
    rows = Dataset.from_parquet("features.parquet").with_format("torch")
    images, labels, ids = zip(*open_stream("digits", split="test").examples(), strict=True)
    assert rows["label"][:].tolist() == list(labels) and list(rows.with_format(None)["id"]) == list(ids)
    processor, model = AutoImageProcessor.from_pretrained("model"), AutoModel.from_pretrained("model").eval()
    with torch.no_grad():
        expected = model(**processor(list(images[-3:]), return_tensors="pt")).pooler_output
    torch.testing.assert_close(torch.stack(list(rows["features"][-3:])), expected, atol=1e-5, rtol=1e-5)


def test_classifiers_learn(run):
    """Chance is 0.1; random features hold much of what a probe needs on digits."""
    assert last_number(run("classify_with_a_linear_probe.py", "digits", "--model", "model")) > 0.6
    said = run("fine_tune_with_trainer.py", "--model", "model", "--epochs", "3", "--learning_rate", "3e-3")
    assert last_number(re.search(r"accuracy on the test images \S+", said)[0]) > 0.3
    assert AutoModel.from_pretrained("finetuned/model").config.id2label[9] == "9"


def test_pretraining_examples_train(run):
    said = run("pretrain_on_your_images.py", "--epochs", "0.1", "--num_workers", "0")
    assert "features (1, 192)" in said and json.loads(Path("out/summary.json").read_text())["steps"] == 2
    said = run("continue_from_a_checkpoint.py", "--checkpoint", "model", "--epochs", "0.2")
    assert "chosen for these images" in said and 0 < last_number(said) < 50
    assert AutoModel.from_pretrained("adapted/model").config.hidden_size == 48
    said = run("adapt_a_backbone.py", "--start", "model", "--output_dir", "both", "--epochs", "0.1")
    assert "learning_rate" in said and 0.5 < last_number(said) < 1.001


def test_first_hour(tmp_path):
    """The notebook's cells in order, in one interpreter; with fewer epochs only its promises of a trained model go."""
    path = EXAMPLES / "first_hour.ipynb"
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert path.stat().st_size < 200_000 and all(cell["outputs"] or "import" in cell["source"][0] for cell in cells)
    source = "\n".join("".join(cell["source"]) for cell in cells)
    assert "EPOCHS = 5" in source and not re.search(r"^[%!]", source, re.MULTILINE)
    script = tmp_path / "first_hour.py"
    script.write_text(source.replace("EPOCHS = 5", "EPOCHS = 0.1"))
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=single, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [float(rank) for rank in re.findall(r"rank (\S+)", done.stdout)]
    assert "accuracy on held-out digits" in done.stdout and len(ranks) == 2


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short_and_public(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 80
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(("visreg", "modeling")):
            assert node.module in PUBLIC
            names = getattr(importlib.import_module(node.module), "__all__", ["pretrain"])
            assert {alias.name for alias in node.names} <= set(names)
