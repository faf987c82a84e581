"""What an ablation says on the screen, in its files and in its plot, from numbers set by hand."""

import csv
import json
import math

import pytest

from minillada import checkpoint
from minillada.ablation import job as jobs
from minillada.ablation import report as reports
from minillada.ablation.folder import write_json
from minillada.ablation.plan import Plan
from minillada.ablation.report import Report
from minillada.measure.intervals import share
from minillada.settings import changed

pytest.importorskip("pandas")
pytest.importorskip("scipy.stats")

PLAN = Plan(
    preset="mnist-cpu",
    fixed=(("steps", 7), ("batch_size", 5)),
    varied=(("block_size", (8, 16)), ("sampling.guidance", (1.0, 2.0))),
    seeds=(3, 4, 5),
    measures=(("drawing", 100), ("likelihood", 50)),
    passes=(9,),
)
# (block_size, guidance) -> right drawings of 100, for each seed
RIGHT = {
    (8, 1.0): (80, 84, 86), (8, 2.0): (90, 92, 94),
    (16, 1.0): (70, 75, 80), (16, 2.0): (88, 86, 90),
}  # fmt: skip
MADE = {"commit": "c0", "device": "cpu", "threads": 1}


def numbers(plan, trial, asked, guidance=1.0):
    """What one measurement of a run found."""
    block, place = trial.settings.get("block_size", 8), plan.seeds.index(trial.seed) % 3
    if asked.measure == "drawing":
        guidance = dict(asked.sampling).get("guidance", guidance)
        passes = {"passes": asked.passes + 0.25, "rows": asked.passes * guidance}
        right = share(RIGHT[block, guidance][place], 100)
        return right.entries("draw_digit_accuracy") | passes | MADE
    if asked.measure == "describing":
        return share(1, 2).entries("caption_exact_accuracy") | {"passes": 1.5, "rows": 1.5} | MADE
    bits = {8: 2.5, 16: 2.75}[block] + place / 8
    ends = {"bits_per_token_low": bits - 0.125, "bits_per_token_high": bits + 0.125}
    return {"bits_per_token": bits, "bits_per_token_n": 50} | ends | MADE


def measured(folder, plan=PLAN, **changes):
    """A report on runs that were trained and measured; `changes` are those of seeds, by number."""
    for trial in plan.trials():
        found = {asked.key: numbers(plan, trial, asked) for asked in plan.measurements()}
        found = {key: report | changes.get(f"s{trial.seed}", {}) for key, report in found.items()}
        run = folder / trial.name
        run.mkdir(parents=True)
        info = {"sha256": "0", "parameters": 1234, "seconds": 5.5}
        checkpoint.write_info(run / jobs.WEIGHTS, info)
        write_json(run / jobs.MEASURES, {"sha256": "0", "measures": found})
    return Report(folder, plan)


def cells(line):
    """The words of a line of a table, without the blanks that align them."""
    return " ".join(line.split())


def test_tables_and_differences_on_the_screen(tmp_path):
    report = measured(tmp_path)
    assert report.progress() == "6 done"
    work = "7 steps of 5 sequences; 9 forward passes a drawing; unequal work is marked ≠"
    assert report.work() == f"equal work: {work}"
    assert [cells(line) for line in report.lines()] == [
        "",
        "block_size sampling.guidance passes drawn digit is the asked one 95 % over seeds (t) "
        "within a seed (Wilson) seeds work",
        "8 1.0 9.2 83.3 % 75.7 % to 90.9 % 74.9 % to 89.3 % 3",
        "8 2.0 9.2 92.0 % 87.0 % to 97.0 % 85.0 % to 95.9 % 3 ≠ rows a pass",
        "16 1.0 9.2 75.0 % 62.6 % to 87.4 % 65.7 % to 82.4 % 3",
        "16 2.0 9.2 88.0 % 83.0 % to 93.0 % 80.2 % to 93.0 % 3 ≠ rows a pass",
        "",
        # no setting of decoding, no passes and no mark of unequal work
        "block_size bits per token 95 % over seeds (t) within a seed (t) seeds",
        "8 2.625 2.314 to 2.936 2.5 to 2.75 3",
        "16 2.875 2.564 to 3.186 2.75 to 3 3",
        "",
        "paired differences (same seeds, means over the other settings)",
        "drawn digit is the asked one, 9 passes: block_size 16 − 8: -6.2 [-9.3 to -3.0] points, "
        "p = 0.041",
        "bits per token: block_size 16 − 8: +0.25 [+0.25 to +0.25], p = –",
        "drawn digit is the asked one, 9 passes: sampling.guidance 2.0 − 1.0: "
        "+10.8 [+4.0 to +17.7] points, p = 0.042 (≠ rows a pass)",
        "3 comparisons, p by the paired t-test and Holm's rule",
    ]


