"""The rival that VDSM was: Python's own XML-RPC server, a thread per connection, HTTP/1.1 with keep-alive.

    peer.py STRUCTURE CERTIFICATE KEY CA    prints the ports that it listens on: in plain text, and by TLS

STRUCTURE is a pickle of what getAllVmStats returns. It only marshals a structure that is there already: VDSM gathered
it first, so this is less than VDSM did. It packs by its own means whenever a client asks for it.
"""

import pickle
import socketserver
import ssl
import sys
import threading
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer


class Handler(SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"


class Server(socketserver.ThreadingMixIn, SimpleXMLRPCServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """wrk hangs up in the middle of answers when its time is over; all else is told."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


def main():
    structure, certificate, key, ca = sys.argv[1:]
    with open(structure, "rb") as file:
        structure = pickle.load(file)
    plain, tls = (Server(("127.0.0.1", 0), Handler, logRequests=False) for _ in range(2))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    # The handshake is made by the connection's own thread, with its first read.
    tls.socket = context.wrap_socket(tls.socket, server_side=True, do_handshake_on_connect=False)
    for server in (plain, tls):
        server.register_function(lambda: structure, "getAllVmStats")
    print(plain.server_address[1], tls.server_address[1], flush=True)
    threading.Thread(target=tls.serve_forever, daemon=True).start()
    plain.serve_forever()


main()
