"""Train, by the published project's script name and flags: see --help."""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    from medsegdiff.__main__ import main

    raise SystemExit(main("train"))
