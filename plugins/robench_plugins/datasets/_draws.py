"""Random numbers for data: the same bits for any machine, library version, number and order of samples.

SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators") in unsigned integers; normals by
additions, multiplications, divisions and square roots alone, each of which IEEE 754 rounds in one way only. A sample's
draws depend on (seed, what they are for, the sample's index) and on nothing else, so smaller sets are nested in larger
ones.
"""

from __future__ import annotations

import hashlib
from math import factorial, pi
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["fractions", "lowest", "normals", "ranks", "signs", "subseed", "total", "words"]

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

_LN2: Final = 0.6931471805599453
_GAMMA: Final = 0x9E3779B97F4A7C15  # the odd number next to 2**64 divided by the golden ratio


def ranks(index: npt.NDArray[np.int64], seed: int) -> Words:
    """Output number `index` of the SplitMix64 generator of a scrambled seed: no ties."""
    start = int(_mix(np.array([(seed + 1) * _GAMMA % 2**64], np.uint64))[0])
    steps = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    return _mix(steps + np.uint64(start))


def lowest(index: npt.NDArray[np.int64], seed: int, count: int) -> npt.NDArray[np.int64]:
    """Return the positions of the `count` lowest ranks, ascending: a larger count adds to a smaller one's."""
    return np.sort(np.argsort(ranks(index, seed), kind="stable")[:count])


def subseed(seed: int, *what: int | str) -> int:
    """Return the seed of a part of what `seed` stands for, 0 … 2**63 − 1."""
    text = "\0".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def words(index: npt.NDArray[np.int64], seed: int, count: int) -> Words:
    """Draw 64-bit words [N, count], a generator of its own for each sample."""
    steps = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    return _mix(ranks(index, seed)[:, None] + steps)


def signs(index: npt.NDArray[np.int64], seed: int, count: int) -> Floats:
    """Draw −1 and +1 [N, count], each with probability 1/2."""
    return (words(index, seed, count) >> np.uint64(63)).astype(np.float64) * 2 - 1


def fractions(index: npt.NDArray[np.int64], seed: int, count: int) -> Floats:
    """Draw multiples of 2**-53 in [0, 1), [N, count]."""
    return (words(index, seed, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(index: npt.NDArray[np.int64], seed: int, count: int) -> Floats:
    """Draw standard normals [N, count] (Box & Muller 1958)."""
    pairs = fractions(index, seed, count + count % 2).reshape(len(index), -1, 2)
    radius = np.sqrt(-2 * _logarithm(1 - pairs[..., 0]))  # 1 − u lies in (0, 1]
    cosine, sine = _turn(pairs[..., 1])
    return np.stack([radius * cosine, radius * sine], 2).reshape(len(index), -1)[:, :count]


def total(values: Floats) -> Floats:
    """Sum over the last axis in its order, whatever the library would do."""
    out = np.zeros(values.shape[:-1])
    for column in np.moveaxis(values, -1, 0):
        out = out + column
    return out


def _mix(z: Words) -> Words:
    """SplitMix64's finaliser: a bijection of 64-bit words whose every output bit depends on every input bit."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _logarithm(v: Floats) -> Floats:
    """Natural logarithm of v > 0: 2 artanh t for t = (m − 1) / (m + 1), where v = m 2**k and |t| < .18."""
    mantissa, exponent = np.frexp(v)
    low = mantissa < 0.7071067811865476
    mantissa = np.where(low, mantissa * 2, mantissa)
    exponent = exponent - low
    t = (mantissa - 1) / (mantissa + 1)
    out: Floats = exponent * _LN2 + 2 * t * _horner(t * t, [1 / (2 * k + 1) for k in range(12)])
    return out


def _turn(u: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine of 2πu, by Taylor's series within an eighth of a turn around the nearest quarter."""
    quarter = np.floor(4 * u + 0.5)
    t = (u - quarter / 4) * (2 * pi)
    cosine = _horner(t * t, [(-1) ** k / factorial(2 * k) for k in range(10)])
    sine = t * _horner(t * t, [(-1) ** k / factorial(2 * k + 1) for k in range(10)])
    turns = quarter.astype(np.int64) % 4
    return (
        np.choose(turns, [cosine, -sine, -cosine, sine]),
        np.choose(turns, [sine, cosine, -sine, -cosine]),
    )


def _horner(x: Floats, coefficients: list[float]) -> Floats:
    out = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        out = out * x + coefficient
    return out
