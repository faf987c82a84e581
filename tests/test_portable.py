"""Package, tests and notebooks run on Linux, Windows and macOS: no Unix-only call on its own."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve()
UNIX_ONLY = [
    r"os\.(fork|forkpty|killpg|setsid|getuid|geteuid|getgid|nice|uname|mkfifo|wait4|setpgid)\b",
    r"os\.(sched_\w+|posix_\w+|sysconf|getloadavg|chown|chroot|getpgid)\b",
    r"signal\.(SIGKILL|SIGALRM|SIGHUP|SIGUSR1|SIGUSR2|SIGXCPU|alarm|setitimer|pthread_\w+)\b",
    r"(?:import|from) (resource|fcntl|pwd|grp|termios|pty|tty|syslog)\b",
    r"[\"'](/(?:tmp|dev|proc|usr|etc|var|bin)\b)",
    r"preexec_fn|start_new_session|process_group=|shell=True|get_context\(\"fork",
    r"\.symlink_to\(|os\.symlink\(",
]
# Lines that are reached only where the system has what they call: the file, and its guard.
GUARDED = {
    "minillada/ablation/launch.py": 'hasattr(os, "sched_getaffinity")',
    "minillada/course/processes.py": 'hasattr(os, "killpg")',
    "minillada/course/worker.py": 'hasattr(os, "setsid")',
    "minillada/official/free.py": 'hasattr(os, "sysconf")',
    "minillada/official/memory.py": "Linux only",
    "minillada/official/shards.py": 'hasattr(os, "posix_fadvise")',
    "minillada/training/locking.py": 'sys.platform == "win32"',
    "tests/course/test_grading.py": "os.getppid()",  # what a student writes, as a text
    "tests/commands/test_cli.py": 'os.name != "nt"',
    "tests/training/test_ahead.py": "needs_fork",
    "tests/datasets/test_pictures.py": 'hasattr(os, "mkfifo")',
    "tests/official/test_digests.py": "outside the folder",  # a name that must be refused
    "tests/test_checkpoint.py": 'os.name == "nt" or',
    "tests/test_files.py": 'os.name == "nt", reason',
}
FILES = [path for folder in ("minillada", "tests") for path in (ROOT / folder).rglob("*.py")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def found(text: str) -> list[str]:
    """What in a program only Unix has."""
    return [match[0] for pattern in UNIX_ONLY for match in re.finditer(pattern, text)]


def test_unix_only_calls_have_a_guard():
    guarded = set()
    for path in FILES:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        calls = found(text) if path != HERE else []
        if calls:
            assert GUARDED.get(name, "?") in text, f"{name}: {calls} exist on Unix alone"
            guarded.add(name)
    assert guarded == set(GUARDED), "a line of GUARDED is no longer needed"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_call_nothing_of_unix(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        code = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
        assert not found(code) and not re.search(r"^\s*[!%]", code, re.M), code


def test_texts_are_read_and_written_as_utf_8():
    # Windows would take another encoding. Files of the kernel, in /proc, are plain ASCII.
    plain = re.compile(r"(?:read_text|write_text)\((?![^)]*encoding)[^()]*\)")
    for path in (ROOT / "minillada").rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if plain.search(line) and "/proc/" not in line], path
