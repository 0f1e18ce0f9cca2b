# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From a model and labeled images to a number with its interval.

preprocessing.py  the one test transform     features.py, cache.py  images to features, and where these are kept
splits.py         sources, tasks, labels     metrics.py, intervals.py, outcome.py  scores to a result
nearest.py, heads.py, augmented.py, logistic.py    the solvers: kNN, SGD on features or on images, L-BFGS
inputs.py         what a protocol is given   protocols/  one file a protocol
run.py            `evaluate`, for every protocol; suite.py, for every data set; frozen.py, for the end of a run
reports/          result files, tables beside published numbers, pictures

from visreg_training.evaluation.run import evaluate
from visreg_training.evaluation.protocols.knn import KnnOptions
"""
