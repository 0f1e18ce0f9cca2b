# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Accuracies before and after a run: measured alike, and comparable with those of `visreg evaluate`."""

import json

import pytest
import torch

from visreg_hub_cards import write_card
from visreg_training.backbones import open_backbone
from visreg_training.commands import evaluate
from visreg_training.pretrain import pretrain


pytestmark = pytest.mark.cpu


def rows_of(card) -> list[str]:
    return [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("| 20-NN")]


def test_a_card_pairs_a_run_on_a_part_with_results_of_the_same_part_only(tmp_path):
    """A run on a tenth of the images: `visreg evaluate` on all of them is a row of its own."""
    run, cache = tmp_path / "run", str(tmp_path / "cache")
    summary = pretrain(config="digits", output_dir=str(run), fraction=0.1, max_steps=2, num_workers=0)
    assert summary["evaluation"]["train_images"] == 144 and summary["evaluation"]["test_images"] == 360
    assert json.loads((run / "before.json").read_text())["train"] == summary["evaluation"]["train"]
    arguments = ["knn", "--model", str(run), "--dataset", "digits", "--cache_dir", cache]
    evaluate.main([*arguments, "--output", str(run / "evaluation")])
    evaluate.main([*arguments, "--output", str(run / "evaluation"), "--train_images", "run"])
    part, whole = sorted(rows_of(write_card(run)), key=lambda row: "1,437" in row)
    before, after = (100 * summary[f"knn_{role}"] for role in ("before", "after"))
    assert (
        f"learned from 144 images | digits (scikit-learn), test split (360 images) | {before:.1f}% | {after:.1f}% ("
        in part
    )
    assert "learned from 1,437 images" in whole and "(360 images) |  | " in whole


def test_the_start_is_measured_anew_where_the_training_images_changed(tmp_path):
    options = {"config": "digits", "output_dir": str(tmp_path), "num_workers": 0, "save_every": 1}
    pretrain(**options, max_steps=2, eval_images=300)
    first = json.loads((tmp_path / "before.json").read_text())
    (tmp_path / "model" / "config.json").unlink()  # as if it had been interrupted
    pretrain(**options, max_steps=2, eval_images=200, resume="auto")
    second = json.loads((tmp_path / "before.json").read_text())
    assert (first["train"]["limit"], second["train"]["limit"]) == (300, 200)
    assert first["train"]["fingerprint"] == second["train"]["fingerprint"]
    assert json.loads((tmp_path / "summary.json").read_text())["evaluation"]["train_images"] == 200


def test_a_model_that_gives_no_numbers_ends_in_one_line_before_the_first_step(tmp_path):
    run = tmp_path / "run"
    pretrain(config="digits", output_dir=str(run), max_steps=1, num_workers=0, eval_split=None)
    backbone = open_backbone(str(run))
    assert torch.isfinite(next(backbone.module.parameters())).all()
    with pytest.raises(ValueError, match="not finite"):
        backbone.module.layernorm.bias.fill_(float("nan"))
        backbone.module.save_pretrained(tmp_path / "broken")
        pretrain(
            config="digits", output_dir=str(tmp_path / "next"), initialize_from=str(tmp_path / "broken"), max_steps=1
        )
    assert not (tmp_path / "next" / "metrics.jsonl").exists()
