"""Examples become the batches they should, moved, encoded and dropped at their rates."""

import math

import pytest
import torch
from helpers import generator, numbers_in, real_images, tiny_tokenizer
from tiny_runs import BACKBONE, BOTH_WAYS, SHORT
from torch import nn

from minillada.datasets import captions, edits
from minillada.datasets.cifar10 import load_cifar10_sample
from minillada.datasets.pool import Pool, measured_pool, mnist_pool
from minillada.datasets.table import CIFAR10
from minillada.layout import SYSTEM_PROMPTS
from minillada.settings import changed
from minillada.tasks.base import Picture
from minillada.tasks.numbers import UNSEEN_SUMS
from minillada.tasks.table import TRAINED
from minillada.training import stream
from minillada.training.checks import check_codes
from minillada.training.loop import step_generator
from minillada.training.stream import (
    encode_pictures,
    mixture_batches,
    moved_codes,
    picture_codes,
    shift,
)
from minillada.vocab import load_vocabulary


def prompt_of(text):
    """What the user gives in a drawing sequence."""
    return text.split("<role>HUMAN</role>")[1].split("<role>ASSISTANT</role>")[0]


def test_shift_moves_each_image_by_its_own_whole_pixels():
    images = torch.rand(60, 2, 9, 9, generator=generator())
    moved = shift(images, generator(1), most=2)
    places = [(down, right) for down in range(5) for right in range(5)]
    found = set()
    for image, result in zip(images, moved):
        padded = nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")
        fits = [(d, r) for d, r in places if torch.equal(result, padded[:, d : d + 9, r : r + 9])]
        assert len(fits) == 1
        found.add(fits[0])
    assert {down for down, _ in found} == {right for _, right in found} == set(range(5))
    assert torch.equal(shift(images, generator(1), most=0), images)


def test_pictures_are_moved_alike_before_and_after_an_edit():
    tokenizer, images, indices = tiny_tokenizer(), real_images(30), [3, 8, 21]
    pictures = [Picture(i, name) for i in indices for name in (None, "mirror it", "invert it")]
    codes = encode_pictures(tokenizer, images, pictures * 2, generator(5))
    moved = shift(images.floats(indices), generator(5))
    for picture in pictures:
        original = moved[indices.index(picture.index)][None]
        shown = edits.apply([picture.operation], original)
        assert torch.equal(codes[picture], tokenizer.encode(shown)[0])
    still = encode_pictures(tokenizer, images, pictures[:1], None)
    assert torch.equal(still[pictures[0]], tokenizer.encode(images.floats([3]))[0])
    assert encode_pictures(tokenizer, images, [], None) == {}


def test_codes_are_those_of_float32_under_autocast_too():
    """Inference has no autocast: training on other codes would teach a language nobody speaks."""
    tokenizer, images = tiny_tokenizer(), real_images(40)
    pictures = [Picture(index) for index in range(40)]
    plain = encode_pictures(tokenizer, images, pictures, None)
    with torch.autocast("cpu", torch.bfloat16):
        under = encode_pictures(tokenizer, images, pictures, None)
    assert all(torch.equal(plain[picture], under[picture]) for picture in pictures)


def test_every_row_pairs_an_image_with_its_own_caption(monkeypatch):
    monkeypatch.setattr(stream, "shift", lambda images, generator: images)
    tokenizer, vocab, images = tiny_tokenizer(), load_vocabulary(16), real_images(40)
    codes = tokenizer.encode(images.floats()).flatten(1).tolist()
    right = captions.describe_pixels(images.floats(), images.labels)
    expected = set()
    for row, caption in zip(codes, right):
        image = "".join(f"<code {code}>" for code in row)
        expected |= {("draw", image, caption), ("describe", image, caption)}
    preset = changed(BACKBONE, varied=False, unconditional_rate=0.0, batch_size=60)
    found = []
    for batch in mixture_batches(tokenizer, vocab, mnist_pool(images), preset, 2):
        assert batch.ids.shape[1] % preset.model.block_size == 0
        for ids, real in zip(batch.ids, batch.real):
            text, asked = vocab.decode(ids), vocab.decode(ids[real])
            image = text.split("<boi>")[1].split("<|/image|>")[0]
            if SYSTEM_PROMPTS["draw"] in text:
                found.append(("draw", image, prompt_of(text)))
                assert asked == f"{image}<|/image|><|endoftext|>"
            else:
                found.append(("describe", image, asked.removesuffix("<|endoftext|>")))
                assert "<|/image|>Describe the image.<role>ASSISTANT</role>" in text
    assert len(found) == 60
    assert set(found) <= expected
    assert {kind for kind, _, _ in found} == {"draw", "describe"}


