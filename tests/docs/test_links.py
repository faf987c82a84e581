"""Links between documents and notebooks lead to files that exist, and to headings that exist."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs" / "log").glob("*.md"))
PAGES += sorted((ROOT / "notebooks").glob("*.ipynb"))


def words(path: Path) -> str:
    """The Markdown of a document or of a notebook, without its blocks of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """The anchors of all headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", words(path), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_headings(path):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", words(path)):
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if "://" in link or link.startswith("mailto:"):
            continue
        read = target.suffix in (".md", ".ipynb")
        if not target.exists() or (anchor and read and anchor not in anchors(target)):
            broken.append(link)
    assert not broken
