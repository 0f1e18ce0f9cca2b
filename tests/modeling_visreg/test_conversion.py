# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Released files to checkpoint directories and back: every accepted form, every mistake named, whole or absent."""

import importlib
import os
import stat
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from modeling_visreg import (
    VISRegViTForPreTraining,
    VISRegViTModel,
    config_from_timm_state_dict,
    convert_checkpoint,
    from_timm_state_dict,
    read_released,
    save_checkpoint,
    to_released,
    to_timm_state_dict,
)
from visreg_training.commands.convert import main as convert
from visreg_training.errors import UserError
from visreg_training.run_folder import CODE_FILES


@pytest.fixture
def model(small_config, randomize):
    return randomize(VISRegViTModel(small_config(hidden_size=64, num_attention_heads=1))).eval()


@pytest.fixture
def timm_weights(model):
    return to_timm_state_dict(model.state_dict(), model.config)


@pytest.fixture
def released_projector(randomize):
    layers = [nn.Linear(64, 48), nn.BatchNorm1d(48), nn.GELU(), nn.Linear(48, 48), nn.BatchNorm1d(48), nn.GELU()]
    projector = randomize(nn.Sequential(*layers, nn.Linear(48, 20)))
    projector(torch.randn(30, 64))  # moves the running statistics away from their start
    return projector.eval()


def as_training_checkpoint(timm_weights, projector, prefix=""):
    network = {f"{prefix}backbone.{name}": tensor for name, tensor in timm_weights.items()}
    network |= {f"{prefix}proj.{name}": tensor for name, tensor in projector.items()}
    return {"net_state_dict": network, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_released_backbone_converts_and_returns_identical(tmp_path, model, timm_weights, suffix):
    source, back = tmp_path / f"released{suffix}", tmp_path / f"deep/back{suffix}"
    torch.save(timm_weights, source) if suffix == ".pth" else save_file(timm_weights, source)
    directory = convert_checkpoint(source, tmp_path / "converted")
    files = {"config.json", "model.safetensors", *CODE_FILES}
    assert {file.name for file in directory.iterdir()} == files | {"preprocessor_config.json"}
    loaded = VISRegViTModel.from_pretrained(directory)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    to_released(directory, back)
    returned = read_released(back).backbone
    assert returned.keys() == timm_weights.keys()
    assert all(torch.equal(returned[name], timm_weights[name]) for name in timm_weights)
    assert [file.name for file in back.parent.iterdir()] == [back.name]


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_a_training_checkpoint_converts_with_its_projector(tmp_path, model, timm_weights, released_projector, prefix):
    source = tmp_path / "training.pth"
    torch.save(as_training_checkpoint(timm_weights, released_projector.state_dict(), prefix), source)
    directory = convert_checkpoint(source, tmp_path / "converted")
    pretrained = VISRegViTForPreTraining.from_pretrained(directory / "pretraining").eval()
    assert (pretrained.config.projector_hidden_size, pretrained.config.projection_size) == (48, 20)
    images = torch.rand(1, 4, 3, 16, 16)
    features = VISRegViTModel.from_pretrained(directory).eval()(images[0]).pooler_output
    assert torch.equal(features, model(images[0]).pooler_output)
    torch.testing.assert_close(pretrained([images]).projections[0], released_projector(features))


def test_a_projector_numbered_with_dropout_converts(tmp_path, timm_weights, released_projector):
    places = {"0": "0", "1": "1", "3": "4", "4": "5", "6": "8"}
    numbered = {}
    for name, tensor in released_projector.state_dict().items():
        number, _, kind = name.partition(".")
        numbered[f"{places[number]}.{kind}"] = tensor
    torch.save(as_training_checkpoint(timm_weights, numbered), tmp_path / "training.pth")
    directory = convert_checkpoint(tmp_path / "training.pth", tmp_path / "converted")
    pretrained = VISRegViTForPreTraining.from_pretrained(directory / "pretraining").eval()
    features = torch.randn(1, 4, 64)
    torch.testing.assert_close(pretrained.project(features, [1])[0], released_projector(features[0]))


def test_half_precision_weights_keep_their_dtype(tmp_path, timm_weights):
    half = {name: tensor.bfloat16() for name, tensor in timm_weights.items()}
    save_file(half, tmp_path / "half.safetensors")
    to_released(
        convert_checkpoint(tmp_path / "half.safetensors", tmp_path / "converted"), tmp_path / "back.safetensors"
    )
    back = load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in half.items())


