"""Compiled loops over supports on the CPU. `supports.select` is the same search in torch."""

import numpy as np

from distvae.models.kernels import Integers, Slots, compiled
from distvae.numerics.arrays import Floats

LEAST = 1e-6
"""As in `supports`."""


@compiled
def select(
    correlation: Floats,
    gram: Floats,
    dictionary: Floats,
    observed: Floats,
    inverse: Floats,
    shift: Floats,
    worth: Floats,
    price: float,
    precision: float,
    is_positive: bool,
    index: Slots,
    mean: Floats,
    root: Floats,
    gain: Floats,
) -> None:
    """Find the support of each row, one atom at a time.

    With the precision M of a support and its Cholesky factor L, each atom outside of the support
    has a column `reached` of L^-1 W^T w / sigma^2, a precision `left` and a drive `pull`, given the
    support. An atom that joins changes them in one pass over all atoms. The best atom is chosen
    without the change of log `left`, which counts when it is decided whether the atom joins.
    `observed` is empty if no value is missing.
    """
    number = correlation.dtype.type
    rows, atoms = correlation.shape
    size, dims = index.shape[1], dictionary.shape[1]
    is_whole = observed.shape[0] == 0
    reached = np.empty((size, atoms), correlation.dtype)
    left, pull = np.empty(atoms, correlation.dtype), np.empty(atoms, correlation.dtype)
    first, taken = np.empty(atoms, correlation.dtype), np.empty(atoms, correlation.dtype)
    factor, white = np.zeros((size, size)), np.zeros(size)
    scale, half, zero = number(precision), number(0.5), number(0)
    lowest = number(-np.inf)
    for j in range(atoms):
        first[j] = worth[j] - half * np.log(inverse[j] + scale)
    for n in range(rows):
        for j in range(atoms):
            square = number(1)
            if not is_whole:
                square = zero
                for d in range(dims):
                    square += observed[n, d] * dictionary[j, d] * dictionary[j, d]
            left[j] = inverse[j] + scale * square
            pull[j] = correlation[n, j] * scale + shift[j]
            taken[j] = first[j]
        count, total = 0, 0.0
        while count < size:
            best, place = lowest, 0
            for j in range(atoms):
                drive = max(pull[j], zero) if is_positive else pull[j]
                value = half * drive * drive / left[j] + taken[j]
                if value > best:
                    best, place = value, j
            room, pulled = np.float64(left[place]), np.float64(pull[place])
            value = worth[place] - 0.5 * np.log(room) + 0.5 * pulled * pulled / room
            if best == lowest or value <= price:
                break
            total += value
            taken[place] = lowest
            diagonal = np.sqrt(room)
            for k in range(count):
                factor[count, k] = reached[k, place]
            factor[count, count], white[count] = diagonal, pulled / diagonal
            index[n, count] = place
            row, divided, step = reached[count], number(1 / diagonal), number(pulled / diagonal)
            if is_whole:
                for j in range(atoms):
                    row[j] = gram[place, j] * scale
            else:
                for j in range(atoms):
                    product = zero
                    for d in range(dims):
                        product += observed[n, d] * dictionary[place, d] * dictionary[j, d]
                    row[j] = product * scale
            for k in range(count):
                weight, earlier = reached[k, place], reached[k]
                for j in range(atoms):
                    row[j] -= weight * earlier[j]
            for j in range(atoms):
                change = row[j] * divided
                row[j] = change
                left[j] = max(left[j] - change * change, number(LEAST) * inverse[j])
                pull[j] -= change * step
            count += 1
        gain[n] = total
        for column in range(count):
            root[n, column, column] = 1 / factor[column, column]
            for k in range(column + 1, count):
                value = 0.0
                for m in range(column, k):
                    value -= factor[k, m] * root[n, m, column]
                root[n, k, column] = value / factor[k, k]
        for k in range(count):
            value = 0.0
            for m in range(k, count):
                value += root[n, m, k] * white[m]
            mean[n, k] = value


@compiled
def add_moments(
    index: Integers,
    mean: Floats,
    root: Floats,
    weight: Floats,
    x: Floats,
    products: Floats,
    second: Floats,
    active: Floats,
    first: Floats,
) -> None:
    """Add the moments of rows to sums: E[s z] x^T, E[(s z)(s z)^T], E[s] and E[s z]."""
    for n in range(len(x)):
        for s in range(index.shape[1]):
            share, count = np.float64(weight[n, s]), 0
            while count < index.shape[2] and index[n, s, count] >= 0:
                count += 1
            for k in range(count):
                atom, value = index[n, s, k], np.float64(mean[n, s, k])
                active[atom] += share
                first[atom] += share * value
                for d in range(x.shape[1]):
                    products[atom, d] += share * value * x[n, d]
                for j in range(k + 1):
                    product = value * np.float64(mean[n, s, j])
                    for m in range(k, count):
                        product += np.float64(root[n, s, m, k]) * np.float64(root[n, s, m, j])
                    other = index[n, s, j]
                    second[atom, other] += share * product
                    if j < k:
                        second[other, atom] += share * product
