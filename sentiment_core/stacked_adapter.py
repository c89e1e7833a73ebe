"""A Llama's linear layers, grouped by the input they share, and a LoRA adapter stacked over all layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def frozen_parts(layer: nn.Module) -> tuple[torch.Tensor, ...]:
    """A layer's two norms and four weights, those of a group one above the other."""
    weights = []
    for group in GROUPS:
        parts = [_base_weight(target(layer, name)) for name in group]
        weights.append(parts[0] if len(parts) == 1 else torch.cat(parts))
    return (layer.input_layernorm.weight, layer.post_attention_layernorm.weight, *weights)


def target(layer: nn.Module, name: str) -> nn.Module:
    """The linear module of this name in a Llama layer."""
    return getattr(layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp, name)


def _base_weight(module: nn.Module) -> torch.Tensor:
    return (module.base_layer if hasattr(module, "base_layer") else module).weight.detach()


class StackedAdapter:
    """A PEFT adapter's tensors, those of one kind stacked over the layers, with PEFT's own as views of them.

    So checkpoints and `save_pretrained` see PEFT's parameters, while passes and optimizer handle 14 tensors.
    """

    def __init__(
        self, leaves: dict[str, tuple[nn.Parameter, nn.Parameter]], scale: float, views: list
    ) -> None:
        self.leaves = leaves
        self.scale = scale
        self._views = views  # (PEFT's module, leaf, layer)
        self._joined: list[torch.Tensor] | None = None
        self.flat_gradient: torch.Tensor | None = None

    @classmethod
    def of(cls, base: nn.Module, *, trainable: bool) -> StackedAdapter | None:
        """The model's adapter, stacked once and shared; None when it has no adapter."""
        layers = base.model.layers
        if not hasattr(target(layers[0], "q_proj"), "lora_A"):
            return None
        stacked = getattr(base, "_stacked_adapter", None)
        if stacked is None:
            stacked = base._stacked_adapter = cls._stack(layers)
        stacked.reattach()
        for pair in stacked.leaves.values():
            for leaf in pair:
                leaf.requires_grad_(trainable or leaf.requires_grad)
        return stacked

    def reattach(self) -> None:
        """Make PEFT's parameters views of the stacked tensors again, with the values that they have now.

        Moving a model, wrapping it, or loading a checkpoint can give a parameter storage of its own.
        """
        for module, leaf, number in self._views:
            parameter, view = module.weight, leaf.data[number]
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter.data)
                parameter.data = view

    @classmethod
    def _stack(cls, layers: nn.ModuleList) -> StackedAdapter:
        leaves, views, scales = {}, [], set()
        for name in TARGETS:
            pair = []
            for kind in ("lora_A", "lora_B"):
                own = [getattr(target(layer, name), kind)["default"] for layer in layers]
                leaf = nn.Parameter(
                    torch.stack([m.weight.detach().float() for m in own]), requires_grad=False
                )
                for number, module in enumerate(own):
                    module.weight.data = leaf.data[number]
                    views.append((module, leaf, number))
                pair.append(leaf)
            scales |= {target(layer, name).scaling["default"] for layer in layers}
            leaves[name] = tuple(pair)
        if len(scales) != 1:
            raise ValueError(f"the adapter's layers have different scales {sorted(scales)}")
        return cls(leaves, scales.pop(), views)

    def cast(self, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per group, in the compute type: A (layers, r, in); B (layers, out, r) scaled, block-diagonal."""
        groups = []
        for group in GROUPS:
            a = torch.cat([self.leaves[name][0].to(dtype) for name in group], dim=1)
            rank = self.leaves[group[0]][0].shape[1]
            blocks = []
            for place, name in enumerate(group):
                b = (self.leaves[name][1] * self.scale).to(dtype)
                blocks.append(F.pad(b, (place * rank, (len(group) - 1 - place) * rank)))
            groups.append((a, torch.cat(blocks, dim=1)))
        return groups

    def join(self, frozen: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """Per group [W, B], (layers, out, in + r): W is put in, B has room. Made once and shared.

        Args:
            frozen: per group, W of every layer.
        """
        if self._joined is None:
            self._joined = []
            for group, weights in zip(GROUPS, frozen, strict=True):
                rank = sum(self.leaves[name][0].shape[1] for name in group)
                room = weights[0].new_zeros(len(weights), weights[0].shape[0], weights[0].shape[1] + rank)
                room[:, :, :-rank] = torch.stack(weights)
                self._joined.append(room)
        return self._joined

    def zero_gradients(self) -> None:
        """Set the stacked tensors' gradients to zero; they stay in place, as parts of one flat tensor."""
        if self.flat_gradient is None:
            everything = self.parameters()
            device = everything[0].device
            self.flat_gradient = torch.zeros(sum(leaf.numel() for leaf in everything), device=device)
            start = 0
            for leaf in everything:
                leaf.grad = self.flat_gradient[start : start + leaf.numel()].view_as(leaf)
                start += leaf.numel()
        self.flat_gradient.zero_()

    def parameters(self) -> list[nn.Parameter]:
        """The stacked tensors, for the optimizer."""
        return [leaf for pair in self.leaves.values() for leaf in pair]

    def gradients(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """PEFT's parameters, each with its gradient."""
        return [(module.weight, leaf.grad[number]) for module, leaf, number in self._views]
