# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Exported files: any batch and size, the features of torch."""

import numpy as np
import onnxruntime
import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file, save_file
from torch import nn

from modeling_visreg import VISRegViTConfig, VISRegViTForImageClassification, VISRegViTModel, save_checkpoint
from modeling_visreg.modeling_visreg import resampling_matrix
from visreg_hub_cards import export
from visreg_training.commands.export import main
from visreg_training.errors import UserError


@pytest.mark.parametrize("source, target", [(14, 14), (14, 6), (14, 20), (16, 7), (7, 16), (4, 9), (8, 1)])
def test_the_weights_are_those_of_torch(source, target):
    ours = export.cubic_weights(source, target, torch.device("cpu"))
    torch.testing.assert_close(ours, resampling_matrix(source, target, torch.device("cpu")), rtol=0, atol=1e-6)


@pytest.fixture
def rugged(run):
    """A run whose position embedding is far from smooth, so that a wrong resampling shows."""
    path = run / "model" / "model.safetensors"
    weights = load_file(path)
    name = "embeddings.position_embeddings"
    weights[name] = nn.init.normal_(weights[name], generator=torch.Generator().manual_seed(1))
    save_file(weights, path, {"format": "pt"})
    return run


needs_export = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.8"), reason="visreg export needs torch 2.8: 2.6 cannot trace transformers"
)


@needs_export
def test_onnx_gives_the_features_of_torch(rugged, tmp_path, capsys):
    main(["--model", str(rugged), "--output", str(tmp_path / "vit.onnx")])
    assert "largest difference" in capsys.readouterr().out
    model = VISRegViTModel.from_pretrained(rugged / "model").eval()
    session = onnxruntime.InferenceSession(tmp_path / "vit.onnx")
    shapes = {item.name: item.shape for item in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "pixel_values": ["batch", 3, "height", "width"],
        "last_hidden_state": ["batch", "tokens", 32],
        "pooler_output": ["batch", 32],
    }
    for shape in ((1, 3, 16, 16), (5, 3, 8, 28), (2, 3, 64, 12)):
        pixels = torch.randn(shape)
        hidden, pooled = session.run(["last_hidden_state", "pooler_output"], {"pixel_values": pixels.numpy()})
        with torch.no_grad():
            expected = model(pixels)
        np.testing.assert_allclose(hidden, expected.last_hidden_state.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), rtol=0, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "vit.onnx"]


@needs_export
def test_a_program_gives_the_features_of_torch(rugged, tmp_path):
    assert export.export_checkpoint(rugged / "model", tmp_path / "vit.pt2") < 1e-5
    model = VISRegViTModel.from_pretrained(rugged / "model").eval()
    program = torch.export.load(tmp_path / "vit.pt2").module()
    pixels = torch.randn(4, 3, 24, 8)
    torch.testing.assert_close(program(pixels)[1], model(pixels).pooler_output, rtol=0, atol=1e-5)


@needs_export
def test_a_file_that_is_not_right_is_not_kept(rugged, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "cubic_weights", lambda source, target, device: torch.eye(target, source))
    with pytest.raises(ValueError, match="differs from torch by"):
        export.export_checkpoint(rugged / "model", tmp_path / "vit.pt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first"]


def test_mistakes_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.onnx or \.pt2"):
        main(["--model", str(run), "--output", str(tmp_path / "vit.tflite")])


@needs_export
def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        main(["--model", str(tmp_path / "nowhere"), "--output", str(tmp_path / "vit.onnx")])


@needs_export
def test_weights_that_are_not_finite_are_not_exported(run, tmp_path):
    """NaN passes a comparison by max(): of it and a number, max gives whichever comes first."""
    path = run / "model" / "model.safetensors"
    weights = load_file(path)
    weights["layernorm.bias"][0] = torch.nan
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"not finite: layernorm\.bias"):
        main(["--model", str(run), "--output", str(tmp_path / "vit.pt2")])
    assert not (tmp_path / "vit.pt2").exists()


def test_a_difference_that_is_not_a_number_is_no_match(run):
    model = VISRegViTModel.from_pretrained(run / "model").eval()

    def broken(pixels):
        outputs = model(pixels)
        return outputs.last_hidden_state, outputs.pooler_output * torch.nan

    with torch.no_grad():
        assert export.largest_difference(model, broken) == float("inf")


@needs_export
def test_a_size_that_the_patch_does_not_divide_is_refused_and_a_head_is_named(tmp_path, capsys):
    config = VISRegViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=8)
    save_checkpoint(VISRegViTForImageClassification(config), tmp_path / "model")
    main(["--model", str(tmp_path / "model"), "--output", str(tmp_path / "model.onnx")])
    assert "left out: the classifier of this checkpoint" in capsys.readouterr().err
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    run = lambda height, width: session.run(None, {"pixel_values": np.zeros((1, 3, height, width), np.float32)})  # noqa: E731
    assert run(40, 24)[0].shape == (1, 16, 32)
    for height, width in ((33, 32), (32, 39)):
        with pytest.raises(Exception, match="cannot be reshaped"):
            run(height, width)
