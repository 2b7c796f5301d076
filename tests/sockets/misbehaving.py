"""A raw server on loopback that misbehaves as told and counts what it received. It parses by itself: it is the oracle."""

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import Counter

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"id": 10}'


def answer(status, body=b"", *headers):
    head = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


class Misbehaving:
    """`behave(connection)` is called for each connection, in a thread of its own, with `read()`, `send()`, `reset()`."""

    def __init__(self, behave, *, context=None):
        self.behave = behave
        self.context = context
        self.inits = Counter()
        self.statuses = 0
        self.connections = 0
        self.keys = 0
        self.received = bytearray()
        self.release = threading.Event()
        self.arrived = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = []
        self._open = set()

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self):
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, *_):
        self.release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock):
        try:
            if self.context is not None:
                self._open.discard(sock)
                sock = self.context.wrap_socket(sock, server_side=True)
                self._open.add(sock)
            self.behave(Connection(self, sock))
        except (OSError, ssl.SSLError):
            pass
        finally:
            self._open.discard(sock)
            sock.close()


class Connection:
    def __init__(self, server, sock):
        self.server = server
        self.sock = sock
        self._buffer = b""

    def read(self):
        """One whole request, counted; None at the end."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        if head.startswith(b"CONNECT"):
            self._buffer = rest
            return head, {}
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        while len(rest) < length:
            if not self._more():
                return None
            rest = self._buffer.partition(b"\r\n\r\n")[2]
        self._buffer = rest[length:]
        fields = json.loads(rest[:length])
        self.server.keys += "access_key" in fields
        if head.startswith(b"POST /callback/init "):
            self.server.inits[fields["callback_number"]] += 1
        else:
            self.server.statuses += 1
        self.server.arrived.set()
        return head, fields

    def _more(self):
        data = self.sock.recv(65536)
        self._buffer += data
        self.server.received += data
        return bool(data)

    def send(self, data):
        self.sock.sendall(data)

    def wait(self):
        self.server.release.wait()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
