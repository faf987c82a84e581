"""Means, intervals and paired differences against scipy and numbers computed by hand."""

import itertools
import math

import pytest

from minillada.ablation import statistics
from minillada.ablation.plan import Plan
from minillada.evaluation.report import MODEL_BARS, TASK_BARS
from minillada.measure.intervals import share
from minillada.presets import get_preset
from minillada.settings import changed, plain_fields

pandas = pytest.importorskip("pandas")
stats = pytest.importorskip("scipy.stats")

PLAN = Plan(
    preset="mnist-cpu",
    varied=(("block_size", (4, 8)), ("objective", ("bound", "uniform"))),
    seeds=(0, 1, 2),
)
# (block_size, objective) -> a share for each seed
SHARES = {
    ("4", "bound"): (0.90, 0.92, 0.94),
    ("4", "uniform"): (0.93, 0.96, 0.96),
    ("8", "bound"): (0.80, 0.83, 0.85),
    ("8", "uniform"): (0.81, 0.85, 0.89),
}


def rows(shares=SHARES, **changes):
    """The rows of `score_rows` for a table of shares of 100 drawings."""
    found = []
    for (block, objective), values in shares.items():
        for seed, value in enumerate(values):
            low, high = value - 0.05, value + 0.04
            row = {"block_size": block, "objective": objective, "seed": seed, "target": 9}
            row |= {"score": "draw_digit_accuracy", "value": value, "low": low, "high": high}
            row |= {"n": 100, "passes": 9.0, "rows": 18.0, "steps_taken": 60, "sequences": 48}
            row |= {"commit": "c0", "device": "cpu", "threads": 1}
            found.append(row | changes.get(f"b{block}", {}))
    return pandas.DataFrame(found)


def test_rows_say_what_was_measured_and_how():
    plan = Plan(
        preset="mnist-cpu",
        fixed=(("views", 3), ("complementary", True), ("batch_size", 10)),
        varied=(("block_size", (4, 8)), ("sampling.guidance", (1.0, 2.0))),
        seeds=(5,),
        measures=(("drawing", 20), ("likelihood", 20), ("digit", 20)),
        passes=(9,),
    )
    one, two, bits, digit = (asked.key for asked in plan.measurements())
    measures = {
        one: share(10, 20).entries("draw_digit_accuracy") | {"passes": 8.9, "rows": 9.0},
        two: share(18, 20).entries("draw_digit_accuracy") | {"device": "cpu"},
        bits: {"bits_per_token": 2.0, "bits_per_token_low": 1.5, "bits_per_token_high": 2.25},
        digit: share(8, 20).entries("digit") | share(1, 5).entries("digit_holes"),
    }
    small, large = plan.trials()
    without = {key: numbers for key, numbers in measures.items() if key != one}
    records = [statistics.Record(small, measures, {}), statistics.Record(large, without, {})]
    lines = statistics.score_rows(plan, records)
    asked = ["block_size", "sampling.guidance", "target", "score", "value", "n"]
    each = [
        ("1.0", 9, "draw_digit_accuracy", 0.5, 20),
        ("2.0", 9, "draw_digit_accuracy", 0.9, 20),
        ("", 0, "bits_per_token", 2.0, 0),
        ("", 0, "digit", 0.4, 20),
        ("", 0, "digit_holes", 0.2, 5),
    ]
    expected = [("4", *row) for row in each] + [("8", *row) for row in each[1:]]
    assert list(lines[asked].itertuples(index=False, name=None)) == expected
    assert set(lines["seed"]) == {5} and set(lines["sequences"]) == {10 * 3 * 2}
    assert set(lines["steps_taken"]) == {get_preset("mnist-cpu").training.steps}
    assert lines["passes"].dropna().tolist() == [8.9] and lines["rows"].dropna().tolist() == [9.0]
    assert lines["low"][2] == 1.5 and lines["high"][2] == 2.25
    assert lines["device"].dropna().tolist() == ["cpu"] * 2 and lines["commit"].isna().all()


