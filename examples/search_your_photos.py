# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Find the photos that look like a photo: features in a FAISS index of `datasets`, the answer as one PNG.

pip install 'visreg[search]'
python examples/search_your_photos.py my_photos --model out/model --query photo.jpg
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
    """A sheet with one row a query: its photo, then its neighbours; each is a (path, caption)."""
    sheet = Image.new("RGB", (cell * max(map(len, rows)), (cell + 16) * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, (path, caption) in enumerate(row):
            photo = ImageOps.contain(read(path), (cell - 8, cell - 8))
            sheet.paste(photo, (x * cell + 4, y * (cell + 16) + 16))
            ImageDraw.Draw(sheet).text((x * cell + 4, y * (cell + 16) + 3), caption, fill="black")
    sheet.save(output)


def read(path: str) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", help="folder to search")
    parser.add_argument("--model", default="out/model", help="checkpoint directory or Hub id (default: out/model)")
    parser.add_argument("--query", nargs="+", help="photos to look for (default: 6 of the folder)")
    parser.add_argument("--k", type=int, default=7, help="neighbours of each (default: 7)")
    parser.add_argument("--output", default="neighbours.png", help="PNG to write (default: neighbours.png)")
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
        others = [item for item in near if not Path(item[0]).samefile(query)]  # all but the photo itself
        sheet.append([(query, "query"), *others[: options.k]])
    draw(sheet, options.output)
    print(f"{options.output}: {len(sheet)} queries, each with its {options.k} nearest of {len(photos)} photos")
