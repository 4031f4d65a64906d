"""Where everything runs: the folder, the cores, the certificates, the helpers, and every process that must be ended."""

import socket

import preload
import process
import tls


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stage:
    """One run's surroundings."""

    def __init__(self, given, folder):
        self.given, self.folder, self.running = given, folder, []
        self.cpus = process.cores()
        # The server has a core and so has the client; without a second core nothing is gained by pinning.
        self.core, self.client = (self.cpus[0], self.cpus[1]) if len(self.cpus) > 1 else (None, None)
        self.patience = 0 if given.quick else 8  # seconds to wait for others to leave the machine alone
        authority = tls.Authority(folder / "authority")
        self.papers = {side: authority.issue(side) for side in ("server", "client")}
        self.certificate_shim = preload.build("wrk_certificate", folder)
        self.figures_shim = preload.build("figures", folder, "libvirt")

    def keep(self, server):
        """`server`, which is ended with the run at the latest."""
        self.running.append(server)
        return server

    def drop(self, server):
        process.stop(server.process)
        self.running.remove(server)

    def stop(self):
        for server in self.running:
            process.stop(server.process)

    def quiet(self):
        """Waits for others to leave the machine alone; false if they did not in time."""
        return process.wait_for_quiet(self.patience)
