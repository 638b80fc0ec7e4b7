"""Run a program that dies with whoever started it, even when that one is killed by force.

`python leash.py SIGNAL PROGRAM ARGUMENT...` asks the kernel (prctl(2), PR_SET_PDEATHSIG) to send itself the signal when
its parent ends, and becomes the program. Linux alone knows this; elsewhere the program is simply run.

The kernel means the parent *thread*: start such programs from one that lives as long as they should (see `programs`).
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def leashed(program: str, *arguments: str, signal: int = 9) -> list[str]:
    """Give the command that runs a program on a leash. Its process id is the program's own."""
    return [sys.executable, "-S", "-I", __file__, f"{signal}:{os.getpid()}", program, *arguments]


def main() -> None:
    """Become the program that the arguments name."""
    signal, parent = (int(number) for number in sys.argv[1].split(":"))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
        if os.getppid() != parent:  # it died before the kernel was asked
            sys.exit(1)
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller's own argument list
    except OSError as error:
        sys.stderr.write(f"{sys.argv[2]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
