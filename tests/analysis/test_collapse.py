# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Figure 2 in numbers: what each regularizer's gradient does as features shrink, and as their rank is lowered."""

import pytest
import torch

from visreg_training.analysis import collapse


@pytest.fixture(scope="module")
def norms():
    """Gradient norms by feature norm, of one draw."""
    return {
        radius: collapse.gradient_norms(collapse.sphere(radius, 0), 0)
        for radius in (1e-8, 1e-5, 1e-4, 1e-3, 1e-2, 10.0)
    }


def test_rows_have_the_feature_norm():
    z = collapse.sphere(1e-4, 1)
    assert z.shape == (2, 64, 512)
    torch.testing.assert_close(z.norm(dim=2), torch.full((2, 64), 1e-4))


def test_visreg_exceeds_sigreg_and_vicreg_at_collapse(norms):
    small = norms[1e-4]
    assert small["visreg"] / small["sigreg"] > 1e6
    assert small["visreg"] / small["vicreg"] > 1e3
    assert small["barlow"] > small["visreg"]
    assert norms[10.0]["visreg"] < norms[10.0]["sigreg"]  # and where nothing has collapsed it is the gentler one


def test_the_terms_behave_as_the_paper_says(norms):
    """Scale tends to 2 / sqrt(V B D); shape grows like 1 / sigma until eps bounds it; SIGReg vanishes like r."""
    limit = 2 / (collapse.V * collapse.B * collapse.D) ** 0.5
    assert norms[1e-5]["scale"] == pytest.approx(limit, rel=1e-4)
    assert norms[1e-3]["shape"] / norms[1e-2]["shape"] == pytest.approx(10, rel=0.1)
    # Far below eps the standardized rows are z / eps, almost 0: sliced Wasserstein's gradient there, over eps.
    assert norms[1e-8]["shape"] == pytest.approx(norms[1e-8]["swd"] / 1e-6, rel=0.02)
    assert norms[1e-3]["sigreg"] / norms[1e-4]["sigreg"] == pytest.approx(10, rel=0.01)


def test_clipping_leaves_the_scale_term_next_to_nothing(norms):
    table = collapse.clip_table({name: [[norms[1e-4][name]] * len(collapse.RADII)] for name in norms[1e-4]})
    visreg, sigreg = table["rows"][0], table["rows"][1]
    assert visreg[0] == "VISReg" and float(visreg[2]) == pytest.approx(1.0)
    assert float(visreg[3]) == pytest.approx(norms[1e-4]["scale"] / norms[1e-4]["visreg"], rel=0.01)
    assert sigreg[1] == sigreg[2]  # below the clipping norm nothing changes


def test_at_low_rank_shape_opens_directions_and_scale_does_not():
    facts = collapse.rank_measures(4, 0)
    assert facts["effective_rank"] == pytest.approx(4, abs=0.2)
    assert facts["opened_shape"] > 1e-3 and facts["opened_visreg"] > 1e-3
    assert facts["opened_scale"] < 1e-9 and facts["opened_vicreg"] < 1e-9
