"""The `paddler-py` command: a lazy click group. Importing it imports neither side."""

from __future__ import annotations

import importlib
import sys

import click
from click.shell_completion import CompletionItem, get_completion_class

VERSION = "0.1.0"

# command -> (module, attribute, the extra that brings its dependencies, one line of help)
COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "demo": (
        "balancer.terminal.demo",
        "demo",
        "balancer,agent",
        "Start a balancer and an agent with the shipped model, and ask it something.",
    ),
    "balancer": (
        "balancer.cli",
        "balancer",
        "balancer",
        "Serve the inference and management APIs; agents dial in.",
    ),
    "agent": ("agent.cli", "agent", "agent", "Serve a GGUF model for a balancer from this host."),
    "config": (
        "balancer.config_command",
        "config",
        "balancer",
        "Check and show the balancer's configuration, and print its schema.",
    ),
    "keys": (
        "balancer.keys_command",
        "keys",
        "balancer",
        "Make, list, revoke and rotate API keys, whether or not the balancer runs.",
    ),
    "chat": (
        "balancer.terminal.chat",
        "chat",
        "balancer",
        "Chat in the terminal with any OpenAI-compatible server.",
    ),
    "top": (
        "balancer.terminal.top.command",
        "top",
        "top",
        "Watch agents, models and requests in the terminal.",
    ),
    "doctor": (
        "balancer.terminal.doctor.command",
        "doctor",
        "balancer",
        "Look for what is wrong, and say what to do about it.",
    ),
    "completion": (
        "paddler_py",
        "completion",
        "",
        "Print what makes a shell complete this command.",
    ),
}

_RELOADED = frozenset({"balancer"})
"""What SIGHUP has read its settings again, and does not end, from the first moment on."""


class LazyGroup(click.Group):
    """Lists commands from the table and imports one only when it is called or completed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; a missing extra ends with how to install it."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, extra, _ = COMMANDS[cmd_name]
        if cmd_name in _RELOADED and not ctx.resilient_parsing:
            importlib.import_module("protocol.hangup").remember_hangup()
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if ctx.resilient_parsing:  # Tab was pressed: no place for an error
                return None
            if error.name and error.name.partition(".")[0] in {"balancer", "agent", "protocol"}:
                raise
            raise click.ClickException(
                f"`paddler-py {cmd_name}` needs the package {error.name!r}: "
                f"pip install 'paddler-py[{extra}]'"
            ) from error
        if not isinstance(command, click.Command):
            raise AssertionError(f"{cmd_name} is no command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands that begin so, from the table; then the options of the group."""
        commands = [
            CompletionItem(name, help=row[3])
            for name, row in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's)
        """The list in `--help`, from the table, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[3]) for name, row in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="paddler-py")
def main() -> None:
    """Serve open models on your own machines."""


_MENDED = {
    # a zsh whose ~/.zshrc has not started its completion has no compdef
    "zsh": (
        "    compdef ",
        "    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n    compdef ",
    ),
    # the texts beside the words have commas of their own
    "fish": ('string split ","', 'string split --max 1 ","'),
}
"""What click's scripts lack."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print a script for bash, zsh or fish that completes commands, options and values.

    \b
    bash: paddler-py completion bash >> ~/.bashrc
    zsh:  paddler-py completion zsh >> ~/.zshrc
    fish: mkdir -p ~/.config/fish/completions
          paddler-py completion fish > ~/.config/fish/completions/paddler-py.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise AssertionError(f"click completes nothing in {shell}")
    source = script(main, {}, "paddler-py", "_PADDLER_PY_COMPLETE").source()
    click.echo(source.replace(*_MENDED.get(shell, ("", ""))))


if __name__ == "__main__":
    sys.exit(main())
