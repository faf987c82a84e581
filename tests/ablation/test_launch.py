"""How jobs are started: side by side, and what a cluster would be asked."""

import functools
import math
import os
import signal
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import needs_fork

from minillada.ablation import launch
from minillada.ablation.job import Job
from minillada.ablation.launch import Launch

unix = pytest.mark.skipif(sys.platform == "win32", reason="submitit runs on Unix")


@unix
def test_jobs_run_side_by_side_and_a_broken_one_stops_nobody(tmp_path):
    pytest.importorskip("submitit")
    there = tmp_path / "there"
    there.mkdir()
    # The second job fails: its folder exists.
    jobs = [functools.partial(os.mkdir, there / name) for name in ("a", "../there", "b")]
    launch.run_side_by_side(tmp_path / "jobs", jobs, at_once=2)
    assert sorted(path.name for path in there.iterdir()) == ["a", "b"]
    logs = "".join(path.read_text() for path in (tmp_path / "jobs").glob("*.err"))
    assert "FileExistsError" in logs


@unix
def test_a_job_hears_of_an_interruption_once_and_has_time_to_save(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    began, ended, wait = tmp_path / "began", tmp_path / "ended", time.sleep

    def job():
        received = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: received.append(number))
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C in a terminal reaches every process
        began.touch()
        while not received:
            time.sleep(0.1)
        time.sleep(2)  # a long step
        ended.write_text(str(received))

    def interrupt(seconds):
        wait(seconds)
        if began.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(launch.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch.run_side_by_side(tmp_path / "jobs", [job], at_once=1)
    for _ in range(100):
        if not ended.exists() or not ended.read_text():
            wait(0.1)
    assert ended.read_text() == f"[{int(signal.SIGTERM)}]"


@pytest.fixture
def started(monkeypatch):
    """What submitit is asked to start on this machine: jobs with their GPUs, of which some run."""
    asked = SimpleNamespace(jobs=[], running=[], most=0, cancelled=[])

    class Started:
        def __init__(self, job):
            self.left = job
            self.job_id = f"{1000 + len(asked.jobs)}"
            asked.running.append(self)
            asked.most = max(asked.most, len(asked.running))

        def done(self):
            self.left -= 1
            if not self.left:
                asked.running.remove(self)
            return self.left <= 0

    class Executor:
        def __init__(self, folder):
            self.folder = folder

        def update_parameters(self, timeout_min, gpus_per_node=0, visible_gpus=None):
            self.gpus = visible_gpus

        def submit(self, job):
            asked.jobs.append((job, self.gpus))
            return Started(job)

    submitit = SimpleNamespace(LocalExecutor=Executor)
    monkeypatch.setattr(launch, "load_package", lambda *about: submitit)
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(launch.os, "kill", lambda *about: asked.cancelled.append(about))
    return asked


@unix
def test_a_job_takes_the_place_and_the_gpu_of_one_that_has_ended(started, tmp_path):
    # A job is the number of times after which it has ended: the first runs longest.
    launch.run_side_by_side(tmp_path, [9, 2, 3, 1], at_once=2, numbers=[5, 7])
    assert started.jobs == [(9, [5]), (2, [7]), (3, [7]), (1, [7])]
    assert started.most == 2 and not started.running and not started.cancelled


@unix
def test_results_of_processes_with_the_same_numbers_are_not_taken_for_new_ones(started, tmp_path):
    old, cluster = tmp_path / "1001_0_result.pkl", tmp_path / "77_0_submitted.pkl"
    for path in (old, cluster):
        path.touch()
    launch.run_side_by_side(tmp_path, [1], at_once=2)
    assert not old.exists() and cluster.exists()  # the job of a cluster may still be waiting


@unix
def test_jobs_end_with_the_process_that_started_them(started, monkeypatch, tmp_path):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch.run_side_by_side(tmp_path, [9, 9, 9], at_once=2)
    assert started.cancelled == [(1001, signal.SIGTERM), (1002, signal.SIGTERM)]


def test_a_process_waits_for_all_jobs_of_a_cluster(started):
    submitted = [SimpleNamespace(left=left) for left in (3, 1, 5, 2)]
    for job in submitted:

        def done(job=job):
            job.left -= 1
            return job.left <= 0

        job.done = done
    launch.wait_for(submitted)
    assert [job.left for job in submitted] == [0, 0, 0, 0]


def test_jobs_run_where_the_launch_says(plan, monkeypatch, tmp_path):
    trials, seen = plan(seeds=(0, 1, 2)).trials(), []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(launch, "cores", lambda: 8)
    monkeypatch.setattr(launch.sys, "platform", "linux")
    for name in ("run_side_by_side", "submit_array", "wait_for"):
        monkeypatch.setattr(launch, name, lambda *about, name=name: seen.append((name, *about)))
    monkeypatch.setattr(launch, "slurm", lambda asked: asked)
    here = Launch(tmp_path, jobs=2, device="cuda")
    here.run(trials)
    jobs = [Job(tmp_path.resolve(), trial.name, "cuda", 4) for trial in trials]
    assert seen.pop() == ("run_side_by_side", tmp_path / "jobs", jobs, 2, [0, 1, 2])
    cluster = Launch(tmp_path, jobs=2, executor="slurm")
    cluster.run(trials)
    jobs = [Job(tmp_path.resolve(), trial.name) for trial in trials]
    assert seen == [("submit_array", cluster, jobs), ("wait_for", None)]
    for launched in (here, cluster, Launch(tmp_path)):
        launched.run([])
    assert len(seen) == 2, "nothing to run is nothing to submit"


def test_one_job_after_the_other_has_all_cores(plan, monkeypatch, tmp_path):
    trials, seen = plan(seeds=(0, 1)).trials(), []
    monkeypatch.setattr(launch, "cores", lambda: 3)
    monkeypatch.setattr(
        Job, "__call__", lambda job: seen.append((job.name, torch.get_num_threads()))
    )
    before = torch.get_num_threads()
    Launch(tmp_path).run(trials)
    assert seen == [(trial.name, 3) for trial in trials] and torch.get_num_threads() == before


def test_a_job_knows_its_folder_wherever_it_runs(plan, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    [trial] = plan().trials()
    job = Launch(Path("ab"), tensorboard=True).job(trial)
    assert job.folder == Path("ab").resolve() and job.folder.is_absolute() and job.tensorboard


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert launch.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert launch.cores() == 16


def test_gpus_are_handed_round(monkeypatch):
    given = [launch.gpu_of(place, [0, 1]).get("visible_gpus") for place in range(3)]
    assert given == [[0], [1], [0]] and launch.gpu_of(1, []) == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 4)
    assert launch.gpus("cuda") == [0, 1, 2, 3] and launch.gpus("cuda:1") == [1]
    assert launch.gpus("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert launch.gpus("cuda") == [2, 5] and launch.gpus("cuda:1") == [5]


@unix
@pytest.mark.parametrize("names", ["GPU-1f2e,GPU-77aa", "MIG-5c0e/1/0", "0,GPU-1f2e"])
def test_gpus_that_have_no_numbers_are_not_taken_for_the_first_ones(monkeypatch, names):
    pytest.importorskip("submitit")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    with pytest.raises(ValueError, match=f"DEVICES is {names}, .* set it to numbers, .* --jobs 1"):
        Launch(Path("x"), jobs=2, device="cuda").check()
    for device, jobs in (("cuda", 1), ("cpu", 2)):  # nothing is handed round
        assert Launch(Path("x"), jobs=jobs, device=device).check() is None


def test_the_options_of_a_launch_are_those_of_the_command_line():
    assert Launch(Path("x")).options() == []
    whole = Launch(Path("x"), 2, "slurm", "short", 60, "cuda", tensorboard=True)
    assert " ".join(whole.options()) == (
        "--jobs 2 --executor slurm --partition short --minutes 60 --device cuda --tensorboard"
    )


@unix
def test_a_process_of_its_own_sees_one_gpu(plan):
    [trial] = plan().trials()
    assert Launch(Path("x"), jobs=2, device="cuda:1").job(trial).device == "cuda"
    assert Launch(Path("x"), jobs=1, device="cuda:1").job(trial).device == "cuda:1"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder of programs: an sbatch that keeps what it is given, and an srun."""
    programs = tmp_path / "programs"
    programs.mkdir()
    scripts = {
        "sbatch": f'cp "$1" {tmp_path}/submitted.sh; echo "Submitted batch job 1234"',
        "srun": "true",
    }
    for name, line in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "submitted.sh"


@unix
def test_what_is_submitted_to_a_cluster(tmp_path, cluster):
    pytest.importorskip("submitit")
    asked = Launch(tmp_path / "ab", 2, "slurm", partition="small", minutes=90, device="cuda")
    assert asked.check() is None and asked.threads is None
    jobs = [functools.partial(print, number) for number in range(3)]
    submitted = launch.submit_array(launch.slurm(asked), jobs)
    assert [job.job_id for job in submitted] == ["1234_0", "1234_1", "1234_2"]
    lines = cluster.read_text().splitlines()
    for line in (
        "#SBATCH --partition=small",
        "#SBATCH --time=90",
        "#SBATCH --array=0-2%2",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --job-name=minillada",
        f"#SBATCH --cpus-per-task={launch.CORES_OF_A_JOB}",
    ):
        assert line in lines
    [command] = [line for line in lines if line.startswith("srun")]
    assert "-m submitit.core._submit" in command and str(tmp_path / "ab" / "jobs") in command


@unix
def test_a_refusal_of_the_cluster_is_one_sentence(tmp_path, cluster):
    pytest.importorskip("submitit")
    sbatch = cluster.parent / "programs" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: shrt' >&2; exit 1\n")
    asked = Launch(tmp_path / "ab", executor="slurm", partition="shrt")
    assert "gpus_per_node" not in launch.slurm(asked).parameters
    with pytest.raises(ValueError, match="refused the jobs .*invalid partition: shrt"):
        launch.submit_array(launch.slurm(asked), [functools.partial(print, 1)])
    (sbatch.parent / "srun").unlink()
    with pytest.raises(ValueError, match="there is no srun here"):
        asked.check()


def test_launches_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no executor 'cloud'; choose local or slurm"):
        Launch(tmp_path, executor="cloud").check()
    with pytest.raises(ValueError, match="add --executor slurm"):
        Launch(tmp_path, partition="small").check()
    monkeypatch.setenv("PATH", str(tmp_path))
    pytest.importorskip("submitit")
    with pytest.raises(ValueError, match="there is no sbatch here"):
        Launch(tmp_path, executor="slurm").check()
    monkeypatch.setattr(sys, "platform", "win32")
    assert "one after the other" in Launch(tmp_path, jobs=2).check()


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr(launch, "cores", lambda: 8)
    assert [Launch(Path("x"), jobs).threads for jobs in (1, 3, 8, 20)] == [8, 2, 1, 1]


@needs_fork
def test_a_run_of_fewer_steps_than_are_timed(plan, few_images):
    [trial] = plan(fixed=(("workers", 1), ("warmup_steps", 1))).trials()
    assert trial.preset.training.steps < launch.TIMED_STEPS
    materials = launch.read_materials(trial.preset, "cpu")
    assert launch.seconds_of_step(trial, materials, "cpu") > 0


def test_the_estimate_counts_reading_steps_and_samples(plan, few_images, monkeypatch, tmp_path):
    asked = plan(
        varied=(("block_size", (4, 8)),), seeds=(0, 1), measures=(("drawing", 600), ("digit", 60))
    )
    monkeypatch.setattr(launch, "seconds_of_step", lambda trial, materials, device: 2.0)
    clock = [0.0]

    def tick():
        clock[0] += 1
        return clock[0]

    def take_time(decoder, asked, seed):
        clock[0] += 4 + asked.count / 10

    monkeypatch.setattr(launch, "measure", take_time)
    monkeypatch.setattr(launch.time, "perf_counter", tick)
    # Reading takes 1 s a run, each of 4 steps 2 s. A measurement takes 5 s and 0.1 s a sample:
    # 65 s and 11 s for each of 4 runs. Two jobs need half the time.
    trials = asked.trials()
    one = launch.estimate(asked, trials, Launch(tmp_path))
    assert one.training == 36 and one.measuring == pytest.approx(4 * 76)
    two = launch.estimate(asked, trials, Launch(tmp_path, jobs=2))
    assert two.training == 18 and two.measuring == pytest.approx(2 * 76)


def test_a_step_takes_the_median_of_those_after_the_first(plan, few_images, monkeypatch):
    [trial] = plan().trials()
    ends = iter([10.0, 11.0, 13.0, 14.0, 17.0, 27.0])  # 1, 2, 1, 3 and 10 seconds
    monkeypatch.setattr(launch, "time", SimpleNamespace(perf_counter=lambda: next(ends)))

    def fit(module, loss, training, run, count, note, *rest):
        assert training.steps >= count, "a run stops at its last step"
        for step in range(count):
            note(step)

    monkeypatch.setattr(launch, "fit", fit)
    materials = launch.read_materials(trial.preset, "cpu")
    assert launch.seconds_of_step(trial, materials, "cpu") == 2
    assert not [*ends]


def test_a_measurement_that_is_quicker_with_more_samples_takes_no_time_for_each(
    plan, few_images, monkeypatch
):
    asked = plan(measures=(("likelihood", 600),))
    [trial] = asked.trials()
    ends = iter([0.0, 9.0, 10.0, 14.0])  # 9 seconds for few samples, 4 for more
    monkeypatch.setattr(launch, "time", SimpleNamespace(perf_counter=lambda: next(ends)))
    monkeypatch.setattr(launch, "measure", lambda *about: None)
    materials = launch.read_materials(trial.preset, "cpu")
    assert launch.seconds_of_measuring(asked, trial, materials, "cpu") == 4


@pytest.mark.parametrize(
    ("varied", "timed", "seconds", "read"),
    [
        # the first, one in between and the last; of the same codes and texts, which are read once
        (("block_size", (1, 2, 4, 8, 16)), [1, 4, 16], 7.0, 1),
        (("text", ("mnist-text", "mnist-uni-text")), ["mnist-text", "mnist-uni-text"], 3.0, 2),
    ],
)
def test_some_of_the_settings_are_timed_for_all(
    plan, monkeypatch, tmp_path, varied, timed, seconds, read
):
    asked, seen = plan(varied=(varied,), seeds=(0, 1)), {"step": [], "measuring": [], "read": []}

    def seconds_of_step(trial, materials, device):
        seen["step"].append(trial.settings[varied[0]])
        assert torch.get_num_threads() == 2
        return float(seen["step"][-1]) if varied[0] == "block_size" else 3.0

    def noted(kind):
        return lambda *about: seen[kind].append(about) or 7.0

    monkeypatch.setattr(launch, "cores", lambda: 40)
    monkeypatch.setattr(launch, "seconds_of_step", seconds_of_step)
    monkeypatch.setattr(launch, "seconds_of_measuring", noted("measuring"))
    monkeypatch.setattr(launch, "read_materials", noted("read"))
    clock = iter(range(100))
    monkeypatch.setattr(launch, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    # Reading takes 1 s a run; a run has 4 steps. There are fewer runs than jobs: all run at once.
    found = launch.estimate(asked, asked.trials(), Launch(tmp_path, jobs=20))
    assert seen["step"] == timed and len(seen["read"]) == read and len(seen["measuring"]) == 1
    assert found == (1 + 4 * seconds, 7)


@pytest.mark.parametrize("broken", ["read_materials", "seconds_of_step", "seconds_of_measuring"])
def test_a_run_that_cannot_be_timed_stops_no_other(plan, monkeypatch, tmp_path, broken):
    asked = plan(varied=(("block_size", (4, 8)),))

    def fail(*about):
        raise ValueError("this run fails")

    for name in ("read_materials", "seconds_of_step", "seconds_of_measuring"):
        monkeypatch.setattr(launch, name, lambda *about: 1.0)
    monkeypatch.setattr(launch, broken, fail)
    assert math.isnan(launch.estimate(asked, asked.trials(), Launch(tmp_path)).training)
