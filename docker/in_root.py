"""Runs the Dockerfile's steps in a Debian root of its own, where there is no Docker, and then a command in it.

    python docker/in_root.py ROOT TARGET [WORD ...]

ROOT is a folder that does not exist yet; `debootstrap` fills it, as root. The words are those after the image's name.
Apt, pip and the names of hosts are as on this machine. What a step leaves behind stays in ROOT.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
SETTINGS = (
    "apt/sources.list",
    "apt/sources.list.d",
    "apt/apt.conf.d",
    "apt/keyrings",
    "pip.conf",
    "xdg/pip",
    "resolv.conf",
    "hosts",
)
SHARED = ("/etc/ssl", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/keyrings")


def steps(target: str) -> tuple[str, list[tuple[str, str]]]:
    """The release of Debian that a stage begins with, and its instructions, those of the stages below it first."""
    text = re.sub(r"\\\n", " ", (HERE / "docker/Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, rest in lines:
        if word == "FROM":
            base, _, name = rest.split()
            release, before = stages.get(base, (re.sub(r"debian:(\w+)-slim", r"\1", base), []))
            stages[name] = release, list(before)
        else:
            stages[name][1].append((word, rest))
    return stages[target]


def prepare(root: Path, release: str) -> None:
    """A minimal Debian with this machine's settings of apt and pip."""
    subprocess.run(["debootstrap", "--variant=minbase", release, str(root), *mirror()], check=True)
    (root / "etc/apt/sources.list").unlink(missing_ok=True)  # debootstrap's
    for name in SETTINGS:
        source, copy = Path("/etc") / name, root / "etc" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy(source, copy)
    for name in SHARED:
        if Path(name).is_dir():
            shutil.copytree(name, root / name[1:], symlinks=True, dirs_exist_ok=True)


def mirror() -> list[str]:
    """Where this machine has Debian's packages from, as an argument; none where it does not say."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    return re.findall(r"^(?:URIs:|deb (?:\[[^\]]*\] )?) *(http\S*/debian)/?\s", text, re.MULTILINE)[:1]


def main(words: list[str]) -> int:
    """Run it; returns the exit code of the command."""
    if len(words) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    root, (release, instructions), arguments = Path(words[0]).absolute(), steps(words[1]), words[2:]
    if root.exists():
        print(f"error: {root}: exists; give a folder that does not", file=sys.stderr)
        return 2
    prepare(root, release)
    kept = {name: value for name, value in os.environ.items() if re.match(r"(?i)pip_|\w+_proxy$", name)}
    environment = {**kept, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    place, entry = "/", [""]

    def run(command: list[str]) -> int:
        # In mounts of its own, which go with it: whoever removes ROOT later removes nothing of this machine's /dev.
        script = 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" env -i "$@"'
        inside = [*(f"{name}={value}" for name, value in environment.items()), "sh", "-c", f'cd "{place}" && exec "$@"']
        return subprocess.run(["unshare", "--mount", "sh", "-c", script, str(root), *inside, "sh", *command]).returncode

    for word, rest in instructions:
        print(f"{word} {rest}", flush=True)
        if word == "RUN" and run(["sh", "-c", rest]):
            return 1
        if word == "COPY":
            _, to = rest.split()
            (root / to[1:]).mkdir(parents=True)
            listed = subprocess.run(["git", "ls-files", "-z"], cwd=HERE, capture_output=True, check=True).stdout
            packed = ["tar", "--create", "--null", "--files-from=-", "--ignore-failed-read"]
            tar = subprocess.run(packed, cwd=HERE, input=listed, capture_output=True, check=True)
            subprocess.run(["tar", "--extract", "--directory", str(root / to[1:])], input=tar.stdout, check=True)
        if word == "ENV":
            name, _, value = rest.partition("=")
            environment[name] = value
        if word == "WORKDIR":
            place = rest
        if word == "ENTRYPOINT":
            entry = json.loads(rest)
        if word == "CMD":
            arguments = arguments or json.loads(rest)
    return run([*entry, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
