"""`python -m distvae`, and with several workers `torchrun --nproc-per-node N -m distvae train
RECIPE`.
"""

from distvae.cli import main

main()
