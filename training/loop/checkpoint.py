# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a directory that is either whole or absent, and from which a run goes on as if it had never ended.

    checkpoints/step-00001200/
        config.json, model.safetensors   VISRegViTForPreTraining, readable by from_pretrained
        unmerged.safetensors             with --lora_rank: adapters, and the layers beside them as they were
        optimizer.pt                     moments by parameter name; read with weights_only=True
        probe.pt                         state of the online probes, if there are any
        state.json                       step, scores, position of every rank in the data, recipe

Model and optimizer are written as full state dicts by parameter name, so that a checkpoint of one parallel layout
loads in another. The directory is filled under a name that no reader looks at, flushed to the disk and renamed.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint import state_dict as distributed_state
from torch.distributed.tensor import DTensor

from modeling_visreg import VISRegViTForPreTraining
from modeling_visreg.checkpoint import atomic_directory, remove_leftovers
from modeling_visreg.loading import check_finite, read_header, weight_files

from ..backbones import AdaptedModel, build_pretraining_model, has_lora, merged, plain_name, unmerged
from ..bounded import LARGEST_LOG
from ..config import PretrainOptions
from ..distributed import all_gather_object, broadcast_object
from ..errors import RunStopped, UserError, one_line
from ..run_folder import (
    CHECKPOINT,
    STATE,
    Json,
    RunFolder,
    foreign_to_checkpoint,
    kept_line,
    read_object,
    remove_checkpoint,
    write_text,
)
from .run import Run
from .same_run import check_same_images, check_same_run


PretrainingModel = VISRegViTForPreTraining | AdaptedModel

UNMERGED = "unmerged.safetensors"
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
                    write_weights(model, weights, part)
                    torch.save(moments, part / "optimizer.pt")
                    if state.probe is not None:
                        torch.save(state.probe, part / "probe.pt")
                    (part / STATE).write_text(state.as_json(), encoding="utf-8")
                    keep_foreign(target, part)
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
        for part in self.folder.checkpoints.glob(".step-*"):
            shutil.rmtree(part, ignore_errors=True)
        found = self.folder.all_checkpoints()
        wanted = {*found[-self.keep_last :], *self.best(found)}
        for path in sorted(set(found) - wanted):
            if remove_checkpoint(path):
                print(kept_line(path))

    def best(self, found: list[Path]) -> list[Path]:
        """The checkpoint with the lowest loss or the best probe, as `keep_best` asks, if one is scored."""
        scores = {path: _scores(path) for path in found}
        for name, sign in RANKED_BY[self.keep_best]:
            scored = [(sign * scores[path][name], path) for path in found if name in scores[path]]
            if scored:
                return [max(scored)[1]]
        return []


def keep_foreign(before: Path, after: Path) -> None:
    """Copy what a person put into the folder of a checkpoint into the one that takes its place."""
    for path in foreign_to_checkpoint(before):
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, after / path.name, symlinks=True)
        else:
            shutil.copy2(path, after / path.name, follow_symlinks=False)


def _scores(path: Path) -> dict[str, float]:
    """The scores of a checkpoint; {} where nobody can read them, which is no reason to stop."""
    try:
        return read_state(path, whole=False).scores
    except (ValueError, OSError):
        return {}


def write_weights(model: nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """A state dict as `from_pretrained` reads it. Adapters are merged into their layers, and lie beside them too."""
    apart = unmerged(weights)
    model.save_pretrained(folder, state_dict=merged(weights) if apart else weights)
    if apart:
        save_file({name: tensor.contiguous() for name, tensor in apart.items()}, folder / UNMERGED)


def restore(path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
    """Load a checkpoint into model and optimizer; returns its state, or that of a beginning if there is no path.

    Raises:
        UserError: a part of it is cut, missing or of another model; the message names it and the checkpoint before.
    """
    if path is None:
        return RunState()
    try:
        state, weights = read_state(path), read_weights(path, model)
        moments = read_tensors(path / "optimizer.pt")
        if (path / "probe.pt").exists():
            state.probe = read_tensors(path / "probe.pt")
        try:
            check_moments(path, moments, model)
            distributed_state.set_state_dict(
                model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=FULL
            )
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path / 'optimizer.pt'} does not fit the model: {one_line(error, 200)}") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{one_line(error)}; {_way_back(path)}") from error
    return state


