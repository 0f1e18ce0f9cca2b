# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Decoding: what can be read is read, what cannot is named by kind; the loader counts, lists, replaces and stops."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from visreg_training.data import BadDataError, BadImage, MultiCrop, PretrainingLoader, open_stream
from visreg_training.data.decode import open_image
from visreg_training.data.skips import SkipLog


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


def two_colours(mode: str = "RGB") -> Image.Image:
    """40 x 20, the left half red, the right half green."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))
    return image.convert(mode)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_formats(form):
    pixels = read(save(two_colours(), form))
    assert pixels.shape == (20, 40, 3)
    assert np.abs(pixels[10, 5] - RED).max() < 30 and np.abs(pixels[10, 35] - GREEN).max() < 30


@pytest.mark.parametrize(
    "mode,form",
    [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "PNG"), ("P", "GIF"), ("L", "JPEG"), ("1", "PNG"), ("LA", "PNG")],
)
def test_modes(mode, form):
    pixels = read(save(two_colours(mode), form))
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
    image = two_colours("RGBA")
    image.putalpha(0)
    assert (read(save(image, "PNG")) == 255).all()
    image.putalpha(128)
    assert np.abs(read(save(image, "PNG"))[10, 5] - (np.array(RED) + 255) / 2).max() <= 2


def test_a_transparent_palette_entry_is_white():
    image = two_colours().quantize(2)
    index = image.getpixel((5, 5))
    assert (read(save(image, "GIF", transparency=index))[10, 5] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_rotation_is_applied(orientation, form):
    """However it is stored, red is left and green right, and the size is known before the pixels are."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that stores it so
    stored = two_colours()
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
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    for form in ("GIF", "WEBP"):
        pixels = read(save(frames[0], form, save_all=True, append_images=frames[1:]))
        assert np.abs(pixels[4, 4] - RED).max() < 30


def test_one_pixel_and_twenty_thousand_in_a_row():
    crops = MultiCrop(2, 2, 32, 16)
    for size in ((1, 1), (20_000, 30), (1, 700)):
        views = crops.from_opened(open_image(save(Image.new("RGB", size, RED), "PNG")))
        assert [tuple(view.shape) for view in views] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * 2
        assert np.abs(views[0].numpy()[:, 5, 5].astype(int) - RED).max() <= 1


JPEG = save(two_colours().resize((400, 200)), "JPEG")


