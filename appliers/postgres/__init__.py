"""PostgreSQL 12 and newer as a target."""

from appliers.postgres.applier import PostgresApplier

__all__ = ["PostgresApplier"]
