"""Distances between two sets of feature vectors: a classifier's, a kernel's and Fréchet's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FOLDS = 5
PENALTY = 1.0
COMPONENTS = 16
FAR = 5.0
"""Standardised features end here, so that one wild value does not decide; one that is not defined is here."""

Features = NDArray[np.float64]


def standardise(features: ArrayLike, reference: ArrayLike) -> tuple[Features, Features]:
    """Express features in standard deviations from the reference's mean, at most 5.

    Args:
        features: (N, F), NaN where one is not defined; such a one is as far from the mean as any can be.
        reference: (M, F).

    Returns:
        Both, standardised; features that do not vary in the reference, or are not defined there, are 0.
    """
    own, real = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    known = np.isfinite(real)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, real, 0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, real - mean, 0) ** 2).sum(axis=0) / count)
    varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-9)
    scale = np.where(varies, deviation, 1)
    first, second = (
        np.where(varies, np.clip(np.nan_to_num((x - mean) / scale, nan=FAR), -FAR, FAR), 0)
        for x in (own, real)
    )
    return first, second


def c2st_auc(
    features: ArrayLike,
    reference: ArrayLike,
    patients: ArrayLike,
    reference_patients: ArrayLike,
    seed: int = 0,
) -> float:
    """Area under the ROC curve of a logistic regression that separates two sets.

    It is trained on four fifths of the patients of both sets and tested on the rest, five times; the five
    areas are averaged.

    Args:
        features: (N, F), standardised.
        reference: (M, F).
        patients: (N,) of which patient each row is; a patient's rows are in the same fold.
        reference_patients: (M,).
        seed: of the folds.

    Returns:
        0.5 where the sets cannot be separated, 1 where they always can; NaN with fewer than 5 patients in
        one of them.

    Source: Lopez-Paz D, Oquab M. Revisiting classifier two-sample tests. ICLR 2017.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    folds = [deal_patients(own, FOLDS, rng) for own in (patients, reference_patients)]
    if min(fold.max(initial=-1) for fold in folds) < FOLDS - 1:
        return float("nan")
    x, fold = np.concatenate([features, reference]), np.concatenate(folds)
    synthetic = np.arange(len(x)) < len(folds[0])
    areas = []
    for number in range(FOLDS):
        test = fold == number
        model = LogisticRegression(C=PENALTY, solver="liblinear", random_state=0, max_iter=1000)
        scores = model.fit(x[~test], synthetic[~test]).decision_function(x[test])
        areas.append(roc_auc_score(synthetic[test], scores))
    return float(np.mean(areas))


def kid(features: ArrayLike, reference: ArrayLike) -> float:
    """Kernel distance: unbiased estimate of the squared maximum mean discrepancy, kernel (x·y / F + 1)³.

    0 on average for two sets of one distribution, so that it can be negative.

    Args:
        features: (N, F), standardised; at least two.
        reference: (M, F); at least two.

    Source: Bińkowski M et al. Demystifying MMD GANs. ICLR 2018; there on features of Inception.
    """
    x, y = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return float("nan")
    own, real, crossed = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    inner = sum((k.sum() - np.trace(k)) / (size * (size - 1)) for k, size in ((own, n), (real, m)))
    return float(inner - 2 * crossed.mean())


def frechet_distance(features: ArrayLike, reference: ArrayLike) -> float:
    """Fréchet distance of two normal distributions: |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

    Of the first 16 principal components of the reference, because a covariance of more features than volumes
    has no full rank. Biased: it grows as sets get smaller, also for two sets of one distribution.

    Args:
        features: (N, F), standardised; at least two.
        reference: (M, F); at least two.

    Source: Dowson DC, Landau BV. The Fréchet distance between multivariate normal distributions. Journal of
    Multivariate Analysis 12(3):450–455, 1982; Heusel M et al. NeurIPS 2017.
    """
    x, y = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    if min(len(x), len(y)) < 2:
        return float("nan")
    axes = np.linalg.svd(y - y.mean(axis=0), full_matrices=False)[2][:COMPONENTS].T
    x, y = x @ axes, y @ axes
    one, other = np.atleast_2d(np.cov(x.T)), np.atleast_2d(np.cov(y.T))
    root = np.sqrt(np.maximum(np.linalg.eigvals(one @ other).real, 0)).sum()
    return float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + np.trace(one) + np.trace(other) - 2 * root)


def deal_patients(patients: ArrayLike, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal patients to folds, so that the folds have as many patients, or one more.

    Args:
        patients: (N,) of which patient each row is.
        folds: how many.
        rng: of the draw.

    Returns:
        (N,) number of each row's fold.
    """
    names, number = np.unique(np.asarray(patients), return_inverse=True)
    return np.asarray((rng.permutation(len(names)) % folds)[number], np.int64)
