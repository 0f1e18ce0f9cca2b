# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Files as nobody should write them: each function takes what is right and a `random.Random`, and gives it back wrong.

    what = mutate_file(path, random.Random("7/resume/12"))      # "state.json: value"

The same numbers make the same file. Values are those that broke something before, here or elsewhere.
"""

import io
import json
import os
import random
import shutil
import struct
import tarfile
from pathlib import Path
from typing import Any

import yaml


IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
LONG = "x" * 5000
_LARGEST = 1 << 26  # bytes of a file that is read to be changed


def mutate_file(path: Path, draws: random.Random) -> str:
    """Change one file in its place; returns what was done."""
    if path.stat().st_size > _LARGEST:  # it is sparse already
        return f"{path.name}: nothing more"
    if draws.random() < 0.08:
        return f"{path.name}: {_replace(path, draws)}"
    before = path.read_bytes()
    kind = draws.choice(["bytes", "content", "content", "content"])
    change = mutate_bytes if kind == "bytes" else _CONTENT.get(path.suffix, mutate_bytes)
    try:
        after = change(before, draws)
    except Exception:  # it was mutated before, and is no JSON, tar, ... any more
        after = mutate_bytes(before, draws)
    path.write_bytes(after)
    return f"{path.name}: {change.__name__.removeprefix('mutate_')}"


def _replace(path: Path, draws: random.Random) -> str:
    """Something else in the place of a file."""
    what = draws.choice(["gone", "empty", "folder", "dangling link", "loop", "link", "pipe", "sparse", "unreadable"])
    if what == "empty":
        path.write_bytes(b"")
    elif what == "sparse":  # 3 GB that take no room on the disk
        with path.open("r+b") as file:
            file.truncate(3 << 30)
    elif what == "unreadable":
        path.chmod(0)
    else:
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "pipe":
            os.mkfifo(path)
        elif what != "gone":
            goals = {"dangling link": "nowhere", "loop": path.name, "link": "/etc/hostname"}
            path.symlink_to(goals[what])
    return what


def mutate_bytes(data: bytes, draws: random.Random) -> bytes:
    """Bits, cuts, copies, zeros: one to three of them."""
    content = bytearray(data)
    for _ in range(draws.randint(1, 3)):
        start = draws.randrange(len(content) + 1)
        end = min(len(content), start + draws.choice([1, 1, 4, 64, 1024]))
        what = draws.randrange(7)
        if what == 0 and content:
            content[min(start, len(content) - 1)] ^= 1 << draws.randrange(8)
        elif what == 1:
            del content[start:]
        elif what == 2:
            del content[start:end]
        elif what == 3:
            content[start:start] = draws.randbytes(draws.choice([1, 8, 300]))
        elif what == 4:
            content[start:start] = content[start:end] * draws.choice([1, 50])
        elif what == 5:
            content[start:end] = bytes(end - start)
        else:
            content[start:end] = b"\xff" * (end - start)
    return bytes(content)


def odd_value(draws: random.Random) -> Any:
    """A value that belongs nowhere."""
    return draws.choice(
        [
            None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 10**30, 1e-300, 1e308, -0.5, 0.5, float("nan"),
            float("inf"), float("-inf"), "", " ", "0", "none", "auto", "nan", "../..", "..", "/", "/etc/passwd", "a/b",
            "--overwrite", "\0", "\u202e", "é" * 20, "\ud800", LONG, "<script>alert(1)</script>", "[x](javascript:1)",
            "{{ 1 }}", "a\nb: c", [], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"b": []}}, list(range(300)),
            "2026-01-01", "org/name", "*", "**/*", "no",
        ]
    )  # fmt: skip


def mutate_value(content: Any, draws: random.Random) -> Any:
    """A JSON value with one to three of its parts changed: other values, other types, gone, doubled, deep."""
    content = json.loads(json.dumps(content))
    for _ in range(draws.choice([1, 1, 1, 2, 3])):
        spots = _spots(content)
        if not spots:
            return odd_value(draws)
        owner, key = draws.choice(spots)
        what = draws.randrange(10)
        if what < 5:
            owner[key] = odd_value(draws)
        elif what == 5:
            del owner[key]
        elif what == 6 and isinstance(owner, dict):
            owner[draws.choice([f"{key}_", key.upper(), "", LONG, "__class__", "1"])] = owner.pop(key)
        elif what == 7:
            owner[key] = _near(owner[key], draws)
        elif what == 8:
            owner[key] = draws.choice([[owner[key]], {"value": owner[key]}, str(owner[key]), _deep(draws)])
        elif isinstance(owner, dict):
            owner[draws.choice(["extra", "0", "auto_map", "trust_remote_code", "dtype"])] = odd_value(draws)
        else:
            owner.extend(owner[:50])
    return content


def _spots(content: Any) -> list[tuple[Any, Any]]:
    """(owner, key) of every value inside, an outer one as likely as all that is in it."""
    found: list[tuple[Any, Any]] = []
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        inner = _spots(content[key])[:40]
        found += [(content, key)] * max(1, len(inner) // 2) + inner
    return found


def _near(value: Any, draws: random.Random) -> Any:
    """Almost right."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return draws.choice([value + 1, value - 1, -value, value * 2, value * 1000, float(value), str(value)])
    if isinstance(value, float):
        return draws.choice([-value, value * 1e6, value / 1e6, int(value), str(value)])
    if isinstance(value, str):
        return draws.choice([value + "x", value[:-1], value.upper(), value * 3, f"{value}/../{value}", [value]])
    return draws.choice([list(value), {}, len(value)])


