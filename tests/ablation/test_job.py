"""A trial from training to numbers: equal passes, failures, interruptions."""

import json
import math
import signal
from contextlib import ExitStack

import pytest
import torch
from helpers import real_images, tiny_uni

from minillada import checkpoint, layout
from minillada.ablation import job as jobs
from minillada.ablation import statistics
from minillada.ablation.folder import check_same, write_json, write_plan
from minillada.ablation.job import Decoder, Job, status, steps_for
from minillada.ablation.launch import thread_count
from minillada.ablation.passes import count_passes
from minillada.ablation.plan import Measurement, check_plan
from minillada.datasets.pool import mnist_pool
from minillada.files import checksum
from minillada.measure.timing import measure
from minillada.settings import changed
from minillada.training.locking import lock
from minillada.training.train import train
from minillada.uni import DRAW, THINK


def decoder(block_size=16, **asked):
    uni = tiny_uni(block_size=block_size)
    values = {"measure": "drawing", "count": 20, "sampling": (), "passes": None} | asked
    return Decoder(uni.backbone, uni.tokenizer, uni.vocab).prepare(Measurement(**values))


@pytest.mark.parametrize("block_size", [1, 4, 8, 16])
def test_passes_are_counted_as_the_sampler_takes_them(block_size):
    model = decoder(block_size)
    for steps, least in ((1, 1), (2, 1), (3, 1), (block_size, 1), (16, 4)):
        settings = {"steps": steps, "minimal_topk": least}
        config = changed(DRAW, block_size=block_size, **settings)
        for text in ("a seven", "a thick seven leaning right"):
            prompt = layout.draw_branches(model.vocab, text, 4)[0]
            taken = tiny_uni(block_size=block_size).draw_traced([text], **settings)
            assert count_passes(len(prompt), 16, config) == taken.generation.forwards


def test_drawings_take_the_asked_passes_at_every_block_size():
    texts = ["a seven", "a thick seven leaning right", "a thin one"]  # prompts of other lengths
    for passes in (9, 16):
        for block_size in (4, 8, 16):
            model = decoder(block_size, passes=passes)
            drawn = model.draw(texts, seed=3)
            taken = model.image_passes / model.images
            assert model.images == 3 and abs(taken - passes) <= 1
            assert drawn.shape == (3, 1, 32, 32)
    # Autoregression cannot take fewer than one pass a token.
    model = decoder(1, passes=9)
    model.draw(texts)
    assert model.image_passes / model.images == 16


def test_a_row_gets_the_same_picture_whatever_is_drawn_beside_it():
    model, texts = decoder(8, passes=9), ["a seven", "a thick seven leaning right"]
    both, alone = model.draw_traced(texts, seed=3), model.draw_traced(texts[1:], seed=4)
    assert torch.equal(both.codes[1], alone.codes[0])


def test_a_record_is_that_of_the_first_batch():
    texts = ["a seven", "a thick seven leaning right", "a seven"]
    own, plain = decoder(8, passes=9).draw_traced(texts), tiny_uni(block_size=8).draw_traced(texts)
    assert list(own.generation.rows) == list(plain.generation.rows) == [0, 2]


def test_settings_of_decoding_reach_every_task():
    model = decoder(sampling=(("guidance", 1.0), ("steps", 2)))
    traced = model.draw_traced(["a seven"])
    assert (
        traced.generation.forwards
        == tiny_uni().draw_traced(["a seven"], steps=2).generation.forwards
    )
    assert torch.equal(
        traced.codes, tiny_uni().draw_traced(["a seven"], steps=2, guidance=1.0).codes
    )
    assert steps_for(16, 16, 16, DRAW) == 16


@pytest.mark.parametrize("scales", [(("guidance", 3.0),), (("guidance_image", 2.0),)])
def test_guidance_is_left_out_where_a_prompt_has_nothing_to_compare_with(scales):
    """Texts, also those before drawings; holes without a caption; drawings without an image."""
    model, plain = decoder(sampling=scales), tiny_uni()
    for uni in (model, plain):
        uni.thinking, uni.max_images = (16, THINK), 1
    shown, hole = real_images(2).floats(), torch.ones(4, 4, dtype=torch.bool).triu()
    assert model.describe(shown) == plain.describe(shown)
    assert torch.equal(model.inpaint(shown, hole), plain.inpaint(shown, hole))
    thoughts, drawn = model.think_and_draw(["a seven"])
    assert thoughts == plain.think_and_draw(["a seven"])[0]
    # Where there is something to compare with, it counts.
    own = plain.draw(["a seven"], **{k: v for k, v in scales if k == "guidance"})
    assert torch.equal(model.draw(["a seven"]), own)
    edited = model.edit(shown, "a thick seven")
    named = {"guidance": "guidance_text", "guidance_image": "guidance_image"}
    asked = {named[name]: value for name, value in scales}
    assert torch.equal(edited, plain.edit(shown, "a thick seven", **asked))
    model.interleave("count from one to three")


