"""Every measurement on models whose score is known in advance."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers import generator, real_images, tiny_backbone, tiny_judge, tiny_uni

from minillada import checkpoint
from minillada.asking import NotLearned
from minillada.datasets import captions, cifar10, colour, edits, mnist
from minillada.datasets.mnist import Images
from minillada.datasets.pool import measured_pool
from minillada.datasets.table import CIFAR10
from minillada.evaluation import evaluate
from minillada.evaluation.evaluate import balanced_prompts
from minillada.extras.sprint import Sprint
from minillada.measure.frechet import frechet_distance
from minillada.measure.intervals import student_t, wilson
from minillada.measure.judge import load_judge
from minillada.measure.timing import Timing, counted
from minillada.tasks import editing
from minillada.tasks.base import inputs, make_examples, wanted
from minillada.tasks.table import PHOTO_TASKS


def test_prompts_are_balanced():
    rows = balanced_prompts(1000)
    assert [sum(r[0] == d for r in rows) for d in range(10)] == [100] * 10
    for n in (60, 600):
        assert all(
            balanced_prompts(n).count((d, t, s)) == n // 60
            for d in range(10)
            for t in range(2)
            for s in range(3)
        )


def test_prompts_of_photos_are_balanced():
    rows = balanced_prompts(160, CIFAR10)
    assert {rows.count(row) for row in set(rows)} == {2} and len(set(rows)) == 80


def test_a_colour_that_was_not_asked_for_is_not_marked():
    """Of 80 prompts 20 name no colour; each of the others gets the wrong one."""

    def draw(prompts, seed):
        # Blue frames for all but those who ask for blue, and a class for `CornerJudge`.
        pictures = torch.zeros(len(prompts), 3, 32, 32)
        for picture, prompt in zip(pictures, prompts):
            label, bright, asked = colour.GRAMMAR.parse(prompt)
            picture[1 if asked == 0 else 2] = 0.9
            picture[:, 8:24, 8:24] = float(bright)
            picture[0, 0, 0] = label / 1000
        return pictures

    uni = SimpleNamespace(draw=draw, backbone=tiny_backbone(), recorder=None)
    report = evaluate.evaluate_drawing(uni, CornerJudge(), 80, 0, CIFAR10)
    assert report["draw_class_accuracy"] == 1 and report["draw_class_accuracy_n"] == 80
    assert report["draw_colour_accuracy"] == 0 and report["draw_colour_accuracy_n"] == 60


def stroke(thickness: int, slant: int) -> torch.Tensor:
    """A bar `[1, 1, 32, 32]` that measures as the given classes."""
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    a, width = math.radians((-25, 5, 30)[slant]), (1.5, 5.0)[thickness]
    along, across = x * math.sin(a) - y * math.cos(a), x * math.cos(a) + y * math.sin(a)
    inside = (width / 2 + 0.5 - across.abs()).clamp(0, 1)
    return (inside * (10.5 - along.abs()).clamp(0, 1))[None, None]


class PerfectPainter:
    """Draws a bar with the asked attributes and hides the digit in a corner for `CornerJudge`."""

    backbone, recorder = tiny_backbone(), None

    def draw(self, prompts, seed=0, wrong=0, **sampling):
        pictures, self.seed = [], seed
        for i, prompt in enumerate(prompts):
            digit, thickness, slant = captions.parse(prompt)
            pictures.append(stroke(thickness, slant if i >= wrong else (slant + 1) % 3))
            pictures[-1][0, 0, 0, 0] = (digit if i >= 2 * wrong else (digit + 1) % 10) / 1000
        return torch.cat(pictures)


class CornerJudge:
    def classify(self, images):
        return (images[:, 0, 0, 0] * 1000).round().long()


def test_drawing_scores_are_counts():
    painter = PerfectPainter()
    perfect = evaluate.evaluate_drawing(painter, CornerJudge(), 60, 7)
    assert painter.seed == 7
    assert [perfect[f"draw_{k}_accuracy"] for k in ("digit", "thickness", "slant")] == [1, 1, 1]
    assert perfect["draw_digit_accuracy_n"] == 60
    flawed = evaluate.evaluate_drawing(PerfectPainter(), CornerJudge(), 60, 0, wrong=6)
    assert flawed["draw_digit_accuracy"] == pytest.approx(48 / 60)
    assert flawed["draw_slant_accuracy"] == pytest.approx(54 / 60)
    assert flawed["draw_thickness_accuracy"] == 1
    ends = flawed["draw_digit_accuracy_low"], flawed["draw_digit_accuracy_high"]
    assert ends == wilson(48, 60)


def test_caption_scores_are_counts():
    images = real_images(10)
    true = [
        list(captions.parse(t)) for t in captions.describe_pixels(images.floats(), images.labels)
    ]
    answers = [captions.caption(*row) for row in true]
    answers[0] = captions.caption((true[0][0] + 1) % 10, *true[0][1:])  # wrong digit
    answers[1] = captions.caption(true[1][0])  # attributes missing
    answers[2] += "!"  # not word for word, but a sign changes no word
    answers[3] = "  " + answers[3]  # parsed as right, not exact
    answers[4] = ""
    uni = SimpleNamespace(
        describe=lambda part: [answers.pop(0) for _ in part],
        backbone=tiny_backbone(),
        recorder=None,
    )
    report = evaluate.evaluate_describing(uni, images.floats(), images.labels)
    assert report["caption_digit_accuracy"] == pytest.approx(0.8)
    assert report["caption_thickness_accuracy"] == pytest.approx(0.8)
    assert report["caption_slant_accuracy"] == pytest.approx(0.8)
    assert report["caption_exact_accuracy"] == pytest.approx(0.5)
    assert report["caption_exact_accuracy_n"] == 10


def test_tokenizer_scores_by_hand():
    images, labels = real_images(20).floats() * 0.5, real_images(20).labels
    codes = torch.arange(20 * 16).view(20, 4, 4) % 8
    uni = SimpleNamespace(
        encode=lambda x: codes,
        decode=lambda c: images + 0.1,  # an error of 0.1 everywhere is 20 dB
        tokenizer=SimpleNamespace(embedding=torch.zeros(16, 2), grid=4),
    )
    judge = SimpleNamespace(
        # five of the originals are misread, and three of the reconstructions
        classify=lambda x: (labels + (torch.arange(20) < (5 if x.min() == 0 else 3))) % 10
    )
    report = evaluate.evaluate_tokenizer(uni, judge, images, labels)
    assert report["judge_accuracy"] == pytest.approx(15 / 20)
    assert report["reconstruction_accuracy"] == pytest.approx(17 / 20)
    assert report["reconstruction_psnr_db"] == pytest.approx(20, abs=1e-3)
    assert report["codebook_used"] == 0.5
    assert report["codebook_perplexity"] == pytest.approx(8, rel=1e-4)
    assert report["tokens_per_image"] == 16


def test_variety_compares_drawings_and_reconstructions_with_other_test_images(monkeypatch):
    test = Images(
        # dark on the whole, as digits are
        torch.randint(180, (80, 1, 8, 8), generator=generator(), dtype=torch.uint8),
        torch.arange(80) % 10,
    )
    judge = SimpleNamespace(features=lambda images: images.flatten(1)[:, :5])
    drawn = torch.rand(40, 1, 8, 8, generator=generator(1))
    seen = []

    def draw_traced(prompts, seed, steps):
        seen.append(prompts)
        assert (seed, steps) == (4, 5)
        return SimpleNamespace(images=drawn, codes="their codes")

    def paint(codes, kind, seed, sketch):
        assert (codes, kind, seed) == ("their codes", "turbo", 4) and sketch is drawn
        return drawn.square()

    uni = SimpleNamespace(
        draw_traced=draw_traced,
        encode=lambda x: x,
        decode=lambda x: x,
        info={},  # no tokenizer, so no painter of it
    )
    report = evaluate.evaluate_variety(uni, judge, test, 60, 3, steps=5)
    order = torch.randperm(80, generator=generator(3))
    chosen, others = order[:40], order[40:]  # at most half: the others are compared with
    assert report["frechet_n"] == 40
    assert seen[0] == captions.describe_pixels(test.floats(chosen), test.labels[chosen])
    reference = judge.features(test.floats(others))
    distance = frechet_distance(judge.features(drawn), reference)
    floor = frechet_distance(judge.features(test.floats(chosen)), reference)
    assert report["frechet_distance"] == pytest.approx(distance)
    assert report["frechet_floor"] == pytest.approx(floor)
    assert report["frechet_ratio"] == pytest.approx(distance / floor)
    assert "frechet_painted" not in report
    # With a turbo painter of the tokenizer, the same drawings are painted as well.
    uni.info, uni.paint = {"tokenizer": "mnist-tokenizer"}, paint
    monkeypatch.setattr(checkpoint, "shipped", lambda name: name == "mnist-painter-turbo")
    painted = evaluate.evaluate_variety(uni, judge, test, 60, 3, steps=5)
    distance = frechet_distance(judge.features(drawn.square()), reference)
    assert {name: painted.pop(name) for name in ("frechet_painted", "frechet_ratio_painted")} == {
        "frechet_painted": pytest.approx(distance),
        "frechet_ratio_painted": pytest.approx(distance / floor),
    }
    assert painted == report


def test_model_and_rival_are_reported_side_by_side(monkeypatch):
    images = torch.tensor([1.0, 2.0, 3.0, 6.0])
    fake = {
        "a": {"draw": images, "describe": -images},
        "b": {"draw": images, "describe": images + 1},
    }
    masks = []

    def bits_per_image(backbone, vocab, *about):
        masks.append(about)
        return fake[backbone]

    monkeypatch.setattr(evaluate, "bits_per_image", bits_per_image)
    report = evaluate.evaluate_likelihood(
        SimpleNamespace(backbone="a", vocab=None), "b", [0] * 4, [], 6, 5
    )
    assert masks == [([0] * 4, [], 6, 5)] * 2, "both see the same masks"
    half = student_t(3) * math.sqrt(14 / 3 / 4)
    assert report["bits_n"] == 4
    # The tasks share their images. What one gains on an image the other loses, so the average is
    # certain.
    assert report["bits_per_token"] == report["bits_per_token_low"] == 0
    assert report["bits_per_image_token"] == 3.0
    assert report["bits_per_image_token_low"] == pytest.approx(3 - half)
    assert report["bits_per_image_token_high"] == pytest.approx(3 + half)
    assert report["bits_per_token_ar"] == 3.5
    assert report["bits_per_token_ar_high"] == pytest.approx(3.5 + half)
    assert report["bits_per_text_token_ar"] == 4.0
    alone = evaluate.evaluate_likelihood(
        SimpleNamespace(backbone="a", vocab=None), None, [0], [], 1, 0
    )
    assert alone["bits_per_token_ar"] is None and alone["bits_per_image_token"] == 3.0


def test_timing_counts_tokens_and_forwards(monkeypatch):
    uni, seconds, cached = tiny_uni(), iter([0.5, 2.0]), []

    def measure(call, device):
        cached.append(call.keywords.get("use_cache", True))
        return Timing(next(seconds), 0, 0, 7, "wall clock", None)

    monkeypatch.setattr(evaluate.timing, "measure", measure)
    report = evaluate.evaluate_timing(uni, batch=10, steps=4)
    assert cached == [True, False]
    assert report["cache_speedup"] == 4 and report["tokens_per_second"] == 10 * 16 / 0.5
    prompts = [captions.caption(*row) for row in balanced_prompts(10)]
    assert (
        report["tokens_per_forward"] == 16 / uni.draw_traced(prompts, steps=4).generation.forwards
    )


def test_passes_are_counted_in_rows():
    """Two branches of guidance are two rows; what is done after the block is not counted."""
    uni, prompts = tiny_uni(), ["a two"] * 3
    with counted(uni) as plain:
        traced = uni.draw_traced(prompts, steps=4, guidance=1.0)
    with counted(uni) as guided:
        uni.draw_traced(prompts, steps=4, guidance=2.0)
    uni.draw(prompts)
    assert plain.rows == 3 * traced.generation.forwards > 0
    assert guided.rows == 2 * plain.rows


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_an_answer_takes_as_many_passes_alone_as_in_a_batch(guidance):
    """Rows that have finished go through the backbone until the last one has, and cost no pass."""
    uni, prompts = tiny_uni(), ["a two"] * 4
    settings = {"steps": 16, "threshold": 0.2, "guidance": guidance}
    with counted(uni) as together:
        drawn = uni.draw_traced(prompts, **settings)
    with counted(uni) as alone:
        for seed, prompt in enumerate(prompts):
            uni.draw([prompt], seed=seed, **settings)
    needed = drawn.generation.passes
    assert len(needed) == len(prompts) and needed.min() < needed.max(), "else it shows nothing"
    assert together.rows == alone.rows == guidance * needed.sum()
    assert uni.recorder is None


class Slow:
    """A recorder of somebody else: it notes what it attaches to."""

    def __init__(self):
        self.loops = []

    def attach(self, loop):
        self.loops.append(loop)
        return loop


def test_what_is_counted_is_decoded_in_the_writers_own_way():
    uni, prompts = tiny_uni(), ["a two"] * 3
    with counted(uni) as plain:
        drawn = uni.draw_traced(prompts, steps=4, guidance=2.0)
    # 1. its recorder makes the steps, and is there again afterwards
    uni.recorder = recorder = Slow()
    with counted(uni) as passes:
        recorded = uni.draw_traced(prompts, steps=4, guidance=2.0)
    assert len(recorder.loops) == 1 and uni.recorder is recorder
    assert passes.rows == plain.rows and recorded.codes.equal(drawn.codes)
    # 2. its pruner shortens the cache
    uni.recorder = Sprint(uni.vocab.is_image(), keep_text=0.1)
    alone = uni.draw_traced(prompts, steps=4, guidance=2.0).codes
    assert not alone.equal(drawn.codes), "else it shows nothing"
    with counted(uni) as passes:
        assert uni.draw_traced(prompts, steps=4, guidance=2.0).codes.equal(alone)
    assert passes.rows == plain.rows


def test_passes_stand_beside_what_depends_on_them():
    uni, images = tiny_uni(), real_images(8)
    few = evaluate.evaluate_drawing(uni, tiny_judge(), 10, 0, steps=2)
    many = evaluate.evaluate_drawing(uni, tiny_judge(), 10, 0, steps=8)
    assert 0 < few["draw_passes"] < many["draw_passes"]
    with counted(uni) as drawing:
        uni.draw([captions.caption(*row) for row in balanced_prompts(10)], steps=2)
    assert few["draw_passes"] == drawing.rows / 10
    described = evaluate.evaluate_describing(uni, images.floats(), images.labels)
    with counted(uni) as describing:
        uni.describe(images.floats())
    assert described["caption_passes"] == describing.rows / 8 >= 1


FRACTIONS = [
    "judge_accuracy", "reconstruction_accuracy", "draw_digit_accuracy", "draw_thickness_accuracy",
    "draw_slant_accuracy", "caption_digit_accuracy", "caption_exact_accuracy",
]  # fmt: skip
NUMBERS = [
    "reconstruction_psnr_db", "frechet_distance", "frechet_floor", "bits_per_token",
    "bits_per_token_ar", "draw_passes", "caption_passes",
]  # fmt: skip


@pytest.fixture
def tiny_world(monkeypatch):
    """Tiny models and 30 images in the place of the shipped ones."""
    rival = tiny_uni(block_size=1).backbone
    monkeypatch.setattr(evaluate, "load", lambda name, device: tiny_uni())
    judges = {"mnist-judge": tiny_judge()}
    monkeypatch.setattr(evaluate, "load_judge", lambda device, name: judges[name])
    monkeypatch.setattr(mnist, "load_mnist", lambda split: real_images(30))
    monkeypatch.setattr(checkpoint, "shipped", lambda name: name.endswith("-ar"))
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: (rival, {}))
    monkeypatch.setattr(
        evaluate.timing,
        "measure",
        lambda call, device: call() and Timing(1, 1, 1, 1, "wall clock", None),
    )


def test_the_report_has_every_number(tiny_world):
    report = evaluate.evaluate("mnist", samples=25, seed=1)
    for name in FRACTIONS:
        low, high = report[f"{name}_low"], report[f"{name}_high"]
        assert 0 <= low <= report[name] <= high <= 1 and low < high
        assert report[f"{name}_n"] == 25
    for name in NUMBERS:
        assert math.isfinite(report[name]), name
    for name in ("bits_per_token", "bits_per_token_ar"):
        assert report[f"{name}_low"] < report[name] < report[f"{name}_high"]
    assert report["bits_n"] == 25
    assert report["timing"]["cached"]["clock"] == "wall clock" and report["model"] == "mnist"


@pytest.mark.parametrize("other", [{"tokenizer_sha256": "0"}, {"text": "mnist-uni-text"}])
def test_a_rival_with_other_ids_is_left_out(tiny_world, monkeypatch, other):
    """It would read codes that mean something else to it, or ids that it does not have."""
    uni = tiny_uni()
    uni.info = other
    monkeypatch.setattr(evaluate, "load", lambda name, device: uni)
    report = evaluate.evaluate("mnist", samples=25, only=["likelihood"])
    assert report["bits_per_token_ar"] is None and math.isfinite(report["bits_per_token"])
    assert evaluate.meaning({}) == evaluate.meaning({"text": "mnist-text"}), "older weights"


def test_only_the_named_measures_are_taken(tiny_world):
    report = evaluate.evaluate("mnist", samples=25, only=["drawing", "timing"])
    assert report["draw_digit_accuracy_n"] == 25 and "timing" in report
    assert not [key for key in report if key.startswith(("judge", "caption", "bits", "frechet"))]
    # A report that is given is filled, and there are no more drawings than images.
    given = {}
    evaluate.evaluate("mnist", samples=100, only=["drawing"], report=given)
    assert given["draw_digit_accuracy_n"] == 30 and given["model"] == "mnist"
    with pytest.raises(ValueError, match="no measure 'speed'; choose from tokenizer, drawing"):
        evaluate.evaluate("mnist", only=["speed"])


def test_each_measure_has_the_samples_the_seed_and_the_data_of_its_subject(monkeypatch):
    seen = {}
    for name in ("drawing", "variety", "editing", "timing", "likelihood"):
        monkeypatch.setattr(
            evaluate,
            f"evaluate_{name}",
            lambda *about, name=name, **named: seen.setdefault(name, (about, named)),
        )
    monkeypatch.setattr(checkpoint, "shipped", lambda name: names.append(name))
    sample, names = cifar10.load_cifar10_sample("test"), []
    uni = SimpleNamespace(encode=lambda images: len(images), device="cpu")
    for rival in (True, False):
        subject = evaluate.Subject(uni, "judge", CIFAR10, sample, 33, 9, rival)
        for name in ("drawing", "variety", "editing", "timing", "likelihood"):
            evaluate.MEASURES[name](subject)
    assert seen["drawing"] == seen["editing"] == ((uni, "judge", 33, 9, CIFAR10), {})
    assert seen["variety"] == ((uni, "judge", sample, 33, 9, CIFAR10), {})
    assert seen["timing"] == ((uni,), {"data": CIFAR10})
    [*about], _ = seen["likelihood"]
    assert len(about.pop(3)) == 33 and about == [uni, None, 33, 4, 9]
    assert names == ["cifar10-ar"], "without a rival none is looked for"
    assert torch.equal(subject.images()[1], sample.labels[:33])


def test_too_few_samples():
    with pytest.raises(ValueError, match="19 samples say nothing; ask for at least 20"):
        evaluate.evaluate("mnist", samples=19)


def test_the_shipped_model_of_photos_is_measured_by_its_own_names(monkeypatch):
    monkeypatch.setattr(cifar10, "load_cifar10", cifar10.load_cifar10_sample)
    monkeypatch.setattr(evaluate, "FEWEST_SAMPLES", 10)
    report = evaluate.evaluate("cifar", samples=10, only=["tokenizer", "drawing", "describing"])
    assert report["judge_accuracy"] >= 0.7 and report["reconstruction_psnr_db"] > 20
    assert report["tokens_per_image"] == 64
    for kind in ("draw", "caption"):
        for name in ("class", "brightness", "colour"):
            assert 0 <= report[f"{kind}_{name}_accuracy_low"] <= report[f"{kind}_{name}_accuracy"]
    assert report["draw_class_accuracy_n"] == 10


def test_edits_are_measured_where_they_were_learned(monkeypatch):
    marked = {
        "edit_operation": SimpleNamespace(right={"": [True, False]}, examples=["turn it"]),
        "edit_label": SimpleNamespace(right={"": [True, True]}, examples=["a ship"]),
    }
    asked = []
    monkeypatch.setattr(evaluate.suite, "unseen_pool", lambda dataset: dataset)
    monkeypatch.setattr(evaluate.suite, "run", lambda *about: asked.append(about[2:]) or marked)
    monkeypatch.setattr(evaluate, "compare_edits", lambda *about: {"compared": about[2:]})
    info = {"training": {"data": {"mixture": [["edit_operation", 1], ["edit_label", 1]]}}}
    report = evaluate.evaluate_editing(SimpleNamespace(info=info), None, 2, 5, CIFAR10)
    assert asked == [("cifar10", 2, 5, ["edit_operation", "edit_label"])]
    assert report["compared"] == ("cifar10", ["turn it"], 5)
    assert report["edit_operation_accuracy"] == 0.5 and report["edit_class_accuracy"] == 1


def test_exact_results_are_marked_with_and_without_the_codes():
    sample = cifar10.load_cifar10_sample("test")
    pool = measured_pool(CIFAR10, sample)
    asked = make_examples(PHOTO_TASKS["edit_operation"].make, pool, 40, seed=0)
    judge = load_judge(name="cifar-judge")
    names = editing.operations(asked)
    originals = torch.stack([image for (image,) in inputs(pool, asked)[0]])
    # What the judge reads in each photo is all that can be lost, where an edit can be undone.
    read = judge.classify(edits.undo(names, edits.apply(names, originals)))
    share = float((read == wanted(pool, asked)).float().mean())
    keeping = SimpleNamespace(encode=lambda images: images, decode=lambda codes: codes, info={})
    report = evaluate.compare_edits(keeping, judge, pool, asked, 7)
    assert report["edit_operation_accuracy_exact"] == pytest.approx(share) and share > 0.8
    assert report["edit_operation_accuracy_codes"] == report["edit_operation_accuracy_exact"]
    # Nothing is done where the unchanged photo comes back.
    lazy = SimpleNamespace(encode=lambda images: images, decode=lambda codes: originals, info={})
    report = evaluate.compare_edits(lazy, judge, pool, asked, 7)
    assert report["edit_operation_accuracy_codes"] == 0
    assert "edit_operation_accuracy_painted" not in report, "its codes have no painter"
    # Where there is one, it paints the codes of the exact results, and those that are written.
    exact, calls = edits.apply(names, originals), []
    lazy.info = {"tokenizer": "cifar-tokenizer"}
    lazy.paint = lambda codes, *how, **more: calls.append((codes, how, more)) or codes
    lazy.edit = lambda images, texts, **more: calls.append((texts, more)) or originals
    report = evaluate.compare_edits(lazy, judge, pool, asked, 7)
    same = report["edit_operation_accuracy_exact"]
    assert report["edit_operation_accuracy_codes_painted"] == same
    assert report["edit_operation_accuracy_painted"] == 0
    (codes, how, more), edited = calls
    assert torch.equal(codes, exact) and how == ("turbo",) and more["seed"] == 7
    assert edited == (inputs(pool, asked)[1], {"seed": 7, "painter": "turbo"})


def learned(*tasks, **more):
    return {"training": {"data": {"mixture": [[task, 1.0] for task in tasks]}}} | more


def test_a_named_measure_of_what_was_never_learned_is_refused_and_others_are_left_out(
    tiny_world, monkeypatch, capsys
):
    uni = tiny_uni()
    monkeypatch.setattr(evaluate, "load", lambda name, device: uni)
    uni.info = learned("draw")
    for name, sentence in (
        ("editing", "needs a model that learned edit_operation and edit_label, such as cifar"),
        ("describing", "has not learned to describe; load"),
    ):
        with pytest.raises(NotLearned, match=sentence):
            evaluate.evaluate("mnist", samples=25, only=["tokenizer", name])
    names = ("tokenizer", "describing", "editing")
    monkeypatch.setattr(evaluate, "MEASURES", {name: evaluate.MEASURES[name] for name in names})
    report = evaluate.evaluate("mnist", samples=25)
    assert "judge_accuracy" in report and "caption_exact_accuracy" not in report
    assert "describing is left out: this model" in capsys.readouterr().err
    # What an earlier run taught counts as well.
    both = learned("edit_operation", start=learned("edit_label"))
    evaluate.check_learned(both, "editing")
    evaluate.check_learned(learned("draw", start=learned("describe")), "describing")
