import asyncio
import json

import pytest

from medsegdiff.web.guard import Guard


def answered(chunks, headers=(), kind="http", path="/config", catches=False):
    """(status, headers, body) of a request whose body comes in `chunks`, and how many reached the app."""
    reached, sent = [], []

    async def app(scope, receive, send):
        try:
            for _ in chunks:
                reached.append(await receive())
        except Exception:
            if not catches:
                raise
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"what is this?"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    parts = iter(chunks)

    async def receive():
        return {"type": "http.request", "body": next(parts)}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app, 1)({"type": kind, "headers": list(headers), "path": path}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], len(reached)


def test_what_is_small_enough_passes_and_the_browser_asks_nobody_else():
    status, headers, body, reached = answered([b"x" * 500_000, b"y" * 500_000])
    assert (status, body, reached) == (200, b"ok", 2)
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "reached"), [([(b"content-length", b"1000001")], 0), ([], 2), ([(b"content-length", b"12")], 2)]
)
@pytest.mark.parametrize("catches", [False, True], ids=["fails", "answers"])
def test_what_is_too_large_is_refused_at_once_or_when_it_is_seen(headers, reached, catches):
    status, _, body, got = answered([b"x" * 400_000] * 5, headers, catches=catches)
    assert (status, got) == (413, reached)
    assert "larger than 1 MB" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/file=/etc/hostname", "/file=x", "/gradio_api/proxy=x"]
)
def test_what_reads_or_keeps_files_by_their_paths_is_closed(path):
    status, _, _, got = answered([b"x"], path=path)
    assert (status, got) == (404, 0)
