"""Records of runs and sweeps in MLflow. No other subpackage imports it.

Recording never disturbs training: whatever goes wrong here is reported in a sentence. Everything to
record is first written into the folder of the run or sweep. A thread sends what MLflow lacks.
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
