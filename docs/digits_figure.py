# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Draw what a digits run learned: held-out digits before and after, as a map, beside the run's curves.

usage: python docs/digits_figure.py runs/digits docs/digits.png
"""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from sklearn.manifold import TSNE
from transformers import AutoImageProcessor, AutoModel

import modeling_visreg
from visreg_training.data import open_stream


matplotlib.use("Agg")
from matplotlib import pyplot as plt


@torch.no_grad()
def embed(model, processor, images):
    """Two coordinates an image."""
    features = model(**processor(images, return_tensors="pt")).pooler_output
    return TSNE(perplexity=20, init="pca", random_state=0).fit_transform(np.asarray(features))


def draw(axis, points, labels, title):
    for digit in range(10):
        x, y = points[labels == digit].T
        axis.scatter(x, y, s=9, color=plt.cm.tab10(digit), label=str(digit))
    axis.set_title(title, fontsize=11)
    axis.set_xticks([])
    axis.set_yticks([])


def main(run: Path, output: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    processor = AutoImageProcessor.from_pretrained(run / "model")
    trained = AutoModel.from_pretrained(run / "model").eval()
    torch.manual_seed(0)
    untrained = modeling_visreg.VISRegViTModel(trained.config).eval()
    images, labels, _ids = zip(*open_stream("digits", split="test").examples(), strict=True)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", width_ratios=[1, 1, 1.1])
    accuracy = "20-NN {:.2f}, linear {:.2f}"
    for axis, model, when in zip(axes, (untrained, trained), ("before", "after"), strict=False):
        values = accuracy.format(summary[f"knn_{when}"], summary[f"linear_{when}"])
        draw(axis, embed(model, processor, list(images)), np.asarray(labels), f"{when}: {values}")
    handles, names = axes[1].get_legend_handles_labels()
    figure.legend(handles, names, ncols=10, frameon=False, fontsize=9, loc="outside lower left", markerscale=1.5)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [row["epoch"] for row in rows]
    axes[2].plot(epochs, [row["probe_knn"] for row in rows], color="#d1602b", label="online kNN accuracy")
    axes[2].plot(epochs, [row["total"] for row in rows], color="#1f5fa8", label="loss")
    axes[2].set_xlabel("epoch")
    axes[2].set_title(f"{summary['train_seconds']:.0f} s on two CPU cores", fontsize=11)
    axes[2].spines[["top", "right"]].set_visible(False)
    axes[2].legend(frameon=False, fontsize=9)
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