def _deep(draws: random.Random) -> Any:
    value: Any = 1
    for _ in range(draws.choice([10, 100, 900])):
        value = [value] if draws.random() < 0.9 else {"a": value}
    return value


def mutate_json(data: bytes, draws: random.Random) -> bytes:
    if draws.random() < 0.03:
        return draws.choice(
            [b"[" * 100_000, b'{"a":' * 5000, b"null", b"NaN", b'"x"', b"[]", b"{}", b"1" * 6000, b"\xef\xbb\xbf{}"]
        )
    return json.dumps(mutate_value(json.loads(data), draws), indent=1).encode("utf-8", "surrogatepass")


def mutate_lines(data: bytes, draws: random.Random) -> bytes:
    """JSON lines, one of them changed."""
    lines = data.splitlines() or [b"{}"]
    number = draws.randrange(len(lines))
    lines[number] = mutate_json(lines[number], draws).replace(b"\n", b"")
    return b"\n".join(lines) + b"\n"


def mutate_yaml(data: bytes, draws: random.Random) -> bytes:
    if draws.random() < 0.1:
        bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n".encode()
            for before, after in zip("abcdefgh", "bcdefghi", strict=True)
        )
        odd = [
            bomb,
            b"[" * 3000,
            b"a: &a {b: *a}",
            b"!!python/object/apply:os.getcwd []",
            b"- 1\n- 2\n",
            b"a: 1\na: 2\n",
        ]
        return draws.choice(
            [*odd, b"? [1]\n: 2\n", b"2026-13-45: 1", b"epochs: !!binary ab\n", b"seed: 0x" + b"f" * 300]
        )
    changed = mutate_value(yaml.safe_load(data), draws)
    return yaml.safe_dump(changed, sort_keys=False, allow_unicode=draws.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def mutate_card(data: bytes, draws: random.Random) -> bytes:
    """A README whose front matter is changed."""
    parts = data.split(b"---\n", 2)
    if len(parts) < 3 or draws.random() < 0.1:
        return mutate_bytes(data, draws)
    return b"---\n".join([parts[0], mutate_yaml(parts[1], draws), parts[2]])


def mutate_safetensors(data: bytes, draws: random.Random) -> bytes:
    """The header's length, its JSON, or the numbers."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = data[8 : 8 + size], bytearray(data[8 + size :])
    what = draws.randrange(6)
    if what == 0:
        size = draws.choice([0, 1, size - 1, size + 1, 2**32, 2**63, 2**64 - 1, len(data) * 2])
        return struct.pack("<Q", size) + data[8:]
    if what == 1:
        special = [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\x00\x00\x00\x00"]
        start = draws.randrange(max(1, len(body) // 4)) * 4
        body[start : start + 4] = draws.choice(special)
        return data[: 8 + size] + bytes(body)
    if what == 2:
        return data[: 8 + size] + mutate_bytes(bytes(body), draws)
    changed = _odd_header(json.loads(header), draws) if what < 5 else mutate_value(json.loads(header), draws)
    text = json.dumps(changed).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _odd_header(header: dict, draws: random.Random) -> dict:
    """One tensor with another type, shape, place or name."""
    name = draws.choice(sorted(header))
    entry = header[name]
    if "shape" not in entry:
        header[name] = {key: draws.choice(["x", LONG, "[", "{}"]) for key in [*entry, "ids"]}
        return header
    what = draws.randrange(6)
    if what == 0:
        entry["dtype"] = draws.choice(["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X", "F4"])
    elif what == 1:
        odd = [
            [],
            [0],
            [1],
            entry["shape"][::-1],
            [2**40],
            [-1],
            [1, *entry["shape"]],
            entry["shape"] * 2,
            [10**9] * 9,
        ]
        entry["shape"] = draws.choice(odd)
    elif what == 2:
        entry["data_offsets"] = draws.choice(
            [[0, 0], [4, 0], [0, 4], [-4, 4], [0, 2**50], [0], entry["data_offsets"][::-1]]
        )
    elif what == 3:
        odd_names = [
            "",
            "blocks.999999999.x",
            "encoder.layer.99.norm1.weight",
            f"{name}.x",
            name.replace(".0.", ".7."),
            LONG,
        ]
        header[draws.choice(odd_names)] = header.pop(name)
    elif what == 4:
        header[f"{name}_copy"] = entry
    else:
        del header[name]
    return header


def mutate_image(data: bytes, draws: random.Random) -> bytes:
    """Bytes of its header or anywhere; sizes that cannot be, frames without end, another format under the name."""
    what = draws.randrange(5)
    if what == 0:
        return mutate_bytes(data[:64], draws) + data[64:]
    if what == 1:
        return draws.choice(_odd_images())
    if what == 2 and data[:4] == b"\x89PNG":
        sides = struct.pack(
            ">II", *draws.choice([(0, 0), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (200_000, 1), (60_000, 60_000)])
        )
        return data[:16] + sides + data[24:]
    if what == 3:
        return data * draws.choice([2, 40])
    return mutate_bytes(data, draws)


def _odd_images() -> list[bytes]:
    """What is named as an image and is none, or a rare one."""
    from PIL import Image

    made = [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ]
    made += [
        b"P6\n99999 99999\n255\n",
        b"P1\n-1 -1\n",
        b"#!/bin/sh\ntouch touched\n",
        b"\x1f\x8b\x08",
        b"GIF89a",
        b"BM",
    ]
    for mode, format in (("1", "PNG"), ("P", "GIF"), ("I;16", "PNG"), ("LA", "PNG"), ("F", "TIFF"), ("CMYK", "JPEG")):
        for size in ((1, 1), (3000, 1), (1, 3000)):
            file = io.BytesIO()
            Image.new(mode, size).save(file, format)
            made.append(file.getvalue())
    return made


def mutate_tar(data: bytes, draws: random.Random) -> bytes:
    """Members renamed, changed, linked, doubled, or gone."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers() if member.isfile()]
    number = draws.randrange(len(members))
    member, content = members[number]
    what = draws.randrange(5)
    if what == 0:
        odd = [
            "../out.jpg",
            "/etc/passwd",
            "",
            "x",
            ".jpg",
            "a.b.c.jpg",
            LONG[:200] + ".jpg",
            "é.jpg",
            "a/",
            "s0.pth",
            "s0.pyd",
        ]
        member.name = draws.choice([*odd, "s0.npy", "s0.pickle", "s0.json", "__key__.jpg", "s0.cls", "\udcff.jpg"])
    elif what == 1:
        member.type = draws.choice(
            [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"?"]
        )
        member.linkname, content = draws.choice(["/etc/passwd", "../x", member.name]), b""
    elif what == 2:
        content = (
            mutate_image(content, draws)
            if member.name.endswith(IMAGES)
            else draws.choice([b"", b"x", b"-5", b"9" * 400, b"\xff"])
        )
    elif what == 3:
        members += members[: number + 1]
    else:
        members = members[number:]
    members = [(one, content if one is member else own) for one, own in members]
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=draws.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), errors="surrogateescape"
    ) as tar:
        for one, own in members:
            one.size = len(own)
            tar.addfile(one, io.BytesIO(own))
    return file.getvalue()


