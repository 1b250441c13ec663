"""What tests do with a served page, as a program and in a browser."""

import base64
import re
import time


def ask(server, *paths, auth=None, **options):
    """What a program gets for the files, their contents decoded."""
    found = submit(server, *paths, auth=auth, **options).result()
    return {**found, "files": {name: base64.b64decode(content) for name, content in found["files"].items()}}


def submit(server, *paths, auth=None, **options):
    """The same, not waited for."""
    from gradio_client import Client

    files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in paths}
    return Client(server.url, verbose=False, auth=auth).submit(files, api_name="/segment", **options)


def until(condition, seconds=40):
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception as error:  # the page is still being built
            last = error
        time.sleep(0.05)
    raise AssertionError(f"nothing came ({last})")


def select(browser, selector):
    return browser.find_element("css selector", selector)


def shown(browser):
    return select(browser, "#result").get_attribute("innerHTML")


def says(browser, words, seconds=40):
    until(lambda: words in select(browser, "#status textarea").get_attribute("value"), seconds)


def give(browser, server, *paths):
    browser.get(server.url)
    until(lambda: select(browser, "#image input[type=file]")).send_keys("\n".join(map(str, paths)))


def upload(browser, server, *paths):
    give(browser, server, *paths)
    says(browser, "Press Segment.")


def downloaded(browser):
    links = re.findall(r'download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', shown(browser))
    return {name: base64.b64decode(content) for name, content in links}
