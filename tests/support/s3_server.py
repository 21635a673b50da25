"""A real S3 server on this machine, for tests of stores: moto's, in a thread of this process."""

from __future__ import annotations

import functools
import socket
from typing import Any
from urllib.request import Request, urlopen

BUCKET = "bucket"


class S3:
    """Listens on a free port of 127.0.0.1; stopped and started again it has the same port and the same objects."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-somebody",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": "127.0.0.1",
        }
        self._server: Any = None

    def start(self) -> S3:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def empty(self) -> None:
        """Forgets all there was, of other servers of this process, too, and makes the bucket."""
        self.post("/moto-api/reset")
        self.client.create_bucket(Bucket=BUCKET)

    def post(self, path: str, data: bytes = b"") -> None:
        """To moto's own interface."""
        with urlopen(Request(self.url + path, data=data, headers={"Content-Type": "text/plain"})):
            pass

    @functools.cached_property
    def client(self) -> Any:
        """boto3's own client, to look and to damage; making one takes longer than what it is asked."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environ["AWS_SECRET_ACCESS_KEY"],
        )

    def keys(self, prefix: str = "") -> list[str]:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return sorted(entry["Key"] for entry in listed.get("Contents", ()))

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def flip(self, key: str) -> None:
        """Turns the bits of one byte in the middle."""
        data = bytearray(self.read(key))
        data[len(data) // 2] ^= 0xFF
        self.write(key, bytes(data))
