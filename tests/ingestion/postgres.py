"""A real PostgreSQL server for tests: started on a socket of its own, stopped hard and started again at will."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest


def _binary(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(found[0]) if found else None)


class Server:
    """A cluster in a folder, reached by its Unix socket. root may not run it, so it runs as `postgres` there."""

    def __init__(self, folder: Path):
        self.folder, self.data = folder, folder / "data"
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        folder.chmod(0o777)
        self._run("initdb", "-D", str(self.data), "-U", self.user, "--auth=trust", "-N", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@/postgres?host={self.folder}"

    def _run(self, name: str, *words: str) -> None:
        binary = _binary(name)
        assert binary
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        done = subprocess.run([*as_user, binary, *words], capture_output=True, text=True, cwd=self.folder, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.folder / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def execute(self, *statements: str) -> list[tuple]:
        """Run statements, each committed; the rows of the last one."""
        import adbc_driver_postgresql.dbapi as driver

        rows: list[tuple] = []
        with driver.connect(self.url, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall() if statement.lstrip().upper().startswith("SELECT") else []
        return rows


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A server for the tests of a module. Short paths: a socket's may have 107 characters."""
    pytest.importorskip("adbc_driver_postgresql", reason="adbc-driver-postgresql is not installed")
    if not _binary("pg_ctl"):
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    server: Any = None
    try:
        server = Server(folder)
        server.start()
        yield server
    finally:
        if server:
            with suppress(AssertionError):  # a test has stopped it
                server.stop()
        shutil.rmtree(folder, ignore_errors=True)
