"""Disentanglement: whether each known factor of the data is in one value of the codes, and each
value about one factor.

Functions of codes (N, H) and of the levels (N, F) of factors that vary, 0 to 1.
"""

import numpy as np
from numpy.typing import NDArray

from distvae.data.dataset import Labels
from distvae.tasks.measures.subject import Subject
from distvae.train.run import Array

BINS = 20
"""Of a value of the codes, of equal width."""
Floats = NDArray[np.float64]


def mig(subject: Subject) -> dict[str, float]:
    """The mutual information gap."""
    return {"mig": information_gap(subject.factored.codes, subject.factored.levels)}


def dci(subject: Subject) -> dict[str, float]:
    """Disentanglement, completeness, informativeness."""
    names = ("dci", "dci_completeness", "dci_informativeness")
    return dict(
        zip(names, importances(subject.factored.codes, subject.factored.levels), strict=True)
    )


def sap(subject: Subject) -> dict[str, float]:
    """The separated attribute predictability."""
    return {"sap": predictability_gap(*subject.factored)}


def information_gap(codes: Array, levels: Labels) -> float:
    """MIG (Chen et al., NeurIPS 2018), of binned codes.

    The mutual information of a factor with the value of the codes that knows most of it, less that
    of the second, over the factor's entropy; the mean over factors.
    """
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    bins = np.stack(
        [np.digitize(value, np.histogram_bin_edges(value, BINS)[1:-1]) for value in codes.T]
    )
    gaps = [
        _gap([mutual_info_score(level, value) for value in bins])
        / entropy(np.unique(level, return_counts=True)[1])
        for level in levels.T
    ]
    return float(np.mean(gaps))


def importances(codes: Array, levels: Labels) -> tuple[float, float, float]:
    """DCI (Eastwood and Williams, ICLR 2018), by forests that tell factors from codes.

    Disentanglement: how much each value of the codes, weighed by its importance, serves one factor.
    Completeness: how much each factor is told by one value. Informativeness: accuracy on the half
    that the forests were not trained on.
    """
    from sklearn.ensemble import RandomForestClassifier

    half = len(codes) // 2
    importance, accuracy = [], []
    for level in levels.T:
        forest = RandomForestClassifier(20, max_features=None, min_samples_leaf=5, random_state=0)
        forest.fit(codes[:half], level[:half])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(codes[half:], level[half:]))
    table: Floats = np.stack(importance, -1)
    served = table.sum(1)
    disentangled = (_concentration(table) @ served) / max(served.sum(), np.finfo(float).tiny)
    return float(disentangled), float(_concentration(table.T).mean()), float(np.mean(accuracy))


def predictability_gap(codes: Array, levels: Labels, ordered: tuple[bool, ...]) -> float:
    """SAP (Kumar, Sattigeri and Balakrishnan, ICLR 2018).

    How well the value of the codes that predicts a factor best does so, less the second; the mean
    over factors. Ordered factors are predicted by a line, its R^2; others by thresholds, their
    balanced accuracy above chance.
    """
    gaps = [
        _gap([(_line if line else _thresholds)(value, level) for value in codes.T])
        for level, line in zip(levels.T, ordered, strict=True)
    ]
    return float(np.mean(gaps))


def _gap(scores: list[float]) -> float:
    """Between the best and the second best, which is nothing where there is one."""
    second, best = sorted([0.0, *scores])[-2:]
    return best - second


def _concentration(shares: Floats) -> Floats:
    """(N, K) -> (N,): 1 where all of a row is in one place, 0 where it is spread evenly, by its
    entropy.
    """
    from scipy.stats import entropy

    places = shares.shape[1]
    if places == 1:
        return np.ones(len(shares))
    flat = np.where(shares.sum(1, keepdims=True) > 0, shares, 1.0)
    return np.asarray(1 - entropy(flat, axis=1) / np.log(places))


def _line(value: Array, level: Labels) -> float:
    """The squared correlation; of what never varies none."""
    if not value.std():
        return 0.0
    return float(np.corrcoef(value, level)[0, 1] ** 2)


def _thresholds(value: Array, level: Labels) -> float:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_leaf_nodes=len(np.unique(level)), class_weight="balanced", random_state=0
    )
    told = tree.fit(value[:, None], level).predict(value[:, None])
    return max(0.0, float(balanced_accuracy_score(level, told, adjusted=True)))
