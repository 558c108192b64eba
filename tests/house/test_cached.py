"""What is kept of tensors is kept by `cached_tensor`, which makes them outside of `torch.inference_mode`."""

from __future__ import annotations

import ast
from pathlib import Path

import torch

from kdcli.networks.cached import cached_tensor

PACKAGE = Path(__file__).parents[2] / "kdcli"
# Values that hold tensors, by the names that annotations give them.
HOLDERS = {"Tensor", "Tensors", "Module", "Agent", "Policy", "Stack", "MLP", "Network", "Heads", "Seen"}


def names_in(*nodes: ast.AST) -> set[str]:
    """Every name in an expression, and every attribute."""
    parts = [part for node in nodes for part in ast.walk(node)]
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in parts
        if isinstance(part, ast.Name | ast.Attribute)
    }


def kept_of(path: Path) -> list[str]:
    """Functions of a file that keep tensors otherwise."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef) or node.returns is None:
            continue
        names = {part.id for part in ast.walk(node.returns) if isinstance(part, ast.Name)}
        names |= {part.attr for part in ast.walk(node.returns) if isinstance(part, ast.Attribute)}
        keepers = {part.id for mark in node.decorator_list for part in ast.walk(mark) if isinstance(part, ast.Name)}
        keepers |= {
            part.attr for mark in node.decorator_list for part in ast.walk(mark) if isinstance(part, ast.Attribute)
        }
        if keepers & {"cached_property", "cache", "lru_cache"} and names & HOLDERS:
            found.append(f"{path.name}:{node.lineno} {node.name}")
    return found


def test_tensors_are_kept_by_cached_tensor() -> None:
    """Law: no `cached_property`, `cache` or `lru_cache` gives tensors, or what holds them."""
    assert [found for path in sorted(PACKAGE.rglob("*.py")) for found in kept_of(path)] == []


def test_the_law_sees_them(tmp_path: Path) -> None:
    """Law: the test above finds what it looks for."""
    path = tmp_path / "x.py"
    path.write_text("class A:\n    @functools.cached_property\n    def f(self) -> tuple[torch.Tensor, int]: ...\n")
    assert kept_of(path) == ["x.py:3 f"]


def test_what_is_kept_takes_part_in_gradients() -> None:
    """Law: a tensor first asked for under `inference_mode` is an ordinary one, made once, and a constant."""

    class Holder:
        made = 0
        weight = torch.ones(2, requires_grad=True)

        @cached_tensor
        def doubled(self) -> torch.Tensor:
            """Twice."""
            self.made += 1
            return 2 * self.weight

    holder = Holder()
    with torch.inference_mode():
        assert not holder.doubled.is_inference()
        assert torch.zeros(1).is_inference()
    assert holder.doubled is holder.doubled
    assert not holder.doubled.requires_grad
    (holder.doubled * torch.ones(2, requires_grad=True)).sum().backward()
    assert (holder.made, Holder.doubled.__doc__) == (1, "Twice.")
