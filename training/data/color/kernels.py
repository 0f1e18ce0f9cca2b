# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The colors of a batch in three kernels: what contrast adds, all that concerns a pixel alone, and the blur.

Each crop has a row of numbers in a table, which says what is done to it. A program works on one crop, so what does
not apply is skipped by all of its threads.

Loops are `while`: the interpreter of Triton 3.6 has no `range` of values that a kernel computes, with NumPy 2.4.

Legend: N crops, P = H x W pixels; images (N, 3, H, W).
"""

import triton
import triton.language as tl


# Columns of the table. A matrix is nine of them, row by row; `fused.make_table` fills them in this order.
FIRST = tl.constexpr(0)
FIRST_MEAN = tl.constexpr(9)
SECOND = tl.constexpr(18)
SECOND_MEAN = tl.constexpr(27)
HUE = tl.constexpr(36)
JITTER = tl.constexpr(37)
MEAN_BEFORE_HUE = tl.constexpr(38)
MEAN_AFTER_HUE = tl.constexpr(39)
RADIUS = tl.constexpr(40)
THRESHOLD = tl.constexpr(41)
SCALE = tl.constexpr(42)
SHIFT = tl.constexpr(45)
TAPS = tl.constexpr(48)


@triton.jit
def _product(matrix, red, green, blue):
    """The 3 x 3 matrix at a pointer times a color."""
    return (
        tl.load(matrix) * red + tl.load(matrix + 1) * green + tl.load(matrix + 2) * blue,
        tl.load(matrix + 3) * red + tl.load(matrix + 4) * green + tl.load(matrix + 5) * blue,
        tl.load(matrix + 6) * red + tl.load(matrix + 7) * green + tl.load(matrix + 8) * blue,
    )


@triton.jit
def _clamped(value):
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@triton.jit
def _at_hue(turned, base, chroma):
    """The channel whose hue lies 1/2 from `turned`: see `transforms.shift_hue`."""
    distance = tl.abs(turned - tl.floor(turned + 0.5))
    return base + 6 * chroma * tl.minimum(tl.maximum(distance, 1 / 6), 1 / 3)


@triton.jit
def _shifted_hue(red, green, blue, shift):
    """As `transforms.shift_hue`."""
    smallest = tl.minimum(tl.minimum(red, green), blue)
    chroma = tl.maximum(tl.maximum(red, green), blue) - smallest
    turned = ((red + blue - green - smallest) / tl.maximum(chroma, 1e-12) + 1) / 6
    turned = tl.where(blue >= red, turned, -turned) + (shift + 5 / 6)
    base = smallest - chroma
    return (
        _at_hue(turned, base, chroma),
        _at_hue(turned - 1 / 3, base, chroma),
        _at_hue(turned - 2 / 3, base, chroma),
    )


@triton.jit
def _load(image, pixel, inside, pixels):
    """Three channels, 0 to 255."""
    return (
        tl.load(image + pixel, mask=inside, other=0).to(tl.float32),
        tl.load(image + pixels + pixel, mask=inside, other=0).to(tl.float32),
        tl.load(image + 2 * pixels + pixel, mask=inside, other=0).to(tl.float32),
    )


@triton.jit
def _first_half(row, offset, red, green, blue):
    """The affine transform before hue, and hue: values 0 to 255 -> [0, 1]."""
    red, green, blue = _product(row + FIRST, red, green, blue)
    red = _clamped(red + tl.load(offset))
    green = _clamped(green + tl.load(offset + 1))
    blue = _clamped(blue + tl.load(offset + 2))
    if tl.load(row + JITTER) > 0:
        red, green, blue = _shifted_hue(red, green, blue, tl.load(row + HUE))
    return red, green, blue


@triton.jit
def _store_product(offset, matrix, reds, greens, blues, pixels):
    """Stores the matrix at a pointer times the mean color; the sums are still those of each lane."""
    red, green, blue = tl.sum(reds, 0) / pixels, tl.sum(greens, 0) / pixels, tl.sum(blues, 0) / pixels
    red, green, blue = _product(matrix, red, green, blue)
    tl.store(offset, red)
    tl.store(offset + 1, green)
    tl.store(offset + 2, blue)


@triton.jit
def _store_zeros(offset):
    for number in range(3):
        tl.store(offset + number, 0.0)


@triton.jit
def offsets_kernel(images, table, offsets, pixels, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Fills (N, 6): what contrast adds to the colors of a crop, before hue or after it. One program a crop."""
    crop = tl.program_id(0).to(tl.int64)
    image, row, offset = images + crop * 3 * pixels, table + crop * COLUMNS, offsets + crop * 6
    lane, start = tl.arange(0, BLOCK), 0
    reds = tl.zeros((BLOCK,), tl.float32)
    greens = tl.zeros((BLOCK,), tl.float32)
    blues = tl.zeros((BLOCK,), tl.float32)
    if tl.load(row + MEAN_BEFORE_HUE) > 0:
        while start < pixels:
            red, green, blue = _load(image, start + lane, start + lane < pixels, pixels)
            reds += red
            greens += green
            blues += blue
            start += BLOCK
        _store_product(offset, row + FIRST_MEAN, reds, greens, blues, pixels)
        _store_zeros(offset + 3)
    elif tl.load(row + MEAN_AFTER_HUE) > 0:
        _store_zeros(offset)
        tl.debug_barrier()  # the first half reads them
        while start < pixels:
            inside = start + lane < pixels
            red, green, blue = _load(image, start + lane, inside, pixels)
            red, green, blue = _first_half(row, offset, red, green, blue)
            reds += tl.where(inside, red, 0.0)
            greens += tl.where(inside, green, 0.0)
            blues += tl.where(inside, blue, 0.0)
            start += BLOCK
        _store_product(offset + 3, row + SECOND_MEAN, reds, greens, blues, pixels)
    else:
        _store_zeros(offset)
        _store_zeros(offset + 3)