def test_captions_are_dropped_and_shortened_at_their_rates():
    vocab, tokenizer, pool = load_vocabulary(16), tiny_tokenizer(), mnist_pool(real_images(600))
    preset = changed(BACKBONE, mixture=(("draw", 1.0),), batch_size=900)
    kinds = {"none": 0, "full": 0, "digit": 0, "thickness": 0, "slant": 0}
    names = {
        (False, False): "digit", (True, False): "thickness",
        (False, True): "slant", (True, True): "full",
    }  # fmt: skip
    rows = []
    for batch in mixture_batches(tokenizer, vocab, pool, preset, 0):
        rows += list(batch.ids)
    for row in rows:
        text = prompt_of(vocab.decode(row))
        if text == "<uncondition>":
            kinds["none"] += 1
            continue
        digit, thickness, slant = captions.parse(text)
        assert text == captions.caption(digit, thickness, slant)
        kinds[names[thickness is not None, slant is not None]] += 1
    expected = {"none": 0.1, "digit": 0.06, "thickness": 0.06, "slant": 0.06, "full": 0.72}
    for kind, share in expected.items():
        spread = 4 * math.sqrt(share * (1 - share) / 900)
        assert kinds[kind] / 900 == pytest.approx(share, abs=spread), kinds


def test_a_mixture_holds_every_task_in_its_share_and_repeats():
    tokenizer, vocab, pool = tiny_tokenizer(), load_vocabulary(16), mnist_pool(real_images(2000))
    mixture = tuple((task, 1.0) for task in TRAINED)
    preset = changed(BACKBONE, mixture=mixture, batch_size=600, unconditional_rate=0.0)
    batches = mixture_batches(tokenizer, vocab, pool, preset, 3)
    again = mixture_batches(tokenizer, vocab, pool, preset, 3)
    assert len(batches) == len(again)
    texts = []
    for a, b in zip(batches, again):
        assert torch.equal(a.ids, b.ids) and torch.equal(a.targets, b.targets)
        texts += [vocab.decode(row) for row in a.ids]
    assert len(texts) == 600
    tasks = {"draw": 2, "describe": 7, "edit": 4, "think": 4, "interleave": 1}
    for system, prompt in SYSTEM_PROMPTS.items():
        expected = 600 * tasks[system] / 18
        count = sum(prompt in text for text in texts)
        assert abs(count - expected) < 5 * math.sqrt(expected), system


def rows_of(preset, step=0, pool=None):
    """Ids and targets of the real tokens of every row of a step."""
    pool, rows = pool or mnist_pool(real_images(400)), []
    for batch in mixture_batches(tiny_tokenizer(), load_vocabulary(16), pool, preset, step):
        for ids, targets, real in zip(batch.ids, batch.targets, batch.real):
            rows.append((ids[real | ~targets], targets[real | ~targets]))
    return rows


def prompts_of(*args):
    vocab = load_vocabulary(16)
    return [prompt_of(vocab.decode(ids)) for ids, _ in rows_of(*args)]


def test_a_mixture_holds_out_sums_and_words_them_as_its_settings_say():
    sums = changed(BACKBONE, mixture=(("sum_direct", 1.0),), batch_size=200, unconditional_rate=0.0)
    for held_out in (0, 9):
        pairs = {tuple(numbers_in(p)) for p in prompts_of(changed(sums, held_out=held_out))}
        assert bool(pairs & set(UNSEEN_SUMS)) == (held_out == 0) and len(pairs) > 30
    for many in (False, True):
        texts = prompts_of(changed(sums, many_wordings=many))
        assert any("please" in text for text in texts) == many


def test_another_seed_is_not_another_step():
    one, two = (changed(BACKBONE, seed=seed) for seed in (5, 6))
    found = [sorted(prompts_of(*pair)) for pair in ((one, 0), (one, 1), (two, 0))]
    assert found[0] != found[1] != found[2] != found[0]


def test_what_is_given_of_a_response_is_no_target():
    vocab, drill = load_vocabulary(16), changed(BACKBONE, mixture=(("go_on", 1.0),))
    for ids, targets in rows_of(changed(drill, unconditional_rate=0.0)):
        assert vocab.decode(ids[targets]).startswith("; ")


def test_stored_codes_are_passed_by_where_fresh_ones_are_asked_for():
    pool, vocab = mnist_pool(real_images(40)), load_vocabulary(16)
    pool.codes = torch.full((40, 4, 4), 15)
    for fresh in (False, True):
        rows = rows_of(changed(BACKBONE, fresh_codes=fresh), 0, pool)
        codes = (
            torch.cat([ids[vocab.is_image()[ids]] for ids, _ in rows]) - vocab.image_token_offset
        )
        assert (len(codes.unique()) > 1) == fresh


def test_block_size_one_pads_as_the_others_do():
    vocab, tokenizer, pool = load_vocabulary(16), tiny_tokenizer(), mnist_pool(real_images(40))
    batches = mixture_batches(tokenizer, vocab, pool, changed(BACKBONE, block_size=1), 0)
    assert all(batch.ids.shape[1] % 16 == 0 for batch in batches)


