# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From options to the parts that exist before the first step: images, model, schedule, processes, the run's folder.

Nothing is written here: a run that cannot start leaves nothing behind.
"""

from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs
from transformers.utils.logging import disable_progress_bar

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from modeling_visreg.loading import host_memory, local_directory, read_config

from ..backbones import (
    AdaptedModel,
    AdaptOptions,
    Start,
    adapt,
    build_pretraining_model,
    change_native_size,
    check_sizes,
    continue_pretraining_model,
    find_start,
    freeze_unused,
    has_batch_norm,
    wrap_backbone,
)
from ..compat import enable_activation_checkpointing, reset_accelerate
from ..config import (
    PretrainOptions,
    TrainingSchedule,
    check_crops,
    check_shape_options,
    config_from,
    training_schedule,
)
from ..config.architectures import ARCHITECTURES
from ..config.defaults import fill_defaults
from ..config.estimate import activation_width
from ..config.memory import check_memory
from ..data import Source, SourceOptions, Subset, open_stream
from ..distributed import on_cpu
from ..errors import UserError
from ..evaluation.splits import label_map
from ..machine import check_workers
from ..objective import VISRegObjective
from ..objective.options import ObjectiveOptions
from ..option import take
from ..run_folder import RunFolder, model_directory
from ..seeding import seed_of
from .compiling import compile_backbone, compile_mode, tell_uncompiled
from .step import PretrainingStep


NO_PATCH = 8  # pixels that divide the views chosen for a network without patches


@dataclass(frozen=True)
class Run:
    """The parts of one run that exist before its first step.

    Attributes:
        options: every option, with the defaults that were chosen.
        held_out: images of `eval_split`, None without one; `probe_source`: what classifiers on them learn from.
        schedule: batch sizes, steps, and the learning rate.
        model: unwrapped; the step shares its parameters. `wrap_backbone` gives the interface around its backbone.
        has_start: whether it has the weights that the run began with; a run that goes on does without.
    """

    options: PretrainOptions
    accelerator: Accelerator
    source: Source
    held_out: Source | None
    probe_source: Source
    schedule: TrainingSchedule
    model: VISRegViTForPreTraining | AdaptedModel
    folder: RunFolder
    has_start: bool = True

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.accelerator.is_main_process

    @property
    def probed(self) -> bool:
        """Whether online probes run beside it: they need labels."""
        return bool(self.options.online_probe and self.source.label_names)


def build_run(options: PretrainOptions, choose_missing: bool = True) -> Run:
    """Make every part, or refuse: nothing is written before all of them fit together.

    Args:
        options: of the run.
        choose_missing: without a recipe, choose what was not given from the images and the device.

    Raises:
        UserError, ValueError, OSError: an option, the data or the checkpoint to start from will not do.
    """
    check_shape_options(options)
    check_workers(options.num_workers)
    accelerator = start_accelerator(options)
    source = open_training_source(options)
    held_out = open_evaluation_source(options, options.eval_split) if options.eval_split else None
    own_labels = options.eval_dataset in (None, options.dataset)
    probe_source = source if own_labels else open_evaluation_source(options, "train")
    if held_out is not None:
        check_labels(probe_source, held_out)
    instead = lost_start(options)
    start = find_other_start(options, instead)
    if choose_missing and "config" not in options.given:
        options = choose_defaults(options, source, accelerator, start, instead)
    schedule = training_schedule(options, accelerator.num_processes, source.num_examples)
    check_memory(
        options, partial(config_of, start=start, instead=instead), room(accelerator), accelerator.num_processes
    )
    model = build_model(options, start, instead)
    if isinstance(model, AdaptedModel):
        check_adapted(model, options, schedule, accelerator)
        if accelerator.is_main_process:
            tell_uncompiled(type(model.backbone).__name__, options.compile, accelerator.device)
    else:
        compile_backbone(model.base_model, options.compile, accelerator.device, accelerator.is_main_process)
    build_objective(options)
    folder = RunFolder(options.output_dir)
    return Run(options, accelerator, source, held_out, probe_source, schedule, model, folder, instead is None)


def lost_start(options: PretrainOptions) -> Path | None:
    """The checkpoint that a run goes on from, where what it began with is gone or moved; else None."""
    folder, name = RunFolder(options.output_dir), start_name(options)
    checkpoint = folder.newest_checkpoint() if options.resume == "auto" and folder.is_run() else None
    if checkpoint is None or name is None:
        return None
    try:
        ours = find_start(str(checkpoint)) is None
    except (ValueError, OSError):  # what reads the checkpoint says it
        return None
    try:
        found = local_directory(model_directory(name)).is_dir() if ours else find_start(name) is not None
    except (ValueError, OSError) as error:
        return None if ours and not isinstance(error, OSError) else checkpoint
    return None if found else checkpoint


def config_of(options: PretrainOptions, start: Start | None, instead: Path | None) -> VISRegViTConfig | None:
    """The configuration of the model that `build_model` makes; None for one of another family."""
    if start is not None:
        return None
    if instead is not None:
        return read_config(instead)
    if not options.initialize_from:
        return config_from(options)
    config = read_config(local_directory(model_directory(options.initialize_from)))
    config.projection_size = options.projection_size or config.projection_size
    config.projector_hidden_size = options.projector_hidden_size or config.projector_hidden_size
    return config


def room(accelerator: Accelerator) -> int | None:
    """Bytes that a process has for its model: of its GPU, of all where FSDP2 shards it, else of the machine."""
    if accelerator.device.type != "cuda":
        return host_memory()
    total = torch.cuda.get_device_properties(accelerator.device).total_memory
    return total * (accelerator.num_processes if accelerator.is_fsdp2 else 1)


def start_name(options: PretrainOptions) -> str | None:
    """The weights that a run starts from, or the architecture that is none of ours; None where there is neither."""
    other = options.from_scratch and options.model not in ARCHITECTURES
    return options.model if other else options.initialize_from


def choose_defaults(
    options: PretrainOptions,
    source: Source,
    accelerator: Accelerator,
    start: Start | None = None,
    instead: Path | None = None,
) -> PretrainOptions:
    """Without a recipe: choose what was not given from the images and the device, and say what and why.

    What memory a backbone of another family needs is not estimated, and no micro-batch chosen for it.

    Args:
        options: as given.
        source: the images.
        accelerator: the device, and how many there are.
        start: a backbone of another family.
        instead: a checkpoint of the same model, where `initialize_from` is lost.
    """
    device = accelerator.device
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    compiled = compile_mode(options.compile, device) == "blocks"
    width = activation_width(accelerator.mixed_precision == "bf16", compiled)
    started = options.initialize_from
    options, lines = fill_defaults(
        options.replace(initialize_from=str(instead)) if instead and start is None else options,
        source,
        device,
        accelerator.num_processes,
        meta_step=None if start else build_step_on_meta,
        memory=memory,
        width=width,
        divisor=(start.patch_size or NO_PATCH) if start else None,
    )
    if start is not None and memory is not None:
        lines.append("  memory is not estimated for this backbone: if it runs out, give a smaller --micro_batch_size")
    accelerator.print("\n".join(lines))
    return options.replace(initialize_from=started)


def build_step_on_meta(options: PretrainOptions, config: VISRegViTConfig) -> PretrainingStep:
    """The step of a run without memory behind it, for estimates."""
    with torch.device("meta"):
        model = build_pretraining_model(config)
    adapt(wrap_backbone(model), take(AdaptOptions, options))
    if options.activation_checkpointing:
        enable_activation_checkpointing(model)
    return PretrainingStep(model, build_objective(options), options.num_global)


def start_accelerator(options: PretrainOptions) -> Accelerator:
    """Accelerate with our precision, and DDP's gradients as views of the buckets (one copy of them less).

    Buffers are not broadcast: with statistics over the whole batch every rank computes the same ones.
    """
    disable_progress_bar()  # of transformers: a bar for each file of a checkpoint
    precision = options.mixed_precision
    if precision == "auto":
        on_gpu = torch.cuda.is_available() and not on_cpu()
        precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    reset_accelerate()  # of an earlier run of this program, with another precision perhaps
    return Accelerator(
        cpu=on_cpu(),  # without it several processes on CPUs do not find each other
        mixed_precision=precision,
        # The main process evaluates and writes alone while the others wait: minutes are no failure.
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=timedelta(hours=3))],
        log_with=tracker_names(options.report_to) or None,
        project_dir=options.output_dir,
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


def start_trackers(run: Run) -> None:
    """Open the trackers with the run's recipe; they flatten no lists."""
    if run.accelerator.log_with:
        recipe = {name: str(value) for name, value in run.options.as_recipe().items()}
        run.accelerator.init_trackers("visreg", config=recipe)