def test_wrong_keys_are_all_named(timm_weights):
    config = config_from_timm_state_dict(timm_weights, num_attention_heads=1)
    wrong = dict(timm_weights)
    del wrong["blocks.1.attn.qkv.bias"], wrong["norm.weight"]
    wrong["head.weight"], wrong["cls_token"] = torch.zeros(10, 64), torch.zeros(1, 1, 63)
    with pytest.raises(ValueError, match="timm state dict do not fit") as error:
        from_timm_state_dict(wrong, config)
    message = str(error.value)
    assert "missing " in message and "blocks.1.attn.qkv.bias" in message and "norm.weight" in message
    assert "unexpected head.weight;" in message
    assert "misshapen cls_token (1, 1, 63) instead of (1, 1, 64)" in message
    assert "\n" not in message


def test_wrong_keys_of_our_model_are_named(model):
    state_dict = model.state_dict()
    state_dict["encoder.layer.0.attention.q_proj.weight"] = torch.zeros(64, 32)
    del state_dict["layernorm.bias"]
    with pytest.raises(ValueError, match=r"missing layernorm\.bias; misshapen encoder.*q_proj\.weight \(64, 32\)"):
        to_timm_state_dict(state_dict, model.config)


def test_a_model_without_qkv_bias_converts(small_config):
    config = small_config(qkv_bias=False)
    state_dict = VISRegViTModel(config).state_dict()
    theirs = to_timm_state_dict(state_dict, config)
    assert not any("qkv.bias" in name for name in theirs)
    assert config_from_timm_state_dict(theirs, num_attention_heads=4).qkv_bias is False
    assert from_timm_state_dict(theirs, config).keys() == state_dict.keys()


def test_an_unclear_architecture_is_asked_for(timm_weights, small_config):
    config = small_config(image_size=(16, 24))
    theirs = to_timm_state_dict(VISRegViTModel(config).state_dict(), config)
    with pytest.raises(ValueError, match="heads of a width of 32 is not known; pass num_attention_heads"):
        config_from_timm_state_dict(theirs)
    with pytest.raises(ValueError, match=r"6 positions are not a square grid; pass image_size=\(height, width\)"):
        config_from_timm_state_dict(theirs, num_attention_heads=4)
    inferred = config_from_timm_state_dict(theirs, num_attention_heads=4, image_size=(16, 24))
    assert (inferred.grid_size, inferred.num_hidden_layers, inferred.intermediate_size) == ((2, 3), 3, 128)
    del timm_weights["cls_token"]
    with pytest.raises(ValueError, match="it lacks cls_token"):
        config_from_timm_state_dict(timm_weights)


def test_foreign_files_are_refused(tmp_path, timm_weights, released_projector):
    path = tmp_path / "file.pth"
    torch.save(as_training_checkpoint(timm_weights, {})["net_state_dict"] | {"probe.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"neither backbone\. nor proj\.: probe\.weight"):
        read_released(path)
    torch.save({"cls_token": torch.zeros(1), "epoch": 3}, path)
    with pytest.raises(ValueError, match="these entries are not tensors: epoch"):
        read_released(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        read_released(path)
    torch.save({"model": released_projector}, path)  # a pickled module could run code
    with pytest.raises(ValueError, match="not a file of tensors and plain values"):
        read_released(path)
    path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="not a file of tensors and plain values"):
        read_released(path)
    with pytest.raises(ValueError, match=r"must end in \.pth, \.pt or \.safetensors"):
        read_released(tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda keys: keys.pop("4.running_mean"), r"the projector \(proj\.\) do not fit.*missing 4\.running_mean"),
        (lambda keys: keys.update({"3.scale": torch.ones(1)}), r"unexpected 3\.scale"),
        (lambda keys: keys.update({"8.weight": torch.ones(2, 2)}), "A projector is Linear, BN, Linear, BN, Linear"),
    ],
)
def test_a_strange_projector_leaves_no_directory(tmp_path, timm_weights, released_projector, change, message):
    projector = released_projector.state_dict()
    change(projector)
    torch.save(as_training_checkpoint(timm_weights, projector), tmp_path / "training.pth")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "training.pth", tmp_path / "converted")
    assert [file.name for file in tmp_path.iterdir()] == ["training.pth"]


def test_a_directory_in_use_is_kept_unless_asked(tmp_path, model, timm_weights):
    torch.save(timm_weights, tmp_path / "released.pth")
    target = tmp_path / "target"
    target.mkdir()
    save_checkpoint(model, target)  # an empty directory is free
    (target / "notes.txt").write_text("mine")
    for write in (
        lambda: save_checkpoint(model, target),
        lambda: convert_checkpoint(tmp_path / "released.pth", target),
    ):
        with pytest.raises(ValueError, match=r"target is not empty"):
            write()
    assert (target / "notes.txt").read_text() == "mine"
    save_checkpoint(model, target, overwrite=True)
    assert not (target / "notes.txt").exists() and (target / "model.safetensors").exists()
    with pytest.raises(ValueError, match=r"released\.pth exists"):
        to_released(target, tmp_path / "released.pth")
    with pytest.raises(ValueError, match=r"released\.pth is a file"):
        save_checkpoint(model, tmp_path / "released.pth")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["released.pth", "target"]


