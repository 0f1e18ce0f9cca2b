# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Find the photos that look like a photo: features in a FAISS index of `datasets`, the answer as one PNG.

python examples/search_your_photos.py my_photos --model out/model --query photo.jpg  # needs the extra `search`
"""

import argparse
from pathlib import Path

import faiss
import torch
from datasets import Dataset, load_from_disk
from PIL import Image, ImageDraw, ImageOps
from tqdm import tqdm
from transformers import AutoImageProcessor, AutoModel

import modeling_visreg  # noqa: F401 - makes AutoModel know the checkpoints of this package
from visreg_training.data import open_stream


def embed_folder(embed, folder: str, batch_size: int = 64) -> Dataset:
    """Paths and features of all photos of a folder; those that cannot be read are left out with a warning."""
    source = open_stream(folder)
    images, paths, rows = [], [], []
    for image, _label, row in tqdm(source.examples(), total=source.num_examples, unit="photo"):
        images.append(image)
        paths.append(source.dataset[int(row)]["image"]["path"])
        if len(images) == batch_size:
            rows, images = [*rows, embed(images)], []
    rows += [embed(images)] if images else []
    return Dataset.from_dict({"path": paths, "features": torch.cat(rows).numpy()})


def draw(rows: list[list[tuple[str, str]]], output: str, cell: int = 160) -> None:
    """A sheet with one row a query: its photo, then its neighbors; each is a (path, caption)."""
    sheet = Image.new("RGB", (cell * max(map(len, rows)), (cell + 16) * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, (path, caption) in enumerate(row):
            left, top = x * cell + 4, y * (cell + 16) + 3
            sheet.paste(ImageOps.contain(read(path), (cell - 8, cell - 8)), (left, top + 13))
            ImageDraw.Draw(sheet).text((left, top), caption, fill="black")
    sheet.save(output)


def read(path: str) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", help="folder to search")
    parser.add_argument("--model", default="out/model", help="model/ of a run, or Hub id (default: out/model)")
    parser.add_argument("--query", nargs="+", help="photos to look for (default: 6 of the folder)")
    parser.add_argument("--k", type=int, default=7, help="neighbors (default: 7)")
    parser.add_argument("--output", default="neighbors.png", help="PNG to write (default: neighbors.png)")
    parser.add_argument("--keep", help="folder for the features: the next search starts at once")
    options = parser.parse_args()
    processor = AutoImageProcessor.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model).eval().to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def embed(images):  # (n, d): CLS tokens after the final norm, of length 1
        pixels = processor(images, return_tensors="pt")["pixel_values"].to(model.device)
        return torch.nn.functional.normalize(model(pixels).pooler_output, dim=1).cpu()

    kept = options.keep and Path(options.keep).exists()
    photos = load_from_disk(options.keep) if kept else embed_folder(embed, options.photos)
    if options.keep and not kept:
        photos.save_to_disk(options.keep)
    photos.add_faiss_index("features", metric_type=faiss.METRIC_INNER_PRODUCT)
    sheet = []
    for query in options.query or photos["path"][:: -(-len(photos) // 6)]:
        scores, found = photos.get_nearest_examples("features", embed([read(query)])[0].numpy(), k=options.k + 1)
        near = [(path, f"{score:.3f}") for path, score in zip(found["path"], scores, strict=True)]
        near = [item for item in near if not Path(item[0]).samefile(query)][: options.k]  # all but the photo itself
        print(f"{query} (see {options.output})", *(f"  {score}  {path}" for path, score in near), sep="\n")
        sheet.append([(query, "query"), *near])
    draw(sheet, options.output)
