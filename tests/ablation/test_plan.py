"""What is asked: names and values; what is trained once and measured several times."""

import shlex

import pytest

from minillada import checkpoint
from minillada.ablation import folder as folders
from minillada.ablation import passes as counting
from minillada.ablation import plan as plans
from minillada.ablation.passes import read_passes
from minillada.ablation.plan import Plan, read_measures, read_varied
from minillada.evaluation import evaluate
from minillada.settings import changed
from minillada.vocab import text_info

UNSEEN = (("drawing", 20), ("sum_direct_unseen", 20))
MIXTURES = (("mixture", ((("draw", 1.0), ("describe", 1.0)), (("draw", 1.0),))),)
PACKED = (("pack_length", 256),)
MANY = ("steps", "batch_size", "warmup_steps")  # settings with many values each
MANY_STEPS = ("steps", tuple(range(1, 12)))


def test_values_are_words_or_json_between_commas():
    texts = ["objective=bound,uniform", "mask_rate=[0.1,1.0],[0.3,1.0]", "bfloat16=true,false"]
    assert read_varied(texts) == (
        ("objective", ("bound", "uniform")),
        ("mask_rate", ((0.1, 1.0), (0.3, 1.0))),
        ("bfloat16", (True, False)),
    )
    # Only the first sign of equality ends the name, and brackets of both kinds keep a value whole.
    assert read_varied(["tokenizer=runs/a=1,runs/a=2"]) == (
        ("tokenizer", ("runs/a=1", "runs/a=2")),
    )
    assert plans.split_list('{"a":1,"b":[2,3]},[4,[5,6]],7') == [
        '{"a":1,"b":[2,3]}', "[4,[5,6]]", "7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["steps"], "NAME=VALUE,VALUE"),
        (["=4,8"], "NAME=VALUE,VALUE"),
        (["steps=1,2,1"], "steps has the value 1 twice"),
        (["learning_rate=1,1.0"], "learning_rate has the value 1.0 twice"),
        (["steps=1", "steps=2"], "steps varies twice"),
        (["steps=1,"], "has an empty value"),
    ],
)
def test_bad_values(texts, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_varied(texts)


def test_measures_of_models_and_tasks_have_counts():
    assert read_measures(["drawing:100,likelihood", "compare"]) == (
        ("drawing", 100), ("likelihood", 600), ("compare", 300),
    )  # fmt: skip
    assert read_measures(["digit:20"]) == (("digit", 20),)
    assert read_measures(["edit_label"], "cifar10") == (("edit_label", 300),)
    for texts, sentence in (
        (["drawings"], "no measure 'drawings'; choose from tokenizer, .* compare"),
        (["drawing:5"], "drawing takes 20 to 1,000 samples"),
        (["digit:20000"], "digit takes 20 to 10,000 samples"),
        (["drawing:many"], "NAME:SAMPLES"),
        (["drawing", "drawing:50"], "drawing is measured twice"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_measures(texts)


class Counting:
    """Test images of which only the number that is taken is of interest."""

    def floats(self, chosen):
        raise StopIteration(chosen.stop)


def test_no_measure_is_asked_for_more_samples_than_it_takes(monkeypatch):
    def stop(*about):
        raise StopIteration(next(part for part in about if type(part) is int))

    for name in ("drawing", "variety", "editing"):
        monkeypatch.setattr(evaluate, f"evaluate_{name}", stop)
    subject = evaluate.Subject(None, None, None, Counting(), plans.MOST_SAMPLES, seed=0)
    for name, measure in evaluate.MEASURES.items():
        if name == "timing":  # has a number of its own
            continue
        with pytest.raises(StopIteration) as taken:
            measure(subject)
        most = taken.value.value
        assert read_measures([f"{name}:{most}"]) == ((name, most),)
        with pytest.raises(ValueError, match=f"{name} takes 20 to {most:,} samples"):
            read_measures([f"{name}:{most + 1}"])


def test_passes_are_equal_unless_the_plan_decides_them(tmp_path):
    plan = Plan(preset="mnist-cpu")
    assert read_passes("9,16,10000", plan, tmp_path) == (9, 16, 10_000)
    settings = {"steps": 1, "threshold": 1.0, "adaptive": True, "edit_threshold": 1.0}
    settings |= {"minimal_topk": 1, "fill_tail": False}
    for name, value in settings.items():
        name = f"sampling.{name}"
        for decided in ({"varied": ((name, (value,)),)}, {"fixed": ((name, value),)}):
            assert read_passes(None, changed(plan, **decided), tmp_path) == ()
            with pytest.raises(ValueError, match=f"--passes and {name} both decide"):
                read_passes("9", changed(plan, **decided), tmp_path)
    for text in ("0", "nine", "9,9", "9,10001", ""):
        with pytest.raises(ValueError, match="different numbers from 1 to 10000"):
            read_passes(text, plan, tmp_path)


@pytest.mark.parametrize(
    ("preset", "fixed", "start", "passes"),
    [
        ("mnist-cpu", {}, None, 9),
        ("mnist-ar", {}, None, 16),
        ("mnist-cpu", {"block_size": 4}, None, 16),
        ("mnist-cpu", {"block_size": 64}, None, 2),
        ("mnist-cpu", {"sampling.block_size": 32, "sampling.guidance": 2.0}, None, 5),
        ("mnist-cpu", {"sampling.gather": True}, None, 8),
        ("mnist-cpu", {"tokenizer": "cifar-tokenizer"}, None, 33),
        ("cifar", {}, None, 6),
        ("cifar", {}, "cifar", 8),  # goes on with the own settings of these weights
        # which are of other codes
        ("cifar", {"tokenizer": "mnist-tokenizer", "block_size": 16}, "cifar", 9),
    ],
)
def test_the_usual_passes_are_those_of_what_is_fixed(tmp_path, preset, fixed, start, passes):
    plan = Plan(preset=preset, fixed=tuple(fixed.items()), start=start)
    assert read_passes(None, plan, tmp_path) == (passes,)


def test_the_usual_passes_are_those_of_most_prompts(tmp_path, monkeypatch):
    taken = iter([5, *[9] * 20, *[7] * 40, *[8] * 19])
    monkeypatch.setattr(counting, "count_passes", lambda *about: next(taken))
    assert read_passes(None, Plan(preset="mnist-cpu"), tmp_path) == (7,)


def test_a_folder_goes_on_with_its_number_of_passes(tmp_path):
    plan = Plan(preset="mnist-cpu", fixed=(("block_size", 4),))
    folders.write_plan(changed(plan, passes=(9,)), tmp_path)  # as an older version counted them
    now = changed(plan, passes=read_passes(None, plan, tmp_path))
    assert folders.check_same(now, tmp_path).passes == (9,)
    with pytest.raises(ValueError, match=r"holds another ablation \(passes: \[9\] before"):
        folders.check_same(changed(plan, passes=read_passes("16", plan, tmp_path)), tmp_path)


def test_every_choice_comes_with_every_seed_in_a_folder_of_its_own():
    plan = Plan(
        preset="mnist-cpu",
        fixed=(("steps", 7),),
        varied=(("block_size", (4, 8)), ("mask_rate", ((0.1, 1.0), (0.3, 1.0)))),
        seeds=(3, 4),
    )
    trials = plan.trials()
    assert [trial.name for trial in trials[:2]] == [
        "block_size=4,mask_rate=0.1-1.0,seed=3", "block_size=4,mask_rate=0.3-1.0,seed=3",
    ]  # fmt: skip
    assert len({trial.name for trial in trials}) == 8 and trials[4].seed == 4
    preset = trials[-1].preset
    assert preset.model.block_size == 8 and preset.training.loss.mask_rate == (0.3, 1.0)
    assert (preset.training.steps, preset.training.seed) == (7, 4)


@pytest.mark.parametrize("tokenizers", [("x" * 90 + "a", "x" * 90 + "b"), ("runs/A", "runs/a")])
def test_values_that_look_alike_have_different_folders_on_every_system(tokenizers):
    plan = Plan(preset="mnist-cpu", varied=(("tokenizer", tokenizers),))
    assert len({trial.name.casefold() for trial in plan.trials()}) == 2
    assert max(len(trial.name) for trial in plan.trials()) < 100  # a path has many of them


def test_a_sampling_setting_trains_once_and_only_decoding_measures_see_it():
    plan = Plan(
        preset="mnist-cpu",
        fixed=(("sampling.rescale", 0.5), ("steps", 7)),
        varied=(("sampling.guidance", (1.0, 2.0)),),
        measures=(("drawing", 20), ("describing", 20), ("likelihood", 20), ("tokenizer", 20)),
        passes=(9, 16),
    )
    assert [trial.name for trial in plan.trials()] == ["seed=0"]
    assert [asked.key for asked in plan.measurements()] == [
        "drawing:20 sampling.rescale=0.5 sampling.guidance=1.0 passes=9",
        "drawing:20 sampling.rescale=0.5 sampling.guidance=1.0 passes=16",
        "drawing:20 sampling.rescale=0.5 sampling.guidance=2.0 passes=9",
        "drawing:20 sampling.rescale=0.5 sampling.guidance=2.0 passes=16",
        "describing:20",
        "likelihood:20",
        "tokenizer:20",
    ]


def test_the_command_repeats_the_plan():
    plan = Plan(
        preset="mnist-cpu",
        fixed=(("mixture", (("draw", 1.0),)), ("bfloat16", True), ("tokenizer", "my codes")),
        varied=(("mask_rate", ((0.1, 1.0), (0.3, 1.0))), ("objective", ("bound", "uniform"))),
        seeds=(3, 4),
        measures=(("drawing", 600), ("digit", 100)),
        passes=(9, 16),
        start="runs/first",
    )
    words = "minillada ablate mnist-cpu --vary mask_rate=[0.1,1.0],[0.3,1.0]"
    words += " --vary objective=bound,uniform --set mixture=[['draw',1.0]] --set bfloat16=true"
    rest = "--seeds 2 --seed 3 --measure drawing:600,digit:100 --passes 9,16 --start runs/first"
    wanted = [*words.replace("'", '"').split(), "--set", "tokenizer=my codes", *rest.split()]
    assert shlex.split(plan.command()) == wanted
    short = Plan(preset="mnist-cpu").command()
    assert short == "minillada ablate mnist-cpu --seeds 1 --seed 0 --measure drawing:600"


def test_the_sources_are_all_that_any_run_starts_from():
    varied = {"tokenizer": ("mnist-tokenizer", "cifar-tokenizer"), "text": ("mnist-text",)}
    plan = Plan(preset="mnist-cpu", varied=tuple(varied.items()), start="mnist")
    names = {"tokenizer=mnist-tokenizer", "tokenizer=cifar-tokenizer", "start=mnist"}
    found = {
        name: checkpoint.read_info(checkpoint.resolve(name.partition("=")[2]))["sha256"]
        for name in names
    }
    found["text=mnist-text"] = text_info("mnist-text")["text_sha256"]
    assert plan.read_sources() == tuple(sorted(found.items()))


def test_texts_depend_on_how_they_are_decoded_but_on_no_passes_of_a_drawing_and_no_guidance():
    names = ("digit", "compare", "describe", "infill", "digit_new_wording")
    plan = Plan(
        preset="mnist-uni-multitask",
        fixed=(("sampling.guidance_image", 2.0), ("sampling.rescale", 0.7)),
        varied=(("sampling.guidance", (1.0, 2.0)), ("sampling.threshold", (0.8, 0.9))),
        measures=tuple((name, 20) for name in names),
        passes=(9, 16),
    )
    keys = [asked.key for asked in plan.measurements()]
    assert keys == [f"{name}:20 sampling.threshold={t}" for name in names for t in (0.8, 0.9)]
    drawn = changed(plan, measures=(("inpaint", 20), ("sum_thinking", 20), ("edit_digit", 20)))
    assert len(drawn.measurements()) == 3 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"varied": (("blok_size", (4,)),)}, "no setting 'blok_size'; choose one of .*block_size"),
        ({"varied": (("sampling.step", (4,)),)}, "no setting 'sampling.step'"),
        ({"varied": (("block_size", (4, "x")),)}, "block_size must be a valid integer, got 'x'"),
        ({"varied": (("sampling.steps", (0,)),)}, "steps must be at least 1, got 0"),
        ({"varied": (("seed", (1, 2)),)}, "--seeds says how many"),
        ({"varied": (("steps", (4,)),), "fixed": (("steps", 5),)}, "varied and set to one value"),
        ({"varied": (("betas", ((0.9, 0.99), (1.0, 0.99))),)}, "betas must be smaller than 1"),
        ({"fixed": (("accumulate", 2), ("confidence_weight", 1.0))}, "confidence_weight divides"),
        ({"fixed": (("accumulate", 2), ("mask_noise", 1.0))}, "mask_noise takes random numbers"),
        ({"fixed": (*PACKED, ("objective", "reweighted"))}, "needs one sequence per row"),
        ({"fixed": (*PACKED, ("planted_errors", 0.1))}, "planted into one sequence per row"),
        ({"varied": (("source", ("a", "b")),)}, "no setting 'source'"),
        ({"varied": (("mirrored", (True, False)),)}, "no setting 'mirrored'"),
        ({"fixed": (("operation_share", 0.5),)}, "no setting 'operation_share'"),
        ({"varied": (("dataset", ("cifar10",)),)}, "no setting 'dataset'"),
        ({"fixed": (("sampling.steps", 0),)}, "steps must be at least 1, got 0"),
        ({"seeds": ()}, "seeds must have at least 1 item"),
        ({"seeds": tuple(range(1001))}, "at most 1000 seeds"),
        ({"measures": ()}, "measures must have at least 1 item"),
        ({"varied": (("block_size", ()),)}, "varied must have at least 1 item"),
        ({"varied": (("block_size", (16, 1024)),)}, "1024 tokens do not fit into 512"),
        ({"start": "nowhere"}, "no weights called 'nowhere'"),
        ({"start": ""}, "--start is empty"),
        ({"start": "mnist"}, "mnist-cpu cannot start from mnist, whose model has other sizes"),
        ({"varied": (("num_attention_heads", (4, 2, 3, 8)),)}, "3 query heads cannot share"),
        ({"fixed": (("max_position_embeddings", 32),)}, "up to 48 tokens, but the model has 32"),
        ({"varied": tuple((name, tuple(range(1, 40))) for name in MANY)}, "more than 10,000 runs"),
        ({"varied": (MANY_STEPS,), "seeds": tuple(range(1000))}, "more than 10,000 runs"),
        ({"preset": "mnist-judge"}, "mnist-judge is no backbone"),
        ({"varied": (("tokenizer", ("nowhere",)),)}, "no weights called 'nowhere'"),
        ({"measures": (("drawing", 20), ("digit", 20))}, "not learned to answer questions"),
        ({"preset": "cifar", "measures": (("digit", 20),)}, "no task is called 'digit'"),
        ({"measures": (("describing", 20),)}, "not learned to describe"),
        ({"measures": (("editing", 20),)}, "editing needs a model that learned edit_operation"),
        ({"measures": (("describe", 20),), "varied": MIXTURES}, "not learned to describe"),
        ({"measures": UNSEEN, "fixed": (("held_out", 3),)}, "trained on sums of sum_direct_unseen"),
    ],
)
def test_plans_that_no_run_can_have(values, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        plans.check_plan(Plan(**{"preset": "mnist-cpu"} | values))


def test_measures_may_ask_for_what_the_weights_to_start_from_have_learned():
    small = Plan(preset="mnist", fixed=(("mixture", (("draw", 1.0),)),))
    asked = changed(small, measures=(("describing", 20), ("describe", 20), ("drawing", 20)))
    with pytest.raises(ValueError, match="not learned to describe") as caught:
        plans.check_plan(asked)
    # No other weights are named: the runs are those that are asked for.
    assert "--measure describing says nothing of these runs" in str(caught.value)
    assert "mixture" in str(caught.value) and "mnist-uni" not in str(caught.value)
    plans.check_plan(changed(asked, start="mnist"))


def test_settings_that_fit_only_together_are_no_mistake():
    pairs = (("complementary", True), ("mask_rate", (0.1, 0.9)), ("block_size", 16))
    plans.check_plan(Plan(preset="mnist-ar", fixed=pairs))
    varied = Plan(preset="mnist-ar", varied=tuple((name, (v,)) for name, v in pairs))
    plans.check_plan(varied)
    [trial] = varied.trials()
    assert trial.preset.training.loss.complementary
