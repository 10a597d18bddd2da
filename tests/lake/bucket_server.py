"""A real S3-compatible server for tests: moto's, in a process of its own, stopped and started again at will.

It holds its objects in memory: `stop` keeps none, `freeze` lets it answer nobody until `thaw`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class BucketServer:
    """moto on a port of its own, with one bucket. `address()` names a prefix that nobody has used yet."""

    BUCKET = "lake"

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "not-to-be-shown", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(300):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.1)
        self.client.create_bucket(Bucket=self.BUCKET)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def address(self) -> str:
        return f"s3://{self.BUCKET}/{uuid.uuid4().hex[:8]}"

    def objects(self, url: str) -> dict[str, bytes]:
        """Key below the address -> content, of every version of every object there."""
        prefix, client = url.split("/", 3)[3] + "/", self.client
        pages = client.get_paginator("list_object_versions").paginate(Bucket=self.BUCKET, Prefix=prefix)
        found = [version for page in pages for version in page.get("Versions", [])]
        return {
            f"{one['Key'].removeprefix(prefix)}@{one['VersionId']}": client.get_object(
                Bucket=self.BUCKET,
                Key=one["Key"],
                **({} if one["VersionId"] == "null" else {"VersionId": one["VersionId"]}),
            )["Body"].read()
            for one in found
        }


@pytest.fixture(scope="module")
def bucket() -> Iterator[BucketServer]:
    """A server for the tests of a module, which the environment names."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = BucketServer()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in server.environ.items():
            patch.setenv(name, value)
        try:
            server.start()
            yield server
        finally:
            server.stop()
