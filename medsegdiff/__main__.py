"""`python -m medsegdiff` is the `medsegdiff` command."""

from medsegdiff.base import first_moments


def main() -> int:
    """Run the command; returns the exit code."""
    first_moments.end_at_once()
    from medsegdiff.app.cli import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
