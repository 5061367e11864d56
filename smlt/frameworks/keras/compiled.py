"""A function of a batch as a TensorFlow graph: traced once a structure of batches, with the batch size left open."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.frameworks.blame import Frame
from smlt.frameworks.keras.blame import GraphError

UNREPEATABLE = frozenset(
    {"RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "RandomGamma", "RandomShuffle"}
    | {"RandomPoisson", "RandomPoissonV2", "Multinomial", "ParameterizedTruncatedNormal", "StatefulUniform"}
    | {"StatefulUniformInt", "StatefulUniformFullInt", "StatefulStandardNormalV2", "StatefulTruncatedNormal"}
    | {"StatefulRandomBinomial", "RngSkip", "RngReadAndSkip"}
)
"""Operations that keep hidden state, so that a step computed again would differ."""


class CompiledStep:
    """`function(batch, *scalars)`, where the scalars are float32.

    Args:
        function: called by TensorFlow while tracing.
        name: of the user's hook in it, for errors.
        eager: call it as it is, for debugging.
        on_trace: told the variables that a new graph uses, in the order in which it met them.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, eager: bool, on_trace: Callable[[Sequence[Any]], None]
    ) -> None:
        self._function, self._name, self._eager, self._on_trace = function, name, eager, on_trace
        self._graphs: dict[Any, Any] = {}

    def __call__(self, batch: Any, *scalars: float) -> Any:
        """Run it.

        Raises:
            GraphError: an operation failed.
            TaskError: the graph holds an operation whose results cannot be repeated.
        """
        tensors = tf.nest.map_structure(tf.convert_to_tensor, batch)
        numbers = [tf.constant(scalar, tf.float32) for scalar in scalars]
        if self._eager:
            return self._function(tensors, *numbers)
        graph = self._graph_for(tensors, numbers)
        try:
            return graph(tensors, *numbers)
        except tf.errors.OpError as error:
            raise GraphError(type(error).__name__, error.message, _frames_of(graph, error.message)) from error

    def _graph_for(self, tensors: Any, numbers: Sequence[Any]) -> Any:
        specs = tf.nest.map_structure(lambda each: tf.TensorSpec((None, *each.shape[1:]), each.dtype), tensors)
        key = (repr(tf.nest.map_structure(lambda _: None, specs)), tuple(tf.nest.flatten(specs)))
        if key not in self._graphs:
            function = tf.function(self._function, autograph=False)
            graph = function.get_concrete_function(specs, *(tf.TensorSpec((), tf.float32) for _ in numbers))
            self._refuse_unrepeatable(graph)
            self._on_trace(_variables_of(graph))
            self._graphs[key] = graph
        return self._graphs[key]

    def _refuse_unrepeatable(self, graph: Any) -> None:
        definition = graph.graph.as_graph_def()
        used = {node.op for node in definition.node}
        used |= {node.op for function in definition.library.function for node in function.node_def}
        if hidden := used & UNREPEATABLE:
            raise TaskError(
                f"{self._name} uses TensorFlow's {', '.join(sorted(hidden))}, which gives other values when a step is "
                "computed again",
                "use Keras' layers, keras.random with a keras.random.SeedGenerator, or tf.random.stateless_…",
            )


def _variables_of(graph: Any) -> list[Any]:
    by_handle = {id(variable.handle): variable for variable in graph.variables}
    return [by_handle[id(outer)] for outer, _ in graph.graph.captures if id(outer) in by_handle]


def _frames_of(graph: Any, message: str) -> list[Frame]:
    """Where the operation that the message names was traced; empty where it was traced elsewhere."""
    for name in re.findall(r"\{\{node ([^}]*)\}\}", message):
        try:
            operation = graph.graph.get_operation_by_name(name)
        except KeyError:
            continue
        return [(frame.filename, frame.lineno) for frame in operation.traceback]
    return []
