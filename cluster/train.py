"""Train on all machines: ray submit cluster/cluster.yaml cluster/train.py -- house-50 --workers 4."""

import sys

from distvae.cli.submit import submitted

if __name__ == "__main__":
    submitted("train", sys.argv[1:])
