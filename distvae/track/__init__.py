"""What is remembered of runs and sweeps in MLflow, and the only part that touches it.

Recording is a courtesy: whatever goes wrong here is said in a sentence, and never reaches training.
What there is to tell is written into the folder of the run or sweep first, and stays there until
MLflow has it.
"""

from distvae.track.relay import Relay
from distvae.track.store import Store, without_secrets
from distvae.track.tracker import Status, Tracker, run_tags

__all__ = ["Relay", "Status", "Store", "Tracker", "run_tags", "without_secrets"]
