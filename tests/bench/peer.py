"""The rival that VDSM was: Python's own XML-RPC server, a thread per connection, HTTP/1.1 with keep-alive.

    peer.py STRUCTURE    a pickle of what getAllVmStats returns; prints the port that it listens on

It only marshals a structure that is there already: VDSM gathered it first, so this is less than VDSM did.
"""

import pickle
import socketserver
import sys
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer


class Handler(SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"


class Server(socketserver.ThreadingMixIn, SimpleXMLRPCServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """wrk hangs up in the middle of answers when its time is over; all else is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    with open(sys.argv[1], "rb") as file:
        structure = pickle.load(file)
    server = Server(("127.0.0.1", 0), Handler, logRequests=False)
    server.register_function(lambda: structure, "getAllVmStats")
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()
