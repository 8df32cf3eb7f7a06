"""A headless Chromium, told what to do over a pipe (the Chrome DevTools Protocol); no library, no open port.

Needs chromium or google-chrome on the PATH; knows nothing of notebooks.

    with chromium() as page:
        page.open(Path("notebook.html").as_uri(), width=390, dark=True)
        print(page.run("document.title"))
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")


@contextmanager
def chromium() -> Iterator["Page"]:
    """A page of a browser with a fresh profile, which is closed and deleted at the end."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no chromium or google-chrome on the PATH; install one, for example with: apt-get install chromium")
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", shell, "chromium", browser, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
        os.close(theirs_in), os.close(theirs_out)
        try:
            with open(ours_out, "wb", buffering=0) as commands, open(ours_in, "rb") as answers:
                yield Page(commands, answers)
        finally:
            process.terminate()
            process.wait()


class Page:
    """The browser's page: opened at a width, asked with scripts, photographed."""

    def __init__(self, commands, answers) -> None:
        self._commands, self._answers = commands, answers
        self._count, self._session = 0, {}
        (target,) = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Page.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # as if a person looked at the window

    def call(self, method: str, **parameters) -> dict:
        """The answer to a command of the protocol; RuntimeError with the browser's words where it refuses."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters} | self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        answer = self._wait(lambda message: message.get("id") == self._count)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, address: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window of this size (in pixels), on a system of light or dark colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def run(self, script: str):
        """The value of a script, awaited where it is a promise; RuntimeError with the script's own error."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "the script failed"))
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 300):
        """The script's value as soon as it is a true one; TimeoutError with the script after so many seconds."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:.0f} s: {script}")
            time.sleep(0.2)
        return value

    def picture(self, path: Path, top: int = 0, height: int | None = None) -> None:
        """A PNG of the page as wide as the window, from `top` on; of all that is below where no height is given."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        width = self.run("innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height or size["height"] - top, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _wait(self, fits) -> dict:
        """The first message that fits; others are dropped. EOFError when the browser is gone."""
        while True:
            pieces = bytearray()
            while (byte := self._answers.read(1)) != b"\0":
                if not byte:
                    raise EOFError("the browser ended")
                pieces += byte
            if fits(message := json.loads(pieces)):
                return message
