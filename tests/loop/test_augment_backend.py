# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`--augment_backend torchvision`: the reference pipeline colors in the workers, and the device does not again."""

import json

import pytest

from visreg_training.commands import preview
from visreg_training.data import DeviceAugment
from visreg_training.pretrain import pretrain


@pytest.fixture
def no_device_augment(monkeypatch):
    def refuse(*_given):
        raise AssertionError("colored on the device")

    monkeypatch.setattr(DeviceAugment, "apply_parameters", refuse)


def test_a_run_with_the_torchvision_backend(tmp_path, no_device_augment):
    small = {"num_hidden_layers": 1, "global_batch_size": 8, "num_slices": 8, "max_steps": 3, "num_workers": 1}
    summary = pretrain(dataset="digits", augment_backend="torchvision", output_dir=str(tmp_path / "run"), **small)
    assert 0 < summary["final_loss"] < 10 and 0 <= summary["data_wait"] <= 1
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == 3


def test_a_preview_of_it(tmp_path, no_device_augment, capsys):
    sheet = tmp_path / "sheet.png"
    preview.main(["--config", "digits", "--augment_backend", "torchvision", "--output", str(sheet), "--count", "2"])
    assert sheet.stat().st_size > 1000 and "2 x 16" in capsys.readouterr().out