def test_a_measurement_is_taken_with_the_seed_of_its_run_and_counts_its_own_passes(monkeypatch):
    seen = []

    def run(uni, judge, pool, count, seed, names):
        seen.append((count, seed, names))
        uni.images, uni.image_passes = uni.images + 2, uni.image_passes + 18

    entry = {"accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 20, "passes": 36.0}
    monkeypatch.setattr(jobs.suite, "run", run)
    monkeypatch.setattr(jobs.suite, "scores", lambda marked: {"draw": entry})
    monkeypatch.setattr(jobs.suite, "unseen_pool", lambda dataset: None)
    monkeypatch.setattr(jobs, "load_judge", lambda *about: None)
    model, asked = decoder(), Measurement("draw", 20, (), None)
    for _ in range(2):
        assert jobs.measure(model, asked, seed=7) == {
            "draw": 0.5, "draw_low": 0.25, "draw_high": 0.75, "draw_n": 20,
            "rows": 36.0, "passes": 9.0,
        }  # fmt: skip
    assert seen == [(20, 7, ["draw"])] * 2

    def drawing(subject):
        seen.append((subject.samples, subject.seed, subject.rival))
        return {"draw_passes": 3.0, "nothing": None, "a": {"b": {"c": 1}}}

    monkeypatch.setitem(jobs.evaluate.MEASURES, "drawing", drawing)
    found = jobs.measure(model, Measurement("drawing", 30, (), None), seed=8)
    assert seen[2:] == [(30, 8, False)]
    assert found == {"rows": 3.0, "passes": 3.0, "a.b.c": 1}  # nothing was drawn by codes


def test_each_run_is_measured_with_its_own_seed(tmp_path, plan, monkeypatch):
    seeds = []
    monkeypatch.setattr(jobs, "load", lambda *about: uni)
    monkeypatch.setattr(jobs, "measure", lambda decoder, asked, seed: seeds.append(seed) or {})
    uni, asked = tiny_uni(), plan(seeds=(3, 4))
    uni.info = {"sha256": "0"}
    for trial in asked.trials():
        (tmp_path / trial.name).mkdir()
        Job(tmp_path, trial.name).measure_all(asked, trial)
    assert seeds == [3, 4]


def test_a_job_hands_on_what_it_was_given(tmp_path, plan, monkeypatch):
    def trained(preset, run, device, start):
        seen.append((preset.training.seed, run.resume, run.tensorboard, device, start))
        seen.append((torch.get_num_threads(), (run.folder / jobs.FAILED).exists()))
        raise MemoryError

    seen, asked = [], plan(start="mnist", seeds=(5,))
    monkeypatch.setattr(jobs, "train", trained)
    write_plan(asked, tmp_path)
    [trial] = asked.trials()
    (tmp_path / trial.name).mkdir()
    write_json(tmp_path / trial.name / jobs.FAILED, {"error": "an earlier try"})
    with thread_count(None):  # a job leaves the threads of its process as they are
        Job(tmp_path, trial.name, "a device", threads=3, tensorboard=True)()
    assert seen == [(5, True, True, "a device", "mnist"), (3, False)]
    # An error without words has a name.
    assert status(tmp_path, asked, trial) == jobs.Status("failed", "MemoryError")


def test_what_measured_is_the_card_where_there_is_one(monkeypatch):
    assert jobs.made_by("cpu")["device"] == "cpu"
    monkeypatch.setattr(jobs, "card", lambda device: f"the card of {device}")
    assert jobs.made_by("cuda:1")["device"] == "the card of cuda:1"


def test_a_cluster_starts_a_stopped_job_again(tmp_path):
    pytest.importorskip("submitit")
    job = Job(tmp_path, "seed=0", threads=2)
    again = job.checkpoint()
    assert (again.function, again.args, again.kwargs) == (job, (), {})


def test_guidance_of_drawings_is_compared_beside_measures_of_texts(
    tmp_path, plan, few_images, monkeypatch
):
    monkeypatch.setattr(jobs.suite, "unseen_pool", lambda dataset: mnist_pool(real_images(40)))
    asked = plan(
        fixed=(("mixture", (("draw", 1.0), ("describe", 1.0))),),
        varied=(("sampling.guidance", (1.0, 3.0)),),
        measures=(("drawing", 20), ("describing", 20), ("describe", 20)),
    )
    check_plan(asked)
    write_plan(asked, tmp_path)
    [trial] = asked.trials()
    Job(tmp_path, trial.name)()
    assert status(tmp_path, asked, trial) == jobs.Status("done")
    measured = jobs.read_measures(tmp_path / trial.name)
    assert len(measured) == 2 + 1 + 1 and "describe_n" in measured["describe:20"]


def test_a_measurement_that_fails_stops_no_other(tmp_path, plan, few_images, monkeypatch):
    def broken(decoder, asked, seed):
        if asked.measure == "drawing":
            raise FloatingPointError("it does not fit")
        return {"n": asked.count}

    monkeypatch.setattr(jobs, "measure", broken)
    asked = plan(measures=(("drawing", 20), ("likelihood", 20)))
    write_plan(asked, tmp_path)
    [trial] = asked.trials()
    Job(tmp_path, trial.name)()
    failed = jobs.Status("failed", "drawing:20 passes=9: it does not fit")
    assert status(tmp_path, asked, trial) == failed
    assert list(jobs.read_measures(tmp_path / trial.name)) == ["likelihood:20"]


def test_a_job_trains_measures_and_is_done(tmp_path, plan, few_images):
    names = ("drawing", "describing", "likelihood", "draw")  # the last one is a task
    asked = plan(
        fixed=(("mixture", (("draw", 1.0), ("describe", 1.0))),),
        measures=tuple((name, 20) for name in names),
    )
    write_plan(asked, tmp_path)
    [trial] = asked.trials()
    assert status(tmp_path, asked, trial).word == "new"
    Job(tmp_path, trial.name)()
    assert status(tmp_path, asked, trial).word == "done"
    measured = jobs.read_measures(tmp_path / trial.name)
    drawing = measured["drawing:20 passes=9"]
    assert drawing["passes"] == pytest.approx(9, abs=0.5)
    assert drawing["rows"] == 2 * drawing["passes"]  # each pass has a branch of guidance
    described = measured["describing:20"]
    assert described["passes"] == described["rows"] > 0 and "caption_passes" not in described
    assert "bits_per_token_ar" not in measured["likelihood:20"]
    task = measured["draw:20 passes=9"]
    assert task["draw_n"] == 20 and task["rows"] == 2 * task["passes"]
    for report in measured.values():
        assert report["commit"] and report["device"] == "cpu"
        assert report["threads"] == torch.get_num_threads()
    # Other weights are measured anew, and a run without its JSON is not finished.
    weights = tmp_path / trial.name / "weights.safetensors"
    info = checkpoint.read_info(weights)
    checkpoint.write_info(weights, info | {"sha256": "0" * 64})
    assert status(tmp_path, asked, trial) == jobs.Status("stopped", "its measurements")
    checkpoint.write_info(weights, info)
    weights.unlink()  # to save room
    assert status(tmp_path, asked, trial).word == "done"
    weights.with_suffix(".json").unlink()
    assert status(tmp_path, asked, trial).word == "stopped"
    assert statistics.read_records(tmp_path, [trial]) == []


@pytest.mark.parametrize("text", ["[]", "{", '{"measures": {}}', "\xff"])
def test_a_damaged_file_is_named(tmp_path, plan, text):
    asked = plan()
    [trial] = asked.trials()
    (tmp_path / trial.name).mkdir()
    checkpoint.write_info(tmp_path / trial.name / "weights.safetensors", {"sha256": "0"})
    for name in (jobs.MEASURES, jobs.FAILED):
        damaged = tmp_path / trial.name / name
        damaged.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=f"{name} is damaged, .* move it away"):
            status(tmp_path, asked, trial)
        damaged.unlink()


