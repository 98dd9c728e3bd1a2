"""Mutate checkpoints for some minutes: python tests/tools/fuzz_checkpoints.py --minutes 3

Each mutant is written twice: as it is, which must be a CheckpointError, and with a digest made to fit, which must be a
CheckpointError or an optimizer that can be stepped or refuses the step by name.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import random
import tempfile
import time
from pathlib import Path

import numpy as np

import fallline as fl
from places import DATA

CHANGING = fl.schedules.cosine(0.1, steps=9, warmup=2)
WORDS = [b'"', b"[", b"]", b"{", b"}", b",", b"null", b"-1", b"0", b"1e999", b"9" * 30, b"true", b'""', b"\\", b"\xff"]


def mutated(content: bytes, others: list[bytes], random: random.Random) -> bytes:
    """Some bytes changed, cut, repeated, or taken from another file."""
    result = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        start = random.randrange(len(result) + 1)
        stop = min(len(result), start + random.choice((0, 1, 1, 4, 30)))
        donor = random.choice(others)
        at = random.randrange(len(donor))
        result[start:stop] = random.choice((
            random.randbytes(stop - start), b"", bytes(result[start:stop]) * 2, random.choice(WORDS),
            donor[at : at + stop - start], bytes([random.randrange(48, 58)])))
    return bytes(result)


def with_digest(mutant: bytes, random: random.Random) -> bytes:
    """The mutant with a length of header and a digest that fit."""
    body = mutant[:-32]
    if random.random() < 0.9 and (end := body.rfind(b"}") + 1) > 8:
        body = (end - 8).to_bytes(8, "little") + body[8:end].ljust(end) + body[end:]
    return body + digest_of(body)


def digest_of(body: bytes) -> bytes:
    """What a file with this header and data ends with, in the format that the header names."""
    if body[8:].startswith(b'{"__metadata__":{"fallline":"1"'):
        return hashlib.sha256(body).digest()
    pieces = [body[k : k + 4 * 2**20] for k in range(0, len(body), 4 * 2**20)]
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).digest()


def outcome(path: Path) -> str:
    """What loading the file and stepping on comes to; raises for what must not happen."""
    try:
        loaded = fl.load(path)
    except fl.CheckpointError as error:
        return f"refused: {str(error.__cause__ or error).removeprefix(str(path))[:30]}"
    opt, params = loaded if isinstance(loaded, tuple) else (loaded, {"a": np.ones(3), "b": [np.ones((2, 2)), 1.0]})
    opt.state_dict()
    try:
        opt.step(params, params)
    except (ValueError, TypeError, fl.FalllineError, OverflowError) as error:
        return f"loaded, step refused: {type(error).__name__}"
    return "loaded and stepped"


def seeds(folder: Path) -> list[bytes]:
    """Small files to begin with."""
    found = [path.read_bytes() for path in sorted(DATA.glob("fresh-*.safetensors"))]
    for opt in (fl.SGD(0.1), fl.Adam(lr={"a": np.full(3, 0.1), "b": 0.2}), fl.chain(fl.l2(), fl.AdaMax()),
                fl.SGD({"a": CHANGING, "b": fl.schedules.join([CHANGING, CHANGING], [3])})):
        w = opt.step(w := {"a": np.ones(3), "b": [np.ones((2, 2)), 1.0]}, w)
        for params in (None, w):
            opt.save(folder / "seed", params)
            found.append((folder / "seed").read_bytes())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = random.Random(arguments.seed)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path, begin = Path(folder) / "mutant", seeds(Path(folder))
        end = time.monotonic() + 60 * arguments.minutes
        while time.monotonic() < end:
            content = source.choice(begin)
            mutant = mutated(content, begin, source)
            for name, altered in (("", mutant), ("digest fits; ", with_digest(mutant, source))):
                path.write_bytes(altered)
                found = outcome(path)
                if not name and altered not in begin and not found.startswith("refused"):
                    raise AssertionError("an altered file was loaded")
                counts[name + found] += 1
    for found, times in counts.most_common(40):
        print(f"{times:8,}  {found}")
    print(f"{counts.total():8,}  files in all")


if __name__ == "__main__":
    main()
