"""Forward and backward passes as CUDA graphs: recorded once for each shape of a batch, then replayed.

A GPU is through with the hundreds of small kernels of a pass over short texts sooner than Python can ask for them one
by one. A graph asks for all of them at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

Inputs = dict[str, torch.Tensor]
_RECORDABLE = frozenset({"bert"})


def can_record(model: PreTrainedModel) -> bool:
    """Return whether the passes of `model` can be recorded: none of their kernels depends on what the texts are.

    Tried on a GPU with BERT alone.
    """
    return model.device.type == "cuda" and model.base_model.config.model_type in _RECORDABLE


class NarrowWeights:
    """Weights of linear layers and layer norms in bfloat16, for passes that would convert each where it is used.

    The parameters stay in fp32. Gradients are summed in bfloat16 while they are in place, and in fp32 from then on.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = [module for module in model.modules() if type(module) in (nn.Linear, nn.LayerNorm)]
        own = [parameter for module in modules for parameter in module.parameters(recurse=False)]
        self._trained = [parameter for parameter in own if parameter.requires_grad]
        self._narrow = {id(parameter): parameter.detach().bfloat16() for parameter in own}
        self._parameters = own

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it lasts, narrow copies are the parameters; then their gradients are added to those before."""
        wide = [parameter.data for parameter in self._parameters]
        before = [parameter.grad for parameter in self._trained]
        trained = [parameter.detach() for parameter in self._trained]
        torch._foreach_copy_([self._narrow[id(parameter)] for parameter in self._trained], trained)
        for parameter in self._parameters:
            parameter.grad = None
            parameter.data = self._narrow[id(parameter)]
        try:
            yield
        finally:
            found = [parameter.grad for parameter in self._trained]
            for parameter in self._trained:
                parameter.grad = None
            for parameter, data in zip(self._parameters, wide, strict=True):
                parameter.data = data
        for parameter, gradient in zip(self._trained, before, strict=True):
            parameter.grad = gradient
        self._add(found)

    def _add(self, narrow: list[torch.Tensor | None]) -> None:
        """Add gradients, None where there are none, to those of the trained parameters."""
        reached = [(parameter, new) for parameter, new in zip(self._trained, narrow, strict=True) if new is not None]
        if not reached:
            return
        wide = [torch.empty_like(parameter) for parameter, _ in reached]
        torch._foreach_copy_(wide, [new for _, new in reached])
        sums, addends = [], []
        for (parameter, _), new in zip(reached, wide, strict=True):
            if parameter.grad is None:
                parameter.grad = new
            else:
                sums.append(parameter.grad)
                addends.append(new)
        if sums:
            torch._foreach_add_(sums, addends)


@dataclass(frozen=True)
class _Graph:
    inputs: Inputs
    graph: torch.cuda.CUDAGraph
    loss: torch.Tensor

    def replay(self, inputs: Inputs) -> torch.Tensor:
        for name, tensor in self.inputs.items():
            tensor.copy_(inputs[name], non_blocking=True)
        self.graph.replay()
        return self.loss.clone()


class GraphedPasses:
    """Does what `passes` does: adds gradients of a batch to the parameters of `model`, and returns its loss.

    With `narrow`, weights are converted to bfloat16 once for all of `passes`. The gradients always lie in the same
    tensors, which are zeroed where a parameter has none (zero_grad sets it to None). Random numbers go on from graph to
    graph as they would without.
    """

    def __init__(self, model: PreTrainedModel, passes: Callable[[Inputs], torch.Tensor], narrow: bool) -> None:
        self._passes = passes
        self._weights = NarrowWeights(model).in_place if narrow else nullcontext
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._gradients: list[torch.Tensor] = []
        self._graphs: dict[tuple[torch.Size, ...], _Graph] = {}
        self._pool: Any = None
        # One for all: torch keeps a workspace for each stream that it has multiplied matrices on.
        self._stream = torch.cuda.Stream()

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        """Return the loss of a batch, a tensor of its own."""
        shapes = tuple(tensor.shape for tensor in inputs.values())
        if shapes not in self._graphs:
            self._graphs[shapes] = self._record(inputs)
        self._provide_gradients()
        return self._graphs[shapes].replay(inputs)

    def _record(self, inputs: Inputs) -> _Graph:
        """Return the graph of a batch of these shapes; neither gradients nor random numbers are any further."""
        own = {name: tensor.clone() for name, tensor in inputs.items()}
        random = torch.cuda.get_rng_state()
        kept = {id(parameter): parameter.grad for parameter in self._parameters}
        self._warm_up(own)
        torch.cuda.set_rng_state(random)
        if not self._gradients:
            self._parameters = [parameter for parameter in self._parameters if parameter.grad is not None]
            self._gradients = [torch.zeros_like(parameter) for parameter in self._parameters]
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            loss = self._pass(own)
        self._pool = graph.pool()
        for parameter in self._parameters:
            parameter.grad = kept[id(parameter)]
        return _Graph(own, graph, loss)

    def _pass(self, inputs: Inputs) -> torch.Tensor:
        with self._weights():
            return self._passes(inputs)

    def _warm_up(self, inputs: Inputs) -> None:
        """Let libraries set up what must not be recorded, on another stream as torch's notes on CUDA graphs ask for."""
        for parameter in self._parameters:
            parameter.grad = None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._pass(inputs)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _provide_gradients(self) -> None:
        if self._parameters[0].grad is None:
            torch._foreach_zero_(self._gradients)
            for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
                parameter.grad = gradient
