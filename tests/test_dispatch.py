"""The helper that counts operators sees what reads values on the host."""

import pytest
import torch
from dispatch import count_operators

X = torch.arange(6.0)
MASK = torch.tensor([True, False, True, False, False, True])

READS = {
    "item": lambda: X[2].item(),
    "bool": lambda: bool((X > 3).any()),
    "int": lambda: int(X.sum()),
    "tolist": X.tolist,
    "cpu": X.cpu,
    "nonzero": MASK.nonzero,
    "boolean index": lambda: X[MASK],
    "boolean assignment": lambda: X.clone().index_put_((MASK,), torch.zeros(3)),
    "masked_select": lambda: X.masked_select(MASK),
    "equal": lambda: torch.equal(X, X),
    "allclose": lambda: torch.allclose(X, X),
    "unique": X.unique,
    "bincount": lambda: torch.bincount(X.long()),
    "repeat_interleave": lambda: X.repeat_interleave(MASK.long()),
}
NO_READS = {
    "arithmetic": lambda: (X + 1).sum().sqrt(),
    "integer index": lambda: X[torch.tensor([0, 5])],
    "masked_fill": lambda: X.masked_fill(MASK, 0),
    "fill where true": lambda: X.clone().index_put_((MASK,), torch.zeros(())),
    "where": lambda: torch.where(MASK, X, 0),
    "nonzero_static": lambda: torch.nonzero_static(MASK, size=3),
    "repeat_interleave of a known size": lambda: X.repeat_interleave(MASK.long(), output_size=3),
    "scatter_add": lambda: X.scatter_add(0, MASK.long(), X),
    "shape": lambda: X.view(2, -1).shape[0] + len(X),
}


@pytest.mark.parametrize("name", READS)
def test_what_reads_on_the_host_is_counted(name):
    assert count_operators(READS[name]).host_reads == 1


@pytest.mark.parametrize("name", NO_READS)
def test_what_does_not_read_is_not_counted(name):
    assert count_operators(NO_READS[name]).host_reads == 0


def test_operators_and_views_are_counted_with_the_backward_pass():
    weight = torch.ones(2, 3, requires_grad=True)
    forward = count_operators(lambda: (X.view(2, 3) * weight).sum())
    assert (forward.by_name["aten.mul.Tensor"], forward.by_name["aten.sum.default"], forward.views) == (1, 1, 1)
    both = count_operators(lambda: (X.view(2, 3) * weight).sum().backward())
    assert both.by_name["aten.mul.Tensor"] == 2
    assert both.operators > forward.operators
