# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a run says at its start and leaves at its end: model/ for AutoModel, pretraining/, summary.json, a card."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from modeling_visreg import save_checkpoint
from visreg_hub_cards import write_card

from ..backbones import open_backbone, wrap_backbone
from ..errors import one_line
from ..evaluation.frozen import frozen_accuracy
from ..evaluation.reports.pictures import write_pca
from ..evaluation.splits import label_map
from .architectures import architecture_name
from .checkpoint import whole_model
from .folder import read_json, write_json
from .monitors import clock, read_rows


PICTURES = 6  # images of pca.png


def announce(parts: Any) -> None:
    """Print what the run will do, once, and keep it in run.json."""
    if not parts.accelerator.is_main_process:
        return
    parameters = sum(parameter.numel() for parameter in parts.model.base_model.parameters())
    model = {
        "name": architecture_name(parts.model.config),
        "parameters": parameters,
        "config": parts.model.config.to_dict(),
    }
    record = {
        "plan": parts.plan.as_dict(),
        "source": parts.source.description(),
        "held_out": parts.held_out.description() if parts.held_out else None,
        "model": model,
        "environment": environment(),
    }
    write_json(parts.folder / "run.json", record)
    config, data = parts.model.config, parts.arguments.data
    size = f"{config.num_hidden_layers} blocks of width {config.hidden_size}, patch {config.patch_size}"
    print(f"data     {data.dataset}, {data.split}: {parts.source.num_examples or 'an unknown number of'} images")
    print(f"model    ViT, {size}, {parameters:,} parameters")
    print("\n".join(parts.plan.lines()))
    print(f"device   {parts.accelerator.device}, {parts.accelerator.mixed_precision} mixed precision")
    if parts.resumed:
        print(f"resumed  from {parts.resumed}")


def first_accuracy(parts: Any) -> dict[str, float]:
    """kNN and linear accuracy before the first step, measured once in a run's life; {} without held-out images."""
    path = parts.folder / "before.json"
    if parts.held_out is not None and parts.accelerator.is_main_process:
        images = parts.held_out.description()
        known = read_json(path)
        if known is None or known["images"] != images:
            write_json(path, {"images": images, "accuracy": held_out_accuracy(parts, parts.model)})
    parts.accelerator.wait_for_everyone()
    return read_json(path)["accuracy"] if parts.held_out is not None else {}


def held_out_accuracy(parts: Any, model: Any) -> dict[str, float]:
    """20-NN and linear accuracy (shares) of the frozen features on the held-out images, which are touched once."""
    options = parts.arguments.run
    backbone = model.base_model.to(parts.accelerator.device)
    with torch.compiler.set_stance("force_eager"):  # another batch and size than the steps': not worth compiling for
        return frozen_accuracy(
            wrap_backbone(backbone),
            parts.probe_source.examples(limit=options.eval_images, seed=options.seed),
            parts.held_out.examples(),
            label_map(parts.probe_source.label_names, parts.held_out.label_names),
        )


def finish(parts: Any, before: dict[str, float], seconds: float) -> dict[str, Any]:
    """Write the models, the summary and the card; print how it ended. Returns the summary, on every rank."""
    summary: dict[str, Any] = {}
    model = whole_model(parts.model, parts.accelerator)
    if parts.accelerator.is_main_process:
        save_models(model, parts.folder)
        after = held_out_accuracy(parts, model) if parts.held_out is not None else {}
        summary = {f"{name}_before": value for name, value in before.items()}
        summary |= {f"{name}_after": value for name, value in after.items()} | progress_facts(parts, seconds)
        write_json(parts.folder / "summary.json", summary)
        describe(parts)
        print(closing_words(parts.folder, summary))
    parts.accelerator.wait_for_everyone()
    return read_json(parts.folder / "summary.json")


def save_models(model: Any, folder: Path) -> None:
    """model/ (the backbone) and pretraining/ (with the projector), each whole or absent."""
    save_checkpoint(model.base_model, folder / "model", overwrite=True)
    save_checkpoint(model, folder / "pretraining", overwrite=True)


def describe(parts: Any) -> None:
    """pca.png and the card. The models are on the disk by now, and no failure here may make a failure of the run."""
    try:
        draw_patches(parts)
        write_card(parts.folder)
    except Exception as error:  # whatever it is, `visreg card` can write the card later
        print(f"\nno card: {one_line(error)}. To try again: visreg card {parts.folder}")


def draw_patches(parts: Any) -> None:
    """pca.png: what the patches of the finished model see in a few images. A training stream is not opened for it."""
    source = parts.held_out or parts.source
    if parts.held_out is None and not source.is_map_style:
        return
    examples = source.examples(limit=PICTURES, max_bad_share=1.0, seed=parts.arguments.run.seed)
    if images := [image for image, _label, _id in examples]:
        write_pca([open_backbone(str(parts.folder / "model"))], images, parts.folder / "pca.png")


def progress_facts(parts: Any, seconds: float) -> dict[str, Any]:
    rows = read_rows(parts.folder / "metrics.jsonl")
    return {
        "train_seconds": round(seconds, 2),
        "images_per_second": round(parts.plan.images_seen / seconds, 2),
        "data_wait": data_wait(rows),
        "images_seen": parts.plan.images_seen,
        "steps": parts.plan.total_steps,
        "final_loss": rows[-1]["total"] if rows else None,
    }


def data_wait(rows: list[dict[str, Any]]) -> float | None:
    """Share of the steps' time that went into waiting for data, over all logging intervals, resumed ones included."""
    starts = [0, *(row["images"] for row in rows)]
    seconds = [
        (row["images"] - start) / row["images_per_second"] for row, start in zip(rows, starts[:-1], strict=True)
    ]
    waited = sum(row["data_wait"] * spent for row, spent in zip(rows, seconds, strict=True))
    return round(waited / sum(seconds), 4) if rows else None


def closing_words(folder: Path, summary: dict[str, Any]) -> str:
    """Accuracies before and after, where things lie, and the exact lines that load the model."""
    lines = [f"\ntrained  {clock(summary['train_seconds'])}, {summary['images_per_second']:.0f} images a second"]
    if summary["data_wait"] is not None:
        lines[0] += f", {summary['data_wait']:.1%} of it waiting for data"
    for name, title in (("knn", "20-NN accuracy"), ("linear", "linear accuracy")):
        if f"{name}_after" in summary:
            before, after = summary[f"{name}_before"], summary[f"{name}_after"]
            lines.append(f"{title:<16} on held-out images: {before:.3f} before, {after:.3f} after")
    lines += [
        f"curves   {folder / 'curves.png'}",
        *([f"card     {card}"] if (card := folder / "model" / "README.md").is_file() else []),
        "",
        "Load the model:",
        "",
    ]
    return "\n".join(lines + [f"    {line}" for line in loading_lines(folder / "model")])


def loading_lines(directory: Path) -> list[str]:
    """The exact lines of Python that load a checkpoint with this package installed."""
    return [
        "import modeling_visreg",
        "from transformers import AutoImageProcessor, AutoModel",
        f'processor = AutoImageProcessor.from_pretrained("{directory}")',
        f'model = AutoModel.from_pretrained("{directory}").eval()',
    ]


def cpu_words() -> str:
    """`CPU (x86_64), 2 threads`: platforms do not agree on how to name a processor."""
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"


def environment() -> dict[str, Any]:
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
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_words(),
        "visreg": version("visreg"),
    }
