"""The commands and their arguments. What they do is imported when they are called, so that `cdc --help`
answers at once and a daemon holds nothing that it does not need."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdc.cli.help import Command
from cdc.cli.words import ask, say

if TYPE_CHECKING:
    from cdc.config import Config

Usage: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for wrong arguments (click's UsageError, which typer has under several names)."""

app = typer.Typer(
    name="cdc",
    help="Keeps the databases around a CRM in step: change data capture from its log, exactly once.",
    epilog="Start with `cdc demo`, or `cdc init SOURCE_URL TARGET_URL > cdc.toml` and `cdc check`.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _sync_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For the shell: the syncs of the configuration, none if it cannot be read."""
    from appliers.errors import SyncError
    from cdc.config import load

    try:
        names = load(ctx.params.get("config") or ctx.find_root().params.get("config")).syncs
    except SyncError:
        return []
    return [name for name in names if name.startswith(incomplete)]


ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="The configuration; else $CDC_CONFIG, ./cdc.toml, /etc/cdc/cdc.toml.",
    ),
]
Syncs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SYNC",
        help="Only these; else all.",
        autocompletion=_sync_names,
        show_default=False,
    ),
]
OneSync = Annotated[
    str, typer.Argument(metavar="SYNC", help="The sync's name.", autocompletion=_sync_names)
]