def open_training_source(options: PretrainOptions) -> Source:
    """The images to learn from."""
    where = asdict(take(SourceOptions, options))
    return open_stream(**where, subset=take(Subset, options), max_bad_share=options.max_bad_share)


def open_evaluation_source(options: PretrainOptions, split: str) -> Source:
    """A split of the labeled data set that measures the features."""
    if options.eval_dataset not in (None, options.dataset):
        more = {"max_bad_share": options.max_bad_share, "max_pixels": options.max_pixels}
        return open_stream(options.eval_dataset, split=split, **more)
    where = asdict(take(SourceOptions, options)) | {"split": split}
    return open_stream(**where, max_bad_share=options.max_bad_share)


def check_labels(probe_source: Source, held_out: Source) -> None:
    """Raises UserError unless both splits are labeled with the same classes."""
    if not (probe_source.label_names and held_out.label_names):
        raise UserError("eval_split needs labels: name their column with --label_column, or leave eval_split out")
    label_map(probe_source.label_names, held_out.label_names)


def build_model(
    options: PretrainOptions, start: Start | None = None, instead: Path | None = None
) -> VISRegViTForPreTraining | AdaptedModel:
    """A fresh model, or the one the run starts from; the same on every rank.

    Args:
        options: of the run.
        start: a backbone of another family than ours, from `find_other_start`.
        instead: the checkpoint that it goes on from, where its start is lost; of our family only its configuration is
            read here.

    Raises:
        ValueError: a crop that the backbone does not take, or a checkpoint that cannot be read.
    """
    torch.manual_seed(seed_of("initialization", options.seed))
    sizes = options.projection_size, options.projector_hidden_size
    if start is not None:
        return build_adapted(options, start, instead)
    if instead is not None:
        model = build_pretraining_model(read_config(instead))
    elif options.initialize_from:
        folder = model_directory(options.initialize_from)
        model = continue_pretraining_model(folder, *sizes, options.drop_path_rate, options.projector_act)
        if options.image_size is not None:
            change_native_size(model, options.image_size)
    else:
        model = build_pretraining_model(config_from(options))
    check_crops(model.config.patch_size, options)
    adapt(wrap_backbone(model), take(AdaptOptions, options))
    if options.activation_checkpointing:
        enable_activation_checkpointing(model)
    return model


