"""What each step buys in the file that is shipped: teacher, lossless, student, its weights on few levels, all integers.

    OMP_NUM_THREADS=1 python tests/studies/steps.py run FOLDER TEACHER... [--budget 5m] [-- options of kdcli load]
    python tests/studies/steps.py table FOLDER

Every step is a command of kdcli with its defaults; all agents of a teacher then play the same episodes and are timed in
turns in one `kdcli bench`. What is in the folder already is not made again. A step that loses is marked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# step -> the command that makes it; {0} the teacher, {1} the student.
STEPS = {
    "lossless": ["prune", "{0}", "--lossless"],
    "weights on few levels": ["quantize", "{1}", "--teacher", "{0}", "--auto", "--target", "bytes"],
    "all integers": ["quantize", "{1}", "--activations", "8", "--inputs", "16"],
}
BENCH = ["--runtimes", "onnxruntime,c", "--no-baselines", "--latency-budget", "6s"]
FAILED = (2, 4)


def kdcli(*command: str) -> int:
    """Run it, its messages to the terminal, and stop at what is no verdict."""
    code = subprocess.run([sys.executable, "-m", "kdcli", *command], check=False).returncode
    if code in FAILED:
        print("left out:", " ".join(command), file=sys.stderr)
    return code


def measure(folder: Path, teacher: str, budget: str, episodes: str, load: list[str]) -> None:
    """All steps of one teacher -> FOLDER/NAME/bench.json."""
    place = folder / (
        Path(teacher).stem if Path(teacher).is_file() else f"{Path(teacher).parent.name}-{Path(teacher).name}"
    )
    place.mkdir(parents=True, exist_ok=True)
    run, bench = place / "compressed", place / "bench.json"
    if bench.exists():
        return
    if not run.exists():
        kdcli("compress", teacher, "-o", str(run), "--budget", budget, *load)
    student = run / "student.safetensors"
    made = [teacher]
    for name, command in STEPS.items():
        if name != "lossless" and not student.exists():
            continue
        if name == "weights on few levels":
            made.append(str(student))
        output = place / f"{name.replace(' ', '-')}.safetensors"
        if not output.exists():
            words = [word.format(teacher, student) for word in command]
            kdcli(*words, "-o", str(output), *(load if words[1] == teacher else []))
        if output.exists():
            made.append(str(output))
    with_file = place / "bench.tmp.json"
    kdcli("bench", *made, "-o", str(with_file), "--force", "--episodes", episodes, *BENCH, *load)
    with_file.rename(bench)


def rows(bench: dict[str, Any]) -> list[list[str]]:
    """One line a step; `worse` says where it is slower than the step before, or does not hold."""
    found, before = [], None
    for agent in bench["contenders"]:
        size, latency, score = agent["size"], agent["latency"], agent["score"]
        ort, c = (latency[name] and latency[name]["p50_us"] for name in ("onnxruntime", "c"))
        worse = []
        if before and ort > 1.1 * before:
            worse.append("slower in onnxruntime")
        if score and score["verdict"] != "holds":
            worse.append(score["verdict"])
        worth = f"{score['score']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" if score and score["score"] else ""
        numbers = [f"{size[name]:,}" for name in ("params", "onnx_bytes", "multiply_adds")]
        name = "teacher" if agent["role"] == "reference" else agent["name"]
        found.append([name, *numbers, f"{ort:.1f}", f"{c:.2f}" if c else "", worth, ", ".join(worse)])
        before = ort
    return found


def table(folder: Path) -> None:
    """All teachers, as Markdown."""
    head = [
        "step",
        "parameters",
        "ONNX bytes",
        "multiply-adds",
        "onnxruntime us",
        "C us",
        "score [95 %]",
        "what is lost",
    ]
    for path in sorted(folder.glob("*/bench.json")):
        bench = json.loads(path.read_text())
        print(f"\n**{path.parent.name}**, {bench['contenders'][0]['return']['n']} episodes\n")
        for line in (head, ["---", *["---:"] * 6, "---"], *rows(bench)):
            print("| " + " | ".join(line) + " |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("teachers", nargs="*")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--episodes", default="100")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:cut])
    if args.command == "table":
        table(args.folder)
    for teacher in args.teachers:
        measure(args.folder, teacher, args.budget, args.episodes, words[cut + 1 :])


if __name__ == "__main__":
    main()
