"""Measures of disentanglement: does each value of the code depend on one known factor?

They are functions of codes (N, H) and of the levels (N, F) of the factors that vary, with values
between 0 and 1.
"""

import numpy as np

from distvae.data.dataset import Array, Labels
from distvae.numerics.arrays import Doubles

BINS = 20
"""Bins of equal width for each value of the codes."""


def information_gap(codes: Array, levels: Labels) -> float:
    """Return MIG (Chen et al., NeurIPS 2018) of binned codes.

    For each factor, take the largest mutual information with a value of the codes, subtract the
    second largest, and divide by the factor's entropy. MIG is the mean over factors.
    """
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    binned = [np.digitize(value, np.histogram_bin_edges(value, BINS)[1:-1]) for value in codes.T]
    gaps = []
    for level in levels.T:
        information = [mutual_info_score(level, value) for value in binned]
        counts = np.unique(level, return_counts=True)[1]
        gaps.append(_gap(information) / entropy(counts))
    return float(np.mean(gaps))


def importances(codes: Array, levels: Labels) -> tuple[float, float, float]:
    """Return DCI (Eastwood and Williams, ICLR 2018), by forests that predict factors from codes.

    Disentanglement is the degree to which each value of the codes, weighted by its importance,
    serves one factor. Completeness is the degree to which one value predicts each factor.
    Informativeness is the accuracy on the half of the data that was not used for training.
    """
    from sklearn.ensemble import RandomForestClassifier

    half = len(codes) // 2
    importance, accuracy = [], []
    for level in levels.T:
        forest = RandomForestClassifier(20, max_features=None, min_samples_leaf=5, random_state=0)
        forest.fit(codes[:half], level[:half])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(codes[half:], level[half:]))
    table: Doubles = np.stack(importance, -1)
    weight = table.sum(1)
    disentanglement = (_concentration(table) @ weight) / max(weight.sum(), np.finfo(float).tiny)
    completeness = _concentration(table.T).mean()
    return float(disentanglement), float(completeness), float(np.mean(accuracy))


def predictability_gap(codes: Array, levels: Labels, ordered: tuple[bool, ...]) -> float:
    """Return SAP (Kumar, Sattigeri and Balakrishnan, ICLR 2018).

    For each factor, rank the values of the codes by how well they predict the factor, and subtract
    the second best score from the best. SAP is the mean over factors. An ordered factor is
    predicted by a line and scored by R^2. Another factor is predicted by thresholds and scored by
    balanced accuracy above chance.
    """
    gaps = []
    for level, is_ordered in zip(levels.T, ordered, strict=True):
        predict = _score_line if is_ordered else _score_thresholds
        gaps.append(_gap([predict(value, level) for value in codes.T]))
    return float(np.mean(gaps))


def _gap(scores: list[float]) -> float:
    """Return the best score minus the second best score, or the only score."""
    second, best = sorted([0.0, *scores])[-2:]
    return best - second


def _concentration(shares: Doubles) -> Doubles:
    """Return one minus the normalised entropy of each row of (N, K).

    The result is 1 if one entry has the whole mass of a row, and 0 if the mass is uniform.
    """
    from scipy.stats import entropy

    places = shares.shape[1]
    if places == 1:
        return np.ones(len(shares))
    flat = np.where(shares.sum(1, keepdims=True) > 0, shares, 1.0)
    return np.asarray(1 - entropy(flat, axis=1) / np.log(places))


def _score_line(value: Array, level: Labels) -> float:
    """Return the squared correlation, or 0 for a constant value."""
    if not value.std():
        return 0.0
    return float(np.corrcoef(value, level)[0, 1] ** 2)


def _score_thresholds(value: Array, level: Labels) -> float:
    """Return the balanced accuracy above chance of a decision tree."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_leaf_nodes=len(np.unique(level)), class_weight="balanced", random_state=0
    )
    predicted = tree.fit(value[:, None], level).predict(value[:, None])
    return max(0.0, float(balanced_accuracy_score(level, predicted, adjusted=True)))
