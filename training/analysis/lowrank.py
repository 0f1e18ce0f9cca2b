# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Regularizers on low-rank data: images projected on their first principal components; Galaxy10 at the paper's scale.

n images, P = 3 * side * side values of an image.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from ..loop.run import open_evaluation_source
from ..run_folder import Json, read_json, write_json
from . import hard_data
from .comparison import Entry, Outcomes
from .options import AnalysisOptions
from .runs import options_of, training


COMPONENTS = 16  # of P = 3072
FITTED = 5000  # images that the components are taken from
COUNTS = {"train": 20_000, "test": 5_000}
GALAXIES = "matthieulel/galaxy10_decals"  # paper, low-rank regime


def changes(options: AnalysisOptions) -> Json:
    """The options that put low-rank images in place of the base run's."""
    if not options.small:
        return {"dataset": GALAXIES, "split": "train", "eval_split": "test"}
    return {"dataset": str(options.output_dir / "data" / f"rank{COMPONENTS}"), "split": "train", "eval_split": "test"}


def entries(options: AnalysisOptions) -> list[Entry]:
    return hard_data.entries(changes(options), changes(options))


def prepare(options: AnalysisOptions) -> None:
    """Write the images of low rank once, as parquet files beside the results."""
    folder = options.output_dir / "data" / f"rank{COMPONENTS}"
    origin = {
        key: value for key, value in training(options, 0).options.items() if key in ("dataset", "split", "eval_split")
    }
    if not options.small or (read_json(folder / "origin.json") or {}).get("origin") == origin:
        return
    base = options_of(training(options, 0))
    side = base.global_size
    splits = {"train": base.split, "test": base.eval_split}
    images = {
        name: pixels(open_evaluation_source(base, split), COUNTS[name], side)
        for name, split in splits.items()
        if split
    }
    mean, basis, share = principal_components(images["train"][0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (rows, labels, names) in images.items():
        flat = ((rows - mean) @ basis) @ basis.T + mean
        write_parquet(folder / f"{name}-00000-of-00001.parquet", flat.view(-1, 3, side, side), labels, names)
    write_json(folder / "origin.json", {"origin": origin, "components": COMPONENTS, "variance_kept": share})


def pixels(source: Any, limit: int, side: int) -> tuple[torch.Tensor, list[int], list[str]]:
    """A sample of a split: (n, P) values of 0 to 1, labels, names of the classes."""
    rows, labels = [], []
    for image, label, _name in source.examples(limit=limit, seed=1):
        small = image if image.size == (side, side) else image.resize((side, side), PILImage.Resampling.BICUBIC)
        rows.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).flatten())
        labels.append(label)
    return torch.stack(rows).float() / 255, labels, source.label_names


def principal_components(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean (P,), the first components (P, r) of (n, P), and the share of the variance that they keep."""
    sample = rows[:FITTED]
    mean = sample.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, singular, basis = torch.pca_lowrank(sample, COMPONENTS, niter=8)
    return mean, basis, float(singular.square().sum() / (sample - mean).square().sum())


def write_parquet(path: Path, images: torch.Tensor, labels: list[int], names: list[str]) -> None:
    from datasets import ClassLabel, Dataset, Features, Image

    columns = Features({"image": Image(), "label": ClassLabel(names=names)})
    rows = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    content = {"image": [{"bytes": png(row), "path": None} for row in rows], "label": labels}
    Dataset.from_dict(content, features=columns).to_parquet(path)


def png(row: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(row).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def measure(outcomes: Outcomes) -> Json:
    share = (read_json(Path(changes(outcomes.options)["dataset"]) / "origin.json") or {}).get("variance_kept")
    return hard_data.measure(outcomes, "low-rank data", variance_kept=share)


def draw(record: Json, folder: Path) -> list[str]:
    """lowrank.png"""
    share = record["variance_kept"]
    title = f"{COMPONENTS} principal components, {share:.0%} of the variance" if share else GALAXIES
    return hard_data.draw(record, f"Pretrained and tested on low-rank images ({title})", folder / "lowrank.png")
