"""The loss against a loop over blocks, the bound against an enumeration of every mask."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import MASK, few, generator, many, random_ids, tiny_backbone, tiny_vocab
from hypothesis import given
from hypothesis import strategies as st
from reference import autoregressive_nats, block_nats, loss_by_formula

import minillada.masks as masks_module
from minillada import diffusion
from minillada.batching import WHOLE, Batch, Portion, collate, pack
from minillada.config import ObjectiveConfig
from minillada.diffusion import corrupt, replace_tokens, sample_mask_rates
from minillada.layout import TokenSequence
from minillada.masks import TiledMask, block_diffusion_mask
from minillada.objectives import OBJECTIVES, View


def loss_of(backbone, ids, targets, size, mask_id, mask_rate, source, **settings):
    """`block_diffusion_loss` of plain tensors; settings of `ObjectiveConfig` by name."""
    offset = settings.pop("image_offset", 0)
    batch = Batch(ids, targets, targets, settings.pop("documents", None))
    config = ObjectiveConfig(mask_rate=mask_rate, **settings)
    vocab = SimpleNamespace(mask_id=mask_id, image_token_offset=offset)
    return diffusion.block_diffusion_loss(backbone, batch, vocab, size, config, source)


def bound_of(backbone, ids, targets, size, mask_id, source, samples=1):
    batch = Batch(ids, targets, targets)
    return diffusion.nll_bound(backbone, batch, size, mask_id, source, samples)


def nats_of(backbone, ids, noisy, masked, size):
    view = View(noisy, masked, torch.ones(1, 1))
    return diffusion.masked_cross_entropy(backbone, Batch(ids, masked, masked), view, size)


def prompt_targets(lengths: list[int], total: int) -> torch.Tensor:
    """Targets `[B, total]`: everything behind a prompt of the given length."""
    return torch.arange(total) >= torch.tensor(lengths)[:, None]


cases = dict(
    block_size=st.integers(1, 4),
    blocks=st.integers(1, 4),
    batch=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    low=st.sampled_from([0.2, 0.6, 1.0]),
)


@few
@given(data=st.data(), **cases)
def test_loss_and_gradient_equal_the_loop_over_blocks(data, block_size, blocks, batch, seed, low):
    length = block_size * blocks
    targets = prompt_targets([data.draw(st.integers(0, length - 1)) for _ in range(batch)], length)
    ids = random_ids(batch, length, seed=seed)
    backbone = tiny_backbone(seed % 7)

    source = generator(seed)  # the same draws in the same order as the loss makes them
    rates = sample_mask_rates(batch, blocks, low, 1.0, source)
    noisy_ids, masked, _ = corrupt(ids, targets, rates, block_size, MASK, source)
    if not masked.any():
        return
    view = View(noisy_ids, masked, rates)
    expected = loss_by_formula(backbone, ids, targets, block_size, [view], "bound", 0.0)
    slow = torch.autograd.grad(expected, list(backbone.parameters()))

    loss, metrics = loss_of(backbone, ids, targets, block_size, MASK, (low, 1.0), generator(seed))
    fast = torch.autograd.grad(loss, list(backbone.parameters()))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, atol=1e-3 * max(1.0, float(b.abs().max())))
    nats = nats_of(backbone, ids, noisy_ids, masked, block_size)
    assert metrics["masked_nats"] == pytest.approx(float(nats.detach().mean()), rel=1e-4)


@many
@given(
    data=st.data(),
    block_size=st.integers(1, 4),
    blocks=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_trimming_the_halves_changes_nothing(data, block_size, blocks, seed):
    """Against both halves in full, for any set of masked positions."""
    length = block_size * blocks
    flags = data.draw(st.lists(st.booleans(), min_size=2 * length, max_size=2 * length))
    masked = torch.tensor(flags).view(2, length)
    ids = random_ids(2, length, seed=seed)
    noisy_ids = ids.masked_fill(masked, MASK)
    backbone, index = tiny_backbone(seed % 7), torch.arange(length)
    with torch.no_grad():
        trimmed = nats_of(backbone, ids, noisy_ids, masked, block_size)
        hidden = backbone.hidden_states(
            torch.cat([noisy_ids, ids], 1),
            block_diffusion_mask(index, index, block_size),
            torch.cat([index, index])[None],
        )
        logits = backbone.logits(hidden[:, :length])
        full = torch.tensor(
            [float(F.cross_entropy(logits[r, i], ids[r, i])) for r, i in masked.nonzero().tolist()]
        )
    assert trimmed.shape == full.shape
    assert torch.allclose(trimmed, full, atol=1e-4)


def test_trimming_leaves_out_what_nobody_needs():
    """The prompt asks nothing, the last block serves nobody: 2 + 2 blocks instead of 4 + 4."""
    backbone, seen = tiny_backbone(), []
    original = backbone.hidden_states
    backbone.hidden_states = lambda ids, *rest: seen.append(ids.shape[1]) or original(ids, *rest)
    ids = random_ids(1, 16)
    masked = torch.zeros(1, 16, dtype=torch.bool)
    masked[0, [5, 11]] = True
    nats_of(backbone, ids, ids.masked_fill(masked, MASK), masked, 4)
    assert seen == [2 * 4 + 2 * 4]  # noisy blocks 1 and 2, clean blocks 0 and 1


def test_logits_are_computed_at_masked_positions_only():
    backbone, asked = tiny_backbone(), []
    original = backbone.logits
    backbone.logits = lambda hidden: asked.append(tuple(hidden.shape)) or original(hidden)
    ids, masked = random_ids(2, 8), torch.zeros(2, 8, dtype=torch.bool)
    masked[0, 3] = masked[1, 6] = masked[1, 7] = True
    nats_of(backbone, ids, ids.masked_fill(masked, MASK), masked, 4)
    assert asked == [(3, 16)]


# --- the two ends: block size 1 and block size L -------------------------------------------------


@few
@given(length=st.integers(1, 7), prompt=st.integers(0, 6), seed=st.integers(0, 999))
def test_block_size_one_is_autoregression(length, prompt, seed):
    prompt = min(prompt, length - 1)
    ids, backbone = random_ids(2, length, seed=seed), tiny_backbone(seed % 7)
    targets = prompt_targets([prompt, prompt], length)
    with torch.no_grad():
        nats = torch.stack([autoregressive_nats(backbone, row)[prompt:].sum() for row in ids])
        loss, _ = loss_of(backbone, ids, targets, 1, MASK, (1.0, 1.0), generator(seed))
        bound = bound_of(backbone, ids, targets, 1, MASK, generator(seed))
    assert float(loss) == pytest.approx(float(nats.sum()) / int(targets.sum()), rel=1e-4)
    assert torch.allclose(bound, nats, rtol=1e-4)  # exact, whatever the seed


def test_block_size_one_is_a_distribution_over_sequences():
    """A likelihood, not only a bound: over all 5³ sequences the probabilities sum to 1."""
    backbone = tiny_backbone(3, vocab_size=5)
    ids = torch.tensor(list(itertools.product(range(5), repeat=3)))
    bound = bound_of(backbone, ids, torch.ones_like(ids, dtype=torch.bool), 1, MASK, generator())
    assert not bound.requires_grad, "what is only measured keeps no activations"
    assert float((-bound).exp().sum()) == pytest.approx(1.0, abs=1e-4)
    assert float((-bound).exp().max()) > 0.03, (
        "a model this confident would notice a misplaced token"
    )


@few
@given(length=st.integers(1, 8), seed=st.integers(0, 999))
def test_block_size_length_is_masked_diffusion(length, seed):
    """No clean half: one forward with full attention on x_t, as in LLaDA."""
    ids, backbone = random_ids(3, length, seed=seed), tiny_backbone(seed % 7)
    targets = prompt_targets([0, 0, length // 2], length)
    source = generator(seed)
    rates = sample_mask_rates(3, 1, 0.3, 1.0, source)
    noisy_ids, masked, _ = corrupt(ids, targets, rates, length, MASK, source)
    widths = []
    original = backbone.hidden_states
    backbone.hidden_states = lambda ids, *rest: widths.append(ids.shape[1]) or original(ids, *rest)
    with torch.no_grad():
        loss, _ = loss_of(backbone, ids, targets, length, MASK, (0.3, 1.0), generator(seed))
        nats = F.cross_entropy(backbone(noisy_ids).transpose(1, 2), ids, reduction="none")
    assert widths[0] == length or not masked.any()
    assert float(loss) == pytest.approx(
        float((nats * masked / rates).sum() / targets.sum()), rel=1e-4, abs=1e-6
    )


# --- the bound, enumerated -----------------------------------------------------------------------

WORDS, TOKENS, HIDDEN = 3, 3, 3  # a vocabulary of three words; id 3 is the mask


class TableModel:
    """A "backbone" that looks up log p `[4, 4, 4, TOKENS, WORDS]` for every x_t of three."""

    def __init__(self, table: torch.Tensor):
        self.table = table
        self.config = SimpleNamespace(vocab_size=WORDS + 1)

    def hidden_states(self, ids, mask, positions):
        assert ids.shape[1] == TOKENS and mask.all() and positions.tolist() == [[0, 1, 2]]
        return self.table[ids[:, 0], ids[:, 1], ids[:, 2]]

    def logits(self, hidden):
        return hidden


def random_table(seed: int) -> TableModel:
    return TableModel(
        (2 * torch.randn(4, 4, 4, TOKENS, WORDS, generator=generator(seed))).log_softmax(-1)
    )


def consistent_table(seed: int) -> tuple[TableModel, torch.Tensor]:
    """The exact conditionals of a true joint distribution `[3, 3, 3]`, which comes with them."""
    joint = (2 * torch.randn(WORDS**TOKENS, generator=generator(seed))).softmax(0).view(3, 3, 3)
    table = torch.zeros(4, 4, 4, TOKENS, WORDS)
    for state in itertools.product(range(4), repeat=TOKENS):
        seen = joint[tuple(slice(None) if s == HIDDEN else slice(s, s + 1) for s in state)]
        for i in range(TOKENS):
            marginal = seen.sum([d for d in range(TOKENS) if d != i])
            table[state][i] = (marginal / marginal.sum()).log() if state[i] == HIDDEN else 0.0
    return TableModel(table), joint


def subsets():
    return [s for n in range(1, TOKENS + 1) for s in itertools.combinations(range(TOKENS), n)]


def subset_nats(model: TableModel, x: tuple, hidden: tuple) -> float:
    """Σ_{i in S} −log p(x_i | x with S masked)."""
    state = tuple(HIDDEN if i in hidden else w for i, w in enumerate(x))
    return -sum(float(model.table[state][i, x[i]]) for i in hidden)


def bound_by_enumeration(model: TableModel, x: tuple) -> float:
    """Every mask with its exact weight ∫ (1/t) t^n (1−t)^(m−n) dt = (n−1)! (m−n)! / m!."""
    m = TOKENS
    weight = {
        n: math.factorial(n - 1) * math.factorial(m - n) / math.factorial(m)
        for n in range(1, m + 1)
    }
    return sum(weight[len(s)] * subset_nats(model, x, s) for s in subsets())


def integral_over_rates(
    model: TableModel, x: tuple, low: float, high: float, points: int = 20_000
) -> float:
    """The same by the midpoint rule: the mean over t of (1/t) Σ_S t^n (1−t)^(m−n) Σ nats."""
    t = low + (high - low) * (torch.arange(points, dtype=torch.double) + 0.5) / points
    values = sum(
        t ** len(s) * (1 - t) ** (TOKENS - len(s)) / t * subset_nats(model, x, s) for s in subsets()
    )
    return float(values.mean())


@pytest.mark.parametrize("x", [(0, 1, 2), (2, 2, 0)])
def test_closed_form_weight_equals_the_integral(x):
    model = random_table(5)
    assert bound_by_enumeration(model, x) == pytest.approx(
        integral_over_rates(model, x, 0.0, 1.0), rel=1e-5
    )


@pytest.mark.parametrize(("seed", "x"), [(0, (0, 1, 2)), (1, (2, 2, 0)), (2, (1, 0, 1))])
def test_bound_draws_every_mask_with_its_exact_probability_and_value(seed, x):
    model, samples = random_table(seed), 30_000
    ids = torch.tensor([x]).repeat(samples, 1)
    values = bound_of(
        model, ids, torch.ones_like(ids, dtype=torch.bool), TOKENS, HIDDEN, generator(seed)
    )
    # n is uniform and so is the mask of size n: probability 1 / (m C(m, n)), value (m / n) Σ nats.
    expected = {
        s: (1 / (TOKENS * math.comb(TOKENS, len(s))), TOKENS / len(s) * subset_nats(model, x, s))
        for s in subsets()
    }
    remaining = samples
    for probability, value in expected.values():
        hits = int(((values - value).abs() < 1e-4).sum())
        spread = math.sqrt(samples * probability * (1 - probability))
        assert abs(hits - samples * probability) < 5 * spread
        remaining -= hits
    assert remaining == 0, "some sample is the value of no mask"
    assert sum(p * v for p, v in expected.values()) == pytest.approx(
        bound_by_enumeration(model, x), rel=1e-6
    )
    error = float(values.std()) / math.sqrt(samples)
    assert float(values.mean()) == pytest.approx(bound_by_enumeration(model, x), abs=5 * error)


@pytest.mark.parametrize("low", [0.05, 0.5])
def test_training_loss_averages_to_the_enumeration(low):
    model, x = random_table(3), (1, 2, 0)
    ids = torch.tensor([x]).repeat(256, 1)
    everything = torch.ones_like(ids, dtype=torch.bool)
    losses = torch.tensor(
        [
            float(loss_of(model, ids, everything, TOKENS, HIDDEN, (low, 1.0), generator(s))[0])
            for s in range(150)
        ]
    )
    exact = integral_over_rates(model, x, low, 1.0) / TOKENS
    error = float(losses.std()) / math.sqrt(len(losses))
    assert error < 0.01 * exact, "too noisy to prove anything"
    assert float(losses.mean()) == pytest.approx(exact, abs=5 * error)


def test_bound_is_the_mean_over_orders_and_at_least_the_true_value():
    """Masked diffusion is any-order autoregression: the bound is the mean of −log p over orders.

    By Jensen it is at least −log of the mean likelihood over orders, a true distribution.
    """
    model, total = random_table(7), 0.0
    for x in itertools.product(range(WORDS), repeat=TOKENS):
        by_order = []
        for order in itertools.permutations(range(TOKENS)):
            nats = 0.0
            for k, i in enumerate(order):
                state = tuple(w if j in order[:k] else HIDDEN for j, w in enumerate(x))
                nats -= float(model.table[state][i, x[i]])
            by_order.append(nats)
        bound = bound_by_enumeration(model, x)
        assert bound == pytest.approx(sum(by_order) / 6, rel=1e-5)
        likelihood = sum(math.exp(-n) for n in by_order) / 6
        assert bound >= -math.log(likelihood) - 1e-6
        total += likelihood
    assert total == pytest.approx(1.0, abs=1e-5)


def test_bound_of_a_consistent_model_is_the_likelihood():
    model, joint = consistent_table(11)
    for x in itertools.product(range(WORDS), repeat=TOKENS):
        assert bound_by_enumeration(model, x) == pytest.approx(-math.log(float(joint[x])), rel=1e-4)
    # The sampled bound agrees on average; with true conditionals only the choice of mask is random.
    ids = torch.tensor([[2, 0, 1]]).repeat(20_000, 1)
    values = bound_of(
        model, ids, torch.ones_like(ids, dtype=torch.bool), TOKENS, HIDDEN, generator(1)
    )
    error = float(values.std()) / math.sqrt(len(values))
    assert float(values.mean()) == pytest.approx(-math.log(float(joint[2, 0, 1])), abs=5 * error)


def test_bound_of_the_backbone_is_the_enumeration_over_blocks():
    """Two blocks of three, two tokens of prompt: every mask of every block by its own forward."""
    backbone, block_size, prompt = tiny_backbone(6, initializer_range=0.25), 3, 2
    row = random_ids(1, 6, seed=4)[0]
    exact = 0.0
    with torch.no_grad():
        for block in range(2):
            places = [i for i in range(block * 3, block * 3 + 3) if i >= prompt]
            m = len(places)
            for n in range(1, m + 1):
                for hidden in itertools.combinations(places, n):
                    noisy = row.clone()
                    noisy[list(hidden)] = MASK
                    nats = block_nats(backbone, row, noisy, block, block_size)
                    exact += float(nats[[i - block * 3 for i in hidden]].sum()) / (
                        n * math.comb(m, n)
                    )
    samples = 6_000
    ids = row.repeat(samples, 1)
    values = bound_of(
        backbone, ids, prompt_targets([prompt] * samples, 6), block_size, MASK, generator(2)
    )
    error = float(values.std()) / math.sqrt(samples)
    assert error < 0.02 * exact
    assert float(values.mean()) == pytest.approx(exact, abs=5 * error)


# --- corruption ----------------------------------------------------------------------------------


@many
@given(
    batch=st.integers(1, 40),
    blocks=st.integers(1, 4),
    low=st.floats(0, 0.9),
    width=st.floats(0.01, 0.1),
    seed=st.integers(0, 9999),
)
def test_mask_rates_cover_the_interval_evenly(batch, blocks, low, width, seed):
    """Of `batch` equal parts of the interval each holds exactly one row, in every block."""
    rates = sample_mask_rates(batch, blocks, low, low + width, generator(seed))
    assert rates.shape == (batch, blocks)
    edges = (rates.double().sort(0).values - low) / width * batch
    expected = torch.arange(batch, dtype=torch.double)[:, None]
    assert (edges >= expected - 1e-2).all() and (edges <= expected + 1 + 1e-2).all()
    offset = edges - expected
    assert torch.allclose(offset, offset[:1].expand_as(offset), atol=1e-2), "the same in each part"


def test_each_single_mask_rate_is_uniform_and_rows_are_shuffled_per_block():
    rates = torch.stack([sample_mask_rates(4, 2, 0.2, 0.8, generator(s)) for s in range(4000)])
    one_row = sample_mask_rates(1, 4000, 0.2, 0.8, generator())[0]  # blocks are independent
    for values in (*rates.flatten(1).T, one_row):
        values = (values.sort().values - 0.2) / 0.6
        ideal = (torch.arange(4000) + 0.5) / 4000
        assert float((values - ideal).abs().max()) < 1.63 / math.sqrt(
            4000
        )  # Kolmogorov–Smirnov, 1 %
    first, second = rates[:, 0, 0], rates[:, 0, 1]
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.06


@few
@given(
    block_size=st.integers(1, 4), blocks=st.integers(1, 4), seed=st.integers(0, 999), data=st.data()
)
def test_corruption_masks_targets_and_nothing_else(block_size, blocks, seed, data):
    length = block_size * blocks
    flags = data.draw(st.lists(st.booleans(), min_size=3 * length, max_size=3 * length))
    targets, ids = torch.tensor(flags).view(3, length), random_ids(3, length, seed=seed)
    rates = torch.rand(3, blocks, generator=generator(seed))
    noisy, masked, _ = corrupt(ids, targets, rates, block_size, MASK, generator(seed))
    assert not (masked & ~targets).any()  # a prompt is never masked
    assert torch.equal(noisy, torch.where(masked, MASK, ids))
    everything, chosen, _ = corrupt(
        ids, targets, torch.ones(3, blocks), block_size, MASK, generator(seed)
    )
    assert torch.equal(chosen, targets) and torch.equal(everything == MASK, targets)
    nothing, chosen, _ = corrupt(
        ids, targets, torch.zeros(3, blocks), block_size, MASK, generator(seed)
    )
    assert not chosen.any() and torch.equal(nothing, ids)


def test_each_block_is_masked_at_its_own_rate():
    rates = torch.tensor([[0.1, 0.5, 0.9], [0.7, 0.2, 0.4]])
    ids = random_ids(2, 6000)
    masked = corrupt(
        ids, torch.ones_like(ids, dtype=torch.bool), rates, 2000, MASK, generator()
    ).masked
    shares = masked.view(2, 3, 2000).float().mean(-1)
    assert torch.allclose(shares, rates, atol=5 * math.sqrt(0.25 / 2000))


# --- objectives, views, packing ------------------------------------------------------------------


@few
@given(
    objective=st.sampled_from(sorted(OBJECTIVES)),
    complementary=st.booleans(),
    copies=st.integers(1, 2),
    lam=st.sampled_from([0.0, 2.0]),
    per=st.sampled_from(["block", "sequence"]),
    block_size=st.integers(1, 4),
    blocks=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_every_objective_with_views_equals_its_formula(
    objective, complementary, copies, lam, per, block_size, blocks, seed
):
    """K views in one pass over one clean copy = K passes, in value and in gradient."""
    length, batch = block_size * blocks, 2
    ids, targets = (
        random_ids(batch, length, seed=seed),
        prompt_targets([0, min(1, length - 1)], length),
    )
    backbone = tiny_backbone(seed % 7)
    source = generator(seed)
    rates = sample_mask_rates(
        batch * copies, blocks if per == "block" else 1, 0.2, 0.8, source
    ).expand(-1, blocks)
    noisy_ids, masked, _ = corrupt(
        ids.repeat_interleave(copies, 0),
        targets.repeat_interleave(copies, 0),
        rates,
        block_size,
        MASK,
        source,
    )
    views = []
    for k in range(copies):
        view = View(noisy_ids[k::copies], masked[k::copies], rates[k::copies])
        views.append(view)
        if complementary:
            inverse = targets & ~view.masked
            views.append(View(ids.masked_fill(inverse, MASK), inverse, 1 - view.rates))
    if not any(view.masked.any() for view in views):
        return
    expected = loss_by_formula(backbone, ids, targets, block_size, views, objective, lam)
    loss, metrics = loss_of(
        backbone,
        ids,
        targets,
        block_size,
        MASK,
        (0.2, 0.8),
        generator(seed),
        objective=objective,
        mask_rate_per=per,
        complementary=complementary,
        confidence_weight=lam,
        views=copies,
    )
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-6)
    assert ("right_entropy" in metrics) == (lam > 0)
    slow, fast = (
        torch.autograd.grad(value, list(backbone.parameters())) for value in (expected, loss)
    )
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, atol=1e-3 * max(1.0, float(b.abs().max())))


def test_replaced_tokens_keep_their_modality_and_come_from_the_batch():
    ids, shown, offset = (
        random_ids(40, 16, seed=2),
        torch.rand(40, 16, generator=generator(3)) < 0.6,
        14,
    )
    noisy = replace_tokens(ids, shown, 0.5, offset, generator())
    changed = noisy != ids
    assert not (changed & ~shown).any(), "only what is visible and asked"
    assert torch.equal(noisy >= offset, ids >= offset), "a word stays a word, a code a code"
    assert (
        0.4 < float(changed.sum() / shown.sum()) < 0.5
    )  # a half, less those replaced by themselves
    words = ids < offset
    rare = ids.where(~words, 3).where(shown | ~words, 7)  # words are 3, those not shown 7
    rare[tuple((words & shown).nonzero()[0])] = 5  # and one is 5
    drawn = replace_tokens(rare, shown, 0.2, offset, generator(5))[words & shown]
    drawn = drawn[drawn != 3]
    assert set(drawn.tolist()) == {5} and 10 < len(drawn) < 35, "all words that occur are as likely"
    assert torch.equal(replace_tokens(ids, shown, 0.0, offset, generator()), ids)
    assert torch.equal(replace_tokens(ids, shown & False, 1.0, offset, generator()), ids), (
        "nothing to replace, nothing to draw from"
    )


@few
@given(
    share=st.sampled_from([0.3, 1.0]),
    lam=st.sampled_from([0.0, 2.0]),
    block_size=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_learning_to_edit_adds_the_nats_of_all_visible_targets(share, lam, block_size, seed):
    """Replaced or not. Masked tokens see replaced ones in their block, but a clean prefix."""
    length, offset, backbone = 3 * block_size, 14, tiny_backbone(seed % 7)
    ids, targets = random_ids(2, length, seed=seed), prompt_targets([0, 1], length)
    source = generator(seed)
    rates = sample_mask_rates(2, 3, 0.2, 0.8, source)
    noisy_ids, masked, _ = corrupt(ids, targets, rates, block_size, MASK, source)
    shown = targets & ~masked
    if not masked.any() or not shown.any():
        return
    noisy_ids = replace_tokens(noisy_ids, shown, share, offset, source)
    nats = [
        block_nats(backbone, ids[r], noisy_ids[r], b, block_size)
        for r in range(2)
        for b in range(3)
    ]
    expected = loss_by_formula(
        backbone, ids, targets, block_size, [View(noisy_ids, masked, rates)], "bound", lam
    )
    expected = expected + torch.cat(nats).view(2, length)[shown].mean()
    loss, metrics = loss_of(
        backbone,
        ids,
        targets,
        block_size,
        MASK,
        (0.2, 0.8),
        generator(seed),
        confidence_weight=lam,
        edit_noise=share,
        image_offset=offset,
    )
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert metrics["visible_nats"] == pytest.approx(
        float(torch.cat(nats).detach().view(2, length)[shown].mean()), rel=1e-4
    )
    slow, fast = (
        torch.autograd.grad(value, list(backbone.parameters())) for value in (expected, loss)
    )
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, atol=1e-3 * max(1.0, float(b.abs().max())))


def test_only_masked_tokens_learn_to_be_certain():
    """Visible ones are predicted, too, when there is edit noise; here so little that none is hit.

    Of five ids many are predicted right.
    """
    backbone, ids = tiny_backbone(3, vocab_size=5), random_ids(4, 16, 5)

    def entropy(share):
        settings = dict(confidence_weight=1.0, edit_noise=share)
        _, metrics = loss_of(backbone, ids, ids > 0, 4, MASK, (0.3, 0.7), generator(), **settings)
        return metrics["right_entropy"]

    assert entropy(1e-9) == pytest.approx(entropy(0.0), rel=1e-5) and entropy(0.0) > 0.1


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_text_tokens_count_as_often_as_their_weight_says(objective):
    """The loss is (text part) · weight + image part."""
    backbone, offset, mixed = tiny_backbone(2), 12, random_ids(3, 12)

    @torch.no_grad()
    def loss(weight, ids=mixed):
        settings = dict(objective=objective, text_weight=weight, image_offset=offset)
        return float(
            loss_of(backbone, ids, ids > 0, 4, MASK, (0.3, 1.0), generator(4), **settings)[0]
        )

    text = (loss(3.0) - loss(1.0)) / 2
    assert 0.1 * loss(1.0) < text < 0.9 * loss(1.0), (
        "both kinds must count for this to prove anything"
    )
    assert loss(5.0) == pytest.approx(loss(1.0) + 4 * text, rel=1e-5)
    codes, words = mixed.clamp(min=offset), mixed.clamp(max=offset - 1)
    assert loss(3.0, codes) == pytest.approx(loss(1.0, codes), rel=1e-6)
    assert loss(3.0, words) == pytest.approx(3 * loss(1.0, words), rel=1e-6)


def loss_and_gradients(backbone, ids, targets, block_size, device="cpu", **settings):
    loss, _ = loss_of(
        backbone.to(device),
        ids.to(device),
        targets.to(device),
        block_size,
        MASK,
        (0.3, 1.0),
        generator(2),
        **settings,
    )
    return [loss, *torch.autograd.grad(loss, list(backbone.parameters()))]


def assert_close(ours, theirs, tolerance=1e-4):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=tolerance * max(1.0, float(b.detach().abs().max())))


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("block_size", [1, 4, 8])
def test_tiled_attention_equals_the_dense_one(monkeypatch, block_size, views):
    backbone, ids, targets, forms = (
        tiny_backbone(1),
        random_ids(2, 32),
        prompt_targets([3, 9], 32),
        [],
    )
    original = backbone.hidden_states
    backbone.hidden_states = lambda ids, mask, positions: (
        forms.append(type(mask)) or original(ids, mask, positions)
    )
    dense = loss_and_gradients(backbone, ids, targets, block_size, views=views)
    monkeypatch.setattr(masks_module, "TILES_FROM", 1)
    monkeypatch.setattr(masks_module, "TILE", 8)
    monkeypatch.setattr(masks_module, "FLEX_FROM", 1)  # means nothing on a CPU
    assert_close(loss_and_gradients(backbone, ids, targets, block_size, views=views), dense)
    assert forms == [torch.Tensor, TiledMask]


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="FlexAttention has gradients on a GPU only"
)
@pytest.mark.parametrize("packed", [False, True])
def test_flex_attention_equals_the_dense_one(monkeypatch, packed):
    """Blocks of 4 and 32, kernel tiles of 128, a length that no tile divides, several rows."""
    backbone = tiny_backbone(1, head_dim=16, max_position_embeddings=512)
    ids, targets = random_ids(3, 352), prompt_targets([3, 9, 40], 352)
    documents = (
        torch.arange(352).expand(3, -1) // torch.tensor([[96], [128], [352]]) if packed else None
    )
    documents = None if documents is None else documents.cuda()
    for block_size in (4, 32):
        monkeypatch.setattr(masks_module, "FLEX_FROM", 10**6)
        dense = loss_and_gradients(
            backbone, ids, targets, block_size, "cuda", views=2, documents=documents
        )
        monkeypatch.setattr(masks_module, "FLEX_FROM", 1)
        flex = loss_and_gradients(
            backbone, ids, targets, block_size, "cuda", views=2, documents=documents
        )
        assert_close(flex, dense, 1e-3)


@pytest.mark.parametrize(
    "experts", [{}, dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)]
)
def test_activation_checkpointing_changes_no_gradient(experts):
    backbone, ids, targets, calls = (
        tiny_backbone(1, **experts).train(),
        random_ids(2, 16),
        prompt_targets([3, 9], 16),
        [],
    )
    for layer in backbone.model.layers:
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    stored = loss_and_gradients(backbone, ids, targets, 4)
    assert len(calls) == 2
    backbone.activation_checkpointing = True
    again = loss_and_gradients(backbone, ids, targets, 4)
    assert len(calls) == 6, "forward once, and once more in backward"
    assert all(torch.equal(a, b) for a, b in zip(again, stored, strict=True))


@pytest.mark.parametrize("lengths", [[9, 13, 4, 7, 16, 2], [16, 16], [5]])
def test_a_packed_row_is_the_sum_of_its_sequences(lengths):
    """Tokens decide what is masked: packed and single sequences have equal nats and gradients."""
    vocab, backbone = tiny_vocab(), tiny_backbone(3, vocab_size=tiny_vocab().size)
    sequences = [TokenSequence(random_ids(1, n, 200, seed=n)[0].tolist(), n // 3) for n in lengths]
    packed = pack(sequences, vocab, 24, 4)
    assert len(packed.ids) < len(sequences) or len(sequences) < 3

    def nats(batch):
        masked = batch.targets & (batch.ids % 3 > 0)
        noisy = batch.ids.masked_fill(masked, vocab.mask_id)
        view = View(noisy, masked, torch.ones(1, 1))
        return diffusion.masked_cross_entropy(backbone, batch, view, 4).sum()

    alone = sum(nats(collate([sequence], vocab, 4)) for sequence in sequences)
    together = nats(packed)
    without = nats(packed._replace(documents=None))
    assert_close(
        *(
            [value, *torch.autograd.grad(value, list(backbone.parameters()))]
            for value in (together, alone)
        )
    )
    shared = int(packed.documents.max()) > 0
    assert shared == (abs(float(without.detach() - alone.detach())) > 0.1), (
        "only rows of several texts need the document mask"
    )


@pytest.mark.parametrize("tiles_from", [1, 10**6])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("of", [2, 4])
def test_the_losses_of_portions_add_up(monkeypatch, of, packed, tiles_from):
    """In value and gradient. Of four portions one has no row, and its gradient is zeros."""
    monkeypatch.setattr(masks_module, "TILES_FROM", tiles_from)
    sparse = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
    backbone, ids = tiny_backbone(1, **sparse), random_ids(3, 8)  # a dense layer and experts
    documents = torch.arange(8) // torch.tensor([[4], [8], [4]]) if packed else None
    batch, config = Batch(ids, ids > 0, ids > 0, documents), ObjectiveConfig(views=2)
    vocab = SimpleNamespace(mask_id=MASK, image_token_offset=0)

    def loss(portion):
        value, metrics = diffusion.block_diffusion_loss(
            backbone, batch, vocab, 4, config, generator(2), portion
        )
        gradient = torch.autograd.grad(value, list(backbone.parameters()))
        return [value, torch.tensor(metrics["masked_nats"]), *gradient]

    parts = [loss(Portion(number, of, first=1)) for number in range(of)]
    assert_close([sum(values) for values in zip(*parts)], loss(WHOLE))
    assert sum(bool(part[0] > 0) for part in parts) == min(of, len(ids))


@pytest.mark.parametrize("samples", [2, 3])
def test_stratified_samples_keep_the_mean_of_the_bound_and_lower_its_variance(samples):
    """Predictions get worse with every mask. Three strata for three tokens leave no noise."""
    x, rows = (1, 2, 0), 6000
    table = torch.zeros(4, 4, 4, TOKENS, WORDS)
    for state in itertools.product(range(4), repeat=TOKENS):
        table[state][torch.arange(TOKENS), torch.tensor(x)] = 4.0 - state.count(HIDDEN)
    model = TableModel(table.log_softmax(-1))
    ids = torch.tensor([x]).repeat(rows, 1)
    everything = torch.ones_like(ids, dtype=torch.bool)
    spread = bound_of(model, ids, everything, TOKENS, HIDDEN, generator(1), samples)
    source = generator(2)
    apart = torch.stack(
        [bound_of(model, ids, everything, TOKENS, HIDDEN, source) for _ in range(samples)]
    ).mean(0)
    once, again = (
        bound_of(model, ids[:9], everything[:9], TOKENS, HIDDEN, generator(1), samples)
        for _ in range(2)
    )
    assert torch.equal(once, again), "all random numbers are those of the generator"
    error = float(apart.std()) / math.sqrt(rows)
    assert error > 0 and float(spread.mean()) == pytest.approx(
        bound_by_enumeration(model, x), abs=5 * error
    )
    assert float(spread.var()) < (1e-6 if samples == TOKENS else 0.5) * float(apart.var())


# --- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [0, -1, 3, 16])
def test_block_size_must_divide_the_length(block_size):
    ids = random_ids(1, 8)
    everything = torch.ones_like(ids, dtype=torch.bool)
    with pytest.raises(ValueError, match="does not divide the length 8"):
        loss_of(tiny_backbone(), ids, everything, block_size, MASK, (0.1, 1.0), generator())
    with pytest.raises(ValueError, match="does not divide the length 8"):
        bound_of(tiny_backbone(), ids, everything, block_size, MASK, generator())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(objective="elbow"), "objective must be 'bound', 'count', 'uniform' or 'reweighted'"),
        (dict(mask_rate=(0.9, 0.1)), "mask_rate is an interval"),
        (dict(mask_rate=(0.0, 0.0)), "mask_rate is an interval"),
        (dict(mask_rate=(1.0, 1.0), complementary=True), "the complement masks nothing"),
        (dict(documents=torch.zeros(1, 8), mask_rate_per="sequence"), "needs one sequence per row"),
        (dict(documents=torch.zeros(1, 8), objective="reweighted"), "needs one sequence per row"),
    ],
)
def test_settings_that_cannot_be_trained_on(settings, sentence):
    ids = random_ids(1, 8)
    with pytest.raises(ValueError, match=sentence):
        loss_of(
            tiny_backbone(),
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            4,
            MASK,
            source=generator(),
            **{"mask_rate": (0.1, 1.0)} | settings,
        )


def test_a_batch_in_which_nothing_is_masked_costs_nothing():
    """With few targets and a small rate the loss can be 0; it can still be differentiated."""
    backbone, ids = tiny_backbone(), random_ids(2, 8)
    nobody = torch.zeros_like(ids, dtype=torch.bool)
    assert bound_of(backbone, ids, nobody, 4, MASK, generator()).tolist() == [0, 0]
    loss, metrics = loss_of(backbone, ids, nobody, 4, MASK, (0.1, 1.0), generator())
    assert loss.item() == 0 and metrics == {"masked_nats": 0.0}
    loss.backward()


def test_a_batch_in_which_nothing_is_visible_has_no_nats_of_visible_tokens():
    backbone, ids = tiny_backbone(), random_ids(2, 8)
    expected, metrics = loss_of(backbone, ids, ids > 0, 4, MASK, (1.0, 1.0), generator())
    loss, same = loss_of(backbone, ids, ids > 0, 4, MASK, (1.0, 1.0), generator(), edit_noise=0.5)
    assert float(loss.detach()) == float(expected.detach()) and same == metrics


@pytest.mark.parametrize("samples", [0, -1])
def test_a_bound_without_samples_is_refused(samples):
    """It was NaN."""
    ids = random_ids(1, 8)
    with pytest.raises(ValueError, match=f"take 1 or more, not {samples}"):
        bound_of(tiny_backbone(), ids, ids > 0, 4, MASK, generator(), samples)


@pytest.mark.parametrize(("blocks", "size"), [(2, 3), (1, 4), (3, 4)])
def test_rates_are_those_of_all_blocks(blocks, size):
    ids = random_ids(2, 8)
    rates = torch.ones(2, blocks)
    with pytest.raises(ValueError, match=f"8 tokens are not {blocks} blocks of {size}"):
        corrupt(ids, torch.ones_like(ids, dtype=torch.bool), rates, size, MASK, generator(0))
