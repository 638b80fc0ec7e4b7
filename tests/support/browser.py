"""A real headless Chromium, told what to do over the DevTools protocol."""

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Give the path of a Chromium on this machine; FLEETWARD_CHROMIUM names another."""
    return os.environ.get("FLEETWARD_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """One page. Whatever it logs, or tries to load, is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session = ""
        self.logged: list[str] = []
        self.requested: list[str] = []
        self._loaded = asyncio.Event()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def start(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message | ({"sessionId": self._session} if self._session else {}))
        async with asyncio.timeout(30):
            answer = await self._answers[number]
        assert "error" not in answer, answer
        return answer["result"]  # type: ignore[no-any-return]

    async def listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            method, its = said.get("method"), said.get("params", {})
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif method == "Page.loadEventFired":
                self._loaded.set()
            elif method == "Network.requestWillBeSent":
                self.requested.append(its["request"]["url"])
            elif method == "Log.entryAdded":
                self.logged.append(its["entry"]["text"])
            elif method in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"}:
                self.logged.append(str(its))

    async def open(self, url: str) -> None:
        """Load a page, up to its load event."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(60):
            await self._loaded.wait()

    async def run(self, expression: str) -> Any:
        """Evaluate JavaScript, and give its value; the page's own policy does not hold for it."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def press(self, key: str, text: str = "") -> None:
        """Press a key, as somebody at the keyboard does."""
        name = {" ": "Space"}.get(key, key)
        its = {"key": key, "code": name, "windowsVirtualKeyCode": _CODES.get(key, 0)}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **its, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **its)

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)


_CODES = {
    "Enter": 13,
    " ": 32,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


@asynccontextmanager
async def browsing(program: str, folder: Path) -> AsyncIterator[Page]:
    """Run a Chromium of one page, its profile in `folder`."""
    options = [
        "--headless",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
    ]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium has none as root
    process = await asyncio.create_subprocess_exec(
        program,
        *options,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = await _address(folder / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.create_task(page.listen())
            try:
                await page.start()
                yield page
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _address(file: Path, process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(60):
        while True:
            assert process.returncode is None, f"Chromium ended with {process.returncode}"
            lines = file.read_text().splitlines() if file.exists() else []  # noqa: ASYNC240 - one test, one file
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await asyncio.sleep(0.02)
