"""Network devices whose packets a process reads and writes."""

from __future__ import annotations

import fcntl
import os
import struct

DEVICE = "/dev/net/tun"
MTU = 1500

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_OFFLOAD_CHECKSUM, _OFFLOAD_TCP4 = 0x01, 0x02

_VNET = struct.Struct(
    "=BBHHHH"
)  # flags, segmentation, header length, segment size, checksum start and offset
MAX_PACKET = _VNET.size + 65_535


def open_tun(name: str) -> int:
    """Make a device in this thread's network namespace; it exists until the descriptor is closed.

    TCP hands over up to 64 kB at a time and leaves cutting it into packets of the MTU to the device, as it
    does with real network cards. That keeps the cost per packet low, while windows and slow start still count
    in packets of 1500 bytes.

    Raises:
        OSError: the kernel does not allow it.
    """
    fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _OFFLOAD_CHECKSUM | _OFFLOAD_TCP4)
    except OSError:
        os.close(fd)
        raise
    return fd


def wire_size(packet: bytes) -> int:
    """Bytes of IP that what was read from a device occupies on a link, cut into packets of the MTU."""
    _, segmentation, _, segment, tcp, _ = _VNET.unpack_from(packet)
    size = len(packet) - _VNET.size
    if not segmentation:
        return size
    headers = tcp + (packet[_VNET.size + tcp + 12] >> 4) * 4
    more_packets = -(-(size - headers) // segment) - 1
    return int(size + more_packets * headers)
