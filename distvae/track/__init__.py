"""Records of runs and sweeps in MLflow. No other subpackage imports MLflow.

Recording never stops training: every failure is reported in one sentence.
"""

from distvae.track.store import Store, without_secrets
from distvae.track.tracker import Sending, Status, Tracker, refuse_missing_packages, run_tags

__all__ = [
    "Sending",
    "Status",
    "Store",
    "Tracker",
    "refuse_missing_packages",
    "run_tags",
    "without_secrets",
]
