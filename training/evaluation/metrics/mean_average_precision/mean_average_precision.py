# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Mean average precision of rankings (retrieval), as an `evaluate` module. Stands by itself.

q queries, n images that are ranked for each.
"""

import datasets
import evaluate
import numpy as np


def average_precisions(scores, relevant) -> np.ndarray:
    """(q,) mean over the relevant images of the precision at their rank, from scores and relevance (q, n).

    Images of the same score are taken together, as scikit-learn does; nan for a query without a relevant image.
    """
    scores, relevant = np.asarray(scores, float), np.asarray(relevant, float)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked, hits = np.take_along_axis(scores, order, 1), np.take_along_axis(relevant, order, 1)
    found = hits.cumsum(1)
    precision = found / np.arange(1, scores.shape[1] + 1)
    # The precision of an image is that at the end of the run of images with its score.
    ends = np.concatenate([ranked[:, 1:] != ranked[:, :-1], np.ones((len(ranked), 1), bool)], axis=1)
    places = np.where(ends, np.arange(scores.shape[1]), scores.shape[1])
    last = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
    total = found[:, -1]
    with np.errstate(invalid="ignore"):
        return (np.take_along_axis(precision, last, 1) * hits).sum(1) / np.where(total > 0, total, np.nan)


def mean_average_precision(scores, relevant) -> float:
    """Mean over the queries that have a relevant image; nan where none has."""
    values = average_precisions(scores, relevant)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


class MeanAveragePrecision(evaluate.Metric):
    """`predictions`: scores (q, n); `references`: relevance (q, n) of 0 and 1; `{"mean_average_precision": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float32")),
            "references": datasets.Sequence(datasets.Value("int64")),
        }
        return evaluate.MetricInfo(
            description="Average precision of each query's ranking, mean over the queries.",
            citation="",
            inputs_description="predictions: scores of the ranked images; references: whether each is relevant.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return {"mean_average_precision": mean_average_precision(predictions, references)}