def read_weights(path: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, each of the model's and no other.

    Raises:
        ValueError: a file is cut or missing, a name, shape or type is not the model's, or a number is not finite.
    """
    files = [*weight_files(path), *([path / UNMERGED] if (path / UNMERGED).is_file() else [])]
    stored = {name: shape for file in files for name, (shape, _dtype) in read_header(file).items()}
    doubled = {plain_name(name) for name in unmerged(stored)}  # what was merged
    stored = {name: shape for name, shape in stored.items() if name not in doubled}
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if wrong := sorted(name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name)):
        raise ValueError(f"{path} does not fit the model: {', '.join(wrong[:3])} ({len(wrong)} of its tensors)")
    weights = {name: tensor for file in files for name, tensor in load_file(file).items() if name in wanted}
    for name, tensor in model.state_dict().items():
        if weights[name].dtype != tensor.dtype:
            raise ValueError(f"{path}: {name} is {weights[name].dtype}, and {tensor.dtype} in the model")
    check_finite(weights, str(path))
    return weights


def check_moments(path: Path, moments: Json, model: nn.Module) -> None:
    """Raises ValueError where what the optimizer holds of a parameter has not the parameter's shape.

    The optimizer itself would find that out in its next step.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, held in (moments.get("state") or {}).items():
        for tensor in held.values():
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape != shapes.get(name):
                raise ValueError(f"{path / 'optimizer.pt'} does not fit the model: {str(name)[:80]}")


def read_tensors(path: Path) -> Json:
    """What torch.save wrote: tensors and plain values; no code in it is run.

    Raises:
        ValueError: it is missing, cut, or something else.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle fails in any way there is
        raise ValueError(f"{path} cannot be read: {one_line(error, 200)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}")
    return content


def _way_back(path: Path) -> str:
    """What to do about a checkpoint that cannot be read."""
    older = [other for other in RunFolder(path.parent.parent).all_checkpoints() if other.name < path.name]
    if not older:
        return "there is no checkpoint before it: --overwrite starts anew"
    return f"delete {path} to go on from {older[-1].name}"


def read_state(path: Path, whole: bool = True) -> RunState:
    """The content of a checkpoint's state.json.

    Args:
        whole: nothing may be missing: a run that goes on without its step would begin anew.

    Raises:
        ValueError: it cannot be read, or a field is missing or not what a run writes.
    """
    content = read_object(path / STATE, LARGEST_LOG)
    known = {spec.name: getattr(RunState(), spec.name) for spec in fields(RunState)} | {"positions": []}
    for name, value in content.items():
        kinds = (int, float) if name == "seconds" else type(known.get(name))
        negative = isinstance(value, int | float) and not 0 <= value < math.inf
        if name not in known or isinstance(value, bool) or not isinstance(value, kinds) or negative:
            raise ValueError(f"{path / STATE}: {str(name)[:80]} is not what a run writes")
    if not all(isinstance(position, dict) for position in content.get("positions", [])):
        raise ValueError(f"{path / STATE}: positions are not what a run writes")
    if whole and (missing := [name for name in ("step", "positions", "recipe") if name not in content]):
        raise ValueError(f"{path / STATE}: {missing[0]} is missing")
    if whole and path.name != f"{CHECKPOINT}{content['step']:08d}":
        raise ValueError(f"{path / STATE}: its step is {content['step']}, which is not that of {path.name}")
    return RunState(**content)


def full_model(model: PretrainingModel, accelerator: Accelerator) -> PretrainingModel | None:
    """The model to save or measure, on the main process; all ranks call this.

    It is the model itself, unless FSDP keeps its parameters in shards, or it has adapters: then an unsharded copy
    into which they are merged.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()) and not has_lora(model):
        return model
    weights = distributed_state.get_model_state_dict(model, options=FULL)
    if not accelerator.is_main_process:
        return None
    full = model.rebuilt() if isinstance(model, AdaptedModel) else build_pretraining_model(model.config)
    full.load_state_dict(merged(weights))
    return full


