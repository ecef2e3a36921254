"""Compiled inner loops of the emulator (numba, cached on disk): number formats, concentration, patches.

Flat arrays with offsets and pitches, so that the innermost stride is known and the loops vectorise.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from focusc.isa.emulator.exponential import exp_rows, exps_in_place, exps_rows, gated_rows, sigmoid_rows

__all__ = ["candidates", "exp_rows", "exps_in_place", "exps_rows", "from_bf16", "from_f16", "gated_rows", "gather",
           "hide", "larger", "patches",
           "round_rows", "row_max", "row_sum", "sic_merge", "sigmoid_rows", "to_f16_bits", "touch"]

_U = np.uint32


# numba widens every unsigned operation to 64 bits; each step is cast back so that eight lanes fit a vector register.


@nb.njit(cache=True, nogil=True)
def _round_f16(x: Any) -> Any:
    """float32 `x` rounded to the nearest float16 (ties to even, subnormals, overflow to infinity), as float32."""
    bits = np.float32(x).view(np.uint32)
    sign = _U(bits & _U(0x80000000))
    size = _U(bits & _U(0x7FFFFFFF))
    # Below 2^-14 the spacing is 2^-24, which is the spacing of float32 in [0.5, 1): adding 0.5 rounds there.
    small = np.float32(np.float32(size.view(np.float32) + np.float32(0.5)) - np.float32(0.5)).view(np.uint32)
    odd = _U(_U(size >> _U(13)) & _U(1))
    normal = _U(_U(size + _U(_U(0xFFF) + odd)) & _U(0xFFFFE000))
    normal = normal if normal < _U(0x47800000) else _U(0x7F800000)
    out = normal if size >= _U(0x38800000) else small
    out = out if size <= _U(0x7F800000) else _U(0x7FC00000)
    return _U(out | sign).view(np.float32)


@nb.njit(cache=True, nogil=True)
def _round_bf16(x: Any) -> Any:
    bits = np.float32(x).view(np.uint32)
    odd = _U(_U(bits >> _U(16)) & _U(1))
    out = _U(_U(bits + _U(_U(0x7FFF) + odd)) & _U(0xFFFF0000))
    out = out if _U(bits & _U(0x7FFFFFFF)) <= _U(0x7F800000) else _U(0x7FC00000)
    return _U(out).view(np.float32)


@nb.njit(cache=True, nogil=True)
def round_rows(src: Any, so: int, sp: int, dst: Any, do: int, dp: int, rows: int, cols: int, kind: int) -> None:
    """dst rows = src rows (offsets and pitches in elements), rounded to f16 (kind 0), bf16 (1), i8 (2), or copied."""
    for i in range(rows):
        a = src[so + i * sp:so + i * sp + cols]
        d = dst[do + i * dp:do + i * dp + cols]
        if kind == 0:
            for j in range(cols):
                d[j] = _round_f16(a[j])
        elif kind == 1:
            for j in range(cols):
                d[j] = _round_bf16(a[j])
        elif kind == 2:
            for j in range(cols):
                d[j] = min(max(np.rint(a[j]), np.float32(-128)), np.float32(127))
        else:
            for j in range(cols):
                d[j] = a[j]


@nb.njit(cache=True, nogil=True)
def from_f16(bits: Any, out: Any) -> None:
    """float32 `out` = the float16 numbers whose bits are uint16 `bits`; exact."""
    for i in range(len(bits)):
        h = _U(bits[i])
        sign = _U(_U(h & _U(0x8000)) << _U(16))
        size = _U(h & _U(0x7FFF))
        wide = _U(size << _U(13))
        normal = _U(wide + _U(0x38000000)) if size < _U(0x7C00) else _U(wide | _U(0x7F800000))
        tiny = np.float32(np.float32(np.int32(size)) * np.float32(2.0 ** -24)).view(np.uint32)
        out[i] = _U((normal if size >= _U(0x400) else tiny) | sign).view(np.float32)


@nb.njit(cache=True, nogil=True)
def to_f16_bits(values: Any, out: Any) -> None:
    """uint16 `out` = bits of float32 `values`, which must be float16 numbers already."""
    for i in range(len(values)):
        bits = np.float32(values[i]).view(np.uint32)
        sign = _U(_U(bits >> _U(16)) & _U(0x8000))
        size = _U(bits & _U(0x7FFFFFFF))
        normal = _U(_U(size - _U(0x38000000)) >> _U(13))
        if size >= _U(0x7F800000):
            # What looks like a NaN may be bytes of another type in the same granule: its payload is kept.
            payload = _U(_U(size >> _U(13)) & _U(0x3FF))
            payload = payload if payload > _U(0) or size == _U(0x7F800000) else _U(0x200)
            normal = _U(_U(0x7C00) | payload)
        elif size < _U(0x38800000):
            normal = _U(np.int32(size.view(np.float32) * np.float32(2.0 ** 24)))
        out[i] = np.uint16(normal | sign)


@nb.njit(cache=True, nogil=True)
def from_bf16(bits: Any, out: Any) -> None:
    """float32 `out` = the bfloat16 numbers whose bits are uint16 `bits`."""
    for i in range(len(bits)):
        out[i] = _U(_U(bits[i]) << _U(16)).view(np.float32)


@nb.njit(cache=True, nogil=True)
def touch(raw: Any, shadow: Any, fresh: Any, first: int, last: int, page: int) -> None:
    """Convert the not yet fresh pages first..last (of `page` float16 elements) of `raw` bits into `shadow`."""
    for p in range(first, last + 1):
        if fresh[p] == 0:
            low, high = p * page, min((p + 1) * page, len(raw))
            from_f16(raw[low:high], shadow[low:high])
            fresh[p] = 1


@nb.njit(cache=True, nogil=True)
def hide(tile: Any, offset: int, pitch: int, rows: int, cols: int, first: int, window: int, value: Any) -> None:
    """Row i of a flat tile = `value` from column first + i on, and up to `window` before it if that is not 0."""
    for i in range(rows):
        start = offset + i * pitch
        for j in range(max(first + i, 0), cols):
            tile[start + j] = value
        if window > 0:
            for j in range(min(first + i - window, cols)):
                tile[start + j] = value


@nb.njit(cache=True, nogil=True)
def row_max(src: Any, so: int, sp: int, rows: int, cols: int, out: Any) -> None:
    """out[i] = the greatest of row i of a flat tile; NaN if there is one.

    As integers in the order of the numbers, since a maximum of floats does not vectorise: NaN comes last, +0 after -0.
    """
    bits, found = src.view(np.int32), out.view(np.int32)
    for i in range(rows):
        row = bits[so + i * sp:so + i * sp + cols]
        best = np.int32(-0x80000000)
        for j in range(cols):
            size = np.int32(row[j] & np.int32(0x7FFFFFFF))
            key = np.int32(row[j] ^ np.int32(np.int32(row[j] >> np.int32(31)) & np.int32(0x7FFFFFFF)))
            key = key if size <= np.int32(0x7F800000) else np.int32(0x7FC00000)
            best = max(best, key)
        found[i] = np.int32(best ^ np.int32(np.int32(best >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@nb.njit(cache=True, nogil=True)
def larger(found: Any, dst: Any, do: int, dp: int, rows: int) -> None:
    """Each of `rows` elements of dst, `dp` apart, becomes the greater of itself and found[i]; NaN if one is."""
    for i in range(rows):
        old = dst[do + i * dp]
        dst[do + i * dp] = old if old >= found[i] or old != old else found[i]


@nb.njit(cache=True, nogil=True)
def row_sum(src: Any, so: int, sp: int, rows: int, cols: int, out: Any) -> None:
    """out[i] = the sum of row i of a flat tile of at most 128 columns: in eight lanes, then pairwise, as numpy does."""
    whole = cols // 8 * 8
    for i in range(rows):
        row = src[so + i * sp:so + i * sp + cols]
        total = np.float32(0)
        if whole:
            a, b, c, d, e, f, g, h = row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]
            for j in range(8, whole, 8):
                a, b, c, d = a + row[j], b + row[j + 1], c + row[j + 2], d + row[j + 3]
                e, f, g, h = e + row[j + 4], f + row[j + 5], g + row[j + 6], h + row[j + 7]
            total = ((a + b) + (c + d)) + ((e + f) + (g + h))
        for j in range(whole, cols):
            total += row[j]
        out[i] = total


@nb.njit(cache=True, nogil=True)
def gather(maps: Any, vectors: Any, mo: int, vo: int, pitch: int, unique: Any, rows: int, out: Any) -> int:
    """Rebuild float32 [rows, slots*32] of a concentrated tile; returns -1, or the slot whose map exceeds its count.

    `maps` uint16 and `vectors` float32, flat; slot s starts at mo + s*pitch and vo + s*pitch (elements).
    """
    for s in range(len(unique)):
        for i in range(rows):
            u = maps[mo + s * pitch + i]
            if u >= unique[s]:
                return s
            start = vo + s * pitch + np.int64(u) * 32
            for j in range(32):
                out[i, s * 32 + j] = vectors[start + j]
    return -1


@nb.njit(cache=True, nogil=True)
def _dot(a: Any, i: int, j: int, t: Any) -> Any:
    """Inner product of rows i and j of a [n, 32], summed by halves: the defining order. `t` is scratch [16]."""
    for k in range(16):
        t[k] = a[i, k] * a[j, k] + a[i, k + 16] * a[j, k + 16]
    for k in range(8):
        t[k] += t[k + 8]
    for k in range(4):
        t[k] += t[k + 4]
    return (t[0] + t[2]) + (t[1] + t[3])


@nb.njit(cache=True, nogil=True)
def candidates(positions: Any, first: int, layout: Any, block: Any, grid_edges: bool, rows: int) -> Any:
    """int32 [rows, n]: the tile row of each candidate, -1 where there is none.

    `positions` int32: raster index of the visual rows of the tile, which are its rows first .. first+len(positions).
    `layout` F, H, W, S_f, S_h, S_w. Linear index arithmetic; with `grid_edges` candidates off the grid are dropped.
    """
    bf, bh, bw = min(block[0], layout[0]), min(block[1], layout[1]), min(block[2], layout[2])
    out = np.full((rows, max(bf * bh * bw - 1, 0)), -1, np.int32)
    n = len(positions)
    if n == 0:
        return out
    low = np.int64(positions[0])
    span = np.int64(positions[n - 1]) - low + 1
    row_of = np.full(span, -1, np.int32)
    for i in range(n):
        row_of[np.int64(positions[i]) - low] = first + i
    for i in range(n):
        p = np.int64(positions[i])
        f, rest = p // layout[3], p % layout[3]
        h, w = rest // layout[4], rest % layout[4] // layout[5]
        c = -1
        for df in range(bf):
            for dh in range(bh):
                for dw in range(bw):
                    if df == 0 and dh == 0 and dw == 0:
                        continue
                    c += 1
                    if grid_edges and (df > f or dh > h or dw > w):
                        continue
                    q = p - (df * layout[3] + dh * layout[4] + dw * layout[5]) - low
                    if 0 <= q < span:
                        out[first + i, c] = row_of[q]
    return out


@nb.njit(cache=True, nogil=True)
def sic_merge(src: Any, so: int, sp: int, rows: int, cols: int, cand: Any, threshold: Any, rounds: int, links: Any,
              maps: Any, unique: Any, roots: Any, vectors: Any, vo: int, vp: int, recon: Any) -> None:
    """Links, groups and means of every slot (concentration.md section 3), one after the other: threads cost more.


    src flat float32; cand from `candidates`; rounds 0: to the root, else at most that many rounds of pointer doubling.
    Written: links int32 [slots, rows]; maps uint16 [slots, rows]; unique (groups), roots int32 [slots]; the vectors of
    slot s at vectors[vo + s*vp], flat; recon float32 [rows, slots*32]. Means are rounded to float16.
    """
    slots = (cols + 31) // 32
    for s in range(slots):
        x = np.zeros((rows, 32), np.float32)
        scratch = np.empty(16, np.float32)
        width = min(32, cols - s * 32)
        norms = np.empty(rows, np.float32)
        for i in range(rows):
            start = so + i * sp + s * 32
            for j in range(width):
                x[i, j] = src[start + j]
            norms[i] = np.sqrt(_dot(x, i, i, scratch))
        count = 0
        for i in range(rows):
            best, best_value = i, np.float32(-np.inf)
            for c in range(cand.shape[1]):
                j = cand[i, c]
                if j >= 0:
                    value = np.float32(0)
                    if norms[i] != 0 and norms[j] != 0:
                        value = _dot(x, i, j, scratch) / (norms[i] * norms[j])
                    if value > best_value:
                        best, best_value = j, value
            if not best_value > threshold:
                best = i
            links[s, i] = best
            if best == i:
                count += 1
        roots[s] = count
        label = np.empty(rows, np.int32)
        if rounds == 0:
            for i in range(rows):
                j = links[s, i]
                label[i] = i if j == i else label[j]
        else:
            hop = np.empty(rows, np.int32)
            for i in range(rows):
                label[i] = links[s, i]
            for _ in range(rounds):
                hop[:] = label
                moved = False
                for i in range(rows):
                    label[i] = hop[hop[i]]
                    if label[i] != hop[i]:
                        moved = True
                if not moved:
                    break
        number = np.full(rows, -1, np.int32)
        members = np.zeros(rows, np.int32)
        for i in range(rows):
            members[label[i]] += 1
        groups = 0
        for i in range(rows):
            if members[i] > 0:
                number[i] = groups
                groups += 1
        unique[s] = groups
        packed = vectors[vo + s * vp:vo + s * vp + groups * 32].reshape((groups, 32))
        packed[:] = 0
        for i in range(rows):
            g = number[label[i]]
            maps[s, i] = g
            for j in range(32):
                packed[g, j] += x[i, j]
        for i in range(rows):
            if members[i] > 0:
                size = np.float32(members[i])
                for j in range(32):
                    packed[number[i], j] = _round_f16(packed[number[i], j] / size)
        for i in range(rows):
            g = maps[s, i]
            for j in range(32):
                recon[i, s * 32 + j] = packed[g, j]


@nb.njit(cache=True, nogil=True)
def patches(src: Any, so: int, row0: int, rows: int, size: Any, kernel: Any, stride: Any, pad: Any, extent: Any,
            out: Any) -> None:
    """im2col rows (see `ld.patch`): src flat float32, size C,D,H,W, out [rows, C*KD*KH*KW]."""
    c, d, h, w = size
    per = extent[0] * extent[1] * extent[2]
    for i in range(rows):
        p = row0 + i
        n, p = p // per, p % per
        z0 = p // (extent[1] * extent[2]) * stride[0] - pad[0]
        p = p % (extent[1] * extent[2])
        y0 = p // extent[2] * stride[1] - pad[1]
        x0 = p % extent[2] * stride[2] - pad[2]
        column = 0
        for channel in range(c):
            for kz in range(kernel[0]):
                z = z0 + kz
                for ky in range(kernel[1]):
                    y = y0 + ky
                    inside = 0 <= z < d and 0 <= y < h
                    base = so + (((n * c + channel) * d + z) * h + y) * w
                    for kx in range(kernel[2]):
                        x = x0 + kx
                        out[i, column] = src[base + x] if inside and 0 <= x < w else np.float32(0)
                        column += 1
