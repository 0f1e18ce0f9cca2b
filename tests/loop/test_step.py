# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Invariants 1 and 2: many processes, or micro-batches, give the loss and the gradient of the whole batch."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.measuring import allocated_peak
from helpers import fork_server
from helpers import step_on_ranks as ranks
from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from visreg_training.loop.optimizer import Updater, build_optimizer
from visreg_training.loop.step import PretrainingStep
from visreg_training.objective import VISRegObjective


DEVICES = [pytest.param("cpu", marks=pytest.mark.cpu), pytest.param("cuda", marks=pytest.mark.gpu)]
SHARDED = pytest.mark.skipif(not ranks.SHARDS_ON_CPUS, reason="this torch cannot shard on a CPU")
CASES = {
    2: [
        {},
        {"regularizer": "sigreg"},
        {"micro_batch_size": 2},
        *([{"sharded": True}] if ranks.SHARDS_ON_CPUS else []),
        {"slices": "per_rank"},
        {"statistics": "local"},
        *([{"compiled": True}, {"compiled": True, "micro_batch_size": 4}] if ranks.COMPILES else []),
        *([{"compiled": True, "sharded": True}] if ranks.COMPILES and ranks.SHARDS_ON_CPUS else []),
    ],
    3: [{"regularizer": "vicreg"}, {"regularizer": "swd"}],
    4: [{}],  # 50 slices on 4 ranks: 12 or 13 each
}


@pytest.fixture(scope="module")
def on_processes(tmp_path_factory):
    """(world, case) -> the results of one step on real gloo processes, one dict a rank."""
    results = {}
    for world, cases in CASES.items():
        folder = tmp_path_factory.mktemp("ranks")
        fork_server.run(world, folder, json.dumps(cases), script=ranks.__file__).check_returncode()
        for number, options in enumerate(cases):
            files = [folder / f"{number}-{rank}.pt" for rank in range(world)]
            results[world, json.dumps(options)] = [torch.load(file, weights_only=True) for file in files]
    return results


# torch 2.6 and 2.11 add up the gradients of biases in an order of their own, to 1.2e-5.
TOLERANCE = 1e-5 if torch.__version__ >= "2.14" else 2e-5


def assert_equal(result, expected, tolerance=TOLERANCE):
    """To `tolerance` of each tensor's largest entry; gradients that are zero but for rounding, of all gradients'."""
    assert result.keys() == expected.keys() and len(expected) > 60
    largest = max(value.abs().max().item() for name, value in expected.items() if name.startswith("grad"))
    for name, value in expected.items():
        scale = max(value.abs().max().item(), 0.05 * largest)
        apart = (result[name] - value).abs().max().item()
        assert apart <= tolerance * scale, f"{name}: {apart:.3g} apart, of {scale:.3g}; {result[name]} for {value}"


ALIKE = ("micro_batch_size", "sharded", "compiled")  # change nothing
EXACT = [
    (world, options)
    for world, cases in CASES.items()
    for options in cases
    if not {"slices", "statistics"} & options.keys()
]


@pytest.mark.cpu
@pytest.mark.parametrize("world, options", EXACT, ids=json.dumps)
def test_processes_give_what_one_gives(world, options, on_processes):
    alone = {name: value for name, value in options.items() if name not in ALIKE}
    expected = ranks.take_step(ranks.make_step(**alone), ranks.make_views())
    # Compiled blocks take all resolutions in one product, which sums in another order: 1.1e-5 seen.
    tolerance = 2e-5 if "compiled" in options else TOLERANCE
    for result in on_processes[world, json.dumps(options)]:
        assert_equal(result, expected, tolerance)


@pytest.mark.cpu
def test_slices_of_each_rank_as_published(on_processes):
    """`per_rank`: other directions on each rank; the reported terms are nevertheless equal on all ranks."""
    first, second = on_processes[2, '{"slices": "per_rank"}']
    assert_equal(first, second)
    alone = ranks.take_step(ranks.make_step(slices="per_rank"), ranks.make_views())
    assert first["terms.shape"] != alone["terms.shape"]
    assert torch.allclose(first["terms.scale"], alone["terms.scale"], rtol=1e-5)


@pytest.mark.cpu
def test_local_statistics_differ_from_global_ones(on_processes):
    whole = ranks.take_step(ranks.make_step(), ranks.make_views())
    local = on_processes[2, '{"statistics": "local"}'][0]
    assert abs(local["terms.scale"] - whole["terms.scale"]) > 1e-4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=SHARDED)])