@pytest.mark.parametrize(
    ("measure", "scores", "others"),
    [
        ("tokenizer", ["reconstruction_accuracy"], ["judge_accuracy"]),
        ("drawing", ["draw_digit_accuracy"], ["draw_slant_accuracy"]),
        ("drawing", ["draw_class_accuracy"], ["draw_colour_accuracy"]),
        ("variety", ["frechet_ratio"], ["frechet_distance", "frechet_floor"]),
        ("describing", ["caption_digit_accuracy", "caption_exact_accuracy"], ["caption_passes"]),
        ("describing", ["caption_class_accuracy", "caption_exact_accuracy"], []),
        ("editing", ["edit_operation_accuracy", "edit_class_accuracy"], []),
        ("likelihood", ["bits_per_image_token", "bits_per_text_token", "bits_per_token"], []),
        ("timing", ["timing.cached.median"], ["timing.uncached.median"]),
    ],
)
def test_a_measure_has_its_scores_of_digits_or_of_photos(measure, scores, others):
    report = dict.fromkeys([*others, *scores], 0.5)
    assert statistics.scores_of(measure, report) == scores


def test_scores_are_named_as_in_the_table_of_numbers():
    for score, bar in (MODEL_BARS | TASK_BARS).items():
        if statistics.is_share(score):
            assert statistics.words_of(score) == bar.what
    assert statistics.words_of("edit_digit_slant") == "edit_digit_slant"


def test_means_have_the_t_interval_of_scipy():
    table = statistics.table(PLAN, rows())
    assert len(table) == 4 and not any(table["unequal"])
    for (block, objective), values in SHARES.items():
        [row] = table[(table.block_size == block) & (table.objective == objective)].to_dict(
            "records"
        )
        mean, error = sum(values) / 3, stats.sem(values)
        low, high = stats.t.interval(0.95, 2, loc=mean, scale=error)
        assert row["mean"] == pytest.approx(mean)
        # `mean_interval` has four digits of t, and a share ends at 1.
        assert row["low"] == pytest.approx(low, abs=1e-4)
        assert row["high"] == pytest.approx(min(high, 1.0), abs=1e-4)
        assert row["within_low"] == pytest.approx(mean - 0.05)
        assert row["within_high"] == pytest.approx(mean + 0.04)
        assert row["seeds"] == 3 and row["passes"] == 9 and row["sequences"] == 48


def test_only_shares_end_at_0_and_1():
    for values in ((0.0, 0.02, 0.1), (0.9, 1.0, 1.0)):
        inside, plain = (statistics.mean_over_seeds(values, share=s) for s in (True, False))
        ends = (max(plain.low, 0.0), min(plain.high, 1.0))
        assert (inside.low, inside.high) == ends != (plain.low, plain.high)
    bits = rows({("4", "bound"): (0.9, 1.0, 1.2)}).assign(score="bits_per_token")
    assert statistics.table(PLAN, bits)["high"][0] > 1.2


def test_each_score_and_number_of_passes_has_means_of_its_own():
    more = rows().assign(target=18, passes=18.0)
    # A ratio stands without a count, so it has no interval within a seed.
    ratio = rows().assign(score="frechet_ratio", n=0, passes=12.0, steps_taken=90)
    table = statistics.table(PLAN, pandas.concat([rows(), more, ratio]))
    keys = [("draw_digit_accuracy", 9), ("draw_digit_accuracy", 18), ("frechet_ratio", 9)]
    assert {*zip(table["score"], table["target"])} == {*keys} and len(table) == 12
    assert not any(table["unequal"])
    assert table["within_low"].isna().tolist() == (table["score"] == "frechet_ratio").tolist()
    # Rows keep their order: as words, 16 would come before 8.
    wide = rows().replace({"block_size": {"4": "8", "8": "16"}})
    assert statistics.table(PLAN, wide)["block_size"].tolist() == ["8", "8", "16", "16"]


