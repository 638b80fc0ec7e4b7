"""A decision over loopback HTTP beside a bare aiohttp echo of the same body, and what the webhook's process uses."""

import contextlib
import json
from pathlib import Path

import psutil

from bench.serving import Poster, echoing, served
from bench.stats import Samples, interleaved
from bench.world import CONDITIONAL_REQUEST, REQUEST, governed, other_rules


BLOCK = 100
"""How many decisions the one caller asks for in a row."""


def measure(folder: Path, rounds: int) -> tuple[dict[str, Samples], dict[str, float]]:
    """Give the samples and the webhook's resident memory in MiB, with 1,000 rules loaded and audit on."""
    body, conditional = json.dumps(REQUEST).encode(), json.dumps(CONDITIONAL_REQUEST).encode()
    with (
        served(folder, [*governed(), *other_rules(1_000)], "--webhooks", "1") as serving,
        echoing() as echo,
        contextlib.ExitStack() as stack,
    ):
        posters = {
            "bare aiohttp echo": Poster(echo, body),
            "decision over HTTP, 1,000 rules, audited": Poster(serving.port, body),
            "decision over HTTP with a CEL clause": Poster(serving.port, conditional),
        }
        for poster in posters.values():
            stack.callback(poster.close)
        for name, poster in posters.items():
            assert "echo" in name or json.loads(poster())["decision"] == "Allow"
        (webhook,) = psutil.Process(serving.process.pid).children()
        memory = {"webhook at start, MiB": _resident(webhook)}
        samples = interleaved(posters, rounds, block=BLOCK)  # type: ignore[arg-type]
        memory["webhook after the run, MiB"] = _resident(webhook)
        return samples, memory


def _resident(process: psutil.Process) -> float:
    return round(float(process.memory_info().rss) / 2**20, 1)
