"""The three servers: whydownd over libvirt's own test driver, Python's XML-RPC server, and nginx with a file.

Each serves in plain text and by TLS, where it wants a certificate of its client.
"""

import os
import pickle
import subprocess
import sys
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path

import process
from client import Connection, call, post
from tls import Papers

HERE = Path(__file__).resolve().parent
ALL_STATS = call("getAllVmStats")


def vm_id(number):
    return f"5eed0000-0000-4000-8000-{number:012x}"


DEVICES = """<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/system.qcow2'/>
<target dev='vda' bus='virtio'/><serial>{id}</serial></disk>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/data.qcow2'/>
<target dev='vdb' bus='virtio'/></disk>
<interface type='bridge'><mac address='{mac}'/><source bridge='ovirtmgmt'/><target dev='vnet0'/><model type='virtio'/>
</interface><graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/></devices>"""


def domain(number, devices=False):
    mac = "52:54:00:" + number.to_bytes(3, "big").hex(":")
    devices = DEVICES.format(id=vm_id(number), mac=mac) if devices else ""
    return (
        f"<domain type='test'><name>guest-{number:05}</name><uuid>{vm_id(number)}</uuid>"
        "<memory unit='KiB'>65536</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os>"
        f"{devices}</domain>"
    )


@dataclass(frozen=True)
class Address:
    """Where a server is asked, and how."""

    port: int
    path: str
    method: str  # post for a call, get for a file
    papers: Papers | None = None  # with TLS: what the client shows

    @property
    def url(self):
        return f"http{'s' if self.papers else ''}://127.0.0.1:{self.port}{self.path}"

    def request(self, headers=""):
        """A request for all VMs, as bytes."""
        if self.method == "get":
            return f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()
        return post(ALL_STATS, headers)


# Whoever reaches the port may act, with documents that name files of the benchmark's own.
OPEN = {"WHYDOWN_XMLRPC__PLAIN_MAY_ACT": "true", "WHYDOWN_CREATE__FOLDERS": "/", "WHYDOWN_CREATE__EMULATORS": "/"}


class Whydownd:
    """A daemon. Its configuration is as delivered, and not this host's own, but for `OPEN` and what `config` says."""

    name = "whydownd"

    def __init__(self, binary, folder, connect, core=None, papers=None, config="", env=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.papers = folder, papers
        if papers:
            server = papers["server"]
            config += f'[tls]\nlisten = ["127.0.0.1:0"]\ncertificate = "{server.certificate}"\n'
            config += f'key = "{server.key}"\nca = "{server.ca}"\n'
        (folder / "whydown.toml").write_text(config)
        state = folder / "state"
        env = {**(os.environ if env is None else env), **OPEN}
        command = [binary, "--config", folder / "whydown.toml", "--connect", connect, "--listen", "127.0.0.1:0"]
        command += ["--state-dir", state, "--socket", folder / "socket"]
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = process.start(command, core, stdout=log, stderr=log, env=env)
        with process.ended_on_error(self.process):
            addresses = process.wait_for("whydownd's address", lambda: self._alive() and self._addresses(state))
            ports = [int(line.rpartition(":")[2]) for line in addresses]
            self.port = ports[0]
            self.plain = Address(ports[0], "/", "post")
            self.tls = Address(ports[1], "/", "post", papers["client"]) if papers else None
            process.wait_for("whydownd's first listing", self._settled)

    def _alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"whydownd ended:\n{self.log.read_text()}")
        return True

    @staticmethod
    def _addresses(state):
        try:
            return (state / "listen").read_text().splitlines()
        except FileNotFoundError:
            return None

    def _settled(self):
        return b"<name>code</name><value><int>0</int>" in self.ask(ALL_STATS)

    def expect(self, count, sampled=True):
        """All VMs are Up, or the benchmark ends. Waits until the documents of all are read, unless nothing is sampled:
        from then on answers stay as long as they are."""
        found = self.ask(ALL_STATS).count(b"<string>Up</string>")
        if found != count:
            raise RuntimeError(f"{found} VMs are Up instead of {count}")
        if sampled:
            known = lambda: self._alive() and self.ask(ALL_STATS).count(b"<name>hash</name>") == count  # noqa: E731
            process.wait_for("what all VMs are made of", known)
        return self

    def ask(self, body, headers=""):
        connection = Connection(self.port)
        try:
            return connection.ask(body, headers)
        finally:
            connection.close()


