# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a frozen model sees, as pictures: PCA of patch tokens, attention, a map of a data set, confusions, neighbors.

B images, d width, h x w patches, n images of a data set. Each function writes one PNG (a folder for video).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch.nn import functional

from modeling_visreg.decoding_visreg import without_ends

from ...backbones import Backbone
from ...run_folder import atomic_file
from ..features import Features
from ..nearest import nearest
from ..preprocessing import normalize, to_tensor


CELL = 224  # pixels of the longer side of a picture in a sheet
_GAP, _BAR = 6, 18
_ACROSS = 8  # images beside each other
_LONGEST = 4  # of a picture, its longer side to the shorter one
_METHODS = {"tsne": "t-SNE", "umap": "UMAP"}
_PATCHES = 65_536  # patches that the principal components are taken of, at most


def fitted(image: Image.Image, backbone: Backbone, size: int | None) -> Image.Image:
    """The image with its shorter side at `size` pixels (the model's own by default), both divisible by its patch.

    Of a strip only the middle is shown: its patches, all of which attend to each other, would take any time.
    """
    image = without_ends(image, _LONGEST)
    patch = backbone.patch_size or 1
    scale = (size or min(backbone.native_size)) / min(image.size)
    width, height = (max(patch, round(side * scale / patch) * patch) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


@torch.no_grad()
def patch_maps(backbone: Backbone, images: Sequence[Image.Image], size: int | None) -> list[torch.Tensor]:
    """Patch tokens (d, h, w) of each image, at any size."""
    maps = []
    for image in images:
        pixels = to_tensor(fitted(image, backbone, size))[None].to(backbone.device)
        maps.append(backbone.patch_map(normalize(pixels, backbone.mean, backbone.std))[0].float().cpu())
    return maps


def pca_colors(maps: Sequence[torch.Tensor], shared: bool = True) -> list[np.ndarray]:
    """The first three principal components of patch tokens (d, h, w) as RGB (h, w, 3), 0 to 1.

    Args:
        shared: one basis and one scale for all images, so that a color means the same everywhere (and a video does
            not flicker); False takes each image by itself.
    """
    groups = [list(maps)] if shared else [[one] for one in maps]
    return [colors for group in groups for colors in _colors(group)]


def _colors(maps: list[torch.Tensor]) -> list[np.ndarray]:
    rows = torch.cat([one.flatten(1).T for one in maps]).double()
    if not rows.isfinite().all():
        raise ValueError("the features of the images are not finite: there is nothing to draw")
    step = -(-len(rows) // _PATCHES)
    sample = rows[::step]
    mean = sample.mean(0)
    _, _, basis = torch.linalg.svd(sample - mean, full_matrices=False)
    basis = basis[: min(3, len(basis))]
    # The sign of a component is arbitrary: the larger loadings are made positive, so that pictures can be compared.
    basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
    values = functional.pad((rows - mean) @ basis.T, (0, 3 - len(basis)))
    low, high = np.quantile(values[::step].numpy(), (0.01, 0.99), axis=0)
    scaled = np.clip((values.numpy() - low) / np.maximum(high - low, 1e-12), 0, 1)
    counts = [one.shape[1] * one.shape[2] for one in maps]
    parts = np.split(scaled, np.cumsum(counts)[:-1])
    return [part.reshape(*one.shape[1:], 3) for part, one in zip(parts, maps, strict=True)]


def write_pca(
    backbones: Sequence[Backbone], images: Sequence[Image.Image], path: Path, size=None, shared=True
) -> Path:
    """A sheet: images, below them the patch tokens of each model as colors (figures 1, 8, 9 of the paper)."""
    maps = [pca_colors(patch_maps(backbone, images, size), shared) for backbone in backbones]
    lines = [list(images), *([picture(colors) for colors in each] for each in maps)]
    rows, captions = [], []
    for start in range(0, len(images), _ACROSS):
        for line, name in zip(lines, ["image", *map(caption, backbones)], strict=True):
            rows.append(line[start : start + _ACROSS])
            captions.append([name] + [""] * (len(rows[-1]) - 1))
    return save_sheet(rows, captions, path)


def write_pca_frames(backbone: Backbone, frames: Sequence[Image.Image], folder: Path, size=None) -> list[Path]:
    """One PNG a frame of a video: the frame and its patch tokens, in one basis for all frames."""
    folder.mkdir(parents=True, exist_ok=True)
    colors = pca_colors(patch_maps(backbone, frames, size))
    written = []
    for number, (frame, color) in enumerate(zip(frames, colors, strict=True)):
        written.append(
            save_sheet([[frame, picture(color)]], ["frame", caption(backbone)], folder / f"{number:05d}.png")
        )
    return written


@torch.no_grad()
def write_attention(backbones: Sequence[Backbone], images: Sequence[Image.Image], path: Path, size=None) -> Path:
    """A sheet: a row an image, beside it what CLS attends to in the last block (mean over heads), over the image."""
    rows = []
    for image in images:
        row = [image]
        for backbone in backbones:
            resized = fitted(image, backbone, size)
            pixels = to_tensor(resized)[None].to(backbone.device)
            weights = (
                backbone.attention(normalize(pixels, backbone.mean, backbone.std))[0].float().mean(0).cpu().numpy()
            )
            row.append(overlay(resized, weights))
        rows.append(row)
    return save_sheet(rows, ["image", *map(caption, backbones)], path)


def caption(backbone: Backbone) -> str:
    """The model's name; of a directory or file on this machine only the last part."""
    start, colon, path = ("", "", backbone.name)
    if backbone.name.startswith("timm:"):
        start, colon, path = backbone.name.rpartition(":")
    return start + colon + os.path.basename(os.path.abspath(path)) if os.path.exists(path) else backbone.name


def overlay(image: Image.Image, weights: np.ndarray) -> Image.Image:
    """The image, dark where `weights` (h, w) are small. A few patches draw most of the attention: the top 2 % are
    cut off, and the root is shown.
    """
    low, high = weights.min(), np.quantile(weights, 0.98)
    share = np.sqrt(np.clip((weights - low) / max(float(high - low), 1e-12), 0, 1))
    mask = Image.fromarray((share * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    return Image.composite(image, Image.new("RGB", image.size, (20, 0, 40)), mask)


def write_map(features: Features, names: list[str] | None, path: Path, method: str = "tsne", seed: int = 0) -> Path:
    """A map of a labeled set in two dimensions, a color a class.

    Args:
        method: `tsne`, or `umap` with the package umap-learn.

    Raises:
        ValueError: another method, the package is missing, or fewer than 5 images.
    """
    points = project(functional.normalize(features.features, dim=1).numpy(), method, seed)
    labels = features.labels.numpy()
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    classes = np.unique(labels)
    colors = color_table(len(classes))
    for color, label in zip(colors, classes, strict=True):
        chosen = points[labels == label]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=8, color=color, label=class_name(label, names))
    if len(classes) <= 40:
        figure.legend(loc="outside right upper", fontsize=8, markerscale=2, frameon=False)
    axes.set(xticks=[], yticks=[], title=f"{_METHODS[method]} of {len(points)} images, {len(classes)} classes")
    return save_figure(figure, path)


def project(rows: np.ndarray, method: str, seed: int) -> np.ndarray:
    """(n, 2) from (n, d)."""
    if len(rows) < 5:
        raise ValueError(f"a map needs at least 5 images, got {len(rows)}")
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30, (len(rows) - 1) / 3)
        return TSNE(init="pca", perplexity=perplexity, random_state=seed, metric="cosine").fit_transform(rows)
    if method != "umap":
        raise ValueError(f"method is tsne or umap, not {method!r}")
    try:
        from umap import UMAP
    except ImportError as error:
        raise ValueError("the method umap needs the package umap-learn: pip install umap-learn") from error
    return UMAP(random_state=seed, metric="cosine", n_neighbors=min(15, len(rows) - 1)).fit_transform(rows)


def write_confusion(truth: np.ndarray, predicted: np.ndarray, names: list[str] | None, path: Path) -> Path:
    """Share of the images of each class (rows) that were taken for each class (columns)."""
    classes = int(max(truth.max(), predicted.max())) + 1
    counts = np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(16.0, 3.5 + 0.45 * classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= 25:
        for row, column in np.argwhere(counts > 0):
            dark = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=dark)
    if classes <= 60:
        ticks = [class_name(label, names) for label in range(classes)]
        axes.set_xticks(range(classes), ticks, rotation=90, fontsize=8)
        axes.set_yticks(range(classes), ticks, fontsize=8)
    accuracy = 100 * np.diag(counts).sum() / max(1, counts.sum())
    axes.set(xlabel="predicted", ylabel="class", title=f"{accuracy:.1f} % of {len(truth)} images")
    return save_figure(figure, path)


def write_neighbors(
    queries: Features,
    bank: Features,
    pictures: Any,
    names: list[str] | None,
    path: Path,
    count: int = 8,
    k: int = 7,
    alike: bool = False,
) -> Path:
    """A contact sheet: a row a query, then its nearest images, each with its similarity and class.

    Args:
        pictures: (picture of a query by its number, picture of the bank by its number), two functions.
        count: queries, spread over the set.
        alike: whether queries and bank are the same set, so that an image is not its own neighbor.
    """
    rows = np.unique(np.linspace(0, len(queries.ids) - 1, min(count, len(queries.ids))).round().astype(int))
    found = zip(*nearest(queries.features[rows], bank.features, k + alike), strict=True)
    similarity, order = (torch.cat(parts) for parts in found)
    sheet, captions = [], []
    for number, row in enumerate(rows.tolist()):
        line = [pictures[0](row)]
        words = [f"query: {class_name(label_of(queries, row), names)}"]
        near = list(zip(similarity[number].tolist(), order[number].tolist(), strict=True))
        others = [(value, column) for value, column in near if not (alike and bank.ids[column] == queries.ids[row])]
        for value, column in others[:k]:
            line.append(pictures[1](column))
            words.append(f"{value:.2f} {class_name(label_of(bank, column), names)}")
        sheet.append(line)
        captions.append(words)
    return save_sheet(sheet, captions, path, cell=112)


def label_of(features: Features, row: int) -> int:
    label = features.labels[row]
    return int(label) if label.ndim == 0 else int(label.argmax())


def class_name(label: int, names: list[str] | None) -> str:
    if label < 0:
        return ""
    return names[label] if names and label < len(names) else str(label)


def picture(colors: np.ndarray) -> Image.Image:
    """RGB (h, w, 3), 0 to 1, as an image whose pixels stay sharp when it is enlarged."""
    small = Image.fromarray((colors * 255).round().astype(np.uint8))
    scale = max(1, round(CELL / max(small.size)))
    return small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST)


def save_sheet(rows: list[list[Image.Image]], captions: list, path: Path, cell: int = CELL) -> Path:
    """Pictures in rows and columns with captions: one list for all rows, or one a row."""
    each = captions if isinstance(captions[0], list) else [captions] + [[""] * len(captions)] * (len(rows) - 1)
    width = max(map(len, rows)) * (cell + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * (cell + _BAR + _GAP) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (row, words) in enumerate(zip(rows, each, strict=True)):
        for x, (image, text) in enumerate(zip(row, words, strict=True)):
            left, top = _GAP + x * (cell + _GAP), _GAP + y * (cell + _BAR + _GAP)
            draw.text((left, top), shortened(text, cell), fill="black")
            scale = cell / max(image.size)
            method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
            shown = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)
            sheet.paste(shown, (left, top + _BAR))
    with atomic_file(path) as part:
        sheet.save(part)
    return path


def shortened(text: str, pixels: int) -> str:
    """The end of a text that is too long for its cell: paths differ at their ends."""
    most = pixels // 6
    return text if len(text) <= most else "..." + text[len(text) - most + 3 :]


def color_table(count: int) -> np.ndarray:
    from matplotlib import colormaps

    if count <= 20:  # the 20 are ten pairs of a dark and a light tone
        return colormaps["tab10" if count <= 10 else "tab20"].colors[:count]
    return colormaps["hsv"](np.linspace(0, 1, count, endpoint=False))


def save_figure(figure: Figure, path: Path) -> Path:
    with atomic_file(path) as part:
        figure.savefig(part, dpi=120)
    return path