def test_one_rank_gives_what_no_rank_gives(device, sharded, tmp_path, monkeypatch):
    """DDP and FSDP2 over gloo, and over NCCL on one GPU, against a step without them on the same device: a seed draws
    other directions on another one.
    """
    words = ["1", str(tmp_path), json.dumps([{"sharded": sharded}]), device]
    if device == "cpu":
        done = fork_server.run(*words, script=ranks.__file__)
    else:
        done = subprocess.run([sys.executable, ranks.__file__, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    alone = ranks.take_step(ranks.make_step().to(device), [group.to(device) for group in ranks.make_views()])
    expected = {name: value.cpu() for name, value in alone.items()}
    assert_equal(torch.load(tmp_path / "0-0.pt", weights_only=True), expected, TOLERANCE if device == "cpu" else 1e-4)


@pytest.mark.parametrize("micro", [1, 5, 6])
def test_micro_batches_give_what_the_whole_batch_gives(micro):
    """Drop path and batch norm on: the second pass over a micro-batch draws what the first one drew."""
    whole = ranks.take_step(ranks.make_step(drop_path_rate=0.3), ranks.make_views())
    parts = ranks.take_step(ranks.make_step(micro_batch_size=micro, drop_path_rate=0.3), ranks.make_views())
    assert_equal(parts, whole)
    other = ranks.take_step(ranks.make_step(drop_path_rate=0.3), ranks.make_views(), seed=6)
    assert abs(other["terms.total"] - whole["terms.total"]) > 1e-4  # drop path did draw


@pytest.mark.parametrize("device", DEVICES)
def test_a_skipped_update_leaves_nothing_behind(device):
    """Weights, moments and the batch norm statistics, which forward has moved by then, stay as they were."""
    step, views = ranks.make_step().to(device), [group.to(device) for group in ranks.make_views()]
    step.objective.check_finite = False  # as the loop has it
    optimizer = build_optimizer(step, 1e-3, 0.05)
    update = Updater(SimpleNamespace(backward=lambda loss: loss.backward()), optimizer, step, clip_norm=1.0)

    def state():
        moments = [value for moment in optimizer.state.values() for value in moment.values()]
        return [value.clone() for value in (*step.state_dict().values(), *moments)]

    assert update(step(views, 0).terms.total, 1e-3)[1] == 0
    before = state()
    views[0][0, 3] = torch.nan
    assert update(step(views, 1).terms.total, 1e-3)[1] == 1
    assert all(torch.equal(a, b) for a, b in zip(state(), before, strict=True))
    assert update(step([group.to(device) for group in ranks.make_views()], 2).terms.total, 1e-3)[1] == 0
    after = dict(step.named_buffers())
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["model.projector.1.running_mean"], before[len(list(step.parameters()))])


@pytest.mark.parametrize("micro", [None, 2])
def test_the_probe_is_given_the_last_two_blocks_and_changes_nothing(micro):
    views = ranks.make_views()
    plain, probed = (ranks.make_step(micro, 0.3) for _ in range(2))
    probed.probed = True
    first, second = ranks.take_step(plain, views), ranks.take_step(probed, views)
    assert all(torch.equal(first[name], second[name]) for name in first)
    probed.eval()
    output = probed(views, 7)
    states = probed.model.vit(views[0].flatten(0, 1), output_hidden_states=True).hidden_states
    expected = torch.cat([states[-2][:, 0], states[-1][:, 0]], dim=1).unflatten(0, views[0].shape[:2])
    assert torch.allclose(output.blocks, expected, atol=1e-6) and not output.blocks.requires_grad


def test_half_precision_reaches_the_backbone_and_not_the_objective():
    step, views = ranks.make_step(), ranks.make_views()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = step(views, 7)
    assert output.projections.dtype == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in output.terms)


def test_micro_batches_need_the_memory_of_one():
    """Peak of the tensors: at most 15 % above a step at the micro-batch size alone, and the features that are kept."""
    micro, batch = 8, 96
    config = VISRegViTConfig(
        hidden_size=64, num_hidden_layers=6, num_attention_heads=2, image_size=32, patch_size=4, projection_size=24
    )
    model = VISRegViTForPreTraining(config).train()

    def peak(images: int) -> int:
        step = PretrainingStep(model, VISRegObjective(num_slices=50), ranks.GLOBAL, micro)
        views = [torch.randn(2, images, 3, 32, 32), torch.randn(3, images, 3, 16, 16)]
        step([group[:, :2] for group in views], 0).terms.total.backward()  # gradients exist
        return allocated_peak(lambda: step(views, 0).terms.total.backward())

    kept = 4 * 5 * batch * (64 + 24)
    assert peak(batch) < 1.15 * peak(micro) + kept
