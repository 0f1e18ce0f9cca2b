# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The one way from an opened image to the pixels that a model sees: in training, evaluation and use.

    image = Image.open("photo.png")                  # header only
    rgb = upright(image)                             # 8 bits a channel, upright, alpha on white
    crop = resized_crop(rgb, 256, (224, 224))        # of the evaluation protocol

This file travels with each checkpoint as remote code, so it imports nothing of this package.
"""

import io
import os
import struct
import warnings
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError


# Raster formats only: Pillow would otherwise also start Ghostscript for an EPS file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")

# Decoded RGB of this size takes 180 MB. A larger JPEG is decoded at a half, a quarter or an eighth of its sides; other
# formats are refused, unless the environment allows more: a variable reaches the processes that read images, too.
MAX_PIXELS = int(os.environ.get("VISREG_MAX_PIXELS", "60000000"))
REDUCTIONS = (1, 2, 4, 8)  # of a JPEG's sides, in its DCT

_MOST_PROGRESSIVE = 180_000_000  # pixels of a progressive JPEG, which take three to six bytes each

# Of a strip, the long side to the short one, beyond which its ends are cut off before it is resized: an image of
# 200,000 x 1 pixels would be made 51 million pixels wide, for a crop in its middle.
LONGEST = 16

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_TIFF_BITS, _TIFF_LARGEST = 258, 281  # BitsPerSample, MaxSampleValue
_PNG_START = b"\x89PNG\r\n\x1a\n"


@cache
def readable_formats() -> tuple[str, ...]:
    """`FORMATS`, and HEIC (the photos of iPhones) where pillow-heif is installed."""
    try:
        import pillow_heif  # type: ignore[import-not-found]
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def open_lazily(content: bytes, formats: tuple[str, ...]) -> Image.Image:
    """The header of an image file of any size. Long texts in a PNG, which Pillow refuses, are passed over.

    Raises:
        Exception: whatever Pillow raises for a file that it cannot read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `reduction_to` is stricter
        try:
            return Image.open(io.BytesIO(content), formats=formats)
        except Image.DecompressionBombError:
            return _open_large(content, formats)
        except ValueError as error:
            if "text" not in str(error).lower() or not content.startswith(_PNG_START):
                raise
        return Image.open(io.BytesIO(without_texts(content)), formats=formats)


