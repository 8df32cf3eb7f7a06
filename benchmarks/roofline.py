"""What a piece of work costs a card, operation by operation: arithmetic done, memory moved, and the time that both
take at given rates.

Knows operations and rates; not what the work is for.

    with Counted() as counted:
        model(**inputs)
    counted.seconds(T4)                    # no card of these rates is faster with these operations
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Rates:
    """Of a card: arithmetic in 16 and in 32 bits (FLOP/s), memory (bytes/s), and the least that a kernel takes (s)."""

    half: float
    single: float
    memory: float
    kernel: float = 3e-6


# Sustained, of 65 and 8.1 TFLOP/s on paper: the card's 70 W allow no more.
T4 = Rates(half=24e12, single=4e12, memory=320e9)
aten = torch.ops.aten
PACKED = ("bitsandbytes::gemm_4bit", "bitsandbytes::gemv_4bit")  # products with a packed matrix
PICKS = (aten.embedding, aten.index, aten.index_select, aten.gather)  # they read no more than they write


class Counted(TorchDispatchMode):
    """Lists every operation of the block that does something: its FLOPs, whether in 16 bits, its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[int, bool, int]] = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None) -> Any:
        if function._overloadpacket not in flop_registry:
            with self:  # what consists of others, such as a linear layer, comes whole in inference mode
                parts = function.decompose(*arguments, **(options or {}))
            if parts is not NotImplemented:
                return parts
        result = function(*arguments, **(options or {}))
        before, after = _tensors((arguments, options)), _tensors(result)
        places = {tensor.untyped_storage().data_ptr() for tensor in before}
        written = [t for t in after if function._schema.is_mutable or t.untyped_storage().data_ptr() not in places]
        if before and (written or function._schema.is_mutable):  # a view costs nothing
            formula = _packed if function.name() in PACKED else flop_registry.get(function._overloadpacket)
            flops = formula(*arguments, **(options or {}), out_val=result) if formula else 0
            half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in before)
            read = written if function._overloadpacket in PICKS else before
            self.operations.append((flops, half, sum(map(_bytes, read)) + sum(map(_bytes, written))))
        return result

    @property
    def flops(self) -> int:
        """Of all operations."""
        return sum(flops for flops, _, _ in self.operations)

    @property
    def moved(self) -> int:
        """Bytes that all operations read or write."""
        return sum(moved for _, _, moved in self.operations)

    def seconds(self, rates: Rates) -> float:
        """Each operation as long as the slower of its arithmetic and its memory takes, none below a kernel's least."""
        return sum(
            max(flops / (rates.half if half else rates.single), moved / rates.memory, rates.kernel)
            for flops, half, moved in self.operations
        )


def _packed(values: torch.Tensor, packed: torch.Tensor, shape: list[int], *_: Any, **__: Any) -> int:
    return 2 * values.numel() * shape[0]


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _bytes(tensor: torch.Tensor) -> int:
    """What is really there: a row that is expanded over a batch is read once."""
    seen = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        seen *= size if stride else 1
    return seen * tensor.element_size()
