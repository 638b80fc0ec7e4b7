"""What the operator's health listener says."""

import aiohttp
from prometheus_client import CollectorRegistry

from fleetward_operator.cluster.health import HealthServer


async def test_problems_are_said_also_while_it_is_ready() -> None:
    wrong, problems = {"ready": ""}, {"runs": "journal of runs /x: disk full", "grant keys": "none"}
    health = HealthServer(
        "127.0.0.1:0", CollectorRegistry(), alive=str, ready=lambda: wrong["ready"], problems=lambda: problems
    )
    async with health, aiohttp.ClientSession() as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{health.port}{path}") as answer:
                return answer.status, await answer.text()

        lines = "does not work: grant keys: none\ndoes not work: runs: journal of runs /x: disk full\n"
        assert await ask("/readyz") == (200, f"ok\n{lines}")
        assert await ask("/healthz") == (200, "ok\n")
        wrong["ready"] = "not read yet: pods"
        assert await ask("/readyz") == (503, f"not read yet: pods\n{lines}")
        problems.clear()
        wrong["ready"] = ""
        assert await ask("/readyz") == (200, "ok\n")
