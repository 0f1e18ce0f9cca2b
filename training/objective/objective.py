# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""VISRegObjective: the terms put together, on one process or many.

Shapes: z (V views, B images, D dimension), global views first; directions (D, K slices); N processes.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed import rank_and_world
from ..option import check_options, take
from .checks import check_directions, check_num_global, check_projections, nan_checks
from .gather import gather_batch, mean_over_ranks
from .merged import merged_terms, takes
from .options import ObjectiveOptions
from .regularizers import TABLE
from .slices import Slices, draw_directions, fixed_directions, sample_directions
from .terms import invariance_loss, visreg_terms


DIAGNOSTIC_SLICES = 64  # enough to watch the shape under another regularizer, for 1/64 of the price


class VISRegTerms(NamedTuple):
    """Scalars on z's device. `total` is what to call backward on.

    total: lambda * regularizer + (1 - lambda) * invariance.
    invariance: equation 8.
    center, scale, shape: equations 6, 1 and 2 to 5. With another regularizer than "visreg" they are diagnostics
        without gradient, the shape over 64 fixed directions.
    regularizer: the weighted sum of center, scale and shape, or the value of the regularizer chosen.
    """

    total: Tensor
    invariance: Tensor
    center: Tensor
    scale: Tensor
    shape: Tensor
    regularizer: Tensor


