# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a directory that is either whole or absent, and from which a run goes on as if it had never ended.

    checkpoints/step-00001200/
        config.json, model.safetensors   VISRegViTForPreTraining, readable by from_pretrained
        optimizer.pt                     moments by parameter name; read with weights_only=True
        probe.pt                         state of the online probes, if there are any
        state.json                       step, scores, position of every rank in the data, recipe

Model and optimizer are written as whole state dicts by parameter name, so that a checkpoint of one parallel layout
loads in another. The directory is filled under a name that no reader looks at, flushed to the disk and renamed.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint import state_dict as distributed_state
from torch.distributed.tensor import DTensor

from ..backbones import build_pretraining_model
from ..errors import RunStopped, UserError
from .ranks import from_main


WHOLE = distributed_state.StateDictOptions(full_state_dict=True, cpu_offload=True)
PREFIX, UNFINISHED = "step-", ".unfinished"

# keep_best -> the scores that rank checkpoints, with their signs; the first one there is counts.
RANKED_BY = {"none": (), "loss": (("total", -1),), "probe": (("held_out_linear", 1), ("probe_linear", 1))}

# Options that may change between a run and its continuation; every other one would break it.
FREE_ON_RESUME = {
    "output_dir", "resume", "overwrite", "save_every", "keep_last", "keep_best", "log_every", "report_to",
    "num_workers", "max_bad_share", "on_nonfinite", "on_collapse", "collapse_rank", "collapse_sigma",
    "collapse_intervals", "compile", "activation_checkpointing", "micro_batch_size", "online_probe",
    "eval_dataset", "eval_split", "eval_images", "probe_every", "probe_images",
    "push_to_hub", "repo_id", "push_every", "private",
}  # fmt: skip


class Checkpoints:
    """Writes, prunes and reads the checkpoints of one run.

    Args:
        directory: the run's `checkpoints` folder.
        keep_last: how many of the newest are kept.
        keep_best: "loss" or "probe" also keeps the best by it (the loss ranks checkpoints: paper, figure 7); "none".
        accelerator: its main process writes; the others wait and learn whether it worked.
    """

    def __init__(self, directory: Path, keep_last: int, keep_best: str, accelerator):
        self.directory = directory
        self.keep_last, self.keep_best = keep_last, keep_best
        self.accelerator = accelerator

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        found = sorted(path for path in self.directory.glob(f"{PREFIX}*") if path.suffix != UNFINISHED)
        return found[-1] if found else None

    def write(
        self, step: int, parts: Any, optimizer, positions: list[dict], probes: Any, made: dict[str, Any]
    ) -> Path:
        """All ranks call this after `step` updates; `positions`: one a rank; `made`: what the run has to show so far.

        Raises:
            RunStopped: on every rank, if the main process could not write (a full disk, say).
        """
        before = self.latest()
        target = self.directory / f"{PREFIX}{step:08d}"
        weights, moments = distributed_state.get_state_dict(parts.model, optimizer, options=WHOLE)
        state = {"step": step, "positions": positions, "recipe": parts.arguments.as_recipe(), **made}
        problem = None
        if self.accelerator.is_main_process:
            try:
                with unfinished(target) as part:
                    parts.model.save_pretrained(part, state_dict=weights)
                    torch.save(moments, part / "optimizer.pt")
                    if probes is not None:
                        torch.save(probes.state_dict(), part / "probe.pt")
                    (part / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
            except (OSError, RuntimeError, SafetensorError) as error:
                intact = f"{before} is intact" if before else "there is none before it"
                problem = f"the checkpoint of step {step} could not be written ({error}); {intact}"
        problem = from_main(self.accelerator, problem)
        if problem is not None:
            raise RunStopped(problem)
        if self.accelerator.is_main_process:
            self.prune()
        return target

    def prune(self) -> None:
        """Remove what is neither among the last nor the best, and what a kill left unfinished."""
        for part in [*self.directory.glob(f"*{UNFINISHED}"), *self.directory.glob(f".*{UNFINISHED}")]:
            shutil.rmtree(part, ignore_errors=True)
        found = sorted(self.directory.glob(f"{PREFIX}*"))
        kept = {*found[-self.keep_last :], *self.best(found)}
        for path in set(found) - kept:
            remove_whole(path)

    def best(self, found: list[Path]) -> list[Path]:
        """The checkpoint with the lowest loss or the best probe, as `keep_best` asks, if one is scored."""
        scores = {path: read_state(path)["scores"] for path in found}
        for name, sign in RANKED_BY[self.keep_best]:
            scored = [(sign * scores[path][name], path) for path in found if name in scores[path]]
            if scored:
                return [max(scored)[1]]
        return []

    def restore(self, path: Path | None, model: nn.Module, optimizer) -> dict[str, Any]:
        """Load `path` into model and optimizer; returns its state, or that of a beginning if there is no path."""
        if path is None:
            return {"step": 0, "seconds": 0.0, "positions": None, "skipped_updates": 0}
        weights = {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}
        moments = torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu")
        distributed_state.set_state_dict(
            model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=WHOLE
        )
        probe = path / "probe.pt"
        probes = {"probe": torch.load(probe, weights_only=True, map_location="cpu")} if probe.exists() else {}
        return read_state(path) | probes


def whole_model(model: nn.Module, accelerator) -> nn.Module | None:
    """The model to save or measure, on the main process; all ranks call this.

    It is the model itself, unless FSDP keeps its parameters in shards: then a copy that they are put together in.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    weights = distributed_state.get_model_state_dict(model, options=WHOLE)
    if not accelerator.is_main_process:
        return None
    whole = build_pretraining_model(model.config)
    whole.load_state_dict(weights)
    return whole


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A directory to fill; it becomes `target`, flushed, when the block ends, and vanishes if the block raises."""
    part = target.with_suffix(UNFINISHED)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        flush(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if target.exists():
        remove_whole(target)
    part.rename(target)
    flush_directory(target.parent)


def remove_whole(path: Path) -> None:
    """Renamed first, so that a kill in the middle of the removal leaves no half checkpoint under a good name."""
    doomed = path.with_name(f".{path.name}{UNFINISHED}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / "state.json").read_text(encoding="utf-8"))


def check_same_run(state: dict[str, Any], recipe: dict[str, Any], processes: int) -> list[str]:
    """Lines that name the options changed since the checkpoint and allowed to.

    Raises:
        UserError: an option changed that the continuation could not survive, or the number of processes did.
    """
    before = state["recipe"]
    changed = [name for name, value in recipe.items() if name in before and before[name] != value]
    fatal = [name for name in changed if name not in FREE_ON_RESUME]
    if fatal:
        named = ", ".join(f"{name} ({before[name]} -> {recipe[name]})" for name in fatal)
        raise UserError(f"the run cannot be continued with another {named}: use the old value, or another output_dir")
    if len(state["positions"]) != processes:
        raise UserError(
            f"the run was started with {len(state['positions'])} processes, not {processes}: "
            "its data order needs the same number"
        )
    return [f"{name}: {before[name]} -> {recipe[name]}" for name in changed]


def flush(directory: Path) -> None:
    """Every file of a directory, and the directory, to the disk."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    flush_directory(directory)


def flush_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