def adapter_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """State dict of a backbone that has adapters, unsharded, on the CPU of the main process; all ranks call this.

    Empty for one without.
    """
    return distributed_state.get_model_state_dict(network, options=FULL) if has_lora(network) else {}


def claim_folder(run: Run) -> Path | None:
    """Make the run's folder ready and return the checkpoint to go on from, or None for a beginning.

    The folder is locked until `run.folder.lock` is released: a job that is requeued may meet the one before.

    Raises:
        UserError: another run is under way in the folder, it holds a run that is neither to be continued nor
            overwritten, or cannot be continued, or something that no run wrote stands in the way.
    """
    try:
        _on_main_process(run, lambda: _lock_folder(run.folder))
        return _claim(run)
    except BaseException:
        run.folder.lock.release()
        raise


def _lock_folder(folder: RunFolder) -> None:
    """Be alone in the folder, and clear up after those that were killed in it."""
    folder.refuse_links()
    folder.take_lock()
    folder.remove_leftovers()
    for directory in (folder.model, folder.pretraining):
        remove_leftovers(directory)


def _claim(run: Run) -> Path | None:
    options, folder, accelerator = run.options, run.folder, run.accelerator
    found = (folder.is_run(), folder.model.exists(), folder.newest_checkpoint())
    occupied, finished, newest = broadcast_object(found)  # one disk decides for all ranks
    resumed = newest if occupied and options.resume == "auto" else None
    if not all(all_gather_object(resumed is None or resumed.is_dir())):
        raise UserError(f"not every process sees {resumed}: output_dir has to lie on a disk that all machines share")
    if resumed is not None:
        try:
            state = read_state(resumed)
        except ValueError as error:
            raise UserError(f"{one_line(error)}; {_way_back(resumed)}") from error
        changed = check_same_run(state, options, accelerator.num_processes)
        check_same_images(state, run.source, options)
        accelerator.print("".join(f"changed on resume: {line}\n" for line in changed), end="")
    elif occupied and not options.overwrite and (finished or options.resume != "auto"):
        raise UserError(
            f"{folder} holds a run: --resume auto continues one that has checkpoints, --overwrite deletes it, "
            "or choose another output_dir"
        )
    _on_main_process(run, lambda: _make_ready(folder, options, resumed, occupied))
    accelerator.wait_for_everyone()
    return resumed


def _make_ready(folder: RunFolder, options: PretrainOptions, resumed: Path | None, occupied: bool) -> None:
    """Nothing of an earlier run is left unless it is continued, and the recipe is there."""
    if resumed is None and occupied:
        print("".join(f"{kept_line(path)}\n" for path in folder.remove_run()), end="")
    elif resumed is None and (foreign := folder.foreign()):
        raise UserError(f"{foreign[0]} was written by no run and would be replaced: choose another output_dir")
    write_text(folder.recipe, yaml.safe_dump(options.as_recipe(), sort_keys=False))


def _on_main_process(run: Run, action: Callable[[], None]) -> None:
    """Do something on one process; where it fails, all fail with its message.

    Raises:
        UserError: it was refused, or the disk refuses it.
    """
    problem = None
    if run.is_main:
        try:
            action()
        except (ValueError, OSError) as error:
            problem = one_line(error)
    if problem := broadcast_object(problem):
        raise UserError(problem)
