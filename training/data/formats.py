# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Which files are images where the suffix does not say so: by their first bytes, and by formats that are optional.

Every scan goes by the suffix first (`decode.has_image_suffix`), so that a folder of 100,000 photos is listed and none
of its files opened. Only a suffix that is known for nothing, or none at all, makes a scan read a file's first bytes.
"""

import os
import stat
from functools import cache

from PIL import Image

from ..bounded import without_waiting


HEIF_SUFFIXES = (".heic", ".heif", ".hif")

_FIRST_BYTES = 32  # that tell a format
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
# Known for something else than images that are read: not opened. Raw files of cameras begin like TIFF.
_OTHER_SUFFIXES = """
    .txt .text .md .rst .html .htm .xml .json .jsonl .yaml .yml .toml .ini .cfg .csv .tsv .xls .xlsx .doc .docx .pdf
    .py .ipynb .sh .js .css .db .sqlite .lock .log .md5 .sha256 .url .lnk .aae .xmp .thm
    .svg .eps .ai .psd .xcf .tga .dds .exr .hdr .dcm .dng .cr2 .cr3 .nef .nrw .arw .orf .rw2 .raf .pef .srw .3fr .iiq
    .npy .npz .mat .h5 .hdf5 .pkl .pickle .pt .pth .ckpt .bin .safetensors .onnx .parquet .arrow .tfrecord .idx
    .zip .rar .7z .tar .tgz .gz .bz2 .xz .zst .mp4 .m4v .mov .avi .mkv .webm .mpg .mp3 .m4a .wav .flac
"""


@cache
def other_suffixes() -> frozenset[str]:
    """Lower-case suffixes of files that are no images, so that nobody has to open them to know."""
    return frozenset(_OTHER_SUFFIXES.split())


@cache
def register_optional_formats() -> tuple[str, ...]:
    """Makes Pillow read HEIC (the photos of iPhones) where pillow-heif is installed.

    Returns:
        Pillow's names of the formats that were added.
    """
    try:
        import pillow_heif
    except ImportError:
        return ()
    pillow_heif.register_heif_opener()
    Image.register_extensions("HEIF", list(HEIF_SUFFIXES))
    return ("HEIF",)


def is_image_start(first: bytes) -> bool:
    """Whether these are the first bytes of an image of a format that is read."""
    if first.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")):
        return True
    if first.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):  # JPEG 2000
        return True
    if first.startswith(b"RIFF"):
        return first[8:12] == b"WEBP"
    if first.startswith(b"BM"):  # the size of the header that follows tells it from a text
        return int.from_bytes(first[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    if first[4:8] == b"ftyp":
        return first[8:12] in _AVIF_BRANDS or (first[8:12] in _HEIF_BRANDS and bool(register_optional_formats()))
    return first[:1] == b"P" and first[1:2] in b"123456" and first[2:3].isspace() and first[3:4] in b"0123456789#"


def is_image_file(path: str) -> bool:
    """Whether a regular file begins like an image; False for one that cannot be opened."""
    try:
        with open(path, "rb", opener=without_waiting) as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and is_image_start(file.read(_FIRST_BYTES))
    except OSError:
        return False


def shown(name: str) -> str:
    """A file's name for a message: bytes that are no text, and what would break the line, are escaped."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def is_text(name: str) -> bool:
    """Whether a file's name can be stored as text: one that is not UTF-8 cannot."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
