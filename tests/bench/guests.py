"""Real QEMU guests, run by libvirt's embedded driver inside the daemon. They outlive it, so that one daemon after
another may follow them, and they are ended here. They need no KVM and have nothing to boot: they halt."""

import contextlib
import os
import signal
import time
import xmlrpc.client

import process
from servers import ALL_STATS, Whydownd, vm_id

XML = """<domain type='qemu'><name>bench-{number}</name><uuid>{id}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>
<controller type='usb' model='none'/><disk type='file' device='disk'><driver name='qemu' type='raw'/>
<source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><mac address='52:54:00:00:00:{number:02x}'/><model type='virtio'/></interface>
</devices></domain>"""


# As in tests/lab: no other user, no cgroups, no virtlogd.
QEMU_CONF_FOR_ROOT = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
"""


class Guests:
    def __init__(self, stage, count, name="qemu"):
        self.stage, self.count, self.daemons, self.name = stage, count, 0, name
        self.root = stage.folder / name  # short: libvirt's sockets lie below it
        (self.root / "etc").mkdir(parents=True)
        conf = QEMU_CONF_FOR_ROOT if os.getuid() == 0 else ""
        (self.root / "etc/qemu.conf").write_text(conf + 'stdio_handler = "file"\n')

    def daemon(self, config=""):
        """A daemon that follows them all."""
        self.daemons += 1
        folder = self.stage.folder / f"{self.name}-daemon-{self.daemons}"
        connect = f"qemu:///embed?root={self.root}"
        return self.stage.keep(
            Whydownd(self.stage.given.daemon, folder, connect, self.stage.core, self.stage.papers, config)
        )

    def start(self):
        # Their network card is QEMU's own, which is beyond the VM.
        daemon = self.daemon("[create]\nallow = ['host']\n")
        host = xmlrpc.client.ServerProxy(f"http://127.0.0.1:{daemon.port}/RPC2")
        for number in range(self.count):
            disk = self.stage.folder / f"disk-{number}"
            with open(disk, "wb") as file:
                file.truncate(1 << 20)
            xml = XML.format(number=number, id=vm_id(number), disk=disk)
            status = host.create({"vmId": vm_id(number), "xml": xml})["status"]
            if status["code"] != 0:
                raise RuntimeError(f"a guest was not created: {status}\n{daemon.log.read_text()}")
        process.wait_for("the guests", lambda: self.up(daemon))
        self.stage.drop(daemon)

    def up(self, daemon):
        """Whether the daemon shows all of them Up."""
        body = daemon.ask(ALL_STATS)
        if b"<string>Down</string>" in body:
            raise RuntimeError(f"a guest ended:\n{daemon.log.read_text()}")
        return body.count(b"<string>Up</string>") == self.count

    def pids(self):
        """The QEMU processes of this root."""
        pids = []
        for file in sorted((self.root / "run/qemu").glob("bench-*.pid")):
            with contextlib.suppress(FileNotFoundError, ValueError):
                pids.append(int(file.read_text()))
        return pids

    def stop(self):
        """Ends the QEMU processes of this root, which nobody else knows."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while any(os.path.exists(f"/proc/{pid}") and not _ended(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.05)


def _ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
