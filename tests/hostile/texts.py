"""JSON and YAML made to harm: billion laughs, deep nesting, numbers too large, values of other kinds."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from cases import Case, Law, of_files, of_main
from placed import NEEDED
from safetensored import VALUES
from seeds import Seed
from zipped import members, rezipped

PLACES = 60


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Every harm to every JSON file of the seeds, and YAML beside the checkpoints of the Zoo's kind."""
    for seed in seeds.values():
        for file in seed.files:
            if file.endswith(".json"):
                yield from _json_file(seed, file)
        if seed.family == "pickle":
            yield from _json_value(seed)
        if seed.family == "zip":
            yield from _json_member(seed)
            yield from _yaml(seed)


def _json_file(seed: Seed, file: str) -> Iterator[Case]:
    """The text replaced, and each of its values replaced by each hostile one."""
    for title, text in JSON.items():
        yield of_files(seed, "json", f"{file} {title}", lambda t=text: {**seed.files, file: t}, Law.REFUSED)
    content = json.loads(seed.files[file])
    for path in list(places(content))[:PLACES]:
        for title, value in VALUES.items():
            name = f"{file} {'/'.join(map(str, path))} is {title}"
            data = json.dumps(replaced(content, path, value)).encode()
            yield of_files(seed, "json", name, lambda d=data: {**seed.files, file: d}, Law.OPEN)


def _json_value(seed: Seed) -> Iterator[Case]:
    """The JSON in d3rlpy's pickle."""
    saved = pickle.loads(seed.data)
    texts = {title: text.decode("latin1") for title, text in JSON.items()}
    for title, text in texts.items():
        yield of_main(seed, "json", f"config {title}", lambda t=text: pickle.dumps({**saved, "config": t}))
    large = "[" + "[]," * 15_000_000 + "1]"
    yield of_main(seed, "json", "config of 45 megabytes of lists", lambda: pickle.dumps({**saved, "config": large}))
    content = json.loads(saved["config"])
    for path in list(places(content))[:PLACES]:
        for title, value in VALUES.items():
            name, data = f"config {'/'.join(map(str, path))} is {title}", json.dumps(replaced(content, path, value))
            yield of_main(seed, "json", name, lambda d=data: pickle.dumps({**saved, "config": d}), Law.SAFE)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every value inside, the outermost first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*path, key)
        yield from places(part, (*path, key))


def replaced(content: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with one value replaced."""
    found = inner = copy.deepcopy(content)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


def _json_member(seed: Seed) -> Iterator[Case]:
    """The JSON inside a Stable-Baselines3 zip."""
    content = members(seed.data)
    for title, text in JSON.items():
        yield of_main(seed, "json", f"data {title}", lambda t=text: rezipped({**content, "data": t}))
    data = json.loads(content["data"])
    for number, key in enumerate(data):
        step = 1 if key in NEEDED else 6  # the others are not even looked at
        for title, value in list(VALUES.items())[number % step :: step]:
            changed = json.dumps({**data, key: value}).encode()
            yield of_main(
                seed, "json", f"data/{key} is {title}", lambda c=changed: rezipped({**content, "data": c}), Law.SAFE
            )
    for title, value in ENTRIES.items():
        changed = json.dumps({**data, "policy_kwargs": {":type:": "x", ":serialized:": value}}).encode()
        yield of_main(seed, "json", f"an entry of {title}", lambda c=changed: rezipped({**content, "data": c}))


ENTRIES = {
    "no base64": "\x1b[31m\u20ac\u20ac",
    "half a base64": "gAR9lC",
    "nothing": None,
    "a number": 7,
    "lists": [[[]]],
    "spaces": " " * 2**20,
    "an empty text": "",
}
JSON = {
    "empty": b"",
    "a list": b"[]",
    "a number": b"7",
    "nothing": b"null",
    "an empty object": b"{}",
    "lists in lists": b"[" * 1_000_000,
    "closed lists in lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects in objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no text": b"\xff\xfe\xfd",
    "half a letter": b'{"\\ud800": "\\udfff"}',
    "a number of 10,000 digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "1e999": b'{"observation": 1e999, "layers": -1e999}',
    "NaN": b"NaN",
    "cut": b'{"a": [1, 2',
    "a text without end": b'{"a": "' + b"x" * 1_000_000,
    "two values": b"{} {}",
    "a comment": b"// no\n{}",
    "escapes": b'{"\\u001b[2J\\u001b]0;hacked\\u0007": 1}',
}


def _yaml(seed: Seed) -> Iterator[Case]:
    """In the files the RL Zoo keeps beside a checkpoint: whatever they say, the policy is the zip's."""
    for number, (title, text) in enumerate(YAML.items()):
        for file in ("args.yml", "config.yml", "env_kwargs.yml")[number % 3 :: 3]:
            name = f"{file} {title}"
            yield of_files(seed, "yaml", name, lambda f=file, t=text: {**seed.files, f: t}, Law.ASKED)


def _laughs(merge: bool) -> bytes:
    """Nine levels of nine aliases each."""
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x]"]
    for n in range(9):
        inside = ", ".join([f"*a{n}"] * 9)
        lines.append(f"a{n + 1}: &a{n + 1} " + (f"{{<<: [{inside}], y{n}: 1}}" if merge else f"[{inside}]"))
    return "\n".join(lines).encode()


