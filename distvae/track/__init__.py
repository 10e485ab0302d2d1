"""Records of runs and sweeps in MLflow. No other subpackage imports it.

Recording never disturbs training: whatever goes wrong here is reported in a sentence. Everything to
record is first written into the folder of the run or sweep, and stays there until MLflow has it.
"""

from distvae.track.relay import Relay
from distvae.track.sinks import refuse_missing_packages
from distvae.track.store import Store, without_secrets
from distvae.track.tracker import Status, Tracker, run_tags

__all__ = [
    "Relay",
    "Status",
    "Store",
    "Tracker",
    "refuse_missing_packages",
    "run_tags",
    "without_secrets",
]