def test_host(folder, count, devices=False):
    """`count` running domains for libvirt's test driver, which lives in the daemon's process."""
    folder.mkdir(parents=True, exist_ok=True)
    host = folder / "host.xml"
    host.write_text("<node>" + "\n".join(domain(number, devices) for number in range(count)) + "</node>")
    return f"test://{host}"


class Python:
    """The same structure, marshalled for every request as VDSM did."""

    name = "Python"

    def __init__(self, folder, plain, core, papers):
        (structure,), _ = xmlrpc.client.loads(plain)
        pickled = folder / "structure.pickle"
        pickled.write_bytes(pickle.dumps(structure))
        server = papers["server"]
        command = [sys.executable, HERE / "peer.py", pickled, server.certificate, server.key, server.ca]
        self.process = process.start(command, core, stdout=subprocess.PIPE, text=True)
        with process.ended_on_error(self.process):
            plain, tls = map(int, self.process.stdout.readline().split())
            self.plain = Address(plain, "/", "post")
            self.tls = Address(tls, "/", "post", papers["client"])


class Nginx:
    """The same bytes from a file, by GET: nginx's best case. Packed, they are the daemon's own packed bytes."""

    name = "nginx"

    def __init__(self, folder, ports, workers, core, papers):
        self.www = folder / "www"
        self.www.mkdir(parents=True)
        self.ports, self.papers = ports, papers
        server = papers["server"]
        config = folder / "nginx.conf"
        config.write_text(
            f"""
            {"user root;" if os.getuid() == 0 else ""}
            worker_processes {workers};
            daemon off;
            pid {folder}/pid;
            error_log stderr error;
            events {{ worker_connections 256; }}
            http {{
                access_log off;
                sendfile on;
                tcp_nodelay on;
                tcp_nopush on;
                open_file_cache max=16 inactive=1h;
                open_file_cache_valid 1h;
                keepalive_requests 1000000000;
                keepalive_timeout 1h;
                types {{ text/xml xml; }}
                client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi;
                uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                server {{
                    listen 127.0.0.1:{ports[0]};
                    listen 127.0.0.1:{ports[1]} ssl;
                    ssl_certificate {server.certificate};
                    ssl_certificate_key {server.key};
                    ssl_client_certificate {server.ca};
                    ssl_verify_client on;
                    ssl_protocols TLSv1.2 TLSv1.3;
                    root {self.www};
                    gzip_static on;
                }}
            }}
            """
        )
        with open(folder / "log", "wb") as log:
            self.process = process.start(["nginx", "-p", folder, "-c", config], core, stdout=log, stderr=log)
        with process.ended_on_error(self.process):
            process.wait_for("nginx", lambda: self._listens(folder))

    def _listens(self, folder):
        if self.process.poll() is not None:
            raise RuntimeError(f"nginx ended:\n{(folder / 'log').read_text()}")
        try:
            Connection(self.ports[0]).close()
        except ConnectionRefusedError:
            return False
        return True

    def serve(self, count, plain, packed):
        (self.www / f"{count}.xml").write_bytes(plain)
        (self.www / f"{count}.xml.gz").write_bytes(packed)

    def plain(self, count):
        return Address(self.ports[0], f"/{count}.xml", "get")

    def tls(self, count):
        return Address(self.ports[1], f"/{count}.xml", "get", self.papers["client"])
