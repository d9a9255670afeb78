"""The LM head, spent on trained tokens alone. The loss formulas stay TRL's; this is where its log-probs come from.

Most of a tool-using episode is prompt and tool text. TRL masks it out of the loss after projecting it to the whole
vocabulary; on a CPU, where it projects the padding too, that is most of a step.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any, final

from torch import Tensor
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import FusedCausalLMOutput

from envs.trajectory import PlacedImage

VOCABULARY_TILE = 8192
"""Logits of how many vocabulary entries are held at once: a quarter of TRL's, and so of their memory."""

SCALED = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling", "output_router_logits")
"""Config fields of models that scale their logits or have a router: TRL's own path knows them all, so they take it."""


def project_trained_only(model: Any, *, temperature: float) -> None:
    """Make a model that went through TRL's `add_fused_lm_head` project only labelled positions, on any device.

    On CUDA TRL does so itself. Same kernel, same numbers; what is left out has label -100 and no gradient.
    """
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in SCALED):
        return
    softcap = getattr(config, "final_logit_softcapping", None)
    fused = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None or labels.device.type != "cpu":
            if labels is not None:
                kwargs["labels"] = labels
            return fused(*args, fused_lm_head=fused_lm_head, **kwargs)
        hidden = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state[:, :-1]
        wanted = labels[:, 1:] != -100
        head = self.get_output_embeddings()
        found = ChunkedLogProbFunction.apply(
            hidden[wanted],
            head.weight,
            head.bias,
            labels[:, 1:][wanted],
            temperature,
            VOCABULARY_TILE,
            softcap,
            1.0,
            ("log_probs", "entropy"),
        )
        # masked_scatter keeps the graph whole when nothing is trained: a differentiable zero.
        logps, entropy = (x.new_zeros(wanted.shape).masked_scatter(wanted, x) for x in found[:2])
        return FusedCausalLMOutput(log_probs=logps, entropy=entropy, label_mask=wanted)

    model.forward = types.MethodType(forward, model)


@final
class TrainedTokensOnly:
    """A model as TRL's log-prob method calls it, with the labels of untrained tokens taken away.

    `mask` has shape (rows, completion tokens); TRL passes the rows in order, in one or more chunks. `pictures` lists
    those of each row, for a model that `training.pixels.show_pictures` prepared.
    """

    def __init__(self, model: Any, mask: Tensor, pictures: Sequence[Sequence[PlacedImage]] | None = None) -> None:
        self.model = model
        self.mask = mask
        self.pictures = pictures
        self._row = 0

    def __call__(self, **inputs: Any) -> Any:
        labels: Tensor = inputs.pop("labels")
        rows, width = labels.shape[0], self.mask.shape[1]
        labels = labels.clone()
        labels[:, -width:].masked_fill_(self.mask[self._row : self._row + rows] == 0, -100)
        if self.pictures is not None:
            inputs["pictures"] = self.pictures[self._row : self._row + rows]
        self._row += rows
        return self.model(**inputs, labels=labels)


def scale_gradient(values: Tensor, weights_B: Tensor) -> Tensor:
    """`values` unchanged, their gradient multiplied by each row's weight.

    A loss that averages rows then averages whatever the weights say, its KL term included, whatever its formula.
    """
    return values.detach() + (values - values.detach()) * weights_B.to(values.dtype).unsqueeze(1)


def logp_gap(trainer: Tensor, sampler: Tensor, mask: Tensor) -> tuple[float, float]:
    """Mean and greatest |sampler - trainer| over trained tokens, in nats; zeros where there are none."""
    gap = (trainer.detach().float() - sampler.float()).abs()[mask.bool()]
    if not gap.numel():
        return 0.0, 0.0
    return float(gap.mean()), float(gap.max())
