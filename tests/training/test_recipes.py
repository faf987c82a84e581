"""Each recipe shows the model what it should, and weighs it as it should."""

import functools
from types import SimpleNamespace

import pytest
import torch
from helpers import generator, real_images, tiny_backbone, tiny_tokenizer
from tiny_runs import BACKBONE, SHORT, backbone_run

from minillada import layout
from minillada.batching import Portion
from minillada.config import JudgeConfig
from minillada.datasets import captions, colour, edits
from minillada.datasets.pool import mnist_pool
from minillada.datasets.table import MNIST
from minillada.measure.judge import Judge
from minillada.settings import changed
from minillada.training import loop, recipes
from minillada.training.loop import batch_indices, fit, step_generator
from minillada.training.stream import shift
from minillada.vocab import load_vocabulary


def test_caption_table_and_index_agree():
    text = load_vocabulary(16)
    table = recipes.caption_table(text, captions.GRAMMAR)
    classes = [[d, t, s] for d in range(10) for t in range(2) for s in range(3)]
    mixed = torch.tensor(classes)[torch.randperm(60, generator=generator())]
    for row, index in zip(mixed.tolist(), captions.GRAMMAR.index(mixed).tolist()):
        assert text.decode(table[index]) == captions.caption(*row)


def seen_by_tokenizer(monkeypatch, images, config, step):
    """Pixels and captions that the recipe of the tokenizer shows in a step."""
    seen = []

    def loss(module, pixels, table, right, *rest):
        seen.append((pixels, [load_vocabulary(16).decode(table[row]) for row in right]))
        return torch.zeros(()), {}

    monkeypatch.setattr(recipes, "image_tokenizer_loss", loss)
    module = SimpleNamespace(parameters=lambda: iter([torch.zeros(1)]))
    recipes.tokenizer_loss(module, images, MNIST, load_vocabulary(16), config)(step)
    return seen[0]


def test_the_tokenizer_sees_each_picture_with_its_own_caption(monkeypatch):
    images = real_images(16)
    pixels, written = seen_by_tokenizer(monkeypatch, images, SHORT, 3)
    index = batch_indices(16, 8, 3, SHORT.seed)
    assert written == captions.describe_pixels(images.floats(index), images.labels[index])
    moved = shift(images.floats(index), step_generator(SHORT.seed, 3))
    assert torch.equal(pixels, moved)


def test_a_tokenizer_may_see_edited_images(monkeypatch):
    """Share 1: nothing is shown as it was; captions are measured on what is shown."""
    images = real_images(40)
    config = changed(SHORT, operation_share=1.0, batch_size=40)
    pixels, written = seen_by_tokenizer(monkeypatch, images, config, 0)
    index = batch_indices(40, 40, 0, config.seed)
    plain = shift(images.floats(index), step_generator(config.seed, 0))
    for row, shown in enumerate(pixels):
        results = [edits.apply([name], plain[row][None])[0] for name in edits.OPERATIONS]
        assert any(torch.equal(shown, result) for result in results)
        dark = shown if shown.mean() < 0.5 else 1 - shown
        label = images.labels[index[row]][None]
        assert written[row] == captions.describe_pixels(dark[None], label)[0]


def test_batches_are_averaged_by_their_shares(monkeypatch):
    """A task with longer targets counts no more than its share of the rows."""
    rows = []

    def loss(backbone, batch, *rest):
        rows.append(len(batch.ids))
        return torch.tensor(4.0 * len(rows)), {"masked_nats": 1.0 * len(rows)}

    monkeypatch.setattr(recipes, "block_diffusion_loss", loss)
    value, metrics = backbone_run(5)[1](0)
    assert len(rows) > 1 and sum(rows) == SHORT.batch_size
    mean = sum(number * count for number, count in enumerate(rows, start=1)) / sum(rows)
    assert float(value) == pytest.approx(4 * mean)
    assert metrics["masked_nats"] == pytest.approx(mean)


@torch.no_grad()
def test_noise_on_the_mask_embedding_ends_with_the_warm_up():
    plain, noisy = backbone_run(5)[1], backbone_run(5, changed(BACKBONE, mask_noise=0.3))[1]
    assert plain(2)[0] != noisy(2)[0] and plain(3)[0] == noisy(3)[0]


