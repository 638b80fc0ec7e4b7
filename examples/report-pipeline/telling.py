"""How the stories beside this file look on the screen: headings, a line for each decision, asides."""

from rich.console import Console
from rich.text import Text

from fleetward.cli.output import DECISION_STYLES

screen = Console(highlight=False, soft_wrap=True)


def heading(text: str) -> None:
    """Begin a part of the story."""
    screen.print(f"\n[bold]{text}[/]")


def aside(text: str) -> None:
    """Say something about the line above."""
    screen.print(Text(f"      {text}", style="dim"))


def decision_line(agent: str, name: str, decision: str, rule: str, seconds: float) -> None:
    """Show a decision: whose, on what, by which rule, and how long the agent waited for it."""
    line = Text(f"  {agent:<15}{name:<28}")
    line.append(f"{decision:<17}", style=DECISION_STYLES[decision])
    screen.print(line.append(f"{rule:<30}{seconds * 1000:6.2f} ms"))
