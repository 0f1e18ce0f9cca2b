# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Features of a folder of photos (or of any data set that `open_stream` opens), as a parquet file with a row an image.

    python examples/extract_features.py my_photos --model out/model --output features.parquet

`visreg features` does the same for several blocks, on several GPUs, with a cache.
"""

import argparse

import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import AutoImageProcessor, AutoModel

import modeling_visreg  # noqa: F401 - makes AutoModel know the checkpoints of this package
from visreg_training.data import open_stream


def batches(examples, size: int):
    """Lists of at most `size` examples (image, label, id)."""
    batch = []
    for example in examples:
        batch.append(example)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", nargs="?", default="digits", help="folder, Hub id or 'digits' (default: digits)")
    parser.add_argument("--split", default="train", help="(default: train)")
    parser.add_argument("--model", default="runs/digits/model", help="directory or Hub id (default: the demo's)")
    parser.add_argument("--output", default="features.parquet", help="(default: features.parquet)")
    parser.add_argument("--batch_size", type=int, default=64, help="images embedded at once (default: 64)")
    options = parser.parse_args()

    processor = AutoImageProcessor.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    source = open_stream(options.dataset, split=options.split)
    rows = {"id": [], "label": [], "features": []}
    progress = tqdm(total=source.num_examples, unit="image")
    for batch in batches(source.examples(), options.batch_size):
        images, labels, ids = zip(*batch, strict=True)
        pixels = processor(list(images), return_tensors="pt")["pixel_values"].to(model.device)
        output = model(pixels)  # last_hidden_state (B, 1 + N, d): CLS, then the patches; pooler_output (B, d): CLS
        rows["id"] += ids
        rows["label"] += labels
        rows["features"] += list(output.pooler_output.cpu().numpy())
        progress.update(len(batch))
    progress.close()
    Dataset.from_dict(rows).to_parquet(options.output)
    print(f"{options.output}: {len(rows['id'])} images, {len(rows['features'][0])} features each")


if __name__ == "__main__":
    main()
