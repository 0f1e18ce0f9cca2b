# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`--compile` makes one graph a resolution, whole, however long or deep the run is, and what it makes trains."""

import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
from packaging.version import Version
from threadpoolctl import threadpool_limits
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from helpers import forked
from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from visreg_training.compat import enable_activation_checkpointing
from visreg_training.loop import compiling
from visreg_training.loop.compiling import compile_backbone, compile_mode
from visreg_training.loop.step import PretrainingStep
from visreg_training.objective import VISRegObjective
from visreg_training.pretrain import pretrain


pytestmark = [
    pytest.mark.cpu,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        Version(torch.__version__) < Version("2.8"), reason="compiling needs torch 2.8: 2.6 cannot trace transformers"
    ),
]

CPU = torch.device("cpu")
RUN = forked.SMALL | {"eval_split": None, "max_steps": 4, "log_every": 1, "compile": "blocks"}


@pytest.fixture
def graphs(monkeypatch) -> CompileCounterWithBackend:
    """Counts graphs, and makes them without generating code, which takes minutes; `frame_count` is how many."""
    count = CompileCounterWithBackend("aot_eager")
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda *given, **options: compiled(*given, backend=count, **options)
    )
    counters.clear()
    return count


@pytest.mark.parametrize("compile, depth, expected", [("blocks", 2, 1), ("blocks", 12, 1), ("model", 2, 2)])
def test_two_resolutions_are_as_few_graphs_in_50_steps(graphs, tmp_path, compile, depth, expected):
    """With online probes. Blocks take both resolutions at once. Each recompilation would make one graph more."""
    options = RUN | {"compile": compile, "num_hidden_layers": depth, "max_steps": 50, "log_every": 25}
    with threadpool_limits(1):  # networks this small lose by threads
        pretrain(**options | {"save_every": 50}, output_dir=tmp_path / "run")
    assert graphs.frame_count == expected
    assert not counters["graph_break"]


def test_held_out_images_are_measured_without_the_compiler(graphs, tmp_path):
    """In batches of another size and in evaluation mode, before, between and after the steps."""
    options = RUN | {"eval_split": "test", "probe_every": 2, "probe_images": 16, "eval_images": 48}
    with threadpool_limits(1):
        pretrain(**options, output_dir=tmp_path / "run")
    assert graphs.frame_count == 1
    assert not counters["graph_break"]


def step_of(compiled: bool, depth=3, micro=None, probed=False, checkpointed=False) -> PretrainingStep:
    """A small step in training mode, with drop path."""
    torch.manual_seed(0)
    config = VISRegViTConfig(
        hidden_size=32,
        num_hidden_layers=depth,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        drop_path_rate=0.3,
        projector_hidden_size=16,
        projection_size=8,
    )
    model = VISRegViTForPreTraining(config)
    if checkpointed:
        enable_activation_checkpointing(model)
    if compiled:
        compile_backbone(model.vit, "blocks", CPU, announced=False)
    return PretrainingStep(model, VISRegObjective(num_slices=16), 2, micro, probed, packed=compiled).train()


def loss_and_gradients(step: PretrainingStep, sizes: list[tuple[int, int]], bf16: bool) -> list[torch.Tensor]:
    """Of two steps with 6 images."""
    results = []
    for number in range(2):
        torch.manual_seed(number)
        dtype = next(step.parameters()).dtype
        views = [torch.randn(count, 6, 3, *size, dtype=dtype) for count, size in zip((2, 3), sizes, strict=False)]
        step.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = step(views, number)
        output.terms.total.backward()
        results += [output.terms.total.detach(), *(p.grad for p in step.parameters())]
        results += [] if output.blocks is None else [output.blocks]
    return results


@pytest.mark.parametrize(
    "options, sizes, expected",
    [
        ({}, [(16, 16), (8, 8)], 1),
        ({}, [(16, 16)], 1),
        ({}, [(20, 12), (4, 8)], 1),
        ({"probed": True}, [(16, 16), (8, 8)], 1),
        ({"checkpointed": True, "probed": True}, [(16, 16), (8, 8)], 1),
        ({"depth": 1, "probed": True}, [(16, 16), (8, 8)], 1),
        ({"micro": 3, "checkpointed": True, "probed": True}, [(16, 16), (8, 8)], 2),
        ({"micro": 4}, [(16, 16), (8, 8)], 4),  # a last micro-batch of 2 images has graphs of its own
    ],
)
def test_compiled_blocks_compute_the_same(graphs, options, sizes, expected):
    """In float64, since products of another shape round differently: packed, but for micro-batches."""
    ours = loss_and_gradients(step_of(compiled=True, **options).double(), sizes, bf16=False)
    theirs = loss_and_gradients(step_of(compiled=False, **options).double(), sizes, bf16=False)
    assert ours[0].dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert graphs.frame_count == expected and not counters["graph_break"]


