"""Whichever of torch's libraries multiplies matrices, they have the precision of float32."""

import subprocess
import sys

import pytest
import torch

from distvae import products

CHOSEN = "from distvae import products; products.choose(); import torch; print(torch.get_float32_matmul_precision())"


@pytest.mark.parametrize("shape", [(32, 200, 513), (64, 64, 64), (1000, 512, 144), (7, 1000, 3)], ids=str)
def test_products_are_those_of_float32(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = torch.randn(m, k), torch.randn(k, n)
    before = torch.get_float32_matmul_precision()
    products.choose()
    try:
        assert products.error(a, b) < products.PRECISE
        assert products.error(b.T, a.T) < products.PRECISE
    finally:
        torch.set_float32_matmul_precision(before)
        products.choose.cache_clear()


def test_a_precision_that_was_asked_for_is_left() -> None:
    asked = f"import torch; torch.set_float32_matmul_precision('high'); {CHOSEN}"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "high"


def test_bfloat16_would_be_noticed() -> None:
    """On any CPU: the same operands rounded to it."""
    a, b = torch.randn(64, 512), torch.randn(512, 64)
    rounded = (a.bfloat16().float() @ b.bfloat16().float()).double()
    true = a.double() @ b.double()
    assert float((rounded - true).norm() / true.norm()) > 10 * products.PRECISE
