"""What is quantized, and to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kdcli.networks.layers import LayerSpec
from kdcli.quantization.calibration import Calibration, parse_calibration
from kdcli.quantization.observer_placement import Places
from kdcli.quantization.schemes import Scheme, parse_scheme

NEVER_NEGATIVE = ("relu", "sigmoid", "softplus")


@dataclass(frozen=True)
class Plan:
    """How an agent is quantized.

    Attributes:
        weights: the scheme of every weight matrix that `by_name` does not name.
        activations: bits of the grids in front of products; 0 leaves activations as they are.
        inputs: bits of the features' grid; 0 leaves them as they are.
        each: whether each feature has a grid of its own, which integer products cannot use.
        calibration: from the activations that were seen to their ranges; None where each sample brings its own.
        by_name: parameter -> its own scheme (mixed precision).
    """

    weights: Scheme
    activations: int = 0
    inputs: int = 16
    each: bool = False
    calibration: Calibration | None = field(default_factory=lambda: parse_calibration("minmax"))
    by_name: Mapping[str, Scheme] = field(default_factory=dict)

    @classmethod
    def parse(cls, scheme: str, activations: int = 0, inputs: int = 16, calibration: str = "minmax") -> Plan:
        """From the texts of options.

        Raises:
            UsageError: one that cannot be read.
        """
        return cls(parse_scheme(scheme), activations, inputs, calibration=parse_calibration(calibration))

    def scheme_of(self, name: str) -> Scheme:
        """The scheme of the parameter of this name."""
        return self.by_name.get(name, self.weights)

    @property
    def places(self) -> Places:
        """Where activations are put on grids.

        Those that each sample brings along stand before linear layers alone: of convolutions, onnxruntime's products in
        whole numbers were five to eight times slower than its floats.
        """
        if self.calibration is None:
            inputs = self._dynamic(self.inputs, "") if self.inputs else None
            return Places(inputs, partial(self._dynamic, self.activations), ("linear",), at_once=False)
        inputs = ("quantize", {**self.codes(self.inputs), "each": self.each}) if self.inputs else None
        return Places(inputs, lambda _: ("quantize", self.codes(self.activations)))

    def _dynamic(self, bits: int, last: str) -> LayerSpec:
        """The grid of what a layer of this name puts out."""
        codes = self.codes(bits)
        middle = (codes["low"] + codes["high"] + 1) // 2
        return "dynamic_quantize", {**codes, "zero": codes["low"] if last in NEVER_NEGATIVE else middle}

    @staticmethod
    def codes(bits: int) -> dict[str, Any]:
        """The lowest and the highest code of a grid: bytes are counted from 0, wider codes on both sides of it."""
        first = 0 if bits <= 8 else 1 << (bits - 1)
        return {"low": -first, "high": (1 << bits) - 1 - first}
