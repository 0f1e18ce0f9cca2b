# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Every kind of model gives tokens after its final norm, in evaluation mode; timm's are those of our conversion."""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from modeling_visreg import (
    VISRegViTModel,
    config_from_timm_state_dict,
    from_timm_state_dict,
    image_processor_for,
    save_checkpoint,
)
from visreg_training.backbones import open_backbone, wrap_backbone
from visreg_training.backbones.transformers_backbone import build_transformers
from visreg_training.data import open_stream
from visreg_training.evaluation.cache import FeatureCache
from visreg_training.evaluation.options import FeatureOptions
from visreg_training.evaluation.protocols.knn import knn
from visreg_training.evaluation.protocols.linear import LinearOptions, linear
from visreg_training.evaluation.splits import Sources, load_task


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
}
FAMILIES = ("ViT", "Dinov2", "ViTMAE", "IJepa")


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
    """A model of transformers with random weights, saved: (name, module, what open_backbone gives)."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{request.param}Config")(**SIZES)
    module = getattr(transformers, f"{request.param}Model")(config).eval()
    module.save_pretrained(tmp_path)
    return request.param, module, open_backbone(str(tmp_path))


def test_transformers_families(family):
    name, module, model = family
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rows = model.embed(pixels, layers=4)
    assert rows.shape == (3, 128)
    assert torch.equal(rows, model.embed(pixels, layers=4))  # ViT-MAE masks at random, unless told not to
    assert torch.equal(rows[:, 96:], model.embed(pixels, layers=1))
    tokens = model.tokens(pixels)[-1]
    assert tokens.prefix.shape[1] == (0 if name == "IJepa" else 1) and tokens.patches.shape == (3, 16, 32)
    if name == "ViTMAE":
        return
    with torch.no_grad():
        expected = module(pixels).last_hidden_state
    torch.testing.assert_close(torch.cat(tokens, 1), expected)


def test_earlier_layers_pass_the_final_norm_once(family):
    name, module, model = family
    if name == "ViTMAE":
        module.config.mask_ratio = 0.0
    pixels = torch.randn(2, 3, 16, 16)
    arguments = {"noise": torch.arange(16.0).expand(2, -1)} if name == "ViTMAE" else {}
    states = []
    layers = next(child for key, child in module.named_modules() if key.endswith(("layer", "layers")))
    layers[-2].register_forward_hook(lambda _module, _args, output: states.append(output))
    with torch.no_grad():
        module(pixels, **arguments)
        expected = module.layernorm(states[0] if isinstance(states[0], torch.Tensor) else states[0][0])
    torch.testing.assert_close(torch.cat(model.tokens(pixels, layers=2)[0], 1), expected)


def test_other_sizes_and_patch_maps(family):
    _name, _module, model = family
    assert model.patch_map(torch.randn(2, 3, 16, 24)).shape == (2, 32, 4, 6)


def test_attention_of_cls(family):
    name, _module, model = family
    if name == "IJepa":
        with pytest.raises(ValueError, match="no CLS"):
            model.attention(torch.randn(1, 3, 16, 16))
        return
    attention = model.attention(torch.randn(2, 3, 16, 16))
    assert attention.shape == (2, 4, 4, 4) and (attention > 0).all() and (attention.sum((2, 3)) < 1).all()


def test_pooling(checkpoint):
    model, pixels = open_backbone(checkpoint), torch.randn(2, 3, 16, 16)
    cls, mean = model.embed(pixels, 2, "cls"), model.embed(pixels, 2, "mean")
    both = model.embed(pixels, 2, "both").unflatten(1, (2, 64))
    torch.testing.assert_close(both[:, :, :32].flatten(1), cls)
    torch.testing.assert_close(both[:, :, 32:].flatten(1), mean)


def test_a_network_in_training_mode_is_refused(checkpoint):
    """Drop path would be on: this checkpoint has a rate of 0.5."""
    model = open_backbone(checkpoint)
    model.module.encoder.train()
    with pytest.raises(RuntimeError, match="training mode"):
        model.embed(torch.randn(1, 3, 16, 16))


def test_a_wrapped_model_is_the_opened_checkpoint_and_goes_on_training(checkpoint):
    model = VISRegViTModel.from_pretrained(checkpoint).train()
    wrapped, opened = wrap_backbone(model), open_backbone(checkpoint)
    pixels = torch.randn(2, 3, 16, 16)
    with wrapped.evaluating():
        assert torch.equal(wrapped.embed(pixels, 2), opened.embed(pixels, 2))
        assert torch.equal(wrapped.embed(pixels), model(pixels).pooler_output)
    assert (wrapped.native_size, wrapped.mean, wrapped.std) == (opened.native_size, opened.mean, opened.std)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="training mode"):
        wrapped.embed(pixels)


def test_weights_hash_follows_the_weights(checkpoint):
    model, other = open_backbone(checkpoint), open_backbone(checkpoint)
    assert model.weights_hash == other.weights_hash
    other.module.layernorm.bias.add_(1e-3)
    other._weights_hash = None
    assert model.weights_hash != other.weights_hash


@pytest.fixture(scope="module")
def timm_pair(tmp_path_factory):
    """A timm ViT with random weights as a file, and our conversion of it."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    network = timm.create_model(name, num_classes=0)
    save_file(network.state_dict(), folder / "weights.safetensors")
    config = config_from_timm_state_dict(network.state_dict(), num_attention_heads=3)
    model = VISRegViTModel.from_pretrained(
        None, config=config, state_dict=from_timm_state_dict(network.state_dict(), config)
    )
    data = timm.data.resolve_model_data_config(network)
    processor = image_processor_for(config, image_mean=list(data["mean"]), image_std=list(data["std"]))
    save_checkpoint(model, folder / "ours", processor)
    return f"timm:{name}:{folder / 'weights.safetensors'}", str(folder / "ours")


