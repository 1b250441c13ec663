"""`python -m medsegdiff` is the `medsegdiff` command."""

import sys

from medsegdiff.base import first_moments


def main(script: str = "") -> int:
    """Run the command, or a `script` of the published project, see `app.published`; returns the exit code."""
    first_moments.end_at_once()
    try:
        if not script:
            from medsegdiff.app.cli import main as run

            return run()
        from medsegdiff.app import published
        from medsegdiff.app.cli import report
    except ModuleNotFoundError as error:  # as in a clone of which nothing was installed
        from medsegdiff.base import errors, screen

        screen.note(f"error: {errors.not_installed(error)}")
        return 2
    return report(getattr(published, script), debug="--traceback" in sys.argv)


if __name__ == "__main__":
    raise SystemExit(main())
