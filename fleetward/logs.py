"""How the programs log: one line of `key=value` pairs on stderr for each message, with times in UTC."""

import logging
import sys
import time


def log_to_stderr(**context: str) -> None:
    """Have this process log from INFO on; `context` stands in every line, such as `replica=fleetward-operator-0`."""
    own = "".join(f"{name}={value.replace('%', '%%')} " for name, value in context.items())
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"time=%(asctime)sZ level=%(levelname)s {own}message=%(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