def test_one_seed_has_no_interval():
    table = statistics.table(PLAN, rows({("4", "bound"): (0.9,)}))
    assert table["mean"].tolist() == [0.9] and math.isnan(table["low"][0])
    one = statistics.differences(PLAN, rows({key: value[:1] for key, value in SHARES.items()}))
    assert len(one) == 2 and one["p_holm"].isna().all()


def test_differences_are_paired_by_seed_and_averaged_over_the_other_settings():
    found = statistics.differences(PLAN, rows()).set_index("setting")
    # by hand: for each seed, the mean over both block sizes of uniform − bound
    objective = [(0.03 + 0.01) / 2, (0.04 + 0.02) / 2, (0.02 + 0.04) / 2]
    block = [(-0.10 - 0.12) / 2, (-0.09 - 0.11) / 2, (-0.09 - 0.07) / 2]
    for name, by_seed in (("objective", objective), ("block_size", block)):
        row = found.loc[name]
        mean = sum(by_seed) / 3
        low, high = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem(by_seed))
        assert row["mean"] == pytest.approx(mean)
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-4)
        assert row["p"] == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)
    # Two comparisons: the smaller p is doubled, the other stays, but not below the first.
    small, large = sorted(found["p"])
    assert sorted(found["p_holm"]) == pytest.approx([2 * small, max(2 * small, large)])
    assert (
        found.loc["objective", "value"] == "uniform" and found.loc["objective", "base"] == "bound"
    )


def test_a_paired_test_is_that_of_scipy():
    a, b = (0.90, 0.92, 0.99, 0.93), (0.91, 0.95, 0.98, 0.99)
    interval, p = statistics.paired([y - x for x, y in zip(a, b)])
    assert p == pytest.approx(stats.ttest_rel(b, a).pvalue)
    ends = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=1e-4)
    # Without spread there is nothing to compare a mean with.
    assert math.isnan(statistics.paired([0.1 + 0.2, 0.3, 0.3])[1])
    assert math.isnan(statistics.paired([0.0, 0.0])[1])
    # One sample in 10,000 better, three times: what rounding leaves is no spread.
    scores = [(9301, 9300), (9250, 9249), (9280, 9279)]
    assert math.isnan(statistics.paired([a / 10_000 - b / 10_000 for a, b in scores])[1])
    large = [(seed + 5000.1) - seed for seed in (84_442.2, 42_057.2, 0.1)]
    assert len({*large}) > 1 and math.isnan(statistics.paired(large)[1])
    for unit in (1e-4, 1e-8):
        small = statistics.paired([unit, unit, 2 * unit])[1]
        assert small == pytest.approx(0.0572, abs=1e-4)


def test_holm_by_hand():
    # 0.01 · 4, 0.02 · 3 = 0.06, 0.03 · 2 = 0.06, 0.9 · 1; in the order that was given
    corrected = statistics.holm([0.9, 0.01, 0.03, 0.02])
    assert corrected == pytest.approx([0.9, 0.04, 0.06, 0.06])
    # 0.04 · 1 may not fall below 0.03 · 2; nothing exceeds 1.
    assert statistics.holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    # A comparison without p-value was still asked for.
    some = statistics.holm([math.nan, 0.01])
    assert math.isnan(some[0]) and some[1] == pytest.approx(0.02)
    assert statistics.holm([]) == []


