"""Tensors that are read without torch are what torch reads, bit for bit."""

from __future__ import annotations

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from circadian.memory import raw, tensors
from circadian.memory.raw import RawTensor, read_raw, write_raw

FLOATS = ("float64", "float32", "float16", "bfloat16")


def numbers(dtype: str) -> torch.Tensor:
    """Of many sizes, among them halves between two neighbours, the smallest, the largest, and what is no number."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4096, generator=generator, dtype=torch.float64) * torch.exp(
        torch.randn(4096, generator=generator, dtype=torch.float64) * 12
    )
    edges = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 1.0 + 2**-11, 65504.0, 65520.0, 1e-8, 6e-8, 1e-40, 3.4e38, 3.39e38, 1e39]
    ends = [float("inf"), float("-inf"), float("nan")]
    return torch.cat([drawn, torch.tensor([*edges, *ends], dtype=torch.float64)]).to(getattr(torch, dtype))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (
        one.dtype == other.dtype and torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    )


@pytest.mark.parametrize("given", FLOATS)
@pytest.mark.parametrize("asked", FLOATS)
def test_a_type_becomes_another_as_torch_makes_it(given: str, asked: str) -> None:
    there = numbers(given)
    here = tensors.from_raw({"x": tensors.as_raw({"x": there})["x"].to(asked)})["x"]
    if (given, asked) == ("float64", "bfloat16"):
        there = there.float()  # both round twice: torch itself does so from there
    assert same(here, there.to(getattr(torch, asked)))


def test_what_is_written_is_read_by_safetensors_and_the_other_way_round() -> None:
    there = {"b": numbers("bfloat16").reshape(3, -1), "a": numbers("float32"), "empty": torch.zeros(0, 4), "n": torch.arange(5)}
    content = write_raw(tensors.as_raw(there), {"format": "x", "made": "here"})
    again, (meta, found) = load(content), read_raw(save(there, {"format": "x", "made": "here"}))
    assert meta == read_raw(content)[0] == {"format": "x", "made": "here"}
    for read in (again, tensors.from_raw(found), tensors.from_raw(read_raw(content)[1])):
        assert read.keys() == there.keys()
        assert all(same(read[name].double(), there[name].double()) and read[name].dtype == there[name].dtype for name in there)
        assert tensors.checksum(read) == tensors.checksum(there) == raw.checksum(found)
    assert write_raw(tensors.as_raw(dict(reversed(there.items()))), {"made": "here", "format": "x"}) == content


def test_what_no_memory_has_is_refused() -> None:
    with pytest.raises(SafetensorError):
        read_raw(b"not a file")
    with pytest.raises(SafetensorError, match="no memory has"):
        read_raw(save({"x": torch.zeros(2, dtype=torch.float8_e4m3fn)}))
    with pytest.raises(ValueError, match="no floating-point type"):
        RawTensor("int64", (1,), b"\0" * 8).floats()
    with pytest.raises(ValueError, match="no floating-point type"):
        RawTensor("float32", (1,), b"\0" * 4).to("int64")
