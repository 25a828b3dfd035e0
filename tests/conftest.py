"""The fixtures stand in plugins, one module per concern."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.in_memory",
    "tests.servers",
    "tests.syncs",
    "tests.stage",
    "tests.binlog_capture",
    "tests.capture",
    "tests.mysql_fixtures",
    "tests.mysql_applier_bed",
    "tests.mysql_pairs",
    "tests.mysql_stage",
]

# A shell starts what it puts into the background with SIGINT ignored, and processes hand that on: what
# tests end with Ctrl-C would not end.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that asks a real server takes as long as the machine is busy. `print_blob` replays one.
settings.register_profile("servers", deadline=None, print_blob=True)
settings.load_profile("servers")


@pytest.fixture(scope="session", autouse=True)
def own_runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the run's daemons tell stays among the run's own files, also where a test does not say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(tmp_path_factory.mktemp("runtime")))
        yield
