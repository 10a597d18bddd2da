"""How are objects of a bucket reached? By the store that deltalake has: S3 and what speaks like it, GCS, Azure.

Credentials and endpoint come from the environment variables that these stores are known by (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP …); an address holds none. A commit is a put of an
object that must not be there yet (If-None-Match), so that two writers cannot both write the same version of a table;
no lock table is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deltalake.exceptions import TableNotFoundError

from foretell.errors import DataError, ForetellError

SCHEMES = ("s3", "gs", "az")
# deltalake's own defaults let a command hang for three minutes at a server that is down.
PATIENCE = {"max_retries": "4", "retry_timeout": "20s", "connect_timeout": "5s", "timeout": "60s"}
PIECE = 8_000_000  # bytes that are sent or fetched at a time
_FAILED = re.compile(r"Generic \w[\w ]* error|error sending request|non-2xx|Error performing|status code", re.I)


class Unreachable(ForetellError):
    """The store of the lake does not answer, or refuses. Nothing follows from that about what it holds."""


@dataclass(frozen=True)
class Object:
    """key: below the bucket's address. size: bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Bucket:
    """An address "s3://bucket/prefix", without a slash at its end."""

    url: str

    def __truediv__(self, name: str) -> Bucket:
        return Bucket(f"{self.url}/{name}")

    @property
    def options(self) -> dict[str, str]:
        """What deltalake is told beside what it finds in the environment."""
        told = dict(PATIENCE)
        if self.url.startswith("s3://"):
            told["conditional_put"] = os.environ.get("AWS_CONDITIONAL_PUT", "etag")
        return told

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Says a store's failure as Unreachable."""
        try:
            yield
        except (ForetellError, TableNotFoundError, FileNotFoundError):  # the store did answer
            raise
        except Exception as error:
            if not _FAILED.search(str(error)):
                raise
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "") if self.url.startswith("s3://") else ""
        parts = urlsplit(endpoint)
        at = f" at {parts.scheme}://{parts.netloc.rpartition('@')[2]}" if endpoint else ""
        return Unreachable(
            f"lake {self.url}", f"expected an answer of its store{at}, got: {_reason(str(error))}",
            "start it, or mend the setting `lake`, its address and credentials (docs/grow.md); then run the same "
            "command again: what was committed is there, and nothing else counts",
        )  # fmt: skip

    def _store(self, prefix: str = "") -> Any:
        from deltalake.fs import DeltaStorageHandler

        return DeltaStorageHandler(self.url + (f"/{prefix}" if prefix else ""), self.options)

    def objects(self, prefix: str = "") -> list[Object]:
        """Every object below a folder of it, by name; [] if there is no such folder."""
        from pyarrow.fs import FileSelector, FileType, PyFileSystem

        with self.reached():
            found = PyFileSystem(self._store(prefix)).get_file_info(
                FileSelector("", allow_not_found=True, recursive=True)
            )
        below = f"{prefix}/" if prefix else ""
        made = [Object(below + info.path, info.size or 0) for info in found if info.type == FileType.File]
        return sorted(made, key=lambda one: one.key)

    def folders(self, prefix: str = "") -> list[str]:
        """Names of what lies like a folder directly below it."""
        from pyarrow.fs import FileSelector, FileType, PyFileSystem

        with self.reached():
            found = PyFileSystem(self._store(prefix)).get_file_info(FileSelector("", allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def fetch(self, key: str, to: Path) -> int:
        """Write an object to a file. Returns its bytes."""
        with self.reached(), open(to, "wb") as out, self._store().open_input_file(key) as source:
            while piece := source.read(PIECE):
                out.write(piece)
            return out.tell()

    def read(self, key: str) -> bytes:
        """A small object whole."""
        with self.reached():
            return self._store().open_input_file(key).read()

    def send(self, file: Path, key: str) -> None:
        """Write a file to an object, in place of one that is there. Nobody sees a part of it."""
        opened = self._store()._handler.open_output_stream  # not pyarrow's, which gives buffers where bytes are taken
        with self.reached(), open(file, "rb") as source, closing(opened(key, None)) as out:
            while piece := source.read(PIECE):
                out.write(piece)

    def remove(self, key: str) -> None:
        with self.reached():
            self._store().delete_file(key)


def parse(text: str) -> Bucket:
    """The bucket of an address. DataError if it is none, or holds a secret."""
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise DataError(
            "lake", f"expected an address like s3://bucket/prefix ({', '.join(SCHEMES)}), got {text!r}",
            "or leave it out: tables are then kept in the home",
        )  # fmt: skip
    if "@" in parts.netloc or parts.query:
        raise DataError(
            "lake", "the address holds credentials or a query",
            "put them into the environment, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )  # fmt: skip
    return Bucket(f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"))


def _reason(text: str) -> str:
    """The last link of a chain of causes, in a line: "Connection refused (os error 111)"."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = re.search(r"<Message>([^<]*)</Message>", text)
    if code:
        return f"{code[1]}: {said[1]}" if said else code[1]
    lines = [re.sub(r"\x1b\[\d*m|↳", "", line).strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "nothing")[:300]