class VISRegObjective(nn.Module):
    """The VISReg objective (arXiv 2606.02572) as a module without parameters: projections in, loss and terms out.

    objective = VISRegObjective()
    for step, views in enumerate(loader):               # views: (V, B, C, H, W), the global ones first
        z = projector(backbone(views.flatten(0, 1))).unflatten(0, views.shape[:2])          # (V, B, D)
        terms = objective(z, num_global=4, step=step)
        terms.total.backward()

    With mu and sigma the mean and the standard deviation over the batch, for each view and dimension:
    center = mean mu^2; scale = mean (1 - sigma)^2; shape = distance of random 1-D projections of the standardized z
    to a Gaussian; invariance = mean (z - mean of the global views)^2;
    total = lambda * (scale + shape + center, weighted) + (1 - lambda) * invariance.

    Args:
        num_slices: K, directions a step (paper: 4096; accurate down to D / 8).
        regularization_weight: lambda in 0..1. 0.9 for ViT-B on ImageNet-1K, 0.8 for ViT-L, 0.6 for small data sets.
        scale_weight, shape_weight, center_weight: 1 : 1 : 1 as published; for long-tailed or low-rank data a heavier
            shape, up to 4.
        eps: added to sigma, 1e-6 as published. It bounds the gradient of shape, which grows like 1 / sigma, and is far
            below any sigma of a network that learns.
        regularizer: "visreg", or a baseline in its place, everything else equal: "sigreg", "swd" (sliced
            Wasserstein), "vicreg", "barlow".
        statistics: with several processes, "global" (default) takes mu, sigma and the sorting over the images of all
            of them, "local" over each process's own.
        slices: with several processes, "shared" (default): K in total, each process sorts its part; "per_rank": K each
            (the published setting).
        seed: with the step it fixes the directions.
        check_finite: refuse NaN and infinite values in z on the CPU. A loop that looks at the loss itself, as ours
            does, leaves it out: the loss is then not finite either.
        group: the process group, the default one if None.

    Call it as `objective(z, num_global, directions=None, *, share=1.0, step=None, gathered=False)`:
        z: (V, B, D), the global views first. Any floating type; computed in float32 at least, outside autocast.
        num_global: number of global views, 1..V.
        directions: (D, K_r) with unit columns, this process's; drawn if None.
        share: only with directions of your own and several processes: N * K_r / K when they are a part of K shared.
        step: draws the directions from (seed, step), the same after a resume. Without it they come from torch's global
            generator, which several processes with shared slices cannot use.
        gathered: z holds the whole batch already, equal on every process.

    Returns VISRegTerms(total, invariance, center, scale, shape, regularizer), scalars; on several processes the
    values are those of the whole batch on each of them. Under DDP (mean of gradients), "global" and "shared" give the
    loss and the gradient of one process with the whole batch, as far as z itself does not depend on the split (batch
    norm before z: gather the features, project all of them and pass `gathered=True`).

    At collapse: as sigma goes to 0 the gradient of scale keeps a constant length and that of shape grows like
    1 / (sigma + eps), at most 1 / eps; at sigma = 0 exactly that of scale is 0, the subgradient of the norm. Value and
    gradient stay finite throughout. The shape term can be differentiated once only (RuntimeError).

    Raises:
        ValueError: for an option out of range, z that is not a finite (V, B >= 2, D >= 1), num_global out of 1..V,
            directions that do not fit. NaN in z is looked for on the CPU only: on an accelerator that would be a
            synchronization a step, so check the loss there.
    """

    def __init__(
        self,
        num_slices: int = ObjectiveOptions.num_slices,
        regularization_weight: float = ObjectiveOptions.regularization_weight,
        scale_weight: float = ObjectiveOptions.scale_weight,
        shape_weight: float = ObjectiveOptions.shape_weight,
        center_weight: float = ObjectiveOptions.center_weight,
        eps: float = ObjectiveOptions.eps,
        *,
        regularizer: str = ObjectiveOptions.regularizer,
        statistics: str = ObjectiveOptions.statistics,
        slices: str = ObjectiveOptions.slices,
        seed: int = 0,
        check_finite: bool = True,
        group: dist.ProcessGroup | None = None,
    ):
        super().__init__()
        self.num_slices, self.regularization_weight, self.eps = num_slices, regularization_weight, eps
        self.scale_weight, self.shape_weight, self.center_weight = scale_weight, shape_weight, center_weight
        self.regularizer, self.statistics, self.slices = regularizer, statistics, slices
        check_options(take(ObjectiveOptions, self))
        self.seed, self.group, self.check_finite = seed, group, check_finite
        self._regularizer_loss = TABLE[regularizer].load()

    def extra_repr(self) -> str:
        """What is printed between the brackets of repr."""
        names = ("num_slices", "regularization_weight", "regularizer", "statistics", "slices")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def draw_directions(
        self,
        dim: int,
        step: int | None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Slices:
        """This process's directions of a step, from (seed, step, rank): Slices(directions (D, K_r), share).

        Without a step they come from torch's global generator, which N processes with shared slices cannot use.
        """
        rank, world = rank_and_world(self.group)
        if step is None:
            if world > 1 and self.slices == "shared":
                raise ValueError("shared slices on several processes are drawn from (seed, step): pass step=")
            return Slices(sample_directions(dim, self.num_slices, device=device, dtype=dtype), 1.0)
        return draw_directions(
            dim,
            self.num_slices,
            self.seed,
            step,
            slices=self.slices,
            rank=rank,
            world=world,
            device=device,
            dtype=dtype,
        )

    def forward(
        self,
        z: Tensor,
        num_global: int,
        directions: Tensor | None = None,
        *,
        share: float = 1.0,
        step: int | None = None,
        gathered: bool = False,
    ) -> VISRegTerms:
        """The terms of z (V, B, D); the class documents the arguments."""
        if self.check_finite or torch.compiler.is_compiling():  # compiled, the values are not looked at anyway
            return self._terms(z, num_global, directions, share, step, gathered)
        with nan_checks(False):
            return self._terms(z, num_global, directions, share, step, gathered)

    def _terms(
        self, z: Tensor, num_global: int, directions: Tensor | None, share: float, step: int | None, gathered: bool
    ) -> VISRegTerms:
        check_projections(z)
        check_num_global(num_global, z.shape[0])
        if self.statistics == "global" and not gathered:
            z = gather_batch(z, self.group)
        if directions is None:
            directions, share = self.draw_directions(z.shape[2], step, z.device)
        check_directions(directions, z)
        combine = self._visreg if self.regularizer == "visreg" else self._baseline
        terms = combine(z, num_global, directions, share)
        if rank_and_world(self.group)[1] == 1:
            return VISRegTerms(*terms)
        return VISRegTerms(*mean_over_ranks(torch.stack(terms), self.group).unbind())

    def _total(self, regularizer: Tensor, invariance: Tensor) -> Tensor:
        return self.regularization_weight * regularizer + (1 - self.regularization_weight) * invariance

    def _visreg(self, z: Tensor, num_global: int, directions: Tensor, share: float) -> tuple[Tensor, ...]:
        """The six terms in the order of VISRegTerms."""
        if takes(z):
            weights = (self.regularization_weight, self.scale_weight, self.shape_weight, self.center_weight, share)
            return merged_terms(z, directions, num_global, self.eps, [float(weight) for weight in weights])
        invariance = invariance_loss(z, num_global)
        center, scale, shape = visreg_terms(z, directions, self.eps)
        shape = share * shape
        regularizer = self.scale_weight * scale + self.shape_weight * shape + self.center_weight * center
        total = self._total(regularizer, invariance)
        return total, invariance, center, scale, shape, regularizer

    def _baseline(self, z: Tensor, num_global: int, directions: Tensor, share: float) -> tuple[Tensor, ...]:
        """The six terms with another regularizer; center, scale and shape without gradient."""
        invariance = invariance_loss(z, num_global)
        regularizer = self._regularizer_loss(z, directions)
        if TABLE[self.regularizer].takes_directions:
            regularizer = share * regularizer
        with torch.no_grad():
            few = fixed_directions(z.shape[2], DIAGNOSTIC_SLICES, z.device, torch.float32)
            diagnostics = visreg_terms(z, few, self.eps)
        total = self._total(regularizer, invariance)
        return total, invariance, *diagnostics, regularizer
