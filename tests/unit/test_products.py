"""Products in compiled loops are torch's, and give their memory back."""

import gc
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import njit

from benchmarks.figures import resident_mib
from models import products, torch_calls
from models.products import Weight, array_of, multiply, onednn_multiplies

WAYS = ["the kernel", "oneDNN", "torch's linear"]


def go(way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiply this way from now on; skips where it cannot be."""
    number = WAYS.index(way)
    can = (products._kernel_multiplies(dtype), onednn_multiplies(dtype), True)
    if not can[number]:
        pytest.skip(f"{way} does not multiply {dtype} here")
    monkeypatch.setattr(products, "_way", lambda *_: number)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("width", "inputs"), [(24, 12), (130, 65), (1, 1), (64, 3), (192, 128)])
def test_a_product_is_torchs_linear(
    width: int, inputs: int, biased: bool, dtype: torch.dtype, tolerance: float, way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    go(way, dtype, monkeypatch)
    for rows in (1, 2, 9, 33):
        matrix, wide, bias = (torch.randn(*shape).to(dtype) for shape in ((width, inputs), (40, 200), (width,)))
        weight = Weight(matrix, bias if biased else None, rows)
        values = wide[3 : 3 + rows, 7 : 7 + inputs]  # rows that do not follow one another in memory
        out = np.full((rows, width + 5), 7.0, np.float32)
        multiply(weight.numbers, array_of(values), out[:, 2 : 2 + width])
        right = torch.nn.functional.linear(values.float(), matrix.float(), bias.float() if biased else None)
        assert np.abs(out[:, 2 : 2 + width] - right.numpy()).max() <= tolerance * right.abs().max()
        assert (out[:, :2] == 7).all()
        assert (out[:, 2 + width :] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_inputs_has_a_way(dtype: torch.dtype) -> None:
    for inputs in (1, 2, 3, 31, 33, 34, 257):
        matrix, values = torch.randn(70, inputs).to(dtype), torch.randn(5, inputs).to(dtype)
        right = values.float() @ matrix.float().t()
        assert np.abs(Weight(matrix, None, 1).times(array_of(values)) - right.numpy()).max() < 5e-3 * right.abs().max()


TORCHS_OWN = """
import sys
import torch
torch.manual_seed(0)
dtype = getattr(torch, sys.argv[1])
values, matrix = torch.randn(33, 64).to(dtype), torch.randn(64, 40).to(dtype)
if sys.argv[2] == "beside":
    from models.products import Weight, array_of
    narrow, wide = (Weight(values[:20, :inputs].contiguous(), None, 1) for inputs in (16, 64))
for _ in range(3):
    if sys.argv[2] == "beside":
        narrow.times(array_of(values[:, :16]))
        wide.times(array_of(values))
    for product in (values @ matrix, matrix.t() @ matrix, torch.nn.functional.linear(values, matrix.t())):
        print(product.float().sum(1).tolist())
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_leave_torchs_own_alone(dtype: str) -> None:
    """In processes of their own, one of which never makes a product of ours: with AMX all code of a thread shares the
    tiles and their shape."""
    alone, beside = (
        subprocess.run([sys.executable, "-c", TORCHS_OWN, dtype, how], capture_output=True, check=True).stdout
        for how in ("alone", "beside")
    )
    assert alone
    assert beside == alone


def test_tiles_are_given_back_after_each_product() -> None:
    """Their shape is the thread's, and torch asks whoever calls its kernel to release them, whether or not it shows."""
    if not products._by_tiles(torch.bfloat16):
        pytest.skip("there is no AMX here")
    weight = Weight(torch.randn(64, 64).bfloat16(), None, 1)
    assert weight.numbers[torch_calls.RELEASE] == torch_calls.address_of(products._RELEASE) != 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
def test_a_weight_comes_in_parts(biased: bool, dtype: torch.dtype, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go(way, dtype, monkeypatch)
    matrix, bias = torch.randn(3 * 40, 40).to(dtype), torch.randn(3 * 40).to(dtype)
    whole = Weight(matrix, bias if biased else None, 1)
    values = array_of(torch.randn(1, 40).to(dtype))
    parts = [part.times(values).reshape(3, 20) for part in whole.parts(2)]
    rounding = 1e-5 if dtype == torch.float32 else 2e-2
    assert np.abs(np.concatenate(parts, 1).ravel() - whole.times(values)[0]).max() < rounding * 40**0.5


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_another_length_are_refused(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go(way, torch.float32, monkeypatch)
    weight = Weight(torch.randn(24, 12), None, 2)
    for inputs, rows, width in ((13, 2, 24), (12, 3, 24), (12, 2, 25)):
        with pytest.raises(ValueError, match="rows of another length"):
            multiply(weight.numbers, np.zeros((2, inputs), np.float32), np.zeros((rows, width), np.float32))


def test_what_torch_refuses_is_an_error_and_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    go("torch's linear", torch.float32, monkeypatch)
    weight, values = Weight(torch.randn(24, 12), None, 2), np.ones((2, 12), np.float32)
    out = np.zeros((2, 24), np.float32)
    of_another_type = weight.numbers.copy()
    of_another_type[torch_calls.TYPE] = torch_calls.TORCH.aoti_torch_dtype_int32()
    with pytest.raises(RuntimeError, match="torch refused"):
        multiply(of_another_type, values, out)
    assert "no reason given" not in str(torch_calls.refusal())
    multiply(weight.numbers, values, out)
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
    products_BN = np.empty((values_BK.shape[0], 8), np.float32)
    for _ in range(times):
        multiply(weight, values_BK, products_BN)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_leaves_no_memory_behind(way: str, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the 50 bytes of a text argument, nor a product of 128."""
    go(way, torch.float32, monkeypatch)
    weight, values = Weight(torch.randn(8, 8), torch.randn(8) if biased else None, 4), np.zeros((4, 8), np.float32)
    many_products(weight.numbers, values, 10_000)
    before = resident_mib()
    many_products(weight.numbers, values, 200_000)
    assert resident_mib() - before < 4