def test_timm_and_our_conversion_give_identical_results(timm_pair, tmp_path):
    train, test = open_stream("digits", split="train"), open_stream("digits", split="test")
    settings, results, features = FeatureOptions(image_size=32, limit=200), [], []
    for name in timm_pair:
        model, cache = open_backbone(name), FeatureCache(tmp_path / name[:4])
        task = load_task(model, Sources(train, test), settings, cache)
        features.append(task.test.features)
        results.append((knn(task), linear(task, LinearOptions(epochs=10))))
    torch.testing.assert_close(*features, rtol=0, atol=1e-5)
    (knn_timm, linear_timm), (knn_ours, linear_ours) = results
    assert knn_timm.value == knn_ours.value and linear_timm.value == linear_ours.value
    assert linear_timm.selection["chosen"] == linear_ours.selection["chosen"]
    assert (linear_timm.predictions == linear_ours.predictions).all()


def test_timm_attention_is_ours(timm_pair):
    pixels = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(*(open_backbone(name).attention(pixels) for name in timm_pair), rtol=0, atol=1e-6)


def test_a_convolutional_network_of_timm(tmp_path):
    network = timm.create_model("resnet10t", num_classes=0)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "w.safetensors")
    model = open_backbone(f"timm:resnet10t:{tmp_path / 'w.safetensors'}")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval().forward_features(pixels).mean((2, 3))
    torch.testing.assert_close(model.embed(pixels), expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [("timm:vit_tiny_patch16_224:nowhere.pth", "no file"), ("timm:vit_of_nobody", "timm knows no model")],
)
def test_mistakes_are_named(name, words):
    with pytest.raises(ValueError, match=words):
        open_backbone(name)


