"""Which database or server keeps a registry, when it is not a file of the home? Said by a setting, without a secret.

`env:NAME` stands for what the environment variable NAME holds, as in a source's contract. A password may stand in a
variable (that one, or FORETELL_REGISTRY), in PGPASSWORD or in ~/.pgpass; never in foretell.toml.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from foretell.connectors import redact, secret
from foretell.errors import DefinitionError, NotReady
from foretell.project import Project

_POSTGRES = re.compile(r"postgres(ql)?(\+psycopg)?://")


def address(project: Project, setting: str, *, servers: bool = False) -> str:
    """What a setting ("registry", "mlflow") says, as SQLAlchemy takes it: "" (not set), postgresql+psycopg://… or,
    where servers are allowed, http(s)://…. NotReady: a variable is not set, or the driver is not installed."""
    given = project.settings[setting]
    if not (said := str(given.value).strip()):
        return ""
    text = secret(said, setting)
    parts = urlsplit(text)
    if servers and parts.scheme in ("http", "https") and parts.netloc:
        _refuse_password(setting, said, given.origin)
        return text
    if not _POSTGRES.match(text):
        raise DefinitionError(
            setting, f"expected the address of a PostgreSQL database{' or a server' if servers else ''}, "
            f"got {redact(text)!r}",
            f'write "postgresql://user@host/name"{", https://host" if servers else ""} or "env:NAME", or leave it out',
            where=given.origin,
        )  # fmt: skip
    _refuse_password(setting, said, given.origin)
    if find_spec("psycopg") is None:
        raise NotReady(setting, "PostgreSQL needs psycopg, which is not installed", "pip install foretell[postgres]")
    return _POSTGRES.sub("postgresql+psycopg://", text, count=1)


def shown(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix("+psycopg")
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # by a socket it has no host


def connect(url: str) -> Any:
    """A psycopg connection by the address that `address` gives; each statement is committed by itself."""
    import psycopg

    return psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1), connect_timeout=5, autocommit=True)


@cache
def reach(url: str) -> None:
    """Connect once; what psycopg raises if that fails is a failure by `is_failure`."""
    connect(url).close()


def holds_no_secret(url: str) -> bool:
    parts = urlsplit(url)
    return not parts.password and "password=" not in parts.query


def reason(error: BaseException, url: str) -> str:
    """What a database said, in a line, without a password."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    password = urlsplit(url).password
    return text.replace(password, "***") if password else text


def is_failure(error: BaseException) -> bool:
    """Whether a database did not answer, or refused us: not that something is not in it."""
    try:
        import psycopg
    except ImportError:
        return False
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))


def _refuse_password(setting: str, said: str, origin: str) -> None:
    if not holds_no_secret(said) and not origin.startswith("environment"):
        raise DefinitionError(
            setting, "the address holds a password", f'put it into an environment variable, say {setting} = "env:NAME"',
            where=origin,
        )  # fmt: skip
