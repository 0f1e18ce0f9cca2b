# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From options to the parts of a run. The only place where option names meet the parts' own arguments.

V views, B images of a rank; views of one resolution are (V_r, B, C, H, W).
"""

import dataclasses
import warnings
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs
from transformers.utils.logging import disable_progress_bar
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining

from ..backbones import build_pretraining_model, continue_pretraining_model
from ..compat import enable_activation_checkpointing
from ..data import (
    ColorOptions,
    DeviceAugment,
    MultiCrop,
    PretrainingLoader,
    Subset,
    TorchvisionReference,
    open_stream,
)
from ..errors import UserError
from ..evaluation.splits import label_map
from ..objective import VISRegObjective
from ..run_folder import model_directory
from .architectures import model_config
from .checkpoint import Checkpoints
from .config import Arguments, DataOptions, ModelOptions, ObjectiveOptions, RunOptions
from .defaults import Choice, choose
from .estimate import USABLE, largest_micro_batch, step_cost
from .folder import open_folder
from .held_out import HeldOut
from .plan import RunPlan, divided_batch, plan_run
from .probes import OnlineProbes
from .randomness import MODEL, fold
from .step import PretrainingStep
from .views import StepAugment, ViewBatches


@dataclass(frozen=True)
class Run:
    """The parts of one run that exist before its first step.

    `held_out` is None without an eval_split; `probe_source` is what its classifiers learn from; `resumed` is the
    checkpoint that the run goes on from, or None.
    """

    arguments: Arguments
    accelerator: Accelerator
    source: Any
    held_out: Any | None
    probe_source: Any
    plan: RunPlan
    model: VISRegViTForPreTraining
    folder: Path
    checkpoints: Checkpoints
    resumed: Path | None


def assemble(arguments: Arguments) -> Run:
    """Make every part, or refuse: nothing is written before all of them fit together.

    Raises:
        UserError, ValueError, OSError: an option, the data or the output folder will not do.
    """
    refuse_shape_options(arguments)
    accelerator = start_accelerator(arguments.run)
    source = open_training_source(arguments.data, arguments.run.seed)
    held_out = open_evaluation_source(arguments.data, arguments.data.eval_split)
    own_labels = arguments.data.eval_dataset in (None, arguments.data.dataset)
    probe_source = source if own_labels else open_evaluation_source(arguments.data, "train")
    if held_out is not None:
        check_labels(probe_source, held_out)
    processes = accelerator.num_processes
    if "config" not in arguments.given:
        memory, width = device_memory(accelerator.device), 2 if accelerator.mixed_precision == "bf16" else 4
        for line in fill_defaults(arguments, source, accelerator.device, processes, memory, width):
            accelerator.print(line)
    plan = plan_run(arguments.run, arguments.data, arguments.objective, processes, source.num_examples)
    model = make_model(arguments.model, arguments.data, arguments.run.seed)
    make_objective(arguments.objective, arguments.run.seed)
    folder = Path(arguments.run.output_dir)
    options = arguments.run
    checkpoints = Checkpoints(folder / "checkpoints", options.keep_last, options.keep_best, accelerator)
    resumed = open_folder(folder, arguments, checkpoints, accelerator)
    return Run(arguments, accelerator, source, held_out, probe_source, plan, model, folder, checkpoints, resumed)


def fill_defaults(
    arguments: Arguments, source: Any, device: torch.device, processes: int, memory: int | None = None, width: int = 4
) -> list[str]:
    """Without a recipe: choose what was not given from the images and the device; returns what and why, as lines.

    Args:
        memory: bytes of one process's device, from which the micro-batch follows; None leaves it alone (a CPU).
        width: bytes of an activation, 2 under bf16 autocast.
    """
    lines = ["no recipe given; chosen for these images and this device:"]
    start = arguments.model.initialize_from
    config = VISRegViTConfig.from_pretrained(model_directory(start)) if start else None

    def take(choice: Choice) -> None:
        if choice.option not in arguments.given:
            arguments.fill(choice.option, choice.value)
            lines.append(f"  {choice.option:<22} {choice.value!s:<9} {choice.reason}")

    for choice in choose(source, device, processes, config and config.patch_size):
        take(choice)
    if memory is not None:
        config = config or config_from(arguments.model, arguments.data)
        take(choose_micro_batch(arguments, config, processes, memory, width))
    return lines


def device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU, None of a CPU, whose memory others share."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def choose_micro_batch(arguments: Arguments, config: Any, processes: int, memory: int, width: int) -> Choice:
    """The largest micro-batch that is estimated to fit into `memory` bytes; `width`: bytes of an activation."""
    check_crops(config.patch_size, arguments.data)
    images = divided_batch(arguments.run.global_batch_size, processes)
    step, resolutions = meta_step(arguments, config), arguments.data.resolutions()
    micro = largest_micro_batch(step, resolutions, images, width, USABLE * memory, processes)
    need = step_cost(step, resolutions, images, micro or 1, width, processes).total_bytes
    reason = f"of {images} on a device; estimated to need {need / 2**30:.1f} of its {memory / 2**30:.0f} GiB"
    reason += "" if micro else ", which will not fit: a smaller model or view will"
    return Choice("micro_batch_size", micro or 1, reason)


def meta_step(arguments: Arguments, config: Any) -> PretrainingStep:
    """The step of a run without memory behind it, for estimates."""
    with torch.device("meta"):
        model = build_pretraining_model(config)
    if arguments.model.activation_checkpointing:
        enable_activation_checkpointing(model)
    objective = make_objective(arguments.objective, arguments.run.seed)
    return PretrainingStep(model, objective, arguments.data.num_global)


def start_accelerator(run: RunOptions) -> Accelerator:
    """Accelerate with our precision and DDP's gradients as views of the buckets (one copy of them less).

    Buffers are not broadcast: with statistics over the whole batch every rank computes the same ones.
    """
    disable_progress_bar()  # of transformers: a bar for each file of a checkpoint
    precision = run.mixed_precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # Accelerate 1.15 knows only this name of the option, of which torch 2.14 warns.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    AcceleratorState._reset_state()  # of an earlier run of this program, with another precision perhaps
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # without it several processes on CPUs do not find each other
        mixed_precision=precision,
        # The main process evaluates and writes alone while the others wait: minutes are no failure.
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=timedelta(hours=3))],
        log_with=tracker_names(run.report_to) or None,
        project_dir=run.output_dir,
    )


def tracker_names(report_to: str) -> list[str]:
    """The trackers asked for.

    Raises:
        UserError: one of them is unknown to Accelerate or not installed.
    """
    names = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    installed = [str(tracker.value) for tracker in get_available_trackers()]
    for name in names:
        if name not in installed:
            raise UserError(f"report_to: '{name}' is not installed; here are {', '.join(installed) or 'none'}")
    return names


def start_trackers(parts: "Run") -> None:
    """Open the trackers with the run's recipe; they flatten no lists."""
    if parts.accelerator.log_with:
        recipe = {name: str(value) for name, value in parts.arguments.as_recipe().items()}
        parts.accelerator.init_trackers("visreg", config=recipe)


