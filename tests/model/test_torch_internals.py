"""What is relied on of PyTorch's private names."""

from __future__ import annotations

import re
import subprocess
import sys

import torch

from ffn_bench.model.torch_internals import foreach_norm


def test_foreach_norm_is_the_norm_of_each() -> None:
    tensors = [torch.randn(3, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    for norm, tensor in zip(foreach_norm(tensors), tensors, strict=True):
        torch.testing.assert_close(norm, torch.linalg.vector_norm(tensor))


LATE_MODULES = """
import sys
from ffn_bench.model.torch_internals import put_compiler_off
put_compiler_off()
import torch
p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.NAdam, torch.optim.Adadelta):
    optimizer = kind([p], lr=0.1)
    optimizer.zero_grad()
    g = torch.autograd.grad((p**3).sum(), p, create_graph=True)[0]
    rows, = torch.autograd.grad(g, p, torch.eye(2, dtype=p.dtype), is_grads_batched=True)
    p.grad = rows.sum(0)
    optimizer.step()
assert not {"sympy", "torch._dynamo.eval_frame"} & set(sys.modules)
try:
    torch.autograd.grad((p**2).sum()[None], p, torch.ones(3, dtype=p.dtype))
    raise SystemExit("shapes were not compared")
except RuntimeError as e:
    assert "Mismatch in shape" in str(e)
import torch._dynamo.config
from torch.fx.experimental.symbolic_shapes import ShapeEnv
assert torch._dynamo.OptimizedModule and sys.modules["torch._dynamo"].__file__
from torch._dynamo.utils import counters
print(p.tolist())
"""


def test_optimizers_import_no_compiler_and_whoever_wants_one_gets_it() -> None:
    put_off, as_ever = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for code in (
            LATE_MODULES,
            "\n".join(
                line for line in LATE_MODULES.splitlines() if not re.match("put_comp|assert not", line)
            ),
        )
    )
    assert put_off == as_ever
