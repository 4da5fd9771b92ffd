#!/usr/bin/env python3
"""Hostile HTTP/2 by raw sockets: the server answers or closes, and goes on serving everybody else.

  tests/server/http2_test.py --server-binary build/bin/moesaic-server --model models/wordnet-moe
"""

import argparse
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ARGUMENTS = None
START_SECONDS = 120
# A server that neither answers nor closes for so long hangs.
HANG_SECONDS = 30

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, ACK = 0x1, 0x4, 0x8, 0x1


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def hpack_integer(value, bits, first=0):
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out = [first | limit]
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + [value])


def field(name, value):
    """A header as a literal without indexing."""
    return b"\0" + hpack_integer(len(name), 7) + name + hpack_integer(len(value), 7) + value


def request_headers(path=b"/moesaic.v1.Inference/GetLoad", extra=b"", **changed):
    pseudo = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"a",
              b"te": b"trailers", b"content-type": b"application/grpc"}
    pseudo.update({name.encode().replace(b"__", b":").replace(b"_", b"-"): value for name, value in changed.items()})
    return b"".join(field(name, value) for name, value in pseudo.items() if value is not None) + extra


def header_frames(block, stream=1, flags=END_STREAM, chunk=16384):
    """HEADERS and as many CONTINUATION frames as the block needs."""
    parts = [block[i:i + chunk] for i in range(0, len(block), chunk)] or [b""]
    out = []
    for i, part in enumerate(parts):
        last = END_HEADERS if i == len(parts) - 1 else 0
        out.append(frame(HEADERS if i == 0 else CONTINUATION, last | (flags if i == 0 else 0), stream, part))
    return b"".join(out)


EMPTY_MESSAGE = b"\0\0\0\0\0"
HELLO = PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK)
CALL = header_frames(request_headers(), flags=0) + frame(DATA, END_STREAM, 1, EMPTY_MESSAGE)


