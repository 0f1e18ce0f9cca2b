# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Decoding: what can be read is read, what cannot is named by kind."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from modeling_visreg.image_processing_visreg import read_image
from visreg_training.data import BadImage, MultiCrop, open_stream
from visreg_training.data.decode import FORMATS, has_image_suffix, image_suffixes, open_image


RED, GREEN = (250, 10, 10), (10, 250, 10)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height pixels, with next to no data behind it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def save(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def read(data: bytes | None, path: str | None = None) -> np.ndarray:
    image = open_image(data, path).load()
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def two_colors(mode: str = "RGB") -> Image.Image:
    """40 x 20, the left half red, the right half green."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))
    return image.convert(mode)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_formats(form):
    pixels = read(save(two_colors(), form))
    assert pixels.shape == (20, 40, 3)
    assert np.abs(pixels[10, 5] - RED).max() < 30 and np.abs(pixels[10, 35] - GREEN).max() < 30


@pytest.mark.parametrize(
    "mode,form",
    [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "PNG"), ("P", "GIF"), ("L", "JPEG"), ("1", "PNG"), ("LA", "PNG")],
)
def test_modes(mode, form):
    pixels = read(save(two_colors(mode), form))
    assert pixels.shape == (20, 40, 3)
    if mode in ("CMYK", "P"):
        assert np.abs(pixels[10, 5] - RED).max() < 30 and np.abs(pixels[10, 35] - GREEN).max() < 30


def test_16_bit_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    pixels = read(save(Image.fromarray(ramp), "PNG"))
    assert np.abs(pixels[0, :, 0] - np.arange(256)).max() <= 1


def test_float_and_32_bit_tiffs_are_scaled():
    unit = read(save(Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, 0)), "TIFF"))
    assert np.abs(unit[0, :, 0] - np.arange(256)).max() <= 1
    wide = read(save(Image.fromarray(np.linspace(0, 1e6, 256).astype(np.int32)[None].repeat(4, 0)), "TIFF"))
    assert np.abs(wide[0, :, 0] - np.arange(256)).max() <= 1


def test_alpha_is_composited_on_white():
    image = two_colors("RGBA")
    image.putalpha(0)
    assert (read(save(image, "PNG")) == 255).all()
    image.putalpha(128)
    assert np.abs(read(save(image, "PNG"))[10, 5] - (np.array(RED) + 255) / 2).max() <= 2


def test_a_transparent_palette_entry_is_white():
    image = two_colors().quantize(2)
    index = image.getpixel((5, 5))
    assert (read(save(image, "GIF", transparency=index))[10, 5] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_rotation_is_applied(orientation, form):
    """However it is stored, red is left and green right, and the size is known before the pixels are."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that stores it so
    stored = two_colors()
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(save(stored, form, exif=exif))
    assert opened.size == (40, 20)
    pixels = np.asarray(opened.load()).astype(int)
    assert pixels.shape == (20, 40, 3)
    assert np.abs(pixels[10, 5] - RED).max() < 40 and np.abs(pixels[10, 35] - GREEN).max() < 40


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN)]
    for form in ("GIF", "WEBP"):
        pixels = read(save(frames[0], form, save_all=True, append_images=frames[1:]))
        assert np.abs(pixels[4, 4] - RED).max() < 30


def test_one_pixel_and_twenty_thousand_in_a_row():
    crops = MultiCrop(2, 2, 32, 16)
    for size in ((1, 1), (20_000, 30), (1, 700)):
        views = crops.from_opened(open_image(save(Image.new("RGB", size, RED), "PNG")))
        assert [tuple(view.shape) for view in views] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * 2
        assert np.abs(views[0].numpy()[:, 5, 5].astype(int) - RED).max() <= 1


JPEG = save(two_colors().resize((400, 200)), "JPEG")


