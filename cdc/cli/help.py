"""`--help` in the words of a command line: what is typed, and not the Python types behind it."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand


class Command(TyperCommand):
    """A command whose arguments stand in its help as they are typed. typer 0.29 has them as `{SYNC}` in
    the usage and as `SYNC <list[str]>` below it, with a metavar too."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [self.options_metavar or "", *(_name(a, usage=True) for a in self._arguments())]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments = [(_name(a), a.help) for a in self._arguments()]
        options = [p for p in self.get_params(ctx) if not isinstance(p, TyperArgument)]
        records = [r for p in options if (r := p.get_help_record(ctx))]
        for title, lines in (("Arguments", arguments), ("Options", records)):
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The summary in the list of commands."""
        return (self.help or "").partition("\n\n")[0].replace("\n", " ")

    def _arguments(self) -> list[TyperArgument]:
        return [p for p in self.params if isinstance(p, TyperArgument)]


def _name(argument: TyperArgument, *, usage: bool = False) -> str:
    name = argument.metavar or argument.name
    several = "..." if argument.nargs != 1 else ""
    return f"[{name}]{several}" if usage and not argument.required else f"{name}{several}"
