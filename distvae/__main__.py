"""Run the command line as `python -m distvae`.

With several workers: `torchrun --nproc-per-node N -m distvae train RECIPE`.
"""

from distvae.cli import main

main()