def test_all_seeds_are_averaged_over_the_same_other_settings():
    # Seed 2 failed once: it would compare the objectives at block size 4 alone.
    shares = SHARES | {("8", "uniform"): (0.81, 0.85)}
    found = statistics.differences(PLAN, rows(shares)).set_index("setting")
    assert found["seeds"].tolist() == [2, 2] and found["over"].tolist() == ["", ""]
    assert found.loc["objective", "mean"] == pytest.approx((0.02 + 0.03) / 2)
    # It failed in all seeds but one: three pairs of one block size say more than one of both.
    shares = SHARES | {("8", "uniform"): (0.81,)}
    found = statistics.differences(PLAN, rows(shares)).set_index("setting")
    assert found["seeds"].tolist() == [3, 3] and found["over"].tolist() == ["1 of 2", "1 of 2"]
    assert found.loc["objective", "mean"] == pytest.approx((0.03 + 0.04 + 0.02) / 3)
    # What is averaged over some of the others alone is marked, also where no seed differs.
    shares = {key: values for key, values in SHARES.items() if key != ("8", "uniform")}
    found = statistics.differences(PLAN, rows(shares)).set_index("setting")
    assert found.loc["block_size", "mean"] == pytest.approx((-0.10 - 0.09 - 0.09) / 3)
    assert found["over"].tolist() == ["1 of 2", "1 of 2"]
    # A setting that the score does not depend on has no other choices.
    lines = rows({key: SHARES[key] for key in (("4", "bound"), ("8", "bound"))})
    [row] = statistics.differences(PLAN, lines.assign(objective="")).to_dict("records")
    assert row["over"] == "" and row["seeds"] == 3
    wide = changed(PLAN, varied=(("block_size", (4, 8, 16)), PLAN.varied[1]))
    assert statistics.choices(wide, ["block_size", "objective"], rows()) == 3 * 2
    # Where both ways leave as many pairs, no choice is left out.
    shares = SHARES | {("4", "uniform"): (0.93, 0.96), ("8", "uniform"): (0.81,)}
    shares = {key: values[:2] for key, values in shares.items()}
    found = statistics.differences(PLAN, rows(shares)).set_index("setting")
    assert found["seeds"].tolist() == [1, 1] and found["over"].tolist() == ["", ""]


def pairs_without(gaps, choices=5, seeds=3):
    """Differences by seed and another setting; those of `gaps` are missing."""
    keys = [(seed, f"{k}") for seed in range(seeds) for k in range(choices)]
    keys = [key for key in keys if key not in gaps]
    return pandas.Series(1.0, pandas.MultiIndex.from_tuples(keys, names=["seed", "block_size"]))


def test_gaps_in_several_seeds_leave_as_many_pairs_as_possible():
    # Seeds 0 and 1 lack different choices: three seeds share three choices, two seeds only four.
    kept = statistics.complete(pairs_without({(0, "0"), (1, "1")}))
    assert {*kept.index} == {(seed, choice) for seed in range(3) for choice in "234"}
    # Against a slow search through all choices, also where each seed has another gap.
    for gaps in ({(0, "0"), (1, "1"), (2, "2")}, {(0, "0"), (0, "1"), (1, "1")}, {(2, "3")}):
        pairs, most = pairs_without(gaps), 0
        for kept in itertools.product((False, True), repeat=5):
            chosen = {f"{k}" for k in range(5) if kept[k]}
            whole = [s for s in range(3) if all((s, choice) in pairs.index for choice in chosen)]
            most = max(most, len(chosen) * len(whole))
        assert len(statistics.complete(pairs)) == most
    # Many gaps end soon, too.
    assert len(statistics.complete(pairs_without({(k, f"{k}") for k in range(25)}, 26, 30)))


def test_values_without_pairs_are_not_compared():
    for value in ("4", "8"):  # all runs of one block size failed
        found = statistics.differences(PLAN, rows().query(f"block_size == '{value}'"))
        assert found["setting"].tolist() == ["objective"]
    apart = rows().query("(block_size == '4') == (seed == 0)")  # no seed has both block sizes
    assert statistics.differences(PLAN, apart)["setting"].tolist() == ["objective"]


