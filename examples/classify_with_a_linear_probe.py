# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a frozen model knows about classes: logistic regression on its features, strength chosen on validation images.

    python examples/classify_with_a_linear_probe.py digits --model runs/digits/model

`visreg evaluate linear` is the paper's protocol (BN + Linear, SGD, 13 learning rates, four blocks).
"""

import argparse

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoImageProcessor, AutoModel

import modeling_visreg  # noqa: F401 - makes AutoModel know the checkpoints of this package
from visreg_training.data import open_stream


@torch.no_grad()
def features_of(model, processor, source, batch_size: int = 64):
    """((n, d) features, n labels) of all images of a source that have a label."""
    labeled = [(image, label) for image, label, _id in source.examples() if label is not None and label >= 0]
    images, labels = zip(*labeled, strict=True)
    rows = []
    for start in range(0, len(images), batch_size):
        pixels = processor(list(images[start : start + batch_size]), return_tensors="pt")["pixel_values"]
        rows.append(model(pixels.to(model.device)).pooler_output.cpu())
        print(f"\r{source.split}: {start + len(rows[-1])} of {len(images)} images", end="", flush=True)
    print()
    return torch.cat(rows).numpy(), list(labels)


def classifier(strength: float):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", nargs="?", default="digits", help="with class folders, or labels (default: digits)")
    parser.add_argument("--model", default="runs/digits/model", help="directory or Hub id (default: the demo's)")
    parser.add_argument("--test_split", default="test", help="touched once, at the end (default: test)")
    options = parser.parse_args()

    processor = AutoImageProcessor.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    train, test = open_stream(options.dataset), open_stream(options.dataset, split=options.test_split)
    if train.label_names is None or train.label_names != test.label_names:
        raise SystemExit(f"the splits need the same classes: {train.label_names} and {test.label_names}")
    x, y = features_of(model, processor, train)
    fit_x, held_x, fit_y, held_y = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    scores = {
        strength: classifier(strength).fit(fit_x, fit_y).score(held_x, held_y) for strength in (0.01, 0.1, 1, 10)
    }
    best = max(scores, key=scores.get)
    accuracy = classifier(best).fit(x, y).score(*features_of(model, processor, test))
    print(f"C {best}, chosen on {len(held_y)} validation images; accuracy on the test images {accuracy:.3f}")


if __name__ == "__main__":
    main()