def mutate_parquet(data: bytes, draws: random.Random) -> bytes:
    """Columns of other types, names and contents."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(data))
    images, labels = table.column("image").to_pylist(), table.column("label").to_pylist()
    meta = table.schema.metadata or {}
    what, number = draws.randrange(7), draws.randrange(len(images))
    if what == 0:
        odd = [
            None,
            {"bytes": None, "path": "/etc/hostname"},
            {"bytes": b"", "path": None},
            {"bytes": None, "path": "../x.png"},
        ]
        images[number] = draws.choice([*odd, {"bytes": None, "path": None}, {"bytes": b"x" * 99, "path": LONG}])
    elif what == 1:
        images[number] = {"bytes": mutate_image(images[number]["bytes"], draws), "path": "x.png"}
    elif what == 2:
        labels[number] = draws.choice([None, -1, -7, 5, 2**40])
    elif what == 3:
        kinds = [
            ["x"] * len(labels),
            [1.5] * len(labels),
            [[0]] * len(labels),
            [None] * len(labels),
            [{"a": 1}] * len(labels),
        ]
        labels = draws.choice([*kinds, [float("nan")] * len(labels), [str(n) for n in range(len(labels))]])
    elif what == 4:
        meta = draws.choice(
            [{}, {b"huggingface": b"{"}, {b"huggingface": mutate_json(meta.get(b"huggingface", b"{}"), draws)}]
        )
    elif what == 5:
        images, labels = images[:number], labels[:number]
    columns = {"image": pyarrow.array(images), "label": pyarrow.array(labels)}
    if what == 6:
        odd_columns = [
            {"image": columns["label"]},
            {"x": columns["image"]},
            {**columns, "image2": columns["image"]},
            {"image": pyarrow.array(["a"] * len(images))},
        ]
        columns = draws.choice(odd_columns)
        meta = {}
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(meta), file)
    return file.getvalue()


def copy_tree(source: Path, target: Path) -> None:
    """A folder or a file, to be changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


_CONTENT = {
    ".json": mutate_json,
    ".jsonl": mutate_lines,
    ".yaml": mutate_yaml,
    ".md": mutate_card,
    ".safetensors": mutate_safetensors,
    ".tar": mutate_tar,
    ".parquet": mutate_parquet,
    **dict.fromkeys(IMAGES, mutate_image),
}
