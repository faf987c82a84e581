"""Exercises of notebook 13, faster decoding."""

import torch

from ..exercises.checking import Case, Cases, exercise


@exercise("correct: threshold 1 never edits, threshold 0 follows the likeliest token everywhere")
def check_edits() -> Cases:
    """`function(p [n, V], ids [n], masked [n], threshold) -> bool [n]`: where editing rewrites."""
    generator = torch.Generator().manual_seed(20)
    for threshold in (0.25, 0.0, 0.5):
        p = torch.randn(12, 5, generator=generator).softmax(-1)
        ids = torch.randint(5, (12,), generator=generator)
        masked = torch.rand(12, generator=generator) < 0.3
        if threshold:  # the best of position 3 has exactly this probability
            p[3] = torch.tensor([threshold] + 4 * [(1 - threshold) / 4])
            ids[3], masked[3] = 1, False
        best, token = p.max(-1)
        ids[:3], masked[:3] = token[:3], False
        other, sure = (token != ids) & ~masked, best > threshold
        unsure, on_it = p.gather(1, ids[:, None])[:, 0] < threshold, best >= threshold
        mistakes = {
            "a mask is filled by the commit rule: leave it out": (token != ids) & sure,
            "where the likeliest token already stands, nothing is rewritten": sure & ~masked,
            "another token must also be likelier than the threshold": other,
            "compare the likeliest token, not the one that stands there": other & unsure,
            "a probability on the threshold does not rewrite: >, not >=": other & on_it,
        }
        yield Case((p, ids, masked, threshold), other & sure, mistakes)


def common(a: list[int], b: list[int]) -> int:
    """Length of a longest common subsequence."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return common(a[1:], b[1:]) + 1
    return max(common(a[1:], b), common(a, b[1:]))


def edit_distance(a: list[int], b: list[int]) -> int:
    """Fewest deletions, insertions and replacements that turn a into b (Levenshtein)."""
    if not a or not b:
        return len(a) + len(b)
    replaced = edit_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(replaced, edit_distance(a[1:], b) + 1, edit_distance(a, b[1:]) + 1)


def longest_piece(a: list[int], b: list[int]) -> int:
    """Length of the longest piece without gaps that occurs in both lists."""
    pieces = [a[i:j] for i in range(len(a)) for j in range(i + 1, len(a) + 1)]
    places = range(len(b))
    return max((len(p) for p in pieces if any(b[i : i + len(p)] == p for i in places)), default=0)


@exercise("correct: so many tokens of a draft can be kept")
def check_lcs() -> Cases:
    """`function(a, b) -> int`: the length of a longest common subsequence of two lists."""
    pairs: list[tuple[list[int], list[int]]] = [
        ([1, 2, 3, 4], [2, 4]),
        ([1, 2, 1, 2], [2, 1, 2, 1]),
        ([], [1]),
        ([5, 1, 2, 6, 3], [1, 7, 2, 3]),
        ([1, 2], [2, 1]),
        ([3, 3], [3]),
        ([1, 2, 3], [4, 5]),
    ]
    for a, b in pairs:
        right = common(a, b)
        mistakes = {
            "that counts common tokens in any order; a subsequence keeps the order": len(
                {*a} & {*b}
            ),
            "that is the longest common piece; a subsequence may have gaps": longest_piece(a, b),
            "that is how many tokens differ; count those that stay": max(len(a), len(b)) - right,
            "that is the edit distance; count the tokens that stay": edit_distance(a, b),
            "those are deletions plus insertions; count what stays": len(a) + len(b) - 2 * right,
        }
        yield Case((a, b), right, mistakes)


def edited(draft: list[str], labels: list[str], keep: bool = True, mask: bool = True) -> list[str]:
    """A draft after its labels; without `keep` or `mask`, INSERT forgets the token or the mask."""
    out = []
    for token, label in zip(draft, labels):
        if label == "INSERT":
            out += ["mask"] * mask + [token] * keep
        elif label != "DELETE":
            out.append(label)
    return out


@exercise("correct: this is levenshtein.apply_labels for one row")
def check_round() -> Cases:
    """`function(draft, labels, length) -> list`: one round; labels: tokens, "DELETE", "INSERT"."""
    rounds = [
        (["a", "thick", "seven", "."], ["a", "DELETE", "seven", "."]),
        (["a", "seven", ".", "."], ["a", "INSERT", ".", "."]),
        (["a", "thin", "thick", "one", "."], ["INSERT", "thick", "DELETE", "INSERT", "."]),
        (["a", "b", "c", "."], ["INSERT", "INSERT", "x", "."]),
    ]
    for draft, labels in rounds:
        length, out = len(draft), edited(draft, labels)
        padding = length * ["."]
        uncut = out + padding[: max(0, length - len(out))]
        inserted = "INSERT puts 'mask' before the token and keeps the token"
        mistakes = {
            "pad with '.', so that the length stays the same": out[:length],
            "cut what is too long, so that the length stays the same": uncut,
            "pad with '.' or cut, so that the length stays the same": out,
            "operations are carried out, they never stand in the text": labels,
            inserted: (edited(draft, labels, mask=False) + padding)[:length],
            f"{inserted}; yours is lost": (edited(draft, labels, keep=False) + padding)[:length],
        }
        yield Case((draft, labels, length), (out + padding)[:length], mistakes)