class Http2Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        ports = cls.folder / "ports"
        cls.server = subprocess.Popen([ARGUMENTS.server_binary, "--model", ARGUMENTS.model, "--grpc-port", "0",
                                       "--metrics-port", "0", "--port-file", str(ports)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not ports.exists():
            if cls.server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.05)
        cls.port = int(dict(line.split("=") for line in ports.read_text().split())["grpc"])

    @classmethod
    def tearDownClass(cls):
        cls.server.terminate()
        code = cls.server.wait(timeout=60)
        shutil.rmtree(cls.folder)
        assert code == 0, code

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=HANG_SECONDS)
        self.addCleanup(connection.close)
        return connection

    def send(self, connection, data):
        """The server may close before it has read everything."""
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def read_until_closed(self, connection):
        data = b""
        try:
            while part := connection.recv(1 << 16):
                data += part
        except ConnectionResetError:
            pass
        return data

    def read_frames(self, connection, until):
        """Frames up to the first that `until` accepts, or to the connection's end."""
        data, frames = b"", []
        while True:
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                size = int.from_bytes(data[:3], "big")
                frames.append((data[3], data[4], struct.unpack(">I", data[5:9])[0], data[9:9 + size]))
                data = data[9 + size:]
                if until(frames[-1]):
                    return frames
            try:
                part = connection.recv(1 << 16)
            except ConnectionResetError:
                return frames
            if not part:
                return frames
            data += part

    def assert_serving(self):
        """A well-formed call over a connection of its own is answered."""
        self.assertIsNone(self.server.poll(), "the server ended")
        connection = self.connect()
        connection.sendall(HELLO + CALL)
        frames = self.read_frames(connection, lambda f: f[0] == HEADERS and f[1] & END_STREAM)
        self.assertTrue(any(kind == DATA and len(payload) > 5 for kind, _, _, payload in frames), frames)

    def assert_closed(self, data, hello=HELLO):
        connection = self.connect()
        self.send(connection, hello + data)
        self.read_until_closed(connection)
        self.assert_serving()

    def assert_answered(self, data):
        """Stream 1 gets a status or a reset, or the connection ends."""
        connection = self.connect()
        self.send(connection, HELLO + data)
        self.read_frames(connection, lambda f: f[0] == GOAWAY or (
            f[2] == 1 and (f[0] == RST_STREAM or (f[0] == HEADERS and f[1] & END_STREAM))))
        self.assert_serving()

    def assert_survived(self, data, hello=HELLO):
        """Nothing is expected but that everybody else is served."""
        connection = self.connect()
        self.send(connection, hello + data)
        self.assert_serving()
        connection.close()
        self.assert_serving()

    def test_no_preface(self):
        for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes(64), b"\xff" * 4096, PREFACE[:-1] + b"\r" * 64,
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(256)):
            with self.subTest(data[:16]):
                self.assert_closed(data, hello=b"")

    def test_a_preface_and_junk(self):
        generator = random.Random(7)
        for size in (1, 8, 9, 10, 100, 10000, 1000000):
            with self.subTest(size):
                self.assert_survived(generator.randbytes(size), hello=PREFACE)
                self.assert_survived(generator.randbytes(size))
        self.assert_survived(b"", hello=PREFACE[:10])
        self.assert_survived(b"", hello=b"")

    def test_random_frames(self):
        generator = random.Random(8)
        for _ in range(30):
            frames = b"".join(
                frame(generator.randrange(12), generator.randrange(256), generator.randrange(6),
                      generator.randbytes(generator.choice((0, 1, 4, 5, 6, 8, 9, 100)))) for _ in range(50))
            self.assert_survived(frames)

    def test_frames_that_break_the_connection(self):
        cases = {
            "longer than the maximum": frame(DATA, 0, 1, bytes(100), length=0xffffff),
            "settings of odd length": frame(SETTINGS, payload=bytes(5)),
            "settings on a stream": frame(SETTINGS, stream=1),
            "settings out of range": frame(SETTINGS, payload=struct.pack(">HI", 5, 1)),
            "ping of another length": frame(PING, payload=bytes(7)),
            "continuation of nothing": frame(CONTINUATION, END_HEADERS, 1, b""),
            "data between headers": frame(HEADERS, 0, 1, request_headers()) + frame(DATA, 0, 1, b"x"),
            "another stream's continuation": frame(HEADERS, 0, 1, request_headers()) + frame(
                CONTINUATION, END_HEADERS, 3, b""),
            "window of the connection overflows": frame(WINDOW_UPDATE, payload=b"\x7f\xff\xff\xff") * 2,
        }
        for name, data in cases.items():
            with self.subTest(name):
                self.assert_survived(data)

    def test_bad_header_compression(self):
        for name, block in {
                "index of nothing": b"\xff\xff\xff\x0f", "index 0": b"\x80",
                "an integer without end": b"\xff" + b"\x80" * 100,
                "a string longer than the block": b"\0\x7f\xff\xff\xff\x07a",
                "a table of 4 GiB": hpack_integer((1 << 32) - 1, 5, 0x20),
                "bad Huffman code": b"\0\x84\xff\xff\xff\xff\x01a"}.items():
            with self.subTest(name):
                self.assert_survived(header_frames(block))

    def test_oversized_header_blocks(self):
        for size in (9000, 20000, 100000, 1000000):
            with self.subTest(size):
                self.assert_answered(header_frames(request_headers(extra=field(b"x-large", b"a" * size))))
        with self.subTest("many fields"):
            self.assert_answered(header_frames(request_headers(extra=field(b"x", b"y") * 50000)))
        with self.subTest("a path"):
            self.assert_answered(header_frames(request_headers(path=b"/" + b"a" * 100000)))
        # Limits that a client was told, but has not acknowledged, do not bind it.
        with self.subTest("settings never acknowledged"):
            block = request_headers(extra=field(b"x-large", b"a" * 4000000))
            self.assert_survived(header_frames(block), hello=PREFACE + frame(SETTINGS))
        with self.subTest("a block without end"):
            self.assert_survived(frame(HEADERS, 0, 1, request_headers()) + frame(CONTINUATION, 0, 1) * 20000)

    def test_headers_that_stopped_other_versions(self):
        large = field(b"x-large", b"a" * 9000)
        for name, headers in {
                "te": request_headers(te=b"x" * 100, extra=large),
                "scheme": request_headers(__scheme=b"gopher", extra=large),
                "client stats": request_headers(extra=field(b"grpclb_client_stats", b"x") + large),
                "bad base64": request_headers(extra=field(b"x-bin", b"\x01!!!")),
                "zero byte": request_headers(extra=field(b"x\0y", b"a\0b")),
                "upper case": request_headers(extra=field(b"X-Upper", b"a")),
                "empty name": request_headers(extra=field(b"", b"a")),
                "two paths": request_headers(extra=field(b":path", b"/other")),
                "no path": request_headers(__path=None),
                "no method": request_headers(__method=None),
                "get": request_headers(__method=b"GET"),
                "content type": request_headers(content_type=b"text/html"),
                "timeout": request_headers(grpc_timeout=b"99999999999999999999H"),
                "timeout without unit": request_headers(grpc_timeout=b"5"),
                "encoding": request_headers(grpc_encoding=b"none-such"),
                "request id": request_headers(extra=field(b"x-request-id", b"a" * 4000))}.items():
            with self.subTest(name):
                self.assert_survived(header_frames(headers, flags=0) + frame(DATA, END_STREAM, 1, EMPTY_MESSAGE))

    def test_messages_that_lie(self):
        start = header_frames(request_headers(path=b"/moesaic.v1.Inference/Generate"), flags=0)
        for name, data in {
                "4 GiB": b"\0\xff\xff\xff\xff" + b"a" * 100, "compressed": b"\1\0\0\0\x04abcd",
                "flag": b"\x7f\0\0\0\0", "cut short": b"\0\0\0\0\x10ab", "no message": b"",
                "no protobuf": b"\0\0\0\0\x04\xff\xff\xff\xff"}.items():
            with self.subTest(name):
                self.assert_answered(start + frame(DATA, END_STREAM, 1, data))

    def test_streams_opened_and_reset(self):
        block = request_headers()
        self.assert_survived(b"".join(
            header_frames(block, stream) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            for stream in range(1, 4001, 2)))
        self.assert_survived(frame(PING, payload=bytes(8)) * 5000)
        self.assert_survived(frame(SETTINGS) * 5000)

    def test_silent_connections(self):
        silent = [self.connect() for _ in range(200)]
        for i, connection in enumerate(silent):
            connection.sendall(HELLO[:i % len(HELLO)])
        self.assert_serving()


def main():
    global ARGUMENTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-binary", required=True)
    parser.add_argument("--model", required=True)
    ARGUMENTS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=1)


if __name__ == "__main__":
    main()
