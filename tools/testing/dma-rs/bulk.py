#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Sends or receives megabytes by TCP or UDP, or pings with each length, and looks at each byte.

Runs in a guest. Who receives says "listening" when it does."""

import argparse
import itertools
import random
import socket
import sys

MIB = 1 << 20
BLOCK = random.Random(1).randbytes(2 * MIB)

# Lengths of datagrams, by turns: a frame for each of the first, and many for the last.
LENGTHS = (8, 100, 1472, 1473, 65507)
# So many are sent before an answer is waited for: no end has to drop one.
WINDOW = 16
PATIENCE = 30


def block(number):
    """A MiB that is sent by TCP."""
    return memoryview(BLOCK)[number % MIB:number % MIB + MIB]


def datagrams(mib):
    """Datagrams of that many MiB in all, or a few more bytes."""
    total = 0
    for number, length in enumerate(itertools.cycle(LENGTHS)):
        if total >= mib * MIB:
            return
        yield number.to_bytes(8, "big") + BLOCK[number % MIB:number % MIB + length - 8]
        total += length


def send_tcp(address, port, mib):
    """Sends by TCP."""
    with socket.create_connection((address, port), timeout=PATIENCE) as stream:
        for number in range(mib):
            stream.sendall(block(number))


def receive_tcp(address, port, mib):
    """Receives by TCP."""
    family = socket.getaddrinfo(address, port)[0][0]
    with socket.create_server((address, port), family=family) as server:
        print("listening", flush=True)
        server.settimeout(PATIENCE)
        stream, _ = server.accept()
        stream.settimeout(PATIENCE)
        found = bytearray(MIB)
        with stream:
            for number in range(mib):
                rest = memoryview(found)
                while rest:
                    length = stream.recv_into(rest)
                    if not length:
                        sys.exit(f"the stream ends {len(rest)} bytes before the end of MiB {number}")
                    rest = rest[length:]
                if memoryview(found) != block(number):
                    sys.exit(f"MiB {number} is another")
            if stream.recv(1):
                sys.exit("the stream does not end")


def udp(address):
    """A socket for datagrams, in whose buffer a window of them has room."""
    endpoint = socket.socket(socket.getaddrinfo(address, 0)[0][0], socket.SOCK_DGRAM)
    endpoint.settimeout(PATIENCE)
    endpoint.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 8 * MIB)
    return endpoint


def send_udp(address, port, mib):
    """Sends by UDP."""
    with udp(address) as endpoint:
        endpoint.connect((address, port))
        for number, datagram in enumerate(datagrams(mib), 1):
            endpoint.send(datagram)
            if number % WINDOW == 0 and int.from_bytes(endpoint.recv(8), "big") != number:
                sys.exit(f"another answer to datagram {number}")
        if number % WINDOW:
            endpoint.recv(8)


def receive_udp(address, port, mib):
    """Receives by UDP."""
    with udp(address) as endpoint:
        endpoint.bind((address, port))
        print("listening", flush=True)
        for number, expected in enumerate(datagrams(mib), 1):
            found, sender = endpoint.recvfrom(1 << 16)
            if found != expected:
                sys.exit(f"datagram {number} is another")
            if number % WINDOW == 0:
                endpoint.sendto(number.to_bytes(8, "big"), sender)
        if number % WINDOW:
            endpoint.sendto(number.to_bytes(8, "big"), sender)


def ping(address, first, last):
    """Pings with each length of data."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as endpoint:
        endpoint.settimeout(PATIENCE)
        endpoint.connect((address, 0))
        for length in range(first, last + 1):
            sent = b"\0\0" + (length & 0xffff).to_bytes(2, "big") + BLOCK[length:2 * length]
            # An echo request, of which the kernel knows the checksum and who asks.
            endpoint.send(b"\x08\0\0\0" + sent)
            found = endpoint.recv(1 << 16)
            if found[:1] != b"\0" or found[6:] != sent[2:]:
                sys.exit(f"the answer to {length} bytes is another")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("send", "receive", "ping"))
    parser.add_argument("address", help="where to, or at which of ours")
    parser.add_argument("how", help="tcp or udp; for ping the first length")
    parser.add_argument("much", type=int, help="MiB; for ping the last length")
    options = parser.parse_args()
    if options.what == "ping":
        ping(options.address, int(options.how), options.much)
    else:
        {"send tcp": send_tcp, "send udp": send_udp, "receive tcp": receive_tcp, "receive udp": receive_udp}[
            f"{options.what} {options.how}"](options.address, 5000, options.much)


if __name__ == "__main__":
    main()
