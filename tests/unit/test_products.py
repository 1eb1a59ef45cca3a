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


def test_what_torch_refuses_is_an_error_and_harms_nothing() -> None:
    weight, values, out = (
        Weight(torch.randn(24, 12), None, 2),
        np.ones((2, 12), np.float32),
        np.zeros((2, 24), np.float32),
    )
    with pytest.raises(RuntimeError, match="torch refused"):
        product_of(weight.numbers, np.zeros((2, 13), np.float32), out)
    of_another_type = weight.numbers.copy()
    of_another_type[products._TYPE] = products._TORCH.aoti_torch_dtype_int32()
    with pytest.raises(RuntimeError, match="torch refused"):
        product_of(of_another_type, values, out)
    assert "no reason given" not in str(products.refusal())
    product_of(weight.numbers, values, out)
    assert out.any()


def test_the_memory_of_weights_is_given_back() -> None:
    def work(times: int) -> None:
        for _ in range(times):
            Weight(matrix, bias, 64)

    matrix, bias = torch.randn(1024, 1024), torch.randn(1024)
    work(3)
    gc.collect()
    before = resident_mib()
    work(50)  # 200 MB
    gc.collect()
    assert resident_mib() - before < 40


@njit
def many_products(weight, values_BK, times):
    room = np.empty(ROOM, np.int64)
    for _ in range(times):
        multiply(weight, values_BK, room)
        release(weight, room)


@pytest.mark.parametrize("by_onednn", [True, False], ids=["by oneDNN where it can", "by torch's linear"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_leaves_no_memory_behind(by_onednn: bool, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the 50 bytes of a text argument, nor a product of 128."""
    if not by_onednn:
        monkeypatch.setattr(products, "onednn_multiplies", lambda _: False)
    weight, values = Weight(torch.randn(8, 8), torch.randn(8) if biased else None, 4), np.zeros((4, 8), np.float32)
    many_products(weight.numbers, values, 10_000)
    before = resident_mib()
    many_products(weight.numbers, values, 200_000)
    assert resident_mib() - before < 4
