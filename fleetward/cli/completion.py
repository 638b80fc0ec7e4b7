"""`fleetward completion`: what a shell needs to complete commands, options and agents."""

import click
from click.shell_completion import get_completion_class

from fleetward.cli.output import Command, ExitCode

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    examples=[
        "completion bash > ~/.local/share/bash-completion/completions/fleetward",
        'completion zsh > "${fpath[1]}/_fleetward"',
        "completion fish > ~/.config/fish/completions/fleetward.fish",
    ],
    exits={ExitCode.OK: "printed"},
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "fleetward", "_FLEETWARD_COMPLETE")
    # The class's own source() looks at the bash on this machine, which need not be the one the script is for.
    click.echo(script.source_template % script.source_vars())
