"""Speed against a plainer way of computing the same thing: `minillada bench sampler | train | moe`.

Each benchmark returns one flat dictionary: `ratio` (how many times as fast ours is, the median over pairs of runs),
`equal` (whether both gave the same result, checked in the same run), and the setting.
"""

from __future__ import annotations
