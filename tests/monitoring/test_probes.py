# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The online probes on features whose classes are known. That they change nothing in a run: test_resume.py."""

import copy

import torch

from visreg_training.monitoring.probes import OnlineProbes


CLASSES, WIDTH, VIEWS = 3, 8, 2


def batch(draws, images=30):
    """Features around a corner for each class: blocks (Vg, B, 2d), features (Vg, B, d), labels (B,)."""
    labels = torch.randint(CLASSES, (images,), generator=draws)
    corners = 3 * torch.eye(CLASSES, WIDTH)[labels]
    features = corners + 0.5 * torch.randn(VIEWS, images, WIDTH, generator=draws)
    return torch.cat([features, features.flip(2)], dim=2), features, labels


def trained(batches):
    probes = OnlineProbes(WIDTH, CLASSES, "cpu", seed=0, memory=64)
    for one in batches:
        probes.observe(*one)
    return probes


def test_they_learn_what_is_there_and_answer_before_they_learn():
    draws = torch.Generator().manual_seed(0)
    first = batch(draws)
    probes = trained([first])
    before = probes.read()
    assert before["probe_knn"] == (first[2] == 0).float().mean()  # with an empty memory everything is class 0
    for _ in range(30):
        probes.observe(*batch(draws))
    probes.read()
    probes.observe(*batch(draws))
    assert min(probes.read().values()) > 0.95
    blocks, features, labels = batch(draws, 200)
    linear, nearest = probes.answer(blocks[0], features[0])  # single images of a held-out split
    assert (linear == labels).float().mean() > 0.95 and (nearest == labels).float().mean() > 0.95


def test_images_without_label_or_finite_features_leave_no_trace():
    draws = torch.Generator().manual_seed(0)
    good = [batch(draws) for _ in range(3)]
    probes = trained(good)
    state = copy.deepcopy(probes.state_dict())
    blocks, features, labels = batch(draws)
    blocks[0, 4, 1], features[1, 5, 0] = torch.nan, torch.inf
    labels[:] = -1
    labels[4:6] = 1
    probes.observe(blocks, features, labels)
    assert (probes.bank_labels >= 0).sum() == 64 - 30  # 30 places of the memory, none with a class
    assert probes.read()["probe_linear"] == trained(good).read()["probe_linear"]
    assert all(value.isfinite().all() for value in probes.probe.state_dict().values())
    again = OnlineProbes(WIDTH, CLASSES, "cpu", seed=1, memory=64)
    assert again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(again.answer(*SAMPLE), trained(good).answer(*SAMPLE), strict=True))


def test_a_state_of_another_shape_is_not_taken():
    draws = torch.Generator().manual_seed(0)
    probes, before = (
        OnlineProbes(WIDTH, CLASSES, "cpu", seed=0, memory=64),
        OnlineProbes(WIDTH, CLASSES, "cpu", seed=0),
    )
    for other in (OnlineProbes(WIDTH + 1, CLASSES, "cpu", seed=1, memory=64), before):
        assert not probes.load_state_dict(other.state_dict())
    untouched = OnlineProbes(WIDTH, CLASSES, "cpu", seed=0, memory=64)
    one = batch(draws)
    probes.observe(*one)
    untouched.observe(*one)
    assert all(torch.equal(a, b) for a, b in zip(probes.answer(*SAMPLE), untouched.answer(*SAMPLE), strict=True))


SAMPLE = tuple(part[0] for part in batch(torch.Generator().manual_seed(9), 50)[:2])
