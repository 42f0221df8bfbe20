"""The command of ``scripts/fuzz``."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus_files
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

MEMORY_MIB_MAX = 1024
INPUT_SECONDS_MAX = 10
"""For one input, on a busy machine; honest ones take milliseconds."""
FOUND = corpus_files.ROOT / "build" / "fuzz"
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


def main() -> int:
    """Run what the arguments say; return 0, 1 when an input was found, 2 without atheris."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Feeds readers of untrusted bytes with what atheris makes, guided by coverage. "
        "Only the documented errors may come out, in bounded time and memory.",
    )
    parser.add_argument("target", nargs="?", help="which reader; `all` for each in turn")
    parser.add_argument("--list", action="store_true", help="name the targets, with their corpus")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default 1)")
    parser.add_argument(
        "--keep", action="store_true", help="add to the corpus what takes new steps of the code"
    )
    asked = parser.parse_args()
    if asked.list:
        for target in TARGETS.values():
            kept = corpus_files.inputs(target.name)
            print(f"{target.name:20} {len(target.seeds):4} seeds {len(kept):4} inputs")
        return 0
    if asked.target not in {"all", *TARGETS}:
        parser.error(f"no target {asked.target!r}; --list names them")
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is missing: run scripts/tools\n")
        return 2
    chosen = TARGETS.values() if asked.target == "all" else [TARGETS[asked.target]]
    clean = [_campaign(each, asked.seconds, asked.seed, keep=asked.keep) for each in chosen]
    return 0 if all(clean) else 1


def _campaign(target: Target, seconds: int, seed: int, *, keep: bool) -> bool:
    """Fuzz one target; return whether nothing was found."""
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for number, data in enumerate([*target.seeds, *corpus_files.inputs(target.name)]):
            (work / f"{number:04}").write_bytes(data)
        command = [
            sys.executable, "-m", "tests.fuzz.engine", target.name, str(work),
            f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={target.bytes_max}",
            f"-timeout={INPUT_SECONDS_MAX}", f"-rss_limit_mb={MEMORY_MIB_MAX}",
            f"-artifact_prefix={FOUND}/{target.name}-", "-print_final_stats=1",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, cwd=corpus_files.ROOT)
        output = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
        last = _DONE.findall(output)
        if done.returncode == 0 and last:
            runs, edges, features, corpus = last[-1]
            line = f"{target.name:20} {runs:>9} inputs {edges:>6} edges {features:>6} features"
            print(f"{line} {corpus:>5} kept for the run: nothing found", flush=True)
        if keep:
            chosen = corpus_files.keep(target, [path.read_bytes() for path in work.iterdir()])
            print(f"{target.name:20} {len(chosen)} inputs in the corpus", flush=True)
    if done.returncode == 0 and last:
        return True
    print(output[-6000:])
    print(f"{target.name}: FOUND, or the run failed; inputs are in {FOUND}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