def test_packing_holds_the_same_sequences_in_rows_of_one_length():
    vocab, tokenizer, pool = load_vocabulary(16), tiny_tokenizer(), mnist_pool(real_images(40))
    apart = mixture_batches(tokenizer, vocab, pool, BACKBONE, 1)
    preset = changed(BACKBONE, pack_length=128, mixture=BOTH_WAYS)
    (packed,) = mixture_batches(tokenizer, vocab, pool, preset, 1)
    assert packed.ids.shape[1] == 128
    assert len(packed.ids) < SHORT.batch_size
    texts = []
    for batch in apart:
        texts += [vocab.decode(row).split("<|endoftext|>")[0] for row in batch.ids]
    found = []
    for row, document in zip(packed.ids, packed.documents):
        for number in range(int(document.max()) + 1):
            found.append(vocab.decode(row[document == number]).split("<|endoftext|>")[0])
    assert sorted(found) == sorted(texts)
    assert int(packed.real.sum()) == sum(int(batch.real.sum()) for batch in apart)


def test_stored_codes_are_used_and_only_edits_are_computed(monkeypatch):
    tokenizer = tiny_tokenizer(channels=3)
    sample = load_cifar10_sample("train")
    images = sample._replace(pixels=sample.pixels[:40], labels=sample.labels[:40])
    codes = torch.randint(16, (40, 4, 4), generator=generator(3))
    measured = measured_pool(CIFAR10, images)
    pool = Pool(images, measured.columns, measured.measures, CIFAR10, codes)
    pictures = [Picture(3), Picture(5), Picture(5, "mirror it")]
    found = picture_codes(tokenizer, pool, pictures, generator())
    assert torch.equal(found[Picture(3)], codes[3]) and torch.equal(found[Picture(5)], codes[5])
    expected = tokenizer.encode(images.floats([5]).flip(-1))[0]
    assert torch.equal(found[Picture(5, "mirror it")], expected)


def test_codes_of_another_tokenizer_are_refused():
    pool = mnist_pool(real_images(20))
    check_codes(pool, {"sha256": "abc"})  # no codes: nothing to check
    pool.codes, pool.made_by = torch.zeros(20, 4, 4).long(), "abc"
    check_codes(pool, {"sha256": "abc"})
    with pytest.raises(ValueError, match="codes of another tokenizer; make them again with `mini"):
        check_codes(pool, {"sha256": "def"})


def test_fresh_codes_are_those_of_moved_and_mirrored_images(monkeypatch):
    """Though the pool has codes: half of the images are mirrored, before and after an edit."""
    images = load_cifar10_sample("train")
    pool = measured_pool(CIFAR10, images)
    pool.codes = torch.zeros(len(pool), 2, 2, dtype=torch.long)
    tokenizer, shown = tiny_tokenizer(channels=3, patch_size=16), []
    monkeypatch.setattr(stream, "shift", lambda images, generator: images)

    def encode(images):
        shown.append(images)
        return torch.ones(len(images), 2, 2, dtype=torch.long)

    monkeypatch.setattr(tokenizer, "encode", encode)
    pictures = [Picture(i, o) for i in range(40) for o in (None, "invert it")]
    codes = picture_codes(tokenizer, pool, pictures, generator(), fresh=True)
    assert all(code.all() for code in codes.values())
    plain, inverted = shown[0][0::2], shown[0][1::2]
    assert torch.allclose(plain, 1 - inverted, atol=1e-6)
    originals = images.floats(slice(0, 40))
    mirrored = (plain == originals.flip(-1)).flatten(1).all(1)
    unchanged = (plain == originals).flatten(1).all(1)
    assert (mirrored | unchanged).all() and 10 < int(mirrored.sum()) < 30


def test_codes_looked_up_are_those_of_moved_images():
    """Of each picture: one of the moves, and of a picture and its edit the same move."""
    images = load_cifar10_sample("train")
    few = images._replace(pixels=images.pixels[:30], labels=images.labels[:30])
    pool, tokenizer = measured_pool(CIFAR10, few), tiny_tokenizer(channels=3, patch_size=16)
    pool.moved = moved_codes(tokenizer, pool, 2, seed=7)
    pictures = [Picture(i, o) for i in range(30) for o in (None, "mirror it", "invert it")]
    codes = picture_codes(tokenizer, pool, pictures, generator(3))
    moves = []
    for move in range(2):
        shown = stream.at_random(few.floats(), step_generator(7, move), flips=True)
        moves.append([shown, edits.mirror(shown), edits.invert(shown)])
    chosen = torch.randint(2, (30,), generator=generator(3)).tolist()
    assert set(chosen) == {0, 1}
    for index, move in enumerate(chosen):
        for place, operation in enumerate((None, "mirror it", "invert it")):
            expected = tokenizer.encode(moves[move][place][index][None])[0]
            assert torch.equal(codes[Picture(index, operation)], expected)


def test_codes_beyond_16_bits_stay_what_they_are():
    images = load_cifar10_sample("train")
    few = images._replace(pixels=images.pixels[:30], labels=images.labels[:30])
    tokenizer = tiny_tokenizer(channels=3, patch_size=16, codebook_size=40_000)
    pool = measured_pool(CIFAR10, few)
    table = moved_codes(tokenizer, pool, 1, seed=7, edited=False)
    shown = stream.at_random(few.floats(), step_generator(7, 0), flips=True)
    expected = tokenizer.encode(shown)
    assert int(expected.max()) >= 2**15, "the test shows nothing without a large code"
    assert torch.equal(table[0, 0].long(), expected)
