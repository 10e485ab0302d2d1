"""Numbers that every machine computes alike: draws, lanes, matrix products, measures of
sparsity.
"""
