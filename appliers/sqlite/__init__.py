"""The applier for SQLite files."""

from appliers.sqlite.applier import SqliteApplier

__all__ = ["SqliteApplier"]
