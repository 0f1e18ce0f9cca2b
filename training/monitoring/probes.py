# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Online probes: how linearly readable, and how clustered, the features are while they are being learned.

Vg global views, B images of the whole batch, d width of the backbone, n other images. The probes see detached
features, draw from generators of their own and have an optimizer of their own: pretraining with and without them is
bit-identical.

They learn from the training images, and answer for each batch before they learn from it; held_out.py also asks them
about other images.
"""

import torch
from torch import nn
from torch.nn import functional

from ..backbones import wrap_backbone
from ..errors import UserError
from ..evaluation.nearest import vote
from ..loop.checkpoint import RunState
from ..loop.run import Run
from ..run_folder import Json
from ..seeding import torch_generator


class OnlineProbes:
    """The linear probe of the paper, LayerNorm + Linear on the CLS tokens of the last two blocks (AdamW, lr 2e-2,
    weight decay 1e-6: method, online probe), and kNN over recent images.

    The kNN compares what `AutoModel` returns (CLS after the final norm), averaged over the global views.

    Args:
        width: d.
        num_classes: labels are 0 .. num_classes - 1; -1 marks an image without one.
        memory: images that the kNN looks back on.
        neighbors: k.
        temperature: of the kNN's exponential weights (DINO: 0.07).
        read_width: columns that the linear probe reads; default: 2 d. Of other families it reads the feature.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        device,
        seed: int,
        memory=4096,
        neighbors=20,
        temperature=0.07,
        read_width: int | None = None,
    ):
        generator = torch_generator("online_probe", seed)
        read_width = read_width or 2 * width
        head = nn.utils.skip_init(nn.Linear, read_width, num_classes)
        nn.init.normal_(head.weight, std=0.01, generator=generator)
        nn.init.zeros_(head.bias)
        self.probe = nn.Sequential(nn.LayerNorm(read_width), head).to(device)
        self.optimizer = torch.optim.AdamW(self.probe.parameters(), lr=2e-2, weight_decay=1e-6, fused=True)
        self.num_classes = num_classes
        self.neighbors, self.temperature = neighbors, temperature
        self.bank = torch.zeros(memory, width, device=device)
        self.bank_labels = torch.full((memory,), -1, device=device)
        self.cursor = 0
        self.score = torch.zeros(3, device=device)  # right by linear, right by kNN, labeled images

    @torch.no_grad()
    def observe(self, blocks: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Answers, scores, then learns; no synchronization. Images whose features are not finite are left out.

        Args:
            blocks: (Vg, B, 2d), CLS tokens of the last two blocks, detached.
            features: (Vg, B, d), CLS after the final norm, detached.
            labels: (B,).
        """
        sums = blocks.sum((0, 2), dtype=torch.float32) + features.sum((0, 2), dtype=torch.float32)
        labels = labels.masked_fill(sums - sums != 0, -1)
        blocks, features = blocks.float().nan_to_num(0, 0, 0), features.float().nan_to_num(0, 0, 0)
        known = labels >= 0
        with torch.enable_grad():
            logits = self.probe(blocks)
            targets = labels.clamp(min=0).expand(len(blocks), -1)
            losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            loss = (losses.view_as(targets) * known).sum() / (known.sum() * len(blocks)).clamp(min=1)
        directions = functional.normalize(features.mean(0), dim=1)
        right = torch.stack([logits.mean(0).argmax(1) == labels, self.nearest(directions) == labels, known])
        self.score += (right & known).sum(1)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        directions, labels = directions[-len(self.bank) :], labels[-len(self.bank) :]
        where = (torch.arange(len(labels), device=labels.device) + self.cursor) % len(self.bank)
        self.bank[where], self.bank_labels[where] = directions, labels
        self.cursor = (self.cursor + len(labels)) % len(self.bank)

    @torch.no_grad()
    def answer(self, blocks: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes (n,) by the linear probe and by kNN, of images with `blocks` (n, 2d) and `features` (n, d)."""
        nearest = self.nearest(functional.normalize(features.float(), dim=1))
        return self.probe(blocks.float()).argmax(1), nearest

    def nearest(self, directions: torch.Tensor) -> torch.Tensor:
        """The class that the weighted nearest images of the memory vote for: (B,)."""
        similarity = directions @ self.bank.T
        similarity = similarity.masked_fill(self.bank_labels < 0, -torch.inf)
        top, index = similarity.topk(min(self.neighbors, len(self.bank)), dim=1)
        return vote(top, self.bank_labels[index].clamp(min=0), self.temperature, self.num_classes).argmax(1)

    def read(self) -> dict[str, torch.Tensor]:
        """Accuracies since the last call, on the device."""
        accuracy = self.score[:2] / self.score[2].clamp(min=1)
        self.score = torch.zeros_like(self.score)
        return {"probe_linear": accuracy[0], "probe_knn": accuracy[1]}

    def state_dict(self) -> Json:
        return {
            "probe": self.probe.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "bank": self.bank,
            "bank_labels": self.bank_labels,
            "cursor": self.cursor,
        }

    def load_state_dict(self, state: Json) -> bool:
        """Takes over a state that fits; returns whether it did."""
        own = [*self.probe.state_dict().values(), self.bank]
        other = [*state["probe"].values(), state["bank"]]
        if [value.shape for value in own] != [value.shape for value in other]:
            return False
        self.probe.load_state_dict(state["probe"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.bank.copy_(state["bank"])
        self.bank_labels.copy_(state["bank_labels"])
        self.cursor = state["cursor"]
        return True


def build_probes(run: Run, state: RunState) -> OnlineProbes | None:
    """Online probes where there are labels, or None; with their state in the checkpoint, if it fits."""
    if not run.probed:
        return None
    backbone, classes = wrap_backbone(run.model), len(run.source.label_names)
    probes = OnlineProbes(
        backbone.width, classes, run.accelerator.device, seed=run.options.seed, read_width=backbone.probe_width
    )
    try:
        fits = not state.probe or probes.load_state_dict(state.probe)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        path = run.folder.checkpoint(state.step) / "probe.pt"
        raise UserError(f"{path} is not what a run writes: delete it, and the probes begin anew") from error
    if not fits and run.is_main:
        print("probes   of another shape in the checkpoint: they begin anew, and change nothing in the run")
    return probes
