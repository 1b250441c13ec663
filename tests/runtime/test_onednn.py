"""What oneDNN says that it does; nothing here imports Jittor."""

import os
import subprocess
import sys

import pytest

from medsegdiff.base import machine


def has_amx(**environment):
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_MAX_CPU_ISA")}
    code = "from medsegdiff.runtime import onednn; print(onednn.has_amx())"
    command, settings = [sys.executable, "-c", code], {**kept, **environment}
    said = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
    return said.strip() == "True"


def test_amx_is_used_where_the_processor_has_it():
    assert has_amx() == ({"amx_tile", "amx_bf16"} <= machine.cpu().flags)


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_the_environment_may_forbid_amx(name):
    assert not has_amx(**{name: "AVX512_CORE_BF16"})
