"""Sources read a database's own log, and copies of its tables, as changes."""
