"""A decision over loopback HTTP beside a bare aiohttp echo of the same body, and what the webhook's process uses."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from bench.serving import Poster, echoing, served
from bench.stats import Samples, interleaved
from bench.world import CONDITIONAL_REQUEST, REQUEST, governed, other_rules

BLOCK = 100
"""How many decisions the one caller asks for in a row."""


ECHO = "bare aiohttp echo"
PLAIN = "decision over HTTP"
CONDITIONAL = "decision with CEL over HTTP"


def measure(folder: Path, rounds: int) -> tuple[dict[str, Samples], dict[str, float]]:
    """Give the samples and the webhook's resident memory in MiB, with 1,000 rules loaded and audit on."""
    body, conditional = json.dumps(REQUEST).encode(), json.dumps(CONDITIONAL_REQUEST).encode()
    with (
        served(folder, [*governed(), *other_rules(1_000)], "--webhooks", "1") as serving,
        echoing() as (echo, echoing_pid),
        contextlib.ExitStack() as stack,
    ):
        hub = psutil.Process(serving.process.pid)
        (webhook,) = hub.children()
        memory = {"webhook at start, MiB": _resident(webhook)}
        stack.enter_context(_placed([webhook, psutil.Process(echoing_pid), psutil.Process()], apart=hub))
        samples: dict[str, Samples] = {}
        for name, asked in ((PLAIN, body), (CONDITIONAL, conditional)):
            echoed, decided = Poster(echo, asked), Poster(serving.port, asked)
            stack.callback(echoed.close)
            stack.callback(decided.close)
            assert json.loads(decided())["decision"] == "Allow"
            calls: dict[str, Callable[[], object]] = {f"{ECHO} beside {name}": echoed, name: decided}
            samples |= interleaved(calls, rounds, block=BLOCK)
        memory["webhook after the run, MiB"] = _resident(webhook)
        return samples, memory


@contextlib.contextmanager
def _placed(together: list[psutil.Process], *, apart: psutil.Process) -> Iterator[None]:
    """Keep the caller and what it calls on one processor, and everything else off it.

    Otherwise the scheduler decides, anew at each run and for each server, whether caller and server meet on one
    processor or wake each other across two; on a virtual machine that doubles the time of a call, and it is not what is
    measured here.
    """
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(processors) < 2:
        yield
        return
    for process in together:
        _keep_on(process, {processors[0]})
    _keep_on(apart, set(processors[1:]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def _keep_on(process: psutil.Process, processors: set[int]) -> None:
    for thread in process.threads():
        os.sched_setaffinity(thread.id, processors)


def _resident(process: psutil.Process) -> float:
    return round(float(process.memory_info().rss) / 2**20, 1)
