"""Pairs as methods see them: at a size, in colour or grey, each with the hash of its pixels."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F

from fusionrepro.data.pairs import Pair
from fusionrepro.errors import InputError
from fusionrepro.gallery.identity import digest, pair_hash

__all__ = ["View", "shrink"]


def shrink(pair: Pair, long_side: int) -> Pair:
    """The pair with its longer side at most `long_side` pixels (0: as it is), antialiased; labels are left behind."""
    h, w = pair.ir.shape[-2:]
    if not long_side or max(h, w) <= long_side:
        return pair
    size = [max(1, round(s * long_side / max(h, w))) for s in (h, w)]
    resize = lambda x: None if x is None else F.interpolate(x[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return Pair(pair.id, resize(pair.ir), resize(pair.vi), resize(pair.cbcr), resize(pair.ir_cbcr), meta=dict(pair.meta))


_KEPT = 256 << 20  # bytes of pairs that a view keeps: making a scene or reading a file costs more than fusing a small pair


class View(Sequence):
    """A data set of pairs under one way of seeing them. The first pairs that were read stay in memory, up to 256 MiB."""

    def __init__(
        self,
        data: Sequence[Pair],  # a data set, or a list of pairs
        name: str = "",  # of the set; empty: the data set's
        side: int = 0,  # longer side in pixels; 0: their own size
        grey: bool = False,  # without the colours
        whole: int = 0,  # pairs that the set has; 0: as many as there are
    ):
        if side < 0:
            raise InputError(f"side must be 0 (the pairs' own size) or more pixels, not {side}.")
        self.data, self.side, self.grey = data, side, grey
        self.name = name or getattr(data, "name", "pairs")
        self.ids: tuple[str, ...] = tuple(getattr(data, "ids", None) or (p.id for p in data))
        if len(set(self.ids)) != len(self.ids):
            raise InputError(f"{self.name}: two pairs have the same id; ids must be unique.")
        self.whole = whole or len(self.ids)
        self._at = {name: i for i, name in enumerate(self.ids)}
        self._hashes: dict[str, str] = {}
        self._pairs: dict[str, Pair] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, which: int | str | slice) -> Any:
        if isinstance(which, slice):
            return self.part(self.ids[which])
        if isinstance(which, str) and which not in self._at:
            raise InputError(f"{self.name} has no pair '{which}'; it has {', '.join(self.ids[:3])}, …")
        name = which if isinstance(which, str) else self.ids[which]
        if name not in self._pairs:
            return self._read(name)
        return self._pairs[name]

    def _read(self, name: str) -> Pair:
        pair = self.data[self._at[name]]
        if self.grey:
            pair = Pair(pair.id, pair.ir, pair.vi, meta=dict(pair.meta))
        pair = shrink(pair, self.side)
        self._hashes.setdefault(name, pair_hash(pair))
        size = sum(x.nbytes for x in (pair.ir, pair.vi, pair.cbcr, pair.ir_cbcr) if x is not None)
        if self._bytes + size <= _KEPT:
            self._pairs[name], self._bytes = pair, self._bytes + size
        return pair

    def __repr__(self) -> str:
        return f"View({self.name}, {len(self)} of {self.whole} pairs, {self.size_text})"

    def hash(self, name: str) -> str:
        """Of the pixels of one pair."""
        if name not in self._hashes:
            self[name]
        return self._hashes[name]

    @property
    def fingerprint(self) -> str:
        """12 hex digits of all pairs as they are seen."""
        return digest([self.hash(i) for i in self.ids])[:12]

    @property
    def size_text(self) -> str:
        """What became of the pairs' size, in words."""
        return f"longer side {self.side}" if self.side else "own size"

    def part(self, ids: Sequence[str]) -> "View":
        """Some of the pairs, by id; the set stays as large as it is."""
        found = View(_Chosen(self.data, [self._at[i] for i in ids], ids), self.name, self.side, self.grey, self.whole)
        found._hashes, found._pairs, found._bytes = self._hashes, self._pairs, self._bytes
        return found


class _Chosen(Sequence):
    """Some pairs of a data set, read when asked for."""

    def __init__(self, data: Sequence[Pair], at: Sequence[int], ids: Sequence[str]):
        self.data, self.at, self.ids = data, list(at), tuple(ids)

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, i: int) -> Pair:
        return self.data[self.at[i]]
