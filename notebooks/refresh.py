"""Run notebooks from a clean kernel and store their outputs.

`python notebooks/refresh.py notebooks/04_*.ipynb`; without an argument, all of them.
`--readme` runs nothing: it writes the minutes and seconds of all headers into the README's table.

Notable choices
- The kernel is the interpreter that runs this script, whatever kernels are installed elsewhere. It
  is started in the notebook's folder.
- What changes between two runs of the same code (timestamps, widget state, the Python version) is
  dropped. So a refresh that changes nothing leaves the file as it was, byte for byte.
- The header says how long the cells take: `**Machine**: about 20 s`. The seconds are measured here.
  They change only if the old ones are wrong by a third, so that a busy minute changes no file.
- A notebook whose outputs should not be committed is reported and left as it was: errors, standard
  error (warnings and progress bars), paths of this machine, memory addresses, more than 1 MB.
"""

import argparse
import glob
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from minillada.files import atomic

FOLDER = Path(__file__).resolve().parent
MAX_BYTES = 1_000_000
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# A path that only exists here: this clone, a home or temporary folder, a Windows drive.
ELSEWHERE = r"/home/\w|/root/|/Users/\w|/tmp/|/var/folders/|\b[A-Z]:\\\w"
MACHINE_PATH = re.compile(re.escape(str(FOLDER.parent)) + "|" + ELSEWHERE)

MACHINE = re.compile(r"(?<=\*\*Machine\*\*: about )\d+(?= s\b)")
MINUTES = re.compile(r"(?<=\*\*Minutes\*\*: about )\d+")
README = FOLDER.parent / "README.md"
ROUND = [5, 10, 15, 20, 30, 40, 50, 60, 75, 90, 120, 150, 180, 240, 300, 400, 500, 600]


class ThisInterpreter(AsyncKernelManager):
    """A kernel of the Python that runs this script, whatever kernel the notebook asks for."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Only errors are logged: a hint about unencrypted local sockets is not for our reader.
        command = "-m ipykernel_launcher -f {connection_file} --log-level=40"
        return KernelSpec(argv=[sys.executable, *command.split()], **KERNEL)


def text_of(output: dict) -> str:
    """What an output says in words; pictures are left out."""
    if output["output_type"] == "stream":
        return output["text"]
    data = output.get("data", {})
    return "\n".join(str(data[kind]) for kind in data if not kind.startswith("image/"))


def joined(outputs: list[dict]) -> list[dict]:
    """Texts printed one after the other as one; a text stays before the picture that follows it."""
    new: list[dict] = []
    for output in outputs:
        same = new and output["output_type"] == new[-1]["output_type"] == "stream"
        if same and output["name"] == new[-1]["name"]:
            new[-1]["text"] += output["text"]
        else:
            new.append(output)
    return new


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop, in place, what differs from run to run or needs a live kernel to be shown."""
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(metadata)
    for number, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{number}")
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
            cell.outputs = joined(cell.outputs)


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Why the outputs should not be committed; empty if they may."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                found.append(f"cell {number} raised {output['ename']}: {output['evalue']}")
            elif output.get("name") == "stderr":
                text = output["text"].strip()[:300]
                found.append(f"cell {number} wrote to standard error: {text}")
            elif match := MACHINE_PATH.search(text_of(output)):
                found.append(f"cell {number} shows a path of this machine: {match.group()}")
            elif match := re.search(r"<[^<>]* at 0x[0-9a-f]+>", text_of(output)):
                found.append(f"cell {number} shows a memory address: {match.group()}")
    size = len(nbformat.writes(notebook).encode())
    if size > MAX_BYTES:
        found.append(f"{size} bytes; at most {MAX_BYTES} (fewer or smaller pictures)")
    return found


def kernel_seconds() -> float:
    """Processor seconds of all kernels that have ended; always 0 where a system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_seconds(notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Put measured seconds, rounded, into the header, unless those written there still hold."""
    header = notebook.cells[0]
    written = MACHINE.search(header.source)
    if written and not 2 / 3 <= seconds / max(int(written.group()), 1) <= 4 / 3:
        nearest = min(ROUND, key=lambda number: abs(number - seconds))
        header.source = MACHINE.sub(str(nearest), header.source, count=1)


def with_times(readme: str, name: str, header: str) -> str:
    """`readme` with the minutes and seconds of a notebook's header in the row of the notebook."""
    minutes, seconds = MINUTES.search(header), MACHINE.search(header)
    if not minutes or not seconds:
        return readme
    row = re.compile(rf"(\(notebooks/{re.escape(name)}\) \| [^|]*\|)[^|\n]*\|[^|\n]*\|")
    return row.sub(rf"\1 {minutes.group()} | {seconds.group()} |", readme)


def readme_with_all_times() -> str:
    readme = README.read_text(encoding="utf-8")
    for path in sorted(FOLDER.glob("*.ipynb")):
        readme = with_times(readme, path.name, nbformat.read(path, as_version=4).cells[0].source)
    return readme


def refresh(path: Path, timeout: int) -> list[str]:
    """Execute one notebook and replace it, unless there are problems, which are returned."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisInterpreter,
        timeout=timeout,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    began, used_before = time.perf_counter(), kernel_seconds()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return [re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()]  # without terminal colours
    # On a busy machine the kernel waits for others. Its own seconds say what it takes alone.
    used = kernel_seconds() - used_before
    seconds = time.perf_counter() - began
    write_seconds(notebook, min(seconds, used) if used > 0 else seconds)
    clean(notebook)
    if not (found := problems(notebook)):
        with atomic(path) as part:
            nbformat.write(notebook, part)
    return found


def named(patterns: list[str]) -> list[Path]:
    """Notebooks by name, also as `04_*.ipynb`: shells of Windows leave the star to the program."""
    return [Path(name) for text in patterns for name in sorted(glob.glob(text)) or [text]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="default: every notebook here")
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell may take (300)")
    parser.add_argument("--readme", action="store_true", help="write the times into the README")
    args = parser.parse_args()
    paths = named(args.notebooks)
    for path in paths:
        if not path.is_file():
            parser.error(f"there is no notebook at {path}")
    if args.readme:
        readme = readme_with_all_times()
        with atomic(README) as part:
            part.write_text(readme, encoding="utf-8")
        return 0
    os.environ["TQDM_DISABLE"] = "1"  # inherited by the kernel: progress bars are noise when stored
    os.environ.pop("MPLBACKEND", None)  # leaves the kernel its inline backend
    failed = False
    for path in paths or sorted(FOLDER.glob("*.ipynb")):
        began = time.perf_counter()
        found = refresh(path.resolve(), args.timeout)
        failed = failed or bool(found)
        kibibytes = path.stat().st_size / 1024
        seconds = time.perf_counter() - began
        done = "NOT refreshed" if found else f"refreshed in {seconds:.0f} s, {kibibytes:.0f} KiB"
        print(f"{path}: {done}")
        print(*(f"  {line}" for line in found), sep="\n", end="\n" if found else "")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
