"""MySQL and MariaDB as a source, over the binlog."""
