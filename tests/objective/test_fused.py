# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels against torch's path in float64: on a GPU, and in Triton's interpreter on the CPU.

The interpreter multiplies in float32: what the parts of tensor cores round only the GPU shows.
"""

import pytest
import torch
from packaging.version import Version

from helpers.interpreter import DEVICE, INTERPRETED, ON_DEVICE, run_in_the_interpreter
from visreg_training.objective import sample_directions, sigreg
from visreg_training.objective.kernels import device
from visreg_training.objective.slices import gaussian_quantiles


triton = pytest.importorskip("triton", reason="the kernels need Triton")
# V, B, D, K
SIZES = [
    (2, 1, 5, 3),
    (1, 2, 17, 1),
    (2, 3, 16, 5),
    (1, 63, 20, 6),
    (2, 64, 33, 4),
    (1, 65, 8, 130),
    (1, 511, 40, 3),
    (1, 1100, 8, 2),
]
ROWS = {
    "gaussian": lambda x: x,
    "ties": lambda x: x.round(),
    "equal images": lambda x: x[:, :1].expand_as(x),
    "zero": lambda x: x * 0,
    "an outlier": lambda x: torch.cat([x[:, 1:], x[:, :1] * 1e6], 1),
    "tiny": lambda x: x * 1e-30,
    "close together": lambda x: 1 + x * 1e-6,
}


@pytest.mark.cpu
def test_in_the_interpreter():
    run_in_the_interpreter(__file__)


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch):
    """The interpreter runs one program after the other."""
    from visreg_training.objective.kernels.fused import rows

    if INTERPRETED:
        monkeypatch.setattr(rows, "NUMBERS", 1 << 14)


def projections(views, batch, dim):
    return torch.randn(views, batch, dim, generator=torch.Generator().manual_seed(0)) * 1.5 + 0.3


def error(value, reference):
    return ((value.cpu().double() - reference).norm() / reference.norm().clamp_min(1e-30)).item()


def both(x, directions, statistic, reference, chunk=0):
    """(value, gradient) by the kernels and by torch in float64."""
    from visreg_training.objective.kernels.fused.loop import accumulate

    ours = accumulate(x.to(DEVICE), directions.to(DEVICE), statistic, True, chunk)
    return ours, device.accumulate(x.double(), directions.double(), reference, True)


def residuals(batch):
    from visreg_training.objective.kernels.fused.rows import Residuals

    quantiles = gaussian_quantiles(batch, torch.device("cpu"), torch.float64)
    return Residuals(quantiles.float().to(DEVICE)), lambda rows: device.Residuals(quantiles, rows)


def characteristic(batch):
    from visreg_training.objective.kernels.fused.rows import Characteristic

    return Characteristic(sigreg._knots(DEVICE), sigreg.STEP), lambda rows: sigreg._characteristic


@ON_DEVICE
@pytest.mark.parametrize("statistic", [residuals, characteristic])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk", [0, 2])
def test_equals_float64(statistic, size, chunk):
    _, batch, dim, slices = size
    directions = sample_directions(dim, slices, torch.Generator().manual_seed(1))
    (value, gradient), (right, slope) = both(projections(*size[:3]), directions, *statistic(batch), chunk)
    assert error(value, right) < 2e-6
    assert error(gradient, slope) < 2e-5


@ON_DEVICE
@pytest.mark.parametrize("mended", [True, False])
@pytest.mark.parametrize("kind", ROWS)
def test_the_residuals_of_awkward_rows(kind, mended, monkeypatch):
    """Each row by itself: the residuals are those of some order that is right to the resolution of the keys."""
    from visreg_training.objective.kernels.fused import rows

    monkeypatch.setattr(rows, "MEND_ABOVE", 0 if mended else 1 << 30)
    p = ROWS[kind](torch.randn(8, 100, generator=torch.Generator().manual_seed(0)))
    statistic, _ = residuals(100)
    slope, sums = p.clone().to(DEVICE), torch.empty(8, device=DEVICE)
    statistic(slope, sums, True)
    quantiles = gaussian_quantiles(100, torch.device("cpu"), torch.float32)
    target = p - slope.cpu()  # the quantile that each value got
    resolution = 0 if mended else (p.amax(1) - p.amin(1)).max().item() / 2**24
    rank = (target[..., None] - quantiles).abs().argmin(-1)
    if kind in ("gaussian", "ties", "zero", "tiny", "equal images", "close together"):
        assert torch.equal(rank.sort(1).values, torch.arange(100).expand(8, -1))
        in_order = p.gather(1, rank.argsort(1))
        assert (in_order.diff(dim=1) >= -resolution).all()
    value = (p.double().sort(1).values - quantiles.double()).square().sum(1)
    torch.testing.assert_close(sums.cpu().double(), value, rtol=1e-5, atol=1e-6)


@ON_DEVICE
@pytest.mark.parametrize("mended", [True, False])
def test_values_that_one_key_cannot_tell_apart_are_put_right(mended, monkeypatch):
    """Two and three in a row, closer than 2^-25 of the range; the first value of each is not the least."""
    from visreg_training.objective.kernels.fused import rows

    monkeypatch.setattr(rows, "MEND_ABOVE", 0 if mended else 1 << 30)
    p = torch.linspace(-1, 1, 100).repeat(3, 1)
    p[0, [10, 3]] = torch.tensor([1e-9, 2e-9])
    p[1, [20, 7, 90]] = torch.tensor([1e-9, 3e-9, 2e-9])
    p[2, [5, 6, 8]] = torch.tensor([3e-9, 2e-9, 1e-9])
    order, quantiles = p.argsort(1), gaussian_quantiles(100, torch.device("cpu"), torch.float32)
    expected = p - torch.empty_like(p).scatter_(1, order, quantiles.expand(3, -1))
    slope, sums = p.clone().to(DEVICE), torch.empty(3, device=DEVICE)
    residuals(100)[0](slope, sums, True)
    right = torch.isclose(slope.cpu(), expected).all(1)
    assert right.tolist() == [mended] * 3
    torch.testing.assert_close(sums.cpu(), expected.square().sum(1))


@ON_DEVICE
@pytest.mark.parametrize("bits", [(0, 0), (2, 0), (2, 2), (0, 3), (1, 6), (0, 7)])
@pytest.mark.parametrize("mended", [True, False])
def test_the_values_do_not_depend_on_where_a_thread_has_its_numbers(bits, mended, monkeypatch):
    from visreg_training.objective.kernels.fused import rows

    monkeypatch.setattr(rows, "MEND_ABOVE", 0 if mended else 1 << 30)
    p = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    order, quantiles = p.argsort(1), gaussian_quantiles(100, torch.device("cpu"), torch.float32)
    expected = p - torch.empty_like(p).scatter_(1, order, quantiles.expand(2, -1))
    monkeypatch.setattr(rows, "thread_bits", lambda *_: bits)
    slope, sums = p.clone().to(DEVICE), torch.empty(2, device=DEVICE)
    residuals(100)[0](slope, sums, True)
    torch.testing.assert_close(slope.cpu(), expected)
    torch.testing.assert_close(sums.cpu(), expected.square().sum(1))


@ON_DEVICE
@pytest.mark.parametrize("mended", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_the_value(bad, mended, monkeypatch):
    from visreg_training.objective.kernels.fused import rows

    monkeypatch.setattr(rows, "MEND_ABOVE", 0 if mended else 1 << 30)
    p, sums = torch.randn(3, 9), torch.empty(3, device=DEVICE)
    p[1, 4] = bad
    residuals(9)[0](p.to(DEVICE), sums, True)
    assert sums.cpu().isfinite().tolist() == [True, False, True]


@ON_DEVICE
@pytest.mark.parametrize("make", [residuals, characteristic])
def test_without_gradient_nothing_is_written_but_the_values(make):
    p, sums = torch.randn(3, 9), torch.empty(2, 3, device=DEVICE)
    quiet = p.clone().to(DEVICE)
    make(9)[0](quiet, sums[0], False)
    make(9)[0](p.clone().to(DEVICE), sums[1], True)
    assert torch.equal(quiet.cpu(), p) and torch.equal(sums[0], sums[1])


@pytest.mark.cpu
@pytest.mark.skipif(INTERPRETED, reason="compiles, which the interpreter does not")
@pytest.mark.skipif(Version(triton.__version__) < Version("3.6"), reason="Triton's compiler is called otherwise")
@pytest.mark.parametrize("batch", [512, 500])
def test_a_thread_has_what_is_exchanged_most_often(batch):
    """Of the 45 exchanges of 512 numbers, 16 in a thread, only 15 are shuffles. Compiling for a GPU needs none."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from visreg_training.objective.kernels.fused import rows, sort

    low, high = rows.thread_bits(9, 1, 1, batch)
    options = {"SIZE": 512, "BITS": 9, "ROWS": 1, "MEND": False, "LOW": low, "HIGH": high, "SLOPE": True}
    types = {"p": "*fp32", "quantiles": "*fp32", "sums": "*fp32", "rows": "i32", "batch": "i32"}
    names = sort.residuals_kernel.arg_names
    multiples = [0, 1, 2] + [names.index("batch")] * (batch % 16 == 0)  # of 16, as Triton finds out at a launch
    source = ASTSource(
        sort.residuals_kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs=options,
        attrs={(index,): [["tt.divisibility", 16]] for index in multiples},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    reductions = 3 * 5  # least, largest and sum of a warp
    assert compiled.asm["ptx"].count("shfl.sync") == 15 * 16 + reductions
