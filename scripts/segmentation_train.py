"""Train, by the published project's script name and flags: see --help."""

import sys

from medsegdiff.app import published
from medsegdiff.app.cli import report

if __name__ == "__main__":
    raise SystemExit(report(published.train, debug="--traceback" in sys.argv))
