"""`check_*` functions of notebook 10, in the form of `exercises`: one diagnosis each, and nothing is ever raised."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..exercises.checking import attempt, same
from ..extras.levenshtein import apply_labels


def check_edits(function: Callable) -> bool:
    """`function(p [n, V], ids [n], masked [n], threshold) -> bool [n]`: where token editing rewrites, from probabilities p."""
    generator = torch.Generator().manual_seed(20)
    for threshold in (0.3, 0.0, 0.5):
        p = torch.randn(12, 5, generator=generator).softmax(-1)
        ids, masked = torch.randint(5, (12,), generator=generator), torch.rand(12, generator=generator) < 0.3
        best, token = p.max(-1)
        ids[:3], masked[:3] = token[:3], False
        other, sure = token != ids, best > threshold
        hints = {
            "a mask is filled by the commit rule, not edited; leave masked positions out": other & sure,
            "where the likeliest token already stands, nothing is rewritten": sure & ~masked,
            "another token must also be likelier than the threshold": other & ~masked,
            "compare the probability of the likeliest token with the threshold, not that of the token that stands there": (
                other & ~masked & (p.gather(1, ids[:, None])[:, 0] < threshold)
            ),
        }
        result = attempt(function, p, ids, masked, threshold)
        if result is None or not same(result, other & sure & ~masked, hints):
            return False
    print("correct: with threshold 1 it never edits, with 0 it follows the likeliest token everywhere")
    return True


def check_lcs(function: Callable) -> bool:
    """`function(a, b) -> int`, the length of a longest common subsequence of two lists."""
    pairs = [
        ([1, 2, 3, 4], [2, 4]),
        ([1, 2, 1, 2], [2, 1, 2, 1]),
        ([], [1]),
        ([5, 1, 2, 6, 3], [1, 7, 2, 3]),
        ([1, 2], [2, 1]),
        ([3, 3], [3]),
    ]
    for a, b in pairs:
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        runs = [k for i in range(len(a)) for j in range(len(b)) for k in range(1, len(a) + 1) if a[i : i + k] == b[j : j + k]]
        hints = {
            "that counts common tokens in any order; a subsequence keeps the order": torch.tensor(len([x for x in {*a} if x in b])),
            "that is the longest common piece; a subsequence may leave tokens out in between": torch.tensor(max(runs, default=0)),
            "that is how many tokens differ; count the ones that can stay": torch.tensor(max(len(a), len(b)) - table[-1][-1]),
        }
        result = attempt(function, list(a), list(b))
        if result is None:
            return False
        if not same(result, torch.tensor(table[-1][-1]), hints):
            print(f"(the lists were {a} and {b})")
            return False
    print("correct: so many tokens of a draft can be kept")
    return True


def check_round(function: Callable) -> bool:
    """`function(draft, labels, length) -> list`, one round of Levenshtein editing; labels are tokens, "DELETE" or "INSERT"."""
    cases = [
        (["a", "thick", "seven", "."], ["a", "DELETE", "seven", "."]),
        (["a", "seven", ".", "."], ["a", "INSERT", ".", "."]),
        (["a", "thin", "thick", "one", "."], ["INSERT", "thick", "DELETE", "INSERT", "."]),
        (["a", "b", "c", "."], ["INSERT", "INSERT", "x", "."]),
    ]
    words = sorted({w for case in cases for part in case for w in part} - {"DELETE", "INSERT"}) + ["mask", "DELETE", "INSERT"]
    number = {w: i for i, w in enumerate(words)}
    for draft, labels in cases:
        length = len(draft)
        ids, wanted = (torch.tensor([[number[w] for w in part]]) for part in (draft, labels))
        right = apply_labels(ids, wanted, number["DELETE"], number["INSERT"], number["mask"], number["."])
        expected = [words[i] for i in right[0].tolist()]
        result = attempt(function, list(draft), list(labels), length)
        if result is None:
            return False
        if result == expected:
            continue
        print(f"for {draft} with {labels} the answer is {expected}, yours is {result}")
        if not isinstance(result, list) or len(result) != length:
            print(f"hint: pad with '.' or cut, so that {length} tokens remain")
        elif "INSERT" in result or "DELETE" in result:
            print("hint: operations are carried out, they never stand in the text")
        elif "INSERT" in labels and "mask" not in result:
            print("hint: INSERT puts 'mask' before the token, and keeps the token")
        return False
    print("correct: this is levenshtein.apply_labels for one row")
    return True
