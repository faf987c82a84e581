"""Where a checkpoint is: a folder, or a name on the Hugging Face hub, which is downloaded once.

Notable choices
- `huggingface_hub` does the work: it shows progress and goes on where a download stopped.
- Only data are fetched: the two Python files of the release are never needed and never run.
- The hub knows the SHA-256 of every large file. They are written beside the files (`SHA256SUMS`),
  so that loading compares them.
"""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from ..extras.packages import load_package
from ..files import atomic
from .sums import SUMS

RELEASED = "inclusionAI/LLaDA2.0-Uni"
WANTED = ["*.json", "*.safetensors", "*.pt", SUMS]


def local_folder(place: str | Path) -> Path:
    """The folder of a checkpoint; a hub id such as `inclusionAI/LLaDA2.0-Uni` is downloaded.

    `FileNotFoundError` for neither, `ValueError` if the download does not succeed.
    """
    folder = Path(place)
    if folder.is_dir():
        return folder
    name = str(place)
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise FileNotFoundError(
            f"there is no folder {name}; give the folder of a download, or a name on the hub such "
            f"as {RELEASED}"
        )
    return download(name)


def download(name: str) -> Path:
    """All data of a hub repository, in the cache of `huggingface_hub`."""
    hub = load_package("huggingface_hub", "official")
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=WANTED))
    except Exception as error:  # the hub, its network library and the disk have their own kinds
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"there is no folder {name}, and the hub did not give it ({reason}); check name and "
            "connection and try again: a download goes on where it stopped"
        ) from None
    write_known_sums(hub, name, folder)
    return folder


def write_known_sums(hub: ModuleType, name: str, folder: Path) -> None:
    """SHA256SUMS of a downloaded folder, from what the hub says about this very commit."""
    if (folder / SUMS).exists():
        return
    try:
        # The folder of a download is called after the commit.
        about = hub.HfApi().model_info(name, revision=folder.name, files_metadata=True)
    except Exception:  # offline, with all files in the cache: then loading says what is not known
        return
    lines = []
    for file in about.siblings:
        if file.lfs and (folder / file.rfilename).is_file():
            lines.append(f"{file.lfs.sha256}  {file.rfilename}\n")
    if lines:
        # A cache that is shared may be read only; then, too, loading says what is not known.
        with suppress(OSError), atomic(folder / SUMS) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
