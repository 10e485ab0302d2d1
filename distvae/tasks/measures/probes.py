"""Probes: classifiers that predict classes from codes, trained on a few labelled training rows.

Each figure is the accuracy on the evaluated rows, between 0 and 1.
"""

import math
import warnings
from typing import Protocol

import numpy as np

from distvae.data.dataset import Array, Labels
from distvae.files.refusal import Refusal
from distvae.tasks.measures.subject import Subject

BATCH = 32
"""Batch size of the probe trained by gradient descent."""


class Classifier(Protocol):
    """The part of scikit-learn's classifiers that is used here."""

    def fit(self, codes: Array, labels: Labels, /) -> object:
        """Train."""

    def score(self, codes: Array, labels: Labels, /) -> float:
        """Return the accuracy."""


def linear(subject: Subject) -> dict[str, float]:
    """Return the accuracy of logistic regression on standardised codes, trained to convergence."""
    from sklearn.linear_model import LogisticRegression

    return {"probe_linear": _accuracy(subject, _standardised(LogisticRegression(max_iter=2000)))}


def sgd(subject: Subject) -> dict[str, float]:
    """Return the accuracy of a net on raw codes after 20 epochs of gradient descent.

    Without hidden layers this is the linear layer of the code of [Re] Variational Sparse Coding,
    without the ReLU before the cross-entropy in its notebook. The report describes two layers.
    """
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        subject.run.config.eval.probe_hidden,
        solver="sgd",
        alpha=0.0,
        batch_size=BATCH,
        learning_rate_init=1e-3,
        momentum=0.9,
        nesterovs_momentum=False,
        max_iter=20,
        tol=0.0,
        n_iter_no_change=20,
        random_state=0,
    )
    return {"probe_sgd": _accuracy(subject, net)}


def mlp(subject: Subject) -> dict[str, float]:
    """Return the accuracy of a net with one hidden layer of 128 units on standardised codes.

    Training stops early, based on a tenth of the labelled rows.
    """
    from sklearn.neural_network import MLPClassifier

    _refuse_few(subject.probed[0].labels)
    net = MLPClassifier((128,), max_iter=200, early_stopping=True, random_state=0)
    return {"probe_mlp": _accuracy(subject, _standardised(net))}


def _refuse_few(labels: Labels) -> None:
    """Refuse too few labels: each class must occur in the held-out tenth and in the rest."""
    _, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2 or math.ceil(len(labels) / 10) < len(counts):
        raise Refusal(
            f"eval.labels: {len(labels)} of {len(counts)} classes, {counts.min()} of the rarest,"
            " and probe_mlp is stopped early on a tenth of them; more than"
            f" {10 * (len(counts) - 1)}, two or more of each class, expected"
        )


def _standardised(classifier: Classifier) -> Classifier:
    """Return a classifier of standardised codes."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline: Classifier = make_pipeline(StandardScaler(), classifier)
    return pipeline


def _accuracy(subject: Subject, classifier: Classifier) -> float:
    """Train a classifier, and return its accuracy on the evaluated rows."""
    from sklearn.exceptions import ConvergenceWarning

    known, held = subject.probed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
        classifier.fit(known.codes, known.labels)
    return float(classifier.score(held.codes, held.labels))