class Evil:
    """Unpickled, it makes a file: what code in a checkpoint could do."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("key", [None, "state_dict", "model_ema"])
def test_a_file_of_weights_for_timm_runs_no_code(tmp_path, key, monkeypatch):
    """Nor where timm, as 1.0.15 does, would: it never reads the file."""
    monkeypatch.setattr(timm.models, "load_checkpoint", lambda *_: pytest.fail("timm reads the file"))
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    content = network.state_dict() | {"evil": Evil(tmp_path / "mark")}
    torch.save(content if key is None else {key: content}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not a file of tensors"):
        open_backbone(f"timm:vit_tiny_patch16_224:{tmp_path / 'evil.pth'}")
    assert not (tmp_path / "mark").exists()
    good = network.state_dict()
    torch.save(good if key is None else {key: good, "epoch": 3}, tmp_path / "good.pth")
    opened = open_backbone(f"timm:vit_tiny_patch16_224:{tmp_path / 'good.pth'}")
    assert torch.equal(opened.module.norm.weight, good["norm.weight"])
    torch.save({"norm.weight": good["norm.weight"]}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="does not fit the architecture") as caught:
        open_backbone(f"timm:vit_tiny_patch16_224:{tmp_path / 'part.pth'}")
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_refused_not_drawn(checkpoint, tmp_path):
    """Ours and another family's; each of their first numbers would be chance."""
    ours = Path(shutil.copytree(checkpoint, tmp_path / "ours"))
    theirs = tmp_path / "theirs"
    transformers.Dinov2Model(transformers.Dinov2Config(**SIZES)).save_pretrained(theirs)
    for folder, name in ((ours, "encoder.layer.0.mlp.fc1.weight"), (theirs, "encoder.layer.0.mlp.fc1.weight")):
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=re.escape(name)):
            open_backbone(str(folder))


@pytest.mark.parametrize("kind", [torch.int32, torch.float8_e5m2])
def test_weights_of_another_type_are_refused(tmp_path, kind):
    transformers.ViTModel(transformers.ViTConfig(**SIZES)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor.to(kind) for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds weights that are not of floating point: "):
        open_backbone(str(tmp_path))


def test_an_architecture_beyond_the_memory_is_refused_before_it_is_built():
    with pytest.raises(ValueError, match=r"the weights of ViTModel .* take [\d,.]+ GiB, and this machine has"):
        build_transformers(transformers.ViTConfig(hidden_size=65_536, num_hidden_layers=64, num_attention_heads=64))


def test_a_pooler_that_is_missing_leaves_the_hash_to_no_chance(tmp_path):
    config = transformers.ViTConfig(**SIZES)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    assert open_backbone(str(tmp_path)).weights_hash == open_backbone(str(tmp_path)).weights_hash


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, and a network has at least one block"),
        ({"num_hidden_layers": 1}, r"has blocks that its configuration lacks: .*layers?\.1\."),
        ({"hidden_size": "wide"}, "cannot be opened"),
        ({"image_size": -32}, "cannot be opened|images of .-32, -32. pixels are not taken"),
        ({"attn_implementation": "evil/kernels"}, "names code on the Hub"),
        ({"model_type": "of nobody"}, "cannot be opened"),
        ({"model_type": ["vit"]}, "cannot be opened"),
    ],
)
def test_odd_configurations_of_other_families_are_one_line(tmp_path, changes, words):
    transformers.ViTModel(transformers.ViTConfig(**SIZES)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=words) as caught:
        open_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop_size": {"height": 10**9, "width": 10**9}}, "at most 4096 on a side"),
        ({"image_std": [0.0, 1.0, 1.0]}, "image_std has to be above 0"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean"),
    ],
)
def test_odd_preprocessing_is_one_line(checkpoint, tmp_path, changes, words):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=words):
        open_backbone(str(folder))


def test_code_that_a_checkpoint_brings_is_not_run_unless_asked(tmp_path):
    """A family of its own, whose code would leave a mark."""
    transformers.ViTModel(transformers.ViTConfig(**SIZES)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    code = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "evil", "auto_map": code}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    with pytest.raises(ValueError, match="cannot be opened"):
        open_backbone(str(tmp_path))
    assert not (tmp_path / "mark").exists()
