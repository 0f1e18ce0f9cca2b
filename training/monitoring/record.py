# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a run says at its start and leaves at its end: run.json, summary.json, accuracies, pictures, the card."""

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from modeling_visreg import VISRegViTForPreTraining
from modeling_visreg.checkpoint import atomic_directory
from modeling_visreg.loading import HUB_ID
from visreg_hub_cards import recorded_origin, write_card

from ..backbones import (
    AdaptedModel,
    has_batch_norm,
    open_backbone,
    save_with_projector,
    wrap_backbone,
    write_adapter,
)
from ..backbones.timm_backbone import timm_architecture
from ..bounded import check_shape
from ..config import architecture_name
from ..errors import RunStopped, one_line, setting_up
from ..evaluation.frozen import Measured, frozen_accuracy
from ..evaluation.reports.pictures import write_pca
from ..evaluation.splits import label_map
from ..loop.checkpoint import adapter_weights, full_model
from ..loop.run import Run
from ..loop.same_run import listing
from ..progress import clock
from ..run_folder import Json, RunFolder, read_json, read_object, write_json
from .metrics import read_metrics


PICTURES = 6  # images of pca.png


def announce(run: Run, resumed: Path | None) -> None:
    """Print what the run will do, once, and record it in run.json."""
    if not run.is_main:
        return
    schedule = run.schedule
    name, config, line = network(run)
    parameters = sum(parameter.numel() for parameter in run.model.base_model.parameters())
    model = {"name": name, "parameters": parameters, "config": config}
    with setting_up():  # of a run that goes on
        origin = read_object(run.folder.record).get("origin") if resumed else None
    record = {
        "plan": schedule.as_dict(),
        "source": run.source.description(),
        "held_out": run.held_out.description() if run.held_out else None,
        "model": model,
        "environment": environment(),
        # Now, while what the run starts from is there: its license binds whatever is made of it.
        "origin": origin or origin_of_start(run),
    }
    write_json(run.folder.record, record)
    write_json(run.folder.images, listing(run.source))
    images = run.source.num_examples or "an unknown number of"
    print(f"data     {run.options.dataset}, {run.options.split}: {images} images")
    learning = sum(parameter.numel() for parameter in run.model.base_model.parameters() if parameter.requires_grad)
    share = "" if learning == parameters else f", of which {learning:,} learn"
    print(f"model    {line}, {parameters:,} parameters{share}")
    print("\n".join(schedule.lines()))
    print(f"device   {run.accelerator.device}, {run.accelerator.mixed_precision} mixed precision")
    if resumed:
        print(f"resumed  from {resumed}")


def origin_of_start(run: Run) -> Json:
    """Where the weights come from and their license; of a network that timm names, both are in timm itself."""
    start = run.options.initialize_from
    origin = recorded_origin(start)
    if isinstance(run.model, AdaptedModel) and start and timm_architecture(start) and ":" not in start[5:]:
        stated = run.model.interface.module.pretrained_cfg
        origin = recorded_origin(stated.get("hf_hub_id") or start)
        origin = origin._replace(license=origin.license or stated.get("license"))
    return origin._asdict()


def network(run: Run) -> tuple[str | None, Json, str]:
    """(name, configuration, one line) of the backbone."""
    if not isinstance(run.model, AdaptedModel):
        config = run.model.config
        size = f"{config.num_hidden_layers} blocks of width {config.hidden_size}, patch {config.patch_size}"
        return architecture_name(config), config.to_dict(), f"ViT, {size}"
    backbone = run.model.interface
    line = f"{type(backbone.module).__name__} of {backbone.name}, feature of width {backbone.width}"
    if frozen := sum(not parameter.requires_grad for parameter in backbone.module.parameters()):
        line += f" ({frozen} of its tensors stay as they are)"
    if has_batch_norm(backbone.module):
        line += ", batch norm over the views of one size"
    return Path(backbone.name).name, backbone.config_dict(), line


def first_accuracy(run: Run) -> dict[str, float]:
    """kNN and linear accuracy before the first step, measured once in a run's life; {} without held-out images."""
    path = run.folder.before
    if run.held_out is not None and run.is_main:
        images = {"images": run.held_out.description(), "train": training_images(run)}
        try:
            known = read_object(path)
            check_shape(known, {"accuracy": dict.fromkeys(("knn", "linear"), int | float)}, str(path))
        except ValueError:  # measured once more: the model still is what the run began with
            known = {}
        stale = not known.get("accuracy") or {name: known.get(name) for name in images} != images
        if stale and run.has_start:
            write_json(path, images | {"accuracy": held_out_accuracy(run, run.model).accuracy})
    run.accelerator.wait_for_everyone()
    measured = read_json(path) if run.held_out is not None and (run.has_start or path.exists()) else {}
    return measured.get("accuracy") or {}


def training_images(run: Run) -> Json:
    """What the final probes learn from: accuracies are compared only where this is the same."""
    return {"fingerprint": run.probe_source.fingerprint, "limit": run.options.eval_images, "seed": run.options.seed}


def held_out_accuracy(run: Run, model: VISRegViTForPreTraining | AdaptedModel) -> Measured:
    """20-NN and linear accuracy (shares) of the frozen features on the held-out images, which are touched once.

    Raises:
        RunStopped: the features are not finite, or too many images cannot be read.
    """
    options = run.options
    backbone = wrap_backbone(model).to(run.accelerator.device)
    try:
        with torch.compiler.set_stance("force_eager"):  # another batch and size than the steps': not worth compiling
            return frozen_accuracy(
                backbone,
                run.probe_source.examples(limit=options.eval_images, seed=options.seed),
                run.held_out.examples(),
                label_map(run.probe_source.label_names, run.held_out.label_names),
            )
    except ValueError as error:  # features that are not finite, images that are none
        raise RunStopped(f"the accuracy on held-out images cannot be measured: {one_line(error)}") from error