@torch.no_grad()
def test_planted_errors_are_added_to_the_loss():
    """Its portions, too, add up to the whole."""
    answers = changed(BACKBONE, block_size=64, mixture=(("describe", 1.0),))
    plain = backbone_run(5, answers)[1]
    planted = backbone_run(5, changed(answers, planted_errors=0.5))[1]
    whole = float(planted(0)[0])
    assert 2 < whole - float(plain(0)[0]) < 20, "nats of a random model of 400 tokens"
    shares = [float(planted(0, Portion(number, 2))[0]) for number in range(2)]
    assert sum(shares) == pytest.approx(whole, rel=1e-4)


def test_moved_codes_have_edits_where_the_mixture_edits():
    tokenizer, vocab = tiny_tokenizer(), load_vocabulary(16)
    for task, operations in (("draw", 1), ("edit_turn", 1 + len(edits.OPERATIONS))):
        preset, pool = (
            changed(BACKBONE, mixture=((task, 1.0),), moves=2),
            mnist_pool(real_images(9)),
        )
        recipes.backbone_loss(tiny_backbone(), tokenizer, vocab, pool, preset)
        assert pool.moved.shape == (2, operations, 9, 4, 4)


def step_of(**settings):
    """Losses of steps 0 and 1 under some settings, their gradient, and the backbone."""
    backbone, loss = backbone_run(5, changed(BACKBONE, **settings))
    values = [loss(step)[0] for step in (0, 1)]
    return values, torch.autograd.grad(sum(values), list(backbone.parameters())), backbone


def test_compiling_and_checkpointing_change_neither_loss_nor_gradient(monkeypatch):
    # This backend runs the traced graph as it is: what is compiled is tested here, not the
    # compiler, which takes minutes.
    traced = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", traced)
    values, gradients, plain = step_of()
    for settings in (dict(activation_checkpointing=True), dict(compile=True)):
        others, again, backbone = step_of(**settings)
        assert backbone.activation_checkpointing == ("activation_checkpointing" in settings)
        assert backbone.state_dict().keys() == plain.state_dict().keys()
        for a, b in zip([*others, *again], [*values, *gradients]):
            size = float(b.detach().abs().max())
            assert torch.allclose(a, b, atol=1e-5 * max(1.0, size))


def test_checkpointed_layers_are_computed_again_as_they_were_in_bfloat16(monkeypatch):
    """On a CPU bfloat16 has another attention kernel, which the second pass must use, too."""
    monkeypatch.setattr(loop, "has_bfloat16", lambda device: True)
    records = []
    for flag in (False, True):
        preset = changed(BACKBONE, steps=2, bfloat16=True, activation_checkpointing=flag)
        backbone, loss = backbone_run(5, preset)
        records.append(fit(backbone, loss, preset.training))
    assert records[0] == records[1]


def test_packed_rows_can_be_trained_on():
    values, gradients, _ = step_of(pack_length=128)
    assert all(torch.isfinite(value) for value in values)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_the_text_pieces_are_learned_from_captions_or_from_every_task():
    few, many = recipes.bpe_corpus(), recipes.bpe_corpus(every_task=True)
    assert set(captions.all_captions()) <= set(few) < set(many)
    assert few.count(layout.SYSTEM_PROMPTS["draw"]) == 5, "as frequent as the name of a digit"


# --- colour --------------------------------------------------------------------------------------


def photo_classifier() -> Judge:
    torch.manual_seed(0)
    judge = Judge(JudgeConfig(channels=3, width=4, features=16, whitened=True)).eval()
    judge.prepare(torch.rand(8, 3, 32, 32))
    return judge


def test_feature_distance_is_zero_at_equality_and_has_a_gradient_elsewhere():
    teacher, images = photo_classifier(), torch.rand(3, 3, 32, 32)
    assert recipes.feature_distance(teacher, images, images).item() == 0
    output = (images * 0.5).requires_grad_()
    distance = recipes.feature_distance(teacher, output, images)
    distance.backward()
    assert distance.item() > 0.01 and output.grad.abs().max() > 0


