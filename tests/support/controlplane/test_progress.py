"""A long build shows that it goes on, in a way that fits where it is shown."""

import io

from support.controlplane.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_piped_lines_come_at_intervals() -> None:
    now = [100.0]
    stream = io.StringIO()
    shown = Progress("Building it", stream, lambda: now[0])
    for second in range(40):
        now[0] = 100.0 + second
        shown.show(f"package {second}")
    shown.done("built")
    assert stream.getvalue().splitlines() == [
        "Building it ...",
        "  0:15  package 15",
        "  0:30  package 30",
        "Building it: built after 0:39",
    ]


def test_terminal_has_one_line_that_changes() -> None:
    now = [100.0]
    stream = Terminal()
    shown = Progress("Building it", stream, lambda: now[0])
    for second in range(1, 3):
        now[0] += 1
        shown.show(f"package {second}")
    assert stream.getvalue() == "Building it ...\n\r\x1b[K  0:01  package 1\r\x1b[K  0:02  package 2"