def finish(run: Run, before: dict[str, float], seconds: float) -> Json:
    """Write the models, the summary and the card; print how it ended. Returns the summary, on every rank."""
    model = full_model(run.model, run.accelerator)
    adapters = adapter_weights(wrap_backbone(run.model).module)
    if run.is_main:
        # model/ is the backbone, pretraining/ has the projector too.
        wrap_backbone(model).save(run.folder.model)
        save_with_projector(model, run.folder.pretraining)
        if adapters:
            save_adapter(run, adapters)
        summary = {f"{name}_before": value for name, value in before.items()}
        if run.held_out is not None:
            after = held_out_accuracy(run, model)
            summary |= {f"{name}_after": value for name, value in after.accuracy.items()}
            summary["evaluation"] = after.how | {"train": training_images(run)}
        summary |= training_cost(run, seconds)
        write_json(run.folder.summary, summary)
        describe(run)
        print("\n".join(closing_lines(run.folder, summary)))
    run.accelerator.wait_for_everyone()
    return read_json(run.folder.summary)


def save_adapter(run: Run, weights: dict[str, torch.Tensor]) -> None:
    """adapter/, beside the model into which the same adapters are merged."""
    start = str(run.options.initialize_from)
    on_hub = HUB_ID.fullmatch(start) and "/" in start and not Path(start).exists()
    with atomic_directory(run.folder.adapter, overwrite=True) as part:
        write_adapter(weights, part, start if on_hub else None)


def describe(run: Run) -> None:
    """pca.png and the card. The models are on the disk by now, and no failure here may make a failure of the run."""
    try:
        draw_patches(run)
        write_card(run.folder.path)
    except Exception as error:  # whatever it is, `visreg card` can write the card later
        print(f"\nno card: {one_line(error)}. To try again: visreg card {run.folder}")


def draw_patches(run: Run) -> None:
    """pca.png: what the patches of the finished model see in a few images. A training stream is not opened for it."""
    source = run.held_out or run.source
    if run.held_out is None and not source.is_map_style:
        return
    examples = source.examples(limit=PICTURES, max_bad_share=1.0, seed=run.options.seed)
    if images := [image for image, _label, _id in examples]:
        write_pca([open_backbone(str(run.folder.model))], images, run.folder.patches)


def training_cost(run: Run, seconds: float) -> Json:
    """Time, rate and images of the whole run, those before a resume included."""
    rows, schedule = read_metrics(run.folder.metrics), run.schedule
    return {
        "train_seconds": round(seconds, 2),
        "images_per_second": round(schedule.images_seen / seconds, 2),
        "data_wait": data_wait(rows),
        "images_seen": schedule.images_seen,
        "steps": schedule.total_steps,
        "final_loss": rows[-1]["total"] if rows else None,
    }


def data_wait(rows: list[Json]) -> float | None:
    """Share of the steps' time that went into waiting for data, over all logging intervals, resumed ones included."""
    starts = [0, *(row["images"] for row in rows)]
    seconds = [
        (row["images"] - start) / row["images_per_second"] for row, start in zip(rows, starts[:-1], strict=True)
    ]
    waited = sum(row["data_wait"] * spent for row, spent in zip(rows, seconds, strict=True))
    return round(waited / sum(seconds), 4) if sum(seconds) else None


def closing_lines(folder: RunFolder, summary: Json) -> list[str]:
    """Accuracies before and after, where things lie, and the exact lines that load the model."""
    lines = [f"\ntrained  {clock(summary['train_seconds'])}, {summary['images_per_second']:.0f} images a second"]
    if summary["data_wait"] is not None:
        lines[0] += f", {summary['data_wait']:.1%} of it waiting for data"
    for name, title in (("knn", "20-NN accuracy"), ("linear", "linear accuracy")):
        if {f"{name}_before", f"{name}_after"} <= summary.keys():
            before, after = summary[f"{name}_before"], summary[f"{name}_after"]
            lines.append(f"{title:<16} on held-out images: {before:.3f} before, {after:.3f} after")
    if folder.adapter.is_dir():
        lines.append(f"adapter  {folder.adapter}, merged into the model")
    lines.append(f"curves   {folder.curves}")
    if (card := folder.model / "README.md").is_file():
        lines.append(f"card     {card}")
    return [*lines, "", "Load the model:", "", *(f"    {line}" for line in loading_lines(folder.model))]


def loading_lines(directory: Path) -> list[str]:
    """The exact lines of Python that load a checkpoint; one of our ViT needs this package for it."""
    ours = read_object(directory / "config.json").get("model_type") == "visreg_vit"
    return [
        *(["import modeling_visreg"] if ours else []),
        "from transformers import AutoImageProcessor, AutoModel",
        f'processor = AutoImageProcessor.from_pretrained("{directory}")',
        f'model = AutoModel.from_pretrained("{directory}").eval()',
    ]


def cpu_name() -> str:
    """`CPU (x86_64), 2 threads`: platforms do not agree on how to name a processor."""
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"


def environment() -> Json:
    """Versions and device, recorded with the run."""
    import accelerate
    import datasets
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "datasets": datasets.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name(),
        "visreg": version("visreg"),
    }