def _version(wanted: bool) -> None:
    if wanted:
        from cdc import __version__

        sys.stdout.write(f"cdc {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    config: ConfigPath = None,
    version: Annotated[  # noqa: ARG001 - its callback has answered
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    ctx.obj = config


def _load(ctx: typer.Context, config: Path | None) -> Config:
    from cdc.config import load
    from cdc.readable import demand_readable

    loaded = load(config or ctx.obj)
    demand_readable(loaded)
    return loaded


def _chosen(config: Config, names: list[str] | None) -> list[str]:
    """The named syncs in the configuration's order, or all of them."""
    from cdc.config import unknown_sync

    for name in names or ():
        if name not in config.syncs:
            raise unknown_sync(config, name)
    return [name for name in config.syncs if not names or name in names]


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc demo                       into a SQLite file, for some twenty seconds
  cdc demo --seconds 10
  cdc demo --target postgresql://me@localhost/scratch
  cdc demo --target mysql://me@localhost/scratch""",
)
def demo(
    seconds: Annotated[
        int, typer.Option(min=1, metavar="N", help="How long the small CRM keeps changing.")
    ] = 15,
    target: Annotated[
        str | None, typer.Option(metavar="URL", help="Into this database; else a SQLite file.")
    ] = None,
) -> int:
    """See it work on this machine, without any configuration.

    Starts a PostgreSQL with a small CRM that keeps changing, snapshots and tails it into SQLite (or
    URL), shows it live, and compares source and target row by row. Exit 0 only if they are equal.
    """
    try:
        from cdc.demo import run as run_demo
    except ImportError as e:
        from appliers.errors import PermanentError

        raise PermanentError(
            f"the demo is not installed: {e.name} is missing",
            "make install, or pip install '.[demo]' in a clone of the repository",
        ) from e
    return int(run_demo(seconds, target))


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc init postgresql://cdc@crm-db/crm sqlite:////var/lib/cdc/crm.db > cdc.toml
  cdc init 'postgresql://cdc@crm-db/crm?sslmode=verify-full' postgresql://cdc@fin-db/finance
  PGPASSWORD=... cdc init postgresql://cdc@crm-db/crm postgresql://cdc@fin-db/finance
  cdc init mysql://cdc@crm-db/crm mariadb://cdc@fin-db/finance

Passwords are used to look at the source and never printed.""",
)
def init(
    source: Annotated[str, typer.Argument(metavar="SOURCE_URL", help="The database to read from.")],
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET_URL", help="The databases to write to.")
    ],
) -> int:
    """Print a commented configuration, and the SQL grants it needs."""
    from cdc.init import configuration

    # TOML is UTF-8, whatever the terminal is.
    sys.stdout.buffer.write(configuration(source, targets).encode())
    return 0


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc check
  cdc check finance
  cdc check | grep -v '^ok'""",
)
def check(ctx: typer.Context, syncs: Syncs = None, config: ConfigPath = None) -> int:
    """Look at every setting, grant and table that the syncs depend on.

    One line each with ok, warn or FAILED and what to do. Changes nothing. Exit 1 if anything FAILED.
    """
    from cdc.cli.checks import run as run_checks

    loaded = _load(ctx, config)
    return run_checks(loaded, _chosen(loaded, syncs))


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc snapshot                          all syncs, every table
  cdc snapshot finance --table contacts
  cdc snapshot finance --customer 42    one customer's rows of every table""",
)
def snapshot(
    ctx: typer.Context,
    syncs: Syncs = None,
    table: Annotated[
        list[str] | None, typer.Option(metavar="T", help="Only this table; may be repeated.")
    ] = None,
    customer: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Only this customer's rows; may be repeated."),
    ] = None,
    config: ConfigPath = None,
) -> int:
    """Copy tables in full, exactly, while both sides live.

    Goes on where a copy was stopped. On a sync that is running, the running daemon does it, online;
    otherwise it is done here. Ends when the copies are exact.
    """
    from cdc.cli.snapshots import run as run_snapshot

    loaded = _load(ctx, config)
    return run_snapshot(loaded, _chosen(loaded, syncs), table or [], customer or [])


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc run                        the daemon, for all syncs
  cdc run finance
  cdc run --until-current        for cron: bring the targets up to now, then stop""",
)
def run(
    ctx: typer.Context,
    syncs: Syncs = None,
    until_current: Annotated[
        bool,
        typer.Option(
            "--until-current",
            help="Stop once everything committed on the source by now is on the target.",
        ),
    ] = False,
    config: ConfigPath = None,
) -> int:
    """Run the daemon: copy the tables once, then follow the log.

    Always goes on where it was stopped, however it was stopped. SIGTERM stops it, SIGHUP reads the
    configuration again.
    """
    loaded = _load(ctx, config)
    names = _chosen(loaded, syncs) if syncs else []
    flags = ["--until-current"] if until_current else []
    # The daemon takes our place: for weeks it needs nothing of what has read the command line.
    command = [sys.executable, "-P", "-m", "cdc.daemon", str(loaded.path), *flags, *names]
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - that is the point


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc status
  cdc status --watch
  cdc status --max-lag 60 >/dev/null || page someone
  cdc status --json | jq '.syncs[].lag_seconds'""",
)
def status(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second.")] = False,
    max_lag: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Exit 1 if a sync is further behind."),
    ] = None,
    config: ConfigPath = None,
) -> int:
    """Show how far each sync is, whether or not the daemon runs.

    Exit 1 if a sync has failed, is stalled, or is over --max-lag.
    """
    from cdc.cli.statuses import run as run_status

    return run_status(_load(ctx, config), as_json=json, watch=watch, max_lag=max_lag)


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc tail finance
  cdc tail finance --from-start | jq 'select(.customer == "42")'""",
)
def tail(
    ctx: typer.Context,
    sync: OneSync,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start", help="Begin where the sync itself stands; else with what comes now."
        ),
    ] = False,
    config: ConfigPath = None,
) -> int:
    """Print the customer deltas of a sync as JSON Lines.

    Reads beside the sync and moves nothing. Ends with Ctrl-C.
    """
    from cdc.tail import tail as run_tail

    loaded = _load(ctx, config)
    _chosen(loaded, [sync])
    run_tail(loaded, loaded.syncs[sync], from_start=from_start, write=sys.stdout.buffer)
    return 0


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc pause finance""",
)
def pause(ctx: typer.Context, sync: OneSync, config: ConfigPath = None) -> int:
    """Let a sync stand still, across restarts too, until `cdc resume`."""
    return _pause(ctx, sync, config, paused=True)


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc resume finance""",
)
def resume(ctx: typer.Context, sync: OneSync, config: ConfigPath = None) -> int:
    """Let a paused sync go on where it stands."""
    return _pause(ctx, sync, config, paused=False)


def _pause(ctx: typer.Context, sync: str, config: Path | None, *, paused: bool) -> int:
    from cdc.control import pause as control_pause

    loaded = _load(ctx, config)
    _chosen(loaded, [sync])
    control_pause(loaded, loaded.syncs[sync], paused)
    say(f"{sync} is paused; the source keeps its log" if paused else f"{sync} goes on")
    return 0


@app.command(
    cls=Command,
    epilog="""\b
Examples:
  cdc drop finance
  cdc drop finance --yes""",
)
def drop(
    ctx: typer.Context,
    sync: OneSync,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigPath = None,
) -> int:
    """Remove what a sync left on source and target, never the data.

    Checkpoint, and on PostgreSQL slot and publication go; the tables and rows on the target stay. Where
    one of the two cannot be reached, the other is cleared, and what is left is said, with exit 1.
    """
    from cdc.control import drop as control_drop
    from cdc.control import kept

    loaded = _load(ctx, config)
    _chosen(loaded, [sync])
    if not yes and not _agreed(loaded, sync):
        return 1
    control_drop(loaded, loaded.syncs[sync])
    say(f"{sync}: removed {kept(loaded.syncs[sync])}; the rows on the target are left")
    return 0


def _agreed(config: Config, sync: str) -> bool:
    from cdc.control import kept

    if not sys.stdin.isatty():
        raise Usage("drop asks before it removes anything, and here is nobody to ask: add --yes")
    at = config.syncs[sync]
    say(
        f"This removes {kept(at)}. The rows on {at.target.name} stay. A later `cdc run` copies every table again."
    )
    return ask("Drop it?")
