# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a directory that is either whole or absent, and from which a run goes on as if it had never ended.

    checkpoints/step-00001200/
        config.json, model.safetensors   VISRegViTForPreTraining, readable by from_pretrained
        optimizer.pt                     moments by parameter name; read with weights_only=True
        probe.pt                         state of the online probes, if there are any
        state.json                       step, scores, position of every rank in the data, recipe

Model and optimizer are written as full state dicts by parameter name, so that a checkpoint of one parallel layout
loads in another. The directory is filled under a name that no reader looks at, flushed to the disk and renamed.
"""

import json
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint import state_dict as distributed_state
from torch.distributed.tensor import DTensor

from modeling_visreg import VISRegViTForPreTraining
from modeling_visreg.checkpoint import atomic_directory

from ..backbones import build_pretraining_model
from ..config import PretrainOptions, free_on_resume
from ..distributed import all_gather_object, broadcast_object
from ..errors import RunStopped, UserError
from ..run_folder import Json, RunFolder, write_text
from .run import Run


FULL = distributed_state.StateDictOptions(full_state_dict=True, cpu_offload=True)

# keep_best -> the scores that rank checkpoints, with their signs; the first one there is counts.
RANKED_BY = {"none": (), "loss": (("total", -1),), "probe": (("held_out_linear", 1), ("probe_linear", 1))}


@dataclass
class RunState:
    """Where a run stands; the default is its beginning.

    Attributes:
        step: updates made.
        positions: of every rank in the data, None at the beginning.
        recipe: the options it was made with.
        seconds: of training so far.
        scores: that rank checkpoints, by name.
        skipped_updates: updates that were not finite and therefore left out.
        intervals_below: logging intervals in a row that count as collapsed.
        probe: state of the online probes, None without any.
    """

    step: int = 0
    positions: list[dict] | None = None
    recipe: Json = field(default_factory=dict)
    seconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    skipped_updates: int = 0
    intervals_below: int = 0
    probe: Json | None = None

    def as_json(self) -> str:
        """The content of state.json: everything but the probe, whose tensors lie beside it."""
        content = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "probe"}
        return json.dumps(content, indent=1)


class Checkpoints:
    """Writes, prunes and reads the checkpoints of one run.

    Args:
        folder: of the run.
        keep_last: how many of the newest are kept.
        keep_best: "loss" or "probe" also keeps the best by it (the loss ranks checkpoints: paper, figure 7); "none".
        accelerator: its main process writes; the others wait and learn whether it worked.
    """

    def __init__(self, folder: RunFolder, keep_last: int, keep_best: str, accelerator: Accelerator):
        self.folder = folder
        self.keep_last, self.keep_best = keep_last, keep_best
        self.accelerator = accelerator

    def write(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: RunState) -> Path:
        """All ranks call this after `state.step` updates.

        Raises:
            RunStopped: on every rank, if the main process could not write (a full disk, say).
        """
        before, target = self.folder.newest_checkpoint(), self.folder.checkpoint(state.step)
        weights, moments = distributed_state.get_state_dict(model, optimizer, options=FULL)
        problem = None
        if self.accelerator.is_main_process:
            try:
                with atomic_directory(target, overwrite=True, durable=True) as part:
                    model.save_pretrained(part, state_dict=weights)
                    torch.save(moments, part / "optimizer.pt")
                    if state.probe is not None:
                        torch.save(state.probe, part / "probe.pt")
                    (part / "state.json").write_text(state.as_json(), encoding="utf-8")
            except (OSError, RuntimeError, SafetensorError) as error:
                intact = f"{before} is intact" if before else "there is none before it"
                problem = f"the checkpoint of step {state.step} could not be written ({error}); {intact}"
        problem = broadcast_object(problem)
        if problem is not None:
            raise RunStopped(problem)
        if self.accelerator.is_main_process:
            self.prune()
        return target

    def prune(self) -> None:
        """Remove what is neither among the last nor the best, and what a kill left unfinished."""
        for pattern in (".step-*", "*.unfinished"):
            for part in self.folder.checkpoints.glob(pattern):
                shutil.rmtree(part, ignore_errors=True)
        found = self.folder.all_checkpoints()
        wanted = {*found[-self.keep_last :], *self.best(found)}
        for path in set(found) - wanted:
            # Renamed first: a kill in the middle of the removal leaves no half checkpoint under a good name.
            doomed = path.with_name(f".{path.name}.old")
            path.rename(doomed)
            shutil.rmtree(doomed)

    def best(self, found: list[Path]) -> list[Path]:
        """The checkpoint with the lowest loss or the best probe, as `keep_best` asks, if one is scored."""
        scores = {path: read_state(path).scores for path in found}
        for name, sign in RANKED_BY[self.keep_best]:
            scored = [(sign * scores[path][name], path) for path in found if name in scores[path]]
            if scored:
                return [max(scored)[1]]
        return []


def restore(path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
    """Load a checkpoint into model and optimizer; returns its state, or that of a beginning if there is no path."""
    if path is None:
        return RunState()
    weights = {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}
    moments = torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu")
    distributed_state.set_state_dict(
        model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=FULL
    )
    state, probe = read_state(path), path / "probe.pt"
    if probe.exists():
        state.probe = torch.load(probe, weights_only=True, map_location="cpu")
    return state


def read_state(path: Path) -> RunState:
    """The content of a checkpoint's state.json."""
    return RunState(**json.loads((path / "state.json").read_text(encoding="utf-8")))