@torch.no_grad()
def test_feature_distance_is_the_mean_of_two_minus_two_cosines():
    """The squared distance of activations of length 1, at every place of every stage."""
    teacher, (a, b) = photo_classifier(), torch.rand(2, 3, 3, 32, 32)
    stages = zip(teacher.stages(a), teacher.stages(b))
    means = [(2 - 2 * torch.cosine_similarity(*pair, dim=1)).mean() for pair in stages]
    expected = torch.stack(means).mean()
    torch.testing.assert_close(recipes.feature_distance(teacher, a, b), expected)


@torch.no_grad()
def test_features_and_colours_of_tokens_count_by_their_weights():
    teacher, images = photo_classifier(), torch.rand(3, 3, 32, 32, generator=generator())
    captions_of = torch.ones(1, 4, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    values = []
    for weights in ({}, dict(feature_weight=0.5), dict(colour_weight=2.0)):
        tokenizer = tiny_tokenizer(channels=3, **weights)
        judge = teacher if "feature_weight" in weights else None
        loss, _ = recipes.image_tokenizer_loss(
            tokenizer, images, *captions_of, generator(), teacher=judge
        )
        values.append(float(loss))
    output = tokenizer.decode(tokenizer.encode(images))
    features = recipes.feature_distance(teacher, output, images)
    squares = (output - images).view(3, 3, 4, 8, 4, 8)  # a code stands for 8 x 8 pixels
    colours = squares.mean((3, 5)).square().mean()
    assert values[1] - values[0] == pytest.approx(0.5 * float(features), rel=1e-3)
    assert values[2] - values[0] == pytest.approx(2 * float(colours), rel=1e-3)


def test_a_codebook_starts_from_real_features():
    codebook = tiny_tokenizer().codebook
    codebook.counts.fill_(7)  # what was counted before is forgotten
    features = torch.randn(2, 8, 2, 2, generator=generator())  # 8 vectors for 16 codes
    recipes.start_codebook(codebook, features, generator())
    unit = torch.nn.functional.normalize(features, dim=1).permute(0, 2, 3, 1).reshape(8, 8)
    near = codebook.embedding @ unit.T  # [16, 8]
    assert torch.allclose(near.max(1).values, torch.ones(16), atol=1e-5)
    assert near.argmax(1).bincount(minlength=8).tolist() == [2] * 8
    assert torch.equal(codebook.sums, codebook.embedding) and (codebook.counts == 1).all()
    recipes.start_codebook(codebook, torch.randn(1, 8, 1, 5), generator())  # 16 is no multiple of 5
    times = codebook.embedding.unique(dim=0, return_counts=True)[1]
    assert sorted(times.tolist()) == [3, 3, 3, 3, 4]


def test_the_first_steps_decode_the_features_themselves():
    """Then the codebook starts: commitment is small at once, which it is not for random codes."""
    tokenizer = tiny_tokenizer(unquantised_steps=3).train()
    images = real_images(8).floats()
    table, right = torch.ones(1, 4, dtype=torch.long), torch.zeros(8, dtype=torch.long)
    before = tokenizer.codebook.embedding.clone()
    _, parts = recipes.image_tokenizer_loss(tokenizer, images, table, right, generator(), 2)
    assert "revived" not in parts and torch.equal(tokenizer.codebook.embedding, before)
    _, later = recipes.image_tokenizer_loss(tokenizer, images, table, right, generator(), 3)
    assert not torch.equal(tokenizer.codebook.embedding, before)
    assert later["commit"] < parts["commit"] and "revived" in later


@torch.no_grad()
def test_before_the_codebook_starts_only_the_picture_of_the_features_counts():
    weights = dict(unquantised_steps=1, edge_weight=0.0, alignment_weight=0.0)
    tokenizer, images = tiny_tokenizer(**weights), real_images(8).floats()
    table, right = torch.ones(1, 4, dtype=torch.long), torch.zeros(8, dtype=torch.long)
    output = tokenizer.decoder(torch.nn.functional.normalize(tokenizer.encoder(images), dim=1))
    loss, _ = recipes.image_tokenizer_loss(tokenizer, images, table, right, generator(), 0)
    assert float(loss) == pytest.approx(float((output - images).square().mean()), rel=1e-4)


def test_shorter_captions_are_filled_up():
    table = recipes.caption_table(load_vocabulary(16), colour.GRAMMAR)
    captions_of = [load_vocabulary(16).decode(row[row > 0]) for row in table]
    assert captions_of == colour.GRAMMAR.all_captions() and (table == 0).any()
