"""Hand-written gradients of the models: compiled loops on the CPU, fixed shapes on a GPU.

They equal the gradients of autograd up to rounding, which the tests check.
"""
