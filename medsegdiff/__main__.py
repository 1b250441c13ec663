"""`python -m medsegdiff` is the `medsegdiff` command."""

import sys

from medsegdiff.base import first_moments


def main() -> int:
    """Run the command; returns the exit code."""
    first_moments.end_at_once()
    try:
        from medsegdiff.app.cli import main as run
    except ModuleNotFoundError as error:
        if error.name != "fcntl":
            raise
        print("error: this system lacks the file locks of Linux and macOS; on Windows use WSL 2", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
