"""The three servers: whydownd over libvirt's own test driver, Python's XML-RPC server, and nginx with a file."""

import os
import pickle
import subprocess
import sys
import xmlrpc.client
from pathlib import Path

import process
from client import Connection, call

HERE = Path(__file__).resolve().parent
ALL_STATS = call("getAllVmStats")


def vm_id(number):
    return f"5eed0000-0000-4000-8000-{number:012x}"


def domain(number):
    return (
        f"<domain type='test'><name>guest-{number:05}</name><uuid>{vm_id(number)}</uuid>"
        "<memory unit='KiB'>65536</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os></domain>"
    )


class Whydownd:
    """A daemon that follows `count` running domains of a test host. libvirt's test driver lives in its process."""

    def __init__(self, binary, folder, count, core):
        self.name, self.method = "whydownd", "post"
        self.count = count
        folder.mkdir(parents=True)
        host = folder / "host.xml"
        host.write_text("<node>" + "\n".join(domain(number) for number in range(count)) + "</node>")
        config = folder / "whydown.toml"
        config.write_text("")  # as delivered, and not this host's own
        state = folder / "state"
        command = [binary, "--config", config, "--connect", f"test://{host}", "--listen", "127.0.0.1:0"]
        command += ["--state-dir", state, "--socket", folder / "socket"]
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = process.start(command, core, stdout=log, stderr=log)
        with process.ended_on_error(self.process):
            address = process.wait_for("whydownd's address", lambda: self._alive() and self._address(state))
            self.port = int(address.rpartition(":")[2])
            self.url = f"http://127.0.0.1:{self.port}/"
            process.wait_for("whydownd's first listing", self._settled)

    def _alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"whydownd ended:\n{self.log.read_text()}")
        return True

    @staticmethod
    def _address(state):
        try:
            return (state / "listen").read_text().split("\n")[0]
        except FileNotFoundError:
            return None

    def _settled(self):
        body = self.ask(ALL_STATS)
        if b"<name>code</name><value><int>0</int>" not in body:
            return False
        found = body.count(b"<string>Up</string>")
        if found != self.count:
            raise RuntimeError(f"{found} VMs are Up instead of {self.count}")
        return True

    def ask(self, body, headers=""):
        connection = Connection(self.port)
        try:
            return connection.ask(body, headers)
        finally:
            connection.close()


class Python:
    """The same structure, marshalled for every request as VDSM did."""

    def __init__(self, folder, plain, core):
        self.name, self.method = "Python", "post"
        (structure,), _ = xmlrpc.client.loads(plain)
        pickled = folder / "structure.pickle"
        pickled.write_bytes(pickle.dumps(structure))
        self.process = process.start(
            [sys.executable, HERE / "peer.py", pickled], core, stdout=subprocess.PIPE, text=True
        )
        with process.ended_on_error(self.process):
            self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/"


class Nginx:
    """The same bytes from a file, by GET: nginx's best case. Packed, they are the daemon's own packed bytes."""

    def __init__(self, folder, port, workers, core):
        self.name, self.method = f"nginx/{workers}", "get"
        self.www = folder / "www"
        self.www.mkdir(parents=True)
        self.port = port
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
                    listen 127.0.0.1:{port};
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
            Connection(self.port).close()
        except ConnectionRefusedError:
            return False
        return True

    def serve(self, count, plain, packed):
        (self.www / f"{count}.xml").write_bytes(plain)
        (self.www / f"{count}.xml.gz").write_bytes(packed)

    def url_of(self, count):
        return f"http://127.0.0.1:{self.port}/{count}.xml"
