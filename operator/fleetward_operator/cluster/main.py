"""`fleetward-operator`: the operator as a process.

Exit codes: 0 when told to stop, 1 when it cannot go on (Kubernetes starts it anew), 2 when it cannot start.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from fleetward.logs import log_to_stderr
from fleetward_operator.cluster.operator import Operator, StartError
from fleetward_operator.cluster.settings import Settings, read_settings
from fleetward_operator.kube.access import AccessError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an operator until it is told to stop; return the exit code."""
    settings = read_settings(arguments)
    log_to_stderr(replica=settings.identity)
    logging.getLogger("kopf").setLevel(logging.ERROR)  # what it says at lower levels, our own messages say better
    try:
        problem = asyncio.run(_until_told(settings))
    except (StartError, AccessError, ValueError) as error:
        sys.stderr.write(f"fleetward-operator: {error}\n")
        return 2
    if problem:
        sys.stderr.write(f"fleetward-operator: {problem}\n")
    return 1 if problem else 0


async def _until_told(settings: Settings) -> str:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await Operator(settings).run(stop)


if __name__ == "__main__":
    sys.exit(main())