@pytest.mark.parametrize(
    "kind,data",
    [
        ("empty", b""),
        ("missing", None),
        ("not_image", b"<html>404 Not Found</html>"),
        ("not_image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
        ("truncated", JPEG[: len(JPEG) // 2]),
        ("truncated", save(two_colors().resize((400, 200)), "PNG")[:200]),
        ("too_large", png_header(20_000, 20_000)),
        ("too_large", png_header(1_000_000, 1_000_000)),
    ],
)
def test_what_cannot_be_read_is_named(kind, data):
    with pytest.raises(BadImage) as caught:
        open_image(data).load()
    assert caught.value.kind == kind
    assert "\n" not in caught.value.detail


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadImage) as caught:
        open_image(None, str(tmp_path / "gone.jpg"))
    assert caught.value.kind == "missing"


def test_a_folder_is_scanned_for_what_the_decoder_reads(tmp_path, photo):
    """One list for every scan: of the files that Pillow writes here, those are found that can be decoded."""
    image = Image.fromarray(photo[:16, :16])
    for suffix, form in Image.registered_extensions().items():
        if form in Image.SAVE:
            path = tmp_path / f"image{suffix}"
            try:
                image.convert("L" if suffix == ".pfm" else "RGB").save(path)
            except (OSError, ValueError):  # Pillow was built without it
                path.unlink(missing_ok=True)
    found = {path.rsplit(".")[-1]: path for path in (raw.path for raw in open_stream(tmp_path).raw_examples())}
    assert {"jpg", "jpeg", "png", "gif", "bmp", "tif", "webp", "ppm", "ico"} <= set(found)
    assert not {"tga", "pdf", "eps"} & set(found) and (tmp_path / "image.tga").exists()
    for path in found.values():
        assert open_image(None, path).load().size == (16, 16)
    assert has_image_suffix("Photo.JPG") and not has_image_suffix("photo.tga")
    assert {Image.registered_extensions()[suffix] for suffix in image_suffixes()} <= set(FORMATS)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="no regular file"):
        open_image(None, str(tmp_path / "pipe.jpg"))
    with pytest.raises(BadImage, match="no regular file"):
        open_image(None, "/dev/zero")
    with (tmp_path / "giant.jpg").open("wb") as file:
        file.truncate(1 << 40)  # holes: it takes no room
    with pytest.raises(BadImage, match="too_large"):
        open_image(None, str(tmp_path / "giant.jpg"))


def test_a_photo_of_108_megapixels_is_decoded_reduced():
    """12,000 x 9,000: at half its sides; a PNG of such a size is refused with the way to allow it."""
    photo = Image.new("RGB", (12_000, 9_000), (200, 30, 4))
    file = io.BytesIO()
    photo.save(file, "JPEG")
    opened = open_image(file.getvalue())
    assert opened.size == (12_000, 9_000)
    image = opened.load()
    assert image.size == (6_000, 4_500) and image.getpixel((5, 5)) == pytest.approx((200, 30, 4), abs=3)
    assert open_image(file.getvalue()).load(8).size == (1_500, 1_125)
    file = io.BytesIO()
    Image.new("1", (12_000, 9_000)).save(file, "PNG")
    with pytest.raises(BadImage, match=r"--max_pixels allows more"):
        open_image(file.getvalue())
    assert open_image(file.getvalue(), max_pixels=12_000 * 9_000).size == (12_000, 9_000)


def test_images_above_the_limit_of_pillow_are_decoded_reduced_or_refused_by_ours(tmp_path):
    """179 megapixels: 20,000 x 9,000 as a JPEG and, with what the option allows, in another format."""
    file = io.BytesIO()
    Image.new("L", (20_000, 9_000), 99).save(file, "JPEG")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(file.getvalue()))
    opened = open_image(file.getvalue())
    assert opened.size == (20_000, 9_000) and opened.load(8).size == (2_500, 1_125)
    image = open_image(file.getvalue(), max_pixels=12_000_000).load()
    assert image.size == (5_000, 2_250) and image.getpixel((9, 9)) == (99, 99, 99)
    (tmp_path / "large.jpg").write_bytes(file.getvalue())
    assert read_image(tmp_path / "large.jpg").size == (10_000, 4_500)
    file = io.BytesIO()
    Image.new("1", (20_000, 9_000)).save(file, "PNG")
    with pytest.raises(BadImage, match=r"20000 x 9000 pixels, allowed are 60000000 \(--max_pixels allows more\)"):
        open_image(file.getvalue())
    assert open_image(file.getvalue(), max_pixels=180_000_000).size == (20_000, 9_000)


def test_a_progressive_jpeg_is_not_held_whole_at_any_size():
    """Its decoder would take gigabytes, whatever the reduction. The file here says that it has 3 gigapixels."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "JPEG", progressive=True)
    start = file.getvalue()
    at = start.index(b"\xff\xc2") + 5
    content = start[:at] + struct.pack(">HH", 50_000, 60_000) + start[at + 4 :]
    with pytest.raises(BadImage, match=r"too_large.* 60000 x 50000 pixels of a progressive JPEG"):
        open_image(content)
    assert open_image(start).size == (16, 16)


@pytest.mark.parametrize("texts, length", [(1, 3_000_000), (70, 1_000_000)])
def test_long_texts_in_a_png_are_passed_over(texts, length):
    """Of the makers of pictures, which write how they were made: Pillow refuses a text of a megabyte."""
    texts_of = PngImagePlugin.PngInfo()
    for number in range(texts):
        texts_of.add_text(f"text {number}", "x" * length, zip=True)
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=texts_of)
    assert np.array_equal(np.asarray(open_image(file.getvalue()).load()), pixels)
