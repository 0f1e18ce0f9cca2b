# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What matters while training: stochastic depth, activation checkpointing, the projector's statistics, compilation.

Shapes: V views, B images, D dimension of the projections, d width.
"""

import pytest
import torch
import torch.nn.functional as F
from packaging.version import Version

from modeling_visreg import VISRegViTBackbone, VISRegViTForPreTraining, VISRegViTModel


needs_compile = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.8"), reason="torch 2.6 cannot trace transformers: 2.8 can"
)


def drop_path_factors_of(model, images, seed=0):
    """The factors that the blocks receive in one training forward: rows x 2 for each block."""
    received = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: received.append(args[2])) for layer in model.encoder.layer
    ]
    torch.manual_seed(seed)
    model.train()(images)
    for hook in hooks:
        hook.remove()
    return received


def test_drop_path_rises_linearly_with_depth(small_config):
    model = VISRegViTModel(small_config(num_hidden_layers=5, drop_path_rate=0.2))
    assert model.encoder.drop_path_rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert VISRegViTModel(small_config(num_hidden_layers=1)).encoder.drop_path_rates == [0.0]


def test_drop_path_keeps_each_branch_at_its_rate_and_divides_by_what_is_left(small_config, tmp_path):
    """As loaded, too: no checkpoint holds the rates."""
    VISRegViTModel(small_config(num_hidden_layers=3, drop_path_rate=0.4)).save_pretrained(tmp_path)
    model = VISRegViTModel.from_pretrained(tmp_path).train()
    assert not any("drop_path" in name for name in model.state_dict())
    factors = torch.stack(drop_path_factors_of(model, torch.rand(2000, 3, 8, 8)))
    for block, left in zip(factors, (1.0, 0.8, 0.6), strict=True):
        assert set(block.unique().tolist()) <= {0.0, float(torch.tensor(1.0) / left)}
        assert (block > 0).float().mean(0).tolist() == pytest.approx([left, left], abs=0.05)


def test_drop_path_zeroes_or_rescales_whole_rows(small_config):
    model = VISRegViTModel(small_config(num_hidden_layers=2, drop_path_rate=0.5)).train()
    layer = model.encoder.layer[1]
    tokens = torch.randn(4, 5, 32)
    factors = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    output = layer(tokens, None, factors)
    attended = layer.attention(layer.layernorm_before(tokens))[0] / 0.5
    assert torch.equal(output[0], tokens[0])
    torch.testing.assert_close(output[1], tokens[1] + attended[1])
    torch.testing.assert_close(output[2], tokens[2] + layer.mlp(layer.layernorm_after(tokens))[2] / 0.5)
    both = tokens + attended
    torch.testing.assert_close(output[3], (both + layer.mlp(layer.layernorm_after(both)) / 0.5)[3])


def test_drop_path_is_off_in_evaluation_and_draws_nothing_without_a_rate(small_config):
    images = torch.rand(4, 3, 16, 16)
    for model in (
        VISRegViTModel(small_config(drop_path_rate=0.9)).eval(),
        VISRegViTModel(small_config(drop_path_rate=0.0)).train(),
    ):
        before = torch.get_rng_state()
        assert torch.equal(model(images).pooler_output, model(images).pooler_output)
        assert torch.equal(torch.get_rng_state(), before)
    model = VISRegViTModel(small_config(drop_path_rate=0.9)).train()
    assert not torch.equal(model(images).pooler_output, model(images).pooler_output)


@pytest.mark.parametrize("chunks", [[5, 8], [1, 3, 9], [7, 5, 1]])
def test_chunks_of_rows_draw_what_the_whole_batch_draws(small_config, chunks):
    model = VISRegViTModel(small_config(drop_path_rate=0.5))
    images = torch.rand(13, 3, 16, 16)
    whole = torch.cat(drop_path_factors_of(model, images), dim=1)
    assert whole.shape == (13, 6) and len(whole.unique(dim=0)) > 5
    torch.manual_seed(0)
    features = model(images).pooler_output
    torch.manual_seed(0)
    in_chunks = torch.cat([model(chunk).pooler_output for chunk in images.split(chunks)])
    torch.testing.assert_close(in_chunks, features, atol=1e-5, rtol=0)
    factors = []
    hook = model.encoder.layer[2].register_forward_pre_hook(lambda _, args: factors.append(args[2]))
    torch.manual_seed(0)
    for chunk in images.split(chunks):
        model(chunk)
    hook.remove()
    assert torch.equal(torch.cat(factors), whole[:, 4:])


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_keeps_loss_and_gradient(small_config, randomize, reentrant):
    model = randomize(VISRegViTForPreTraining(small_config(drop_path_rate=0.5))).train()
    views = [torch.rand(2, 6, 3, 32, 32), torch.rand(3, 6, 3, 16, 16)]

    def loss_and_gradient():
        torch.manual_seed(0)
        model.zero_grad()
        loss = model(views).projections.square().mean()
        loss.backward()
        return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    loss, gradient = loss_and_gradient()
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # before 5.23
    enable({"use_reentrant": reentrant})
    assert all(layer.gradient_checkpointing for layer in model.vit.encoder.layer)
    checkpointed_loss, checkpointed = loss_and_gradient()
    assert torch.equal(loss, checkpointed_loss)
    for (name, _), ours, theirs in zip(model.named_parameters(), checkpointed, gradient, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5, msg=name)


def test_pretraining_outputs_have_views_first_and_keep_their_order(small_config, randomize):
    model = randomize(VISRegViTForPreTraining(small_config())).eval()
    views = [torch.rand(2, 5, 3, 32, 32), torch.rand(3, 5, 3, 16, 24)]
    output = model(views)
    assert output.projections.shape == (5, 5, 16) and output.features.shape == (5, 5, 32)
    torch.testing.assert_close(output.features[3, 2], model.vit(views[1][1, 2:3]).pooler_output[0])
    torch.testing.assert_close(output.projections, model.projector(output.features.flatten(0, 1)).view(5, 5, 16))


def test_forward_is_encode_then_project(small_config):
    model = VISRegViTForPreTraining(small_config(drop_path_rate=0.0)).train()
    views = [torch.rand(2, 5, 3, 32, 32), torch.rand(3, 5, 3, 16, 16)]
    output = model(views)
    features = torch.cat([model.encode(group) for group in views])
    assert torch.equal(features, output.features)
    assert torch.equal(model.project(features, [2, 3]), output.projections)


def test_projector_statistics_are_those_of_a_resolution(small_config):
    model = VISRegViTForPreTraining(small_config()).train()
    # The second group is far from the first: common statistics would show.
    features = torch.cat([torch.randn(2, 64, 32), 5 + 3 * torch.randn(3, 64, 32)])
    apart = model.project(features, [2, 3])
    assert torch.equal(apart[:2], model.project(features[:2], [2]))
    assert torch.equal(apart[2:], model.project(features[2:], [3]))
    assert (apart - model.project(features, [5])).abs().max() > 0.05
    hidden = model.projector[1](model.projector[0](features[2:].flatten(0, 1)))
    torch.testing.assert_close(hidden.mean(0), torch.zeros(24), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.std(0, unbiased=False), torch.ones(24), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (torch.rand(2, 4, 3, 32, 32), "views must be a list of at least one tensor"),
        ([torch.rand(4, 3, 32, 32)], "views must be a list of at least one tensor"),
        ([torch.rand(2, 4, 3, 32, 32), torch.rand(2, 3, 3, 16, 16)], r"same images; got batches of \[4, 3\]"),
        ([], "at least one"),
    ],
)
def test_views_of_the_wrong_form_are_refused(small_config, views, message):
    with pytest.raises(ValueError, match=message):
        VISRegViTForPreTraining(small_config())(views)


def test_views_per_resolution_must_add_up(small_config):
    with pytest.raises(ValueError, match=r"views_per_resolution \[2, 2\] does not add up to 5 views"):
        VISRegViTForPreTraining(small_config()).project(torch.rand(5, 4, 32), [2, 2])


@needs_compile
@pytest.mark.parametrize("model_class", [VISRegViTModel, VISRegViTBackbone])
def test_no_mask_in_the_compiled_graph_unless_one_is_passed(small_config, model_class):
    """SDPA leaves its fast paths for a mask, be it one that hides nothing."""
    masks = []

    def look(graph, _inputs):
        calls = [node for node in graph.graph.nodes if node.target is F.scaled_dot_product_attention]
        masks.extend(node.kwargs.get("attn_mask", (*node.args, None, None, None, None)[3]) for node in calls)
        return graph.forward

    model = model_class(small_config(num_hidden_layers=2)).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=look, fullgraph=True)
    images = torch.rand(2, 3, 16, 16)
    compiled(images)
    assert masks == [None, None]
    compiled(images, attention_mask=torch.tensor([[1, 1, 1, 1, 0]] * 2))
    assert len(masks) == 4 and None not in masks[2:]


@needs_compile
def test_a_compiled_model_takes_several_sizes(small_config, randomize):
    """The second size makes shapes dynamic, where the backward of F.interpolate does not compile in torch 2.14."""
    model = randomize(VISRegViTModel(small_config())).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    parameters = list(model.parameters())
    for size in [(32, 32), (16, 16), (24, 40)]:
        images = torch.rand(2, 3, *size)
        features, expected = compiled(images).pooler_output, model(images).pooler_output
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
        ours = torch.autograd.grad(features.square().sum(), parameters)
        theirs = torch.autograd.grad(expected.square().sum(), parameters)
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
