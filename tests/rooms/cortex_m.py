"""A Cortex-M of qemu's that runs a policy's C files, with no operating system and no library under them.

The program is compiled with `arm-none-eabi-gcc -ffreestanding -nostdlib`: what it links with is libgcc alone, for the
arithmetic that a processor has not. It reads inputs from a file of the host and writes outputs to another by
semihosting (Arm, "Semihosting for AArch32 and AArch64", 2.0), and counts instructions with qemu's -icount.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdcli.exporters.c.files import HEADER, SOURCE
from kdcli.exporters.c.stamp import contract
from kdcli.exporters.c.values import CTYPES

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


@dataclass(frozen=True)
class Machine:
    """A processor, the board of qemu's that has it, the compiler's options for it, and its bytes of flash and RAM."""

    cpu: str
    board: str
    flags: tuple[str, ...] = ()
    flash: int = 4 << 20
    ram: int = 4 << 20


MACHINES: Mapping[str, Machine] = {
    "cortex-m0": Machine("cortex-m0", "microbit", flash=256 << 10, ram=16 << 10),
    "cortex-m3": Machine("cortex-m3", "mps2-an385"),
    "cortex-m4": Machine("cortex-m4", "mps2-an386", ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")),
    "cortex-m7": Machine("cortex-m7", "mps2-an500", ("-mfloat-abi=hard", "-mfpu=fpv5-sp-d16")),
}


@dataclass(frozen=True, eq=False)
class Ran:
    """What a machine gave.

    Attributes:
        outputs: by name, (N, *shape).
        instructions: of each decision, (N,).
        code, constants: bytes of the policy's object file, without its record.
        linked: bytes of flash that the program is longer by than one without the policy: with what it uses of libgcc.
    """

    outputs: Mapping[str, np.ndarray]
    instructions: np.ndarray
    code: int
    constants: int
    linked: int


_LINKER = """
MEMORY { flash : ORIGIN = 0, LENGTH = %d   ram : ORIGIN = 0x20000000, LENGTH = %d }
SECTIONS
{
    .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > flash
    .data : { *(.data*) } > ram
    .bss : { *(.bss*) *(COMMON) } > ram
    stack_top = ORIGIN(ram) + LENGTH(ram);
}
"""

_START = """
#include <stddef.h>
#include <stdint.h>

extern char stack_top[];
int main(void);

int32_t host(int32_t what, const void *with)
{
    register int32_t r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* Compilers call these for copies, wherever there is no library. */
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile char *)to)[i] = (char)value;
    return to;
}

static void leave(int code)
{
    const int32_t with[2] = {0x20026, code};
    host(0x20, with);
    for (;;)
        ;
}

static void fault(void)
{
    leave(99);
}

static void reset(void)
{
#ifdef __ARM_FP
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* the floating-point unit on */
    __asm__ volatile("dsb\\n isb");
#endif
    leave(main());
}

typedef void (*handler)(void);
__attribute__((section(".vectors"), used)) static const struct {
    char *stack;
    handler handlers[15];
} vectors = {stack_top, {reset, fault, fault, fault, fault, fault}};
"""

_MAIN = """
#include <stdint.h>
#include "{header}"

int32_t host(int32_t what, const void *with);
{arrays}
static {name}_work work;

static int32_t file(const char *name, int mode)
{{
    const struct {{ const char *name; int32_t mode, length; }} with = {{name, mode, {length}}};
    return host(1, &with);
}}

/* Bytes to (5) or from (6) a file; returns whether all went. */
static int moved(int what, int32_t handle, const void *bytes, int32_t n)
{{
    const struct {{ int32_t handle; const void *bytes; int32_t n; }} with = {{handle, bytes, n}};
    return host(what, &with) == 0;
}}

#define CLOCK ((volatile uint32_t *)0xE000E010)

