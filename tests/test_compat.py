# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Canaries: an upgrade of a library that breaks one of compat.py's private names is named here first."""

import pytest
import torch
from accelerate import Accelerator
from datasets import IterableDataset
from torch.torch_version import TorchVersion
from torch.utils.data import DataLoader

from modeling_visreg import VISRegViTConfig, VISRegViTModel
from visreg_training import compat


def test_datasets_resolves_the_features_of_a_stream():
    stream = IterableDataset.from_generator(lambda: iter([{"image": b"", "label": 3}]))
    assert stream.features is None
    assert set(compat.resolve_features(stream).features) == {"image", "label"}


def test_huggingface_hub_makes_clients_whose_waits_end():
    import huggingface_hub

    compat.bound_hub_client(7.0, 9.0)
    compat.bound_hub_client(7.0, 9.0)
    client = huggingface_hub.get_session()
    request = client.build_request("GET", "http://127.0.0.1:9/", timeout=None)
    for hook in client.event_hooks["request"]:
        hook(request)
    assert request.extensions["timeout"] == dict.fromkeys(("connect", "read", "write", "pool"), 7.0)
    names = [hook.__name__ for hooks in client.event_hooks.values() for hook in hooks]
    assert names.count("limit") == names.count("shorten") == 1


def test_torch_makes_shared_memory():
    tensor = compat.empty_shared((2, 3), torch.uint8)
    assert tensor.shape == (2, 3) and tensor.dtype == torch.uint8 and tensor.is_shared()
    assert compat.empty_shared((4,), torch.float32).untyped_storage().nbytes() == 16


def test_torch_stops_the_workers_of_a_loader():
    batches = iter(DataLoader(range(8), num_workers=2))
    next(batches)
    workers = list(batches._workers)
    assert len(workers) == 2 and all(worker.is_alive() for worker in workers)
    compat.stop_loader_workers(batches)
    assert not any(worker.is_alive() for worker in workers)
    compat.stop_loader_workers(iter(DataLoader(range(8))))  # without workers there is nothing to stop


@pytest.mark.filterwarnings("error")
def test_torch_gathers_and_scatters_without_a_warning(tmp_path):
    group = torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        own, whole, back = torch.arange(6.0).view(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)
        compat.all_gather_single(whole, own, group)
        compat.reduce_scatter_single(back, whole, group)
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(whole, own) and torch.equal(back, own)


@pytest.mark.filterwarnings("error")
def test_transformers_checkpoints_activations():
    model = VISRegViTModel(VISRegViTConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
    assert not compat.is_activation_checkpointing(model)
    compat.enable_activation_checkpointing(model)
    assert compat.is_activation_checkpointing(model)
    assert model.encoder.layer[0].gradient_checkpointing


def test_accelerate_starts_a_second_run_with_another_precision():
    for precision in ("no", "bf16"):
        compat.reset_accelerate()
        assert Accelerator(cpu=True, mixed_precision=precision).mixed_precision == precision
    compat.reset_accelerate()


def test_transformers_tells_the_attention_it_computes_with():
    model = VISRegViTModel(VISRegViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    model.set_attn_implementation("eager")
    assert compat.attention_implementation(model) == "eager"


def test_transformers_installs_the_hooks_that_collect_hidden_states():
    encoder = VISRegViTModel(VISRegViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).encoder
    compat.install_capturing_hooks(encoder)
    assert any(module._forward_hooks or "forward" in vars(module) for module in encoder.modules())


def test_a_torch_that_cannot_trace_is_named(monkeypatch):
    for version in ("2.8.0", "2.14.1"):
        monkeypatch.setattr(torch, "__version__", TorchVersion(version))
        compat.check_tracing("--compile")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cu124"))
    with pytest.raises(ValueError, match=r"--compile needs torch 2\.8 or newer, this is 2\.6"):
        compat.check_tracing("--compile")


@pytest.mark.skipif(not compat.traces_transformers(), reason="nothing is compiled below torch 2.8")
def test_torch_takes_a_limit_of_graphs():
    before = torch._dynamo.config.recompile_limit
    compat.allow_graphs(before + 1)
    compat.allow_graphs(1)
    assert torch._dynamo.config.recompile_limit == before + 1
    torch._dynamo.config.recompile_limit = before