def _open_large(content: bytes, formats: tuple[str, ...]) -> Image.Image:
    """What Image.open does, but for its limit of 179 megapixels, which is the process's: `reduction_to` has ours."""
    for factory, accept in (Image.OPEN[name] for name in formats if name in Image.OPEN):
        try:
            if accept is None or accept(content[:16]) is True:
                return factory(io.BytesIO(content), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # of another format
            continue
    raise UnidentifiedImageError("no decoder knows its first bytes")


def without_texts(content: bytes) -> bytes:
    """A PNG without its chunks of text and without its color profile: neither changes what is decoded."""
    kept, position = [content[:8]], 8
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(content[position : position + length + 12])
        position += length + 12
    return b"".join(kept)


def orientation(image: Image.Image) -> int:
    """EXIF orientation of an opened image, 1 (upright) to 8."""
    if "exif" not in image.info or image.format == "TIFF":  # Pillow turns TIFF files itself
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF that nobody can read is no reason to lose the pixels
        return 1
    return value if value in range(1, 9) else 1


def reduction_to(
    size: tuple[int, int], form: str | None, max_pixels: int = MAX_PIXELS, progressive: bool = False
) -> int | None:
    """The smallest of `REDUCTIONS` by which an image of `size` has at most `max_pixels`; None where none does.

    Only a JPEG can be decoded reduced; of a progressive one the decoder holds all coefficients at full size.
    """
    if progressive and size[0] * size[1] > max(max_pixels, _MOST_PROGRESSIVE):
        return None
    for reduction in REDUCTIONS if form in ("JPEG", "MPO") else (1,):
        if -(-size[0] // reduction) * -(-size[1] // reduction) <= max_pixels:
            return reduction
    return None


def upright(image: Image.Image, reduction: int = 1, rgb: bool = True) -> Image.Image:
    """The pixels of an opened image: 8 bits a channel, upright.

    Args:
        image: from Image.open, loaded or not, or made in memory.
        reduction: 1, 2, 4 or 8: a JPEG that is not loaded may be decoded at 1/reduction of its size (in the DCT,
            nearly free). Other formats come at full size; read the scale off the returned image.
        rgb: False keeps gray, palette and alpha as they are.

    Raises:
        Exception: whatever Pillow's decoder raises for a file that is cut or corrupt.
    """
    turn, bits = orientation(image), None
    if reduction > 1 and image.format in ("JPEG", "MPO"):
        width, height = image.size
        image.draft("RGB", (width // reduction, height // reduction))
    if image.format in ("PNG", "TIFF"):
        bits = declared_bits(image)
        wide = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        image.load()
        if wide and image.mode in ("RGB", "RGBA", "LA"):
            _check_high_bytes(image)
    image.load()
    image = to_8_bit(image, bits) if image.mode.startswith("I") or image.mode == "F" else image
    image = to_rgb(image) if rgb else image
    return image.transpose(_UPRIGHT[turn]) if turn != 1 else image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB without loss of range: alpha on white, 16-bit and float scaled to 8 bits."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return to_8_bit(image).convert("RGB")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def to_8_bit(image: Image.Image, bits: int | None = None) -> Image.Image:
    """A gray image of 16 or 32 bits or of floats as 8 bits; `bits` is what its file declares (`declared_bits`)."""
    return Image.fromarray(values_to_8_bit(np.asarray(image), bits))


def values_to_8_bit(pixels: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Values of any type -> uint8.

    Those of `bits` bits are divided by their largest. Where nothing is declared: 16-bit values by 257, floats in
    [0, 1] multiplied by 255, anything wider scaled by its maximum.
    """
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=np.nan, neginf=0.0)
    infinite = np.isnan(values)
    values[infinite] = 0.0
    top = values.max(initial=0.0)
    floats = pixels.dtype.kind == "f"
    if bits is not None and not floats:
        scale = 255.0 / (2**bits - 1)
    elif floats and top <= 1.0:
        scale = 255.0
    elif floats and top <= 255.0:
        scale = 1.0
    elif top <= 65535:
        scale = 1 / 257
        _warn_if_dark(0 if floats else top, 4095, "")
    else:
        scale = 255.0 / top
    values[infinite] = np.inf
    return np.clip(np.round(values * scale), 0, 255).astype(np.uint8)


def declared_bits(image: Image.Image) -> int | None:
    """Bits of a gray PNG's or TIFF's values, of 16 or 32 that each takes, as the file declares them; None if not.

    A camera or a microscope of 12 bits writes them into 16: 4095 is its white.
    """
    if not image.mode.startswith("I"):
        return None
    bits = None
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        bits = _first(tags.get(_TIFF_BITS))
        if largest := _first(tags.get(_TIFF_LARGEST)):
            bits = largest.bit_length()
    elif image.format == "PNG":
        bits = _significant_bits(image)
    return bits if bits is not None and 1 <= bits <= 31 else None


def resized_crop(
    image: Image.Image,
    shortest_edge: int,
    crop: tuple[int, int],
    resample: int = Image.Resampling.BICUBIC,
) -> Image.Image:
    """The shortest edge resized to `shortest_edge` pixels, antialiased, then the center of (height, width) `crop`.

    The center is that of an image that covers the crop: its other edge is at least as long.
    """
    height, width = crop
    image = without_ends(image, max(LONGEST, max(crop) / min(crop)))
    scale = shortest_edge / min(image.size)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    resized = image.resize(size, Image.Resampling(resample))
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def without_ends(image: Image.Image, longest: float) -> Image.Image:
    """The middle of an image that is more than `longest` times as long as it is wide; any other as it is."""
    most = round(longest * min(image.size))
    if max(image.size) <= most:
        return image
    width, height = (min(side, most) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _first(value: object) -> int | None:
    """A tag's value, or the first of several."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _significant_bits(image: Image.Image) -> int | None:
    """What the sBIT chunk of a PNG says, which stands before the pixels; None where it has none or is loaded."""
    file = getattr(image, "fp", None)
    if file is None:
        return None
    try:
        position = file.tell()
    except (OSError, ValueError):  # closed, or a stream
        return None
    try:
        file.seek(0)
        if file.read(8) != _PNG_START:
            return None
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"sBIT":
                return file.read(1)[0]
            if kind in (b"IDAT", b"IEND"):
                return None
            file.seek(length + 4, 1)
        return None
    except (OSError, IndexError):
        return None
    finally:
        file.seek(position)


def _check_high_bytes(image: Image.Image) -> None:
    """Of 16 bits in several channels Pillow keeps the upper 8: a warning where hardly anything is left of them."""
    colors = image.getbands()[: 1 if image.mode == "LA" else 3]
    top = max(np.asarray(image.getchannel(color)).max() for color in colors)
    _warn_if_dark(top, 15, " Of several channels only the upper 8 bits can be read: convert such files first.")


def _warn_if_dark(top: float, largest: int, advice: str) -> None:
    if 0 < top <= largest:
        warnings.warn(
            "an image of 16 bits a value uses 12 of them or fewer, and comes out nearly black: 65535 is white, unless "
            f"its file declares its depth (sBIT of PNG, MaxSampleValue of TIFF).{advice}",
            stacklevel=2,
        )