@pytest.mark.parametrize(
    "measures", [[], {"drawing:20 passes=9": 5}, {"drawing:20 passes=9": {"bits_per_token": "3,1"}}]
)
def test_measures_that_are_no_numbers_are_refused(tmp_path, measures):
    checkpoint.write_info(tmp_path / "weights.safetensors", {"sha256": "0"})
    write_json(tmp_path / jobs.MEASURES, {"sha256": "0", "measures": measures})
    with pytest.raises(ValueError, match="measures.json is damaged, was changed, .* move it away"):
        jobs.read_measures(tmp_path)


def test_what_is_timed_is_read_again(tmp_path):
    found = {"device": "cpu", "cached": measure(lambda: None, "cpu", repeats=1)._asdict()}
    measures = {"timing:20": jobs.flat({"timing": found})}
    checkpoint.write_info(tmp_path / "weights.safetensors", {"sha256": "0"})
    write_json(tmp_path / jobs.MEASURES, {"sha256": "0", "measures": measures})
    assert jobs.read_measures(tmp_path) == measures
    assert measures["timing:20"]["timing.cached.clock"] == "wall clock"


def test_a_number_that_was_changed_is_refused(tmp_path, plan, few_images, monkeypatch):
    numbers = {"draw_digit_accuracy": 0.95, "timing.device": "cpu", "frechet_ratio": math.nan}
    monkeypatch.setattr(jobs, "measure", lambda *about: numbers)
    asked = plan()
    write_plan(asked, tmp_path)
    [trial] = asked.trials()
    Job(tmp_path, trial.name)()
    file = tmp_path / trial.name / jobs.MEASURES
    whole = file.read_text()
    assert status(tmp_path, asked, trial).word == "done"
    file.write_text(whole.replace("0.95", "0.98"))
    with pytest.raises(ValueError, match="measures.json is damaged, was changed"):
        status(tmp_path, asked, trial)
    # Older files have no digest.
    old = {name: value for name, value in json.loads(whole).items() if name != "digest"}
    write_json(file, old)
    assert jobs.read_measures(file.parent)["drawing:20 passes=9"]["draw_digit_accuracy"] == 0.95


