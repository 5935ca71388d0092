"""What the tests read in a markdown file: its fenced blocks, with headings, and its links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the last heading above it, its language, its text."""

    heading: str
    language: str
    text: str


def blocks(file: Path) -> list[Block]:
    """The fenced blocks of a file, in their order."""
    text, found = file.read_text(encoding="utf-8"), []
    for match in _FENCE.finditer(text):
        headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text[: match.start()]), re.MULTILINE)
        found.append(Block(headings[-1] if headings else "", match[1], match[2]))
    return found


def tables(file: Path) -> dict[str, list[list[str]]]:
    """The rows of each table, without its header, by the last heading above; several under one heading are joined."""
    found: dict[str, list[list[str]]] = {}
    heading, lines = "", _FENCE.sub("", file.read_text(encoding="utf-8")).splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|") and above.startswith("|") and not line.startswith("| ---"):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            found.setdefault(heading, []).append([cell.strip().replace("\\|", "|") for cell in cells])
    return found


def code_spans(text: str) -> list[str]:
    """`these` of a text."""
    return re.findall(r"`([^`]+)`", text)


def anchors(file: Path) -> set[str]:
    """What `#…` can point to in a file, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(file: Path) -> list[str]:
    """The targets of `[text](target)` and `![text](target)`."""
    return re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", file.read_text(encoding="utf-8")))