def open_training_source(data: DataOptions, seed: int) -> Any:
    """The images to learn from."""
    return open_stream(
        data.dataset,
        dataset_config=data.dataset_config,
        split=data.split,
        streaming=data.streaming,
        revision=data.revision,
        image_column=data.image_column,
        label_column=data.label_column,
        subset=Subset(data.fraction, data.images_per_class, data.imbalance_factor, data.file_list, seed),
        max_bad_share=data.max_bad_share,
    )


def open_evaluation_source(data: DataOptions, split: str | None) -> Any | None:
    """A split of the labelled data set that measures the features, or None without a split."""
    if split is None:
        return None
    if data.eval_dataset in (None, data.dataset):
        options = {"dataset_config": data.dataset_config, "revision": data.revision}
        options |= {"image_column": data.image_column, "label_column": data.label_column}
        return open_stream(data.dataset, split=split, streaming=data.streaming, **options)
    return open_stream(data.eval_dataset, split=split)


def check_labels(probe_source: Any, held_out: Any) -> None:
    """Raises UserError unless both splits are labelled with the same classes."""
    if not (probe_source.label_names and held_out.label_names):
        raise UserError("eval_split needs labels: name their column with --label_column, or leave eval_split out")
    label_map(probe_source.label_names, held_out.label_names)


def make_views(data: DataOptions) -> MultiCrop | TorchvisionReference:
    """What the workers do to an image."""
    crops = MultiCrop(**shared_options(data, MultiCrop))
    if data.augment_backend == "device":
        return crops
    return TorchvisionReference(crops, **shared_options(data, ColorOptions))


def make_augment(data: DataOptions) -> DeviceAugment:
    return DeviceAugment(**shared_options(data, ColorOptions))


def shared_options(data: DataOptions, kind: type) -> dict[str, Any]:
    """The fields of a dataclass of data/ that are options of a run."""
    return {spec.name: getattr(data, spec.name) for spec in fields(kind) if hasattr(data, spec.name)}


def make_loader(parts: Run, state: dict[str, Any]) -> PretrainingLoader:
    """This rank's endless batches, from where `state` (that of a checkpoint, or of the beginning) left them."""
    data, rank = parts.arguments.data, parts.accelerator.process_index
    return PretrainingLoader(
        parts.source,
        make_views(data),
        batch_size=parts.plan.rank_batch_size,
        seed=parts.arguments.run.seed,
        rank=rank,
        world_size=parts.accelerator.num_processes,
        num_workers=data.num_workers,
        position=state["positions"][rank] if state["positions"] else None,
        max_bad_share=data.max_bad_share,
        skipped_path=parts.folder / "skipped.jsonl",
    )