def build_adapted(options: PretrainOptions, start: Start, instead: Path | None = None) -> AdaptedModel:
    """A backbone of another family, with its weights or fresh, and a projector of its width.

    Args:
        options: of the run.
        start: the backbone.
        instead: the checkpoint that `start` is then, where what the run began with is lost.
    """
    if start.patch_size:
        check_crops(start.patch_size, options)
    if options.image_size is not None and not options.from_scratch:
        raise UserError(f"image_size: {start.name} keeps its grid, which follows the views: leave image_size out")
    if options.from_scratch and instead is None:
        backbone = start.fresh(options.image_size or options.global_size, options.drop_path_rate)
    else:
        backbone = start.opened(options.drop_path_rate)
    backbone.name = start_name(options) or start.name
    sizes = sorted({side for _count, side in options.resolutions()})
    check_sizes(backbone, sizes)
    freeze_unused(backbone, sizes[-1])
    model = AdaptedModel(backbone, options.projection_size, options.projector_hidden_size, options.projector_act)
    if not options.from_scratch:
        model.take_projector(start.name)
    if options.activation_checkpointing:
        backbone.enable_activation_checkpointing()
    adapt(backbone, take(AdaptOptions, options))
    return model


def check_adapted(
    model: AdaptedModel, options: PretrainOptions, schedule: TrainingSchedule, accelerator: Accelerator
) -> None:
    """What does not go with a backbone of another family.

    Raises:
        UserError: an option or a launch that it does not go with, and why.
    """
    kind = type(model.backbone).__name__
    if options.compile in ("blocks", "model"):
        raise UserError(f"compile: only our own ViT is compiled, {kind} is not: leave it out")
    if accelerator.is_fsdp2:
        raise UserError(f"FSDP2 shards our own ViT only: start {kind} without it, as 8_gpus.yaml does")
    if len(model.interface.mean) != 3:
        raise UserError(f"{kind} takes images of {len(model.interface.mean)} channels; views have 3")
    if not has_batch_norm(model.backbone):
        return
    # Statistics of parts of the batch would be another method than those of the whole; computing activations again
    # would move the running statistics twice.
    reason = f"{kind} has batch norm, whose statistics are those of the whole batch"
    if schedule.micro_batch_size is not None and schedule.micro_batch_size < schedule.rank_batch_size:
        raise UserError(f"micro_batch_size: {reason}: leave it out, or choose a smaller global_batch_size")
    if options.activation_checkpointing:
        raise UserError(f"activation_checkpointing: {reason}, and would move twice: leave it out")
    if accelerator.num_processes > 1:
        raise UserError(f"{accelerator.num_processes} processes: {reason}, so that it trains in one process only")


def find_other_start(options: PretrainOptions, instead: Path | None = None) -> Start | None:
    """The backbone of another family that the run starts from, if it does: that of `instead`, where there is one."""
    name = str(instead) if instead else start_name(options)
    return find_start(name) if name else None


def build_objective(options: PretrainOptions) -> VISRegObjective:
    """The objective; the loop looks at the loss itself, so it does not look for NaN."""
    return VISRegObjective(**asdict(take(ObjectiveOptions, options)), seed=options.seed, check_finite=False)
