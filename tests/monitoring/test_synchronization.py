# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A step never makes the host wait for the device: synchronizations are counted over a whole run, on a CPU.

What would live on an accelerator is followed from operation to operation: the parameters, the augmented views, and
whatever is computed from either. Reading such a value on the host would be a synchronization. What is drawn and
decided on the CPU on purpose (augmentation parameters, the order of images) is not followed, and an operator of ours
counts as one operation: inside, its kernel for the CPU may do as it likes.
"""

import contextlib
import importlib
import traceback
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import forked
from visreg_training.data import DeviceAugment
from visreg_training.loop.views import StepAugment
from visreg_training.monitoring.metrics import Meters
from visreg_training.objective import recorded
from visreg_training.pretrain import pretrain


updates_module = importlib.import_module("visreg_training.loop.updates")  # the package has a function of this name
STEPS, INTERVAL = 6, 3
RUN = forked.SMALL | {"eval_split": None, "max_steps": STEPS, "log_every": INTERVAL, "save_every": 100}
RUN |= {"compile": "no"}  # a compiler waits in its first step
READING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim"}
PAST_THE_DISPATCHER = ("tolist", "numpy", "__array__")  # on a CPU these look into memory without an operation


class Followed(TorchDispatchMode):
    """Follows memory of the device; `reads` holds the names of the functions around each synchronization."""

    def __init__(self):
        super().__init__()
        self.known: dict[int, StorageWeakRef] = {}  # a weak reference keeps its address from being used again
        self.reads: list[list[str]] = []

    def follow(self, values) -> None:
        for leaf in tree_leaves(values):
            if isinstance(leaf, torch.Tensor):
                reference = StorageWeakRef(leaf.untyped_storage())
                self.known[reference.cdata] = reference

    def follows(self, values) -> bool:
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
        return any(leaf.untyped_storage()._cdata in self.known for leaf in tensors)

    def note_read(self) -> None:
        self.reads.append([frame.name for frame in traceback.extract_stack()])

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        followed = self.follows((args, kwargs))
        name = function._schema.name.partition("::")[2]
        if followed and (name in READING or (name.startswith("index") and has_mask(args[1:]))):
            self.note_read()
        output = function(*args, **(kwargs or {}))
        if followed:
            self.follow(output)
        return output


def has_mask(arguments) -> bool:
    """Indexing with a mask has to know how many entries are true."""
    return any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(arguments))


@contextlib.contextmanager
def following(monkeypatch) -> Iterator[Followed]:
    mode = Followed()

    def watched(original):
        def counted(tensor, *arguments, **options):
            if mode.follows(tensor):
                mode.note_read()
            return original(tensor, *arguments, **options)

        return counted

    with monkeypatch.context() as patch:
        for method in PAST_THE_DISPATCHER:
            patch.setattr(torch.Tensor, method, watched(getattr(torch.Tensor, method)))
        with mode:
            yield mode


class Noticed:
    """Names of the functions around each synchronization that CUDA itself reports, from a run's second step on.

    The first step may wait for what is made once: quantiles, kernels.
    """

    def __init__(self):
        self.reads: list[list[str]] = []
        self.steps = 0

    def note(self, message, *_where, **_more) -> None:
        if "synchroniz" in str(message) and self.steps:
            self.reads.append([frame.name for frame in traceback.extract_stack()])

    def count_steps(self, add):
        def counted(meters, *values):
            add(meters, *values)
            self.steps += 1

        return counted


@pytest.fixture
def noticed(monkeypatch) -> Iterator[Noticed]:
    found = Noticed()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", found.note)
        monkeypatch.setattr(Meters, "add", found.count_steps(Meters.add))
        torch.cuda.set_sync_debug_mode("warn")
        yield found
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_cuda_itself_sees_no_synchronization_between_reports(noticed, monkeypatch, tmp_path):
    """What the count on a CPU cannot see: pageable copies, kernels that wait.

    A checkpoint, at the end, may wait; so does the objective when it is recorded as a CUDA graph, in the first step
    here.
    """
    monkeypatch.setattr(recorded, "SEEN_BEFORE", 0)
    pretrain(**RUN, output_dir=tmp_path / "run")
    assert noticed.steps == STEPS
    steps = [names[names.index("train") :] for names in noticed.reads if "train" in names]
    assert [names for names in steps if not {"read", "write"} & {*names}] == []
    assert any("read" in names for names in steps)  # they would be seen


@pytest.fixture
def reads_of_a_run(monkeypatch, tmp_path):
    """The synchronizations of a whole run with online probes."""

    def run() -> list[list[str]]:
        with following(monkeypatch) as mode, monkeypatch.context() as patch:

            def follow_result(function):
                def followed(*arguments):
                    result = function(*arguments)
                    mode.follow(list(result.parameters()) if isinstance(result, torch.nn.Module) else result)
                    return result

                return followed

            patch.setattr(updates_module, "build_step", follow_result(updates_module.build_step))
            patch.setattr(StepAugment, "__call__", follow_result(StepAugment.__call__))
            pretrain(**RUN, output_dir=tmp_path / "run")
        return [names for names in mode.reads if "train" in names]

    return run


@pytest.mark.cpu
def test_an_interval_has_one_synchronization_and_it_is_the_report(reads_of_a_run):
    reads = reads_of_a_run()
    reports = [names for names in reads if "read" in names]
    assert [names[names.index("train") :] for names in reads if names not in reports] == []
    assert len(reports) == STEPS // INTERVAL


@pytest.mark.cpu
def test_a_synchronization_would_be_noticed(reads_of_a_run, monkeypatch):
    add = Meters.add

    def curious(meters, values, skipped):
        add(meters, values, skipped)
        if values["grad_norm"] > 0 and values["total"].detach().numpy() > 0:  # two reads of a step
            return

    monkeypatch.setattr(Meters, "add", curious)
    assert sum("curious" in names for names in reads_of_a_run()) == 2 * STEPS


def test_colors_are_decided_on_the_cpu_and_nothing_is_read_back():
    """The path of an accelerator on the meta device, which has no memory that could be read."""
    images = torch.empty(12, 3, 32, 32, dtype=torch.uint8, device="meta")
    views = DeviceAugment()(images, torch.Generator().manual_seed(0))
    assert views.shape == images.shape and views.device.type == "meta" and views.dtype == torch.float32
    with pytest.raises(RuntimeError, match="meta"):
        views.sum().item()