def test_one_seed_of_one_setting(tmp_path):
    plan = changed(PLAN, varied=(("block_size", (8, 16)),), seeds=(3,), measures=PLAN.measures[:1])
    lines = [cells(line) for line in measured(tmp_path, plan).lines()]
    assert lines[2] == "8 9.2 80.0 % – 71.1 % to 86.7 % 1"
    assert lines[-3:] == [
        "paired differences (same seeds)",
        "drawn digit is the asked one, 9 passes: block_size 16 − 8: -10.0 points, p = –",
        "1 comparison, p by the paired t-test and Holm's rule",
    ]


def test_means_over_some_of_the_other_settings_are_named(tmp_path):
    report = measured(tmp_path)
    report.differences = report.differences.assign(over="1 of 2")
    some = "p = 0.042 (means over 1 of 2 choices of the other settings) (≠ rows a pass)"
    assert report.difference_lines()[3].endswith(some)


def test_work_is_called_equal_only_where_it_is(tmp_path):
    plan = changed(PLAN, fixed=(), varied=(("steps", (9, 8)), ("batch_size", (4,))))
    words = "8 steps of 4 sequences or 9 steps of 4 sequences"
    assert Report(tmp_path, plan).work().startswith(f"{words}; 9 forward passes a drawing;")
    two = Report(tmp_path, changed(PLAN, passes=(9, 16))).work()
    assert two.startswith("equal work: 7 steps of 5 sequences; 9 or 16 forward passes a drawing;")
    free = Report(tmp_path, changed(PLAN, passes=())).work()
    assert free.startswith("7 steps of 5 sequences; passes as decoding takes them;")


def test_every_state_of_a_run_is_said(tmp_path):
    first = changed(PLAN, varied=(("block_size", (8,)),), seeds=(3, 4))
    measured(tmp_path, first)
    plan = changed(first, seeds=(3, 4, 5, 6, 7, 8, 9))
    names = [trial.name for trial in plan.trials()]
    for place in (3, 4, 5):
        (tmp_path / names[place]).mkdir()
    (tmp_path / names[1] / jobs.MEASURES).write_text("{")
    for place in (3, 4):
        write_json(tmp_path / names[place] / jobs.FAILED, {"error": f"the loss is {place}"})
    # One run has its weights and the first of two measurements.
    (tmp_path / names[5] / jobs.WEIGHTS).touch()
    checkpoint.write_info(tmp_path / names[5] / jobs.WEIGHTS, {"sha256": "0"})
    asked, trial = plan.measurements()[0], plan.trials()[5]
    found = {"sha256": "0", "measures": {asked.key: numbers(plan, trial, asked)}}
    write_json(tmp_path / names[5] / jobs.MEASURES, found)
    report = Report(tmp_path, plan)
    assert report.progress() == (
        "1 done, 1 to resume at its measurements, 2 failed before, 1 unreadable, 2 to start"
    )
    why = f"{tmp_path / names[1] / jobs.MEASURES} is damaged, was changed, or is no file of an"
    *_, unreadable, failed, again, missing = report.lines()
    assert unreadable.startswith(f"unreadable: {names[1]}: {why}")
    assert [failed, again] == [f"failed: {names[k]}: the loss is {k}" for k in (3, 4)]
    assert missing == "3 of 7 runs are not finished"
    said = report.to_json()
    assert said["unfinished"] == [names[2], names[5], names[6]]
    assert [*said["failed"]] == [names[1], names[3], names[4]]


def test_nothing_is_measured_yet(tmp_path):
    report = Report(tmp_path, PLAN)
    assert report.lines() == ["nothing is measured yet", "6 of 6 runs are not finished"]
    report.save()
    said = json.loads((tmp_path / reports.RESULTS).read_text())
    assert said["runs"] == said["table"] == said["differences"] == []
    assert not (tmp_path / reports.PLOT).exists()


