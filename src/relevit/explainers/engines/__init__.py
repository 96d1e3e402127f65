"""How attention with relevance is computed: three engines that give the same, `map`, `tiled` and `triton`.

Each is a module with these four functions, of which `frugal_attention` makes one differentiable operation:
`forward` (output, and what is kept for later), `backward` (the derivatives by query, key, value and bias, and on the way
what the row of relevance needs or adds), `carry` (r' = r Abar) and `carry_back` (the derivative of a loss by r).
"""