@pytest.mark.parametrize(
    "kind,data",
    [
        ("empty", b""),
        ("missing", None),
        ("not_image", b"<html>404 Not Found</html>"),
        ("not_image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
        ("truncated", JPEG[: len(JPEG) // 2]),
        ("truncated", save(two_colours().resize((400, 200)), "PNG")[:200]),
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


# --- in the loader ---


@pytest.fixture
def folder(tmp_path, photo, encode_image):
    """200 good images, two that cannot be read."""
    for number in range(200):
        (tmp_path / f"{number:03d}.jpg").write_bytes(encode_image(photo[:40, number : number + 40]))
    (tmp_path / "200.jpg").write_bytes(JPEG[:2000])
    (tmp_path / "201.png").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("streaming", [None, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_counted_and_listed(folder, tmp_path, streaming, workers):
    source = open_stream(folder, streaming=streaming)
    log = tmp_path / "skipped.jsonl"
    loader = PretrainingLoader(
        source, MultiCrop(1, 0, 8), batch_size=20, num_workers=workers, max_bad_share=0.02, skipped_path=log
    )
    for _ in range(25):  # more than two epochs
        batch = next(loader)
        assert len(batch.ids) == 20 and batch.views[0].shape == (1, 20, 3, 8, 8)
    assert set(loader.skipped) == {"truncated", "empty"} and loader.skipped["empty"] >= 2
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((record["kind"], record["path"].rsplit("/", 1)[1]) for record in records) == [
        ("empty", "201.png"),
        ("truncated", "200.jpg"),
    ]
    assert loader.position()["skipped"]["counts"] == dict(loader.skipped)
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_stops_when_too_much_is_bad(folder, workers):
    for number in range(0, 200, 10):
        (folder / f"{number:03d}.jpg").write_bytes(b"nothing")
    loader = PretrainingLoader(open_stream(folder), MultiCrop(1, 0, 8), batch_size=20, num_workers=workers)
    with pytest.raises(
        BadDataError, match=r"\d+ of \d+ images cannot be read .* not_image.*allowed share 0.01"
    ) as caught:
        for _ in range(30):
            next(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [None, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_of_nothing_but_bad_images_ends(tmp_path, streaming, workers):
    for number in range(150):
        (tmp_path / f"{number}.jpg").write_bytes(b"nothing")
    loader = PretrainingLoader(
        open_stream(tmp_path, streaming=streaming), MultiCrop(1, 0, 8), batch_size=4, num_workers=workers
    )
    with pytest.raises(BadDataError, match="cannot be read") as caught:
        next(loader)
    assert "\n" not in str(caught.value)


def test_plain_order_leaves_bad_images_out_and_stops_when_too_many(folder):
    names = [identity for _, _, identity in open_stream(folder).examples(max_bad_share=0.02)]
    assert names == [str(number) for number in range(200)]
    with pytest.raises(BadDataError, match="2 of 202 images"):
        list(open_stream(folder).examples(max_bad_share=0.001))


def test_a_truncated_parquet_file_stops_before_start(five_shards, tmp_path):
    for path in five_shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = sorted(tmp_path.iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:3000])
    with pytest.raises(
        ValueError, match=rf"1 of 5 parquet files cannot be read .*{broken.name}.*max_bad_share"
    ) as caught:
        open_stream(tmp_path)
    assert "\n" not in str(caught.value)
    for streaming in (None, True):
        source = open_stream(tmp_path, streaming=streaming, max_bad_share=0.5)
        assert len(list(source.raw_examples())) == 103
        assert source.description()["unreadable_files"] == [str(broken)]
        loader = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=8, skipped_path=tmp_path / "skipped.jsonl")
        next(loader)
        assert loader.skipped["unreadable_file"] == 1


def test_flipped_bytes_in_a_stream_lose_the_row_group_only(five_shards, tmp_path):
    """The footer is whole, so the file opens; pages in the middle are not."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in five_shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    broken = sorted(folder.iterdir())[3]
    content = bytearray(broken.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page header
    broken.write_bytes(content)
    source = open_stream(folder, streaming=True)
    loader = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=8, max_bad_share=0.3)
    names = {name for _ in range(28) for name in next(loader).ids}
    assert len(names) == 112 and not any(name.startswith("3-0-") for name in names)
    assert loader.skipped["unreadable_file"] >= 1
    strict = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=8)
    with pytest.raises(BadDataError, match=r"1 row group\(s\) of the 5 shards, 4.0% of the data, cannot be read"):
        for _ in range(28):
            next(strict)


def test_one_bad_row_group_of_many_does_not_stop_a_run(tmp_path, write_image_dataset):
    """One shard of 125 row groups: 0.8 % is lost, less than the allowed 1 %; a second lost one is too much, also where
    a resume lies between them. What was listed before a resume is not listed again.
    """
    folder = write_image_dataset(tmp_path / "data", [1000], side=(8, 8))
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page header
    path.write_bytes(content)
    source, listing = open_stream(folder, streaming=True), tmp_path / "skipped.jsonl"
    options = {"batch_size": 31, "skipped_path": listing}
    first = PretrainingLoader(source, MultiCrop(1, 0, 8), **options)
    for _ in range(32):
        next(first)
    position = json.loads(json.dumps(first.position()))
    assert position["skipped"]["lost"] == {"0-0": 1 / 125}
    resumed = PretrainingLoader(source, MultiCrop(1, 0, 8), **options, position=position)
    for _ in range(64):  # two more epochs
        next(resumed)
    assert resumed.skipped["unreadable_file"] > 1
    assert [json.loads(line)["id"] for line in listing.read_text().splitlines()] == ["0-0"]
    log = SkipLog()
    log.load(json.loads(json.dumps(resumed.position()["skipped"])))
    again = {"kind": "unreadable_file", "id": "0-7", "path": None, "detail": "broken", "share_of_shard": 1 / 125}
    with pytest.raises(BadDataError, match=r"2 row group\(s\) of the 1 shards, 1.6% of the data"):
        log.add(0, [again])
