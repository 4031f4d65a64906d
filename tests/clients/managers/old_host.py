"""A host from before exitReason: the verbs that managers poll with, answered as VDSM 4.14 answered them.

Its VMs are told by the test, through verbs that begin with "lab.". It prints its port, and serves until it is killed.
"""
import socketserver
import sys
import threading
import xmlrpc.server
from xmlrpc.client import Fault

DONE = {"code": 0, "message": "Done"}
GONE = {"status": {"code": 1, "message": "Virtual machine does not exist"}}
lock = threading.Lock()
vms = {}
trouble = {"mode": "", "refuse": 0, "frozen": None}
destroys = []
polls = []


class Handler(xmlrpc.server.SimpleXMLRPCRequestHandler):
    rpc_paths = ("/", "/RPC2")
    protocol_version = "HTTP/1.1"
    # Idle connections end with the process.
    timeout = 60


class Server(socketserver.ThreadingMixIn, xmlrpc.server.SimpleXMLRPCServer):
    daemon_threads = True
    allow_reuse_address = True


def running(vm):
    return {
        "vmId": vm, "status": "Up", "pid": "4242", "vmType": "kvm", "kvmEnable": "true", "acpiEnable": "true",
        "elapsedTime": "60", "monitorResponse": "0", "timeOffset": "0", "clientIp": "", "displayType": "vnc",
        "displayPort": "5900", "displaySecurePort": "-1", "displayIp": "0", "hash": "-4942054084956770103",
        "statsAge": "1.23", "cpuUser": "1.00", "cpuSys": "0.50", "username": "Unknown", "session": "Unknown",
        "memUsage": "0", "guestIPs": "", "guestFQDN": "", "appsList": [], "balloonInfo": {},
        "network": {"vnet0": {"name": "vnet0", "macAddr": "00:1a:4a:16:01:51", "speed": "1000", "state": "unknown",
                              "rxRate": "0.0", "txRate": "0.0", "rxErrors": "0", "txErrors": "0",
                              "rxDropped": "0", "txDropped": "0"}},
        "disks": {"vda": {"truesize": "1024", "apparentsize": "2048", "readRate": "0.00", "writeRate": "0.00"}},
    }


def down(vm, code, message):
    return {"vmId": vm, "status": "Down", "exitCode": code, "exitMessage": message, "timeOffset": "0",
            "hash": "-4942054084956770103"}


def polled(answer):
    """What every verb does while the host is in trouble."""
    def call(*arguments):
        with lock:
            if trouble["mode"] == "fault":
                raise Fault(1, "<type 'exceptions.OverflowError'>:int exceeds XML-RPC limits")
            if trouble["mode"] == "recovering":
                return {"status": {"code": 99, "message": "Recovering from crash or Initializing"}}
            return answer(*arguments)
    return call


def all_stats():
    polls.append(1)
    return {"status": DONE, "statsList": trouble["frozen"] or list(vms.values())}


def one(vm):
    return {"status": DONE, "statsList": [vms[vm]]} if vm in vms else GONE


def listed(full=False, chosen=()):
    keys = ("vmId", "status") if not full else ("vmId", "status", "exitCode", "exitMessage")
    wanted = [vm for vm in vms.values() if not chosen or vm["vmId"] in chosen]
    entries = [{key: vm[key] for key in keys if key in vm} for vm in wanted]
    if full:
        for entry in entries:
            entry.update(devices=[], vmName="vm", smp="1", memSize=512, vmType="kvm")
    return {"status": DONE, "vmList": entries}


def destroy(vm):
    destroys.append(vm)
    if vm not in vms:
        return GONE
    if trouble["refuse"]:
        trouble["refuse"] -= 1
        return {"status": {"code": 42, "message": "Could not destroy VM"}}
    del vms[vm]
    return {"status": {"code": 0, "message": "Machine destroyed"}}


def set_up(vm):
    vms[vm] = running(vm)
    return True


def set_down(vm, code, message):
    vms[vm] = down(vm, code, message)
    return True


def set_odd(vm):
    vms[vm] = {"vmId": vm, "status": "Down"}
    return True


def set_trouble(mode, refuse):
    trouble.update(mode=mode, refuse=refuse)
    return True


def set_frozen(on):
    trouble["frozen"] = list(vms.values()) if on else None
    return True


server = Server(("127.0.0.1", 0), Handler, logRequests=False)
for name, verb in {
    "getAllVmStats": all_stats,
    "getVmStats": one,
    "list": listed,
    "destroy": destroy,
    "ping": lambda: {"status": DONE},
    "getVdsStats": lambda: {"status": DONE, "info": {"cpuSys": "1.00", "cpuUser": "1.00", "cpuIdle": "98.00",
                                                     "cpuLoad": "0.10", "memUsed": "10", "vmCount": len(vms)}},
    "getVdsCapabilities": lambda: {"status": DONE, "info": {"cpuSpeed": "2400.000", "kvmEnabled": "true",
                                                            "HBAInventory": {"iSCSI": [], "FC": []},
                                                            "emulatedMachines": ["pc"], "clusterLevels": ["3.4"]}},
}.items():
    server.register_function(polled(verb), name)
server.register_function(set_up, "lab.up")
server.register_function(set_down, "lab.down")
server.register_function(set_odd, "lab.odd")
server.register_function(set_trouble, "lab.trouble")
server.register_function(set_frozen, "lab.frozen")
server.register_function(lambda: destroys, "lab.destroys")
server.register_function(lambda: len(polls), "lab.polls")
print(server.server_address[1], flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
