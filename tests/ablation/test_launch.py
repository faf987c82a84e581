"""How jobs are started: side by side, and what a cluster would be asked."""

import functools
import math
import os
import stat
import sys
from pathlib import Path

import pytest
from helpers import needs_fork

from minillada.ablation import launch
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


@pytest.mark.parametrize("broken", ["read_materials", "seconds_of_step", "seconds_of_measuring"])
def test_a_run_that_cannot_be_timed_stops_no_other(plan, monkeypatch, tmp_path, broken):
    asked = plan(varied=(("block_size", (4, 8)),))

    def fail(*about):
        raise ValueError("this run fails")

    for name in ("read_materials", "seconds_of_step", "seconds_of_measuring"):
        monkeypatch.setattr(launch, name, lambda *about: 1.0)
    monkeypatch.setattr(launch, broken, fail)
    assert math.isnan(launch.estimate(asked, asked.trials(), Launch(tmp_path)).training)
