"""Fuzz `fallline.load` with atheris, which looks for new ways through the code: python -m reliability.fuzz --minutes 5

Needs `pip install atheris` (CPython 3.11 to 3.13 on Linux) in the environment. Each input is tried as it is, and with a
length of header and a digest that fit, as nothing would get past the digest otherwise. What must not happen (a crash,
an exception other than CheckpointError, an altered file that is loaded, a hang of 10 s, 1 GB of memory) ends the run
with the input.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fallline"]):
    import fallline._optimizer.load
    import fallline._state.checkpoint  # noqa: F401  (which reads the file, and is imported late)

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "tools"))
from fuzz_checkpoints import digest_of, outcome, seeds


def fitted(content: bytes) -> bytes:
    """The content with a length of header and a digest that fit it."""
    body = content[:-32]
    end = max(8, body.rfind(b"}") + 1)
    body = (end - 8).to_bytes(8, "little") + body[8:]
    return body + digest_of(body)


def fuzz(folder: Path, minutes: float, seed: int) -> None:
    """Ends the process, as libFuzzer does."""
    known, path, corpus = seeds(folder), folder / "input", folder / "corpus"
    corpus.mkdir()
    for k, content in enumerate(known):
        (corpus / str(k)).write_bytes(content)

    def one(content: bytes) -> None:
        path.write_bytes(content)
        if not outcome(path).startswith("refused") and content not in known:
            raise AssertionError("an altered file was loaded")
        path.write_bytes(fitted(content))
        outcome(path)

    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={round(60 * minutes)}", f"-seed={seed}", "-timeout=10",
                   "-rss_limit_mb=1024", "-print_final_stats=1"], one)  # fmt: skip
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        child = os.fork()
        if not child:
            fuzz(Path(folder), arguments.minutes, arguments.seed)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(status)


if __name__ == "__main__":
    main()
