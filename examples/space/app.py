# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A Space for any VISReg checkpoint: what its patches see in an image, and which images of a gallery are nearest.

    VISREG_CHECKPOINT=org/name python app.py      # a Hub id or a checkpoint directory; the page can name another

Only the installed package's code runs, never a checkpoint's own: visitors may name any repository.
N patches, d width of the model.
"""

import os
import re
from functools import lru_cache

import gradio as gr
import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

import modeling_visreg  # noqa: F401 (the Auto classes know visreg_vit from here on)


CHECKPOINT = os.environ.get("VISREG_CHECKPOINT", "")
PATCHES_OF_A_SIDE = 32  # of the longer side in the map
LONGEST_SIDE = 448  # pixels of the picture that is shown
LARGEST_GALLERY = 200
TITLE = "# What does a VISReg model see?\nFeatures learned without labels: upload an image, and a gallery to search."


@lru_cache(maxsize=2)
def load(checkpoint: str):
    """(processor, model) of a Hub id or directory; a mistake is shown on the page."""
    checkpoint = checkpoint.strip()
    if checkpoint != CHECKPOINT and (not re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint) or os.path.exists(checkpoint)):
        raise gr.Error("Name a checkpoint on the Hub, such as org/name.")
    try:
        processor = AutoImageProcessor.from_pretrained(checkpoint)
        model = AutoModel.from_pretrained(checkpoint).eval()
    except (OSError, ValueError) as error:
        raise gr.Error(f"{checkpoint} cannot be loaded: {' '.join(str(error).split()).partition('. ')[0]}.") from error
    if model.config.model_type != "visreg_vit":
        raise gr.Error(f"{checkpoint} is a {model.config.model_type}, not a VISReg model.")
    return processor, model


def describe(checkpoint: str) -> str:
    """One line on the model."""
    _processor, model = load(checkpoint)
    config = model.config
    return (
        f"{config.num_hidden_layers} blocks, width {config.hidden_size}, patches of {config.patch_size} pixels, "
        f"{model.num_parameters() / 1e6:.1f} million parameters"
    )


@torch.inference_mode()
def patch_map(checkpoint: str, image: Image.Image) -> Image.Image:
    """The first three principal components of the patch features, as red, green and blue."""
    processor, model = load(checkpoint)
    patch = model.config.patch_size
    scale = PATCHES_OF_A_SIDE / max(image.size)
    columns, rows = (max(2, round(side * scale)) for side in image.size)
    size = {"height": rows * patch, "width": columns * patch}
    pixels = processor(image.convert("RGB"), size=size, do_center_crop=False, return_tensors="pt").pixel_values
    patches = model(pixels).last_hidden_state[0, 1:]  # (N, d)
    _u, _s, directions = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
    shown = (patches - patches.mean(0)) @ directions[:3].T  # (N, 3)
    low, high = shown.quantile(torch.tensor([0.02, 0.98]), dim=0)
    colors = ((shown - low) / (high - low).clamp_min(1e-6)).clamp(0, 1).reshape(rows, columns, 3)
    enlarged = max(1, LONGEST_SIDE // max(rows, columns))
    picture = Image.fromarray((colors.numpy() * 255).astype(np.uint8))
    return picture.resize((columns * enlarged, rows * enlarged), Image.Resampling.NEAREST)


@torch.inference_mode()
def embed(checkpoint: str, images: list[Image.Image]) -> torch.Tensor:
    """Unit vectors (images, d)."""
    processor, model = load(checkpoint)
    pixels = processor([image.convert("RGB") for image in images], return_tensors="pt").pixel_values
    features = torch.cat([model(chunk).pooler_output for chunk in pixels.split(16)])
    return torch.nn.functional.normalize(features, dim=1)


def neighbors(checkpoint: str, image: Image.Image, gallery: list[str] | None) -> list[tuple[str, str]]:
    """Files of the gallery, the nearest first, with the cosine of the angle between their features and the image's."""
    paths = (gallery or [])[:LARGEST_GALLERY]
    if not paths:
        return []
    images = [Image.open(path) for path in paths]
    features = embed(checkpoint, [image, *images])
    cosines = features[1:] @ features[0]
    order = cosines.argsort(descending=True)[:8].tolist()
    return [(paths[index], f"{cosines[index]:.2f}") for index in order]


def look(checkpoint: str, image: Image.Image | None, gallery: list[str] | None):
    """What the page shows for one image: a line on the model, the map, the neighbors."""
    if image is None:
        raise gr.Error("Upload an image first.")
    return describe(checkpoint), patch_map(checkpoint, image), neighbors(checkpoint, image, gallery)


with gr.Blocks(title="VISReg") as page:
    gr.Markdown(TITLE)
    name = gr.Textbox(CHECKPOINT, label="Checkpoint", placeholder="org/name", elem_id="checkpoint")
    description = gr.Markdown(elem_id="description")
    with gr.Row():
        with gr.Column():
            picture = gr.Image(type="pil", label="Image", elem_id="image", height=320)
            files = gr.File(
                file_count="multiple",
                file_types=["image"],
                label=f"Gallery (up to {LARGEST_GALLERY} images)",
                elem_id="gallery",
                height=200,
            )
            button = gr.Button("Look", variant="primary", elem_id="look")
        with gr.Column():
            colors = gr.Image(label="Patches: three principal components as colors", elem_id="map", height=320)
            nearest = gr.Gallery(label="Nearest in the gallery, with cosine", elem_id="nearest", columns=4, height=300)
    button.click(look, [name, picture, files], [description, colors, nearest], show_progress_on=[colors, nearest])


if __name__ == "__main__":
    page.launch()
