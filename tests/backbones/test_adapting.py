# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Frozen blocks, rates by depth and adapters of low rank, of our ViT and of others."""

import copy
import sys

import pytest
import torch
from transformers import ConvNextConfig, ConvNextModel, Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining, image_processor_for
from visreg_training.backbones import (
    AdaptOptions,
    TransformersBackbone,
    adapt,
    change_native_size,
    depth_rates,
    merged,
    unmerged,
    wrap_backbone,
    write_adapter,
)


PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def pretraining_model() -> VISRegViTForPreTraining:
    torch.manual_seed(0)
    config = VISRegViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        drop_path_rate=0.5,
        projector_hidden_size=8,
        projection_size=4,
    )
    return VISRegViTForPreTraining(config)


def foreign(model) -> TransformersBackbone:
    return TransformersBackbone("tiny", model, (16, 16), (0.5,) * 3, (0.5,) * 3)


def resnet() -> TransformersBackbone:
    return foreign(ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")))


def learning(backbone) -> list[str]:
    return [name for name, parameter in backbone.module.named_parameters() if parameter.requires_grad]


def test_frozen_blocks_of_our_vit_learn_nothing_and_drop_nothing():
    model = pretraining_model().train()
    backbone = wrap_backbone(model)
    adapt(backbone, AdaptOptions(freeze_blocks=2))
    model.train()  # as the loop does
    assert not [
        name for name in learning(backbone) if name.startswith(("embeddings", "encoder.layer.0", "encoder.layer.1"))
    ]
    assert {"encoder.layer.2.mlp.fc1.weight", "layernorm.weight"} <= set(learning(backbone))
    factors = model.vit.encoder.drop_path_factors(64)
    assert (factors[:, :4] == 1).all() and (factors[:, 4:] == 0).any()
    assert [block.training for block in model.vit.encoder.layer] == [False, False, True]
    with backbone.evaluating():
        pass
    assert not model.vit.encoder.layer[0].training and model.vit.encoder.layer[2].training
    backbone.encode(PIXELS)[0].sum().backward()
    assert {name for name, parameter in backbone.module.named_parameters() if parameter.grad is not None} == set(
        learning(backbone)
    )


def test_the_statistics_of_frozen_batch_norms_stay_as_they_were():
    backbone = resnet()
    adapt(backbone, AdaptOptions(freeze_blocks=1))
    before = copy.deepcopy(backbone.module.state_dict())
    backbone.module.train()
    backbone.encode(PIXELS)
    moved = [name for name, tensor in backbone.module.state_dict().items() if not torch.equal(tensor, before[name])]
    assert moved and all("stages.1" in name for name in moved)


def test_rates_fall_from_the_projector_down():
    backbone = wrap_backbone(pretraining_model())
    rates = depth_rates(backbone, 0.5)
    vit = backbone.module
    assert rates[vit.layernorm.weight] == 1 and rates[vit.embeddings.cls_token] == 0.5**4
    assert [rates[block.mlp.fc1.weight] for block in vit.encoder.layer] == [0.5**3, 0.5**2, 0.5]
    assert rates.keys() == set(vit.parameters()) and depth_rates(backbone, 1.0) == {}


def test_what_cannot_be_adapted_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="freeze_blocks: the network has 3 blocks, not 4"):
        adapt(wrap_backbone(pretraining_model()), AdaptOptions(freeze_blocks=4))
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match="lora_rank: ResNetModel has no linear layers in its blocks; --freeze_blocks"):
        adapt(resnet(), AdaptOptions(lora_rank=2))
    with pytest.raises(ValueError, match="no linear layers in its blocks after the first 3"):
        adapt(wrap_backbone(pretraining_model()), AdaptOptions(lora_rank=2, freeze_blocks=3))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"needs the package peft: pip install 'visreg\[lora\]'"):
        adapt(wrap_backbone(pretraining_model()), AdaptOptions(lora_rank=2))


def families() -> dict:
    dino = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
    convnext = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2, layer_scale_init_value=1.0)
    return {
        "visreg": lambda: wrap_backbone(pretraining_model()),
        "dinov2": lambda: foreign(Dinov2Model(dino)),
        "convnext": lambda: foreign(ConvNextModel(convnext)),
    }


@pytest.mark.parametrize("family", families())
def test_adapters_learn_alone_and_merged_they_compute_the_same(family, tmp_path):
    """Beside PEFT's own merging, of the adapter's folder."""
    peft = pytest.importorskip("peft")
    backbone = families()[family]()
    native = copy.deepcopy(backbone.module).eval()
    with backbone.evaluating(), torch.no_grad():
        start = backbone.embed(PIXELS)
    adapt(backbone, AdaptOptions(lora_rank=2, freeze_blocks=1))
    assert learning(backbone) and all(".lora_" in name for name in learning(backbone))
    last = len(backbone.blocks())
    assert {backbone.layer_of(name) for name in learning(backbone)} == set(range(2, last + 1))
    with backbone.evaluating(), torch.no_grad():
        assert torch.equal(backbone.embed(PIXELS), start)
        for name, parameter in backbone.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
        wanted = backbone.embed(PIXELS)
    weights = backbone.module.state_dict()
    assert len(unmerged(weights)) == 2 * len(learning(backbone))  # weight and bias beside A and B
    write_adapter(weights, tmp_path, "organization/name")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(native), tmp_path).merge_and_unload().state_dict()
    ours = merged(weights)
    assert ours.keys() == native.state_dict().keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor)
    native.load_state_dict(ours)
    found = foreign(native) if family != "visreg" else None
    with torch.no_grad():
        features = native(PIXELS).pooler_output if found is None else found.embed(PIXELS)
    assert (wanted - start).abs().max() > 1e-2
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-4)
    assert peft.PeftConfig.from_pretrained(tmp_path).base_model_name_or_path == "organization/name"


def test_at_its_new_size_a_network_computes_what_it_computed():
    """And the checkpoint, with its processor, is one for the new size."""
    model, larger = pretraining_model().eval(), torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        before, small = model.vit(larger).pooler_output, model.vit(PIXELS).pooler_output
        change_native_size(model, 24)
        torch.testing.assert_close(model.vit(larger).pooler_output, before)
        assert 0 < (model.vit(PIXELS).pooler_output - small).abs().max() < 0.05
    assert model.vit.embeddings.position_embeddings.shape == (1, 37, 16)
    assert model.config.image_size == model.vit.config.image_size == 24
    assert image_processor_for(model.config).crop_size["height"] == 24
    assert type(model)(model.config).load_state_dict(model.state_dict()).missing_keys == []
    with pytest.raises(ValueError, match="image_size 30 is not divisible by the patch of 4: use 28 or 32"):
        change_native_size(model, 30)
    with pytest.raises(ValueError, match="another family"):
        change_native_size(resnet().module, 24)
