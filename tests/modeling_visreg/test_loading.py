# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The gate: a checkpoint directory of anybody's gives every weight from its files, or one line; it runs nothing."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_visreg import VISRegViTForImageClassification, VISRegViTForPreTraining, VISRegViTModel, save_checkpoint
from modeling_visreg.conversion import read_tensors
from modeling_visreg.loading import host_memory, load_checkpoint, read_config


@pytest.fixture
def folder(small_config, tmp_path) -> Path:
    return save_checkpoint(VISRegViTModel(small_config()), tmp_path / "checkpoint")


def refused(folder: Path, kind=VISRegViTModel) -> str:
    with pytest.raises(ValueError) as caught:
        load_checkpoint(kind, folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    return message


@pytest.mark.parametrize("kind", [VISRegViTModel, VISRegViTForPreTraining, VISRegViTForImageClassification])
def test_every_class_comes_back_and_its_backbone_too(small_config, tmp_path, kind):
    model = kind(small_config(num_labels=5) if kind is VISRegViTForImageClassification else small_config())
    save_checkpoint(model, tmp_path / "out")
    loaded = load_checkpoint(kind, tmp_path / "out")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not loaded.training and all(parameter.requires_grad for parameter in loaded.parameters())
    backbone = load_checkpoint(VISRegViTModel, tmp_path / "out", dtype=torch.bfloat16)
    assert torch.equal(backbone.layernorm.weight, model.base_model.layernorm.weight.bfloat16())


def test_what_no_checkpoint_holds_is_made_of_the_configuration(small_config, tmp_path):
    model = VISRegViTForPreTraining(small_config(drop_path_rate=0.3))
    loaded = load_checkpoint(VISRegViTForPreTraining, save_checkpoint(model, tmp_path / "model"))
    expected, found = dict(model.named_buffers()), dict(loaded.named_buffers())
    assert "vit.encoder.drop_path_table" in found and expected.keys() == found.keys()
    assert all(torch.equal(found[name], table) for name, table in expected.items())


def test_shards_come_back_whole(small_config, tmp_path):
    model = VISRegViTModel(small_config())
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load_checkpoint(VISRegViTModel, tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


CONFIGURATIONS = {
    "huge depth": ({"num_hidden_layers": 10**6}, "num_hidden_layers must be from 1 to 1024"),
    "huge width": ({"hidden_size": 10**9}, "hidden_size must be from 1 to"),
    "other depth": ({"num_hidden_layers": 4}, "missing encoder.layer.3"),
    "fewer blocks": (
        {"num_hidden_layers": 2, "out_features": None, "out_indices": None},
        "unexpected encoder.layer.2",
    ),
    "other width": ({"hidden_size": 64}, r"misshapen"),
    "text for a number": ({"hidden_size": "32"}, "hidden_size"),
    "a list for a number": ({"patch_size": [8, 8]}, "patch_size"),
    "null": ({"num_attention_heads": None}, "num_attention_heads"),
    "three sides": ({"image_size": [32, 32, 32]}, "image_size"),
    "unknown activation": ({"hidden_act": "os.system"}, "hidden_act"),
    "no deviation": ({"initializer_range": -1.0}, "initializer_range must be in [0, inf); got -1.0"),
    "no epsilon": ({"layer_norm_eps": 3.0}, "layer_norm_eps must be in [0, 1); got 3.0"),
    "not a number": ({"hidden_dropout_prob": float("nan")}, "NaN is no number"),
    "another family": ({"model_type": "vit"}, "not of a VISReg ViT"),
    "kernels of the Hub": ({"attn_implementation": "evil/kernels"}, "names code on the Hub"),
    "labels that are none": ({"id2label": ["a", "b"]}, "config.json"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_odd_configurations_are_one_line(folder, name):
    changes, words = CONFIGURATIONS[name]
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert words in refused(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 100_000, '{"a": ' * 50_000, "\x00\xff" * 9])
def test_what_is_no_configuration_is_one_line(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in refused(folder)


def test_a_pipe_and_a_giant_are_no_configuration(folder):
    path = folder / "config.json"
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in refused(folder)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)  # holes: it takes no room
    assert "at most 16 MiB" in refused(folder)


def test_keys_that_are_not_ours_do_nothing(folder):
    path = folder / "config.json"
    foreign = {"quantization_config": {"quant_method": "gptq"}, "auto_map": {"AutoModel": "evil/repo--m.M"}, "x": 1}
    path.write_text(json.dumps(json.loads(path.read_text()) | foreign))
    config = read_config(folder)
    assert not hasattr(config, "quantization_config") and not hasattr(config, "x")
    assert config.auto_map["AutoModel"] == "modeling_visreg.VISRegViTModel"
    load_checkpoint(VISRegViTModel, folder)


def edited(folder: Path, change) -> str:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    return refused(folder)


def test_weights_that_are_missing_unexpected_misshapen_or_not_finite_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "second")
    shutil.copytree(folder, tmp_path / "third")
    shutil.copytree(folder, tmp_path / "fourth")
    shutil.copytree(folder, tmp_path / "fifth")
    assert "missing layernorm.bias" in edited(folder, lambda weights: weights.pop("layernorm.bias"))
    assert "unexpected evil" in edited(tmp_path / "second", lambda weights: weights.update(evil=torch.zeros(3)))
    scalar = {"layernorm.bias": torch.zeros(())}
    assert "layernorm.bias () instead of (32,)" in edited(tmp_path / "third", lambda weights: weights.update(scalar))
    nan = {"layernorm.bias": torch.full((32,), torch.nan)}
    assert "not finite: layernorm.bias" in edited(tmp_path / "fourth", lambda weights: weights.update(nan))
    whole = {"layernorm.bias": torch.zeros(32, dtype=torch.int64)}
    assert "layernorm.bias (I64)" in edited(tmp_path / "fifth", lambda weights: weights.update(whole))


HEADER = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
DAMAGE = {
    "empty": lambda data: b"",
    "cut header": lambda data: data[:100],
    "cut body": lambda data: data[:-100],
    "longer": lambda data: data + b"more",
    "a pickle": lambda data: b"\x80\x04cos\nsystem\n.",
    "zeros": lambda data: bytes(1000),
    "a header of 2^60 bytes": lambda data: (1 << 60).to_bytes(8, "little") + data[8:],
    "four terabytes": lambda data: len(HEADER).to_bytes(8, "little") + HEADER,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_weights_are_one_line(folder, name):
    path = folder / "model.safetensors"
    path.write_bytes(DAMAGE[name](path.read_bytes()))
    message = refused(folder)
    assert "model.safetensors cannot be read" in message or "missing" in message


def test_no_weights_and_weights_of_another_form(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "has no model.safetensors" in refused(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "nowhere.safetensors", "config.json"])
def test_an_index_names_files_beside_it_only(folder, name):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "no file of weights beside it" in refused(folder)


class Evil:
    """Unpickled, it makes a file: what code in a checkpoint could do."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_file_of_weights_runs_no_code(tmp_path):
    for suffix, legacy in ((".pth", False), (".pt", True)):
        path = tmp_path / f"evil{suffix}"
        torch.save({"a": Evil(tmp_path / "mark")}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match="not a file of tensors") as caught:
            read_tensors(path)
        assert "weights_only" not in str(caught.value), "torch advises to run the code all the same"
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("content", [b"", b"P", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)])
def test_files_that_are_no_weights_are_one_line(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [torch.eye(3).to_sparse(), torch.empty(3, device="meta"), 3, torch.tensor([1.0, torch.inf])],
    ids=["sparse", "meta", "number", "infinite"],
)
def test_tensors_without_their_numbers_are_refused(tmp_path, entry):
    torch.save({"a": entry}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"not tensors: a|not finite: a"):
        read_tensors(tmp_path / "weights.pth")


def holes(folder: Path, config, kind: str) -> None:
    """Weights of the right names and shapes, all holes: they take no room on the disk."""
    with torch.device("meta"):
        tensors = VISRegViTModel(config).state_dict()
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + {"F16": 2, "F32": 4}[kind] * tensor.numel()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize(
    "kind, words",
    [("F16", r"take [\d,.]+ GiB, and this machine has"), ("F32", "GiB, and this machine|cannot be read")],
)
def test_weights_beyond_the_memory_are_not_read(small_config, tmp_path, kind, words):
    """In 16 bits they could be mapped, but not held in 32."""
    width = 8192
    depth = host_memory() // (4 * 12 * width**2) + 1
    config = small_config(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=64, intermediate_size=None, out_indices=None
    )
    config.save_pretrained(tmp_path)
    holes(tmp_path, config, kind)
    assert re.search(words, refused(tmp_path))


@pytest.mark.parametrize("kind", [torch.int32, torch.complex64, torch.float8_e5m2])
def test_weights_of_another_type_are_not_converted(tmp_path, small_config, kind):
    from modeling_visreg import convert_checkpoint, to_released

    model = save_checkpoint(VISRegViTModel(small_config()), tmp_path / "model")
    weights = torch.load(to_released(model, tmp_path / "w.pth"), weights_only=True)
    torch.save({name: tensor.to(kind) for name, tensor in weights.items()}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=rf"not of floating point: cls_token \({kind}\)"):
        convert_checkpoint(tmp_path / "odd.pth", tmp_path / "out", num_attention_heads=4)
    assert not (tmp_path / "out").exists()


def test_blocks_are_numbered_without_a_gap(tmp_path, small_config):
    from modeling_visreg import convert_checkpoint, to_released

    model = save_checkpoint(VISRegViTModel(small_config()), tmp_path / "model")
    weights = load_file(to_released(model, tmp_path / "w.safetensors"))
    save_file(weights | {"blocks.999999999.norm1.weight": torch.zeros(32)}, tmp_path / "gap.safetensors")
    with pytest.raises(ValueError, match="are not numbered from 0 on"):
        convert_checkpoint(tmp_path / "gap.safetensors", tmp_path / "out", num_attention_heads=4)
    assert not (tmp_path / "out").exists()