def test_what_programs_read(tmp_path):
    report = measured(tmp_path, s5={"device": "cuda"})
    report.save()
    said = json.loads((tmp_path / reports.RESULTS).read_text())
    assert said["command"] == PLAN.command() and said["work"] == report.work()
    assert (said["commit"], said["device"], said["threads"]) == (["c0"], ["cpu", "cuda"], [1])
    # 1. a run and way of decoding: the same run stands once for each
    assert len(said["runs"]) == 3 * 2 * 2
    run = said["runs"][5]
    assert run["run"] == "block_size=8,seed=4" and run["seed"] == 4 and run["steps"] == 7
    assert run["settings"] == {"block_size": 8, "sampling.guidance": 2.0}
    assert (run["parameters"], run["seconds"], run["passes"]) == (1234, 5.5, 9.25)
    found = run["measures"]
    assert found["draw_digit_accuracy"] == 0.92 and found["bits_per_token"] == 2.625
    assert (found["drawing_passes"], found["drawing_rows"]) == (9.25, 18)
    assert found["drawing_device"] == found["likelihood_device"] == "cpu"
    assert not {"passes", "rows", "device"} & {*found}
    # 2. means and differences, with values as they were given
    means = {
        (row["settings"]["block_size"], row["settings"].get("sampling.guidance")): row["mean"]
        for row in said["table"]
    }
    assert means[16, 2.0] == pytest.approx(0.88) and means[16, None] == 2.875
    assert not any("sampling.guidance" in row for row in said["table"])
    compared = [(row["setting"], row["value"], row["base"]) for row in said["differences"]]
    assert ("block_size", 16, 8) in compared and ("sampling.guidance", 2.0, 1.0) in compared
    assert not any("settings" in row for row in said["differences"])
    assert [row["p"] is None for row in said["differences"]] == [False, True, False]
    # 3. the same as a table
    with open(tmp_path / reports.CSV, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(said["runs"])
    line = lines[5]
    assert (line["run"], line["block_size"], line["sampling.guidance"]) == (run["run"], "8", "2.0")
    assert (line["seed"], line["passes"], line["draw_digit_accuracy"]) == ("4", "9.25", "0.92")
    assert [*line][:3] == ["run", "block_size", "sampling.guidance"]
    assert "settings" not in line and "measures" not in line


def test_values_stand_in_the_table_as_on_the_command_line(tmp_path, monkeypatch):
    plan = changed(PLAN, varied=(("mask_rate", ((0.1, 1.0), (0.3, 1.0))),), seeds=(3,))
    report = measured(tmp_path, plan)
    report.save()
    with open(tmp_path / reports.CSV, encoding="utf-8", newline="") as file:
        assert [line["mask_rate"] for line in csv.DictReader(file)] == ["[0.1,1.0]", "[0.3,1.0]"]
    _, ticks, _, named, _ = plotted(monkeypatch, report)
    assert (ticks, named) == (["[0.1,1.0]", "[0.3,1.0]"], {"numeric": False})


def test_the_passes_of_a_run_are_those_of_its_first_measure(tmp_path):
    plan = changed(PLAN, measures=(("drawing", 100), ("describing", 50)), seeds=(3,))
    [run, *_] = measured(tmp_path, plan).to_json()["runs"]
    assert run["passes"] == 9.25 and run["measures"]["describing_passes"] == 1.5


@pytest.mark.parametrize("name", reports.FILES)
def test_a_folder_in_the_place_of_any_file_is_refused(tmp_path, name):
    report = Report(tmp_path, PLAN)
    report.check_files()
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is not a regular file"):
        report.check_files()


def test_each_number_of_passes_is_a_line_of_its_own(tmp_path):
    plan = changed(PLAN, passes=(9, 16), measures=PLAN.measures[:1])
    report = measured(tmp_path, plan)
    said = report.to_json()
    assert [run["passes"] for run in said["runs"][:4]] == [9.25, 16.25, 9.25, 16.25]
    assert [row["target"] for row in said["table"][:2]] == [9, 16]


def test_settings_of_decoding_that_are_fixed_find_their_numbers(tmp_path):
    plan = changed(PLAN, fixed=(("sampling.guidance", 2.0),), varied=(("block_size", (8, 16)),))
    report = measured(tmp_path, plan)
    assert report.to_json()["runs"][0]["measures"]["draw_digit_accuracy"] == 0.9


def plotted(monkeypatch, report):
    """What `draw` is given, and the figure that it makes."""
    given, draw = [], reports.draw

    def noted(*about, **named):
        given.extend((*about, named))
        return draw(*about, **named)

    monkeypatch.setattr(reports, "draw", noted)
    figure = report.plot()
    return *given, figure


def test_the_plot_shows_the_table(tmp_path, monkeypatch):
    plan = changed(PLAN, varied=(PLAN.varied[0], ("sampling.guidance", (1.0, 2.0))), seeds=(3, 4))
    by_score, ticks, axis, named, figure = plotted(monkeypatch, measured(tmp_path, plan))
    assert (ticks, axis, named) == (["8", "16"], "block_size", {"numeric": True})
    drawn, bits = by_score["drawn digit is the asked one (share)"], by_score["bits per token"]
    assert {name: [point[0] for point in points] for name, points in drawn.items()} == {
        "sampling.guidance=1.0, 9 passes": pytest.approx([0.82, 0.725]),
        "sampling.guidance=2.0, 9 passes": pytest.approx([0.91, 0.87]),
    }
    low, high = drawn["sampling.guidance=2.0, 9 passes"][1][1:]
    assert 0 < low < 0.87 < high <= 1
    assert [*bits] == ["all"] and [point[0] for point in bits["all"]] == [2.5625, 2.8125]
    one, two = figure.axes
    assert one.get_xlim() == (-0.5, 1.5) and one.get_xlabel() == "block_size"
    # The two lines stand a little to the left and to the right of their tick.
    places = [list(line.get_xdata()) for line in one.lines if len(line.get_xdata()) == 2]
    assert [-0.04, 0.96] in [pytest.approx(place) for place in places]
    assert [0.04, 1.04] in [pytest.approx(place) for place in places]
    assert all(line.get_linestyle() != "None" for line in one.containers[0].lines[:1])


def test_the_setting_with_most_values_stands_below_the_plot(tmp_path, monkeypatch):
    plan = changed(PLAN, varied=(("block_size", (8,)), ("sampling.guidance", (1.0, 2.0))))
    by_score, ticks, axis, _, _ = plotted(monkeypatch, measured(tmp_path, plan))
    assert (ticks, axis) == (["1.0", "2.0"], "sampling.guidance")
    # The likelihood depends on no guidance: its one point stands at both.
    [points] = by_score["bits per token"].values()
    assert len(points) == 2 and points[0] == points[1] and points[0][0] == 2.625


def test_where_nothing_varies_the_plot_has_one_point(tmp_path, monkeypatch):
    plan = changed(PLAN, varied=(), seeds=(3,))
    by_score, ticks, axis, _, _ = plotted(monkeypatch, measured(tmp_path, plan))
    assert (ticks, axis) == ([""], "")
    assert by_score["bits per token"] == {"all": [(2.5, 2.5, 2.5)]}


def test_words_below_the_plot_are_not_joined_by_lines():
    points = {"share": {"all": [(0.5, 0.4, 0.6), (0.7, 0.6, 0.8)]}}
    for numeric in (True, False):
        figure = reports.draw(points, ["a", "b"], "objective", numeric=numeric)
        [panel] = figure.axes
        assert (panel.containers[0].lines[0].get_linestyle() == "None") != numeric
    assert [reports.is_number(value) for value in (1, 0.5, True, "1", (1, 2))] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_a_run_without_numbers_has_no_point(tmp_path, monkeypatch):
    report = measured(tmp_path, changed(PLAN, seeds=(3,)))
    rows = report.table
    report.table = rows[(rows["block_size"] != "16") | (rows["score"] == "bits_per_token")]
    by_score, *_ = plotted(monkeypatch, report)
    drawn = by_score["drawn digit is the asked one (share)"]
    first, second = drawn["sampling.guidance=1.0, 9 passes"]
    assert first == (0.8, 0.8, 0.8) and all(map(math.isnan, second))