def test_a_job_that_begins_late_trains_nothing_from_other_weights(tmp_path, plan, few_images):
    asked = plan(sources=(("tokenizer=mnist-tokenizer", "0" * 64),))
    write_plan(asked, tmp_path)
    [trial] = asked.trials()
    Job(tmp_path, trial.name)()
    failed = status(tmp_path, asked, trial)
    assert failed.word == "failed" and "tokenizer=mnist-tokenizer was replaced" in failed.note
    assert not (tmp_path / trial.name / "weights.safetensors").exists()


def test_a_failing_run_is_written_down_and_tried_again(tmp_path, plan, few_images, monkeypatch):
    asked = plan(varied=(("learning_rate", (1e-3, 1e-2)),))
    write_plan(asked, tmp_path)
    good, bad = asked.trials()

    def broken(preset, *rest):
        if preset.training.optim.learning_rate == 1e-2:
            raise FloatingPointError("the loss is nan at step 1")
        return train(preset, *rest)

    monkeypatch.setattr(jobs, "train", broken)
    for trial in (bad, good):
        Job(tmp_path, trial.name)()
    assert status(tmp_path, asked, good).word == "done"
    assert status(tmp_path, asked, bad) == jobs.Status("failed", "the loss is nan at step 1")
    monkeypatch.undo()


def test_a_measure_that_is_asked_for_later_is_added_without_training(
    tmp_path, plan, few_images, monkeypatch
):
    first = plan()
    [trial] = first.trials()
    write_plan(first, tmp_path)
    Job(tmp_path, trial.name)()
    before = jobs.read_measures(tmp_path / trial.name)
    more = changed(first, measures=(*first.measures, ("likelihood", 20)))
    check_same(more, tmp_path)
    write_plan(more, tmp_path)
    assert status(tmp_path, more, trial) == jobs.Status("stopped", "its measurements")
    sums = checksum(tmp_path / trial.name / "weights.safetensors")
    Job(tmp_path, trial.name)()
    after = jobs.read_measures(tmp_path / trial.name)
    assert after.keys() - before.keys() == {"likelihood:20"}
    assert {key: after[key] for key in before} == before
    assert checksum(tmp_path / trial.name / "weights.safetensors") == sums


def test_an_interrupted_job_goes_on_to_the_same_numbers(tmp_path, plan, few_images, monkeypatch):
    asked = plan()
    [trial] = asked.trials()
    for folder in (tmp_path / "whole", tmp_path / "stopped"):
        write_plan(asked, folder)
    Job(tmp_path / "whole", trial.name)()

    def stop(preset, run, device, start):
        train(preset, run, device, start, stop_after=2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            Job(tmp_path / "stopped", trial.name)()
    assert status(tmp_path / "stopped", asked, trial) == jobs.Status("stopped", "step 2")
    Job(tmp_path / "stopped", trial.name)()
    whole, stopped = (
        json.loads((tmp_path / name / trial.name / jobs.MEASURES).read_text())
        for name in ("whole", "stopped")
    )
    assert whole == stopped  # the sum of the weights included


def test_a_job_waits_for_a_process_that_trains_its_run(tmp_path, monkeypatch, capsys):
    with ExitStack() as other:
        other.enter_context(lock(tmp_path))
        # The other process ends while the job waits.
        monkeypatch.setattr(jobs.time, "sleep", lambda seconds: other.close())
        jobs.wait_for_folder(tmp_path)
    assert capsys.readouterr().err.count("waiting: the folder") == 1


def test_a_run_is_locked_while_it_is_measured(tmp_path, plan, few_images, monkeypatch):
    asked = plan()
    [trial] = asked.trials()
    write_plan(asked, tmp_path)

    def measure(*about):
        with pytest.raises(ValueError, match="is in use by process"), lock(tmp_path / trial.name):
            pass
        return {}

    monkeypatch.setattr(jobs, "measure", measure)
    Job(tmp_path, trial.name)()
    assert status(tmp_path, asked, trial).word == "done"


def test_a_job_of_this_machine_ends_when_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as deaf as submitit makes it
    with pytest.raises(FileNotFoundError, match="holds no ablation"):
        Job(tmp_path, "any")()
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_DFL
