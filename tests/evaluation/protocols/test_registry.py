# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A protocol is one file: command line, suites and result files follow from it."""

import sys

import pytest

from visreg_training.commands import evaluate
from visreg_training.evaluation import protocols
from visreg_training.evaluation.reports.results import read_result
from visreg_training.option import declared


MAJORITY = """
from dataclasses import dataclass

import torch

from visreg_training.evaluation.outcome import Outcome, score
from visreg_training.evaluation.protocols import Protocol, on_features
from visreg_training.option import POSITIVE, option


@dataclass(frozen=True)
class MajorityOptions:
    certainty: float = option(1.0, "of the answer", POSITIVE)


def majority(task, options, device) -> Outcome:
    counts = task.train.labels.bincount(minlength=task.num_classes) * options.certainty
    return score(counts.expand(len(task.test.labels), -1), task.test.labels)


PROTOCOL = Protocol("the most frequent class", MajorityOptions, on_features(majority))
"""


@pytest.mark.parametrize("name", protocols.protocol_names())
def test_every_protocol_has_a_title_and_options_that_can_be_made_into_flags(name):
    protocol = protocols.get_protocol(name)
    assert protocol.title and protocols.name_of(protocol.options()) == name
    assert [spec.name for spec in declared(protocol.options)] == list(protocol.options.__dataclass_fields__)


@pytest.fixture
def majority(tmp_path, monkeypatch):
    """Another file in the folder of protocols."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "majority.py").write_text(MAJORITY)
    monkeypatch.setattr(protocols, "__path__", [*protocols.__path__, str(tmp_path / "code")])
    yield
    sys.modules.pop(f"{protocols.__name__}.majority", None)


def test_another_file_is_another_protocol(majority, checkpoint, shared_cache, tmp_path, capsys):
    common = ["--model", checkpoint, "--cache_dir", str(shared_cache.folder), "--limit", "300", "--certainty", "2"]
    evaluate.main(["majority", *common, "--dataset", "digits", "--output", str(tmp_path / "one.json")])
    suite = ["--protocol", "majority", "--suite", "dtd", "--source", "dtd=digits", "--output", str(tmp_path / "suite")]
    evaluate.main(["suite", *common, *suite])
    found = [read_result(path) for path in (tmp_path / "one.json", tmp_path / "suite" / "majority-dtd.json")]
    assert found[0]["value"] == found[1]["value"] == pytest.approx(0.1, abs=0.05)
    assert found[1]["request"]["options"] == {"certainty": 2.0}
    evaluate.main(["--help"])
    assert "the most frequent class" in capsys.readouterr().out
