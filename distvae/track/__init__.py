"""Records of runs and sweeps in MLflow. No other subpackage imports this package.

Recording never stops training: every failure is reported in one sentence. Each record is first
written into the folder of the run or sweep. A thread then sends to MLflow the parts that MLflow
lacks.
"""

from distvae.track.record import Status
from distvae.track.sending import Sending
from distvae.track.store import Store, without_secrets
from distvae.track.tensorboard import refuse_missing_packages
from distvae.track.tracker import Tracker, run_tags

__all__ = [
    "Sending",
    "Status",
    "Store",
    "Tracker",
    "refuse_missing_packages",
    "run_tags",
    "without_secrets",
]
