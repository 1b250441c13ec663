"""What happened to a run, one JSON object a line in `events.jsonl`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from medsegdiff.base.files import writing
from medsegdiff.training.run_folder import EVENTS


class Journal:
    """Appends events. Nothing is ever removed: what happened twice because of a crash is listed twice."""

    def __init__(self, out: Path) -> None:
        self.path = out / EVENTS
        self._begun = False

    def note(self, event: str, step: int, **details: Any) -> None:
        """Append an event after training step `step`.

        Raises:
            InputError: the disk is full or read-only.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, "step": step, **details}, ensure_ascii=False)
        with writing(self.path), self.path.open("a+b") as file:
            if not self._begun:  # a crash may have cut the last line short
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                self._begun = True
            # What no Unicode text can hold, as in a path of another system, becomes what JSON writes for it.
            file.write(line.encode(errors="backslashreplace") + b"\n")
