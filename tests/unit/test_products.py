"""Products in compiled loops are torch's, and give their memory back."""

import gc

import numpy as np
import pytest
import torch
from numba import njit

from benchmarks.figures import resident_mib
from models import products
from models.products import ROOM, Weight, multiply, release


@njit
def product_of(weight, values_BK, out_BN):
    room = np.empty(ROOM, np.int64)
    out_BN[:] = multiply(weight, values_BK, room)
    release(weight, room)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@pytest.mark.parametrize("by_onednn", [True, False], ids=["by oneDNN where it can", "by torch's linear"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_a_product_is_torchs_linear(
    rows: int, biased: bool, dtype: torch.dtype, tolerance: float, by_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_onednn:
        monkeypatch.setattr(products, "onednn_multiplies", lambda _: False)
    matrix, wide, bias = (torch.randn(*shape).to(dtype) for shape in ((24, 12), (20, 40), (24,)))
    weight = Weight(matrix, bias if biased else None, rows)
    values = wide[3 : 3 + rows, 7 : 7 + 12]  # rows that do not follow one another in memory
    out = torch.empty(rows, 24, dtype=dtype)
    product_of(weight.numbers, as_array(values), as_array(out))
    right = torch.nn.functional.linear(values.float(), matrix.float(), bias.float() if biased else None)
    assert (out.float() - right).abs().max() <= tolerance * right.abs().max()


def test_what_torch_refuses_is_an_error() -> None:
    weight = Weight(torch.randn(24, 12), None, 2)
    with pytest.raises(RuntimeError, match="torch refused"):
        product_of(weight.numbers, np.zeros((2, 13), np.float32), np.zeros((2, 24), np.float32))


def test_memory_is_given_back() -> None:
    def work(times: int) -> None:
        for _ in range(times):
            weight = Weight(matrix, bias, 64)
            product_of(weight.numbers, values, out)

    matrix, bias = torch.randn(1024, 1024), torch.randn(1024)
    values, out = np.zeros((64, 1024), np.float32), np.zeros((64, 1024), np.float32)
    work(3)
    gc.collect()
    before = resident_mib()
    work(50)  # 200 MB of weights, 12 MB of products
    gc.collect()
    assert resident_mib() - before < 40