def full_model(model: VISRegViTForPreTraining, accelerator: Accelerator) -> VISRegViTForPreTraining | None:
    """The model to save or measure, on the main process; all ranks call this.

    It is the model itself, unless FSDP keeps its parameters in shards: then an unsharded copy.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    weights = distributed_state.get_model_state_dict(model, options=FULL)
    if not accelerator.is_main_process:
        return None
    full = build_pretraining_model(model.config)
    full.load_state_dict(weights)
    return full


def claim_folder(run: Run) -> Path | None:
    """Make the run's folder ready and return the checkpoint to go on from, or None for a beginning.

    Raises:
        UserError: the folder holds a run that is neither to be continued nor overwritten, or cannot be continued.
    """
    options, folder, accelerator = run.options, run.folder, run.accelerator
    found = (folder.recipe.exists(), folder.model.exists(), folder.newest_checkpoint())
    occupied, finished, newest = broadcast_object(found)  # one disk decides for all ranks
    resumed = newest if options.resume == "auto" else None
    if not all(all_gather_object(resumed is None or resumed.is_dir())):
        raise UserError(f"not every process sees {resumed}: output_dir has to lie on a disk that all machines share")
    if resumed is not None:
        for line in check_same_run(read_state(resumed), options, accelerator.num_processes):
            accelerator.print(f"changed on resume: {line}")
    elif occupied and not options.overwrite and (finished or options.resume != "auto"):
        raise UserError(
            f"{folder} holds a run: --resume auto continues one that has checkpoints, --overwrite deletes it, "
            "or choose another output_dir"
        )
    if run.is_main:
        if occupied and resumed is None:
            folder.remove_run()
        write_text(folder.recipe, yaml.safe_dump(options.as_recipe(), sort_keys=False))
    accelerator.wait_for_everyone()
    return resumed


def check_same_run(state: RunState, options: PretrainOptions, processes: int) -> list[str]:
    """Lines that name the options changed since the checkpoint and allowed to.

    Raises:
        UserError: an option changed that the continuation could not survive, or the number of processes did.
    """
    before, recipe = state.recipe, options.as_recipe()
    changed = [name for name, value in recipe.items() if name in before and before[name] != value]
    fatal = [name for name in changed if name not in free_on_resume()]
    if fatal:
        named = ", ".join(f"{name} ({before[name]} -> {recipe[name]})" for name in fatal)
        raise UserError(f"the run cannot be continued with another {named}: use the old value, or another output_dir")
    if len(state.positions or []) != processes:
        raise UserError(
            f"the run was started with {len(state.positions or [])} processes, not {processes}: "
            "its data order needs the same number"
        )
    return [f"{name}: {before[name]} -> {recipe[name]}" for name in changed]
