# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The metadata of a run as (label, value) rows of a card's tables. What is not known has no row."""

from typing import Any

from visreg_training.objective.regularizers import TABLE

from .license import is_hub_id
from .markup import Markdown, escaped
from .metadata import RunMetadata, dataset_label, is_number


PAPER = "[VISReg](https://arxiv.org/abs/2606.02572)"


def method(metadata: RunMetadata) -> Markdown:
    """What the model was trained with. Only VISReg has a link: the others are baselines of its paper."""
    name, _sliced = regularizer(metadata.recipe)
    return Markdown(PAPER if name in (None, "VISReg") else f"{escaped(name)}, a baseline of {PAPER}")


def regularizer(recipe: dict[str, Any]) -> tuple[str | None, bool]:
    """Its title, None where the recipe does not say, and whether it takes random directions."""
    name = recipe.get("regularizer")
    if name is None:
        return None, False
    known = TABLE.get(str(name))
    return (known.title, known.takes_directions) if known else (str(name), True)


def architecture(metadata: RunMetadata) -> str:
    """One line on the model, from its config."""
    config = metadata.config
    size = config.get("image_size")
    sides = f"{size} x {size}" if isinstance(size, int) else " x ".join(map(str, size or []))
    parts = [
        ("{} blocks", config.get("num_hidden_layers")),
        ("width {}", config.get("hidden_size")),
        ("{} heads", config.get("num_attention_heads")),
        ("patches of {0} x {0} pixels", config.get("patch_size")),
        ("images of {} pixels", sides or None),
        ("{} parameters", readable_count(metadata.parameters)),
    ]
    return ", ".join(form.format(value) for form, value in parts if value)


def data_rows(metadata: RunMetadata) -> list[tuple[str, str]]:
    """The training data as a table."""
    source = metadata.source
    names = {
        "config": "Configuration", "split": "Split", "revision": "Revision", "num_examples": "Images",
        "num_classes": "Classes (labels were not trained on)", "subset": "Subset", "fingerprint": "Fingerprint",
    }  # fmt: skip
    rows = [(label, source[key]) for key, label in names.items() if key in source]
    if "dataset" in source:
        rows.insert(0, ("Data set", data_link(str(source["dataset"]), source.get("revision"))))
    if source.get("unreadable_files"):
        rows.append(("Unreadable files left out", len(source["unreadable_files"])))
    return [(label, f"{value:,}" if isinstance(value, int) else in_line(value)) for label, value in rows]


def data_link(name: str, revision: Any) -> str:
    """The name of a data set; with its page, if it is one of the Hub."""
    if revision and is_hub_id(name):
        return Markdown(f"[{escaped(name)}](https://huggingface.co/datasets/{name})")
    return dataset_label(name, revision)


def training_rows(metadata: RunMetadata) -> list[tuple[str, str]]:
    """How the model was trained, from the plan where it says so, else from the recipe."""
    plan, recipe = metadata.plan, metadata.recipe
    name, sliced = regularizer(recipe)
    rows = [
        ("Regularizer", name),
        ("λ (weight of the regularizer)", recipe.get("regularization_weight")),
        ("Slices a step", plan.get("slices") or recipe.get("num_slices") if sliced else None),
        ("What learned", learned(recipe)),
        ("Global views", views(recipe, "global")),
        ("Local views", views(recipe, "local")),
        ("Images a batch", readable_integer(plan.get("global_batch_size"))),
        ("Updates", readable_integer(metadata.summary.get("steps") or plan.get("total_steps"))),
        ("Epochs", epochs(metadata)),
        ("Peak learning rate (AdamW)", plan.get("learning_rate")),
        ("Weight decay", recipe.get("weight_decay")),
        ("Seed", recipe.get("seed")),
    ]
    return [(label, in_line(value)) for label, value in rows if value is not None]


def learned(recipe: dict[str, Any]) -> str | None:
    """What of a network that started from weights was trained on; None where it was all of it, at one rate."""
    rank, frozen, decay = (recipe.get(name) for name in ("lora_rank", "freeze_blocks", "layer_decay"))
    parts = [
        f"adapters of rank {rank} beside the linear layers of the blocks, merged into them" if rank else None,
        f"not the embedding and the first {frozen} blocks" if frozen else None,
        f"each block at {decay} of the rate of the one above it" if decay not in (None, 1, 1.0) else None,
    ]
    return "; ".join(part for part in parts if part) or None


def cost_rows(metadata: RunMetadata) -> list[tuple[str, str]]:
    """Hardware, time and images."""
    summary, environment = metadata.summary, metadata.environment
    device, processes = environment.get("device"), metadata.plan.get("processes")
    packages = [name for name in ("visreg", "torch", "transformers", "python") if name in environment]
    rows = [
        ("Hardware", f"{processes} x {device}" if device and is_number(processes) and processes > 1 else device),
        ("Training time", readable_seconds(summary.get("train_seconds"))),
        ("Images seen", readable_integer(summary.get("images_seen"))),
        ("Images a second", readable_integer(summary.get("images_per_second"))),
        ("Software", ", ".join(f"{name} {environment[name]}" for name in packages) or None),
    ]
    return [(label, in_line(value)) for label, value in rows if value is not None]


def readable_seconds(seconds: Any) -> str | None:
    """62.3 -> "62 s", 4000 -> "1 h 7 min"."""
    if not is_number(seconds):
        return None
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def readable_count(number: int | None) -> str | None:
    """1_812_345 -> "1.8 million"."""
    if number is None:
        return None
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return f"{number:,}"


def readable_integer(number: Any) -> str | None:
    """28160.0 -> "28,160"."""
    return f"{round(number):,}" if is_number(number) else None


def views(recipe: dict[str, Any], kind: str) -> str | None:
    """`4 of 96 x 96 pixels, 5 to 30% of the area`."""
    number, size, scale = (recipe.get(key) for key in (f"num_{kind}", f"{kind}_size", f"{kind}_scale"))
    if not number:
        return None
    shares = isinstance(scale, list) and len(scale) == 2 and all(map(is_number, scale))
    area = f", {100 * scale[0]:g} to {100 * scale[1]:g}% of the area" if shares else ""
    return f"{number} of {size} x {size} pixels{area}"


def epochs(metadata: RunMetadata) -> str | None:
    """How often the data were seen; None without a known length."""
    steps, epoch = (
        metadata.summary.get("steps") or metadata.plan.get("total_steps"),
        metadata.plan.get("steps_per_epoch"),
    )
    return f"{steps / epoch:.4g}" if is_number(steps) and is_number(epoch) and epoch else None


def in_line(value: Any) -> str:
    """A value of any kind as a cell."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, Markdown) else str(value)