_EACH: dict[str, bytes] = {
    "os.system": b"!!python/object/apply:os.system ['touch hacked']",
    "os.system in a value": b"env: !!python/object/apply:os.system ['touch hacked']",
    "os.system in the Zoo's own tag": b"!!python/object/apply:collections.OrderedDict\n"
    b"- - - env\n    - !!python/object/apply:os.system ['touch hacked']\n",
    "object/new": b"!!python/object/new:os.system ['touch hacked']",
    "a name": b"env: !!python/name:os.system",
    "a module": b"env: !!python/module:canary_module",
    "a tuple": b"env_kwargs: !!python/tuple [1, 2]",
    "a long tag": b"env: !<tag:yaml.org,2002:python/object/apply:subprocess.Popen> [[touch, hacked]]",
    "laughs": _laughs(False),
    "laughs by merging": _laughs(True),
    "an alias of itself": b"env_kwargs: &a\n  x: *a\n",
    "lists in lists": b"[" * 30_000,
    "objects in objects": b"{a: " * 10_000,
    "a list of lists by dashes": b"- " * 20_000,
    "65 kilobytes": b"a: b\n" * 13_200,
    "a number of 10,000 digits": b"env_kwargs: {a: " + b"9" * 10_000 + b"}",
    "a number in base 60": b"env_kwargs: {a: " + b"1:" * 20_000 + b"1}",
    "binary": b"env: !!binary aGFja2Vk",
    "a date": b"env_kwargs: {a: 2020-99-99}",
    "NaN": b"env_kwargs: {a: .nan}",
    "no text": b"\xff\xfe\x00",
    "zeros": bytes(1000),
    "a module in the id": b"env: 'canary_module:X-v0'",
    "a module in the arguments": b"env: CartPole-v1\nenv_kwargs: {entry_point: 'canary_module:make'}",
    "a wrapper": b"env_wrapper: canary_module.Wrapper\nenv: CartPole-v1",
    "escapes": b'env: "\\e[2J\\e]0;hacked\\a-v0"\nenv_wrapper: "\\e[31m"',
    "normalize": b"normalize: \"__import__('os').system('touch hacked')\"",
    "normalize with an object": b"normalize: {norm_obs: !!python/name:os.system}",
    "two documents": b"env: A-v0\n---\nenv: B-v0\n",
    "a directive": b"%YAML 9.9\n---\nenv: A-v0\n",
    "keys that are lists": b"? [a, b]\n: c\n",
    "a very long id": b"env: " + b"x" * 60_000 + b"-v0",
}
YAML: dict[str, bytes] = {f"{title} ({n})": text for title, text in _EACH.items() for n in range(3)}
Change = Callable[[], bytes]
