"""Machines that lack one of the requirements: what is changed is the environment, not our look at it."""

import importlib.metadata
import sys
import sysconfig


def _python(monkeypatch, folder):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))


def _no_compiler(monkeypatch, folder):
    monkeypatch.delenv("cc_path", raising=False)
    monkeypatch.setenv("PATH", str(folder))


def _broken_compiler(monkeypatch, folder):
    broken = folder / "g++"
    broken.write_text("#!/bin/sh\necho 12.2.0\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("cc_path", str(broken))


def _numpy_2(monkeypatch, folder):
    (folder / "numpy-2.1.0.dist-info").mkdir()
    (folder / "numpy-2.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    monkeypatch.syspath_prepend(str(folder))


def _space(monkeypatch, folder):
    (folder / "my env" / "jittor").mkdir(parents=True)
    (folder / "my env" / "jittor" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "jittor", raising=False)
    monkeypatch.syspath_prepend(str(folder / "my env"))


def _without(package):
    def hide(monkeypatch, folder):
        real = importlib.metadata.Distribution.from_name

        def from_name(name):
            if name == package:
                raise importlib.metadata.PackageNotFoundError(name)
            return real(name)

        monkeypatch.setattr(importlib.metadata.Distribution, "from_name", from_name)

    return hide


def _no_headers(monkeypatch, folder):
    paths = {**sysconfig.get_paths(), "include": str(folder)}
    monkeypatch.setattr(sysconfig, "get_paths", lambda: paths)


GAPS = {
    "below a space": (_space, "Jittor", "cannot compile from a path with a space"),
    "Python 3.13": (_python, "Python", "3.9 to 3.12; make an environment with one of these, or to segment use"),
    "no g++": (_no_compiler, "g++", "missing: Jittor compiles its kernels with it; install: apt install g++"),
    "g++ does not run": (_broken_compiler, "g++", "does not run: "),
    "NumPy 2": (_numpy_2, "NumPy", "2.1.0, with which Jittor returns wrong numbers; install: pip install 'numpy<2'"),
    "no NumPy": (_without("numpy"), "NumPy", "missing; install: pip install 'numpy<2'"),
    "no Jittor": (_without("jittor"), "Jittor", "missing; install: pip install 'jittor>="),
    "no Python.h": (_no_headers, "Python.h", "missing: Jittor compiles against it; install: apt install python3-dev"),
    "no oneDNN": (_without("onednn-cpu-gomp"), "oneDNN", "pip install onednn-cpu-gomp==2022.2.1"),
    "no oneDNN to compile with": (_without("onednn-devel-cpu-gomp"), "oneDNN", "onednn-devel-cpu-gomp==2022.2.1"),
}
"""By what is wrong: what makes it so, of a monkeypatch and an empty folder; the requirement; words of the complaint."""
