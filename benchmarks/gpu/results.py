"""What is known so far: rows, appended to a file as they come, and a copy of everything in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsegdiff.base.files import replacing

NAME = "results.json"
"""All rows of all stages, in the folder that comes back."""
LOG, CURVE = "log.txt", "isic-log.csv"
_STATES = "states"

Row = Mapping[str, Any]


class Results:
    """The rows of each stage, in a folder: `NAME.jsonl`; the last row of a name counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, stage: str, row: Row) -> None:
        """Keep a row, which has a `name`; one with an `error` is to be tried again."""
        with (self.folder / f"{stage}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")

    def rows(self, stage: str) -> dict[str, dict[str, Any]]:
        """The rows of a stage by name; a line that was cut off is none."""
        path = self.folder / f"{stage}.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return {row["name"]: row for row in map(json.loads, lines)}

    def has(self, stage: str, name: str) -> bool:
        """Whether the row is there and not to be tried again."""
        return "error" not in self.rows(stage).get(name, {"error": ""})

    def end(self, stage: str, state: str, seconds: float) -> None:
        """Note how a stage ended: "done", or why not."""
        self.add(_STATES, {"name": stage, "state": state, "seconds": round(seconds, 1)})

    def done(self, stage: str) -> bool:
        """Whether the stage came to its end."""
        return self.rows(_STATES).get(stage, {}).get("state") == "done"

    def all(self) -> dict[str, list[Row]]:
        """Every row, by stage."""
        return {path.stem: list(self.rows(path.stem).values()) for path in sorted(self.folder.glob("*.jsonl"))}

    def take(self, path: Path) -> None:
        """Take over what an earlier visit brought back, unless there is something here."""
        if path.exists() and not any(self.folder.iterdir()):
            for stage, rows in json.loads(path.read_text(encoding="utf-8")).items():
                for row in rows:
                    self.add(stage, row)


def publish(work: Path, results: Results, out: Path, most: int = 15 << 20) -> None:
    """Copy what there is into the folder that comes back; of a long log its end."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / NAME) as beside:
        beside.write_text(json.dumps(results.all(), indent=1) + "\n", encoding="utf-8")
    log = work / LOG
    if log.exists():
        with replacing(out / LOG) as beside, log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - most))
            beside.write_bytes(file.read())
    curve = work / "run" / "log.csv"
    if curve.exists():
        with replacing(out / CURVE) as beside:
            shutil.copyfile(curve, beside)
