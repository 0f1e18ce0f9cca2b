# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The base model, the classifier and the backbone: sizes, outputs, attention backends, loading.

Shapes: B images, N patches, d width.
"""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from modeling_visreg import VISRegViTBackbone, VISRegViTForImageClassification, VISRegViTForPreTraining, VISRegViTModel


@pytest.mark.parametrize("native", [32, (16, 48)])
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (64, 8), (8, 8)])
def test_any_size_that_the_patch_divides(small_config, native, size):
    model = VISRegViTModel(small_config(image_size=native)).eval()
    output = model(torch.rand(2, 3, *size))
    assert output.last_hidden_state.shape == (2, 1 + size[0] * size[1] // 64, 32)
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, 0])
    assert output.hidden_states is None and output.attentions is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 33, 32), "33 x 32 pixels .* patches of 8; the nearest that fit: height 32 or 40, width 32"),
        ((1, 3, 5, 60), "the nearest that fit: height 8, width 56 or 64"),
        ((1, 1, 32, 32), r"pixel_values must be \(batch, 3, height, width\); got \(1, 1, 32, 32\)"),
        ((3, 32, 32), r"pixel_values must be \(batch, 3, height, width\); got \(3, 32, 32\)"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_those_that_do(small_config, shape, message):
    with pytest.raises(ValueError, match=message):
        VISRegViTModel(small_config())(torch.rand(shape))


@pytest.mark.parametrize("native", [(4, 4), (2, 6), (14, 14)])
@pytest.mark.parametrize("target", [(3, 3), (6, 6), (7, 5), (1, 9), (37, 16)])
def test_position_embedding_is_resampled_as_interpolate_does(small_config, randomize, native, target):
    model = randomize(VISRegViTModel(small_config(image_size=(8 * native[0], 8 * native[1]))))
    embeddings = model.embeddings
    resampled = embeddings.interpolate_pos_encoding(*target)
    grid = embeddings.position_embeddings[0, 1:].unflatten(0, native).permute(2, 0, 1)[None]
    expected = F.interpolate(grid, size=target, mode="bicubic", antialias=True)[0].flatten(1).T
    torch.testing.assert_close(resampled[0, 1:], expected, atol=1e-6, rtol=0)
    assert torch.equal(resampled[0, 0], embeddings.position_embeddings[0, 0])
    weights = torch.randn_like(expected)
    ours = torch.autograd.grad((resampled[0, 1:] * weights).sum(), embeddings.position_embeddings)[0]
    theirs = torch.autograd.grad((expected * weights).sum(), embeddings.position_embeddings)[0]
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_position_embedding_stays_in_float32_under_autocast(small_config, randomize):
    embeddings = randomize(VISRegViTModel(small_config())).embeddings
    plain = embeddings.interpolate_pos_encoding(2, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embeddings.interpolate_pos_encoding(2, 7), plain)


def test_hidden_states_and_attentions(small_config, randomize):
    model = randomize(VISRegViTModel(small_config(attn_implementation="eager"))).eval()
    output = model(torch.rand(2, 3, 24, 16), output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, 7, 32)] * 4
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 4, 7, 7)] * 3
    assert torch.equal(model.layernorm(output.hidden_states[-1]), output.last_hidden_state)
    torch.testing.assert_close(output.attentions[1].sum(-1), torch.ones(2, 4, 7))
    as_tuple = model(torch.rand(1, 3, 8, 8), return_dict=False)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == 2


@pytest.mark.parametrize(
    "kind", [VISRegViTModel, VISRegViTForImageClassification, VISRegViTBackbone, VISRegViTForPreTraining]
)
def test_a_config_may_ask_for_tuples(small_config, randomize, kind):
    """transformers takes `return_dict` from the config too, also for the encoder inside."""
    model = randomize(kind(small_config(return_dict=True))).eval()
    images = torch.rand(2, 3, 16, 16)
    expected = model([images[None]] if kind is VISRegViTForPreTraining else images)
    model.config.return_dict = False
    found = model([images[None]] if kind is VISRegViTForPreTraining else images)
    assert type(found) is tuple and len(found) == len(expected.to_tuple())
    first = expected[0][0] if kind is VISRegViTBackbone else expected[0]
    assert torch.equal(found[0][0] if kind is VISRegViTBackbone else found[0], first)


@pytest.mark.parametrize("backend", ["sdpa", "flex_attention"])
def test_attention_backends_agree_with_eager(small_config, randomize, backend):
    model = randomize(VISRegViTModel(small_config(hidden_size=64, attn_implementation="eager"))).eval()
    images = torch.rand(2, 3, 32, 24)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flex warns that it runs uncompiled on the CPU
        expected = model(images).last_hidden_state
        model.set_attn_implementation(backend)
        assert model.config._attn_implementation == backend
        torch.testing.assert_close(model(images).last_hidden_state, expected, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["sdpa", "flex_attention", "flash_attention_2"])
def test_attention_of_a_gpu_gives_the_same_features_and_gradients(small_config, randomize, monkeypatch, backend):
    """Against eager attention on the CPU; flash attention in bfloat16, which it needs."""
    if backend == "flash_attention_2":
        pytest.importorskip("flash_attn")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    dtype, tolerance = (torch.bfloat16, 5e-2) if backend.startswith("flash") else (torch.float32, 1e-4)
    model = randomize(VISRegViTModel(small_config(hidden_size=64, drop_path_rate=0, attn_implementation="eager")))
    images = torch.rand(2, 3, 32, 24)
    expected = model(images).last_hidden_state
    expected.square().mean().backward()
    gradient = model.embeddings.cls_token.grad.clone()
    model.zero_grad()
    model.set_attn_implementation(backend)
    model.to("cuda", dtype)
    found = model(images.to("cuda", dtype)).last_hidden_state
    found.float().square().mean().backward()
    for ours, right in ((found, expected), (model.embeddings.cls_token.grad, gradient)):
        assert (ours.float().cpu() - right).norm() < tolerance * right.norm()


@pytest.mark.gpu
def test_sdpa_takes_its_flash_kernel(small_config):
    """In half precision, and without a mask: with one it would fall back to a kernel several times slower."""
    model = VISRegViTModel(small_config(hidden_size=64, num_attention_heads=1)).to("cuda", torch.bfloat16)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert model(torch.rand(2, 3, 32, 32, device="cuda", dtype=torch.bfloat16)).pooler_output.isfinite().all()


def test_a_masked_patch_changes_nothing(small_config, randomize):
    for backend in ("eager", "sdpa"):
        model = randomize(VISRegViTModel(small_config(attn_implementation=backend))).eval()
        images = torch.rand(1, 3, 32, 32)
        changed = images.clone()
        changed[..., :8, :8] = 1 - changed[..., :8, :8]
        mask = torch.ones(1, 17, dtype=torch.long)
        mask[0, 1] = 0
        masked = model(images, attention_mask=mask).pooler_output
        torch.testing.assert_close(model(changed, attention_mask=mask).pooler_output, masked)
        assert (model(changed).pooler_output - model(images).pooler_output).abs().max() > 1e-4


def test_keyword_arguments_reach_the_attention(small_config):
    received = []

    def recording(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        received.append(kwargs.get("note"))
        attended = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
        return attended.transpose(1, 2), None

    AttentionInterface.register("visreg_test_recording", recording)
    config = small_config(attn_implementation="visreg_test_recording")
    image = torch.rand(1, 3, 32, 32)
    VISRegViTModel(config)(image, note="a")
    VISRegViTForImageClassification(config)(image, note="b")
    VISRegViTBackbone(config)(image, note="c")
    VISRegViTForPreTraining(config).eval()([image[None]], note="d")
    assert received == [note for note in "abcd" for _ in range(3)]


def test_dropout_acts_in_training_only(small_config):
    config = small_config(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3, drop_path_rate=0.0)
    model, images = VISRegViTModel(config), torch.rand(2, 3, 32, 32)
    assert not torch.equal(model.train()(images).pooler_output, model(images).pooler_output)
    assert torch.equal(model.eval()(images).pooler_output, model(images).pooler_output)


@pytest.mark.parametrize("model_class", [VISRegViTModel, VISRegViTForImageClassification, VISRegViTBackbone])
def test_weights_of_pretraining_load_into_every_class_and_back(tmp_path, small_config, randomize, model_class):
    config = small_config()
    pretrained = randomize(VISRegViTForPreTraining(config)).eval()
    pretrained.save_pretrained(tmp_path / "pretraining")
    other, report = model_class.from_pretrained(tmp_path / "pretraining", output_loading_info=True)
    new = {"classifier.weight", "classifier.bias"} if model_class is VISRegViTForImageClassification else set()
    assert set(report["missing_keys"]) == new
    base = getattr(other, "vit", other)
    for name, tensor in pretrained.vit.state_dict().items():
        assert torch.equal(tensor, base.state_dict()[name]), name
    other.save_pretrained(tmp_path / "other")
    back, report = VISRegViTForPreTraining.from_pretrained(tmp_path / "other", output_loading_info=True)
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"projector"}
    images = torch.rand(1, 2, 3, 16, 16)
    assert torch.equal(back.eval().encode(images), pretrained.encode(images))


@pytest.mark.parametrize("options", [{"dtype": torch.bfloat16}, {"device_map": "cpu"}, {"device_map": "auto"}])
def test_loads_with_dtype_and_device_map(tmp_path, small_config, randomize, options):
    model = randomize(VISRegViTModel(small_config())).eval()
    model.save_pretrained(tmp_path)
    loaded = VISRegViTModel.from_pretrained(tmp_path, **options).eval()
    images = torch.rand(2, 3, 16, 24)  # float32 on purpose: the model casts to the dtype of its weights
    output = loaded(images).pooler_output
    assert output.dtype == options.get("dtype", torch.float32)
    tolerance = 0.1 if "dtype" in options else 1e-6
    torch.testing.assert_close(output.float(), model(images).pooler_output, atol=tolerance, rtol=0)


@pytest.mark.parametrize("from_nothing", [True, False])
def test_initialization_covers_every_weight(small_config, from_nothing):
    """from_pretrained builds on the meta device: a tensor that _init_weights forgets would be garbage."""
    config = small_config(hidden_size=64)
    if from_nothing:
        model = VISRegViTForPreTraining.from_pretrained(None, config=config, state_dict={})
    else:
        model = VISRegViTForPreTraining(config)
    for name, tensor in model.state_dict().items():
        assert tensor.device.type == "cpu" and torch.isfinite(tensor.float()).all(), name
    state = model.state_dict()
    assert state["vit.embeddings.cls_token"].abs().max() < 1e-5
    for name in ("vit.embeddings.position_embeddings", "vit.encoder.layer.2.mlp.fc1.weight"):
        assert 0.018 < state[name].std() < 0.022, name
    bound = (3 * 8 * 8) ** -0.5
    for name, limit in [("vit.embeddings.patch_embeddings.projection.weight", bound), ("projector.0.weight", 0.125)]:
        assert 0.9 * limit < state[name].abs().max() <= limit, name
    assert not state["vit.encoder.layer.0.attention.q_proj.bias"].any()
    for name in ("vit.layernorm.weight", "projector.1.weight", "projector.1.running_var"):
        assert (state[name] == 1).all(), name
    assert not state["projector.4.running_mean"].any() and not state["projector.4.num_batches_tracked"]


@pytest.mark.parametrize(
    ("problem_type", "labels", "expected"),
    [
        (None, torch.tensor([0, 2]), lambda logits, labels: F.cross_entropy(logits, labels)),
        (
            "multi_label_classification",
            torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
            lambda logits, labels: F.binary_cross_entropy_with_logits(logits, labels),
        ),
    ],
)
def test_classification_loss(small_config, problem_type, labels, expected):
    model = VISRegViTForImageClassification(small_config(num_labels=3, problem_type=problem_type)).eval()
    images = torch.rand(2, 3, 32, 32)
    output = model(images, labels=labels)
    assert torch.equal(output.logits, model.classifier(model.vit(images).pooler_output))
    torch.testing.assert_close(output.loss, expected(output.logits, labels))
    assert model(images).loss is None


def test_no_labels_means_no_classifier(small_config):
    model = VISRegViTForImageClassification(small_config(num_labels=0)).eval()
    images = torch.rand(2, 3, 32, 32)
    assert isinstance(model.classifier, nn.Identity)
    assert torch.equal(model(images).logits, model.vit(images).pooler_output)


def test_backbone_returns_normed_maps_of_the_chosen_stages(tmp_path, small_config, randomize):
    model = randomize(VISRegViTModel(small_config())).eval()
    model.save_pretrained(tmp_path)
    backbone = VISRegViTBackbone.from_pretrained(tmp_path, out_indices=[0, 2, 3]).eval()
    assert backbone.out_features == ["stem", "stage2", "stage3"] and backbone.channels == [32, 32, 32]
    images = torch.rand(2, 3, 16, 40)
    output = backbone(images)
    assert [tuple(feature_map.shape) for feature_map in output.feature_maps] == [(2, 32, 2, 5)] * 3
    assert output.hidden_states is None
    reference = model(images, output_hidden_states=True)
    for feature_map, index in zip(output.feature_maps, (0, 2, 3), strict=True):
        patches = model.layernorm(reference.hidden_states[index])[:, 1:]
        assert torch.equal(feature_map[:, :, 1, 2], patches[:, 1 * 5 + 2])
    assert len(backbone(images, output_hidden_states=True).hidden_states) == 4
