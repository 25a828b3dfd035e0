"""PostgreSQL as a source: its log through pgoutput, its tables through COPY."""

from cdc.sources.postgres.source import PostgresSource

__all__ = ["PostgresSource"]
