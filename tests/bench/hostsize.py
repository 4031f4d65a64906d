"""How much memory libvirt's test host takes by itself, in a process that does nothing else.

    hostsize.py URI    prints MB

The daemon has that host in its own process; with a real hypervisor it is libvirtd that has it.
"""

import ctypes
import sys


def resident_mb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


def main():
    libvirt = ctypes.CDLL("libvirt.so.0")
    libvirt.virConnectOpen.restype = ctypes.c_void_p
    libvirt.virInitialize()
    before = resident_mb()
    if not libvirt.virConnectOpen(sys.argv[1].encode()):
        sys.exit("libvirt cannot open the host")
    print(resident_mb() - before)


main()
