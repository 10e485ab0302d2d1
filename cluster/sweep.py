"""Run a sweep on all machines: ray submit cluster/cluster.yaml cluster/sweep.py -- tune_spaces/speech.yaml --trials 200."""

import sys

from distvae.cli.submit import run_on_cluster

if __name__ == "__main__":
    run_on_cluster("tune", sys.argv[1:])
