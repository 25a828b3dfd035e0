"""customer-cdc: keeps the databases around a CRM in step, from its log, exactly once."""


def __getattr__(name: str) -> str:
    """`__version__`, read only when asked for: importlib.metadata takes 80 ms of every process."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - see above

        return version("customer-cdc")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