@triton.jit
def _finished(row, channel, value):
    """Solarized from the threshold on, infinity for a crop that is not, and normalized."""
    value = tl.where(value >= tl.load(row + THRESHOLD), 1 - value, value)
    return value * tl.load(row + SCALE + channel) + tl.load(row + SHIFT + channel)


@triton.jit
def pixels_kernel(images, table, offsets, sharp, output, pixels, tiles, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Everything that concerns a pixel alone, `BLOCK` pixels of a crop a program: crops without blur go to `output`,
    finished; the others, in [0, 1], to `sharp` of the same shape.
    """
    program = tl.program_id(0)
    crop = (program // tiles).to(tl.int64)
    image, row, offset = crop * 3 * pixels, table + crop * COLUMNS, offsets + crop * 6
    pixel = (program % tiles) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    red, green, blue = _load(images + image, pixel, inside, pixels)
    red, green, blue = _first_half(row, offset, red, green, blue)
    red, green, blue = _product(row + SECOND, red, green, blue)
    red = _clamped(red + tl.load(offset + 3))
    green = _clamped(green + tl.load(offset + 4))
    blue = _clamped(blue + tl.load(offset + 5))
    if tl.load(row + RADIUS) > 0:
        tl.store(sharp + image + pixel, red, mask=inside)
        tl.store(sharp + image + pixels + pixel, green, mask=inside)
        tl.store(sharp + image + 2 * pixels + pixel, blue, mask=inside)
    else:
        tl.store(output + image + pixel, _finished(row, 0, red), mask=inside)
        tl.store(output + image + pixels + pixel, _finished(row, 1, green), mask=inside)
        tl.store(output + image + 2 * pixels + pixel, _finished(row, 2, blue), mask=inside)


@triton.jit
def _mirrored(index, size):
    """`index` of a border mirrored without its outermost pixel; what lies further out only has to exist."""
    index = tl.abs(index)
    return tl.maximum(tl.where(index >= size, 2 * size - 2 - index, index), 0)


@triton.jit
def blur_kernel(sharp, table, output, height, width, COLUMNS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Blurs, finishes and stores `ROWS` x `BLOCK` pixels of one channel a program; of crops that are not blurred,
    nothing. Each row is blurred sideways once and added to all rows within the radius: nothing in between is stored.
    """
    across, down = tl.cdiv(width, BLOCK), tl.cdiv(height, ROWS)
    program = tl.program_id(0)
    plane = program // (across * down)
    crop = (plane // 3).to(tl.int64)
    row = table + crop * COLUMNS
    radius = tl.load(row + RADIUS).to(tl.int32)
    if radius > 0:
        start = plane.to(tl.int64) * height * width
        top = program // across % down * ROWS
        x = program % across * BLOCK + tl.arange(0, BLOCK)[None, :]
        step = tl.arange(0, ROWS)[:, None]
        inside = x < width
        total = tl.zeros((ROWS, BLOCK), tl.float32)
        y = -radius
        while y < ROWS + radius:
            line = sharp + start + _mirrored(top + y, height) * width
            blurred = tl.load(line + x, mask=inside, other=0.0) * tl.load(row + TAPS)
            distance = 1
            while distance <= radius:
                left = tl.load(line + _mirrored(x - distance, width), mask=inside, other=0.0)
                right = tl.load(line + _mirrored(x + distance, width), mask=inside, other=0.0)
                blurred += tl.load(row + TAPS + distance) * (left + right)
                distance += 1
            away = tl.abs(step - y)
            total += tl.load(row + TAPS + away, mask=away <= radius, other=0.0) * blurred
            y += 1
        value = _finished(row, plane % 3, total)
        tl.store(output + start + (top + step) * width + x, value, mask=inside & (top + step < height))
