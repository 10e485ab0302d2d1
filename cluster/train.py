"""Train on all machines: ray submit cluster/cluster.yaml cluster/train.py -- house-50 --workers 4."""

import sys

from distvae.cli.submit import run_on_cluster

if __name__ == "__main__":
    run_on_cluster("train", sys.argv[1:])
