"""What pyproject.toml cannot say: the description that package indexes show, whose links must be absolute."""

import os
import re
import sys
from pathlib import Path

from setuptools import setup


def described(readme: str, repository: str) -> str:
    """`readme` with links that lead into the `repository`, an address such as https://HOST/NAME/blob/v1.0; without one
    pictures are left out, and other links become their text."""
    picture, link = r"!\[([^\]]*)\]\((?!https?://)([^)]+)\)\n*", r"(?<!!)\[([^\]]*)\]\((?!https?://)([^)]+)\)"
    if not repository:
        return re.sub(link, r"\1", re.sub(picture, "", readme))
    raw = repository.rstrip("/").replace("/blob/", "/raw/")  # the picture, not the page about it
    readme = re.sub(picture, rf"![\1]({raw}/\2)\n\n", readme)
    return re.sub(link, rf"[\1]({repository.rstrip('/')}/\2)", readme)


if __name__ == "__main__":
    if sys.version_info < (3, 9):  # noqa: UP036 (Python 3.8's pip would list a dependency's versions instead)
        sys.exit("error: Python 3.9 or newer is needed; this is " + sys.version.split()[0])
    setup(
        long_description=described(Path("README.md").read_text("utf-8"), os.environ.get("MEDSEGDIFF_REPOSITORY", "")),
        long_description_content_type="text/markdown",
    )
