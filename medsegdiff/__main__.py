"""`python -m medsegdiff` is the `medsegdiff` command."""

from medsegdiff.app.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
