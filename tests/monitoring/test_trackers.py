# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a tracker of Accelerate is given, read back from the file that it wrote."""

import json
import struct
from pathlib import Path

import pytest
from accelerate import Accelerator

from helpers import forked
from visreg_training.errors import UserError
from visreg_training.pretrain import pretrain


def events(path: Path, event: type):
    """The records of an event file: length, its checksum, content, its checksum."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length


def test_tensorboard_is_given_what_metrics_jsonl_holds(tmp_path):
    kind = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX").Event
    changes = {"mixed_precision": "bf16", "eval_split": "test", "probe_images": 50, "probe_every": 4}
    recipe = forked.write_recipe(tmp_path / "small.yaml", epochs=None, max_steps=4, **changes)
    folder = tmp_path / "run"
    Accelerator(cpu=True, mixed_precision="no")  # as an earlier run in this program, of another precision, leaves it
    pretrain(config=recipe, output_dir=str(folder), log_every=2, report_to="tensorboard")
    seen = {}
    for path in folder.rglob("events.out.tfevents.*"):
        for event in events(path, kind):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    seen.setdefault(event.step, {})[value.tag] = value.simple_value
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "held_out_knn" in row) for row in rows] == [(2, False), (4, True)]
    for row in rows:
        expected = {name: value for name, value in row.items() if name != "step" and value is not None}
        assert {name: seen[row["step"]][name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_tracker_that_is_not_there_is_named_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match=r"'wandbb' is not installed; here are .*tensorboard"):
        pretrain(dataset="digits", output_dir=str(tmp_path / "run"), report_to="wandbb")
    assert not (tmp_path / "run").exists()
