"""What can go wrong before and while a control plane runs."""


class UnavailableError(Exception):
    """This machine cannot have the control plane. The message says why in plain words, and what would help."""


class BuildError(Exception):
    """A program of ours did not compile. The message ends with what Go said."""


class StartError(Exception):
    """A program did not start. The message ends with the tail of its log."""


class KubectlError(Exception):
    """A kubectl command failed. The message has the command and what it wrote to stderr."""

    def __init__(self, command: str, stderr: str) -> None:
        super().__init__(f"{command}: {stderr.strip()}")
        self.stderr = stderr
