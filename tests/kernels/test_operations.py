import inspect
from types import SimpleNamespace

import pytest

from medsegdiff.kernels import operations


def functions(module):
    return {name for name, value in vars(module).items() if inspect.isfunction(value)}


NAMES = sorted(functions(operations) - {"device"})


def test_both_devices_have_every_operation():
    assert set(NAMES) == functions(operations.cpu) == functions(operations.cuda)


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_given_the_same_on_every_device(name):
    ours, *others = (
        list(inspect.signature(getattr(m, name)).parameters) for m in (operations, operations.cpu, operations.cuda)
    )
    assert others == [ours, ours]


@pytest.mark.parametrize(("use_cuda", "name"), [(0, "cpu"), (1, "cuda")])
def test_the_device_in_use_computes(monkeypatch, use_cuda, name):
    monkeypatch.setattr(operations, "jt", SimpleNamespace(flags=SimpleNamespace(use_cuda=use_cuda)))
    chosen = operations.device()
    assert chosen is getattr(operations, name)
    assert name == chosen.NAME
    assert chosen.PACKS == chosen.BY_SAMPLE == (name == "cpu")
    called = []
    monkeypatch.setattr(chosen, "product", lambda *given: called.append(given))
    operations.product("a", "b", "TN")
    assert called == [("a", "b", "TN")]
