"""A decoder's linear layers, grouped by the input they share, and a LoRA adapter stacked over all layers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def target(layer: nn.Module, name: str):
    """The linear module of this name in a layer."""
    return getattr(layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp, name)


def _frozen(layer: nn.Module, group: Sequence[str]) -> list[Any]:
    modules = [target(layer, name) for name in group]
    return [getattr(module, "base_layer", module) for module in modules]


def group_weight(layer: nn.Module, group: Sequence[str]) -> torch.Tensor:
    """The frozen weights of a group, one above the other: (out, in)."""
    parts = [module.weight.detach() for module in _frozen(layer, group)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def group_bias(layer: nn.Module, group: Sequence[str]) -> torch.Tensor | None:
    """Their biases, (out,), where they have some."""
    parts = [module.bias for module in _frozen(layer, group) if module.bias is not None]
    return torch.cat(parts).detach() if parts else None


class FlatAdapter:
    """A PEFT adapter, held where a graph reads it, whose gradients are parts of one flat tensor.
    leaves: what learns of it, if `requires_grad`. held: PEFT's parameters and each one's storage."""

    def __init__(self, leaves: list[nn.Parameter], held: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
        self.leaves, self.held = [leaf for leaf in leaves if leaf.requires_grad], held
        self._sizes = [leaf.numel() for leaf in self.leaves]
        self.flat_gradient = torch.zeros(sum(self._sizes), device=held[0][1].device)
        self.zero_gradients()

    def zero_gradients(self) -> None:
        """And put them in their place again, which the Trainer takes PEFT's own from at each step."""
        parts = self.flat_gradient.zero_().split(self._sizes)
        for leaf, part in zip(self.leaves, parts, strict=True):
            leaf.grad = part.view_as(leaf)

    def reattach(self) -> None:
        """Bring PEFT's parameters back to where a graph reads them, with the values that they have now.

        Moving a model, wrapping it, or loading a checkpoint can give a parameter storage of its own.
        """
        for parameter, place in self.held:
            if parameter.data_ptr() != place.data_ptr():
                place.copy_(parameter.data)
                parameter.data = place


class StackedAdapter(FlatAdapter):
    """A PEFT adapter's tensors, those of one kind stacked over the layers, with PEFT's own as views of them.

    So checkpoints and `save_pretrained` see PEFT's parameters, while passes and optimizer handle 14 tensors.
    Raises ValueError: the adapter's layers have different scales.
    """

    def __init__(self, layers: nn.ModuleList, *, trainable: bool) -> None:
        scales = {target(layer, name).scaling["default"] for layer in layers for name in TARGETS}
        if len(scales) != 1:
            raise ValueError(f"the adapter's layers have different scales {sorted(scales)}")
        self.scale: float = scales.pop()
        held = []

        def stacked(name: str, kind: str) -> nn.Parameter:
            own = [getattr(target(layer, name), kind)["default"].weight for layer in layers]
            leaf = nn.Parameter(torch.stack([each.detach().float() for each in own]), requires_grad=trainable)
            held.extend(zip(own, leaf.data, strict=True))
            return leaf

        # by target: A (layers, r, in) and B (layers, out, r)
        self.pairs = {name: (stacked(name, "lora_A"), stacked(name, "lora_B")) for name in TARGETS}
        super().__init__([leaf for pair in self.pairs.values() for leaf in pair], held)
        self.reattach()

    def cast(self, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per group, in the compute type: A (layers, r, in); B (layers, out, r) scaled, block-diagonal.

        A group's r is the sum of its members' ranks.
        """
        groups = []
        for group in GROUPS:
            a = torch.cat([self.pairs[name][0].to(dtype) for name in group], dim=1)
            rank = self.pairs[group[0]][0].shape[1]
            blocks = []
            for place, name in enumerate(group):
                b = (self.pairs[name][1] * self.scale).to(dtype)
                blocks.append(F.pad(b, (place * rank, (len(group) - 1 - place) * rank)))
            groups.append((a, torch.cat(blocks, dim=1)))
        return groups

    def with_room(self, group: Sequence[str], weights: list[torch.Tensor]) -> torch.Tensor:
        """A group's weights in every layer with room for B beside them or, of a single one, for A below:
        (layers, out, in + r) or (layers, out + r, in)."""
        rank = sum(self.pairs[name][0].shape[1] for name in group)
        return F.pad(torch.stack(weights), (0, rank) if len(group) > 1 else (0, 0, 0, rank))
