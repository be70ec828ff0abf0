"""Servers that DVC remotes live on, started as processes on loopback: SeaweedFS for S3, OpenSSH for SSH."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import time
from functools import cached_property
from pathlib import Path
from typing import Self

_START_TIMEOUT_S = 60
_START_TRIES = 3


def free_ports(number: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class S3Server:
    """SeaweedFS with one bucket and one user; whoever comes with other keys, or none, is refused."""

    bucket = "models"
    access_key = "key-of-the-test"
    secret_key = "secret-of-the-test"

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        user = {
            "name": "tester",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (self.folder / "users.json").write_text(json.dumps({"identities": [user]}))
        for tries_left in reversed(range(_START_TRIES)):
            self._take_ports()
            try:
                self.start()
                break
            except RuntimeError:  # another process may have taken a port between its choice and its use
                self.kill()
                if not tries_left:
                    raise
        self.client.create_bucket(Bucket=self.bucket)
        return self

    def _take_ports(self) -> None:
        """Choose ports, to start with no data."""
        names = ("master", "volume", "filer", "s3")
        ports = free_ports(2 * len(names))
        self._ports = dict(zip(names, zip(ports[::2], ports[1::2], strict=True), strict=True))
        self.url = f"http://127.0.0.1:{self._ports['s3'][0]}"
        vars(self).pop("client", None)  # that of the ports before
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "data").mkdir()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server on the data it had, if any, and wait until it answers."""
        ports = [f"-{n}.port={port}" for n, (port, _) in self._ports.items()]
        ports += [f"-{n}.port.grpc={grpc}" for n, (_, grpc) in self._ports.items()]
        options = (
            f"-dir={self.folder / 'data'} -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false"
            " -master.electionTimeout=1s -master.heartbeatInterval=100ms"
            " -master.volumeSizeLimitMB=64 -volume.max=20 -volume.minFreeSpace=0"
            f" -s3 -s3.config={self.folder / 'users.json'} -s3.localSocket={self.folder / 's3.sock'}"
            f" -s3.port.iceberg=0 -s3.port.lance=0 -filer.localSocket={self.folder / 'filer.sock'}"
        )
        command = ["weed", "server", *options.split(), *ports]
        with (self.folder / "log").open("ab") as log:
            environment = self.env | {"TMPDIR": str(self.folder)}
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        self._wait()

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            for name, (_, port) in self._ports.items():  # wherever TMPDIR is
                Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)

    @cached_property
    def client(self):  # noqa: ANN201 (botocore makes the class at run time)
        """A botocore client with the right keys, to look into the bucket; it does not wait and try again."""
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def keys(self, prefix: str) -> list[str]:
        """Return the names of the objects under `prefix`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def _wait(self) -> None:
        give_up = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < give_up:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                self.client.list_buckets()
            except Exception:  # noqa: BLE001 (not ready yet, in one of many ways)
                time.sleep(0.2)
            else:
                return
        raise RuntimeError(f"weed did not start:\n{(self.folder / 'log').read_text()[-3000:]}")


class SshServer:
    """OpenSSH on a port of its own, that lets in this user with one temporary key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.user = getpass.getuser()
        self.key = folder / "user_key"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program() -> str | None:
        """Return the path of sshd, which ordinary users rarely have on their PATH, or None."""
        return shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/usr/local/sbin")

    def __enter__(self) -> Self:
        for name in ("host_key", "user_key"):
            key = str(self.folder / name)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        (self.folder / "data").mkdir()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd started by root insists on it
        settings = (
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host_key'}\n"
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            "Subsystem sftp internal-sftp\n"
        )
        (self.folder / "sshd_config").write_text(settings)
        program = self.program()
        assert program is not None
        command = [program, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
        self._process = subprocess.Popen(command)
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def _wait(self) -> None:
        give_up = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(f"sshd did not start:\n{(self.folder / 'log').read_text()[-3000:]}")
