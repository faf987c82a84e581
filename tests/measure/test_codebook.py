"""How much of a codebook is used, against a count by hand."""

import numpy
import pytest
import torch

from minillada.measure.codebook import codebook_usage


@pytest.mark.parametrize(
    "codes", [[0, 0, 1, 2], [3, 3, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7], [7, 1, 7, 7, 2]]
)
def test_codebook_usage_by_hand(codes):
    used, perplexity = codebook_usage(torch.tensor(codes).view(1, -1, 1), 8)
    _, counts = numpy.unique(codes, return_counts=True)
    p = counts / counts.sum()
    assert used == pytest.approx(len(counts) / 8)
    assert perplexity == pytest.approx(float(numpy.exp(-(p * numpy.log(p)).sum())), rel=1e-5)


@pytest.mark.parametrize("codes", [[], [-1], [8]])
def test_what_is_no_code_is_refused(codes):
    with pytest.raises(ValueError, match="codes must be 0 to 7"):
        codebook_usage(torch.tensor(codes, dtype=torch.long), 8)
