"""Score, by the published project's script name and flags: see --help."""

import sys

from medsegdiff.base import first_moments

if __name__ == "__main__":
    first_moments.end_at_once()
    from medsegdiff.app import published
    from medsegdiff.app.cli import report

    raise SystemExit(report(published.evaluate, debug="--traceback" in sys.argv))