def test_compiled_blocks_compute_under_autocast(graphs):
    """A weight's gradient is one product over both resolutions, which is closer than autocast's sum of two."""
    sizes = [(16, 16), (8, 8)]
    ours = loss_and_gradients(step_of(compiled=True), sizes, bf16=True)
    theirs = loss_and_gradients(step_of(compiled=False), sizes, bf16=True)
    exact = loss_and_gradients(step_of(compiled=False), sizes, bf16=False)
    far = [sum((a - b).square().sum() for a, b in zip(found, exact, strict=True)) for found in (ours, theirs)]
    assert 0 < far[0] < 2 * far[1]
    assert graphs.frame_count == 1


def test_a_compiled_run_resumes_bit_for_bit(graphs, tmp_path):
    options = RUN | {"max_steps": 8, "save_every": 4}
    with threadpool_limits(1):
        pretrain(**options, output_dir=tmp_path / "whole")
    half = tmp_path / "half" / "checkpoints"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-00000004", half / "step-00000004")
    shutil.copy(tmp_path / "whole" / "recipe.yaml", tmp_path / "half")
    with threadpool_limits(1):
        pretrain(**options, output_dir=tmp_path / "half", resume="auto")
    weights = [(tmp_path / name / "pretraining" / "model.safetensors").read_bytes() for name in ("whole", "half")]
    assert weights[0] == weights[1]
    assert graphs.frame_count == 2  # one a run


def test_auto_goes_on_without_a_compiler_that_fails(monkeypatch, capsys):
    def broken(_graph, _inputs):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    expected = loss_and_gradients(step_of(compiled=False), [(16, 16), (8, 8)], bf16=False)
    with pytest.raises(RuntimeError, match="no C compiler"):
        loss_and_gradients(step_of(compiled=True), [(16, 16)], bf16=False)
    monkeypatch.setattr(compiling, "compile_mode", lambda wanted, device: "blocks")
    step = step_of(compiled=False)
    compile_backbone(step.model.vit, "auto", CPU, announced=True)
    found = loss_and_gradients(step, [(16, 16), (8, 8)], bf16=False)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)  # patches stay one product
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("compiling the blocks") and said[1].startswith("warning: not compiled (")
    assert "no C compiler" in said[1] and len(said) == 2


def test_auto_compiles_where_there_are_cuda_triton_and_a_torch_that_traces(monkeypatch):
    cuda = torch.device("cuda", 0)
    for found, mode in ((object(), "blocks"), (None, "no")):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        assert (compile_mode("auto", cuda), compile_mode("auto", CPU)) == (mode, "no")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(compiling, "traces_transformers", lambda: False)
    assert compile_mode("auto", cuda) == "no" and compile_mode("no", cuda) == "no"
    assert compile_mode("blocks", CPU) == "blocks"


@pytest.mark.parametrize("mode, expected", [("blocks", "Wrapped is not compiled: only our own ViT is\n"), ("no", "")])
def test_a_backbone_of_another_family_is_left_uncompiled_with_a_line(monkeypatch, capsys, mode, expected):
    monkeypatch.setattr(compiling, "compile_mode", lambda wanted, device: mode)
    compiling.tell_uncompiled("Wrapped", "auto", CPU)
    assert capsys.readouterr().err == expected


def command(folder, **options) -> list[str]:
    options = RUN | {"output_dir": folder, "max_steps": 8, "save_every": 4, **options}
    return [sys.executable, "-m", "visreg_training.pretrain", *forked.as_flags(options)]


@pytest.mark.slow
def test_a_compiled_run_learns_and_resumes_bit_for_bit(tmp_path):
    """With the compiler of the system: a minute, most of it the compiler's."""
    cache = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run(command(tmp_path / "whole"), env=cache, check=True, timeout=600)
    half = tmp_path / "half" / "checkpoints"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-00000004", half / "step-00000004")
    shutil.copy(tmp_path / "whole" / "recipe.yaml", tmp_path / "half")
    subprocess.run(command(tmp_path / "half", resume="auto"), env=cache, check=True, timeout=600)
    weights = [(tmp_path / name / "pretraining" / "model.safetensors").read_bytes() for name in ("whole", "half")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_compiler_that_fails_is_told_in_one_line(tmp_path):
    broken = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "CXX": "/bin/false"}
    done = subprocess.run(command(tmp_path / "run"), env=broken, capture_output=True, text=True, timeout=600)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("visreg pretrain: torch.compile failed (")
    assert "Traceback" not in done.stderr
