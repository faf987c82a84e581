"""Human minutes a section, for the teaching guide: `python docs/minutes.py` writes the table.

A notebook's head says its minutes ("**Minutes**: about 85 of yours"). They are divided among its
sections by what these hold: 130 words, 5 lines of code or half a figure a minute, and 10 minutes an
exercise. Where the head says nothing, the sum by this rule is taken. The second reading at the end
of a notebook is not part of its minutes: it comes on top, in proportion.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "TEACHING.md"
PLACE = re.compile(r"(<!-- minutes:begin -->\n).*?(<!-- minutes:end -->)", re.S)
HEADING = re.compile(r"^##? (.+)", re.M)
STATED = re.compile(r"\*\*Minutes\*\*: about (\d+)")
SECOND = "Second reading"
FRAME = ("What changed", "Paper, code", "From the paper", "Where to go", "Exercise")


def minutes_of_cell(cell: dict) -> float:
    """What a cell takes by the rule; a solution is read only by those who need it."""
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return len(text.split()) / 130
    if "solution" in cell["metadata"].get("tags", []):
        return 0.0
    figures = sum("image/png" in output.get("data", {}) for output in cell["outputs"])
    exercise = 10 if "NotImplementedError" in text else 0
    return len(text.splitlines()) / 5 + 2 * figures + exercise


def sections(notebook: dict) -> tuple[int | None, dict[str, float]]:
    """The minutes that the head states, and those of each section by the rule."""
    first = notebook["cells"][0]
    stated = STATED.search("".join(first["source"]))
    name, found = "introduction", {"introduction": 0.0}
    for cell in notebook["cells"]:
        headings = HEADING.findall("".join(cell["source"])) if cell is not first else []
        # From the heading of the second reading on, all belongs to it.
        if headings and cell["cell_type"] == "markdown" and SECOND not in found:
            name = SECOND if SECOND in headings else headings[-1]
        found[name] = found.get(name, 0.0) + minutes_of_cell(cell)
    return int(stated[1]) if stated else None, found


def row(path: Path) -> str:
    """One line of the table: the notebook, its minutes, and those of its sections."""
    stated, parts = sections(json.loads(path.read_text(encoding="utf-8")))
    second = parts.pop(SECOND, 0.0)
    whole = sum(parts.values())
    total = stated or 5 * round(whole / 5)
    shares = {"exercises and tables": 0.0}
    for name, minutes in parts.items():
        name = "exercises and tables" if name.startswith(FRAME) else name
        shares[name] = shares.get(name, 0.0) + minutes * total / whole
    shares["exercises and tables"] = shares.pop("exercises and tables")  # they come last
    text = " · ".join(f"{name} **{max(1, round(m))}**" for name, m in shares.items())
    text += f" · second reading **{round(second * total / whole)}** more" if second else ""
    return f"| {path.stem[:2]} | {total} | {text} |"


def table() -> str:
    """The table of all notebooks, in Markdown."""
    rows = [row(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    return "\n".join(["| notebook | minutes | of these |", "|---|---|---|", *rows, ""])


if __name__ == "__main__":
    guide = GUIDE.read_text(encoding="utf-8")
    GUIDE.write_text(PLACE.sub(lambda m: m[1] + table() + m[2], guide), encoding="utf-8")
