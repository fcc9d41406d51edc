"""Reading TensorFlow-1 checkpoints without TensorFlow, and without running anything that a file might contain.

A checkpoint is a pair. `NAME.index` is an SSTable as LevelDB writes it: blocks of entries whose keys share a prefix with the key before, an
index block that says where the blocks are, and a footer that says where the index block is. The value of an entry is a small protocol
buffer with the type, shape, offset and size of one tensor. `NAME.data-00000-of-00001` is the tensors, raw and little-endian.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fusionrepro.compiling import compiled
from fusionrepro.errors import CheckpointError, typed

__all__ = ["read_checkpoint", "oihw", "SUFFIX"]

SUFFIX = ".index"
_DATA = ".data-00000-of-00001"
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # of TensorFlow's numbers, those that checkpoints of networks have


@typed
def read_checkpoint(
    index: str | Path,  # NAME.index
    data: str | Path | None = None,  # its partner; None: beside it
) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, in TensorFlow's layout (kernels are HWIO).

    Raises
    ------
    CheckpointError
        when a file is absent, damaged or of another kind.
    """
    index = Path(index)
    data = Path(data) if data else index.parent / (index.name.removesuffix(SUFFIX) + _DATA)
    for path in (index, data):
        if not path.is_file():
            raise CheckpointError(f"there is no {path}; a TensorFlow checkpoint is a pair, {SUFFIX} and {_DATA}.")
    table, raw = index.read_bytes(), data.read_bytes()
    try:
        return {name.decode(): _tensor(record, raw) for name, record in _entries(table) if name}
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as e:
        raise CheckpointError(f"{index} and {data.name} cannot be read as a TensorFlow checkpoint ({str(e) or type(e).__name__}): get both again.") from e


@typed
def oihw(kernel: Tensor) -> Tensor:
    """A convolution kernel from TensorFlow's order (height, width, in, out) to PyTorch's."""
    return kernel.permute(3, 2, 0, 1).contiguous()


# ---- checksums ---------------------------------------------------------------------------------------------------------


def _crc_table() -> np.ndarray:
    """CRC-32C of every byte (Castagnoli's polynomial, bits reversed)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


@compiled
def _crc(data, table):
    crc = np.uint32(0xFFFFFFFF)
    for byte in data:
        crc = table[(crc ^ byte) & np.uint32(255)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


def _masked_crc(data: bytes) -> int:
    """CRC-32C as LevelDB and TensorFlow store it: rotated, and moved by a constant, so that a checksum of checksums stays one."""
    crc = int(_crc(np.frombuffer(data, np.uint8), _crc_table()))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# ---- the table ---------------------------------------------------------------------------------------------------------


def _varint(b: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, and where the next thing begins."""
    value, shift = 0, 0
    while True:
        byte = b[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that never ends")


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values, in order."""
    footer = table[-_FOOTER:]
    if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("no table footer")
    at = 0
    for _ in range(2):  # of the meta index, which is not needed
        _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    for _, handle in _block(table, offset, size):
        offset, at = _varint(handle, 0)
        yield from _block(table, offset, _varint(handle, at)[0])


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of one block."""
    if offset + size + 5 > len(table):
        raise ValueError("a block beyond the end")
    if table[offset + size]:
        raise ValueError("a compressed block")
    if _masked_crc(table[offset : offset + size + 1]) != int.from_bytes(table[offset + size + 1 : offset + size + 5], "little"):
        raise ValueError("a block whose checksum is wrong")
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = len(block) - 4 - 4 * restarts, 0, b""
    if end < 0:
        raise ValueError("a block that is too short")
    while at < end:
        shared, at = _varint(block, at)
        new, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + new + length > end:
            raise ValueError("an entry beyond its block")
        key = key[:shared] + block[at : at + new]
        yield key, block[at + new : at + new + length]
        at += new + length


# ---- the records -------------------------------------------------------------------------------------------------------


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field beyond its record")
            value, at = message[at : at + length], at + length
        else:
            raise ValueError(f"field type {kind}")
        yield tag >> 3, value


def _tensor(record: bytes, raw: bytes) -> Tensor:
    """One tensor from its record: 1 type, 2 shape, 3 part, 4 offset, 5 size, 6 checksum."""
    found = dict(_fields(record))
    if found.get(3, 0):
        raise ValueError("a checkpoint in several parts")
    dtype = np.dtype(_DTYPES[found.get(1, 0)])
    shape = [dict(_fields(size)).get(1, 0) for number, size in _fields(found.get(2, b"")) if number == 2]
    offset, size = found.get(4, 0), found.get(5, 0)
    if size != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize or offset + size > len(raw):
        raise ValueError(f"{size} bytes for the shape {shape}")
    if 6 in found and _masked_crc(raw[offset : offset + size]) != int.from_bytes(found[6], "little"):
        raise ValueError("a tensor whose checksum is wrong")
    return torch.from_numpy(np.frombuffer(raw, dtype, size // dtype.itemsize, offset).reshape(shape).copy())
