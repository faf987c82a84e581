"""Memory by arithmetic: what each way to run needs, and what fits where."""

import re

import pytest

from minillada.official import needs as needs_module
from minillada.official.fabricate import decoder_entries, sigvq_entries, vae_entries
from minillada.official.free import Free
from minillada.official.needs import Need, Weights, fits, needs, rounded_needs, weights_of
from minillada.official.sizes import FULL, TINY


def test_memory_of_the_real_one():
    weights = needs_module.released_weights()
    assert weights.experts == pytest.approx(19 * 256 * 3 * 512 * 2048 * 2 / 1e9)
    assert weights.dense + weights.experts == pytest.approx(32.646, abs=0.001)
    assert weights.tokenizer == pytest.approx(1_199_457_280 * 2 / 1e9)
    whole, turns, fetched, ram, mapped = needs(weights)
    assert whole.gpu == pytest.approx(47.7, abs=0.1)  # officially about 47 GB
    assert turns.gpu == pytest.approx(45.3, abs=0.1) and fetched.gpu < 22
    assert ram.ram == whole.gpu and mapped.ram < 18
    eight, four = rounded_needs(weights)
    assert turns.gpu - eight.gpu == pytest.approx(30.6 - 15.4, abs=0.05)
    assert ram.ram - four.ram == pytest.approx(30.6 - 8.6, abs=0.05)
    both = {"decoder-turbo": 5 * 10**6, "decoder": 7 * 10**6}  # a call needs one of them
    tiny = weights_of(TINY.backbone, {"backbone": 10**6} | both)
    assert tiny.experts == pytest.approx(2 * 8 * 3 * 16 * 32 * 2 / 1e9)
    assert tiny.painter == pytest.approx(5e6 * 2 / 1e9)


def test_every_way_by_hand():
    """Dense 2 GB, experts 28 GB, one of them 6 MB; image tokenizer 3 GB, painter 13 GB."""
    weights = Weights(2, 28, 0.006, 3, 13)
    assert [(need.gpu, need.ram) for need in needs(weights)] == [
        (2 + 28 + 16, 0),
        (2 + 28 + 13, 16),  # one part at a time, the others wait in main memory
        (2 + 1000 * 0.006 + 13, 16),
        (0, 2 + 28 + 16),
        (0, 2 + 16),
    ]
    eight, four = rounded_needs(weights)
    assert (eight.gpu, eight.ram) == pytest.approx((2 + 28 * 8.03 / 16 + 13, 16))
    assert (four.gpu, four.ram) == pytest.approx((0, 2 + 28 * 4.5 / 16 + 16))
    # A small model has fewer experts than there is room for.
    assert needs(weights._replace(experts=1))[2].gpu == 2 + 1 + 13


def test_released_counts_are_those_of_the_classes():
    pytest.importorskip("diffusers")
    decoder = sum(entry.count for entry in decoder_entries(FULL))
    vae = sum(entry.count for entry in vae_entries(FULL))
    sigvq = sum(entry.count for entry in sigvq_entries(FULL))
    assert list(needs_module.PAINTER_PARTS.values()) == [decoder, sigvq, vae]


def test_the_table_says_what_fits_where():
    rows = [line.split(" | ") for line in needs_module.memory_table().splitlines()]
    assert len(rows) == 9 and len({len(row) for row in rows[2:]}) == 1
    words = [row[3:] for row in rows[2:]]
    assert words[0] == ["–", "no drawing", "yes", "–", "– |"]
    assert words[4][3:] == ["no drawing", "yes |"]
    assert words[5] == ["no drawing", "yes", "yes", "–", "– |"]  # 8 bits on a GPU
    assert words[6] == ["yes", "yes", "yes", "–", "yes |"]  # 4 bits without one


def test_a_machine_has_what_its_name_says():
    for name, free in needs_module.MACHINES.items():
        *card, memory = (int(number) * (2**30 / 1e9) for number in re.findall(r"\d+", name))
        assert free == Free(card[0] if card else None, memory - 4)


def test_a_line_for_each_way_and_one_for_the_machine():
    ways = [Need("quickly", "'cuda'", 10, 5)]
    start = "quickly                        GPU  10.000 GB, main memory   5.000 GB  "
    for free, word, now in (
        (Free(12, 8), "fits here", "GPU 12.0 GB, main memory 8.0 GB"),
        (Free(None, 8), "does not fit here", "no GPU, main memory 8.0 GB"),
        (Free(12, None), "free memory unknown", "GPU 12.0 GB, main memory unknown"),
    ):
        lines = needs_module.memory_lines(ways, free)
        assert lines == [f"{start}{word}: load(…, 'cuda')", f"free now: {now}"]
    assert needs_module.memory_lines([], Free(12, 8)) == []  # nothing is complete


def test_what_fits():
    need = Need("", "", 10, 5)
    assert fits(need, Free(12, 8)) is True
    assert fits(need, Free(10.5, 8)) is False  # nothing left to work with
    assert fits(need, Free(None, 8)) is False and fits(need, Free(12, None)) is None
    assert fits(need, Free(8, None)) is False  # whatever the main memory is
    assert fits(Need("", "", 0, 5), Free(None, 8)) is True