@pytest.mark.parametrize("name", ["notes.txt", "src/code.py", "pretraining/code.py"])
def test_a_conversion_that_overwrites_deletes_a_checkpoint_only(tmp_path, model, timm_weights, name):
    torch.save(timm_weights, tmp_path / "released.pth")
    target = convert_checkpoint(tmp_path / "released.pth", tmp_path / "target")
    assert convert_checkpoint(tmp_path / "released.pth", target, overwrite=True) == target
    mine = target / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(ValueError, match="is no part of a checkpoint, so it is not deleted"):
        convert_checkpoint(tmp_path / "released.pth", target, overwrite=True)
    assert mine.read_text() == "mine" and (target / "model.safetensors").exists()


def test_a_failed_save_leaves_what_was_there(tmp_path, model, small_config):
    target = save_checkpoint(model, tmp_path / "target")
    gray = VISRegViTModel(small_config(num_channels=1))
    with pytest.raises(ValueError, match="pass image_mean and image_std for 1"):
        save_checkpoint(gray, target, overwrite=True)  # fails after the weights are written
    assert [file.name for file in tmp_path.iterdir()] == ["target"]
    assert VISRegViTModel.from_pretrained(target).config.num_channels == 3


def test_a_directory_without_the_backbone_does_not_pass_for_one(tmp_path, model):
    directory = save_checkpoint(model, tmp_path / "model")
    weights = load_file(directory / "model.safetensors")
    del weights["encoder.layer.1.mlp.fc2.bias"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing encoder\.layer\.1\.mlp\.fc2\.bias"):
        to_released(directory, tmp_path / "back.pth")
    assert not (tmp_path / "back.pth").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_that_convert_writes_follow_the_umask(tmp_path, model, umask, mode):
    directory = save_checkpoint(model, tmp_path / "model")
    before = os.umask(umask)
    try:
        convert([str(directory), str(tmp_path / "back.safetensors")])
        convert([str(directory), str(tmp_path / "back.pth")])
        convert([str(tmp_path / "back.safetensors"), str(tmp_path / "again"), "--image_size", "32"])
    finally:
        os.umask(before)
    written = [tmp_path / "back.safetensors", tmp_path / "back.pth", *(tmp_path / "again").iterdir()]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in written} == dict.fromkeys(
        (path.name for path in written), mode
    )


def test_conversion_does_not_need_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # import timm raises
    importlib.reload(importlib.import_module("modeling_visreg.conversion"))


def test_files_of_other_trainers_convert_and_say_how(tmp_path, timm_weights, capsys):
    """A key, the module of Lightning around the network, a head, a size of two numbers: by the command."""
    names = {"classifier": {"head.weight": torch.zeros(3, 4), "head.bias": torch.zeros(3)}}
    files = {
        "keyed.pth": {"model": timm_weights, "epoch": 3},
        "lightning.pth": {"state_dict": {f"model.{name}": value for name, value in timm_weights.items()}, "epoch": 3},
        "headed.pth": timm_weights | names["classifier"],
        "beside.pth": {f"model.{name}": value for name, value in timm_weights.items()}
        | {"probe.weight": torch.ones(2)},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    refused = {
        "keyed.pth": "--key model takes one",
        "lightning.pth": "--key state_dict takes one",
        "headed.pth": "--drop_head",
        "beside.pth": "probe.weight; --drop_head",
    }
    flags = {"keyed.pth": ["--key", "model"], "lightning.pth": ["--key", "state_dict"]}
    for name, words in refused.items():
        arguments = [str(tmp_path / name), str(tmp_path / f"{name}.out")]
        with pytest.raises(UserError, match=words):
            convert(arguments)
        assert not (tmp_path / f"{name}.out").exists()
        convert([*arguments, *flags.get(name, ["--drop_head"]), "--image_size", "32", "32"])
        back = to_timm_state_dict(
            VISRegViTModel.from_pretrained(tmp_path / f"{name}.out").state_dict(),
            VISRegViTModel.from_pretrained(tmp_path / f"{name}.out").config,
        )
        assert back.keys() == timm_weights.keys()
        assert all(torch.equal(back[key], timm_weights[key]) for key in back)
    with pytest.raises(UserError, match=r"has no teacher: it holds epoch, model"):
        convert([str(tmp_path / "keyed.pth"), str(tmp_path / "none"), "--key", "teacher"])
    with pytest.raises(UserError, match="not 3 numbers"):
        convert([str(tmp_path / "keyed.pth"), str(tmp_path / "none"), "--image_size", "1", "2", "3"])
