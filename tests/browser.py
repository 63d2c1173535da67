"""A headless Chromium, spoken to in its own protocol through a pipe: no driver, no port."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Browser:
    """One page of a Chromium."""

    def __init__(self, out: int, back: int) -> None:
        self._out, self._back = out, back
        self._buffer, self._number = b"", 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")

    _session: str | None = None

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and wait for its answer; events are dropped."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer.get("result", {})

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._back, 1 << 20)
            assert piece, "the browser is gone"
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, url: str, width: int = 1500, height: int = 950) -> None:
        """Go to an address."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression amounts to on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> Any:
        """Wait until an expression is true; the page's text where it does not come to be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.value(expression):
                return found
            time.sleep(0.25)
        raise AssertionError(f"never true: {expression}\n{self.value('location.href')}\n{self.text()[:3000]}")

    def text(self) -> str:
        """What stands on the page."""
        return self.value("document.body?.innerText ?? ''")

    def has(self, *words: str) -> None:
        """Wait until all of these words stand on the page."""
        self.until(f"{json.dumps(words)}.every(word => (document.body?.innerText ?? '').includes(word))")

    def click(
        self, words: str, selector: str = "button,a,[role=button],[role=tab],[role=menuitem],label,input"
    ) -> None:
        """Click the first element that shows, or is called, exactly these words."""
        found = (
            f"[...document.querySelectorAll({json.dumps(selector)})].find(e => (e.innerText||'').trim() === "
            f"{json.dumps(words)} || e.getAttribute('aria-label') === {json.dumps(words)})"
        )
        self.until(f"!!({found})")
        self.value(f"({found}).click()")

    def picture(self, path: Path) -> None:
        """The page as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A Chromium with a profile in a folder; it is gone at the end."""
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    words = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]
    words += [f"--user-data-dir={folder}", "--remote-debugging-pipe", "--disable-background-networking"]
    words += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"]
    line = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{back_write}', "chromium", *words]
    with (folder.parent / "chromium.log").open("w") as log:
        process = subprocess.Popen(line, pass_fds=(to_read, back_write), stdout=log, stderr=log)
        os.close(to_read)
        os.close(back_write)
        try:
            yield Browser(to_write, back_read)
        finally:
            process.terminate()
            process.wait(20)
            os.close(to_write)
            os.close(back_read)
