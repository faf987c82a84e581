"""Run notebooks from a clean kernel and store their outputs: `python notebooks/refresh.py notebooks/04_*.ipynb` (default: all).

Notable choices
- The kernel is the interpreter that runs this script, whatever kernels are installed elsewhere, started in the notebook's folder.
- What changes between two runs of the same code (timestamps, widget state, the Python version) is dropped, so a refresh
  that changes nothing leaves the file byte-identical.
- A notebook whose outputs should not be committed is reported and left as it was: errors, standard error (warnings and
  progress bars), paths of this machine, memory addresses, more than 1 MB.
"""

import argparse
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

FOLDER = Path(__file__).resolve().parent
MAX_BYTES = 1_000_000
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# A path that only exists here: this clone, a home or temporary folder, a Windows drive.
MACHINE_PATH = re.compile(re.escape(str(FOLDER.parent)) + r"|/home/\w|/root/|/Users/\w|/tmp/|/var/folders/|\b[A-Z]:\\\w")


class ThisInterpreter(AsyncKernelManager):
    """A kernel of the Python that runs this script, whatever kernel the notebook asks for."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Only errors are logged: a hint about unencrypted local sockets is not for the reader of this script's output.
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"], **KERNEL)


def text_of(output: dict) -> str:
    """What an output says in words; pictures are left out."""
    if output["output_type"] == "stream":
        return output["text"]
    return "\n".join(str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


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
    """Drop, in place, everything that differs from run to run or needs a live kernel to be shown."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{number}")
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
            cell.outputs = joined(cell.outputs)


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Why the outputs should not be committed; empty if they may."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                found.append(f"cell {number} raised {output['ename']}: {output['evalue']}")
            elif output.get("name") == "stderr":
                found.append(f"cell {number} wrote to standard error: {output['text'].strip()[:300]}")
            elif match := MACHINE_PATH.search(text_of(output)):
                found.append(f"cell {number} shows a path of this machine: {match.group()}")
            elif match := re.search(r"<[^<>]* at 0x[0-9a-f]+>", text_of(output)):
                found.append(f"cell {number} shows a memory address: {match.group()}")
    size = len(nbformat.writes(notebook).encode())
    return found + ([f"{size} bytes; at most {MAX_BYTES} (fewer or smaller pictures)"] if size > MAX_BYTES else [])


def refresh(path: Path, timeout: int) -> list[str]:
    """Execute one notebook and replace it; the list of problems that kept it from being replaced is empty on success."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisInterpreter,
        timeout=timeout,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return [re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()]  # without terminal colours
    clean(notebook)
    if not (found := problems(notebook)):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            nbformat.write(notebook, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook of this folder")
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell may take (default: 300)")
    args = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # the kernel inherits it; a progress bar is noise in a stored output
    os.environ.pop("MPLBACKEND", None)  # leaves the kernel its inline backend
    failed = 0
    for path in args.notebooks or sorted(FOLDER.glob("*.ipynb")):
        began = time.perf_counter()
        found = refresh(path.resolve(), args.timeout)
        failed += bool(found)
        kibibytes = path.stat().st_size / 1024
        print(f"{path}: " + ("NOT refreshed" if found else f"refreshed in {time.perf_counter() - began:.0f} s, {kibibytes:.0f} KiB"))
        print(*(f"  {line}" for line in found), sep="\n", end="\n" if found else "")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
