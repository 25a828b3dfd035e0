"""MySQL and MariaDB as targets: every commit of the source is one transaction here."""

from appliers.mysql.applier import MysqlApplier

__all__ = ["MysqlApplier"]