int main(void)
{{
    const int32_t in = file("states", 1), out = file("answer", 5);
    CLOCK[1] = 0xffffff;
    CLOCK[2] = 0;
    CLOCK[0] = 5;
    while ({reads}) {{
        uint32_t began = CLOCK[2], idle = (began - CLOCK[2]) & 0xffffff;
        began = CLOCK[2];
        {name}_run({arguments});
        began = ((began - CLOCK[2]) & 0xffffff) - idle;
        if (!({writes} && moved(5, out, &began, 4)))
            return 2;
    }}
    return 0;
}}
"""
# One instruction takes 32 ns in qemu's time, the boards' clocks tick every 40 ns (the microbit's, every 62.5 ns).
_SHIFT = 5
_TICK = {"microbit": 1000 / 16}


def run(files: Mapping[str, bytes], machine: Machine, given: Mapping[str, np.ndarray], folder: Path) -> Ran:
    """Compile the policy for the machine and run it on every input, by name (N, *shape), one after the other."""
    terms = contract(files)
    ports = terms["inputs"], terms["outputs"]
    rows = [np.ascontiguousarray(given[port["name"]], port["dtype"]) for port in ports[0]]
    n = len(rows[0])
    (folder / "states").write_bytes(b"".join(row[i].tobytes() for i in range(n) for row in rows))
    _write(files, terms, machine, folder)
    code, constants = _compile(machine, folder)
    linked = _link(machine, folder, "policy.o", "policy.elf") - _link(machine, folder, "stub.o", "stub.elf")
    _emulate(machine, folder)
    dtype = np.dtype([(p["name"], p["dtype"], tuple(p["shape"])) for p in ports[1]] + [("ticks", "uint32")])
    found = np.frombuffer((folder / "answer").read_bytes(), dtype)
    assert len(found) == n, f"{len(found)} of {n} states were answered"
    counts = np.round(found["ticks"] * _TICK.get(machine.board, 40) / (1 << _SHIFT)).astype(int)
    return Ran({port["name"]: found[port["name"]] for port in ports[1]}, counts, code, constants, linked)


def _write(files: Mapping[str, bytes], terms: Mapping, machine: Machine, folder: Path) -> None:
    name, ends = terms["symbol"], [("in", p) for p in terms["inputs"]] + [("out", p) for p in terms["outputs"]]
    names = [f"{way}_{i}" for i, (way, _) in enumerate(ends)]
    sizes = [int(np.prod(port["shape"])) for _, port in ends]
    arrays = [f"static {CTYPES[p['dtype']]} {x}[{k}];" for x, (_, p), k in zip(names, ends, sizes, strict=True)]
    moves = {way: [f"moved({k}, {way}, {x}, sizeof {x})" for x in names if x.startswith(way)] for way, k in _WAYS}
    text = _MAIN.format(
        header=terms["header"],
        arrays="\n".join(arrays),
        name=name,
        length=len("states"),
        reads=" && ".join(moves["in"]),
        writes=" && ".join(moves["out"]),
        arguments=", ".join([*names, "&work"]),
    )
    texts = {"main.c": text, "start.c": _START, "link.ld": _LINKER % (machine.flash, machine.ram)}
    signature = re.search(rf"^(void {name}_run\([^;]*\));", files[HEADER].decode(), re.MULTILINE)
    assert signature is not None
    unused = "".join(f"    (void){word};\n" for word in re.findall(r"(\w+)[,)]", signature[1]))
    texts["stub.c"] = f'#include "{terms["header"]}"\n{signature[1]}\n{{\n{unused}}}\n'
    for file, content in texts.items():
        (folder / file).write_text(content)
    (folder / terms["header"]).write_bytes(files[HEADER])
    (folder / "policy.c").write_bytes(b"#define %s_NO_RECORD\n" % name.upper().encode() + files[SOURCE])


_WAYS = (("in", 6), ("out", 5))


def _compile(machine: Machine, folder: Path) -> tuple[int, int]:
    """Bytes of code and of constants of the policy."""
    target = (f"-mcpu={machine.cpu}", "-mthumb", *machine.flags, "-O2", "-ffreestanding")
    for file in ("policy", "stub", "main"):
        _call(folder, COMPILER, *target, *STRICT, "-c", f"{file}.c", "-o", f"{file}.o")
    _call(folder, COMPILER, *target, "-c", "start.c", "-o", "start.o")
    sections = dict(re.findall(r"^(\.\S+) +(\d+)", _call(folder, "arm-none-eabi-size", "-A", "policy.o"), re.MULTILINE))
    assert not [name for name in (".data", ".bss") if int(sections.get(name, 0))], "a policy has no memory of its own"
    names = {"code": ".text", "constants": ".rodata"}
    code, constants = (sum(int(n) for key, n in sections.items() if key.startswith(name)) for name in names.values())
    return code, constants


def _link(machine: Machine, folder: Path, policy: str, elf: str) -> int:
    """The program of this object; returns its bytes in flash."""
    target = (f"-mcpu={machine.cpu}", "-mthumb", *machine.flags)
    _call(folder, COMPILER, *target, "-nostdlib", "-T", "link.ld", "start.o", "main.o", policy, "-lgcc", "-o", elf)
    return int(_call(folder, "arm-none-eabi-size", elf).splitlines()[1].split()[0])


def _emulate(machine: Machine, folder: Path) -> None:
    quiet = ("-nographic", "-monitor", "none", "-serial", "none")
    hosted = ("-semihosting-config", "enable=on,target=native", "-icount", f"shift={_SHIFT}")
    _call(folder, EMULATOR, "-M", machine.board, *quiet, *hosted, "-kernel", "policy.elf")


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stderr[:2000]}"
    return done.stdout
