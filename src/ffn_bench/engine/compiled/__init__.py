"""The compiled engine: whole mini-batch steps of a feed-forward network in one call of machine code.

At its door are NumPy arrays (`compiled_engine.py`), behind it no Python runs until a call returns. On one
core of a Xeon with AVX-512 a run of 16-10-20-15-26, batch 32, Adam, float32 makes 134,000 steps a second,
with the measurements that it logs (README's table); a step of 784-128-64-10, batch 64, takes 1.14 times what
OpenBLAS needs for its products alone.
The first use on a machine compiles for two seconds; later processes load 35 kB in a twentieth of one,
without numba.

**Two ways to machine code.** What computes is plain Python, called once with registers in place of numbers
(`registers.py`, `vector_math.py`): operators write LLVM instructions, the body of a loop over whole
registers (`writer.py`). So are written σ and σ' (`model/activations.py`), update rules (`loops.py`), losses
(`losses.py`), products of matrices and transposition (`products.py`), each a function of its own: a new
rule compiles itself and nothing else. The loops over layers, batches and steps around them (`kernels.py`)
go through numba, and call them by address. llvmlite makes machine code of both (`machine_code.py`), and
`cache.py` keeps it.

**Layout.** A mini-batch is kept [features][batch], the batch filled up to whole registers of 64 bytes (16
numbers in float32), so that every width of a layer is a good one. θ is W `[n_in, n_out]` and b, layer by
layer; as h has a row of ones behind it, b is the last row of W:

              n_out                          b rows of x                           b
           ┌─────────┐                      ┌───────────┐                    ┌───────────┐
           │         │                      │           │                    │           │
      n_in │    W    │                 n_in │     h     │              n_out │     h̄     │  =  [W; b]ᵀ [h; 1]
           │         │                      │           │                    │           │
           ├─────────┤                      ├───────────┤                    └───────────┘
         1 │    b    │                    1 │ 1 1 … 1 1 │                     registers →
           └─────────┘                      └───────────┘

With that forward pass, backward pass and gradient are one and the same product,

    out[r, :] = Σ_k A[r, k] V[k, :]     forward   h̄ = [W; b]ᵀ [h; 1]
                                        backward  g = W ḡ
                                        gradient  of [W; b]: [h; 1] ḡᵀ, ḡ transposed beforehand

A read with any strides, one number at a time, V and out by whole registers, a block of out kept in them.

**Exact.** Arithmetic is IEEE's without fast-math flags, fused multiply-adds and orders of sums are written
out: the same bits for any number of steps per call, whatever else runs, and on every x86 processor with AVX2
or AVX-512, and a rule gives the bits that NumPy gives. Numbers below the smallest normal one count as 0
(`instructions.py`). A rule's coefficients and the schedule are computed before, in Python's float64, with
the C library's pow and cos: another C library may round them differently. On ARM it trains, too, but
denormals are kept there, and no bits are promised between ARM and x86.
"""
