import socket

import pytest

from medsegdiff.app import serve
from medsegdiff.app.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model-path", "x", "--auth", "user"], "--auth: must be USER:PASSWORD"),
        (["--model-path", "x", "--port", "0"], "--port 0: must be"),
        (["--model-path", "x", "--max-pixels", "1001"], "--max-pixels 1001: must be"),
    ],
)
def test_senseless_options_are_refused_in_one_line(words, message, capsys):
    assert main(["serve", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}") and said.count("\n") == 1


def test_without_gradio_it_is_said_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert main(["serve", "--model-path", "x"]) == 2
    assert "needs gradio; pip install 'medsegdiff-jittor[app]'" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1", "in use"), ("::1", "in use"), ("192.0.2.1", "assign"),
                                              ("nosuch.invalid", ""), ("a" * 70, "")])  # fmt: skip
def test_where_it_cannot_listen_is_said_at_once(host, reason, monkeypatch, capsys):
    monkeypatch.setattr(serve, "find_spec", lambda name: True)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        try:
            taken.bind(("::1" if ":" in host else "127.0.0.1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--model-path", "nowhere", "--host", host, "--port", str(port)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: --host {host}, --port {port}: cannot listen there (") and reason in said


@pytest.mark.parametrize(("host", "auth", "warned"), [("127.0.0.1", "", False), ("0.0.0.0", "", True),
                                                      ("0.0.0.0", "me:secret:1", False)])  # fmt: skip
def test_an_open_door_is_pointed_out_and_the_secret_is_passed_on(host, auth, warned, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(serve, "find_spec", lambda name: True)
    monkeypatch.setattr(serve, "serve", lambda options, who, folder: given.append(who))
    words = ["--auth", auth] if auth else []
    assert main(["serve", "--model-path", "x", "--host", host, *words]) == 0
    assert ("give --auth" in capsys.readouterr().err) == warned
    assert given == [("me", "secret:1") if auth else None]
