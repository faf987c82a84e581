"""How the process of a submission ended, in words; `test_grading.py` lets such processes run."""

from minillada.course import processes


def test_how_a_process_ended():
    assert "SIGKILL" in processes.ending(-9)
    assert "signal 40" in processes.ending(-40), "a signal for real time has no name"