def test_unequal_work_is_marked():
    for work, mark in (
        ({"passes": 9.03}, ""),  # a third of a per cent
        ({"passes": 9.06}, "passes"),
        ({"passes": math.nan, "rows": math.nan}, ""),  # not known
        ({"steps_taken": 90}, "steps"),
        ({"sequences": 96}, "batch"),
        ({"passes": 12.0, "rows": 24.0}, "passes"),
        ({"rows": 9.0}, "rows a pass"),  # no guidance: half of the rows
        ({"rows": 9.0, "steps_taken": 90}, "steps, rows a pass"),
    ):
        changed = rows(b8=work)
        table = statistics.table(PLAN, changed)
        assert table["unequal"].tolist() == ["", "", mark, mark]
        found = statistics.differences(PLAN, changed).set_index("setting")["unequal"]
        assert found["block_size"] == mark and found["objective"] == ""


def test_work_is_compared_on_average():
    lines = rows()
    lines.loc[lines["block_size"] == "8", "passes"] += lines["seed"] - 1  # 8, 9 and 10 passes
    assert not any(statistics.table(PLAN, lines)["unequal"])
    lines.loc[lines["block_size"] == "4", ["passes", "rows"]] = math.nan  # not known
    assert not any(statistics.table(PLAN, lines)["unequal"])


def test_what_was_not_measured_alike_is_marked():
    for made, mark in (
        ({"device": "cuda"}, "device"),
        ({"threads": 2, "commit": "c1"}, "commit, threads"),
        ({"commit": None}, ""),  # not noted
    ):
        changed = rows(b8=made)
        assert statistics.table(PLAN, changed)["unequal"].tolist() == ["", "", mark, mark]
        found = statistics.differences(PLAN, changed).set_index("setting")["unequal"]
        # The objectives are compared at both block sizes together.
        assert found["block_size"] == found["objective"] == mark
    # Seeds of two devices are one mean, which is marked, too.
    lines = rows()
    lines.loc[lines["seed"] == 2, "device"] = "cuda"
    assert statistics.table(PLAN, lines)["unequal"].tolist() == ["device"] * 4


def test_work_is_compared_over_the_pairs_alone():
    plan = changed(PLAN, varied=(("block_size", (4, 8)), ("steps", (100, 200))))
    lines = rows().rename(columns={"objective": "steps"})
    lines = lines.replace({"steps": {"bound": "100", "uniform": "200"}})
    lines["steps_taken"] = lines["steps"].astype(int)
    # Block size 8 has no run of 200 steps yet: its pairs are those of 100 steps, which are equal.
    lines = lines.query("block_size == '4' or steps == '100'")
    found = statistics.differences(plan, lines).set_index("setting")["unequal"]
    assert (found["block_size"], found["steps"]) == ("", "steps")


def test_no_setting_is_called_like_a_column_of_its_own_table():
    plan = changed(PLAN, varied=(), measures=(("drawing", 20),))
    [trial, *_] = plan.trials()
    numbers = {"draw_digit_accuracy": 0.9, "draw_digit_accuracy_n": 20}
    record = statistics.Record(trial, {plan.measurements()[0].key: numbers}, {})
    lines = statistics.score_rows(plan, [record])
    columns = {*lines, *statistics.table(plan, lines), *statistics.differences(PLAN, rows())}
    assert "steps_taken" in columns
    assert not columns & (plain_fields(get_preset("mnist-cpu")).keys() - {"seed"})


def test_steps_can_vary():
    plan = changed(PLAN, varied=(("steps", (2, 4)),))
    lines = rows().rename(columns={"block_size": "steps"}).query("objective == 'bound'")
    lines = lines.drop(columns="objective").replace({"steps": {"4": "2", "8": "4"}})
    lines["steps_taken"] = lines["steps"].astype(int)
    table = statistics.table(plan, lines)
    assert table["steps"].tolist() == ["2", "4"] and table["unequal"].tolist() == ["", "steps"]
    [row] = statistics.differences(plan, lines).to_dict("records")
    assert (row["setting"], row["value"], row["base"]) == ("steps", "4", "2")
    assert row["mean"] < 0 and row["unequal"] == "steps"