def make_step_augment(parts: Run) -> StepAugment:
    """Colours for the views of this rank."""
    augment, accelerator = make_augment(parts.arguments.data), parts.accelerator
    return StepAugment(augment, accelerator.device, parts.arguments.run.seed, accelerator.process_index)


def make_batches(parts: Run, state: dict[str, Any]) -> ViewBatches:
    """This rank's endless batches of coloured views, from where `state` left them."""
    return ViewBatches(make_loader(parts, state), make_step_augment(parts), state["step"], parts.plan.total_steps)


def seed_model(seed: int, step: int, rank: int) -> None:
    """Drop path and whatever else draws from torch's global generators in step `step`."""
    torch.manual_seed(fold(seed, step, rank, MODEL))


def make_model(model: ModelOptions, data: DataOptions, seed: int) -> VISRegViTForPreTraining:
    """A fresh model, or the one the run starts from; the same on every rank.

    Raises:
        ValueError: a crop that the patch does not divide, or a checkpoint that cannot be read.
    """
    torch.manual_seed(fold(seed))
    if model.initialize_from:
        sizes = (model.projection_size, model.projector_hidden_size)
        made = continue_pretraining_model(model.initialize_from, *sizes, model.drop_path_rate)
    else:
        made = build_pretraining_model(config_from(model, data))
    check_crops(made.config.patch_size, data)
    if model.activation_checkpointing:
        enable_activation_checkpointing(made)
    if model.compile:
        # Hooks that collect hidden states would be installed at the first forward, under a lock that breaks the graph.
        maybe_install_capturing_hooks(made.base_model.encoder)
        # In place, so that parameter names, and with them checkpoints, stay as they are; a graph for each resolution.
        made.base_model.compile(dynamic=False)
    return made


def config_from(model: ModelOptions, data: DataOptions) -> Any:
    """The configuration of a fresh model."""
    return model_config(
        model.model,
        model.image_size or data.global_size,
        patch_size=model.patch_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        drop_path_rate=model.drop_path_rate,
        projection_size=model.projection_size,
        projector_hidden_size=model.projector_hidden_size,
    )


def refuse_shape_options(arguments: Arguments) -> None:
    """A checkpoint brings its architecture; options that would contradict it are named."""
    names = {"model", "patch_size", "image_size", "hidden_size", "num_hidden_layers", "num_attention_heads"}
    contradicting = sorted(names & arguments.given)
    if arguments.model.initialize_from and contradicting:
        raise UserError(f"initialize_from brings its architecture: leave {', '.join(contradicting)} out")


def check_crops(patch: int, data: DataOptions) -> None:
    sizes = {"global_size": data.global_size} | ({"local_size": data.local_size} if data.num_local else {})
    for name, size in sizes.items():
        if size % patch:
            low = max(patch, size // patch * patch)
            raise UserError(f"{name} {size} is not divisible by the patch of {patch}: use {low} or {low + patch}")


def make_objective(objective: ObjectiveOptions, seed: int) -> VISRegObjective:
    return VISRegObjective(seed=seed, check_finite=False, **dataclasses.asdict(objective))


def make_step(parts: Run) -> PretrainingStep:
    """The one module that is prepared."""
    objective = make_objective(parts.arguments.objective, parts.arguments.run.seed)
    views, micro = parts.arguments.data.num_global, parts.plan.micro_batch_size
    step = PretrainingStep(parts.model, objective, views, micro, probed=probed(parts))
    if parts.accelerator.is_fsdp2:
        # FSDP's policy would cast the batch norm too, which fails; autocast, as everywhere else, leaves it in float32.
        parts.accelerator.state.fsdp_plugin.mixed_precision_policy = None
        step.forward = parts.accelerator.autocast()(step.forward)
    return step


def probed(parts: Run) -> bool:
    """Whether online probes run beside it: they need labels."""
    return bool(parts.arguments.run.online_probe and parts.source.label_names)


def make_probes(parts: Run, state: dict[str, Any]) -> OnlineProbes | None:
    """Online probes where there are labels, or None."""
    if not probed(parts):
        return None
    width, classes = parts.model.config.hidden_size, len(parts.source.label_names)
    probes = OnlineProbes(width, classes, parts.accelerator.device, seed=parts.arguments.run.seed)
    if state.get("probe") and not probes.load_state_dict(state["probe"]) and parts.accelerator.is_main_process:
        print("probes   of another shape in the checkpoint: they begin anew, and change nothing in the run")
    return probes


def make_held_out(parts: Run) -> HeldOut | None:
    """What the probes are measured on, or None: no probes, no eval_split, or one with classes of its own."""
    if not probed(parts) or parts.held_out is None:
        return None
    known = set(parts.held_out.label_names) <= set(parts.source.label_names)
    return HeldOut(parts) if known else None
